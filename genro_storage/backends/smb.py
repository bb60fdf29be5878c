"""SMB as a FileServer, over smbprotocol.

Owns its requests, the connection of each process, and the times of silence, of which smbprotocol has none: requests
run on workers, and one that takes too long is left behind with its connection. A version is of the time, in tenths of
microseconds, and the size; a read compares that of the very file that it reads.

Threads: safe. The lock is held while a connection is made, by workers only.
"""

import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import smbclient
from smbprotocol.exceptions import SMBException
from smbprotocol.file_info import FileAttributes

from genro_storage import paths
from genro_storage.backends import smb_names
from genro_storage.backends.base import InterruptedReadError, Source
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.oserrors import not_encodable
from genro_storage.backends.per_process import PerProcess
from genro_storage.backends.served_files import hidden_name, shown
from genro_storage.backends.smb_address import SmbAddress
from genro_storage.backends.smb_errors import translate
from genro_storage.entry import Entry, Kind, Usage, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnsupportedError,
)
from genro_storage.runtime import WorkerPool, outcome_of

T = TypeVar('T')

_PIECE_BYTES = 1 << 20
# However patient a mount is: a host that has not accepted a connection by then is not there.
_CONNECT_TIMEOUT_MAX_S = 10.0
_WORKERS = 16
_CLOSE_TIMEOUT_S = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Others may read, write and remove a file while it is read here.
_SHARED = 'rwd'


class _Process:
    """What one process has: workers and a connection, in the cache that smbclient wants."""

    def __init__(self) -> None:
        self.pool = WorkerPool('smb', _WORKERS)
        self.connecting = threading.Lock()
        self.connections: dict[str, Any] = {}

    def drop(self) -> None:
        """Leave the connection, and all that waits for it, which hears of it."""
        for key in list(self.connections):
            connection = self.connections.pop(key, None)
            if connection is not None:
                with suppress(OSError, SMBException):
                    connection.disconnect(close=False)


