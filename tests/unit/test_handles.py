"""Numbers of what is open, and directory handles that stay right while entries come and go."""

import errno
import os

import pytest

from fusefs import ops
from fusefs.handles import HandleTable, Item, OpenDirectory
from fusefs.inodes import Inode
from fusefs.trees.base import Tree
from fusefs.trees.local_file import LocalFile
from genro_storage.testing import ManualClock

NAMES = [f'name-{number}' for number in range(100)]


def entered(name: str) -> ops.EntryReply | None:
    if name == 'broken':
        raise PermissionError(errno.EACCES, 'not allowed')
    return None if name == 'gone' else ops.EntryReply(10, ops.Attributes(99, 0o100600), 1.0, 1.0)


def directory_of(names: list[str]) -> OpenDirectory:
    return OpenDirectory(5, 4, lambda: [Item(name, 7, 0o100000, entered) for name in names])


def readdir(offset: int, size_bytes: int = 4096, *, plus: bool = False) -> ops.Readdir:
    return ops.Readdir(0, 1, 0, 0, 0, 1, offset, size_bytes, plus)


def read_all(directory: OpenDirectory, size_bytes: int, *, plus: bool) -> list[str]:
    names: list[str] = []
    offset = 0
    while entries := directory.read(readdir(offset, size_bytes, plus=plus)).entries:
        used = sum(ops.direntry_bytes(len(entry.name.encode()), plus=plus) for entry in entries)
        assert used <= size_bytes
        names += [entry.name for entry in entries]
        offset = entries[-1].next_offset
    return names


@pytest.mark.parametrize('plus', [False, True])
@pytest.mark.parametrize('size_bytes', [200, 1000, 4096, 1 << 20])
def test_a_listing_comes_in_pieces_that_fit(size_bytes: int, plus: bool) -> None:
    assert read_all(directory_of(NAMES), size_bytes, plus=plus) == ['.', '..', *NAMES]


def test_dot_and_dotdot_come_first_and_count_no_lookup() -> None:
    dot, dotdot, *rest = directory_of(['a']).read(readdir(0, plus=True)).entries
    assert (dot.name, dot.ino, dot.entry) == ('.', 5, None)
    assert (dotdot.name, dotdot.ino, dotdot.entry) == ('..', 4, None)
    assert [(entry.name, entry.ino) for entry in rest] == [('a', 99)]


def test_a_name_that_is_gone_by_the_time_it_is_looked_up_is_left_out() -> None:
    names = [entry.name for entry in directory_of(['a', 'gone', 'b']).read(readdir(0, plus=True)).entries]
    assert names == ['.', '..', 'a', 'b']


def test_a_name_that_cannot_be_looked_up_is_listed_and_costs_nobody_the_rest() -> None:
    entries = directory_of(['a', 'broken', 'b']).read(readdir(2, plus=True)).entries
    assert [(entry.name, entry.entry is not None) for entry in entries] == [('a', True), ('broken', False), ('b', True)]


def test_offsets_stay_right_while_entries_come_and_go_and_a_rewind_looks_again() -> None:
    names = list(NAMES)
    directory = directory_of(names)
    first = directory.read(readdir(0, 1000)).entries
    names[:] = ['other']
    rest = directory.read(readdir(first[-1].next_offset, 1 << 20)).entries
    assert [entry.name for entry in first + rest] == ['.', '..', *NAMES]
    assert [entry.name for entry in directory.read(readdir(0)).entries] == ['.', '..', 'other']


def test_behind_the_end_there_is_nothing() -> None:
    assert directory_of(['a']).read(readdir(1000)).entries == []


def test_a_name_that_is_not_unicode_takes_the_room_of_its_bytes() -> None:
    directory = directory_of([os.fsdecode(b'\xff' * 255)])
    assert len(directory.read(readdir(2, ops.direntry_bytes(255, plus=False))).entries) == 1
    assert directory.read(readdir(2, ops.direntry_bytes(255, plus=False) - 1)).entries == []


class Folder:
    """The least that an open file asks for."""

    clock = ManualClock()

    def await_network(self) -> None:
        return

    def is_on_network(self, inode: Inode) -> bool:
        return False

    def has_direct_io(self, inode: Inode, descriptor: int) -> bool:
        return True


def test_a_file_is_found_by_its_number_until_that_is_taken_back() -> None:
    table, inode = HandleTable(), Inode(2, Tree(), None)
    file = LocalFile(inode, os.open(os.devnull, os.O_RDONLY), os.O_RDONLY, Folder())
    fh = table.add(file)
    assert table.file(fh) is file
    assert inode.files == [file]
    assert table.remove(fh) is file
    assert inode.files == []
    table.put_back(fh, file)
    assert table.file(fh) is file
    assert inode.files == [file]
    assert table.remove(fh) is file
    assert table.remove(fh) is None
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        table.file(fh)
    file.release()


def test_files_and_directories_are_not_taken_for_each_other() -> None:
    table, inode = HandleTable(), Inode(2, Tree(), None)
    file = LocalFile(inode, os.open(os.devnull, os.O_RDONLY), os.O_RDONLY, Folder())
    numbers = table.add(file), table.add_directory(directory_of([]))
    assert numbers[0] != numbers[1]
    for find, fh in ((table.file, numbers[1]), (table.directory, numbers[0])):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            find(fh)
    file.release()
