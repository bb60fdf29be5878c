"""Writes of long runs of bytes past the page cache.

Owns the alignment that this takes and what to do where it cannot be: nothing, for the caller writes the rest as usual.
Of what was just fetched the kernel keeps pages for the reader anyway; a second copy, in the pages of the cached file,
would push out others', and costs more than all the rest where memory is dear to touch (see decision 20).

Threads: safe; each has a buffer of its own.
"""

import errno
import mmap
import os
import threading

#: Less is not worth a wait for the disk.
LEAST_BYTES = 1 << 20
#: From here on a disk is as fast as with longer ones, and what passes through stays in the processor's cache.
_PIECE_BYTES = 1 << 20
#: No device has larger blocks, and memory that begins with a page suits all (statx(2): dio_mem_align).
_ALIGNED_BYTES = 4096
_FLAGS = os.O_WRONLY | os.O_CLOEXEC | getattr(os, 'O_DIRECT', 0)


class _Buffers(threading.local):
    """One for each thread; private, so that a forked child never writes into its parent's."""

    def __init__(self) -> None:
        self.bytes = memoryview(mmap.mmap(-1, _PIECE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


_buffers = _Buffers()


def write_direct(descriptor: int, data: memoryview, offset: int) -> int:
    """Write the beginning of these bytes to a regular file, as much as can be so, none being no error; how much.

    Raises OSError where the disk is full or fails.
    """
    whole = data.nbytes - data.nbytes % _ALIGNED_BYTES
    if whole < LEAST_BYTES or offset % _ALIGNED_BYTES:
        return 0
    try:
        # A descriptor of its own: what is read through the other need not be aligned.
        direct = os.open(f'/proc/self/fd/{descriptor}', _FLAGS)
    except OSError:  # a file system that cannot, or no /proc
        return 0
    try:
        return _write(direct, data[:whole], offset)
    finally:
        os.close(direct)


def _write(direct: int, data: memoryview, offset: int) -> int:
    done = 0
    while done < data.nbytes:
        piece = _buffers.bytes[: data.nbytes - done]
        piece[:] = data[done : done + piece.nbytes]
        try:
            written = os.pwrite(direct, piece, offset + done)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a device that wants it otherwise
                break
            raise
        done += written
        if written < piece.nbytes:  # what is left may not be aligned any more; it says why, written as usual
            break
    return done
