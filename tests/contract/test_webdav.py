"""WebDAV against rclone's server."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genro_storage.backends.base import Backend
from genro_storage.backends.registry import create
from genro_storage.backends.webdav import webdav_backend
from genro_storage.config import definition_from_mapping
from genro_storage.errors import (
    StorageExistsError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.runtime import SystemClock
from genro_storage.testing.contract import BackendContract, names, read, write
from tests.file_servers import PASSWORD, USER, FileServer, forked, rclone, running, simple


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    with running(rclone('webdav', tmp_path_factory.mktemp('webdav'))) as server:
        yield server


@pytest.fixture(scope='module')
def whole(server: FileServer) -> Iterator[Backend]:
    backend = webdav_backend(url(server), username=USER, password=PASSWORD)
    yield backend
    backend.close()


def url(server: FileServer, path: str = '') -> str:
    return f'http://127.0.0.1:{server.port}/{path}'


class TestWebdav(BackendContract):
    @pytest.fixture
    def backend(self, server: FileServer, whole: Backend) -> Iterator[Backend]:
        # Through the server, which remembers what was there.
        folder = uuid.uuid4().hex
        whole.make_directory(folder)
        backend = webdav_backend(url(server, f'{folder}/'), username=USER, password=PASSWORD)
        yield backend
        backend.close()

    def test_of_many_who_make_a_directory_at_once_one_succeeds(self, backend: Backend) -> None:
        """rclone's server tells several that they were it, of whom there is one by the RFC."""
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: _made(backend, 'd'), range(6)))
        assert names(backend) == {'d'}


def _made(backend: Backend, path: str) -> bool:
    try:
        backend.make_directory(path)
    except StorageExistsError:
        return False
    return True


def test_who_asks_is_told_by_password_or_token_and_a_wrong_one_is_a_refusal(server: FileServer) -> None:
    for wrong in ({'username': USER, 'password': 'hunter2'}, {'token': 'hunter2'}, {}):
        backend = webdav_backend(url(server), **wrong)
        with pytest.raises(StoragePermissionError) as caught:
            backend.stat('')
        assert 'hunter2' not in f'{caught.value}{backend!r}{backend.destination}'
        backend.close()


def test_a_server_that_was_restarted_is_asked_again_and_one_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with running(rclone('webdav', tmp_path)) as server:
        backend = webdav_backend(url(server), username=USER, password=PASSWORD, timeout_s=2)
        write(backend, 'f', b'1')
        server.stop()
        with pytest.raises(StorageUnavailableError):
            backend.stat('f')
        server.start()
        assert read(backend, 'f') == b'1'
        backend.close()
        backend.close()


def test_a_server_of_something_else_is_not_supported(tmp_path: Path) -> None:
    with running(simple(tmp_path)) as server:
        backend = webdav_backend(url(server))
        with pytest.raises(StorageUnsupportedError):
            backend.stat('')
        backend.close()


def test_a_forked_child_has_a_connection_of_its_own(whole: Backend) -> None:
    write(whole, 'of-parent', b'parent')
    assert forked(lambda: write(whole, 'of-child', read(whole, 'of-parent')))
    assert read(whole, 'of-child') == b'parent'


def test_the_definition_makes_it(server: FileServer) -> None:
    given = {'name': 'm', 'type': 'webdav', 'url': url(server), 'username': USER, 'password': PASSWORD}
    backend = create(definition_from_mapping(given), SystemClock())
    with pytest.raises(StorageNotFoundError):
        backend.stat('nothing')
    backend.close()
