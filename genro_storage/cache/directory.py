"""Where cached files lie on the disk: their keys, their names, and a directory that is this user's alone.

Owns the names: ``SHARD/FORMAT-DIGEST`` with an ending, ``.data`` for the bytes and ``.sums`` for the key and the
checksums, or ``.small`` for both. Files of another format have other names, so they are never opened, and as nobody
uses them they are the first to be evicted. Pure but for the making of directories. Threads: safe.
"""

import contextlib
import hashlib
import os
import struct
from pathlib import Path
from typing import NamedTuple

from genro_storage.local_disk import private_directory

#: Changes whenever the layout of one of them does.
FORMAT = 2
DATA, SUMS, SMALL = '.data', '.sums', '.small'
#: Nobody plants a link here (the directory is 0700), and no descriptor of the cache outlives an exec.
OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
#: The access time is ours to set: it says when the cache used a file, and not that somebody made a backup.
NO_STAMP = getattr(os, 'O_NOATIME', 0)

_LENGTHS = struct.Struct('<3I')


class FileKey(NamedTuple):
    """One version of one file, wherever it is mounted."""

    destination: str
    path: str
    version: str


def packed(key: FileKey) -> bytes:
    """The key as bytes, different for different keys, whatever characters (even lone surrogates) they hold."""
    parts = [part.encode('utf-8', 'surrogatepass') for part in key]
    return _LENGTHS.pack(*map(len, parts)) + b''.join(parts)


def name_of(key: bytes) -> str:
    """The name of the files of a packed key, without an ending.

    160 bits, so that nobody finds two keys of one name; if somebody does, the key in the header tells them apart. 256
    shards keep a directory of a million small files at 8,000 names.
    """
    digest = hashlib.blake2b(key, digest_size=20).hexdigest()
    return f'{digest[:2]}/{FORMAT}-{digest[2:]}'


def make_parent(root: Path, name: str) -> None:
    """Make the directory for a file of this name. Raises StoragePermissionError, OSError."""
    private_directory(root)
    with contextlib.suppress(FileExistsError):
        os.mkdir(f'{root}/{name[:2]}', 0o700)


def open_unstamped(path: str, flags: int) -> int:
    """Open a cached file without a new access time. Raises OSError."""
    try:
        return os.open(path, flags | NO_STAMP, 0o600)
    except PermissionError:  # open(2): O_NOATIME is the owner's; whose it is, is looked at next
        return os.open(path, flags, 0o600)
