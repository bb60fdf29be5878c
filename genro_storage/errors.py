"""The errors of genro-storage: one tree, told apart by what a caller can do about them.

Owns the classes and the errno of each. Does not translate foreign exceptions: every backend does that at its own edge.
Each class is also the builtin that fits, so code written for files keeps working: ``except FileNotFoundError``
catches a missing object of any backend.
"""

import errno


class StorageError(Exception):
    """Anything that storage refused or failed to do.

    ``errno`` is what a program on the mounted tree sees for it; a class says it once, for the API and the mount alike.
    """

    errno: int | None = errno.EIO


class StorageIOError(StorageError, OSError):
    """A backend failed in a way that fits no other class; the cause is chained."""

    errno = errno.EIO


class StorageNotFoundError(StorageError, FileNotFoundError):
    """Nothing is there. Never raised for a backend that could not be asked."""

    errno = errno.ENOENT


class UnknownMountError(StorageNotFoundError, KeyError):
    """No mount of this name is configured."""


class StoragePermissionError(StorageError, PermissionError):
    """The backend, or the mount's ``permissions``, does not allow it."""

    errno = errno.EACCES


class StorageReadOnlyError(StoragePermissionError):
    """The mount is ``readonly``, or the backend cannot write at all."""

    errno = errno.EROFS


class StorageConfigError(StorageError, ValueError):
    """A definition is wrong; the text names source, mount, key and what was expected."""

    errno = errno.EINVAL


class StoragePathError(StorageError, ValueError):
    """Text that is no path inside a mount: ``..``, a NUL, or not representable on the backend."""

    errno = errno.EINVAL


class StorageNameTooLongError(StoragePathError):
    """A name over 255 bytes or a path over 4,095, the limits of Linux (limits.h: NAME_MAX, PATH_MAX)."""

    errno = errno.ENAMETOOLONG


class StorageExistsError(StorageError, FileExistsError):
    """Something is there already and must not be replaced."""

    errno = errno.EEXIST


class StorageIsADirectoryError(StorageError, IsADirectoryError):
    """A file was expected, a directory is there."""

    errno = errno.EISDIR


class StorageNotADirectoryError(StorageError, NotADirectoryError):
    """A directory was expected, something else is there."""

    errno = errno.ENOTDIR


class StorageNotEmptyError(StorageError, OSError):
    """A directory still has entries."""

    errno = errno.ENOTEMPTY


class StorageConflictError(StorageError, OSError):
    """The object is no longer the version that this operation was based on."""

    errno = errno.ESTALE


class StorageTimeoutError(StorageError, TimeoutError):
    """No progress within the mount's ``timeout``. Says nothing about whether anything is there."""

    errno = errno.ETIMEDOUT


class StorageUnavailableError(StorageError, ConnectionError):
    """The backend cannot be reached or refuses service. Says nothing about whether anything is there."""

    errno = errno.EIO


class StorageThrottledError(StorageUnavailableError):
    """The backend is there and asks for fewer requests."""


class StorageNoSpaceError(StorageError, OSError):
    """A disk, a quota or a bound of this process is full."""

    errno = errno.ENOSPC


class StorageUnsupportedError(StorageError, OSError, NotImplementedError):
    """The backend has no way to do this."""

    errno = errno.ENOTSUP
