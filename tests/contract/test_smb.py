"""SMB against Samba's server."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from smbprotocol import exceptions
from smbprotocol.header import NtStatus

from genro_storage.backends.base import Backend
from genro_storage.backends.file_servers import smb_backend
from genro_storage.backends.local import LocalBackend
from genro_storage.backends.registry import create
from genro_storage.backends.smb_address import SmbAddress
from genro_storage.backends.smb_errors import STATUSES, TABLE, translate
from genro_storage.backends.smb_names import from_server, to_server
from genro_storage.config import definition_from_mapping
from genro_storage.errors import (
    StorageConfigError,
    StorageError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.runtime import SystemClock
from genro_storage.testing import FaultyLine
from genro_storage.testing.contract import BackendContract, FailingContract, read, write
from genro_storage.testing.contract.putting import NAMES
from tests.file_servers import PASSWORD, Smbd, emptied, forked, running


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smbd]:
    with running(Smbd(tmp_path_factory.mktemp('smb'))) as server:
        assert isinstance(server, Smbd)
        yield server


def address(server: Smbd, password: str = PASSWORD, share: str = Smbd.share) -> SmbAddress:
    return SmbAddress(host='127.0.0.1', port=server.port, share=share, username=server.user, password=password)


@pytest.fixture(scope='module')
def connected(server: Smbd) -> Iterator[Backend]:
    """One for all tests here, because to log in takes 0.2 s."""
    emptied(server.root / 'contract')
    backend = smb_backend(address(server), 'contract')
    yield backend
    backend.close()


class TestSmb(BackendContract):
    @pytest.fixture
    def backend(self, server: Smbd, connected: Backend) -> Backend:
        emptied(server.root / 'contract')
        return connected


class TestSmbOverABadLine(FailingContract):
    timeout_s = 2.0  # to log in takes 0.2 s of an idle machine
    secrets = (PASSWORD,)

    @pytest.fixture
    def line(self, server: Smbd) -> Iterator[FaultyLine]:
        with closing(FaultyLine(server.port)) as line:
            yield line

    @pytest.fixture
    def backend(self, server: Smbd, line: FaultyLine) -> Iterator[Backend]:
        emptied(server.root / 'line')
        told = msgspec.structs.replace(address(server), port=line.port)
        with closing(smb_backend(told, 'line', timeout_s=self.timeout_s)) as backend:
            yield backend

    @pytest.fixture
    def beyond(self, server: Smbd, backend: Backend) -> Iterator[Backend]:
        with closing(LocalBackend(server.root / 'line')) as beyond:
            yield beyond


def test_a_wrong_password_is_a_refusal_that_does_not_tell_it(server: Smbd) -> None:
    backend = smb_backend(address(server, password='hunter2'))
    with pytest.raises(StoragePermissionError) as caught:
        backend.stat('')
    assert 'hunter2' not in f'{caught.value}{caught.value.__cause__}{backend!r}{backend.destination}'
    backend.close()


def test_a_share_that_is_not_there_is_not_found(server: Smbd) -> None:
    backend = smb_backend(address(server, share='nothing'))
    with pytest.raises(StorageNotFoundError):
        backend.stat('')
    backend.close()


def test_a_server_that_was_restarted_is_asked_again_and_one_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with running(Smbd(tmp_path)) as server:
        assert isinstance(server, Smbd)
        backend = smb_backend(address(server), timeout_s=5)
        write(backend, 'f', b'1')
        server.stop()
        with pytest.raises(StorageUnavailableError):
            backend.stat('f')
        server.start()
        assert read(backend, 'f') == b'1'
        server.pause()
        backend._server._timeout_s = 0.5  # type: ignore[attr-defined]
        with pytest.raises(StorageTimeoutError):
            backend.stat('f')
        server.resume()
        backend._server._timeout_s = 5  # type: ignore[attr-defined]
        assert read(backend, 'f') == b'1'
        backend.close()
        backend.close()


@pytest.mark.parametrize('name', NAMES)
def test_names_become_such_as_windows_takes_and_come_back(name: str) -> None:
    there = to_server(name)
    assert from_server(there) == name
    assert not set(there) & set('"*:<>?|\\/')
    assert there[-1] not in ' .'
    assert all(ord(letter) >= 32 for letter in there)


def test_names_are_those_that_linux_writes() -> None:
    assert to_server('a:b/c?') == 'a\uf022b\\c\uf025'


def test_every_exception_of_smbprotocol_has_its_own_here() -> None:
    """A new one needs a line in the table; those of single statuses are told apart by these."""
    found = {
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type)
        and issubclass(kind, exceptions.SMBException)
        and (kind is exceptions.SMBResponseException or not issubclass(kind, exceptions.SMBResponseException))
    }
    assert found == set(TABLE)


@pytest.mark.parametrize(('status', 'ours'), STATUSES.items())
def test_each_status_has_its_own_error(status: int, ours: type[StorageError]) -> None:
    assert type(translate(exceptions.SMBOSError(status, 'x'), 'place')) is ours
    assert 'place' in str(translate(exceptions.SMBOSError(status, 'x'), 'place'))


def test_the_other_statuses_were_looked_at() -> None:
    """A new one may need a line in the table."""
    assert len([name for name in vars(NtStatus) if name.startswith('STATUS_')]) == 66


def test_a_forked_child_has_a_connection_of_its_own(connected: Backend) -> None:
    write(connected, 'of-parent', b'parent')
    assert forked(lambda: write(connected, 'of-child', read(connected, 'of-parent')))
    assert read(connected, 'of-child') == b'parent'


def test_the_definition_makes_it(server: Smbd) -> None:
    given = {
        'name': 'm',
        'type': 'smb',
        'host': '127.0.0.1',
        'port': server.port,
        'share': server.share,
        'username': server.user,
        'password': PASSWORD,
    }
    backend = create(definition_from_mapping(given), SystemClock())
    with pytest.raises(StorageNotFoundError):
        backend.stat('nothing')
    backend.close()


def test_without_smbprotocol_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, 'genro_storage.backends.smb')
    monkeypatch.setitem(sys.modules, 'smbclient', None)
    given = {'name': 'm', 'type': 'smb', 'host': 'h', 'share': 's', 'username': 'u', 'password': 'p'}
    backend = create(definition_from_mapping(given), SystemClock())
    with pytest.raises(StorageConfigError, match=r"pip install 'genro-storage\[smb\]'"):
        backend.stat('')
