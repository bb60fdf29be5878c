"""FTP as a FileServer, over ftplib.

Owns its commands: listings in the form that programs read (MLST and MLSD, RFC 3659), which servers must have, and
transfers. A version is of the time in seconds and the size. A file is replaced by a rename if the server does that, and
else by a removal and a rename; whether something is at a new name is looked at right before.

Threads: safe.
"""

import ftplib
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from genro_storage import paths
from genro_storage.backends.base import Capabilities, InterruptedReadError, Source
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.ftp_connections import FtpAddress, FtpConnections
from genro_storage.backends.ftp_errors import code_of, translate
from genro_storage.backends.per_process import PerProcess
from genro_storage.backends.served_files import ServedFiles, shown
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

_PIECE_BYTES = 256 << 10

_NO_SUCH_COMMAND = frozenset({'500', '502'})
_UNAVAILABLE = frozenset({'550', '450'})

_KINDS = {'file': Kind.FILE, 'dir': Kind.DIRECTORY, 'cdir': Kind.DIRECTORY, 'pdir': Kind.DIRECTORY}


def ftp_backend(address: FtpAddress, path: str = '', *, timeout_s: float = 30.0) -> ServedFiles:
    """The files below a folder of an FTP server. Connects on first use."""
    server = FtpServer(address, path, timeout_s)
    return ServedFiles(server.destination, lambda: server, Capabilities(atomic_replace=False))


