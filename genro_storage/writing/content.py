"""The bytes of a staged file: one private file on the local disk.

Owns the file, from its making without a name to its end, its copies and the names it is given. Does not know which of
its bytes are true: what is missing of a base is a hole here, or whatever was fetched of it so far.

Threads: reads, and writes to different ranges, from any. A content is counted by Python's references: it is closed when
the last one who refers to it lets go. So whoever took it may read it without a lock, though another thread replaces it.
"""

import ctypes
import errno
import fcntl
import functools
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from genro_storage.entry import Extent
from genro_storage.errors import StorageIOError
from genro_storage.local_disk import local_disk_errors, private_directory
from genro_storage.runtime import about_to_block

#: What a copy costs less than handing a request over does. Above, a thread that serves does not wait for the disk.
_COPY_AT_ONCE_BYTES = 1 << 20
#: copy_file_range(2) moves up to 2 GiB in a call; less lets a signal in between.
_COPY_STEP_BYTES = 256 << 20
_BUFFER_BYTES = 1 << 20

# linux/fs.h: _IOW(0x94, 9, int).
_FICLONE: Final = 0x40049409
# linux/falloc.h.
FALLOC_FL_KEEP_SIZE: Final = 0x01
FALLOC_FL_PUNCH_HOLE: Final = 0x02
# ioctl_ficlone(2) and copy_file_range(2): what is answered for files and file systems that they do not serve.
_CANNOT = frozenset(
    {
        errno.EXDEV,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EBADF,
        errno.EPERM,
        errno.ETXTBSY,
        errno.EISDIR,
    }
)
# link(2): another disk, a file system without links, a file that had a name which was removed (ENOENT: Linux gives a
# file that began without a name its first one only), or no /proc.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.ENOENT})


_libc = ctypes.CDLL(None, use_errno=True)


