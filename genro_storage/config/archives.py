"""The definitions of archives: zip, tar, and whatever else libarchive reads.

Owns that the archive is a file of this machine or one in another mount. Opens nothing. Threads: values, never changed.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from genro_storage.config import keys
from genro_storage.config.keys import Key
from genro_storage.config.read_only import ReadOnlyDefinition
from genro_storage.config.trust import Privilege


class ArchiveDefinition(ReadOnlyDefinition, frozen=True, kw_only=True):
    """A file that holds files. ``file`` is an absolute path of this machine, or 'mount:path'."""

    file: Annotated[str, Key(keys.place)]

    @property
    def refers_to(self) -> str | None:
        """See Definition."""
        return None if os.path.isabs(self.file) else self.file.partition(':')[0]

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition."""
        yield from super().needs(values)
        yield 'file', Privilege.MOUNTS if _is_in_a_mount(values.get('file')) else Privilege.LOCAL, ''

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if not os.path.isabs(self.file):
            try:
                normalised = keys.mount_path(keys.Given(self.file, ''))
            except ValueError:
                normalised = ''
            if normalised != self.file or self.file.endswith(':'):
                yield 'file', "expected an absolute path, or 'mount:path', without '..'"
        elif '..' in self.file.split('/') or '\0' in self.file:
            yield 'file', "expected an absolute path without '..'"


class ZipDefinition(ArchiveDefinition, frozen=True, kw_only=True, tag='zip'):
    """The files in a zip archive."""


class TarDefinition(ArchiveDefinition, frozen=True, kw_only=True, tag='tar'):
    """The files in a tar archive, as it is or compressed by gzip, bzip2 or xz."""


class LibarchiveDefinition(ArchiveDefinition, frozen=True, kw_only=True, tag='libarchive'):
    """The files in an archive of any of the kinds that libarchive reads: 7z, rar, iso, cpio, tar.zst and others."""


def _is_in_a_mount(file: object) -> bool:
    return isinstance(file, str) and not file.startswith('/') and ':' in file.partition('/')[0]
