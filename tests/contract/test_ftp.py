"""FTP against rclone's server."""

import ftplib
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from genro_storage.backends.base import Backend
from genro_storage.backends.ftp import ftp_backend
from genro_storage.backends.ftp_connections import FtpAddress
from genro_storage.backends.ftp_errors import CODES, TABLE, translate
from genro_storage.backends.registry import create
from genro_storage.config import definition_from_mapping
from genro_storage.errors import (
    StorageError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageUnavailableError,
)
from genro_storage.runtime import SystemClock
from genro_storage.testing import FaultyLine
from genro_storage.testing.contract import BackendContract, ContendingContract, FailingContract, names, read, write
from genro_storage.testing.contract.putting import NAMES
from tests.file_servers import PASSWORD, USER, FileServer, emptied, forked, ftps, plain_ftp, rclone, running


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    with running(rclone('ftp', tmp_path_factory.mktemp('ftp'))) as server:
        yield server


@pytest.fixture(scope='module')
def backend_at_root(server: FileServer) -> Iterator[Backend]:
    backend = ftp_backend(address(server))
    yield backend
    backend.close()


def address(server: FileServer | FaultyLine) -> FtpAddress:
    return FtpAddress(host='127.0.0.1', port=server.port, username=USER, password=PASSWORD)


class TestFtp(BackendContract):
    # rclone's server tells several that they were it; FTP has no other way to ask.
    one_makes_a_directory = False
    # It remembers wrongly what is there when renames and removals of one name meet: files that cannot be renamed,
    # removed or read. Below, another server is asked.
    replaces_at_once = False

    @pytest.fixture
    def backend(self, server: FileServer, backend_at_root: Backend) -> Iterator[Backend]:
        # Through the server, which remembers what was there.
        folder = uuid.uuid4().hex
        backend_at_root.make_directory(folder)
        backend = ftp_backend(address(server), f'/{folder}')
        yield backend
        backend.close()

    @pytest.mark.parametrize('name', [name for name in NAMES if '\n' not in name])
    def test_any_name_goes_there_and_back(self, backend: Backend, name: str) -> None:
        super().test_any_name_goes_there_and_back(backend, name)

    @pytest.mark.parametrize('name', [name for name in NAMES if '\n' not in name])
    def test_directories_take_any_name_too(self, backend: Backend, name: str) -> None:
        super().test_directories_take_any_name_too(backend, name)


@pytest.fixture(scope='module')
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    with running(plain_ftp(tmp_path_factory.mktemp('ftp-plain'))) as server:
        yield server


class TestFtpOfAnotherServer(ContendingContract):
    @pytest.fixture
    def backend(self, another: FileServer) -> Iterator[Backend]:
        folder = emptied(another.root / 'contract')
        with closing(ftp_backend(address(another), f'/{folder.name}')) as backend:
            yield backend


class TestFtpOverABadLine(FailingContract):
    """Only the commands are on it: files and listings go to ports of their own, which the server names."""

    secrets = (PASSWORD,)
    breaks_at_bytes = 150

    @pytest.fixture
    def line(self, server: FileServer) -> Iterator[FaultyLine]:
        with closing(FaultyLine(server.port)) as line:
            yield line

    @pytest.fixture
    def folder(self, backend_at_root: Backend) -> str:
        folder = uuid.uuid4().hex
        backend_at_root.make_directory(folder)
        return f'/{folder}'

    @pytest.fixture
    def backend(self, line: FaultyLine, folder: str) -> Iterator[Backend]:
        with closing(ftp_backend(address(line), folder, timeout_s=self.timeout_s)) as backend:
            yield backend

    @pytest.fixture
    def beyond(self, server: FileServer, folder: str) -> Iterator[Backend]:
        with closing(ftp_backend(address(server), folder)) as backend:
            yield backend


def test_a_wrong_password_is_a_refusal_that_does_not_tell_it(server: FileServer) -> None:
    backend = ftp_backend(FtpAddress(host='127.0.0.1', port=server.port, username=USER, password='hunter2'))
    with pytest.raises(StoragePermissionError) as caught:
        backend.stat('')
    assert 'hunter2' not in f'{caught.value}{caught.value.__cause__}{backend!r}{backend.destination}'
    backend.close()


def test_a_server_that_was_restarted_is_asked_again_and_one_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with running(rclone('ftp', tmp_path)) as server:
        backend = ftp_backend(address(server), timeout_s=2)
        write(backend, 'f', b'1')
        server.stop()
        with pytest.raises(StorageUnavailableError):
            backend.stat('f')
        server.start()
        assert read(backend, 'f') == b'1'
        backend.close()
        backend.close()


def test_with_tls_passwords_and_files_are_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(ftps(tmp_path)) as server:
        encrypted = msgspec.structs.replace(address(server), tls=True)
        untrusting = ftp_backend(encrypted)
        with pytest.raises(StorageUnavailableError, match='certificate'):
            untrusting.stat('')
        plain = ftp_backend(address(server))
        with pytest.raises(StorageError):
            plain.stat('')
        monkeypatch.setenv('SSL_CERT_FILE', str(tmp_path / 'certificate.pem'))
        backend = ftp_backend(encrypted, '/')
        data = bytes(range(256)) * 5000
        write(backend, 'd/f', data)
        write(backend, 'd/f', data)
        assert read(backend, 'd/f') == data
        assert backend.read_range('d/f', 300, 10, None) == data[300:310]
        assert names(backend, 'd') == {'f'}
        for made in (untrusting, plain, backend):
            made.close()


def test_every_exception_of_ftplib_has_its_own_here() -> None:
    """A new one needs a line in the table."""
    found = {kind for kind in vars(ftplib).values() if isinstance(kind, type) and issubclass(kind, ftplib.Error)}
    assert found == set(TABLE)


@pytest.mark.parametrize(('code', 'ours'), CODES.items())
def test_each_code_has_its_own_error(code: str, ours: type[StorageError]) -> None:
    for kind in (ftplib.error_perm, ftplib.error_temp):
        translated = translate(kind(f'{code} PASS hunter2'), 'place')
        assert type(translated) is ours
        assert 'place' in str(translated)
        assert 'hunter2' not in str(translated)
    assert type(translate(EOFError(), 'place')) is StorageUnavailableError


@pytest.mark.parametrize('name', ['new\nline', 'carriage\rreturn'])
def test_a_name_with_a_line_break_is_refused(backend_at_root: Backend, name: str) -> None:
    with pytest.raises(StoragePathError):
        write(backend_at_root, name, b'1')


def test_a_forked_child_has_a_connection_of_its_own(backend_at_root: Backend) -> None:
    write(backend_at_root, 'of-parent', b'parent')
    assert forked(lambda: write(backend_at_root, 'of-child', read(backend_at_root, 'of-parent')))
    assert read(backend_at_root, 'of-child') == b'parent'


def test_the_definition_makes_it(server: FileServer) -> None:
    given = {
        'name': 'm',
        'type': 'ftp',
        'host': '127.0.0.1',
        'port': server.port,
        'username': USER,
        'password': PASSWORD,
    }
    backend = create(definition_from_mapping(given), SystemClock())
    with pytest.raises(StorageNotFoundError):
        backend.stat('nothing')
    backend.close()
