"""SFTP as a FileServer, over asyncssh.

Owns what a request looks like, and the times of silence after which one has failed. The connection, see
sftp_connection.

A version is of the time in seconds and the size: all that version 3 of the protocol tells, which servers speak. A read
compares that of the very file that it reads. Files are replaced in one step by the extension posix-rename@openssh.com,
and by servers without it in two.

Threads: safe. Coroutines run on fsspec's loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import asyncssh

from genro_storage import paths
from genro_storage.backends.base import InterruptedReadError, Source
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.loop_requests import run
from genro_storage.backends.per_process import PerProcess
from genro_storage.backends.served_files import shown
from genro_storage.backends.sftp_address import SftpAddress
from genro_storage.backends.sftp_connection import SftpConnection
from genro_storage.backends.sftp_errors import translate
from genro_storage.entry import Entry, Extent, Kind, Usage, Version
from genro_storage.errors import StorageError, StorageTimeoutError

T = TypeVar('T')

#: What to ask a client; it calls its second argument when something has moved.
Ask = Callable[[asyncssh.SFTPClient, Callable[[], None]], Awaitable[T]]

# Sent and asked for at once: what is slower than one of these in a mount's timeout makes no progress.
_PIECE_BYTES = 1 << 20
# Copied by the server at once, in silence.
_COPY_BYTES = 64 << 20

_KINDS = {asyncssh.FILEXFER_TYPE_REGULAR: Kind.FILE, asyncssh.FILEXFER_TYPE_DIRECTORY: Kind.DIRECTORY}


class SftpServer:
    """See FileServer. ``path``: from the user's home, or from the root if it begins with a slash."""

    def __init__(self, address: SftpAddress, path: str, timeout_s: float) -> None:
        self._root = paths.encode(path).rstrip(b'/') or (b'/' if path else b'.')
        self.destination = address.destination(path)
        self._timeout_s = timeout_s
        self._process = PerProcess(lambda: SftpConnection(address, self.destination, timeout_s))

    @property
    def copies(self) -> bool:
        """See FileServer. By the extension copy-data."""
        return self._ask('', lambda sftp, _: _supports_copies(sftp))

    def look(self, path: str) -> Entry:
        """See FileServer."""
        return self._ask(path, lambda sftp, _: self._look(sftp, path))

    def entries(self, path: str) -> Iterable[Entry]:
        """See FileServer."""
        return self._ask(path, lambda sftp, moved: self._entries(sftp, path, moved))

    def read(self, path: str, offset: int, size_bytes: int, check: Callable[[Entry], int]) -> bytes:
        """See FileServer."""
        return self._ask(path, lambda sftp, moved: self._read(sftp, path, Extent(offset, size_bytes), check, moved))

    def store(self, path: str, source: Source) -> None:
        """See FileServer."""
        file = self._ask(path, lambda sftp, _: sftp.open(self._full(path), 'xb'))
        try:
            for offset in range(0, source.size_bytes, _PIECE_BYTES):
                piece = read_exactly(source, offset, min(_PIECE_BYTES, source.size_bytes - offset))
                self._ask(path, partial(_write, file, piece, offset))
            self._ask(path, lambda *_: _sync(file))
        except BaseException:
            with suppress(StorageError):
                self._ask(path, lambda *_: file.close())
            raise
        # A server may tell only now that a quota or a disk is full.
        self._ask(path, lambda *_: file.close())

    def move(self, old: str, new: str, *, replacing: bool) -> None:
        """See FileServer."""
        self._ask(old, lambda sftp, _: self._move(sftp, self._full(old), self._full(new), replacing))

    def copy(self, source: str, target: str) -> None:
        """See FileServer."""
        size_bytes = self.look(source).size_bytes
        self._ask(target, lambda sftp, _: _create(sftp, self._full(target)))
        for offset in range(0, size_bytes, _COPY_BYTES):
            length = min(_COPY_BYTES, size_bytes - offset)
            self._ask(source, partial(self._copy_piece, source, target, Extent(offset, length)))

    def remove(self, path: str) -> None:
        """See FileServer."""
        self._ask(path, lambda sftp, _: sftp.remove(self._full(path)))

    def make(self, path: str) -> None:
        """See FileServer."""
        self._ask(path, lambda sftp, _: sftp.mkdir(self._full(path)))

    def remove_empty(self, path: str) -> None:
        """See FileServer."""
        self._ask(path, lambda sftp, _: sftp.rmdir(self._full(path)))

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See FileServer. To the second."""
        seconds = mtime_ns // 1_000_000_000
        self._ask(path, lambda sftp, _: sftp.utime(self._full(path), (seconds, seconds)))

    def usage(self) -> Usage | None:
        """See FileServer. By the extension statvfs@openssh.com."""
        return self._ask('', lambda sftp, _: _usage(sftp, self._root))

    def close(self) -> None:
        """See FileServer."""
        connection = self._process.take()
        if connection is not None:
            connection.close()

    def _ask(self, path: str, ask: 'Ask[T]') -> T:
        connection = self._process.get()
        try:
            return run(self._in_time(connection, ask))
        except StorageError:
            raise
        except TimeoutError as error:
            what = shown(self.destination, path)
            raise StorageTimeoutError(f'{what}: no progress within {self._timeout_s:g} s') from error
        except Exception as error:
            raise translate(error, shown(self.destination, path)) from error

    async def _in_time(self, connection: SftpConnection, ask: 'Ask[T]') -> T:
        sftp = await connection.client()
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                return await ask(sftp, lambda: limit.reschedule(now() + self._timeout_s))
        except (TimeoutError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError):
            connection.drop(sftp)
            raise

    def _full(self, path: str) -> bytes:
        return self._root + b'/' + paths.encode(path) if path else self._root

    async def _look(self, sftp: asyncssh.SFTPClient, path: str) -> Entry:
        return _entry(paths.basename(path), await sftp.stat(self._full(path)))

    async def _entries(self, sftp: asyncssh.SFTPClient, path: str, moved: Callable[[], None]) -> list[Entry]:
        found = []
        async for listed in sftp.scandir(self._full(path)):
            moved()
            name, attrs = paths.decode(_raw(listed.filename)), listed.attrs
            if name in {'.', '..'}:
                continue
            if attrs.type == asyncssh.FILEXFER_TYPE_SYMLINK:
                # To nowhere, or to where nobody may look: it is shown as what it is.
                with suppress(asyncssh.SFTPError):
                    attrs = await sftp.stat(self._full(paths.child(path, name)))
            found.append(_entry(name, attrs))
        return found

    async def _read(
        self,
        sftp: asyncssh.SFTPClient,
        path: str,
        wanted: Extent,
        check: Callable[[Entry], int],
        moved: Callable[[], None],
    ) -> bytes:
        async with sftp.open(self._full(path), 'rb') as file:
            # Both at once: a round trip less for each block, and the file is the same.
            first = file.read(min(wanted.size_bytes, _PIECE_BYTES), wanted.offset)
            attrs, data = await asyncio.gather(file.stat(), first, return_exceptions=True)
            if isinstance(attrs, BaseException):
                raise attrs
            size_bytes = check(_entry(paths.basename(path), attrs))
            if isinstance(data, BaseException):
                raise data
            received = bytearray(_raw(data)[:size_bytes])
            while len(received) < size_bytes:
                moved()
                rest = size_bytes - len(received)
                piece = await file.read(min(rest, _PIECE_BYTES), wanted.offset + len(received))
                if not piece:
                    what = shown(self.destination, path)
                    raise InterruptedReadError(f'{what}: the file ended {rest} bytes early', bytes(received))
                received += _raw(piece)
        return bytes(received)

    async def _move(self, sftp: asyncssh.SFTPClient, old: bytes, new: bytes, replacing: bool) -> None:
        if not replacing:
            # Refuses where something is, by link(2) and so at once on OpenSSH's server.
            await sftp.rename(old, new)
            return
        try:
            await sftp.posix_rename(old, new)
        except asyncssh.SFTPOpUnsupported:
            with suppress(asyncssh.SFTPNoSuchFile):
                await sftp.remove(new)
            await sftp.rename(old, new)

    async def _copy_piece(
        self, source: str, target: str, piece: Extent, sftp: asyncssh.SFTPClient, _: Callable[[], None]
    ) -> None:
        async with (
            sftp.open(self._full(source), 'rb', block_size=0) as old,
            sftp.open(self._full(target), 'r+b', block_size=0) as new,
        ):
            await sftp.remote_copy(old, new, piece.offset, piece.size_bytes, piece.offset)


def _raw(told: bytes | str) -> bytes:
    """What asyncssh gives as it was asked: bytes, of a file that was opened so and of a path that was."""
    return told if isinstance(told, bytes) else paths.encode(told)


def _entry(name: str, attrs: asyncssh.SFTPAttrs) -> Entry:
    kind = _KINDS.get(attrs.type, Kind.OTHER)
    mtime_ns = int(attrs.mtime or 0) * 1_000_000_000 + int(attrs.mtime_ns or 0)
    if kind is not Kind.FILE:
        return Entry(name, kind, 0, mtime_ns)
    size_bytes = int(attrs.size or 0)
    return Entry(name, kind, size_bytes, mtime_ns, Version.weak(mtime_ns, size_bytes))


async def _supports_copies(sftp: asyncssh.SFTPClient) -> bool:
    return bool(sftp.supports_remote_copy)


async def _create(sftp: asyncssh.SFTPClient, full: bytes) -> None:
    async with sftp.open(full, 'xb'):
        pass


async def _write(file: asyncssh.SFTPClientFile, piece: bytes, offset: int, *_: object) -> None:
    await file.write(piece, offset)


async def _sync(file: Any) -> None:
    with suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()


async def _usage(sftp: asyncssh.SFTPClient, root: bytes) -> Usage | None:
    try:
        told = await sftp.statvfs(root)
    except asyncssh.SFTPOpUnsupported:
        return None
    size = int(told.frsize)
    return Usage(int(told.blocks) * size, int(told.bfree) * size, int(told.bavail) * size)
