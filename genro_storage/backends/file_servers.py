"""Backends of the servers of files whose libraries come with an extra: made at once, loaded on first use.

Owns what they can do, and what is told where the library is missing. Threads: safe.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from genro_storage.backends.base import Capabilities
from genro_storage.backends.served_files import FileServer, ServedFiles
from genro_storage.backends.sftp_address import SftpAddress
from genro_storage.backends.smb_address import SmbAddress
from genro_storage.errors import StorageConfigError


def sftp_backend(address: SftpAddress, path: str = '', *, timeout_s: float = 30.0) -> ServedFiles:
    """The files below a folder of an SSH server. Connects on first use."""

    def make() -> FileServer:
        with _needing('sftp'):
            from genro_storage.backends.sftp import SftpServer
        return SftpServer(address, path, timeout_s)

    return ServedFiles(address.destination(path), make, Capabilities(atomic_rename=True, stores_mtime=True))


def smb_backend(address: SmbAddress, path: str = '', *, timeout_s: float = 30.0) -> ServedFiles:
    """The files below a folder of a share. Connects on first use."""

    def make() -> FileServer:
        with _needing('smb'):
            from genro_storage.backends.smb import SmbServer
        return SmbServer(address, path, timeout_s)

    can = Capabilities(atomic_rename=True, atomic_replace=False, stores_mtime=True)
    return ServedFiles(address.destination(path), make, can)


@contextmanager
def _needing(extra: str) -> Iterator[None]:
    """Raise StorageConfigError for what cannot be imported inside."""
    try:
        yield
    except ImportError as error:
        raise StorageConfigError(
            f"mounts of type {extra!r} need a package that is not installed: pip install 'genro-storage[{extra}]'"
        ) from error
