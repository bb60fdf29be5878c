"""statx(2): stat that can be told not to ask anybody, which os.stat cannot.

Owns the call and its layout (linux/stat.h). AT_STATX_DONT_SYNC is what makes it safe to look at a name inside a local
mount that may be a mountpoint of ours: a FUSE file system then answers from the kernel's cache, and the daemon does
not wait for itself. Threads: safe; a buffer per thread.
"""

import ctypes
import os
import struct
import threading
from typing import NamedTuple

NS = 1_000_000_000
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_NO_AUTOMOUNT = 0x800
_AT_EMPTY_PATH = 0x1000
_AT_STATX_DONT_SYNC = 0x4000
_STATX_BASIC_STATS_AND_BTIME = 0xFFF

# struct statx up to stx_dev_minor.
_STATX = struct.Struct('<IIQIIIHxxQQQQqIiqIiqIiqIiIIII')
_BUFFER_BYTES = 256

_statx = ctypes.CDLL(None, use_errno=True).statx
_statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]


class Identity(NamedTuple):
    """What tells one file from all others, also from a later one that was given the same inode number."""

    device: tuple[int, int]
    ino: int
    btime_ns: int


class Status(NamedTuple):
    """What statx returns, times in nanoseconds."""

    identity: Identity
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class _Thread(threading.local):
    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(_BUFFER_BYTES)


_thread = _Thread()


def statx(descriptor: int, name: bytes = b'', *, cached: bool = True) -> Status:
    """The status of a name in a directory, links not followed, or with an empty name of the descriptor itself.

    cached: take what the kernel holds of a network file system and ask nobody. Raises OSError.
    """
    flags = _AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT | (_AT_STATX_DONT_SYNC if cached else 0)
    if not name:
        flags |= _AT_EMPTY_PATH
    buffer = _thread.buffer
    if _statx(descriptor, name, flags, _STATX_BASIC_STATS_AND_BTIME, buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(name))
    (
        _mask, blksize, _attributes, nlink, uid, gid, mode, ino, size, blocks, _attributes_mask,
        atime, atime_ns, _, btime, btime_ns, _, ctime, ctime_ns, _, mtime, mtime_ns, _,
        rdev_major, rdev_minor, dev_major, dev_minor,
    ) = _STATX.unpack_from(buffer)  # fmt: skip
    return Status(
        Identity((dev_major, dev_minor), ino, btime * NS + btime_ns),
        mode,
        nlink,
        uid,
        gid,
        os.makedev(rdev_major, rdev_minor),
        size,
        blocks,
        blksize,
        atime * NS + atime_ns,
        mtime * NS + mtime_ns,
        ctime * NS + ctime_ns,
    )
