"""What a refusal over HTTP is to us: by its status, and by the store's own code where that says more.

Owns the table of statuses that Google's and Azure's stores share. Never looks into texts. Pure.
"""

from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageNoSpaceError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

NOT_FOUND = 404
RANGE_NOT_SATISFIABLE = 416

_STATUSES: dict[int, type[StorageError]] = {
    401: StoragePermissionError,
    403: StoragePermissionError,
    404: StorageNotFoundError,
    405: StorageUnsupportedError,
    408: StorageTimeoutError,
    409: StorageConflictError,  # two changes at once, or something is there already
    412: StorageConflictError,
    429: StorageThrottledError,
    501: StorageUnsupportedError,
    503: StorageThrottledError,  # the server is there, and asks for patience
    507: StorageNoSpaceError,
}


def refusal(status: int, what: str, said: str = '') -> StorageError:
    """The error for an answer of this status; ``what`` names destination and key, ``said`` holds no secrets."""
    # 500, 502, 504: asking again later may help.
    ours = _STATUSES.get(status, StorageUnavailableError if status >= 500 else StorageIOError)
    return ours(f'{what}: {status} {said}'.rstrip())