class Content:
    """One file of mode 0600, without a name where the file system can: the end of the process is the end of it."""

    def __init__(self, descriptor: int, directory: Path, name: Path | None, *, writable: bool) -> None:
        self.descriptor = descriptor
        self.writable = writable
        self._directory = directory
        self._name = name
        # Not in a forked child: there only the descriptor is its own.
        weakref.finalize(self, _end, descriptor, name, os.getpid())

    @classmethod
    def create(cls, directory: Path) -> 'Content':
        """An empty one. Raises StorageNoSpaceError, StorageIOError, StoragePermissionError."""
        with local_disk_errors(directory):
            _prepare(directory)
            try:
                descriptor, name = _open(directory)
            except FileNotFoundError:  # somebody has removed it since
                _prepare.cache_clear()
                _prepare(directory)
                descriptor, name = _open(directory)
        return cls(descriptor, directory, name, writable=True)

    @classmethod
    def adopted(cls, descriptor: int, directory: Path) -> 'Content':
        """One over a descriptor that is its own from now on, never written; copies of it are in the directory."""
        return cls(descriptor, directory, None, writable=False)

    def fileno(self) -> int:
        """The descriptor, for as long as the content is referred to."""
        return self.descriptor

    def read(self, offset: int, size_bytes: int) -> bytes:
        """These bytes, fewer only at the end of the file. Raises StorageIOError."""
        with local_disk_errors(self._directory):
            data = os.pread(self.descriptor, size_bytes, offset)
            while 0 < len(data) < size_bytes:  # pread(2) stops short of 2 GiB
                more = os.pread(self.descriptor, size_bytes - len(data), offset + len(data))
                if not more:
                    break
                data += more
        return data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of it. Raises StorageNoSpaceError, StorageIOError."""
        view = memoryview(data)
        with local_disk_errors(self._directory):
            while view:
                written = os.pwrite(self.descriptor, view, offset)
                view = view[written:]
                offset += written

    def fsync(self) -> None:
        """Make it outlast a loss of power. Raises StorageIOError."""
        with local_disk_errors(self._directory):
            os.fsync(self.descriptor)

    def zero(self, extent: Extent) -> None:
        """Make a range zeros, and a hole where the file system can; the file reaches its end then.

        Raises StorageNoSpaceError, StorageIOError.
        """
        with local_disk_errors(self._directory):
            if os.fstat(self.descriptor).st_size < extent.end:
                os.ftruncate(self.descriptor, extent.end)
            if not _allocate(self.descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, extent):
                for offset in range(extent.offset, extent.end, _BUFFER_BYTES):
                    self.write(offset, bytes(min(_BUFFER_BYTES, extent.end - offset)))

    def reserve(self, extent: Extent) -> None:
        """Have room for a range, where the file system can promise that. Raises StorageNoSpaceError, StorageIOError."""
        with local_disk_errors(self._directory):
            _allocate(self.descriptor, FALLOC_FL_KEEP_SIZE, extent)

    def seek(self, offset: int, whence: int, end: int) -> int:
        """Where data or a hole begins, at most ``end``; all is data where the file system tells of no holes."""
        with local_disk_errors(self._directory):
            if whence == os.SEEK_HOLE and offset >= os.fstat(self.descriptor).st_size:
                return min(end, offset)
            return min(end, _seek(self.descriptor, offset, whence, end))

    def copy(self, ranges: Iterable[Extent], size_bytes: int) -> 'Content':
        """A new one that has these ranges of it at least, and ends at an offset at the latest.

        Raises StorageNoSpaceError, StorageIOError, and WouldBlock where there is much to copy.
        """
        made = Content.create(self._directory)
        with local_disk_errors(self._directory):
            if not _clone(self.descriptor, made.descriptor):
                status = os.fstat(self.descriptor)
                if min(status.st_blocks * 512, size_bytes) > _COPY_AT_ONCE_BYTES:
                    about_to_block()
                for extent in ranges:
                    _copy_data(self.descriptor, made.descriptor, extent)
            # To where it ended, too: a hole at the end is bytes like others.
            os.ftruncate(made.descriptor, min(size_bytes, os.fstat(self.descriptor).st_size))
        return made

    def link(self, path: Path) -> None:
        """Give it a name, and then fsync makes that file durable; where it cannot have it, a durable copy gets it.

        Raises StorageNoSpaceError, StorageIOError (EEXIST: the name is taken).
        """
        with local_disk_errors(path.parent):
            try:
                self._link(path)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                self._copy_to(path)

    def _link(self, path: Path) -> None:
        # With a directory's descriptor, so that it becomes linkat(2): link(2) never follows.
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = self._name or f'/proc/self/fd/{self.descriptor}'
            os.link(source, path.name, dst_dir_fd=directory, follow_symlinks=self._name is None)
        finally:
            os.close(directory)

    def _copy_to(self, path: Path) -> None:
        target = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size_bytes = os.fstat(self.descriptor).st_size
            if not _clone(self.descriptor, target):
                _copy_data(self.descriptor, target, Extent(0, size_bytes))
            os.ftruncate(target, size_bytes)
            os.fsync(target)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(target)


def _end(descriptor: int, name: Path | None, process: int) -> None:
    os.close(descriptor)
    if name is not None and os.getpid() == process:
        name.unlink(missing_ok=True)


@functools.lru_cache(maxsize=64)
def _prepare(directory: Path) -> None:
    """See to a directory, once: doing so for each file would cost as much as making the file."""
    private_directory(directory)


def _open(directory: Path) -> tuple[int, Path | None]:
    """A new file; its name too where the file system knows no unnamed ones (NFS)."""
    if hasattr(os, 'O_TMPFILE'):
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None
        except OSError as error:
            # open(2): the two answers of file systems and kernels without O_TMPFILE.
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
                raise
    descriptor, name = tempfile.mkstemp(prefix='staged-', dir=directory)
    return descriptor, Path(name)


def _clone(source: int, target: int) -> bool:
    """Have a file share the blocks of another, whatever its size; whether the file system can (btrfs, XFS)."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _allocate(descriptor: int, mode: int, extent: Extent) -> bool:
    """fallocate(2), which Python has no word for; whether the file system can."""
    if not hasattr(_libc, 'fallocate'):  # Linux only
        return False
    arguments = (descriptor, mode, ctypes.c_int64(extent.offset), ctypes.c_int64(extent.size_bytes))
    while _libc.fallocate(*arguments):
        number = ctypes.get_errno()
        if number in _CANNOT:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def _copy_data(source: int, target: int, extent: Extent) -> None:
    """Copy a range to the same offsets, leaving its holes out."""
    for run in _data_runs(source, extent):
        offset = run.offset
        while offset < run.end:
            copied = _copy_some(source, target, offset, min(_COPY_STEP_BYTES, run.end - offset))
            if not copied:
                raise StorageIOError(f'what was staged ends at {offset} and not at {run.end}: something has cut it off')
            offset += copied


def _copy_some(source: int, target: int, offset: int, size_bytes: int) -> int:
    if hasattr(os, 'copy_file_range'):  # Linux only
        try:
            return os.copy_file_range(source, target, size_bytes, offset, offset)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    return os.pwrite(target, os.pread(source, min(_BUFFER_BYTES, size_bytes), offset), offset)


def _data_runs(descriptor: int, extent: Extent) -> Iterator[Extent]:
    """The parts of a range, and of the file, that are no holes, as far as the file system tells."""
    end = min(extent.end, os.fstat(descriptor).st_size)
    offset = extent.offset
    while offset < end:
        start = _seek(descriptor, offset, os.SEEK_DATA, end)
        if start >= end:
            return
        offset = min(end, _seek(descriptor, start, os.SEEK_HOLE, end))
        yield Extent(start, offset - start)


def _seek(descriptor: int, offset: int, whence: int, end: int) -> int:
    try:
        return os.lseek(descriptor, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # lseek(2): no data from there to the end of the file
            return end
        if error.errno in _CANNOT:  # a file system that tells of no holes
            return offset if whence == os.SEEK_DATA else end
        raise
