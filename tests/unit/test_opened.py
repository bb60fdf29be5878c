"""What the answer to an open tells the kernel: which pages to keep, what not to say, and who shares an inode."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusefs import ops
from fusefs.filesystem import FileSystem
from fusefs.trees.local_file import SETTLED_NS
from genro_storage import StorageManager
from genro_storage.testing import ManualClock

READ, WRITE = os.O_RDONLY, os.O_RDWR


class Kernel:
    """Takes every file that it is offered."""

    takes_files = True

    def __init__(self) -> None:
        self.given = 0
        self.ids: set[int] = set()

    def open_backing(self, descriptor: int) -> int | None:
        os.fstat(descriptor)
        self.given += 1
        self.ids.add(self.given)
        return self.given

    def close_backing(self, backing_id: int) -> None:
        self.ids.remove(backing_id)


class Mounted:
    """A memory mount, one that believes nothing, and a local folder; a kernel that takes files, if it is connected."""

    def __init__(self, storage: StorageManager, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self.clock = clock
        self.storage = storage
        self.filesystem = FileSystem(storage)
        self.kernel = Kernel()

    def ask(self, kind: type[ops.Request], nodeid: int, *arguments: Any) -> Any:
        request = kind(1, nodeid, os.geteuid(), os.getegid(), os.getpid(), *arguments)
        return self.filesystem.operations[kind](request)

    def find(self, mount: str, name: str) -> int:
        root = self.ask(ops.Lookup, ops.ROOT_NODEID, mount).nodeid
        return int(self.ask(ops.Lookup, root, name).nodeid)

    def open(self, nodeid: int, flags: int = READ) -> ops.Opened:
        opened = self.ask(ops.Open, nodeid, flags)
        assert isinstance(opened, ops.Opened)
        return opened

    def close(self, nodeid: int, opened: ops.Opened) -> None:
        self.ask(ops.Release, nodeid, opened.fh, False)

    def keeps(self, nodeid: int, flags: int = READ) -> bool:
        """Whether the kernel keeps its pages over an open, which is closed again."""
        opened = self.open(nodeid, flags)
        self.close(nodeid, opened)
        return opened.keep_cache

    def write(self, nodeid: int, data: bytes) -> None:
        opened = self.open(nodeid, WRITE)
        self.ask(ops.Write, nodeid, opened.fh, 0, data, 0, False)
        self.ask(ops.Flush, nodeid, opened.fh, 0)
        self.close(nodeid, opened)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    folder = tmp_path / 'folder'
    folder.mkdir()
    clock = ManualClock(time.time_ns())
    with StorageManager(clock=clock) as storage:
        storage.add_mount({'name': 'memory', 'type': 'memory'})
        storage.add_mount({'name': 'doubting', 'type': 'memory', 'ttl': 0})
        storage.add_mount({'name': 'local', 'type': 'local', 'path': str(folder)})
        for mount in ('memory', 'doubting', 'local'):
            storage.node(f'{mount}:f').write_text('first')
        tree = Mounted(storage, folder, clock)
        yield tree
        tree.filesystem.close()


@pytest.mark.parametrize('mount', ['memory', 'local', 'doubting'])
def test_flushes_of_what_cannot_be_written_are_not_asked_for(mounted: Mounted, mount: str) -> None:
    nodeid = mounted.find(mount, 'f')
    flags = (READ, os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND, READ | os.O_TRUNC)
    assert [mounted.open(nodeid, each).no_flush for each in flags[1:]] == [False] * 4
    mounted.storage.node(mount, 'g').write_text('x')
    assert mounted.open(mounted.find(mount, 'g')).no_flush


def test_pages_are_kept_from_the_second_open_of_a_version_on(mounted: Mounted) -> None:
    nodeid = mounted.find('memory', 'f')
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False, True, True]
    mounted.write(nodeid, b'other')
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False, True, True]
    mounted.storage.node('memory:f').write_text('third')
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False, True, True]
    assert not mounted.keeps(nodeid, WRITE)
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False, True, True]
    mounted.ask(ops.Setattr, nodeid, None, None, None, None, 2, None, None, False)
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False, True, True]


def test_pages_of_a_version_are_not_kept_once_the_kernel_was_told_of_another(mounted: Mounted) -> None:
    nodeid = mounted.find('memory', 'f')
    assert [mounted.keeps(nodeid) for _ in range(2)] == [False, True]
    inode = mounted.filesystem.inodes.get(nodeid)
    first = inode.pages
    mounted.storage.node('memory:f').write_text('another size')
    mounted.ask(ops.Getattr, nodeid, None)
    assert inode.pages is None
    assert first is not None


def test_direct_io_neither_fills_nor_keeps_pages(mounted: Mounted) -> None:
    nodeid = mounted.find('memory', 'f')
    mounted.keeps(nodeid)
    direct = mounted.open(nodeid, READ | os.O_DIRECT)
    assert (direct.direct_io, direct.keep_cache) == (True, False)
    mounted.close(nodeid, direct)
    assert mounted.keeps(nodeid)
    nodeid = mounted.find('doubting', 'f')
    mounted.close(nodeid, mounted.open(nodeid, READ | os.O_DIRECT))
    assert not mounted.keeps(nodeid)


def test_pages_of_a_local_file_are_kept_once_its_times_are_settled(mounted: Mounted) -> None:
    nodeid = mounted.find('local', 'f')
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False] * 3
    mounted.clock.advance(2 * SETTLED_NS / 1e9)
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False, True, True]
    (mounted.folder / 'f').write_text('FIRST')
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False, True, True]
    assert not mounted.keeps(nodeid, WRITE)
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False, True, True]
    future_ns = mounted.clock.time_ns() + 10**9
    os.utime(mounted.folder / 'f', ns=(future_ns, future_ns))
    assert [mounted.keeps(nodeid) for _ in range(3)] == [False] * 3


def test_a_local_file_is_handed_over_and_given_back_at_its_last_release(mounted: Mounted) -> None:
    mounted.filesystem.backings.connect(mounted.kernel)
    nodeid = mounted.find('local', 'f')
    opened = [mounted.open(nodeid, flags) for flags in (READ, WRITE, READ | os.O_DIRECT, os.O_WRONLY | os.O_APPEND)]
    assert {each.backing_id for each in opened} == {1}
    assert not any(each.direct_io or each.keep_cache for each in opened)
    for each in opened:
        assert mounted.kernel.ids == {1}
        mounted.close(nodeid, each)
    assert mounted.kernel.ids == set()


def test_what_the_kernel_did_not_take_note_of_is_given_back(mounted: Mounted) -> None:
    mounted.filesystem.backings.connect(mounted.kernel)
    mounted.filesystem.take_back(mounted.open(mounted.find('local', 'f')))
    root = mounted.ask(ops.Lookup, ops.ROOT_NODEID, 'local').nodeid
    created = mounted.ask(ops.Create, root, 'new', WRITE, 0o100644, 0)
    assert created.opened.backing_id == 2
    mounted.filesystem.take_back(created)
    assert mounted.kernel.ids == set()


def test_what_was_not_handed_over_at_first_is_not_later(mounted: Mounted) -> None:
    mounted.filesystem.backings.connect(mounted.kernel)
    nodeid = mounted.find('local', 'f')
    (mounted.folder / 'f').chmod(0o4755)
    first = mounted.open(nodeid)
    (mounted.folder / 'f').chmod(0o755)
    direct = mounted.open(nodeid, READ | os.O_DIRECT)
    assert (first.backing_id, direct.backing_id, direct.direct_io) == (0, 0, True)
    for each in (first, direct):
        mounted.close(nodeid, each)
    assert mounted.open(nodeid).backing_id == 1


def test_attributes_of_a_file_that_is_open_to_write_are_not_to_be_believed(mounted: Mounted) -> None:
    nodeid = mounted.find('local', 'f')
    reading = mounted.open(nodeid)
    assert mounted.ask(ops.Getattr, nodeid, None).ttl_s > 0
    writing = mounted.open(nodeid, WRITE)
    assert mounted.ask(ops.Getattr, nodeid, None).ttl_s == 0
    mounted.close(nodeid, writing)
    assert mounted.ask(ops.Getattr, nodeid, None).ttl_s > 0
    mounted.close(nodeid, reading)


@pytest.mark.parametrize('flags', [READ, WRITE])
def test_an_open_that_shows_another_content_than_one_that_was_handed_over_gets_an_inode_of_its_own(
    mounted: Mounted, flags: int
) -> None:
    nodeid = mounted.find('memory', 'f')
    # What another thread does in an open that it has not answered yet.
    mounted.filesystem.backings.connect(mounted.kernel)
    mounted.filesystem.backings.join(1000, nodeid, 'of another version', lambda: os.open(os.devnull, os.O_RDONLY))
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)) as raised:
        mounted.open(nodeid, flags)
    assert raised.value.errno == errno.ESTALE
    assert mounted.filesystem.inodes.get(nodeid).files == []
    anew = mounted.find('memory', 'f')
    assert anew != nodeid
    opened = mounted.open(anew, flags)
    assert bytes(mounted.ask(ops.Read, anew, opened.fh, 0, 100, 0)) == b'first'
    mounted.close(anew, opened)
    mounted.filesystem.backings.leave(1000)
