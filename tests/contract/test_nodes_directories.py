"""What the API promises of directories: children, mkdir, delete."""

import pytest

from genro_storage import (
    StorageNode,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePermissionError,
)
from tests.contract.mounts import Mounts, names, tree


class TestDirectories:
    def test_children_are_nodes_sorted_by_name(self, root: StorageNode) -> None:
        for name in ('b', 'a', 'C', '10', '9'):
            (root / 'dir' / name).write_bytes(b'')
        (root / 'dir' / 'sub').mkdir()
        assert (root / 'dir').children() == [root / 'dir' / name for name in ('10', '9', 'C', 'a', 'b', 'sub')]
        assert names(root) == ['dir']

    def test_children_of_what_has_none(self, root: StorageNode) -> None:
        (root / 'f').write_bytes(b'1')
        assert root.child('f').parent.children() == [root / 'f']
        with pytest.raises(StorageNotADirectoryError):
            root.child('f').children()
        with pytest.raises(StorageNotFoundError):
            root.child('nothing').children()
        (root / 'empty').mkdir()
        assert root.child('empty').children() == []

    def test_mkdir_as_pathlib_does(self, root: StorageNode) -> None:
        node = root / 'a'
        node.mkdir()
        assert node.isdir
        with pytest.raises(FileExistsError):
            node.mkdir()
        node.mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError):
            (root / 'b' / 'c').mkdir()
        with pytest.raises(FileNotFoundError):
            (root / 'b' / 'c').mkdir(exist_ok=True)
        assert not (root / 'b').exists
        (root / 'b' / 'c').mkdir(parents=True)
        assert (root / 'b' / 'c').isdir
        with pytest.raises(FileExistsError):
            (root / 'b' / 'c').mkdir(parents=True)
        (root / 'b' / 'c').mkdir(parents=True, exist_ok=True)
        with pytest.raises(FileExistsError):
            root.mkdir()
        root.mkdir(exist_ok=True)

    def test_mkdir_over_and_below_a_file(self, root: StorageNode) -> None:
        (root / 'f').write_bytes(b'1')
        for exist_ok in (False, True):
            with pytest.raises(FileExistsError):
                (root / 'f').mkdir(exist_ok=exist_ok)
            with pytest.raises(NotADirectoryError):
                (root / 'f' / 'x').mkdir(exist_ok=exist_ok)
            with pytest.raises(NotADirectoryError):
                (root / 'f' / 'x').mkdir(parents=True, exist_ok=exist_ok)
        assert (root / 'f').read_bytes() == b'1'

    def test_mkdir_where_somebody_else_was_faster(self, mounts: Mounts, root: StorageNode, kind: str) -> None:
        node = root / 'dir'
        assert not node.exists  # which is remembered
        (mounts.again(kind) / 'dir').mkdir()
        node.mkdir(exist_ok=True)
        assert node.isdir

    def test_delete_a_file(self, root: StorageNode) -> None:
        node = root / 'f'
        node.write_bytes(b'1')
        node.delete()
        assert not node.exists
        assert names(root) == []
        node.delete()
        (root / 'no' / 'thing').delete()

    def test_delete_a_tree_and_nothing_else(self, root: StorageNode) -> None:
        for path in ('dir/f', 'dir/sub/g', 'dir/sub/deep/h', 'directory', 'dir2/f'):
            (root / path).write_bytes(b'1')
        (root / 'dir' / 'empty').mkdir()
        (root / 'dir').delete()
        assert not (root / 'dir').exists
        assert not (root / 'dir' / 'sub' / 'g').exists
        assert tree(root) == {'dir2': None, 'dir2/f': b'1', 'directory': b'1'}

    def test_a_directory_outlives_its_last_file(self, root: StorageNode) -> None:
        (root / 'dir' / 'f').write_bytes(b'1')
        (root / 'dir' / 'f').delete()
        assert (root / 'dir').isdir

    def test_the_root_cannot_be_deleted(self, root: StorageNode) -> None:
        (root / 'f').write_bytes(b'1')
        with pytest.raises(StoragePermissionError):
            root.parent.delete()
        assert (root / 'f').exists

    def test_delete_finds_what_somebody_else_has_added(self, mounts: Mounts, root: StorageNode, kind: str) -> None:
        (root / 'dir' / 'f').write_bytes(b'1')
        assert names(root / 'dir') == ['f']  # which is remembered
        (mounts.again(kind) / 'dir' / 'g').write_bytes(b'2')
        (root / 'dir').delete()
        assert not (root / 'dir').exists

    def test_delete_does_not_mind_what_somebody_else_has_removed(
        self, mounts: Mounts, root: StorageNode, kind: str
    ) -> None:
        for path in ('dir/f', 'dir/sub/g'):
            (root / path).write_bytes(b'1')
        assert tree(root / 'dir') == {'f': b'1', 'sub': None, 'sub/g': b'1'}  # which is remembered
        other = mounts.again(kind) / 'dir'
        (other / 'f').delete()
        (other / 'sub').delete()
        (root / 'dir').delete()
        assert not (root / 'dir').exists
