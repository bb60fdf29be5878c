"""SFTP against OpenSSH's server, with keys and host keys, and against rclone's, with a password."""

import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from genro_storage.backends.base import ABSENT, Backend
from genro_storage.backends.file_servers import sftp_backend
from genro_storage.backends.local import LocalBackend
from genro_storage.backends.registry import create
from genro_storage.backends.sftp_address import SftpAddress
from genro_storage.backends.sftp_errors import TABLE, translate
from genro_storage.config import definition_from_mapping
from genro_storage.errors import (
    StorageConfigError,
    StorageExistsError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.runtime import SystemClock
from genro_storage.testing import BytesSource, FaultyLine
from genro_storage.testing.contract import BackendContract, FailingContract, LookingContract, names, read, write
from tests.file_servers import PASSWORD, USER, FileServer, Sshd, emptied, forked, rclone, running


@pytest.fixture(scope='module')
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(Sshd(tmp_path_factory.mktemp('sshd'))) as server:
        assert isinstance(server, Sshd)
        yield server


@pytest.fixture(scope='module')
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    with running(rclone('sftp', tmp_path_factory.mktemp('sftp'))) as server:
        yield server


def address(sshd: Sshd, **changes: Any) -> SftpAddress:
    given = {'key_filename': str(sshd.key), 'known_hosts': str(sshd.known_hosts)}
    return SftpAddress(host='127.0.0.1', port=sshd.port, **given | changes)


def password_address(server: FileServer, password: str = PASSWORD) -> SftpAddress:
    return SftpAddress(host='127.0.0.1', port=server.port, username=USER, password=password, check_host_key=False)


@pytest.fixture(scope='module')
def openssh(sshd: Sshd) -> Iterator[Backend]:
    """One for all tests here, because to log in takes 0.3 s."""
    backend = sftp_backend(address(sshd), str(emptied(sshd.root / 'contract')))
    yield backend
    backend.close()


class TestOpenSsh(BackendContract):
    @pytest.fixture
    def backend(self, sshd: Sshd, openssh: Backend) -> Backend:
        emptied(sshd.root / 'contract')
        return openssh


class TestOpenSshOverABadLine(FailingContract):
    timeout_s = 2.0  # to log in takes 0.3 s of an idle machine

    @pytest.fixture
    def line(self, sshd: Sshd) -> Iterator[FaultyLine]:
        with closing(FaultyLine(sshd.port)) as line:
            yield line

    @pytest.fixture
    def backend(self, sshd: Sshd, line: FaultyLine) -> Iterator[Backend]:
        # The server is known by its port.
        told = SftpAddress(host='127.0.0.1', port=line.port, key_filename=str(sshd.key), check_host_key=False)
        folder = str(emptied(sshd.root / 'line'))
        with closing(sftp_backend(told, folder, timeout_s=self.timeout_s)) as backend:
            yield backend

    @pytest.fixture
    def beyond(self, sshd: Sshd, backend: Backend) -> Iterator[Backend]:
        with closing(LocalBackend(sshd.root / 'line')) as beyond:
            yield beyond


class TestRclone(LookingContract):
    """A server without posix-rename and copy-data, whose users have passwords."""

    @pytest.fixture
    def backend(self, rclone_server: FileServer) -> Iterator[Backend]:
        folder = uuid.uuid4().hex
        whole = sftp_backend(password_address(rclone_server), '/')
        whole.make_directory(folder)
        whole.close()
        backend = sftp_backend(password_address(rclone_server), f'/{folder}')
        yield backend
        backend.close()

    def test_files_are_put_replaced_and_moved(self, backend: Backend) -> None:
        write(backend, 'd/a', b'first')
        write(backend, 'd/a', b'second one')
        write(backend, 'd/b', b'other')
        backend.rename('d/a', 'd/b')
        backend.rename('d', 'e')
        assert read(backend, 'e/b') == b'second one'
        assert names(backend, 'e') == {'b'}
        with pytest.raises(StorageExistsError):
            backend.put('e/b', BytesSource(b'3'), expected=ABSENT)
        backend.remove_file('e/b')
        backend.remove_directory('e')
        assert names(backend) == set()


@pytest.mark.parametrize('key', ['key', 'locked_key'])
def test_keys_with_and_without_a_passphrase_let_in(sshd: Sshd, key: str) -> None:
    passphrase = sshd.passphrase if key == 'locked_key' else None
    backend = sftp_backend(address(sshd, key_filename=str(getattr(sshd, key)), passphrase=passphrase), str(sshd.root))
    assert backend.stat('').is_directory
    backend.close()


def test_a_key_that_cannot_be_read_is_the_definition_s_fault(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / 'no-key').write_text('nothing')
    for changes in (
        {'key_filename': str(sshd.locked_key), 'passphrase': 'wrong-hunter2'},
        {'key_filename': str(sshd.locked_key)},
        {'key_filename': str(tmp_path / 'absent')},
        {'key_filename': str(tmp_path / 'no-key')},
    ):
        backend = sftp_backend(address(sshd, **changes))
        with pytest.raises(StorageConfigError, match=str(changes['key_filename'])) as caught:
            backend.stat('')
        assert 'hunter2' not in str(caught.value)


def test_a_server_that_is_not_known_is_refused_with_what_to_do(sshd: Sshd, tmp_path: Path) -> None:
    nobody = tmp_path / 'known_hosts'
    nobody.write_text('')
    another = tmp_path / 'another'
    another.write_text(f'[127.0.0.1]:{sshd.port} {sshd.key.with_suffix(".pub").read_text()}')
    for path in (nobody, another):
        backend = sftp_backend(address(sshd, known_hosts=str(path)))
        with pytest.raises(StoragePermissionError, match=f'ssh-keyscan -p {sshd.port} 127.0.0.1 >> {path}'):
            backend.stat('')
    with pytest.raises(StorageConfigError, match='which is not there'):
        sftp_backend(address(sshd, known_hosts=str(tmp_path / 'absent'))).stat('')
    unchecked = sftp_backend(address(sshd, known_hosts=None, check_host_key=False))
    assert unchecked.stat('').is_directory
    unchecked.close()


def test_without_a_file_that_is_named_the_user_s_own_counts(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    with pytest.raises(StoragePermissionError, match=r'~/\.ssh/known_hosts'):
        sftp_backend(address(sshd, known_hosts=None)).stat('')
    (tmp_path / '.ssh').mkdir()
    (tmp_path / '.ssh' / 'known_hosts').write_text(sshd.known_hosts.read_text())
    backend = sftp_backend(address(sshd, known_hosts=None))
    assert backend.stat('').is_directory
    backend.close()


def test_a_wrong_password_is_a_refusal_that_does_not_tell_it(rclone_server: FileServer) -> None:
    wrong = password_address(rclone_server, password='wrong-hunter2')
    backend = sftp_backend(wrong)
    with pytest.raises(StoragePermissionError) as caught:
        backend.stat('')
    assert 'hunter2' not in f'{caught.value}{wrong!r}{backend!r}{backend.destination}'


def test_a_server_that_was_restarted_is_asked_again_and_one_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with running(Sshd(tmp_path)) as server:
        assert isinstance(server, Sshd)
        backend = sftp_backend(address(server), str(server.root), timeout_s=5)
        write(backend, 'f', b'1')
        server.stop()
        with pytest.raises(StorageUnavailableError):
            backend.stat('f')
        server.start()
        assert read(backend, 'f') == b'1'
        backend.close()
        backend.close()


def test_a_server_that_is_silent_is_a_timeout_and_not_absent(tmp_path: Path) -> None:
    with running(Sshd(tmp_path)) as server:
        assert isinstance(server, Sshd)
        backend = sftp_backend(address(server), str(server.root), timeout_s=0.5)
        backend.stat('')
        server.pause()
        with pytest.raises(StorageTimeoutError):
            backend.stat('')
        server.resume()
        assert backend.stat('').is_directory
        backend.close()


def test_a_forked_child_has_a_connection_of_its_own(sshd: Sshd) -> None:
    backend = sftp_backend(address(sshd), str(emptied(sshd.root / 'fork')))
    write(backend, 'f', b'parent')
    assert forked(lambda: write(backend, 'child', read(backend, 'f')))
    assert read(backend, 'child') == b'parent'
    backend.close()


def test_what_a_process_left_that_died_is_shown_nowhere_and_goes_with_its_directory(
    sshd: Sshd, openssh: Backend
) -> None:
    folder = emptied(sshd.root / 'contract')
    openssh.make_directory('d')
    (folder / 'd' / '.genro-0123456789abcdef').write_bytes(b'half')
    assert names(openssh, 'd') == set()
    openssh.remove_directory('d')
    assert names(openssh) == set()


def test_links_are_followed_and_those_to_nowhere_are_neither_files_nor_directories(
    sshd: Sshd, openssh: Backend
) -> None:
    folder = emptied(sshd.root / 'contract')
    (folder / 'd').mkdir()
    (folder / 'to-d').symlink_to('d')
    (folder / 'to-nowhere').symlink_to('nowhere')
    kinds = {entry.name: entry.kind.value for entry in openssh.list_directory('')}
    assert kinds == {'d': 'directory', 'to-d': 'directory', 'to-nowhere': 'other'}


def test_room_that_is_left_is_told(openssh: Backend) -> None:
    usage = openssh.usage()
    assert usage is not None
    assert usage.total_bytes > 0


def test_every_exception_of_asyncssh_has_its_own_here() -> None:
    """A new one needs a line in the table."""
    found = {
        kind
        for module in (asyncssh, asyncssh.sftp)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__.startswith('asyncssh')
    }
    assert {kind.__name__ for kind in found - set(TABLE)} == set()


@pytest.mark.parametrize('kind', TABLE)
def test_each_of_them_is_translated_and_names_the_place(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, 'x')
    assert type(translate(error, 'the place')) is TABLE[kind]
    assert 'the place' in str(translate(error, 'the place'))


def test_what_the_network_fails_at_is_never_not_found() -> None:
    for error in (ConnectionRefusedError(111, 'x'), asyncssh.ConnectionLost('x'), asyncssh.SFTPNoConnection('x')):
        assert type(translate(error, 'place')) is StorageUnavailableError


def test_the_definition_makes_it(sshd: Sshd) -> None:
    given = {
        'name': 'm',
        'type': 'sftp',
        'host': '127.0.0.1',
        'port': sshd.port,
        'key_filename': str(sshd.key),
        'known_hosts': str(sshd.known_hosts),
        'path': str(sshd.root),
    }
    backend = create(definition_from_mapping(given), SystemClock())
    with pytest.raises(StorageNotFoundError):
        backend.stat('nothing')
    backend.close()


def test_without_asyncssh_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith('genro_storage.backends.sftp')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'asyncssh', None)
    backend = create(
        definition_from_mapping({'name': 'm', 'type': 'sftp', 'host': 'h', 'password': 'p'}), SystemClock()
    )
    with pytest.raises(StorageConfigError, match=r"pip install 'genro-storage\[sftp\]'"):
        backend.stat('')
