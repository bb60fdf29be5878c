"""Nodes and managers in pickles: by reference to their configuration, and never with a secret."""

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageConfigError, StorageManager, StorageNode
from genro_storage.config import MemoryDefinition, S3Definition


def read(node: StorageNode) -> bytes:
    return node.read_bytes()


def write(node: StorageNode) -> str:
    node.write_bytes(b'by a child')
    return node.fullpath


def same_manager(one: StorageNode, two: StorageNode) -> bool:
    return one._manager is two._manager and one / 'x' == two / 'x'


def mounts_of(storage: StorageManager) -> list[str]:
    return storage.get_mount_names()


def in_a_spawned_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *arguments).result(50)


def storage_of(source: Any) -> StorageManager:
    storage = StorageManager()
    storage.configure(source)
    return storage


def a_source() -> list[dict[str, str]]:
    """A function that a pickle refers to by its name."""
    return [{'name': 'm', 'type': 'memory'}]


class TestInOneProcess:
    def test_a_round_trip_gives_an_equal_node(self) -> None:
        storage = storage_of([{'name': 'm', 'type': 'memory'}])
        node = storage.node('m:a/b')
        node.write_bytes(b'1')
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(node, protocol))
            assert again == node
            assert hash(again) == hash(node)
            assert again.read_bytes() == b'1'

    def test_a_manager_comes_back_as_itself(self) -> None:
        storage = storage_of([{'name': 'm', 'type': 'memory'}])
        assert pickle.loads(pickle.dumps(storage)) is storage

    def test_another_manager_of_the_same_configuration_is_another(self) -> None:
        one, two = storage_of(a_source), storage_of(a_source)
        assert pickle.loads(pickle.dumps(one.node('m:f'))) != two.node('m:f')

    def test_when_the_manager_has_gone_it_is_made_again(self, tmp_path: Path) -> None:
        data = pickle.dumps(storage_of([{'name': 'm', 'type': 'local', 'path': str(tmp_path)}]).node('m:f'))
        node, twin = pickle.loads(data), pickle.loads(data)
        assert node == twin
        node.write_bytes(b'1')
        assert (tmp_path / 'f').read_bytes() == b'1'

    def test_one_cache_is_shared_by_all_mounts_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / 'mounts.yaml'
        mounts = [f'{{name: m{number}, type: memory, cache: disk}}' for number in range(5)]
        path.write_text(f'mounts: [{", ".join(mounts)}]\ncache: {{memory: 1MiB, path: {tmp_path}/cache}}\n')
        data = pickle.dumps(storage_of(path))
        storage = pickle.loads(data)
        caches = {id(storage.volume(f'm{number}')._fetcher._cache) for number in range(5)}
        assert len(caches) == 1
        assert storage.volume('m0')._opener._staging == tmp_path / 'cache' / 'journal' / 'staging'


