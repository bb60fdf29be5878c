"""Files that live in many places, under names of your own: the public names of the library."""

from genro_storage.errors import (
    StorageConfigError,
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
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
    UnknownMountError,
)
from genro_storage.manager import StorageManager
from genro_storage.node import StorageNode

__version__ = '0.1.0'

__all__ = [
    'StorageConfigError',
    'StorageConflictError',
    'StorageError',
    'StorageExistsError',
    'StorageIOError',
    'StorageIsADirectoryError',
    'StorageManager',
    'StorageNameTooLongError',
    'StorageNoSpaceError',
    'StorageNode',
    'StorageNotADirectoryError',
    'StorageNotEmptyError',
    'StorageNotFoundError',
    'StoragePathError',
    'StoragePermissionError',
    'StorageReadOnlyError',
    'StorageThrottledError',
    'StorageTimeoutError',
    'StorageUnavailableError',
    'StorageUnsupportedError',
    'UnknownMountError',
]
