"""docs/backends.md: what each backend can do, as those under test declare it and the contract shows it to be so.

Owns the rows and their form. The contract runs each case with the backend of its row, so that what it declares is what
was tested; `make matrix` writes the page after a run without a failure, and every other run compares.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genro_storage.backends.base import Backend, Capabilities, StoresMetadata

PAGE = Path(__file__).parents[2] / 'docs' / 'backends.md'
#: Set by make matrix: the page is written and not compared.
WRITING = 'GENRO_STORAGE_MATRIX'

#: Class of tests, by its module → what its row is called, the page that says how to set it up, and the test of its type
#: through the mount.
ROWS: Mapping[tuple[str, str], tuple[str, str, str]] = {
    ('test_backends', 'TestLocal'): ('local', 'local', 'test_posix'),
    ('test_backends', 'TestMemory'): ('memory', 'memory', 'test_posix'),
    ('test_object_store', 'TestBelowAPrefix'): ('S3, obstore (SeaweedFS)', 's3', 'test_posix'),
    ('test_backends', 'TestS3BelowAPrefix'): ('S3, s3fs (SeaweedFS)', 's3', ''),
    ('test_gcs', 'TestObstoreBelowAPrefix'): ('GCS, obstore (fake-gcs-server)', 'gcs', 'test_clouds'),
    ('test_gcs', 'TestFsspecBelowAPrefix'): ('GCS, gcsfs (fake-gcs-server)', 'gcs', 'test_clouds'),
    ('test_azure', 'TestObstoreBelowAPrefix'): ('Azure, obstore (Azurite)', 'azure', 'test_clouds'),
    ('test_azure', 'TestFsspecBelowAPrefix'): ('Azure, adlfs (Azurite)', 'azure', 'test_clouds'),
    ('test_sftp', 'TestOpenSsh'): ('SFTP (OpenSSH)', 'sftp', 'test_file_servers'),
    ('test_webdav', 'TestWebdav'): ('WebDAV (rclone)', 'webdav', 'test_file_servers'),
    ('test_ftp', 'TestFtp'): ('FTP (rclone)', 'ftp', 'test_file_servers'),
    ('test_smb', 'TestSmb'): ('SMB (Samba)', 'smb', 'test_file_servers'),
    ('test_http', 'TestHttp'): ('HTTP', 'http', 'test_file_servers'),
    ('test_archives', 'TestZip'): ('zip', 'zip', 'test_made_of_others'),
    ('test_archives', 'TestTar'): ('tar', 'tar', 'test_made_of_others'),
    ('test_archives', 'TestLibarchive'): ('libarchive', 'libarchive', 'test_made_of_others'),
    ('test_archives', 'TestGit'): ('git', 'git', 'test_made_of_others'),
    ('test_archives', 'TestGithubStub'): ('GitHub (a stub of its API)', 'github', ''),
    ('test_backends', 'TestFsspecFile'): ('fsspec (its local files)', 'fsspec', ''),
    ('test_backends', 'TestFsspecMemory'): ('fsspec (its memory)', 'fsspec', ''),
}

_COLUMNS: Mapping[str, Callable[[Backend, Capabilities], str]] = {
    'written': lambda backend, can: 'yes' if can.writable else 'no',
    'versions': lambda backend, can: 'strong' if can.strong_versions else 'time and size',
    'conditions': lambda backend, can: _of(can, 'by the server' if can.conditional_put else 'looked at before'),
    'replacing': lambda backend, can: _of(can, 'one step' if can.atomic_replace else 'two steps'),
    'rename': lambda backend, can: _of(can, 'one step' if can.atomic_rename else 'several'),
    'directories': lambda backend, can: 'its own' if can.real_directories else 'of keys',
    'times kept': lambda backend, can: _of(can, _times(backend, can)),
    'modes, attributes': lambda backend, can: _of(can, 'yes' if _has(backend, StoresMetadata, can) else 'no'),
}

_HEAD = """# What each backend can do

Made by `make matrix` out of a run of the contract suite (`genro_storage.testing.contract`): each row is what the
backend declares while all cases that follow from it pass, through the API, against the server in brackets; every run of
the tests compares. *Mount* names the tests (`tests/mount`) that use the type through the mounted tree. How to set each
one up is on its page.

- *written*: can be changed at all.
- *versions*: strong ones tell a change of the same size in the same second.
- *conditions*: who sees to it that a commit replaces only what it is based on.
- *replacing*, *rename* of a file: whether others can see a moment between; a commit never shows half a file.
- *directories*: kept by the server, or implied by keys and kept by markers.
- *times kept*: modification times of files that were set, by the server or in metadata.
- *modes, attributes*: `posix: store` and `user.*` have a place.
- *parts*: large files go up while they are written.

"""


def label_of(module: str, case: str) -> str | None:
    """The name of the row of a class of tests."""
    row = ROWS.get((module.rpartition('.')[2], case))
    return None if row is None else row[0]


def row_of(backend: Backend, *, parts: bool) -> tuple[str, ...]:
    """The cells of a backend. ``parts``: whether its class of tests says so."""
    can = backend.capabilities
    return *(told(backend, can) for told in _COLUMNS.values()), _of(can, 'yes' if parts else 'no')


def shown(rows: Mapping[str, tuple[str, ...]]) -> str:
    """The page."""
    lines = [('', *_COLUMNS, 'parts', 'mount'), ('---',) * (len(_COLUMNS) + 3)]
    for name, page, mount in ROWS.values():
        lines.append((f'[{name}](backends/{page}.md)', *rows[name], f'`{mount}`' if mount else '–'))
    return _HEAD + ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def committed() -> dict[str, tuple[str, ...]]:
    """The rows of the page as it is."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip('|').split(' | ')]
        name = re.match(r'\[(.+?)\]\(backends/', cells[0])
        if name:
            found[name[1]] = tuple(cells[1:-1])
    return found


def is_writing() -> bool:
    """Whether the page is to be written."""
    return WRITING in os.environ


def _of(can: Capabilities, said: str) -> str:
    return said if can.writable else '–'


def _has(backend: Backend, protocol: type[Any], can: Capabilities) -> bool:
    return isinstance(backend, protocol) and can.stores_metadata


def _times(backend: Backend, can: Capabilities) -> str:
    if can.stores_mtime:
        return 'by the server'
    return 'in metadata' if _has(backend, StoresMetadata, can) else 'no'
