"""libfuse by mfusepy: where it is, what it is told at the start, and the calls whose arguments mfusepy drops or copies.

Owns the names of C, nothing of what a call means (operations). Importing this loads libfuse: see load().
Threads: run() holds its caller until the file system is unmounted; libfuse calls from threads of its own.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

from fusefs.ops import NOW
from fusefs.transports.libfuse.operations import Opening, Operations


def _import() -> Any:
    # mfusepy takes libfuse 2 where both are there; that one has no rename flags, and no mount of somebody else's.
    chosen = sys.platform == 'linux' and not {'FUSE_LIBRARY_NAME', 'FUSE_LIBRARY_PATH'} & os.environ.keys()
    if chosen:
        os.environ['FUSE_LIBRARY_NAME'] = 'fuse3'
    try:
        import mfusepy
    finally:
        if chosen:
            del os.environ['FUSE_LIBRARY_NAME']
    return mfusepy


mfusepy = _import()
VERSION: tuple[int, int] = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
_libfuse = mfusepy._libfuse  # what mfusepy leaves out of it: fuse_interrupted

# fuse_common.h. A reader keeps what it has opened, and pages are dropped when a file is opened: no need to ask for the
# attributes before each read. Attributes in listings would be stale at once, with no timeout. The kernel clears set-id
# bits by itself, by SETATTR.
_NOT_WANTED = 1 << 12 | 1 << 13 | 1 << 14 | 1 << 20  # AUTO_INVAL_DATA, READDIRPLUS, READDIRPLUS_AUTO, HANDLE_KILLPRIV

#: Requests that nobody waits for, readahead above all, and that the kernel sends at once: one stalled mount's must not
#: keep others from being sent, nor take all threads.
_MAX_BACKGROUND = 512
#: Whoever waits for a mount holds a thread. As of 3.12, 10 is the default; before, there is no bound.
_MAX_THREADS = 1024
#: How many wait for requests. The kernel wakes them in turn, so that many are each out of the caches.
_IDLE_THREADS = 2

# bits/stat.h; sys/stat.h of macOS.
_UTIME_NOW, _UTIME_OMIT = (-1, -2) if sys.platform == 'darwin' else ((1 << 30) - 1, (1 << 30) - 2)

Text = bytes | None


def caller() -> tuple[int, int, int]:
    """User, group and process of the call that the calling thread is in."""
    context: tuple[int, int, int] = mfusepy.fuse_get_context()
    return context


def is_interrupted() -> bool:
    """Whether whoever waits for the call that the calling thread is in has got a signal."""
    return bool(_libfuse.fuse_interrupted())


class _Served(mfusepy.FUSE):  # type: ignore[misc,name-defined]
    """mfusepy's calls, with all of their arguments. The names are mfusepy's: NAME, or NAME_fuse_3 for libfuse 3."""

    def init_fuse_3(self, conn: Any, config: Any) -> None:
        connection = conn.contents
        connection.want &= ~_NOT_WANTED
        if VERSION >= (3, 17):
            connection.want_ext &= ~_NOT_WANTED
        connection.max_background = _MAX_BACKGROUND
        connection.congestion_threshold = _MAX_BACKGROUND
        super().init_fuse_3(conn, config)

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        return int(self.operations.rename(_text(old), _text(new), flags))

    def chmod_fuse_3(self, path: Text, mode: int, info: Any) -> int:
        return int(self.operations.chmod(_path(path), mode, _fh(info)))

    def chown_fuse_3(self, path: Text, uid: int, gid: int, info: Any) -> int:
        return int(self.operations.chown(_path(path), _id(uid), _id(gid), _fh(info)))

    def truncate_fuse_3(self, path: Text, length: int, info: Any) -> int:
        return int(self.operations.truncate(_path(path), length, _fh(info)))

    def utimens_fuse_2(self, path: Text, times: Any) -> int:
        return self.utimens_fuse_3(path, times, None)

    def utimens_fuse_3(self, path: Text, times: Any, info: Any) -> int:
        both = (_time(times.contents.actime), _time(times.contents.modtime)) if times else (NOW, NOW)
        return int(self.operations.utimens(_path(path), both, _fh(info)))

    def open(self, path: bytes, info: Any) -> int:
        return _tell(info, self.operations.open(_text(path), info.contents.flags))

    def create(self, path: bytes, mode: int, info: Any) -> int:
        return _tell(info, self.operations.create(_text(path), mode, info.contents.flags))

    def read(self, path: Text, buffer: Any, size: int, offset: int, info: Any) -> int:
        room = _bytes_at(buffer, size)
        filled = 0
        for piece in self.operations.read(None, size, offset, info.contents.fh):
            room[filled : filled + piece.nbytes] = piece.cast('B')
            filled += piece.nbytes
        return filled

    def write(self, path: Text, buffer: Any, size: int, offset: int, info: Any) -> int:
        return int(self.operations.write(None, _bytes_at(buffer, size), offset, info.contents.fh))

    def lseek(self, path: Text, offset: int, whence: int, info: Any) -> int:
        return int(self.operations.lseek(offset, whence, info.contents.fh))

    def copy_file_range(
        self, path: Text, info: Any, offset: int, out_path: Text, out_info: Any, out_offset: int, size: int, flags: int
    ) -> int:
        fh, out_fh = info.contents.fh, out_info.contents.fh
        return int(self.operations.copy_file_range(fh, offset, out_fh, out_offset, size, flags))


class _Announced:
    """The operations, and the one that libfuse begins with."""

    def __init__(self, operations: Operations, on_init: Callable[[], None]) -> None:
        self._operations = operations
        self._on_init = on_init

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)

    def init_with_config(self, connection: Any, config: Any) -> None:
        self._on_init()


def run(
    operations: Operations, mountpoint: str, options: dict[str, str | bool | int], on_init: Callable[[], None]
) -> None:
    """Serve until the file system is unmounted. on_init: called once the kernel has begun. Raises RuntimeError.

    mountpoint: a directory that is mounted by this, or /dev/fd/N, a descriptor of /dev/fuse that is mounted already.
    """
    if VERSION >= (3, 12):
        options = {**options, 'max_threads': _MAX_THREADS, 'max_idle_threads': _IDLE_THREADS}
    # No timeouts: what the kernel believed, nobody could take from it. The table of names has those of each reply.
    timeouts = dict.fromkeys(('entry_timeout', 'attr_timeout', 'negative_timeout'), 0)
    _Served(_Announced(operations, on_init), mountpoint, foreground=True, use_ino=True, **timeouts, **options)


def _text(raw: bytes) -> str:
    return raw.decode('utf-8', 'surrogateescape')


def _path(raw: Text) -> str | None:
    return None if raw is None else _text(raw)


def _fh(info: Any) -> int | None:
    return int(info.contents.fh) if info else None


def _id(number: int) -> int:
    """An owner, or -1, which comes as the largest of 32 bits."""
    return -1 if number == 0xFFFF_FFFF else number


def _time(of: Any) -> int | None:
    if of.tv_nsec == _UTIME_OMIT:
        return None
    return NOW if of.tv_nsec == _UTIME_NOW else int(of.tv_sec) * 1_000_000_000 + int(of.tv_nsec)


def _tell(info: Any, opening: Opening) -> int:
    info.contents.fh = opening.fh
    info.contents.direct_io = opening.direct_io
    if hasattr(info.contents, 'noflush'):  # as of 3.11
        info.contents.noflush = opening.no_flush
    return 0


def _bytes_at(buffer: Any, size: int) -> memoryview:
    """The memory behind a pointer, not a copy of it."""
    address = ctypes.cast(buffer, ctypes.c_void_p).value
    return memoryview((ctypes.c_char * size).from_address(address or 0)).cast('B')
