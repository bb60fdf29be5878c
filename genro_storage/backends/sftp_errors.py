"""What asyncssh raises → our tree, by type, in one place.

Owns the table: SFTP's own statuses, and what an SSH connection ends of. Pure; threads: safe.
"""

import asyncssh
from asyncssh.packet import PacketDecodeError

from genro_storage.backends.fsspec_errors import translate as translate_builtin
from genro_storage.errors import (
    StorageConfigError,
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
    StorageReadOnlyError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

#: By the very type: a new one of asyncssh's is to be looked at (a test says so).
TABLE: dict[type[Exception], type[StorageError]] = {
    asyncssh.SFTPError: StorageIOError,
    asyncssh.SFTPEOFError: StorageIOError,
    asyncssh.SFTPNoSuchFile: StorageNotFoundError,
    asyncssh.SFTPNoSuchPath: StorageNotFoundError,
    asyncssh.SFTPPermissionDenied: StoragePermissionError,
    asyncssh.SFTPCannotDelete: StoragePermissionError,
    asyncssh.SFTPWriteProtect: StorageReadOnlyError,
    asyncssh.SFTPFailure: StorageIOError,
    asyncssh.SFTPBadMessage: StorageIOError,
    asyncssh.SFTPNoConnection: StorageUnavailableError,
    asyncssh.SFTPConnectionLost: StorageUnavailableError,
    asyncssh.SFTPOpUnsupported: StorageUnsupportedError,
    asyncssh.SFTPInvalidHandle: StorageIOError,
    asyncssh.SFTPFileAlreadyExists: StorageExistsError,
    asyncssh.SFTPNoMedia: StorageUnavailableError,
    asyncssh.SFTPNoSpaceOnFilesystem: StorageNoSpaceError,
    asyncssh.SFTPQuotaExceeded: StorageNoSpaceError,
    asyncssh.SFTPUnknownPrincipal: StorageIOError,
    asyncssh.SFTPOwnerInvalid: StorageIOError,
    asyncssh.SFTPGroupInvalid: StorageIOError,
    asyncssh.SFTPLockConflict: StorageConflictError,
    asyncssh.SFTPDirNotEmpty: StorageNotEmptyError,
    asyncssh.SFTPNotADirectory: StorageNotADirectoryError,
    asyncssh.SFTPInvalidFilename: StoragePathError,
    asyncssh.SFTPLinkLoop: StoragePathError,
    asyncssh.SFTPInvalidParameter: StorageIOError,
    asyncssh.SFTPFileIsADirectory: StorageIsADirectoryError,
    asyncssh.SFTPByteRangeLockConflict: StorageConflictError,
    asyncssh.SFTPByteRangeLockRefused: StorageConflictError,
    asyncssh.SFTPNoMatchingByteRangeLock: StorageConflictError,
    asyncssh.SFTPDeletePending: StorageConflictError,
    asyncssh.SFTPFileCorrupt: StorageIOError,
    asyncssh.Error: StorageUnavailableError,
    asyncssh.DisconnectError: StorageUnavailableError,
    asyncssh.ChannelOpenError: StorageUnavailableError,
    asyncssh.CompressionError: StorageUnavailableError,
    asyncssh.ConnectionLost: StorageUnavailableError,
    asyncssh.HostKeyNotVerifiable: StoragePermissionError,
    asyncssh.IllegalUserName: StoragePermissionError,
    asyncssh.KeyExchangeFailed: StorageUnavailableError,
    asyncssh.MACError: StorageUnavailableError,
    asyncssh.PermissionDenied: StoragePermissionError,
    asyncssh.ProtocolError: StorageUnavailableError,
    asyncssh.ProtocolNotSupported: StorageUnavailableError,
    asyncssh.ServiceNotAvailable: StorageUnavailableError,
    PacketDecodeError: StorageUnavailableError,
    asyncssh.PasswordChangeRequired: StoragePermissionError,
    asyncssh.ChannelListenError: StorageUnavailableError,
    # Of what this library never asks for: programs, terminals, and making keys.
    asyncssh.ProcessError: StorageIOError,
    asyncssh.TimeoutError: StorageIOError,
    asyncssh.BreakReceived: StorageIOError,
    asyncssh.SignalReceived: StorageIOError,
    asyncssh.TerminalSizeChanged: StorageIOError,
    asyncssh.KeyGenerationError: StorageConfigError,
    asyncssh.KeyExportError: StorageConfigError,
    # A key that is to be read.
    asyncssh.KeyImportError: StorageConfigError,
    asyncssh.KeyEncryptionError: StorageConfigError,
    asyncssh.ConfigParseError: StorageConfigError,
}


def translate(error: Exception, what: str) -> StorageError:
    """The error of our tree for one of asyncssh or of the network. ``what`` names destination and path."""
    ours = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), None)
    if ours is None:
        return translate_builtin(error, what)
    return ours(f'{what}: {error or type(error).__name__}')
