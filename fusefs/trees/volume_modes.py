"""Modes, owners and times as requests set them, and what the rules of POSIX make of that. Pure."""

import stat

from fusefs import ops
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
    chowned = request.new_uid is not None or request.new_gid is not None
    if mode is None and (chowned or request.kill_suidgid):
        mode = without_set_id(shown.mode)
    return Attributes(
        mode=mode,
        uid=request.new_uid,
        gid=request.new_gid,
        atime_ns=now_ns if request.atime_ns == ops.NOW else request.atime_ns,
        mtime_ns=now_ns if request.mtime_ns == ops.NOW else request.mtime_ns,
    )


def without_set_id(mode: int) -> int | None:
    """A mode once somebody else has written to a file or it has another owner; None if nothing goes.

    Without execution for the group, set-group-id once meant mandatory locking, and stays (chown(2)).
    """
    if not stat.S_ISREG(mode):
        return None
    gone = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
    return mode & ~gone if mode & gone else None
