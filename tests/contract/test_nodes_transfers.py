"""What the API promises of copy and move, between any two mounts, and of symbolic links in a local folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from genro_storage import (
    StorageConflictError,
    StorageIsADirectoryError,
    StorageManager,
    StorageNode,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePermissionError,
)
from tests.contract.mounts import LARGE, TREE, Mounts, grow, names, tree


class TestCopying:
    """Between any two mounts."""

    def test_a_file(self, source: StorageNode, target: StorageNode) -> None:
        (source / 'f').write_bytes(b'data')
        assert (source / 'f').copy(target / 'x' / 'g') == target / 'x' / 'g'
        assert (target / 'x' / 'g').read_bytes() == b'data'
        assert (source / 'f').read_bytes() == b'data'

    def test_a_text_as_destination(self, source: StorageNode, target: StorageNode) -> None:
        source.write_bytes(b'data')
        assert source.copy(target.fullpath) == target
        assert target.read_bytes() == b'data'

    def test_an_empty_file(self, source: StorageNode, target: StorageNode) -> None:
        source.write_bytes(b'')
        source.copy(target)
        assert target.isfile
        assert target.size == 0

    def test_a_large_file(self, mounts: Mounts, source: StorageNode, target: StorageNode) -> None:
        source.write_bytes(LARGE)
        source.copy(target)
        assert target.read_bytes() == LARGE
        assert mounts.staged() == []

    def test_into_a_directory(self, source: StorageNode, target: StorageNode) -> None:
        source.write_bytes(b'data')
        target.mkdir()
        assert source.copy(target) == target / 'from'
        assert tree(target) == {'from': b'data'}

    def test_over_a_file(self, source: StorageNode, target: StorageNode) -> None:
        source.write_bytes(b'new')
        target.write_bytes(b'old and longer')
        assert target.read_bytes() == b'old and longer'
        source.copy(target)
        assert target.read_bytes() == b'new'

    def test_a_tree(self, source: StorageNode, target: StorageNode) -> None:
        grow(source, TREE)
        assert source.copy(target) == target
        assert tree(target) == TREE
        assert tree(source) == TREE

    def test_a_tree_into_a_directory_and_over_what_is_there(self, source: StorageNode, target: StorageNode) -> None:
        grow(source, TREE)
        grow(target, {'from': None, 'from/a': b'old', 'from/other': b'stays'})
        assert source.copy(target) == target / 'from'
        assert tree(target / 'from') == TREE | {'other': b'stays'}

    def test_a_file_onto_a_directory_of_its_name(self, source: StorageNode, target: StorageNode) -> None:
        source.write_bytes(b'data')
        grow(target, {'from': None, 'from/x': b'1'})
        for transfer in (source.copy, source.move):
            with pytest.raises(StorageIsADirectoryError):
                transfer(target)
        assert source.read_bytes() == b'data'
        assert tree(target) == {'from': None, 'from/x': b'1'}

    def test_a_directory_onto_a_file(self, source: StorageNode, target: StorageNode) -> None:
        grow(source, TREE)
        target.write_bytes(b'stays')
        for transfer in (source.copy, source.move):
            with pytest.raises(StorageNotADirectoryError):
                transfer(target)
        assert tree(source) == TREE
        assert target.read_bytes() == b'stays'

    def test_a_directory_onto_a_file_inside_the_tree(self, source: StorageNode, target: StorageNode) -> None:
        grow(source, TREE)
        grow(target, {'from': None, 'from/sub': b'stays'})
        for transfer in (source.copy, source.move):
            with pytest.raises(StorageNotADirectoryError):
                transfer(target)
        assert tree(source) == TREE
        assert (target / 'from' / 'sub').read_bytes() == b'stays'

    def test_below_a_file(self, source: StorageNode, target: StorageNode) -> None:
        source.write_bytes(b'data')
        target.write_bytes(b'stays')
        for transfer in (source.copy, source.move):
            with pytest.raises(StorageNotADirectoryError):
                transfer(target / 'x')
        assert source.read_bytes() == b'data'
        assert target.read_bytes() == b'stays'

    def test_what_is_not_there(self, source: StorageNode, target: StorageNode) -> None:
        for transfer in (source.copy, source.move):
            with pytest.raises(StorageNotFoundError):
                transfer(target)
        assert not target.exists

    def test_a_whole_mount_lands_under_its_name(self, mounts: Mounts, kind: str, target: StorageNode) -> None:
        grow(mounts.root(kind) / 'd', TREE)
        mounts.storage.add_mount(mounts.definition(kind, name='whole', below=f'{mounts.work}/d'))
        if kind == 'memory':
            grow(mounts.storage.node('whole'), TREE)
        target.mkdir()
        assert mounts.storage.node('whole').copy(target) == target / 'whole'
        assert tree(target / 'whole') == TREE
        with pytest.raises(StoragePermissionError):
            mounts.storage.node('whole').move(target / 'other')
        assert tree(mounts.storage.node('whole')) == TREE


class TestMoving:
    """Between any two mounts."""

    def test_a_file(self, source: StorageNode, target: StorageNode) -> None:
        node = source / 'f'
        node.write_bytes(b'data')
        returned = node.move(target / 'x' / 'g')
        assert node == returned == target / 'x' / 'g'
        assert node.read_bytes() == b'data'
        assert not (source / 'f').exists
        assert names(source) == []

    def test_a_large_file(self, source: StorageNode, target: StorageNode) -> None:
        node = source / 'f'
        node.write_bytes(LARGE)
        node.move(target)
        assert target.read_bytes() == LARGE
        assert not (source / 'f').exists

    def test_a_tree(self, source: StorageNode, target: StorageNode) -> None:
        grow(source / 'dir', TREE)
        node = source / 'dir'
        node.move(target)
        assert node == target
        assert tree(target) == TREE
        assert not (source / 'dir').exists
        assert not (source / 'dir' / 'sub' / 'b').exists

    def test_into_a_directory_over_what_is_there(self, source: StorageNode, target: StorageNode) -> None:
        node = source / 'dir'
        grow(node, TREE)
        grow(target, {'dir': None, 'dir/a': b'old', 'dir/other': b'stays'})
        assert node.move(target) == node == target / 'dir'
        assert tree(target / 'dir') == TREE | {'other': b'stays'}
        assert not (source / 'dir').exists

    def test_over_a_file(self, source: StorageNode, target: StorageNode) -> None:
        node = source / 'f'
        node.write_bytes(b'new')
        target.write_bytes(b'old and longer')
        node.move(target)
        assert target.read_bytes() == b'new'
        assert not (source / 'f').exists

    def test_a_failure_leaves_the_source_and_the_node(self, source: StorageNode, target: StorageNode) -> None:
        node = source / 'f'
        node.write_bytes(b'data')
        target.write_bytes(b'1')
        with pytest.raises(StorageNotADirectoryError):
            node.move(target / 'x')
        assert node == source / 'f'
        assert node.read_bytes() == b'data'


class TestOntoItself:
    @pytest.fixture(params=['same', 'overlapping'])
    def alias(self, request: pytest.FixtureRequest, mounts: Mounts, kind: str) -> Callable[[str], StorageNode]:
        """The node of a path below ``d``, through the same mount or through another one that shows the same files."""
        if request.param == 'same':
            return lambda path: mounts.root(kind) / 'd' / path
        if kind == 'memory':
            return lambda path: mounts.again(kind) / 'd' / path
        mounts.storage.add_mount(mounts.definition(kind, name='inner', below=f'{mounts.work}/d'))
        return lambda path: mounts.storage.node('inner', path)

    def test_a_file_onto_itself(self, root: StorageNode, alias: Callable[[str], StorageNode]) -> None:
        node = root / 'd' / 'f'
        node.write_bytes(b'data')
        for transfer in (node.copy, node.move):
            for there in (alias('f'), alias('')):
                with pytest.raises(ValueError, match='same'):
                    transfer(there)
        assert node.read_bytes() == b'data'
        assert alias('f').read_bytes() == b'data'

    def test_a_directory_onto_itself(self, root: StorageNode, alias: Callable[[str], StorageNode]) -> None:
        node = root / 'd' / 'sub'
        grow(node, TREE)
        for transfer in (node.copy, node.move):
            with pytest.raises(ValueError, match='same'):
                transfer(alias('sub'))
        assert tree(node) == TREE

    @pytest.mark.parametrize('below', ['sub', 'new', 'sub/new', 'sub/deep'])
    def test_regression_a_directory_into_itself(
        self, root: StorageNode, alias: Callable[[str], StorageNode], below: str
    ) -> None:
        node = root / 'd' / 'dir'
        grow(node, TREE)
        for transfer in (node.copy, node.move):
            with pytest.raises(ValueError, match='into itself'):
                transfer(alias(f'dir/{below}'))
        assert tree(node) == TREE

    def test_a_name_that_begins_alike_is_another(self, root: StorageNode) -> None:
        grow(root / 'd' / 'dir', TREE)
        (root / 'd' / 'dir').copy(root / 'd' / 'dir2')
        assert tree(root / 'd' / 'dir2') == TREE

    def test_regression_a_memory_node_onto_itself(self) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'm', 'type': 'memory'}])
        node = storage.node('m:f')
        node.write_bytes(b'data')
        with pytest.raises(ValueError, match='same'):
            node.move('m:f')
        assert node.read_bytes() == b'data'


class TestBetweenManagers:
    def test_a_destination_of_another_manager(self, root: StorageNode) -> None:
        with StorageManager() as other:
            other.configure([{'name': 'elsewhere', 'type': 'memory'}])
            node = root / 'f'
            node.write_bytes(b'data')
            copied = node.copy(other.node('elsewhere:copied'))
            assert copied == other.node('elsewhere:copied')
            assert copied.read_bytes() == b'data'
            node.move(other.node('elsewhere:moved'))
            assert node == other.node('elsewhere:moved')
            assert node.read_bytes() == b'data'
            assert not (root / 'f').exists


class TestLinks:
    """Symbolic links of a local folder: what a link leads to is not what is deleted."""

    @pytest.fixture
    def folder(self, mounts: Mounts) -> Path:
        folder = mounts.folder / mounts.root('local').path
        (folder / 'kept').mkdir()
        (folder / 'kept' / 'precious').write_bytes(b'1')
        (folder / 'dir').mkdir()
        (folder / 'dir' / 'to-directory').symlink_to('../kept')
        (folder / 'dir' / 'to-file').symlink_to('../kept/precious')
        (folder / 'dir' / 'to-nowhere').symlink_to('gone')
        return folder

    def test_deleting_a_tree_removes_links_and_not_what_they_lead_to(self, mounts: Mounts, folder: Path) -> None:
        (mounts.root('local') / 'dir').delete()
        assert not (folder / 'dir').exists()
        assert (folder / 'kept' / 'precious').read_bytes() == b'1'

    def test_deleting_a_link_to_a_directory_leaves_the_directory(self, mounts: Mounts, folder: Path) -> None:
        (mounts.root('local') / 'dir' / 'to-directory').delete()
        assert not (folder / 'dir' / 'to-directory').is_symlink()
        assert (folder / 'kept' / 'precious').read_bytes() == b'1'

    def test_moving_a_tree_elsewhere_leaves_what_its_links_lead_to(self, mounts: Mounts, folder: Path) -> None:
        (folder / 'dir' / 'to-nowhere').unlink()
        (mounts.root('local') / 'dir').move(mounts.root('memory') / 'dir')
        assert not (folder / 'dir').exists()
        assert (folder / 'kept' / 'precious').read_bytes() == b'1'
        assert tree(mounts.root('memory') / 'dir') == {
            'to-directory': None,
            'to-directory/precious': b'1',
            'to-file': b'1',
        }

    def test_moving_a_file_onto_a_link_to_itself_through_another_mount_loses_nothing(
        self, mounts: Mounts, folder: Path
    ) -> None:
        source = mounts.root('local') / 'kept' / 'precious'
        with pytest.raises(StorageConflictError):
            source.move(mounts.again('local') / 'dir' / 'to-file')
        assert (folder / 'kept' / 'precious').read_bytes() == b'1'
