"""What a mounted tree tells of itself: extended attributes of its root that are not listed.

Owns their names, what their values mean, and the asking, which never waits longer than it is told: the kernel holds
whoever looks at a mount until its daemon answers. Threads: safe, without state.
"""

import errno
import json
import os
import threading

import msgspec

from genro_storage.errors import StorageIOError, StoragePermissionError, StorageTimeoutError, StorageUnavailableError

#: The process that serves.
PID_ATTRIBUTE = 'user.genro.pid'
#: A TreeStatus as JSON.
STATUS_ATTRIBUTE = 'user.genro.status'
#: Written to a file or directory of a mount: what is parked at it or below is to be uploaded after all.
RETRY_ATTRIBUTE = 'user.genro.retry'

#: linux/limits.h: XATTR_SIZE_MAX
ATTRIBUTE_BYTES = 65536


class MountStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One directory of the root. ``type`` is that of the definition, ``destination`` the backend's."""

    name: str
    type: str = ''
    destination: str = ''


class CacheStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The cache on the disk. ``used_bytes``: None where nobody has counted lately."""

    path: str
    limit_bytes: int
    used_bytes: int | None = None


class TreeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon says."""

    pid: int
    mounts: tuple[MountStatus, ...] = ()
    cache: CacheStatus | None = None


def ask(mountpoint: str, timeout_s: float) -> TreeStatus:
    """What the daemon of a mountpoint says, within a time.

    Raises StorageTimeoutError (it does not answer), StorageUnavailableError (it is gone), StoragePermissionError (it
    serves another user alone), StorageIOError.
    """
    answers: list[bytes | OSError] = []

    def look() -> None:
        try:
            answers.append(os.getxattr(mountpoint, STATUS_ATTRIBUTE))
        except OSError as error:
            answers.append(error)

    # A daemon: a thread in the hands of the kernel ends with the process and not before.
    asking = threading.Thread(target=look, name='ask', daemon=True)
    asking.start()
    asking.join(timeout_s)
    if not answers:
        raise StorageTimeoutError(f'{mountpoint}: its daemon has not answered within {timeout_s:g} s')
    answer = answers[0]
    if isinstance(answer, OSError):
        raise _error_of(mountpoint, answer) from answer
    try:
        # Not msgspec's own JSON, which refuses what stands for bytes of paths that are not UTF-8.
        return msgspec.convert(json.loads(answer), TreeStatus)
    except (ValueError, msgspec.ValidationError) as error:
        raise StorageIOError(f'{mountpoint}: its daemon says what cannot be understood: {error}') from error


def _error_of(mountpoint: str, error: OSError) -> Exception:
    if error.errno in {errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV}:
        return StorageUnavailableError(f'{mountpoint}: its daemon is gone: umount -l {mountpoint}, then mount it again')
    if error.errno in {errno.EACCES, errno.EPERM}:
        return StoragePermissionError(f'{mountpoint}: it serves another user')
    return StorageIOError(f'{mountpoint}: its daemon says nothing of itself: {error.strerror}')
