"""FsspecBackend beside the contract: errors of file systems, their dictionaries, and their ways to write."""

import asyncio
import errno
import socket
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFileSystem

from genro_storage.backends.base import InterruptedReadError
from genro_storage.backends.fsspec_backend import FsspecBackend
from genro_storage.backends.fsspec_entries import entry_of
from genro_storage.backends.fsspec_errors import translate
from genro_storage.backends.per_process import PerProcess
from genro_storage.entry import Entry, Kind, Version
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
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.testing import BytesSource
from genro_storage.testing.contract import names, read, write


@pytest.mark.parametrize(
    ('foreign', 'ours'),
    [
        (FileNotFoundError('x'), StorageNotFoundError),
        (FileNotFoundError(errno.ENOENT, 'x'), StorageNotFoundError),
        (PermissionError('x'), StoragePermissionError),
        (PermissionError(errno.EPERM, 'x'), StoragePermissionError),
        (FileExistsError('x'), StorageExistsError),
        (IsADirectoryError('x'), StorageIsADirectoryError),
        (NotADirectoryError('x'), StorageNotADirectoryError),
        (OSError(errno.ENOTEMPTY, 'x'), StorageNotEmptyError),
        (OSError(errno.EROFS, 'x'), StorageReadOnlyError),
        (OSError(errno.ENOSPC, 'x'), StorageNoSpaceError),
        (OSError(errno.EDQUOT, 'x'), StorageNoSpaceError),
        (OSError(errno.ESTALE, 'x'), StorageConflictError),
        (OSError(errno.EHOSTUNREACH, 'x'), StorageUnavailableError),
        (OSError(errno.EIO, 'x'), StorageIOError),
        (OSError('x'), StorageIOError),
        (TimeoutError('x'), StorageTimeoutError),
        (FSTimeoutError(), StorageTimeoutError),
        (ConnectionRefusedError('x'), StorageUnavailableError),
        (BrokenPipeError(errno.EPIPE, 'x'), StorageUnavailableError),
        (socket.gaierror(-2, 'x'), StorageUnavailableError),
        (aiohttp.ServerDisconnectedError(), StorageUnavailableError),
        (aiohttp.ServerTimeoutError(), StorageTimeoutError),
        (aiohttp.ClientPayloadError(), StorageUnavailableError),
        (EOFError(), StorageUnavailableError),
        (NotImplementedError(), StorageUnsupportedError),
        (ImportError('x'), StorageConfigError),
        (UnicodeEncodeError('utf-8', '\udce9', 0, 1, 'x'), StoragePathError),
        (ValueError('x'), StorageIOError),
        (KeyError('x'), StorageIOError),
    ],
)
def test_each_foreign_error_has_its_own_here(foreign: Exception, ours: type[StorageError]) -> None:
    assert type(translate(foreign, 'place')) is ours
    assert 'place' in str(translate(foreign, 'place'))


@pytest.mark.parametrize(
    'failure', [TimeoutError(), ConnectionResetError(errno.ECONNRESET, 'x'), socket.gaierror(-2, 'x'), EOFError()]
)
def test_unreachable_is_never_not_found(failure: Exception) -> None:
    assert not isinstance(translate(failure, 'place'), FileNotFoundError)


_NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
_NOON_NS = 1_704_110_400_000_000_000


@pytest.mark.parametrize(
    'times',
    [
        {'mtime': 1_704_110_400.0},
        {'mtime': _NOON},
        {'LastModified': _NOON.astimezone(timezone(timedelta(hours=5)))},
        {'last_modified': _NOON.replace(tzinfo=None)},
        {'updated': '2024-01-01T12:00:00Z'},
        {'created': _NOON.timestamp()},
        {'mtime': None, 'modified': _NOON},
    ],
)
def test_times_are_understood_as_file_systems_give_them(times: dict[str, Any]) -> None:
    entry = entry_of('file', {'type': 'file', 'size': 3, **times}, strong_versions=False)
    assert entry == Entry('file', Kind.FILE, 3, _NOON_NS, Version.weak(_NOON_NS, 3))


def test_what_is_not_said_is_zero() -> None:
    entry = entry_of('file', {'type': 'file', 'size': None, 'updated': 'yesterday'}, strong_versions=False)
    assert (entry.size_bytes, entry.mtime_ns) == (0, 0)
    assert entry_of('x', {'type': 'other'}, strong_versions=False).kind is Kind.OTHER


def test_tags_are_versions_and_strong_only_where_declared() -> None:
    info = {'type': 'file', 'size': 1, 'ETag': '"abc"'}
    assert entry_of('file', info, strong_versions=True).version == Version('"abc"', strong=True)
    assert entry_of('file', info, strong_versions=False).version == Version('"abc"', strong=False)