class TestSecrets:
    @pytest.mark.parametrize(
        'definition',
        [
            {'name': 'up', 'type': 's3', 'bucket': 'b', 'key': 'k', 'secret': 'hunter2'},
            {'name': 'up', 'type': 's3', 'bucket': 'b', 'key': 'k', 'secret': '${UP:-hunter2}'},
            {'name': 'up', 'type': 's3', 'bucket': 'b', 'options': {'client_kwargs': {'aws_token': 'hunter2'}}},
            {'name': 'up', 'type': 's3', 'bucket': 'b', 'endpoint_url': 'http://user:hunter2@host'},
        ],
    )
    def test_a_literal_one_is_an_error_that_names_what_to_use(self, definition: dict[str, Any]) -> None:
        storage = storage_of([definition])
        for what in (storage, storage.node('up:f')):
            with pytest.raises(StorageConfigError) as caught:
                pickle.dumps(what)
            assert 'up' in str(caught.value)
            assert '${NAME}' in str(caught.value)
            assert 'hunter2' not in str(caught.value)

    def test_one_in_a_typed_definition_is_too(self) -> None:
        storage = storage_of([S3Definition(name='up', bucket='b', key='k', secret='hunter2')])
        with pytest.raises(StorageConfigError, match='secret'):
            pickle.dumps(storage)

    def test_a_reference_is_carried_and_not_what_it_stands_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('UP_SECRET', 'hunter2')
        storage = storage_of(
            [{'name': 'up', 'type': 's3', 'bucket': 'b', 'key': '${UP_SECRET}', 'secret': '${UP_SECRET}'}]
        )
        data = pickle.dumps(storage.node('up:f'))
        assert b'UP_SECRET' in data
        assert b'hunter2' not in data

    def test_a_file_is_carried_by_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / 'mounts.yaml'
        path.write_text('- {name: up, type: s3, bucket: b, key: k, secret: hunter2}\n')
        data = pickle.dumps(storage_of(path).node('up:f'))
        assert b'mounts.yaml' in data
        assert b'hunter2' not in data

    def test_only_the_mounts_that_are_left_matter(self) -> None:
        storage = storage_of([{'name': 'up', 'type': 's3', 'bucket': 'b', 'key': 'k', 'secret': 'hunter2'}])
        storage.add_mount({'name': 'm', 'type': 'memory'})
        storage.delete_mount('up')
        assert pickle.loads(pickle.dumps(storage)) is storage


class TestInASpawnedProcess:
    def test_from_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / 'files').mkdir()
        (tmp_path / 'mounts.yaml').write_text('- {name: m, type: local, path: files}\n- {name: other, type: memory}\n')
        monkeypatch.chdir(tmp_path)
        storage = storage_of('mounts.yaml')
        node = storage.node('m:f')
        node.write_bytes(b'by the parent')
        monkeypatch.chdir('/')
        assert in_a_spawned_process(read, node) == b'by the parent'
        assert in_a_spawned_process(write, node) == 'm:f'
        assert node.read_bytes() == b'by a child'
        assert in_a_spawned_process(mounts_of, storage) == ['m', 'other']

    def test_from_a_mapping_with_references(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('WHERE', str(tmp_path))
        monkeypatch.setenv('UP_SECRET', 'hunter2')
        storage = storage_of(
            {
                'mounts': [
                    {'name': 'm', 'type': 'local', 'path': '${WHERE}'},
                    {'name': 'up', 'type': 's3', 'bucket': 'b', 'key': 'k', 'secret': '${UP_SECRET}'},
                ],
                'defaults': {'timeout': '5s'},
            }
        )
        node = storage.node('m:f')
        node.write_bytes(b'by the parent')
        with pytest.raises(StorageConfigError, match='key'):
            pickle.dumps(node)  # the key beside the secret is literal
        storage.add_mount({'name': 'up', 'type': 's3', 'bucket': 'b', 'key': '${UP_SECRET}', 'secret': '${UP_SECRET}'})
        assert in_a_spawned_process(read, node) == b'by the parent'

    def test_from_typed_definitions_and_functions(self, tmp_path: Path) -> None:
        storage = storage_of([MemoryDefinition(name='typed')])
        storage.configure(a_source)
        storage.add_mount({'name': 'files', 'type': 'local', 'path': str(tmp_path)})
        assert in_a_spawned_process(mounts_of, storage) == ['typed', 'm', 'files']

    def test_two_nodes_of_one_manager_still_are(self, tmp_path: Path) -> None:
        storage = storage_of([{'name': 'm', 'type': 'local', 'path': str(tmp_path)}])
        assert in_a_spawned_process(same_manager, storage.node('m:a'), storage.node('m:a'))

    def test_a_memory_mount_is_another_store_there(self) -> None:
        node = storage_of([{'name': 'm', 'type': 'memory'}]).node('m:f')
        node.write_bytes(b'1')
        with pytest.raises(FileNotFoundError):
            in_a_spawned_process(read, node)
