"""Modes, owners and times as requests set them, and what the rules of POSIX make of that."""

import stat

from fusefs import ops
from fusefs.trees.caller import is_member
from genro_storage.entry import Attributes


def of_new(request: ops.Request, mode: int, parent: ops.Attributes, now_ns: int, rdev: int | None = None) -> Attributes:
    """Of what somebody makes in a directory. Its mode has the bits of its type."""
    gid = request.gid
    if parent.mode & stat.S_ISGID:
        gid = parent.gid
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID  # and so on below it
    return Attributes(mode, request.uid, gid, now_ns, now_ns, now_ns, rdev)


def changes_of(request: ops.Setattr, shown: ops.Attributes, now_ns: int) -> Attributes:
    """What a request changes of a file that is shown so; without its size."""
    mode = None if request.mode is None else stat.S_IFMT(shown.mode) | stat.S_IMODE(request.mode)
    chowned = request.new_uid is not None or request.new_gid is not None or request.names_nothing
    if mode is None and (chowned or request.kill_suidgid):
        mode = without_set_id(shown.mode, shown.gid, request)
    return Attributes(
        mode=mode,
        uid=request.new_uid,
        gid=request.new_gid,
        atime_ns=now_ns if request.atime_ns == ops.NOW else request.atime_ns,
        mtime_ns=now_ns if request.mtime_ns == ops.NOW else request.mtime_ns,
    )


def without_set_id(mode: int, gid: int, request: ops.Request) -> int | None:
    """A mode once somebody has written to a file or given it an owner; None if nothing goes.

    Without execution for the group, set-group-id once meant mandatory locking, and stays for those who may set it
    (chown(2); setattr_should_drop_sgid in linux/fs/attr.c).
    """
    gone = 0 if stat.S_ISDIR(mode) else mode & (stat.S_ISUID | stat.S_ISGID)
    if gone & stat.S_ISGID and not mode & stat.S_IXGRP and is_member(request, gid):
        gone &= ~stat.S_ISGID
    return mode & ~gone if gone else None
