"""From paths that changed to what the kernel is told."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusefs import ops
from fusefs.filesystem import FileSystem
from fusefs.invalidation import Invalidations
from fusefs.transports.inprocess import InProcessTransport
from genro_storage import StorageManager

TIMEOUT_S = 10.0


class Kernel:
    """Hears notifications, and can be made to take its time with one mount's."""

    def __init__(self) -> None:
        self._heard = threading.Condition()
        self.entries: list[tuple[int, str]] = []
        self.inodes: list[tuple[int, int, int]] = []
        self.slow: set[int] = set()  # directories whose lock is held
        self.entered = threading.Event()
        self.free = threading.Event()

    def notify_inode(self, nodeid: int, offset: int, size_bytes: int) -> None:
        with self._heard:
            self.inodes.append((nodeid, offset, size_bytes))
            self._heard.notify_all()

    def notify_entry(self, parent: int, name: str) -> None:
        if parent in self.slow:
            self.entered.set()
            assert self.free.wait(TIMEOUT_S)
        with self._heard:
            self.entries.append((parent, name))
            self._heard.notify_all()

    def hears(self, condition: Callable[[], bool]) -> bool:
        with self._heard:
            return self._heard.wait_for(condition, TIMEOUT_S)


class Mounted:
    """Two memory mounts, of which the kernel has looked up some names."""

    def __init__(self, storage: StorageManager) -> None:
        self.storage = storage
        self.filesystem = FileSystem(storage)
        self.kernel = Kernel()
        self.told = {name: self.start(name) for name in ('one', 'two')}

    def start(self, name: str, limit: int = 100) -> Invalidations:
        filesystem = self.filesystem
        root = filesystem.roots[name]
        volume = self.storage.volume(name)
        return Invalidations(volume, root, filesystem.inodes, self.kernel, filesystem.is_changing, limit)

    def root(self, name: str) -> int:
        return self.filesystem.roots[name].nodeid

    def ask(self, request: ops.Request) -> ops.Reply:
        return self.filesystem.operations[type(request)](request)

    def find(self, *names: str) -> int:
        nodeid = ops.ROOT_NODEID
        for name in names:
            found = self.ask(ops.Lookup(1, nodeid, os.getuid(), os.getgid(), os.getpid(), name))
            assert isinstance(found, ops.EntryReply)
            nodeid = found.nodeid
        return nodeid

    def close(self) -> None:
        self.kernel.free.set()
        for told in self.told.values():
            told.close()
        self.filesystem.close()


@pytest.fixture
def mounted() -> Iterator[Mounted]:
    with StorageManager() as storage:
        for name in ('one', 'two'):
            storage.add_mount({'name': name, 'type': 'memory'})
        tree = Mounted(storage)
        yield tree
        tree.close()


def test_a_transport_can_be_told(tmp_path: Path) -> None:
    with StorageManager() as storage:
        storage.add_mount({'name': 'one', 'type': 'memory'})
        filesystem = FileSystem(storage)
        Invalidations(storage.volume('one'), filesystem.roots['one'], filesystem.inodes, InProcessTransport()).close()
        filesystem.close()


def test_a_change_in_python_is_told_of_the_name_the_file_and_the_directory(mounted: Mounted) -> None:
    mounted.storage.node('one:d').mkdir()
    mounted.storage.node('one:d/f').write_text('first')
    directory, file = mounted.find('one', 'd'), mounted.find('one', 'd', 'f')
    mounted.storage.node('one:d/f').write_text('other')
    assert mounted.kernel.hears(lambda: (file, -1, 0) in mounted.kernel.inodes)
    assert (directory, 'f') in mounted.kernel.entries
    assert (directory, -1, 0) in mounted.kernel.inodes


def test_below_what_the_kernel_has_not_looked_up_it_is_told_of_that_name_only(mounted: Mounted) -> None:
    mounted.storage.node('one:a/b').mkdir(parents=True)
    mounted.storage.node('one:a/b/c').write_text('x')
    mounted.told['one'].changed('last')
    root = mounted.root('one')
    assert mounted.kernel.hears(lambda: (root, 'last') in mounted.kernel.entries)
    assert set(mounted.kernel.entries) == {(root, 'a'), (root, 'last')}
    assert {nodeid for nodeid, *_ in mounted.kernel.inodes} <= {root}


def test_the_root_of_a_mount_has_no_name(mounted: Mounted) -> None:
    mounted.told['one'].changed('')
    assert mounted.kernel.hears(lambda: bool(mounted.kernel.inodes))
    assert mounted.kernel.inodes == [(mounted.root('one'), -1, 0)]
    assert mounted.kernel.entries == []


def test_what_the_kernel_asked_for_it_is_not_told(mounted: Mounted) -> None:
    root = mounted.root('one')
    head = (1, root, os.getuid(), os.getgid(), os.getpid())
    mounted.ask(ops.Mkdir(*head, 'd', 0o755, 0))
    created = mounted.ask(ops.Create(*head, 'f', os.O_RDWR, 0o100644, 0))
    assert isinstance(created, ops.Created)
    mounted.ask(ops.Write(1, created.entry.nodeid, *head[2:], created.opened.fh, 0, b'x', 0, False))
    mounted.ask(ops.Flush(1, created.entry.nodeid, *head[2:], created.opened.fh, 0))
    mounted.ask(ops.Release(1, created.entry.nodeid, *head[2:], created.opened.fh, False))
    mounted.ask(ops.Rename(*head, 'f', root, 'g', 0))
    mounted.ask(ops.Unlink(*head, 'g'))
    mounted.ask(ops.Rmdir(*head, 'd'))
    mounted.told['one'].changed('marker')
    assert mounted.kernel.hears(lambda: bool(mounted.kernel.entries))
    assert mounted.kernel.entries == [(root, 'marker')]


def test_a_mount_whose_directory_is_locked_delays_no_other_and_nobody_waits(mounted: Mounted) -> None:
    root, other = mounted.root('one'), mounted.root('two')
    mounted.kernel.slow.add(root)
    mounted.told['one'].changed('stuck')
    assert mounted.kernel.entered.wait(TIMEOUT_S)
    for number in range(1000):
        mounted.told['one'].changed(f'behind-{number % 10}')
    mounted.told['two'].changed('free')
    assert mounted.kernel.hears(lambda: (other, 'free') in mounted.kernel.entries)
    assert (root, 'stuck') not in mounted.kernel.entries
    mounted.kernel.free.set()
    assert mounted.kernel.hears(lambda: (root, 'behind-9') in mounted.kernel.entries)
    told = [name for parent, name in mounted.kernel.entries if parent == root]
    assert told == ['stuck', *(f'behind-{number}' for number in range(10))]


def test_the_queue_is_bounded(mounted: Mounted) -> None:
    mounted.told['one'].close()
    mounted.told['one'] = mounted.start('one', limit=10)
    root = mounted.root('one')
    mounted.kernel.slow.add(root)
    mounted.told['one'].changed('stuck')
    assert mounted.kernel.entered.wait(TIMEOUT_S)
    for number in range(1000):
        mounted.told['one'].changed(f'behind-{number}')
    assert len(mounted.told['one']._waiting) <= 13


def test_after_close_nothing_is_told(mounted: Mounted) -> None:
    for told in mounted.told.values():
        told.close()
        told.close()
    mounted.storage.node('one:f').write_text('x')
    mounted.told['one'].changed('f')
    assert mounted.told['one']._thread is None
    assert mounted.kernel.entries == []
