"""Folders of this user on the local disk: made private, made durable, and their errors told apart from a backend's.

Owns what is common to all that lies there (cache, staging, journal): who may look into a folder, what makes a name
survive a loss of power, and what to say when the disk is full. Does not know what the files are. Threads: safe.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genro_storage.errors import StorageError, StorageIOError, StorageNoSpaceError, StoragePermissionError


def private_directory(path: Path, *, durable: bool = False) -> None:
    """Make a directory that is this user's alone, mode 0700, and what is missing above it.

    ``durable``: with its name, and the names of those above that were missing, on the disk when it returns. Raises
    StoragePermissionError if it is somebody else's, OSError.
    """
    _make(path, durable)
    if durable:
        sync_directory(path.parent)  # made by somebody else a moment ago, it need not be on the disk yet
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if found.st_uid != os.geteuid():
        raise StoragePermissionError(
            f'{path} belongs to user {found.st_uid}: set cache: path: to a folder of your own; nothing is kept there'
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)


def _make(path: Path, durable: bool) -> None:
    """Not Path.mkdir(parents=True): the umask of a daemon is 0, and would open the parents to everybody."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        if path.parent == path:
            raise
        _make(path.parent, durable)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, where that can be asked for: it may be read, and its file system can.

    Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # fsync(2): not of this kind of file; names are durable there, or never
            raise
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes, *, sync: bool = True) -> None:
    """A file of mode 0600 with this content, whole or not at all; its name is durable once its directory is synced.

    ``sync``: its bytes are on the disk before it has the name. Nothing is left of a failure. Raises OSError.
    """
    draft = f'{path}.{secrets.token_hex(4)}.tmp'
    try:
        write_new(draft, content, sync=sync)
        os.rename(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def write_new(path: str, content: bytes, *, sync: bool = True) -> None:
    """Write a new file of mode 0600; with ``sync`` its bytes are on the disk when it returns. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock of flock(2), LOCK_SH or LOCK_EX, if nobody is in its way; whether that was so. Raises OSError."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def local_disk_errors(directory: Path, purpose: str = 'stage what is written') -> Iterator[None]:
    """Say of an OSError that it was the local disk, not the backend, which failed; our own errors pass.

    Raises StorageNoSpaceError where a disk or a quota is full, otherwise StorageIOError with the errno as it was.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageNoSpaceError(
                f'no room to {purpose} in {directory}: make some, or set cache: path: to another disk'
            ) from error
        failure = StorageIOError(f'cannot {purpose} in {directory}: {error}')
        failure.errno = error.errno or errno.EIO  # a program that exceeds the size of files should hear just that
        raise failure from error
