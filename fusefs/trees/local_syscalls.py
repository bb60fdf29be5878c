"""System calls on local files that the os module has not, or not whole: fallocate, renameat2, utimensat.

Owns their constants (linux/falloc.h, linux/fs.h, bits/stat.h) and arguments. Errors are OSError. Threads: safe; the C
library keeps an errno for each.
"""

import ctypes
import errno
import os

from fusefs.ops import NOW
from fusefs.trees.base import refuse
from genro_storage import paths

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2

NS = 1_000_000_000
_AT_FDCWD = -100
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


class _Timespec(ctypes.Structure):
    _fields_ = (('seconds', ctypes.c_long), ('nanoseconds', ctypes.c_long))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
_libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_libc.utimensat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_Timespec), ctypes.c_int]


def fallocate(descriptor: int, mode: int, offset: int, size_bytes: int) -> None:
    """Reserve, punch or zero a range, as the FALLOC_FL_* bits of mode say and the disk can."""
    _check(_libc.fallocate(descriptor, mode, offset, size_bytes))


def rename(source: int, name: str, target: int, new_name: str, flags: int) -> None:
    """Move a name from one directory to another. Raises OSError(EINVAL) for flags that no name can have here."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
        refuse(errno.EINVAL)
    _check(_libc.renameat2(source, paths.encode(name), target, paths.encode(new_name), flags))


def set_times(path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
    """Set times as Setattr has them: ops.NOW is the disk's own idea of now, None leaves one as it is."""
    times = (_Timespec * 2)(_timespec(atime_ns), _timespec(mtime_ns))
    _check(_libc.utimensat(_AT_FDCWD, os.fsencode(path), times, 0))


def _timespec(time_ns: int | None) -> _Timespec:
    if time_ns is None:
        return _Timespec(0, _UTIME_OMIT)
    return _Timespec(0, _UTIME_NOW) if time_ns == NOW else _Timespec(*divmod(time_ns, NS))


def _check(result: int) -> None:
    if result:
        refuse(ctypes.get_errno())
