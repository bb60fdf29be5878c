"""The file that an archive is: of this machine, or in another mount.

Owns how it is looked at, opened and read, one version from open to close. Knows nothing of what is in it.
Threads: safe; an open archive has no state that changes.
"""

import hashlib
import io
import os
import stat
import weakref
from collections.abc import Callable
from typing import Protocol

from genro_storage.backends.mounts import Mounts
from genro_storage.backends.oserrors import translating
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotFoundError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

#: What whoever reads an index may ask for at a time. A header that says to be longer is not believed: of what is
#: compressed, a few bytes can say so.
HEADER_MOST_BYTES = 256 << 20


class OpenArchive:
    """One version of an archive. It is given back when nobody refers to it any more.

    ``tag`` tells this version of this archive from everything else.
    """

    def __init__(
        self, entry: Entry, origin: str, read: Callable[[int, int], bytes | memoryview], close: Callable[[], None]
    ) -> None:
        version = entry.version or Version.weak(entry.mtime_ns, entry.size_bytes)
        self.version = version
        self.mtime_ns = entry.modified_ns
        self.size_bytes = entry.size_bytes
        self.tag = hashlib.blake2b(f'{origin}\0{version.tag}'.encode(errors='replace'), digest_size=12).hexdigest()
        self._read = read
        # Not by somebody who closes: threads may be reading in it while another one finds a newer version.
        weakref.finalize(self, close)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """These bytes, fewer only at the end. Raises StorageConflictError if the version is gone."""
        return bytes(self._read(offset, size_bytes))


class ArchivePlace(Protocol):
    """Where an archive is."""

    def look(self) -> Version:
        """Its version now. Raises StorageUnavailableError if there is none."""

    def open(self) -> OpenArchive:
        """Open what is there now. Raises as look does."""


class LocalPlace:
    """A file of this machine."""

    def __init__(self, path: str) -> None:
        self._path = path

    def look(self) -> Version:
        """See ArchivePlace."""
        with translating(lambda: repr(self._path)):
            try:
                status = os.stat(self._path)
            except FileNotFoundError as error:
                raise _missing(self._path) from error
        return _entry(status).version or Version('', strong=False)

    def open(self) -> OpenArchive:
        """See ArchivePlace."""
        with translating(lambda: repr(self._path)):
            try:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise _missing(self._path) from error
            status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            kind = StorageIsADirectoryError if stat.S_ISDIR(status.st_mode) else StorageUnsupportedError
            raise kind(f'{self._path!r} is no file, and so no archive')
        entry = _entry(status)

        def read(offset: int, size_bytes: int) -> bytes:
            with translating(lambda: repr(self._path)):
                pieces = []
                while size_bytes and (piece := os.pread(descriptor, size_bytes, offset)):
                    pieces.append(piece)
                    offset, size_bytes = offset + len(piece), size_bytes - len(piece)
                # Compared after reading: a change before or during it shows either way.
                if _entry(os.fstat(descriptor)).version != entry.version:
                    raise StorageConflictError(f'{self._path!r} has changed since it was opened')
            return b''.join(pieces)

        return OpenArchive(entry, self._path, read, lambda: os.close(descriptor))


class MountPlace:
    """A file in another mount."""

    def __init__(self, mounts: Mounts, mount: str, path: str) -> None:
        self._mounts = mounts
        self._mount = mount
        self._path = path

    def look(self) -> Version:
        """See ArchivePlace."""
        try:
            entry = self._mounts.stat(self._mount, self._path)
        except StorageNotFoundError as error:
            raise _missing(f'{self._mount}:{self._path}') from error
        return entry.version or Version.weak(entry.mtime_ns, entry.size_bytes)

    def open(self) -> OpenArchive:
        """See ArchivePlace."""
        try:
            entry, file = self._mounts.open_read(self._mount, self._path)
        except StorageNotFoundError as error:
            raise _missing(f'{self._mount}:{self._path}') from error
        origin = f'{self._mounts.destination(self._mount)}\0{self._path}'
        return OpenArchive(entry, origin, file.read, file.close)


class ArchiveStream(io.RawIOBase):
    """A file that is read at offsets as one with a position, for libraries that want such."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int, most_bytes: int = HEADER_MOST_BYTES) -> None:
        self._read = read
        self._size_bytes = size_bytes
        self._most_bytes = most_bytes
        self._position = 0
        #: What reading raised. Libraries take any OSError for the end of the file, or for another kind of file.
        self.error: StorageError | None = None

    def readable(self) -> bool:
        """See IOBase."""
        return True

    def seekable(self) -> bool:
        """See IOBase."""
        return True

    def tell(self) -> int:
        """See IOBase."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See IOBase."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}[whence]
        if start + offset < 0:
            raise ValueError('an offset before the beginning')
        self._position = start + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """See IOBase. Raises StorageIOError for more than an archive's own tables can need."""
        rest = max(0, self._size_bytes - self._position)
        size = rest if size < 0 else min(size, rest)
        if size > self._most_bytes:
            raise StorageIOError(f'a header says to have {size} bytes; {self._most_bytes} at most are believed')
        try:
            data = self._read(self._position, size)
        except StorageError as error:
            self.error = error
            raise
        self._position += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """See RawIOBase."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _entry(status: os.stat_result) -> Entry:
    # Inode and change time beside the weak version of LocalBackend's kind: a file that is replaced always differs.
    tag = f'{status.st_mtime_ns}-{status.st_size}-{status.st_ino}-{status.st_ctime_ns}'
    return Entry('', Kind.FILE, status.st_size, status.st_mtime_ns, Version(tag, strong=False))


def _missing(name: str) -> StorageUnavailableError:
    # Not "not found": that would say of each file in it that the archive has none of its name.
    return StorageUnavailableError(f'the archive {name!r} is not there')