class SmbServer:
    """See FileServer. ``path``: a normalised one inside the share."""

    copies = False

    def __init__(self, address: SmbAddress, path: str, timeout_s: float) -> None:
        self._address = address
        self._path = path
        self.destination = address.destination(path)
        self._timeout_s = timeout_s
        self._process = PerProcess(_Process)

    def look(self, path: str) -> Entry:
        """See FileServer."""
        return _entry_of_stat(paths.basename(path), self._ask(path, smbclient.stat))

    def entries(self, path: str) -> Iterable[Entry]:
        """See FileServer."""
        return self._ask(path, _list)

    def read(self, path: str, offset: int, size_bytes: int, check: Callable[[Entry], int]) -> bytes:
        """See FileServer."""
        file = self._ask(path, lambda full, **how: _open(full, 'rb', _SHARED, how))
        try:
            wanted = check(_entry_of_open(paths.basename(path), file))
            file.seek(offset)
            received = bytearray()
            while len(received) < wanted:
                rest = min(_PIECE_BYTES, wanted - len(received))
                piece = self._ask(path, lambda _, rest=rest, **how: file.read(rest))
                if not piece:
                    what = shown(self.destination, path)
                    raise InterruptedReadError(f'{what}: ended {wanted - len(received)} bytes early', bytes(received))
                received += piece
            return bytes(received)
        finally:
            self._leave(path, file)

    def store(self, path: str, source: Source) -> None:
        """See FileServer."""
        file = self._ask(path, lambda full, **how: _open(full, 'xb', None, how))
        try:
            for offset in range(0, source.size_bytes, _PIECE_BYTES):
                piece = read_exactly(source, offset, min(_PIECE_BYTES, source.size_bytes - offset))
                self._ask(path, lambda _, piece=piece, **how: _write_all(file, piece))
            self._ask(path, lambda _, **how: file.fd.flush())
        except BaseException:
            self._leave(path, file)
            raise
        self._ask(path, lambda _, **how: file.close())

    def move(self, old: str, new: str, *, replacing: bool) -> None:
        """See FileServer. A file that somebody reads is not replaced, but may be given another name before it goes."""
        if not replacing:
            self._rename(old, new, smbclient.rename)
            return
        try:
            self._rename(old, new, smbclient.replace)
        except (StoragePermissionError, StorageConflictError):
            if not self._is_file(new):
                raise
            self._replace_open(old, new)

    def copy(self, source: str, target: str) -> None:
        """See FileServer."""
        raise StorageUnsupportedError(f'{shown(self.destination, source)}: not copied on the server')

    def remove(self, path: str) -> None:
        """See FileServer."""
        self._ask(path, smbclient.remove)

    def make(self, path: str) -> None:
        """See FileServer."""
        self._ask(path, smbclient.mkdir)

    def remove_empty(self, path: str) -> None:
        """See FileServer."""
        self._ask(path, smbclient.rmdir)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See FileServer. To the microsecond."""
        self._ask(path, lambda full, **how: smbclient.utime(full, ns=(mtime_ns, mtime_ns), **how))

    def usage(self) -> Usage | None:
        """See FileServer."""
        told = self._ask('', smbclient.stat_volume)
        return Usage(told.total_size, told.actual_available_size, told.caller_available_size)

    def close(self) -> None:
        """See FileServer."""
        process = self._process.take()
        if process is not None:
            process.drop()
            process.pool.close(_CLOSE_TIMEOUT_S)

    def _ask(self, path: str, ask: Callable[..., T]) -> T:
        """Call a function on a worker, with the path as the server has it and how to connect."""
        process = self._process.get()
        what = shown(self.destination, path)
        full = self._full(path)

        def answer() -> T:
            return ask(full, **self._connected(process))

        try:
            return outcome_of(process.pool.submit(answer), self._timeout_s, f'{what}: no progress')
        except StorageTimeoutError:
            process.drop()
            raise
        except StorageError:
            raise
        except Exception as error:
            raise translate(error, what) from error

    def _connected(self, process: _Process) -> dict[str, Any]:
        """How to find the connection of now in the cache; makes one if there is none."""
        how = {
            'username': self._address.user,
            'password': self._address.password,
            'port': self._address.port,
            'connection_cache': process.connections,
        }
        with process.connecting:
            limit_s = min(_CONNECT_TIMEOUT_MAX_S, self._timeout_s)
            smbclient.register_session(self._address.host, connection_timeout=limit_s, **how)
        return how

    def _rename(self, old: str, new: str, rename: Callable[..., None]) -> None:
        target = self._full(new)
        self._ask(old, lambda full, **how: rename(full, target, **how))

    def _replace_open(self, old: str, new: str) -> None:
        aside = paths.child(paths.parent(new), hidden_name())
        self._rename(new, aside, smbclient.rename)
        try:
            self._rename(old, new, smbclient.rename)
        except BaseException:
            self._put_back(aside, new)
            raise
        # It is in place; what may be left behind is in no listing.
        with suppress(StorageError):
            self.remove(aside)

    def _put_back(self, aside: str, path: str) -> None:
        with suppress(StorageError):
            try:
                self._rename(aside, path, smbclient.rename)
            except StorageExistsError:
                # Somebody else has replaced it meanwhile.
                self.remove(aside)

    def _is_file(self, path: str) -> bool:
        try:
            return self.look(path).is_file
        except StorageNotFoundError:
            return False

    def _leave(self, path: str, file: Any) -> None:
        # What led here says what is wrong; a server that has lost the file as well would hide it.
        with suppress(StorageError):
            if file.fd.connection.transport.connected:
                self._ask(path, lambda _, **how: file.close())
        # It went with its connection, which nobody tells it: it would warn of being left open.
        file.fd._connected = False

    def _full(self, path: str) -> str:
        below = '/'.join(filter(None, (self._path, path)))
        if not paths.is_text(below):
            raise not_encodable(shown(self.destination, path))
        share = f'\\\\{self._address.host}\\{self._address.share}'
        return f'{share}\\{smb_names.to_server(below)}' if below else share


def _open(full: str, mode: str, shared: str | None, how: dict[str, Any]) -> Any:
    return smbclient.open_file(full, mode=mode, buffering=0, share_access=shared, **how)


def _write_all(file: Any, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


def _list(full: str, **how: Any) -> list[Entry]:
    with smbclient.scandir(full, **how) as items:
        return [_entry_of_listed(item, full, how) for item in items]


def _entry(name: str, mtime_ns: int, size_bytes: int) -> Entry:
    return Entry(name, Kind.FILE, size_bytes, mtime_ns, Version.weak(mtime_ns, size_bytes))


def _entry_of_stat(name: str, told: Any) -> Entry:
    # Listings and open files tell microseconds.
    mtime_ns = told.st_mtime_ns // 1000 * 1000
    if stat.S_ISDIR(told.st_mode):
        return Entry(name, Kind.DIRECTORY, 0, mtime_ns)
    if not stat.S_ISREG(told.st_mode):
        return Entry(name, Kind.OTHER, 0, mtime_ns)
    return _entry(name, mtime_ns, told.st_size)


def _entry_of_listed(item: Any, full: str, how: dict[str, Any]) -> Entry:
    name, told = smb_names.from_server(item.name), item.smb_info
    mtime_ns = _nanoseconds(told.last_write_time)
    if item.is_symlink():
        try:
            return _entry_of_stat(name, smbclient.stat(f'{full}\\{item.name}', **how))
        except (OSError, SMBException):
            return Entry(name, Kind.OTHER, 0, mtime_ns)
    if told.file_attributes & FileAttributes.FILE_ATTRIBUTE_DIRECTORY:
        return Entry(name, Kind.DIRECTORY, 0, mtime_ns)
    return _entry(name, mtime_ns, told.end_of_file)


def _entry_of_open(name: str, file: Any) -> Entry:
    return _entry(name, _nanoseconds(file.fd.last_write_time), int(file.fd.end_of_file))


def _nanoseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
