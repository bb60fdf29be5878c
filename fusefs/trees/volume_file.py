"""An open file of a volume: a reader or a writer, as the kernel sees it.

Owns what of an open file the tree must know: which version it shows. Threads: as readers and writers.
"""

import errno
import os
from collections.abc import Callable

from fusefs import ops
from fusefs.handles import OpenFile
from fusefs.inodes import Inode
from fusefs.trees.base import refuse, seek_in_data
from fusefs.trees.kept import forget_mtime
from genro_storage.entry import Entry, Kind, Version
from genro_storage.reading.reader import BlockReader, Reader
from genro_storage.runtime import Clock, about_to_block
from genro_storage.writing.writer import StagedReader, Writer

#: Copying so much into a memory mount takes 5 ms; a thread that reads /dev/fuse is away no longer than that.
SOON_COMMITTED_BYTES = 16 << 20


class VolumeFile:
    """An open file over a reader or a writer."""

    def __init__(
        self,
        inode: Inode,
        handle: Reader | Writer,
        ino_seed: str,
        entry: Entry | None,
        clock: Clock,
        open_complete: Callable[[], int | None] = lambda: None,
        *,
        is_certain: bool = False,
    ) -> None:
        """ino_seed: see InodeNumbers. open_complete: a descriptor of the whole of what a reader shows, or None.

        is_certain: that this is entry.
        """
        self.inode = inode
        self.ino_seed = ino_seed
        self._handle = handle
        self._clock = clock
        self._open_complete = open_complete
        self._is_certain = is_certain
        self._version = None if isinstance(handle, Writer) or entry is None else entry.version
        self._mtime_ns = clock.time_ns() if entry is None else entry.mtime_ns

    def read(self, offset: int, size_bytes: int) -> ops.Data:
        if isinstance(self._handle, BlockReader):
            return self._handle.pieces(offset, size_bytes)
        return self._handle.read(offset, size_bytes)

    def write(self, offset: int, data: memoryview | bytes) -> int:
        self._changes()
        return self._writer().write(offset, data)

    def truncate(self, size_bytes: int) -> None:
        """Cut off, or lengthen with zeros."""
        self._changes()
        self._writer().truncate(size_bytes)

    def allocate(self, offset: int, size_bytes: int, mode: int) -> None:
        self._changes()
        self._writer().allocate(offset, size_bytes, mode)

    def seek(self, offset: int, whence: int) -> int:
        size_bytes = self._handle.size_bytes
        in_data = seek_in_data(offset, whence, size_bytes)
        if not isinstance(self._handle, Writer | StagedReader):
            return in_data
        found = self._handle.seek(offset, whence)
        if whence == os.SEEK_DATA and found >= size_bytes:
            refuse(errno.ENXIO)  # lseek(2): the rest of the file is a hole
        return found

    def copy_from(self, source: OpenFile, source_offset: int, offset: int, size_bytes: int) -> int:
        if not isinstance(source, VolumeFile):
            refuse(errno.EOPNOTSUPP)
        self._changes()
        return self._writer().copy_from(source._handle, source_offset, offset, size_bytes)

    def flush(self) -> None:
        if not isinstance(self._handle, Writer):
            return
        self._leave_to_workers_if_large()
        self._handle.flush()

    def fsync(self, *, data_only: bool) -> None:
        # sync(1) opens a file to read, and asks about the bytes of whoever writes it, or has written it.
        for file in [self, *self.inode.files]:
            if isinstance(file, VolumeFile) and isinstance(file._handle, Writer | StagedReader):
                file._leave_to_workers_if_large()
                file._handle.sync()
                return

    def release(self) -> None:
        if self.is_writer:
            self._leave_to_workers_if_large()
        self._handle.close()

    def fileno(self) -> None:
        return None

    @property
    def version(self) -> Version | None:
        """What a reader shows; None of a file under change, which all who have it open share."""
        return self._handle.version if isinstance(self._handle, StagedReader) else self._version

    def show(self, reader: Reader) -> None:
        """Read from this from now on."""
        replaced, self._handle = self._handle, reader
        replaced.close()

    def rebase(self, before: Version | None, after: Version | None) -> None:
        """What it shows has another version, by a change of what is no content."""
        if self._version is not None and self._version == before:
            self._version = after

    @property
    def content(self) -> Version | None:
        return self.version

    @property
    def stamp(self) -> Version | None:
        # A weak version may stay what it was while the bytes change.
        is_fixed = self._is_certain and not isinstance(self._handle, StagedReader)
        return self.version if is_fixed and self.version is not None and self.version.strong else None

    @property
    def is_read_only(self) -> bool:
        return not self.is_writer

    def open_backing(self) -> int | None:
        return None if self.version is None else self._open_complete()

    @property
    def entry(self) -> Entry:
        """The file as this handle sees it, whatever its name leads to by now."""
        return Entry('', Kind.FILE, self._handle.size_bytes, self._mtime_ns, self.version)

    @property
    def is_writer(self) -> bool:
        """Whether it was opened to write."""
        return isinstance(self._handle, Writer)

    def _leave_to_workers_if_large(self) -> None:
        if self._handle.size_bytes > SOON_COMMITTED_BYTES:
            about_to_block()

    def _changes(self) -> None:
        self.inode.pages = None
        self.inode.told_bytes = None
        forget_mtime(self.inode)
        self._mtime_ns = self._clock.time_ns()

    def _writer(self) -> Writer:
        if not isinstance(self._handle, Writer):
            refuse(errno.EBADF)
        return self._handle


def shows_another(inode: Inode, entry: Entry) -> bool:
    """Whether somebody has the inode open and reads another version than this."""
    return any(
        isinstance(file, VolumeFile) and file.version is not None and file.version != entry.version
        for file in list(inode.files)
    )
