"""Acting on local files as the user who asks: file system user, group and groups of the calling thread.

Needed only where root serves others (allow_other). The kernel has checked modes by then (default_permissions); this
makes new files theirs, and quotas and ACLs count.

Threads: credentials are per thread here: setfsuid(2), and setgroups as a bare system call, because the C library's
would change those of all threads.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from fusefs.ops import Request

_libc = ctypes.CDLL(None, use_errno=True)
# linux/arch: asm/unistd.h.
_SETGROUPS = {'x86_64': 116, 'aarch64': 159}.get(platform.machine())


def _groups_of(pid: int) -> list[int]:
    try:
        with open(f'/proc/{pid}/status', encoding='ascii', errors='replace') as status:
            return next([int(group) for group in line.split()[1:]] for line in status if line.startswith('Groups:'))
    except (OSError, StopIteration):
        return []  # the caller has gone, or is of another PID namespace


def is_member(request: Request, gid: int) -> bool:
    """Whether who asks may keep set-group-id of this group: he is in it, or root."""
    return request.uid == 0 or request.gid == gid or gid in _groups_of(request.pid)


def _set_groups(groups: list[int]) -> None:
    if _SETGROUPS is not None:
        _libc.syscall(_SETGROUPS, len(groups), (ctypes.c_uint * len(groups))(*groups))


@contextmanager
def as_caller(request: Request) -> Iterator[None]:
    """Be the user of a request for files, if this is root serving somebody else."""
    if request.uid == os.geteuid() or os.geteuid() != 0:
        yield
        return
    own_groups, own_gid = os.getgroups(), os.getegid()
    _set_groups(_groups_of(request.pid))
    _libc.setfsgid(request.gid)
    _libc.setfsuid(request.uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(own_gid)
        _set_groups(own_groups)
