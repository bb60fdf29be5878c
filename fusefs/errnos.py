"""Error → errno: the one table. Pure."""

import errno

from genro_storage.errors import StorageError

#: Errors that have no errno of their own. Looked up along the class's ancestors, nearest first.
_TABLE: dict[type[BaseException], int] = {
    FileExistsError: errno.EEXIST,
    FileNotFoundError: errno.ENOENT,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
    PermissionError: errno.EACCES,
    TimeoutError: errno.ETIMEDOUT,
    NotImplementedError: errno.ENOSYS,
    MemoryError: errno.ENOMEM,
    UnicodeError: errno.EILSEQ,
}


def errno_of(error: BaseException) -> int | None:
    """The errno that a program is told for an error; None for one that nobody foresaw, which is a bug."""
    if isinstance(error, OSError | StorageError) and isinstance(error.errno, int):
        return error.errno
    return next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), None)
