"""Descriptors of local inodes: a bounded number is held, and a reopened one is the same file or ESTALE."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs import ops
from fusefs.inodes import Inode, InodeTable
from fusefs.trees.base import Tree
from fusefs.trees.descriptors import Descriptors, Held, default_limit
from fusefs.trees.local import LocalTree
from fusefs.trees.statx import statx
from genro_storage import StorageManager

LIMIT = 3


def header(inode: Inode) -> tuple[int, int, int, int, int]:
    return 1, inode.nodeid, os.geteuid(), os.getegid(), os.getpid()


class Fixture:
    """A local tree that holds three descriptors."""

    def __init__(self, folder: Path, storage: StorageManager) -> None:
        self.folder = folder
        self.inodes = InodeTable(Tree())
        self.tree = LocalTree(storage.volume('local'), str(folder), self.inodes, LIMIT, 0)
        self.root = self.inodes.enter(self.inodes.root, 'local', self.tree, ('root', 'local'))
        self.tree.prepare(self.root)

    @property
    def descriptors(self) -> Descriptors:
        return self.tree._descriptors

    def find(self, parent: Inode, name: str) -> Inode:
        return self.inodes.get(self.tree.lookup(parent, name).nodeid)

    def read(self, inode: Inode) -> bytes:
        file = self.tree.open(inode, ops.Open(*header(inode), os.O_RDONLY))
        try:
            return bytes(file.read(0, 1 << 16))
        finally:
            file.release()

    def held(self, *inodes: Inode) -> list[Inode]:
        return [inode for inode in inodes if self.descriptors.holds(inode)]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Fixture]:
    folder = tmp_path / 'folder'
    folder.mkdir()
    before = set(os.listdir('/proc/self/fd'))
    with StorageManager() as storage:
        storage.configure([{'name': 'local', 'type': 'local', 'path': str(folder)}])
        fixture = Fixture(folder, storage)
        yield fixture
        fixture.tree.close()
    assert set(os.listdir('/proc/self/fd')) <= before | {'listing'} or len(os.listdir('/proc/self/fd')) <= len(before)


def stale(read: object, *arguments: object) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        read(*arguments)  # type: ignore[operator]


def test_no_more_are_held_than_the_limit_and_all_files_stay_reachable(local: Fixture) -> None:
    inodes = []
    for number in range(20):
        (local.folder / f'{number}').write_text(f'content {number}')
        inodes.append(local.find(local.root, f'{number}'))
    for _ in range(3):
        for number, inode in enumerate(inodes):
            assert local.read(inode) == f'content {number}'.encode()
            assert len(local.descriptors) <= LIMIT
    assert len(local.held(*inodes)) <= LIMIT


def test_deep_directories_are_reopened_from_the_root(local: Fixture) -> None:
    path, inode = local.folder, local.root
    chain = []
    for depth in range(12):
        path = path / f'd{depth}'
        path.mkdir()
        inode = local.find(inode, f'd{depth}')
        chain.append(inode)
    (path / 'f').write_bytes(b'deep')
    file = local.find(inode, 'f')
    assert len(local.descriptors) <= LIMIT + len(chain)
    for each in chain:
        local.descriptors.release(each)
    assert local.read(file) == b'deep'
    with local.descriptors.borrow(local.root):
        pass
    assert len(local.held(*chain, file)) <= LIMIT


def test_a_file_that_was_renamed_behind_our_back_is_estale(local: Fixture) -> None:
    (local.folder / 'f').write_bytes(b'f')
    file = local.find(local.root, 'f')
    (local.folder / 'f').rename(local.folder / 'g')
    stale(local.read, file)
    assert local.find(local.root, 'g') is file
    assert local.read(file) == b'f'


def test_a_file_that_was_replaced_behind_our_back_is_estale(local: Fixture) -> None:
    (local.folder / 'f').write_bytes(b'f')
    file = local.find(local.root, 'f')
    (local.folder / 'new').write_bytes(b'new')
    (local.folder / 'new').rename(local.folder / 'f')
    stale(local.read, file)
    assert local.find(local.root, 'f') is not file


def test_a_directory_that_became_a_link_is_not_followed(local: Fixture) -> None:
    outside = local.folder.parent / 'outside'
    outside.mkdir()
    (outside / 'f').write_bytes(b'outside')
    (local.folder / 'd').mkdir()
    (local.folder / 'd' / 'f').write_bytes(b'inside')
    directory = local.find(local.root, 'd')
    file = local.find(directory, 'f')
    (local.folder / 'd').rename(local.folder / 'moved')
    (local.folder / 'd').symlink_to(outside)
    local.descriptors.release(directory)
    stale(local.read, file)


def test_one_that_is_held_goes_with_its_file_wherever_that_moves(local: Fixture) -> None:
    (local.folder / 'f').write_bytes(b'f')
    file = local.find(local.root, 'f')
    assert local.read(file) == b'f'
    assert local.held(file) == [file]
    (local.folder / 'f').rename(local.folder / 'g')
    assert local.read(file) == b'f'


def test_an_unlinked_file_is_reopened_through_who_has_it_open(local: Fixture) -> None:
    (local.folder / 'f').write_bytes(b'f')
    file = local.find(local.root, 'f')
    opened = local.tree.open(file, ops.Open(*header(file), os.O_RDONLY))
    file.files.append(opened)
    local.tree.unlink(local.root, 'f')
    local.descriptors.release(file)
    assert local.read(file) == b'f'
    assert local.tree.attributes(file, None).attributes.nlink == 0
    file.files.remove(opened)
    opened.release()
    local.descriptors.release(file)
    stale(local.read, file)


def test_a_borrowed_one_is_not_closed_however_many_others_are_wanted(local: Fixture) -> None:
    for number in range(10):
        (local.folder / f'{number}').touch()
    inodes = [local.find(local.root, f'{number}') for number in range(10)]
    with local.descriptors.borrow(inodes[0]) as descriptor:
        for inode in inodes[1:]:
            with local.descriptors.borrow(inode):
                pass
        assert statx(descriptor).identity == inodes[0].key


def test_threads_that_borrow_at_once_each_get_their_file(local: Fixture) -> None:
    for number in range(8):
        (local.folder / f'{number}').touch()
    inodes = [local.find(local.root, f'{number}') for number in range(8)]
    wrong: list[object] = []

    def borrow(start: int) -> None:
        for step in range(400):
            inode = inodes[(start + step) % len(inodes)]
            try:
                with local.descriptors.borrow(inode) as descriptor:
                    if statx(descriptor).identity != inode.key:
                        wrong.append(inode)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=borrow, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(local.held(*inodes)) <= LIMIT + len(threads)


def test_forgetting_an_inode_closes_its_descriptor(local: Fixture) -> None:
    (local.folder / 'f').touch()
    file = local.find(local.root, 'f')
    with local.descriptors.borrow(file) as descriptor:
        pass
    for inode in local.inodes.forget([(file.nodeid, 1)]):
        local.tree.forgotten(inode)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(descriptor)
    local.tree.forgotten(file)
    assert isinstance(file.state, Held)


def test_half_of_what_a_process_may_open_is_for_others() -> None:
    assert 64 <= default_limit() <= 65_536