class FtpServer:
    """See FileServer. ``path``: from where a login begins, or from the root if it begins with a slash."""

    copies = False

    def __init__(self, address: FtpAddress, path: str, timeout_s: float) -> None:
        self._root = path.rstrip('/') or ('/' if path else '')
        # A slash more tells the root from where a login begins.
        self.destination = f'{"ftps" if address.tls else "ftp"}:{address}/{self._root}'.rstrip('/')
        self._timeout_s = timeout_s
        self._process = PerProcess(lambda: FtpConnections(address, timeout_s))

    def look(self, path: str) -> Entry:
        """See FileServer. What may not be looked at counts as not there: servers do not tell."""
        with self._asking(path) as ftp:
            try:
                told = ftp.sendcmd(f'MLST {self._full(path)}' if self._full(path) else 'MLST')
            except ftplib.error_perm as error:
                if code_of(error) in _NO_SUCH_COMMAND:
                    raise self._unlistable(path) from error
                raise
        lines = [line for line in told.split('\n')[1:-1] if line]
        if not lines:
            raise self._unlistable(path)
        return _entry(paths.basename(path), lines[0].removeprefix(' '))

    def entries(self, path: str) -> Iterable[Entry]:
        """See FileServer."""
        lines: list[str] = []
        with self._asking(path) as ftp:
            ftp.retrlines(f'MLSD {self._full(path)}' if self._full(path) else 'MLSD', lines.append)
        for line in lines:
            name = paths.decode(line.partition(' ')[2].encode('latin-1'))
            entry = _entry(name, line)
            if name not in {'.', '..'} and '=cdir;' not in line.lower() and '=pdir;' not in line.lower():
                yield entry

    def read(self, path: str, offset: int, size_bytes: int, check: Callable[[Entry], int]) -> bytes:
        """See FileServer. What is read must be what was looked at before and is there after it."""
        entry = self.look(path)
        wanted = check(entry)
        received = bytearray()
        if not wanted:
            return b''
        with self._asking(path) as ftp:
            with ftp.transfercmd(f'RETR {self._full(path)}', rest=offset or None) as data:
                while len(received) < wanted and (piece := data.recv(min(_PIECE_BYTES, wanted - len(received)))):
                    received += piece
                ended = offset + len(received) >= entry.size_bytes and not data.recv(1)
                if ended and isinstance(data, ssl.SSLSocket):
                    data.unwrap()
            self._finish(ftp, path, ended=ended)
        if self.look(path).version != entry.version:
            raise StorageConflictError(f'{shown(self.destination, path)} has changed while it was read')
        if len(received) < wanted:
            what = shown(self.destination, path)
            raise InterruptedReadError(f'{what}: ended {wanted - len(received)} bytes early', bytes(received))
        return bytes(received)

    def store(self, path: str, source: Source) -> None:
        """See FileServer."""
        with self._asking(path) as ftp:
            ftp.storbinary(f'STOR {self._full(path)}', _Reading(source), _PIECE_BYTES)

    def move(self, old: str, new: str, *, replacing: bool) -> None:
        """See FileServer."""
        if not replacing and self._is_there(new):
            raise StorageExistsError(f'{shown(self.destination, new)} exists')
        try:
            self._rename(old, new)
        except (StorageUnavailableError, StorageTimeoutError):
            raise
        except StorageError:
            if not replacing or not self._is_there(new) or not self._is_there(old):
                raise
            self.remove(new)
            self._rename(old, new)

    def copy(self, source: str, target: str) -> None:
        """See FileServer."""
        raise StorageUnsupportedError(f'{shown(self.destination, source)}: FTP has no copies')

    def remove(self, path: str) -> None:
        """See FileServer."""
        self._command(f'DELE {self._full(path)}', path)

    def make(self, path: str) -> None:
        """See FileServer."""
        with self._asking(path) as ftp:
            try:
                ftp.voidcmd(f'MKD {self._full(path)}')
            except ftplib.error_perm as error:
                if code_of(error) not in _UNAVAILABLE:
                    raise
                refused = error
            else:
                return
        if self._is_there(path):
            raise StorageExistsError(f'{shown(self.destination, path)} exists') from refused
        raise StoragePermissionError(f'{shown(self.destination, path)}: refused with 550') from refused

    def remove_empty(self, path: str) -> None:
        """See FileServer."""
        self._command(f'RMD {self._full(path)}', path)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See FileServer."""
        raise StorageUnsupportedError(f'{shown(self.destination, path)}: FTP has no way to set the time {mtime_ns}')

    def usage(self) -> None:
        """See FileServer."""

    def close(self) -> None:
        """See FileServer."""
        connections = self._process.take()
        if connections is not None:
            connections.close()

    @contextmanager
    def _asking(self, path: str) -> Iterator[ftplib.FTP]:
        try:
            with self._process.get().connection() as ftp:
                yield ftp
        except StorageError:
            raise
        except Exception as error:
            raise translate(error, shown(self.destination, path)) from error

    def _command(self, command: str, path: str) -> None:
        try:
            with self._asking(path) as ftp:
                ftp.voidcmd(command)
        except StorageNotFoundError as error:
            if self._is_there(path):
                raise StoragePermissionError(f'{shown(self.destination, path)}: refused with 550') from error
            raise

    def _rename(self, old: str, new: str) -> None:
        old_full, new_full = self._full(old), self._full(new)
        try:
            with self._asking(old) as ftp:
                ftp.rename(old_full, new_full)
        except StorageNotFoundError as error:
            if self._is_there(old):
                raise StoragePermissionError(f'{shown(self.destination, old)}: refused with 550') from error
            raise

    def _finish(self, ftp: ftplib.FTP, path: str, *, ended: bool) -> None:
        """Hear how a transfer ended; of one that was broken off, that it was."""
        try:
            ftp.voidresp()
        except (ftplib.error_temp, ftplib.error_perm) as error:
            if ended:
                raise StorageConflictError(f'{shown(self.destination, path)}: broke off ({code_of(error)})') from error

    def _is_there(self, path: str) -> bool:
        try:
            self.look(path)
        except StorageNotFoundError:
            return False
        return True

    def _full(self, path: str) -> str:
        full = '/'.join(filter(None, (self._root if self._root != '/' else '', path)))
        full = f'/{full}' if self._root == '/' else full
        if set(full) & set('\r\n'):
            raise StoragePathError(f'{shown(self.destination, path)}: FTP has no line breaks in names')
        return paths.encode(full).decode('latin-1')

    def _unlistable(self, path: str) -> StorageUnsupportedError:
        return StorageUnsupportedError(
            f'{shown(self.destination, path)}: this server has no listings for programs (MLST, RFC 3659)'
        )


class _Reading:
    """A source as what ftplib reads from."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._offset = 0

    def read(self, size_bytes: int = _PIECE_BYTES, /) -> bytes:
        """The next bytes. Raises StorageIOError if the source is shorter than it says."""
        piece = read_exactly(self._source, self._offset, min(size_bytes, self._source.size_bytes - self._offset))
        self._offset += len(piece)
        return piece


def _entry(name: str, line: str) -> Entry:
    """The entry of a line of MLST or MLSD: facts, a space, a name."""
    facts = dict(fact.lower().partition('=')[::2] for fact in line.partition(' ')[0].split(';') if '=' in fact)
    kind = _KINDS.get(facts.get('type', ''), Kind.OTHER)
    mtime_ns = _nanoseconds(facts.get('modify', ''))
    if kind is not Kind.FILE:
        return Entry(name, kind, 0, mtime_ns)
    told = facts.get('size', '')
    size_bytes = int(told) if told.isascii() and told.isdigit() else 0
    return Entry(name, kind, size_bytes, mtime_ns, Version.weak(mtime_ns, size_bytes))


def _nanoseconds(moment: str) -> int:
    """A time as RFC 3659 has it, in UTC: YYYYMMDDHHMMSS, perhaps with a fraction."""
    whole, _, fraction = moment.partition('.')
    try:
        seconds = int(datetime.strptime(whole, '%Y%m%d%H%M%S').replace(tzinfo=UTC).timestamp())
        return seconds * 1_000_000_000 + int(f'{fraction:0<9.9}')
    except ValueError:
        return 0
