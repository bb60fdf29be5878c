"""What fsspec file systems raise → our tree, by type, in one place.

Owns the table. Libraries beneath a file system are looked up only when they are loaded: what has not been imported
has raised nothing. Threads: safe; no state.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from genro_storage.backends.oserrors import from_oserror, not_encodable
from genro_storage.errors import (
    StorageConfigError,
    StorageError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

# In order: the first class that fits. Many of these are raised without an errno, so the class must tell.
_BUILTIN: tuple[tuple[type[Exception], type[StorageError]], ...] = (
    (FileNotFoundError, StorageNotFoundError),
    (PermissionError, StoragePermissionError),
    (FileExistsError, StorageExistsError),
    (IsADirectoryError, StorageIsADirectoryError),
    (NotADirectoryError, StorageNotADirectoryError),
    (TimeoutError, StorageTimeoutError),  # asyncio's, socket's and FSTimeoutError are this one or its children
    (ConnectionError, StorageUnavailableError),
    (EOFError, StorageUnavailableError),
    (NotImplementedError, StorageUnsupportedError),
    (ImportError, StorageConfigError),
)

_LIBRARIES: tuple[tuple[str, str, type[StorageError]], ...] = (
    ('socket', 'gaierror', StorageUnavailableError),  # its errno is none of errno's
    ('ssl', 'SSLError', StorageUnavailableError),
    ('aiohttp', 'ServerTimeoutError', StorageTimeoutError),
    ('aiohttp', 'ClientConnectionError', StorageUnavailableError),
    ('aiohttp', 'ClientPayloadError', StorageUnavailableError),
    ('paramiko', 'AuthenticationException', StoragePermissionError),
    ('paramiko', 'SSHException', StorageUnavailableError),
    ('asyncssh', 'PermissionDenied', StoragePermissionError),
    ('asyncssh', 'ConnectionLost', StorageUnavailableError),
)


@contextmanager
def translating_foreign(what: Callable[[], str]) -> Iterator[None]:
    """Turn every exception inside into one of our tree, chained. ``what`` names destination and path."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        raise translate(error, what()) from error


def translate(error: Exception, what: str) -> StorageError:
    """The error of our tree for one of a file system; StorageIOError where nothing fits."""
    message = f'{what}: {error or type(error).__name__}'
    if isinstance(error, UnicodeEncodeError):
        return not_encodable(what)
    for module, name, ours in _LIBRARIES:
        foreign = getattr(sys.modules.get(module), name, None)
        if foreign is not None and isinstance(error, foreign):
            return ours(message)
    if isinstance(error, OSError) and error.errno is not None:
        return from_oserror(error, what)
    for builtin, ours in _BUILTIN:
        if isinstance(error, builtin):
            return ours(message)
    return StorageIOError(message)
