"""HTTP against rclone's server: what is written into its folder by others is read through it."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from genro_storage.backends.base import Backend
from genro_storage.backends.http import HttpBackend
from genro_storage.backends.local import LocalBackend
from genro_storage.backends.registry import create
from genro_storage.config import definition_from_mapping
from genro_storage.errors import (
    StorageConflictError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageReadOnlyError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.runtime import SystemClock
from genro_storage.testing import BytesSource, FaultyLine
from genro_storage.testing.contract import FailingContract, LookingContract, names, read, write
from genro_storage.testing.contract.failing import HTTP_503
from genro_storage.testing.contract.putting import NAMES
from tests.file_servers import FORGETFUL, PASSWORD, USER, FileServer, rclone, running, simple


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    with running(rclone('http', tmp_path_factory.mktemp('http'), FORGETFUL)) as server:
        yield server


@pytest.fixture(scope='module')
def simple_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """Python's own: no ranges, a connection for each request, and redirections to directories."""
    with running(simple(tmp_path_factory.mktemp('http-simple'))) as server:
        yield server


class _WrittenBehind:
    """Reads through one backend what is changed through another."""

    def __init__(self, reading: Backend, writing: Backend) -> None:
        self._reading = reading
        for name in ('put', 'remove_file', 'make_directory', 'remove_directory', 'rename'):
            setattr(self, name, getattr(writing, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reading, name)


def url(server: FileServer | FaultyLine, path: str = '', password: str = PASSWORD) -> str:
    return f'http://{USER}:{password}@127.0.0.1:{server.port}/{path}'


class TestHttp(LookingContract):
    @pytest.fixture
    def chosen(self, server: FileServer) -> FileServer:
        return server

    @pytest.fixture
    def folder(self, chosen: FileServer) -> Path:
        folder = chosen.root / uuid.uuid4().hex
        folder.mkdir()
        return folder

    @pytest.fixture
    def http(self, chosen: FileServer, folder: Path) -> Iterator[HttpBackend]:
        backend = HttpBackend(url(chosen, folder.name))
        yield backend
        backend.close()

    @pytest.fixture
    def backend(self, http: HttpBackend, folder: Path) -> Iterator[Any]:
        writing = LocalBackend(folder)
        yield _WrittenBehind(http, writing)
        writing.close()

    def test_the_look_at_a_file_brings_its_beginning(self, http: HttpBackend, folder: Path) -> None:
        (folder / 'file').write_bytes(b'0123456789')
        entry, beginning = http.stat_and_read('file', 4)
        assert (entry.size_bytes, beginning) == (10, b'0123')

    # What LookingContract asks of removals and renames is the other backend's here.

    def test_put_stat_and_listing_agree_on_an_entry(self, backend: Backend) -> None:
        write(backend, 'd/file', b'123')
        backend.make_directory('d/e')
        listed = {entry.name: entry for entry in backend.list_directory('d')}
        assert backend.stat('d/file') == listed['file']
        assert backend.stat('d/e') == listed['e']
        assert listed['file'].size_bytes == 3

    @pytest.mark.parametrize(
        ('offset', 'size_bytes', 'expected'),
        [(0, 10, b'0123456789'), (3, 4, b'3456'), (8, 100, b'89'), (10, 5, b''), (50, 5, b''), (4, 0, b'')],
    )
    def test_a_range_is_short_only_at_the_end(
        self, backend: Backend, offset: int, size_bytes: int, expected: bytes
    ) -> None:
        write(backend, 'digits', b'0123456789')
        version = backend.stat('digits').version
        assert backend.read_range('digits', offset, size_bytes, None) == expected
        assert backend.read_range('digits', offset, size_bytes, version) == expected

    def test_an_empty_file_reads_as_nothing(self, backend: Backend) -> None:
        write(backend, 'empty', b'')
        assert backend.read_range('empty', 0, 100, backend.stat('empty').version) == b''

    def test_a_changed_file_is_a_conflict_for_who_reads_the_old_version(self, backend: Backend) -> None:
        write(backend, 'file', b'old')
        old = backend.stat('file').version
        write(backend, 'file', b'longer')
        with pytest.raises(StorageConflictError):
            backend.read_range('file', 0, 10, old)
        assert backend.read_range('file', 0, 3, backend.stat('file').version) == b'lon'

    def test_a_removed_file_is_a_conflict_for_who_reads_a_version_of_it(self, backend: Backend) -> None:
        write(backend, 'file', b'old')
        old = backend.stat('file').version
        backend.remove_file('file')
        with pytest.raises(StorageConflictError):
            backend.read_range('file', 0, 10, old)

    # rclone shows control characters as pictures of them.
    @pytest.mark.parametrize('name', [name for name in NAMES if name.isprintable()])
    def test_any_name_is_listed_and_read(self, backend: Backend, name: str) -> None:
        write(backend, f'd/{name}', b'content')
        write(backend, f'{name}/file', b'below')
        assert names(backend, 'd') == {name}
        assert read(backend, f'd/{name}') == b'content'
        assert names(backend, name) == {'file'}
        assert read(backend, f'{name}/file') == b'below'

    def test_nothing_can_be_changed(self, http: HttpBackend) -> None:
        for change in (
            lambda: http.put('a', BytesSource(b'1')),
            lambda: http.remove_file('a'),
            lambda: http.make_directory('a'),
            lambda: http.remove_directory('a'),
            lambda: http.rename('a', 'b'),
            lambda: http.copy('a', 'b'),
            lambda: http.set_mtime('a', 1),
        ):
            with pytest.raises(StorageReadOnlyError):
                change()

    def test_large_files_are_read_by_many_at_once(self, backend: Backend) -> None:
        data = bytes(range(256)) * (64 << 10)
        write(backend, 'large', data)
        version = backend.stat('large').version
        found: dict[int, bytes] = {}
        step = 3 << 20

        def read_from(offset: int) -> None:
            found[offset] = backend.read_range('large', offset, step, version)

        threads = [threading.Thread(target=read_from, args=(offset,)) for offset in range(0, len(data), step)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b''.join(found[offset] for offset in sorted(found)) == data

    def test_its_urls_are_told_only_where_they_are_of_use(self, http: HttpBackend, server: FileServer) -> None:
        with pytest.raises(StorageUnsupportedError):
            http.url('a b', 60)
        assert HttpBackend('http://h/x/').url('a b?', 60) == 'http://h/x/a%20b%3F'


class TestHttpWithoutRanges(TestHttp):
    @pytest.fixture
    def chosen(self, simple_server: FileServer) -> FileServer:
        return simple_server

    @pytest.mark.parametrize('name', NAMES)
    def test_any_name_is_listed_and_read(self, backend: Backend, name: str) -> None:
        super().test_any_name_is_listed_and_read(backend, name)


class TestHttpOverABadLine(FailingContract):
    secrets = (PASSWORD,)
    throttled = HTTP_503

    @pytest.fixture
    def line(self, server: FileServer) -> Iterator[FaultyLine]:
        with closing(FaultyLine(server.port)) as line:
            yield line

    @pytest.fixture
    def folder(self, server: FileServer) -> Path:
        folder = server.root / uuid.uuid4().hex
        folder.mkdir()
        return folder

    @pytest.fixture
    def backend(self, line: FaultyLine, folder: Path) -> Iterator[Backend]:
        with closing(HttpBackend(url(line, folder.name), timeout_s=self.timeout_s)) as backend:
            yield backend

    @pytest.fixture
    def beyond(self, folder: Path) -> Iterator[Backend]:
        with closing(LocalBackend(folder)) as beyond:
            yield beyond


def test_a_wrong_password_is_a_refusal_that_does_not_tell_it(server: FileServer) -> None:
    backend = HttpBackend(url(server, password='wrong-hunter2'))
    for ask in (backend.stat, backend.list_directory):
        with pytest.raises(StoragePermissionError) as caught:
            ask('')
        assert 'hunter2' not in str(caught.value)
    assert 'hunter2' not in repr(backend)
    assert 'hunter2' not in backend.destination
    backend.close()


def test_a_server_that_was_restarted_is_asked_again_and_one_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with running(rclone('http', tmp_path, FORGETFUL)) as server:
        (server.root / 'f').write_bytes(b'1')
        backend = HttpBackend(url(server), timeout_s=2)
        assert read(backend, 'f') == b'1'
        server.stop()
        with pytest.raises(StorageUnavailableError):
            backend.stat('f')
        server.start()
        assert read(backend, 'f') == b'1'
        backend.close()
        backend.close()


def test_the_definition_makes_it(server: FileServer) -> None:
    (server.root / 'there').write_bytes(b'1')
    backend = create(definition_from_mapping({'name': 'm', 'type': 'http', 'base_url': url(server)}), SystemClock())
    assert backend.stat('there').size_bytes == 1
    with pytest.raises(StorageNotFoundError):
        backend.stat('nothing')
    backend.close()
