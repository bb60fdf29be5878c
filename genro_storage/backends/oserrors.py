"""OSError → StorageError by errno: the one table, for every backend that asks the operating system.

Owns the table and the refusals that all backends word alike. Pure; threads: safe.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNameTooLongError,
    StorageNoSpaceError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageReadOnlyError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.paths import is_within

_CLASSES: dict[int, type[StorageError]] = {
    errno.ENOENT: StorageNotFoundError,
    errno.EACCES: StoragePermissionError,
    errno.EPERM: StoragePermissionError,
    errno.EROFS: StorageReadOnlyError,
    errno.EEXIST: StorageExistsError,
    errno.EISDIR: StorageIsADirectoryError,
    errno.ENOTDIR: StorageNotADirectoryError,
    errno.ENOTEMPTY: StorageNotEmptyError,
    errno.ESTALE: StorageConflictError,
    errno.ENAMETOOLONG: StorageNameTooLongError,
    errno.ELOOP: StoragePathError,
    errno.EILSEQ: StoragePathError,
    errno.ENOSPC: StorageNoSpaceError,
    errno.EDQUOT: StorageNoSpaceError,
    errno.EOPNOTSUPP: StorageUnsupportedError,
    errno.ENOSYS: StorageUnsupportedError,
    errno.EXDEV: StorageUnsupportedError,
    errno.ETIMEDOUT: StorageTimeoutError,
}

# They keep the errno of their class: a program on a mounted tree should see EIO, not what a socket of ours met.
_UNREACHABLE = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
    }
)


def from_oserror(error: OSError, what: str) -> StorageError:
    """The error of our tree for one of the operating system; ``what`` names the place and the path."""
    message = f'{what}: {error.strerror or error or type(error).__name__}'
    if error.errno in _UNREACHABLE:
        return StorageUnavailableError(message)
    if error.errno is None:
        return StorageIOError(message)
    translated = _CLASSES.get(error.errno, StorageIOError)(message)
    translated.errno = error.errno
    return translated


@contextmanager
def translating(what: Callable[[], str]) -> Iterator[None]:
    """Turn each OSError inside into one of our tree, chained. ``what`` is only called for an error."""
    try:
        yield
    except StorageError:  # many of them are OSErrors too
        raise
    except OSError as error:
        raise from_oserror(error, what()) from error
    except UnicodeEncodeError as error:
        raise not_encodable(what()) from error


def not_encodable(what: str) -> StoragePathError:
    """The refusal of a path whose characters the backend's encoding lacks; EILSEQ, as file systems answer."""
    refusal = StoragePathError(f'{what}: holds characters or bytes that this backend cannot store in a name')
    refusal.errno = errno.EILSEQ
    return refusal


def refuse_removing_root(path: str, what: str) -> None:
    """Raises StoragePermissionError for the root of a mount, which no removal and no rename may touch."""
    if not path:
        raise StoragePermissionError(f'{what}: the root of a mount can be neither removed nor renamed nor replaced')


def refuse_rename(source: str, target: str, what: str) -> None:
    """Raises StoragePermissionError for the root, StoragePathError for a move of a directory into itself."""
    refuse_removing_root(source, what)
    refuse_removing_root(target, what)
    if source != target and is_within(target, source):
        raise StoragePathError(f'{what}: {source!r} cannot move into itself, to {target!r}')