@pytest.mark.parametrize(
    ('protocol', 'options'), [('no-such-protocol', {}), ('file', {'use_listings_cache': False, 'loop': 5, 'x.y': 1})]
)
def test_what_fsspec_cannot_make_is_a_config_error_on_first_use(protocol: str, options: dict[str, Any]) -> None:
    backend = FsspecBackend.of_protocol(protocol, '/', 'place', options=options)
    if protocol == 'file':
        assert backend.stat('').is_directory
    else:
        with pytest.raises(StorageConfigError, match=protocol):
            backend.stat('')


def test_a_put_that_fails_leaves_nothing_aside(tmp_path: Path) -> None:
    backend = FsspecBackend.of_protocol('file', str(tmp_path), 'place')
    with pytest.raises(StorageIOError):
        backend.put('file', BytesSource(b'short', size_bytes=100))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_moves_copies_first_and_removes_last() -> None:
    class Failing(MemoryFileSystem):
        def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
            if path1.endswith('second'):
                raise OSError(errno.EIO, 'x')
            super().cp_file(path1, path2, **kwargs)

    store = Failing(global_store=False, skip_instance_cache=True)
    backend = FsspecBackend(lambda: store, '', 'place')
    write(backend, 'd/first', b'1')
    write(backend, 'd/second', b'2')
    with pytest.raises(StorageIOError):
        backend.rename('d', 'e')
    assert read(backend, 'd/first') == b'1'
    assert read(backend, 'd/second') == b'2'


def test_an_asynchronous_file_system_that_does_not_answer_is_a_timeout() -> None:
    class Silent(AsyncFileSystem):  # type: ignore[misc]
        async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
            await asyncio.sleep(60)
            return {}

    backend = FsspecBackend(lambda: Silent(skip_instance_cache=True), '', 'place', timeout_s=0.1)
    with pytest.raises(StorageTimeoutError):
        backend.stat('file')


class Answering(AbstractFileSystem):  # type: ignore[misc]
    """One file, 'file', and its server's answer to whatever range is asked for."""

    content = b'0123456789'
    answer = b''

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {'name': path, 'size': len(self.content), 'type': 'file'}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return self.answer


def _answering(answer: bytes) -> FsspecBackend:
    filesystem = Answering(skip_instance_cache=True)
    filesystem.answer = answer
    return FsspecBackend(lambda: filesystem, '', 'place')


def test_a_range_that_falls_short_is_told_to_go_on_from() -> None:
    with pytest.raises(InterruptedReadError) as caught:
        _answering(b'234').read_range('file', 2, 6, None)
    assert caught.value.received == b'234'


def test_the_range_is_cut_out_of_everything() -> None:
    assert _answering(b'0123456789').read_range('file', 2, 6, None) == b'234567'
    assert _answering(b'0123456789').read_range('file', 8, 6, None) == b'89'


def test_more_than_was_asked_for_and_not_everything_is_an_error() -> None:
    with pytest.raises(StorageIOError, match='asked for 2 bytes, 5 came'):
        _answering(b'23456').read_range('file', 2, 2, None)


def test_a_read_only_file_system_says_unsupported() -> None:
    class ReadOnly(AbstractFileSystem):  # type: ignore[misc]
        def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
            if path.strip('/') == 'file':
                return {'name': path, 'size': 1, 'type': 'file'}
            if path.strip('/'):
                raise FileNotFoundError(path)
            return {'name': '', 'size': 0, 'type': 'directory'}

    backend = FsspecBackend(lambda: ReadOnly(skip_instance_cache=True), '', 'place')
    for operation in (
        lambda: write(backend, 'new', b'1'),
        lambda: backend.remove_file('file'),
        lambda: backend.copy('file', 'new'),
        lambda: backend.rename('file', 'new'),
    ):
        with pytest.raises(StorageUnsupportedError):
            operation()


def test_of_a_file_and_a_directory_of_one_name_the_directory_is_shown() -> None:
    store = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    backend = FsspecBackend(lambda: store, '', 'place')
    write(backend, 'd/a/b', b'1')
    store.store['/d/a'] = store.store['/d/a/b']
    assert names(backend, 'd') == {'a'}
    assert next(iter(backend.list_directory('d'))).kind is Kind.DIRECTORY


def test_each_process_makes_its_own_once() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    process = PerProcess(make)
    assert process.get() is process.get()
    assert process.take() is made[0]
    assert process.take() is None
    assert process.get() is made[1]
