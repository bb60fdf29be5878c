"""WebDAV against rclone's server."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from genro_storage.backends.base import Backend
from genro_storage.backends.registry import create
from genro_storage.backends.webdav import webdav_backend
from genro_storage.config import definition_from_mapping
from genro_storage.errors import (
    StorageNotFoundError,
    StoragePermissionError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.runtime import SystemClock
from genro_storage.testing import FaultyLine
from genro_storage.testing.contract import BackendContract, FailingContract, read, write
from genro_storage.testing.contract.failing import HTTP_503
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


def url(server: FileServer | FaultyLine, path: str = '') -> str:
    return f'http://127.0.0.1:{server.port}/{path}'


class TestWebdav(BackendContract):
    # rclone's server tells several that they were it, of whom there is one by the RFC.
    one_makes_a_directory = False

    @pytest.fixture
    def backend(self, server: FileServer, whole: Backend) -> Iterator[Backend]:
        # Through the server, which remembers what was there.
        folder = uuid.uuid4().hex
        whole.make_directory(folder)
        backend = webdav_backend(url(server, f'{folder}/'), username=USER, password=PASSWORD)
        yield backend
        backend.close()


class TestWebdavOverABadLine(FailingContract):
    secrets = (PASSWORD,)
    throttled = HTTP_503

    @pytest.fixture
    def line(self, server: FileServer) -> Iterator[FaultyLine]:
        with closing(FaultyLine(server.port)) as line:
            yield line

    @pytest.fixture
    def folder(self, whole: Backend) -> str:
        folder = uuid.uuid4().hex
        whole.make_directory(folder)
        return f'{folder}/'

    @pytest.fixture
    def backend(self, line: FaultyLine, folder: str) -> Iterator[Backend]:
        backend = webdav_backend(url(line, folder), username=USER, password=PASSWORD, timeout_s=self.timeout_s)
        yield backend
        backend.close()

    @pytest.fixture
    def beyond(self, server: FileServer, folder: str) -> Iterator[Backend]:
        with closing(webdav_backend(url(server, folder), username=USER, password=PASSWORD)) as backend:
            yield backend


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
