"""What smbprotocol raises → our tree: by type, and of a server's answers by their status (MS-ERREF, 2.3).

Owns the tables. Pure; threads: safe.
"""

from smbprotocol.exceptions import (
    SMBAuthenticationError,
    SMBConnectionClosed,
    SMBException,
    SMBLinkRedirectionError,
    SMBOSError,
    SMBResponseException,
    SMBUnsupportedFeature,
)
from smbprotocol.header import NtStatus

from genro_storage.backends.fsspec_errors import translate as translate_builtin
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNoSpaceError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

#: By the very type, for what has no status that is known; a new one is to be looked at (a test says so).
TABLE: dict[type[Exception], type[StorageError]] = {
    SMBException: StorageUnavailableError,
    SMBAuthenticationError: StoragePermissionError,
    SMBConnectionClosed: StorageUnavailableError,
    SMBOSError: StorageIOError,
    SMBResponseException: StorageIOError,
    SMBLinkRedirectionError: StoragePathError,
    SMBUnsupportedFeature: StorageUnsupportedError,
}

#: By status; all others are StorageIOErrors.
STATUSES: dict[int, type[StorageError]] = {
    NtStatus.STATUS_NO_SUCH_FILE: StorageNotFoundError,
    NtStatus.STATUS_OBJECT_NAME_NOT_FOUND: StorageNotFoundError,
    NtStatus.STATUS_OBJECT_PATH_NOT_FOUND: StorageNotFoundError,
    NtStatus.STATUS_NOT_FOUND: StorageNotFoundError,
    NtStatus.STATUS_BAD_NETWORK_NAME: StorageNotFoundError,
    NtStatus.STATUS_ACCESS_DENIED: StoragePermissionError,
    NtStatus.STATUS_CANNOT_DELETE: StoragePermissionError,
    NtStatus.STATUS_PRIVILEGE_NOT_HELD: StoragePermissionError,
    NtStatus.STATUS_WRONG_PASSWORD: StoragePermissionError,
    NtStatus.STATUS_LOGON_FAILURE: StoragePermissionError,
    NtStatus.STATUS_PASSWORD_EXPIRED: StoragePermissionError,
    NtStatus.STATUS_OBJECT_NAME_INVALID: StoragePathError,
    NtStatus.STATUS_OBJECT_PATH_INVALID: StoragePathError,
    NtStatus.STATUS_OBJECT_PATH_SYNTAX_BAD: StoragePathError,
    NtStatus.STATUS_STOPPED_ON_SYMLINK: StoragePathError,
    NtStatus.STATUS_OBJECT_NAME_COLLISION: StorageExistsError,
    NtStatus.STATUS_FILE_IS_A_DIRECTORY: StorageIsADirectoryError,
    NtStatus.STATUS_NOT_A_DIRECTORY: StorageNotADirectoryError,
    NtStatus.STATUS_DIRECTORY_NOT_EMPTY: StorageNotEmptyError,
    NtStatus.STATUS_SHARING_VIOLATION: StorageConflictError,
    NtStatus.STATUS_DELETE_PENDING: StorageConflictError,
    NtStatus.STATUS_DISK_FULL: StorageNoSpaceError,
    NtStatus.STATUS_NOT_SUPPORTED: StorageUnsupportedError,
    NtStatus.STATUS_INVALID_DEVICE_REQUEST: StorageUnsupportedError,
    NtStatus.STATUS_FS_DRIVER_REQUIRED: StorageUnsupportedError,
    NtStatus.STATUS_PATH_NOT_COVERED: StorageUnsupportedError,
    NtStatus.STATUS_IO_TIMEOUT: StorageTimeoutError,
    NtStatus.STATUS_INSUFFICIENT_RESOURCES: StorageThrottledError,
    NtStatus.STATUS_INSUFF_SERVER_RESOURCES: StorageThrottledError,
    NtStatus.STATUS_REQUEST_NOT_ACCEPTED: StorageThrottledError,
    NtStatus.STATUS_NETWORK_NAME_DELETED: StorageUnavailableError,
    NtStatus.STATUS_USER_SESSION_DELETED: StorageUnavailableError,
    NtStatus.STATUS_FILE_CLOSED: StorageUnavailableError,
    NtStatus.STATUS_CANCELLED: StorageUnavailableError,
    NtStatus.STATUS_DFS_UNAVAILABLE: StorageUnavailableError,
    NtStatus.STATUS_SERVER_UNAVAILABLE: StorageUnavailableError,
}


def translate(error: Exception, what: str) -> StorageError:
    """The error of our tree for one of smbprotocol or of the network. ``what`` names destination and path."""
    cause = error.__cause__
    if type(error) is ValueError and isinstance(cause, OSError):
        return translate_builtin(cause, what)  # how a connection that could not be made is told
    ours = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), None)
    if ours is None:
        return translate_builtin(error, what)
    status = status_of(error)
    if status is None:
        return ours(f'{what}: {error or type(error).__name__}')
    return STATUSES.get(status, ours)(f'{what}: refused with status 0x{status:08x}')


def status_of(error: Exception) -> int | None:
    """The status that a server answered with, if one did."""
    if isinstance(error, SMBOSError):
        return int(error.ntstatus)
    return int(error.status) if isinstance(error, SMBResponseException) else None
