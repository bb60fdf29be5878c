"""What an untrusted source may not do, and that a privilege allows exactly that."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager
from genro_storage.config import MemoryDefinition, Privilege, Untrusted, load
from genro_storage.errors import StorageConfigError

S3 = {'name': 'u', 'type': 's3', 'bucket': 'b', 'key': 'AK', 'secret': 'SK'}
GCS = {'name': 'g', 'type': 'gcs', 'bucket': 'b'}
AZURE = {'name': 'a', 'type': 'azure', 'container': 'abc', 'account_name': 'acc'}
ACCOUNT = '{"type": "service_account"}'

FORBIDDEN: list[tuple[str, str, Any]] = [
    ('interpolation', 'bucket', [{**S3, 'bucket': '${X:-x}'}]),
    ('interpolation', 'secret', [{**S3, 'secret': '${HOME}'}]),
    ('interpolation', 'options', [{**S3, 'options': {'addressing_style': '${X:-path}'}}]),
    ('interpolation', 'type', [{'name': 'm', 'type': '${T:-memory}'}]),
    ('interpolation', 'name', [{'name': '${N:-n}', 'type': 'memory'}]),
    ('secrets', 'secret', [{**S3, 'secret': 'env:HOME'}]),
    ('secrets', 'secret', [{**S3, 'secret': 'file:/etc/hostname'}]),
    ('secrets', 'token', [{**S3, 'token': 'keyring:svc/me'}]),
    ('local', 'path', [{'name': 'm', 'type': 'local', 'path': '/x'}]),
    ('local', 'path', [{'name': 'm', 'protocol': 'local', 'base_path': '/x'}]),
    ('local', 'cache', {'mounts': [], 'cache': {'path': '/x'}}),
    ('fsspec', 'protocol', [{'name': 'm', 'type': 'fsspec', 'protocol': 'file', 'path': '/x'}]),
    ('fsspec', 'options', [{**S3, 'options': {'profile': 'root'}}]),
    ('fsspec', 'options', {'mounts': [S3], 'defaults': {'options': {'profile': 'root'}}}),
    ('credentials', 'key', [{'name': 'u', 'type': 's3', 'bucket': 'b'}]),
    ('credentials', 'profile', [{'name': 'u', 'type': 's3', 'bucket': 'b', 'profile': 'p'}]),
    ('credentials', 'token', [GCS]),
    ('credentials', 'token', [{**GCS, 'token': '/root/key.json'}]),
    ('credentials', 'token', [{**GCS, 'token': 'google_default'}]),
    ('credentials', 'token', [{**GCS, 'token': '{"type": "external_account"}'}]),
    ('credentials', 'account_key', [AZURE]),
    ('include', 'include', {'mounts': [], 'include': ['/etc/*.nothing']}),
]


@pytest.mark.parametrize(('privilege', 'key', 'source'), FORBIDDEN)
def test_what_is_forbidden_is_told_with_its_key_and_allowed_by_its_privilege(
    privilege: str, key: str, source: Any
) -> None:
    with pytest.raises(StorageConfigError) as caught:
        load(Untrusted(source))
    (line,) = str(caught.value).split('\n')
    assert f'key {key!r}: an untrusted source may not ' in line
    assert f'(privilege {privilege!r})' in line
    others = set(Privilege) - {Privilege(privilege)}
    with pytest.raises(StorageConfigError):
        load(Untrusted(source, allow=others))
    assert load(Untrusted(source, allow=[privilege]))
    assert load(source)


@pytest.mark.parametrize(
    'mount',
    [
        S3,
        {**S3, 'options': {'addressing_style': 'path'}, 'prefix': '$$5/x'},
        {'name': 'u', 'type': 's3', 'bucket': 'b', 'anon': True},
        {**GCS, 'anon': True},
        {**GCS, 'token': ACCOUNT},
        {**AZURE, 'account_key': 'aGk='},
        {'name': 'm', 'type': 'memory'},
    ],
)
def test_servers_and_their_own_credentials_are_free_and_mean_the_same(mount: dict[str, Any]) -> None:
    assert load(Untrusted([mount])).mounts == load([mount]).mounts


def test_a_definition_made_in_code_is_not_trusted_more() -> None:
    from genro_storage.config import LocalDefinition

    with pytest.raises(StorageConfigError, match="mount 'x': key 'path': an untrusted source may not"):
        load(Untrusted([LocalDefinition(name='x', path='/x')]))


def test_what_is_wrong_otherwise_is_told_too() -> None:
    with pytest.raises(StorageConfigError) as caught:
        load(Untrusted([{'name': 'm', 'type': 'local', 'path': '/x', 'tll': 1}]))
    assert len(str(caught.value).split('\n')) == 2


def test_a_wrapped_source_is_trusted_with_what_all_of_them_allow() -> None:
    inner = Untrusted([{'name': 'm', 'type': 'local', 'path': '/x'}], allow=Privilege)
    with pytest.raises(StorageConfigError):
        load(Untrusted(inner, allow=['secrets']))
    assert load(Untrusted(inner, allow=['local'])).mounts


def test_a_function_and_a_file_are_wrapped_alike(tmp_path: Path) -> None:
    path = tmp_path / 'tenant.yaml'
    path.write_text('- {name: m, type: local, path: x}')
    for source in (str(path), lambda: str(path), lambda: [{'name': 'm', 'type': 'local', 'path': 'x'}]):
        with pytest.raises(StorageConfigError, match="privilege 'local'"):
            load(Untrusted(source))


def test_an_unknown_privilege_is_an_error_that_names_them() -> None:
    with pytest.raises(ValueError, match="'loca' is not a valid Privilege; expected some of interpolation, secrets,"):
        Untrusted([], allow=['loca'])
    with pytest.raises(TypeError, match=r"\['local'\]"):
        Untrusted([], allow='local')


class TestManagers:
    def test_an_untrusted_source_replaces_its_own_mounts_and_no_others(self, tmp_path: Path) -> None:
        path = tmp_path / 'tenant.yaml'
        path.write_text('- {name: m, type: memory, ttl: 1s}')
        other = tmp_path / 'other.yaml'
        other.write_text('- {name: m, type: memory}')
        with StorageManager() as storage:
            storage.configure(Untrusted(str(path)))
            path.write_text('- {name: m, type: memory, ttl: 2s}')
            storage.configure(Untrusted(str(path)))
            assert storage.volume('m').definition == MemoryDefinition(name='m', ttl_s=2.0)
            with pytest.raises(StorageConfigError, match=r"other\.yaml: mount 'm': .*\(privilege 'replace'\)"):
                storage.configure(Untrusted(str(other)))
            storage.configure([MemoryDefinition(name='home')])
            path.write_text('- {name: home, type: memory}')
            with pytest.raises(StorageConfigError, match='privilege'):
                storage.configure(Untrusted(str(path)))
            storage.configure(Untrusted(str(other), allow=['replace']))
            assert storage.volume('m').definition == MemoryDefinition(name='m')

    def test_a_pickle_keeps_that_a_source_is_not_trusted(self, tmp_path: Path) -> None:
        path = tmp_path / 'tenant.yaml'
        path.write_text('- {name: m, type: memory}')
        storage = StorageManager()
        storage.configure(Untrusted(str(path)))
        data = pickle.dumps(storage)
        del storage
        path.write_text('- {name: m, type: local, path: /x}')
        with pytest.raises(StorageConfigError, match="privilege 'local'"):
            pickle.loads(data)

    def test_a_literal_secret_of_an_untrusted_list_is_kept_out_of_pickles(self) -> None:
        with StorageManager() as storage:
            storage.configure(Untrusted([S3]))
            with pytest.raises(StorageConfigError, match="mount 'u': a pickle would carry the literal key, secret"):
                pickle.dumps(storage)


def test_a_source_shows_no_secret() -> None:
    assert repr(Untrusted([S3], allow=['local'])) == "Untrusted('…', allow=['local'])"
    with pytest.raises(StorageConfigError, match=r'^a list: '):
        load(Untrusted([{'name': 'm'}]))
