"""What ftplib raises → our tree: by type, and of refusals by their code (RFC 959, 4.2).

Owns the tables. 550 says "not found" and "not allowed" alike: who can tell looks. Pure; threads: safe.
"""

import ftplib

from genro_storage.backends.fsspec_errors import translate as translate_builtin
from genro_storage.errors import (
    StorageConfigError,
    StorageError,
    StorageIOError,
    StorageNoSpaceError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageThrottledError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

#: By the very type, for what has no code that is known; a new one is to be looked at (a test says so).
TABLE: dict[type[Exception], type[StorageError]] = {
    ftplib.Error: StorageIOError,
    ftplib.error_reply: StorageIOError,
    ftplib.error_temp: StorageUnavailableError,
    ftplib.error_perm: StorageIOError,
    ftplib.error_proto: StorageUnavailableError,
}

#: By code.
CODES: dict[str, type[StorageError]] = {
    '421': StorageThrottledError,  # mostly: too many connections
    '425': StorageUnavailableError,
    '426': StorageUnavailableError,
    '430': StoragePermissionError,
    '450': StorageIOError,
    '451': StorageIOError,
    '452': StorageNoSpaceError,
    '500': StorageUnsupportedError,
    '501': StoragePathError,
    '502': StorageUnsupportedError,
    '504': StorageUnsupportedError,
    '522': StorageConfigError,
    '530': StoragePermissionError,
    '532': StoragePermissionError,
    '534': StorageConfigError,
    '550': StorageNotFoundError,
    '552': StorageNoSpaceError,
    '553': StoragePathError,
}


def code_of(error: Exception) -> str:
    """The code of a refusal; '' where there is none."""
    return str(error)[:3] if isinstance(error, ftplib.Error) else ''


def translate(error: Exception, what: str) -> StorageError:
    """The error of our tree for one of ftplib or of the network. ``what`` names destination and path."""
    kind = type(error)
    if kind not in TABLE:
        return translate_builtin(error, what)
    ours = CODES.get(code_of(error), TABLE[kind])
    # What a server says may repeat what it was told: the code is enough.
    return ours(f'{what}: refused with {code_of(error) or kind.__name__}')
