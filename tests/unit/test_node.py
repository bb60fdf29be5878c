"""Nodes, apart from what they do to files (which tests/contract has)."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from genro_storage import StorageError, StorageManager, StorageNode, UnknownMountError


@pytest.fixture
def storage() -> StorageManager:
    storage = StorageManager()
    storage.configure([{'name': 'home', 'type': 'memory'}])
    return storage


def test_a_node_of_nothing_asks_nobody() -> None:
    class Mounts:
        """Knows no mount."""

    node = StorageNode(Mounts(), 'home', 'a/b.txt')  # type: ignore[arg-type]
    assert (node.fullpath, node.basename, node.parent.path) == ('home:a/b.txt', 'b.txt', 'a')
    assert (node / 'c').path == 'a/b.txt/c'
    assert repr(node) == "StorageNode('home:a/b.txt')"


def test_a_node_has_no_attributes_of_its_own(storage: StorageManager) -> None:
    with pytest.raises(AttributeError):
        storage.node('home:a').colour = 'red'  # type: ignore[attr-defined]


def test_a_node_outlives_its_mount_and_says_so(storage: StorageManager) -> None:
    node = storage.node('home:a')
    storage.delete_mount('home')
    for attempt in (lambda: node.exists, lambda: node.write_bytes(b''), node.delete, node.mkdir, node.children):
        with pytest.raises(UnknownMountError, match='home'):
            attempt()
    assert node.fullpath == 'home:a'


def test_a_copy_of_a_node_is_that_node(storage: StorageManager) -> None:
    node = storage.node('home:a')
    assert copy.copy(node) == node
    assert copy.deepcopy(node) == node


def test_the_hash_stays_while_the_node_does(storage: StorageManager) -> None:
    node = storage.node('home:a')
    assert hash(node) == hash(storage.node('home', 'a'))
    node.write_bytes(b'1')
    before = hash(node)
    node.move('home:b')
    assert hash(node) == hash(storage.node('home:b')) != before


def test_a_destination_that_is_no_node_is_refused(storage: StorageManager) -> None:
    node = storage.node('home:a')
    node.write_bytes(b'1')
    with pytest.raises(UnknownMountError):
        node.copy('elsewhere:a')
    with pytest.raises((TypeError, AttributeError)):
        node.copy(7)  # type: ignore[arg-type]
    assert node.read_bytes() == b'1'


def test_paths_go_on_below_whatever_is_there(storage: StorageManager) -> None:
    node = storage.node('home')
    assert (node / 'a' / 'b').parent.parent == node
    assert node.parent == node


def test_a_message_names_the_root_by_its_mount_alone(storage: StorageManager, tmp_path: Path) -> None:
    storage.configure([{'name': 'gone', 'type': 'local', 'path': str(tmp_path / 'nothing')}])
    root = storage.node('gone:')
    operations: list[tuple[Callable[[], object], str]] = [
        (root.children, 'gone: nothing is there'),
        (lambda: root.mtime, 'gone: nothing is there'),
        (lambda: storage.node('gone:a').mtime, 'gone:a: nothing is there'),
        (lambda: storage.node('home:').size, 'home is a directory: only files have a size'),
        (storage.node('home:').read_bytes, 'home is a directory'),
    ]
    for operation, said in operations:
        with pytest.raises(StorageError) as raised:
            operation()
        assert str(raised.value) == said
