"""From a Source to a descriptor, inside the kernel where it can be.

Owns the choice of the system call. Threads: safe; a source may be copied from several threads, the target has one.
"""

import errno
import os

from genro_storage.backends.base import Source
from genro_storage.errors import StorageIOError

# copy_file_range(2) and sendfile(2) move at most 0x7ffff000 bytes per call; asking for less lets a signal in between.
_STEP_BYTES = 1 << 30
# Read and written back where the kernel cannot copy: large enough that calls do not show, small enough for any heap.
_BUFFER_BYTES = 1 << 20

# What the two calls answer for a pair of file systems that they do not serve (copy_file_range(2), sendfile(2)).
_CANNOT = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.ETXTBSY}
)


def copy_source(source: Source, target: int) -> None:
    """Write all of a source to a descriptor that stands at its beginning.

    Raises StorageIOError if the source is shorter than it says, OSError from writing.
    """
    size_bytes = source.size_bytes
    copied = _copy_in_kernel(source.fileno(), target, size_bytes)
    while copied < size_bytes:
        data = os.pread(source.fileno(), min(_BUFFER_BYTES, size_bytes - copied), copied)
        if not data:
            raise _ended_early(copied, size_bytes)
        _write_all(target, data)
        copied += len(data)


def read_exactly(source: Source, offset: int, size_bytes: int) -> bytes:
    """These bytes of a source, by its descriptor: that takes no lock. Raises StorageIOError if there are fewer."""
    data = os.pread(source.fileno(), size_bytes, offset)
    while len(data) < size_bytes:
        more = os.pread(source.fileno(), size_bytes - len(data), offset + len(data))
        if not more:
            raise _ended_early(offset + len(data), offset + size_bytes)
        data += more
    return data


def read_part(source: Source, offset: int, size_bytes: int) -> bytes:
    """These bytes of a source, by read(): that fetches no more than is asked for. Raises StorageIOError if fewer."""
    data = source.read(offset, size_bytes)
    while len(data) < size_bytes:
        more = source.read(offset + len(data), size_bytes - len(data))
        if not more:
            raise _ended_early(offset + len(data), offset + size_bytes)
        data += more
    return data


def _ended_early(end: int, expected: int) -> StorageIOError:
    return StorageIOError(f'what is to be stored ends at {end} bytes and not at {expected}')


def _copy_in_kernel(source: int, target: int, size_bytes: int) -> int:
    """How many bytes were copied: all, or those before the kernel refused or found the end."""
    copied = 0
    calls = [_copy_file_range, _sendfile]
    while copied < size_bytes and calls:
        try:
            moved = calls[0](source, target, copied, min(_STEP_BYTES, size_bytes - copied))
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            moved = 0
        if not moved:
            calls.pop(0)
        copied += moved
    return copied


def _copy_file_range(source: int, target: int, offset: int, size_bytes: int) -> int:
    if not hasattr(os, 'copy_file_range'):  # Linux only
        return 0
    # Without a target offset: the position moves along, which sendfile and write continue from.
    return os.copy_file_range(source, target, size_bytes, offset)


def _sendfile(source: int, target: int, offset: int, size_bytes: int) -> int:
    return os.sendfile(target, source, offset, size_bytes)


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
