"""Secrets by reference: what counts as one, when it is looked up, and that nothing shows it."""

import logging
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from keyring import get_keyring, set_keyring
from keyring.backend import KeyringBackend

from genro_storage import StorageManager
from genro_storage.backends.base import Capabilities
from genro_storage.backends.late import LateBackend
from genro_storage.backends.memory import MemoryBackend
from genro_storage.backends.registry import create
from genro_storage.config import AzureDefinition, Definition, FsspecDefinition, S3Definition, Untrusted, load
from genro_storage.config.secrets import Reference
from genro_storage.errors import StorageConfigError, StorageNotFoundError, StoragePermissionError
from genro_storage.runtime import SystemClock
from genro_storage.testing.faulty import FaultyBackend
from tests.servers import S3Server

S3 = {'name': 'up', 'type': 's3', 'bucket': 'b', 'key': 'AK'}


def one(definition: dict[str, Any], environ: dict[str, str] | None = None) -> Any:
    (mount,) = load([definition], environ=environ or {}).mounts
    return mount


class Ring(KeyringBackend):
    """A keyring of this test's own."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password


@pytest.fixture
def ring() -> Iterator[Ring]:
    before, ring = get_keyring(), Ring()
    set_keyring(ring)
    yield ring
    set_keyring(before)


def test_a_variable_is_looked_up_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('LATE', raising=False)
    mount = one({**S3, 'secret': 'env:LATE'})
    assert mount.secret == Reference('env', 'LATE')
    with pytest.raises(
        StorageConfigError, match="mount 'up': key 'secret': env:LATE: this environment variable is not"
    ):
        mount.resolved()
    monkeypatch.setenv('LATE', 'hunter2')
    assert mount.resolved().secret == 'hunter2'
    assert mount.secret == Reference('env', 'LATE')


def test_the_first_line_of_a_file_counts_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / 'secret'
    path.write_text('one\r\nmore\n')
    path.chmod(0o600)
    mount = one({**S3, 'secret': f'file:{path}'})
    assert mount.resolved().secret == 'one'
    path.write_text(' two ')
    assert mount.resolved().secret == ' two '


def test_a_relative_file_starts_from_the_definitions_and_a_variable_in_it_counts(tmp_path: Path) -> None:
    path = tmp_path / 'storage.yaml'
    path.write_text("[{name: up, type: s3, bucket: b, key: AK, secret: 'file:${DIR}/s'}]")
    (mount,) = load(path, environ={'DIR': 'private'}).mounts
    assert mount.secret == Reference('file', str(tmp_path / 'private' / 's'))  # type: ignore[attr-defined]
    assert one({**S3, 'secret': 'file:~/s'}).secret.name == os.path.expanduser('~/s')


@pytest.mark.parametrize(
    ('prepare', 'message'),
    [
        (lambda path: None, 'cannot be read: No such file or directory'),
        (lambda path: path.mkdir(), 'expected a file'),
        (os.mkfifo, 'expected a file'),
        (lambda path: path.write_text(''), 'is empty'),
        (lambda path: path.write_text('\nsecond'), 'is empty'),
        (lambda path: path.write_bytes(b'\xff\n'), 'its first line is not UTF-8'),
        (lambda path: (path.write_text('x'), path.chmod(0o606)), 'everybody may write it, so it is not trusted'),
    ],
)
def test_a_file_that_is_no_secret_is_said(tmp_path: Path, prepare: Any, message: str) -> None:
    path = tmp_path / 'secret'
    prepare(path)
    mount = one({**S3, 'secret': f'file:{path}'})
    with pytest.raises(StorageConfigError, match=message) as caught:
        mount.resolved()
    assert str(caught.value).startswith(f"mount 'up': key 'secret': file:{path}: ")


def test_a_file_that_everybody_may_read_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / 'secret'
    path.write_text('hunter2')
    path.chmod(0o644)
    mount = one({**S3, 'secret': f'file:{path}'})
    with caplog.at_level(logging.WARNING):
        mount.resolved()
        mount.resolved()
    assert [record.getMessage() for record in caplog.records] == [
        f'{path}: everybody on this machine may read this secret; chmod o-r {path}'
    ]


def test_the_keyring_is_asked(ring: Ring) -> None:
    ring.held['https://host/x', 'me'] = 'hunter2'
    mount = one({**S3, 'secret': 'keyring:https://host/x/me'})
    assert mount.resolved().secret == 'hunter2'
    with pytest.raises(StorageConfigError, match='no such entry; keyring set svc you'):
        one({**S3, 'secret': 'keyring:svc/you'}).resolved()


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'keyring', None)
    with pytest.raises(StorageConfigError, match=r"pip install 'genro-storage\[keyring\]'"):
        one({**S3, 'secret': 'keyring:svc/me'}).resolved()


def test_no_keyring_is_imported_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned = ModuleType('keyring')
    monkeypatch.setitem(sys.modules, 'keyring', poisoned)
    assert one({**S3, 'secret': 'keyring:svc/me'}).secret == Reference('keyring', 'svc/me')


@pytest.mark.parametrize('text', ['env:', 'env:a-b', 'keyring:x', 'keyring:/x', 'keyring:x/', 'file:', 'env:${X}'])
def test_what_begins_like_a_reference_and_is_none_is_told_and_not_shown(text: str) -> None:
    with pytest.raises(StorageConfigError, match=r"key 'secret': expected '(env|keyring|file):") as caught:
        one({**S3, 'secret': text}, {'X': '-hunter2'})
    assert 'hunter2' not in str(caught.value)
    assert 'a-b' not in str(caught.value)


def test_what_a_variable_holds_is_the_secret_and_no_reference() -> None:
    assert one({**S3, 'secret': '${S}'}, {'S': 'env:HOME'}).secret == 'env:HOME'


def test_options_that_sound_like_secrets_may_be_references_and_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PW', 'hunter2')
    options = {'password': 'env:PW', 'fo': 'file:/x', 'headers': {'Authorization': 'env:PW'}, 'token': 'file://host/x'}
    mount = one({'name': 'm', 'type': 'fsspec', 'protocol': 'sftp', 'options': options})
    assert mount.resolved().options == {
        'password': 'hunter2',
        'fo': 'file:/x',
        'headers': {'Authorization': 'hunter2'},
        'token': 'file://host/x',
    }


def test_a_reference_is_shown_and_pickled_and_the_secret_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PW', 'hunter2')
    mount = one({**S3, 'key': '${K}', 'secret': 'env:PW'}, {'K': 'AK'})
    assert repr(mount) == "S3Definition(name='up', bucket='b', key='***', secret='env:PW')"
    held = S3Definition(name='up', bucket='b', key=Reference('env', 'K'), secret=Reference('file', '/s'))
    assert pickle.loads(pickle.dumps(held)) == held
    assert 'hunter2' not in repr(mount.resolved())
    with pytest.raises(StorageConfigError, match='would put a secret into a pickle'):
        pickle.dumps(mount.resolved())


def test_managers_pickle_with_references_that_mean_the_same_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = [
        {**S3, 'key': 'env:K', 'secret': 'file:s'},
        {'name': 'm', 'type': 'fsspec', 'protocol': 'x', 'options': {'pw': 'file:p'}},
    ]
    configuration = load(source)
    monkeypatch.chdir('/')
    for mount in configuration.mounts:
        assert load([configuration.reference(mount.name)]).mounts == (mount,)
    assert configuration.literal_secrets() == []
    with StorageManager() as storage:
        storage.configure(source)
        assert b'file:' in pickle.dumps(storage)


class TestConnecting:
    """A bucket of a server that knows one secret at a time, behind what the registry makes of a definition."""

    @pytest.fixture
    def seen(self) -> list[Any]:
        return []

    def backend(self, path: Path, seen: list[Any], right: list[str]) -> LateBackend:
        files = MemoryBackend(SystemClock())

        def make(definition: Definition) -> Any:
            assert isinstance(definition, S3Definition)
            seen.append(definition.secret)
            faulty = FaultyBackend(files, Capabilities())
            if definition.secret not in right:
                faulty.fail_always('stat', StoragePermissionError('refused'))
                faulty.fail_always('put', StoragePermissionError('refused'))
            return faulty

        return LateBackend(one({**S3, 'secret': f'file:{path}'}), make, SystemClock())

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / 'secret'
        path.write_text('first')
        path.chmod(0o600)
        return path

    def test_nothing_is_looked_up_before_the_first_request(self, path: Path, seen: list[Any]) -> None:
        path.unlink()
        backend = self.backend(path, seen, ['first'])
        assert backend.capabilities == Capabilities()
        assert backend.destination
        assert seen == [f'file:{path}']
        with pytest.raises(StorageConfigError, match='cannot be read'):
            backend.stat('f')
        path.write_text('first')
        with pytest.raises(StorageNotFoundError):
            backend.stat('f')
        assert seen == [f'file:{path}', 'first']
        backend.close()

    def test_a_changed_secret_is_taken_when_the_old_one_is_refused(self, path: Path, seen: list[Any]) -> None:
        right = ['first']
        backend = self.backend(path, seen, right)
        with pytest.raises(StorageNotFoundError):
            backend.stat('f')
        path.write_text('second')
        with pytest.raises(StorageNotFoundError):
            backend.stat('f')
        assert seen[1:] == ['first']
        right[:] = ['second']
        backend._process.get().backend.fail_always('stat', StoragePermissionError('refused'))  # type: ignore[attr-defined]
        with pytest.raises(StorageNotFoundError):
            backend.stat('f')
        assert seen[1:] == ['first', 'second']
        backend.close()

    def test_a_refused_secret_that_has_not_changed_is_refused(self, path: Path, seen: list[Any]) -> None:
        backend = self.backend(path, seen, ['other'])
        for _ in range(3):
            with pytest.raises(StoragePermissionError):
                backend.stat('f')
        assert seen[1:] == ['first']
        backend.close()


def test_a_server_of_s3_sees_the_secret_that_a_file_holds_by_then(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'secret'
    path.write_text('not-the-secret')
    path.chmod(0o600)
    monkeypatch.setenv('S3_KEY', s3_server.key)
    for driver in ('obstore', 'fsspec'):
        bucket = s3_server.new_bucket()
        path.write_text('not-the-secret')
        definition = {
            'name': 'up',
            'type': 's3',
            'bucket': bucket,
            'region': s3_server.region,
            'driver': driver,
            'endpoint_url': s3_server.endpoint_url,
            'key': 'env:S3_KEY',
            'secret': f'file:{path}',
        }
        with StorageManager() as storage:
            storage.configure([definition])
            node = storage.node('up:f')
            with pytest.raises(StoragePermissionError) as caught:
                node.write_bytes(b'1')
            assert 'not-the-secret' not in str(caught.value)
            path.write_text(s3_server.secret + '\n')
            node.write_bytes(b'2')
            assert node.read_bytes() == b'2'
            assert s3_server.secret not in repr(storage.volume('up').definition)


def test_definitions_without_references_are_served_as_before() -> None:
    literal = create(one({**S3, 'secret': 'x'}), SystemClock())
    late = create(one({**S3, 'secret': 'env:X'}), SystemClock())
    assert (type(literal).__name__, type(late).__name__) == ('GuardedBackend', 'LateBackend')
    assert literal.destination == late.destination
    assert literal.capabilities == late.capabilities
    assert 'env:X' not in repr(late)


def test_what_says_where_the_data_are_is_looked_up_when_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('AZ', raising=False)
    mount = one({'name': 'm', 'type': 'azure', 'container': 'abc', 'connection_string': 'env:AZ'})
    assert isinstance(mount, AzureDefinition)
    with pytest.raises(StorageConfigError, match='env:AZ: this environment variable is not set'):
        create(mount, SystemClock())
    monkeypatch.setenv('AZ', 'AccountName=acc;AccountKey=aGk=')
    backend = create(mount, SystemClock())
    assert 'acc.blob' in backend.destination
    monkeypatch.setenv('AZ', 'AccountName=other;AccountKey=aGk=')
    with pytest.raises(StorageConfigError, match='configure it again'):
        backend.stat('f')
    backend.close()


def test_the_destination_of_an_fsspec_mount_is_not_another_when_its_secret_is(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = one({'name': 'm', 'type': 'fsspec', 'protocol': 'memory', 'options': {'password': 'env:PW'}})
    assert isinstance(mount, FsspecDefinition)
    monkeypatch.setenv('PW', 'a')
    first = create(mount, SystemClock())
    monkeypatch.setenv('PW', 'b')
    assert create(mount, SystemClock()).destination == first.destination


def test_an_untrusted_source_refers_to_no_secret() -> None:
    with pytest.raises(
        StorageConfigError, match=r"key 'secret': .*may not refer to a secret .*\(privilege 'secrets'\)"
    ):
        load(Untrusted([{**S3, 'secret': 'env:HOME'}]))
    assert load(Untrusted([{**S3, 'secret': 'env:HOME'}], allow=['secrets'])).mounts
