"""Paths of libfuse over inodes: against a plain model and a real file system, whose lookups must all be given back."""

import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fusefs import ops
from fusefs.dispatch import Dispatcher
from fusefs.filesystem import FileSystem
from fusefs.transports.inprocess import InProcessTransport
from fusefs.transports.libfuse.operations import RENAME_EXCHANGE, Operations
from fusefs.transports.libfuse.places import Place, Places
from fusefs.transports.libfuse.removed import TAKEN, RemovedNames
from fusefs.transports.libfuse.requests import Requests
from fusefs.transports.libfuse.transport import library_options
from fusefs.transports.options import parse_options
from genro_storage import StorageManager
from genro_storage.testing import ManualClock

MOUNT = '/memory'


class CountedTransport(InProcessTransport):
    """What the paths stand on, and the lookups that they have made and not given back, by nodeid."""

    def __init__(self, requests: Requests) -> None:
        super().__init__()
        self._requests = requests
        self.counts: dict[int, int] = {}

    def connect(self, dispatcher: Dispatcher) -> None:
        def dispatch(request: ops.Request) -> None:
            if isinstance(request, ops.Forget):
                for nodeid, count in request.forgotten:
                    self._count(nodeid, -count)
            dispatcher(request)

        self._requests.connect(dispatch)

    def answer(self, request: ops.Request, reply: ops.Reply) -> bool:
        entry = reply.entry if isinstance(reply, ops.Created) else reply
        if isinstance(entry, ops.EntryReply) and entry.nodeid:
            self._count(entry.nodeid, 1)
        return self._requests.answer(request, reply)

    def _count(self, nodeid: int, change: int) -> None:
        count = self.counts.pop(nodeid, 0) + change
        assert count >= 0, f'nodeid {nodeid} was given back more often than it was looked up'
        if count:
            self.counts[nodeid] = count


class Tree:
    """A memory mount, asked by paths as libfuse asks."""

    def __init__(self, limit: int = 1000, folder: Path | None = None) -> None:
        self.clock = ManualClock()
        self.places = Places(self.clock, limit)
        requests = Requests(lambda: (os.geteuid(), os.getegid(), os.getpid()), lambda: False)
        self.operations = Operations(self.places, requests)
        self.storage = StorageManager()
        definitions = [{'name': 'memory', 'type': 'memory'}]
        if folder is not None:
            definitions.append({'name': 'local', 'type': 'local', 'path': str(folder)})
        self.storage.configure(definitions)
        self.filesystem = FileSystem(self.storage)
        self.inodes_before = len(self.filesystem.inodes)
        self.transport = CountedTransport(requests)
        dispatcher = Dispatcher(self.filesystem, self.transport)
        self.transport.connect(dispatcher)
        self._requests = requests
        self._dispatcher = dispatcher

    @property
    def counts(self) -> dict[int, int]:
        return self.transport.counts

    def write(self, path: str, data: bytes) -> None:
        fh = self.operations.create(path, 0o100644, os.O_WRONLY | os.O_CREAT | os.O_TRUNC).fh
        try:
            self.operations.write(None, data, 0, fh)
            self.operations.flush(None, fh)
        finally:
            self.operations.release(None, fh)

    def read(self, path: str) -> bytes:
        fh = self.operations.open(path, os.O_RDONLY).fh
        try:
            return self.read_open(fh)
        finally:
            self.operations.release(None, fh)

    def read_open(self, fh: int) -> bytes:
        return b''.join(self.operations.read(None, 1 << 16, 0, fh))

    def names(self, path: str) -> list[str]:
        fh = self.operations.opendir(path)
        try:
            listed = [name for name, _, _ in self.operations.readdir_with_offset(None, 0, fh)]
        finally:
            self.operations.releasedir(None, fh)
        return sorted(set(listed) - {'.', '..'})

    def give_back(self) -> None:
        """What the transport does in the end."""
        self.places.clear()
        self._requests.forget(self.places.take_gone())

    def close(self) -> None:
        self.give_back()
        assert self._dispatcher.drain(10)
        self.filesystem.close()
        self.storage.close()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    running = Tree(folder=tmp_path)
    yield running
    running.give_back()
    assert running.counts == {}
    assert len(running.filesystem.inodes) == running.inodes_before
    running.close()


def errno_of(function: Callable[..., object], *arguments: object) -> int:
    """What a call fails with; 0 if it does not."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


# The model

PATHS = st.sampled_from(['/a', '/b', '/d', '/d/a', '/d/e', '/d/e/a', '/x', '/x/a'])
DIRECTORY = None
LIMIT = 3


INDEX = st.integers(0, 7)


def has_files(model: Any) -> bool:
    return bool(model.files())


def has_open(model: Any) -> bool:
    return bool(model.opened)


class Model(RuleBasedStateMachine):
    """Paths with bytes, or with None for directories; and what libfuse would do about files that are open."""

    @initialize(limit=st.sampled_from([LIMIT, 100]))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.tree = Tree(limit)
        self.operations = self.tree.operations
        self.known: dict[str, bytes | None] = {'': DIRECTORY}
        self.opened: dict[int, tuple[str, bytes]] = {}  # fh: where libfuse has it, and what it shows
        self.hidden = 0

    def files(self) -> Sequence[str]:
        return sorted(path for path, data in self.known.items() if data is not None)

    def directories(self) -> Sequence[str]:
        return sorted(path for path, data in self.known.items() if data is None)

    @staticmethod
    def pick(index: int, among: Sequence[str]) -> str:
        return among[index % len(among)]

    def parent_is_there(self, path: str) -> bool:
        return path.rpartition('/')[0] in self.directories()

    def below(self, path: str) -> Sequence[str]:
        return [other for other in self.known if other.startswith(path + '/')]

    def hide_if_open(self, path: str) -> bool:
        """fuse.c, hide_node: whether the file was open, and is away now."""
        holders = [fh for fh, (where, _) in self.opened.items() if where == path]
        if not holders or path not in self.known:
            return False
        while True:
            self.hidden += 1
            name = f'{path.rpartition("/")[0]}/.fuse_hidden{7:08x}{self.hidden:08x}'
            if errno_of(self.operations.getattr, MOUNT + name) == errno.ENOENT:
                break
        assert errno_of(self.operations.rename, MOUNT + path, MOUNT + name) == 0
        for fh in holders:
            self.opened[fh] = (name, self.opened[fh][1])
        del self.known[path]
        return True

    def is_told_of_a_change(self, path: str) -> None:
        for nodeid in list(self.tree.counts):
            self.tree.places.expire(nodeid, path.rpartition('/')[2])

    @rule(path=PATHS, data=st.binary(min_size=1, max_size=3))
    def create(self, path: str, data: bytes) -> None:
        if path not in self.known and self.parent_is_there(path):
            self.tree.write(MOUNT + path, data)
            self.known[path] = data

    @rule(path=PATHS)
    def make_directory(self, path: str) -> None:
        if path not in self.known and self.parent_is_there(path):
            self.operations.mkdir(MOUNT + path, 0o755)
            self.known[path] = DIRECTORY

    @rule(path=PATHS)
    def look(self, path: str) -> None:
        assert (errno_of(self.operations.getattr, MOUNT + path) == 0) == (path in self.known)

    @rule(index=INDEX)
    def list(self, index: int) -> None:
        path = self.pick(index, self.directories())
        expected = {other.removeprefix(path + '/').partition('/')[0] for other in self.below(path)}
        assert self.tree.names(MOUNT + path) == sorted(expected)

    @precondition(has_files)
    @rule(index=INDEX)
    def read(self, index: int) -> None:
        path = self.pick(index, self.files())
        assert self.tree.read(MOUNT + path) == self.known[path]

    @precondition(has_files)
    @rule(index=INDEX)
    def open(self, index: int) -> None:
        path = self.pick(index, self.files())
        opening = self.operations.open(MOUNT + path, os.O_RDONLY)
        shown = {data for where, data in self.opened.values() if where == path}
        assert opening.direct_io or not shown - {self.known[path]}
        self.opened[opening.fh] = (path, self.known[path] or b'')

    @precondition(has_open)
    @rule()
    def look_at_what_is_open(self) -> None:
        for fh, (where, data) in self.opened.items():
            # Nobody keeps what somebody else has replaced, perhaps by a directory.
            if errno_of(self.tree.read_open, fh) not in {errno.ESTALE, errno.EISDIR}:
                assert self.tree.read_open(fh) == data
            assert self.operations.getattr(None, fh)['st_size'] == len(data)
            if '.fuse_hidden' in where and self.parent_is_there(where):
                same = {len(shown) for other, shown in self.opened.values() if other == where}
                assert self.operations.getattr(MOUNT + where)['st_size'] in same

    @precondition(has_open)
    @rule(index=INDEX)
    def close(self, index: int) -> None:
        self.release(sorted(self.opened)[index % len(self.opened)])

    def release(self, fh: int) -> None:
        where, _ = self.opened.pop(fh)
        self.operations.release(None, fh)
        last = all(other != where for other, _ in self.opened.values())
        if '.fuse_hidden' in where and last and self.parent_is_there(where):
            # libfuse ignores what comes of it (fuse.c, fuse_do_release): what nobody has open may be forgotten.
            assert errno_of(self.operations.unlink, MOUNT + where) in {0, errno.ENOENT}

    @precondition(has_files)
    @rule(index=INDEX)
    def unlink(self, index: int) -> None:
        path = self.pick(index, self.files())
        if not self.hide_if_open(path):
            self.operations.unlink(MOUNT + path)
            del self.known[path]

    @rule(index=INDEX)
    def remove_directory(self, index: int) -> None:
        path = self.pick(index, self.directories())
        if path:
            got = errno_of(self.operations.rmdir, MOUNT + path)
            assert got == (errno.ENOTEMPTY if self.below(path) else 0)
            if not got:
                del self.known[path]

    @rule(index=INDEX, new=PATHS)
    def rename(self, index: int, new: str) -> None:
        path = self.pick(index, sorted(self.known))
        if not path or not self.parent_is_there(new) or path == new or new.startswith(path + '/'):
            return
        if new in self.known and not {path, new} <= set(self.files()):
            return
        self.hide_if_open(new)
        self.operations.rename(MOUNT + path, MOUNT + new)
        for old in [path, *self.below(path)]:
            self.known[new + old.removeprefix(path)] = self.known.pop(old)
        for fh, (where, data) in self.opened.items():
            if where == path or where.startswith(path + '/'):
                self.opened[fh] = (new + where.removeprefix(path), data)

    @precondition(has_files)
    @rule(index=INDEX, data=st.binary(min_size=4, max_size=6))
    def somebody_else_writes(self, index: int, data: bytes) -> None:
        path = self.pick(index, self.files())
        self.tree.storage.node(f'memory:{path[1:]}').write_bytes(data)
        self.known[path] = data
        self.is_told_of_a_change(path)

    @precondition(has_files)
    @rule(index=INDEX)
    def somebody_else_removes(self, index: int) -> None:
        path = self.pick(index, self.files())
        self.tree.storage.node(f'memory:{path[1:]}').delete()
        del self.known[path]
        self.is_told_of_a_change(path)

    @rule(seconds=st.floats(0, 100))
    def time_goes_by(self, seconds: float) -> None:
        self.tree.clock.advance(seconds)

    @invariant()
    def what_is_kept_is_bounded_by_what_is_used(self) -> None:
        used = {MOUNT + where for where, _ in self.opened.values()}
        used |= {above for path in used for above in itertools.accumulate(path.split('/'), '{}/{}'.format) if above}
        assert len(self.tree.places) <= max(self.limit, len(used))

    def teardown(self) -> None:
        for fh in list(self.opened):
            self.release(fh)
        self.tree.give_back()
        assert self.tree.counts == {}
        assert len(self.tree.filesystem.inodes) == self.tree.inodes_before
        self.tree.close()


# A failure is made small first, which takes some minutes.
TestModel = pytest.mark.timeout(600)(Model.TestCase)
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# Names


def entry(nodeid: int, ttl_s: float = 60.0) -> ops.EntryReply:
    return ops.EntryReply(nodeid, None, ttl_s, ttl_s)


def known(places: Places, parent: Place, name: str) -> int | None:
    """The nodeid that a name is believed to have."""
    found = places.find(parent, name)
    if found is None:
        return None
    places.leave(found)
    return found.nodeid


def put(places: Places, parent: Place, name: str, nodeid: int, ttl_s: float = 60.0) -> Place:
    place = places.enter(parent, name, entry(nodeid, ttl_s), places.changes)
    places.leave(place)
    return place


def test_a_name_is_believed_for_its_own_ttl() -> None:
    clock = ManualClock()
    places = Places(clock)
    put(places, places.root, 'short', 2, 1.0)
    put(places, places.root, 'long', 3, 10.0)
    put(places, places.root, 'never', 4, 0.0)
    clock.advance(0.5)
    assert [known(places, places.root, name) for name in ('short', 'long', 'never')] == [2, 3, None]
    clock.advance(1.0)
    assert [known(places, places.root, name) for name in ('short', 'long', 'never')] == [None, 3, None]


def test_what_a_lookup_finds_while_names_change_is_not_believed() -> None:
    places = Places(ManualClock())
    changes = places.changes
    places.rename(places.root, 'f', places.root, 'g')
    places.leave(places.enter(places.root, 'f', entry(2), changes))
    assert known(places, places.root, 'f') is None


def test_another_inode_under_a_name_gives_the_first_one_back() -> None:
    places = Places(ManualClock())
    put(places, places.root, 'f', 2)
    put(places, places.root, 'f', 2)
    put(places, places.root, 'f', 3)
    assert places.take_gone() == [(2, 2)]
    assert places.take_gone() == []


def test_what_is_open_is_given_back_when_it_is_closed_and_not_before() -> None:
    places = Places(ManualClock())
    place = put(places, places.root, 'f', 2)
    places.open(place)
    places.remove(places.root, 'f')
    assert places.take_gone() == []
    places.close(place)
    assert places.take_gone() == [(2, 1)]


def test_the_name_of_a_removed_file_leads_to_a_version_that_is_open_yet() -> None:
    places = Places(ManualClock())
    first = put(places, places.root, 'f', 2)
    places.open(first)
    second = put(places, places.root, 'f', 3)
    places.open(second)
    places.hide(places.root, 'f', '.hidden')
    assert known(places, places.root, '.hidden') == 3
    places.close(second)
    assert known(places, places.root, '.hidden') == 2
    assert places.is_hidden(places.root, '.hidden')
    assert places.take_gone() == [(3, 1)]
    places.remove(places.root, '.hidden')
    places.close(first)
    assert places.take_gone() == [(2, 1)]


def test_the_bound_holds_and_spares_what_is_open_and_what_is_above_it() -> None:
    places = Places(ManualClock(), limit=10)
    directory = put(places, places.root, 'd', 2)
    file = put(places, directory, 'f', 3)
    places.open(file)
    for number in range(100):
        put(places, places.root, f'n{number}', 10 + number)
    assert len(places) == 10
    assert known(places, places.root, 'd') == 2
    assert known(places, directory, 'f') == 3
    assert len(places.take_gone()) == 92


def test_a_directory_that_moves_takes_along_what_is_below_it() -> None:
    places = Places(ManualClock())
    directory, other = put(places, places.root, 'd', 2), put(places, places.root, 'e', 3)
    put(places, directory, 'f', 4)
    places.rename(places.root, 'd', other, 'd')
    moved = places.find(other, 'd')
    assert moved is directory
    assert known(places, moved, 'f') == 4
    places.leave(moved)
    assert known(places, places.root, 'd') is None


def test_names_that_change_places_do() -> None:
    places = Places(ManualClock())
    directory = put(places, places.root, 'd', 2)
    put(places, directory, 'f', 3)
    put(places, places.root, 'g', 4)
    places.exchange(places.root, 'g', directory, 'f')
    assert known(places, places.root, 'g') == 3
    assert known(places, directory, 'f') == 4


def test_a_change_that_is_told_has_the_name_looked_up_again() -> None:
    places = Places(ManualClock())
    directory = put(places, places.root, 'd', 2)
    put(places, directory, 'f', 3)
    places.expire(2, 'f')
    assert known(places, directory, 'f') is None
    assert known(places, places.root, 'd') == 2


def test_who_walks_through_a_directory_that_goes_leaves_nothing_behind() -> None:
    places = Places(ManualClock())
    directory = places.enter(places.root, 'd', entry(2), places.changes)
    places.remove(places.root, 'd')
    put(places, directory, 'f', 3)
    places.leave(directory)
    assert sorted(places.take_gone()) == [(2, 1), (3, 1)]
    assert len(places) == 0


# Operations


def test_every_operation_by_path_and_handle_works_on_a_local_mount(tree: Tree) -> None:
    operations = tree.operations
    operations.mkdir('/local/d', 0o755)
    tree.write('/local/d/f', b'content')
    operations.symlink('/local/l', 'd/f')
    assert operations.readlink('/local/l') == 'd/f'
    operations.link('/local/h', '/local/d/f')
    assert operations.getattr('/local/h')['st_nlink'] == 2
    operations.mknod('/local/p', 0o010644, 0)
    operations.chmod('/local/h', 0o600)
    operations.chown('/local/h', -1, -1)
    operations.utimens('/local/h', (None, 5_000_000_001))
    operations.truncate('/local/h', 4)
    found = operations.getattr('/local/d/f')
    assert (found['st_mode'], found['st_mtime'] > 0, found['st_size']) == (0o100600, True, 4)
    operations.setxattr('/local/h', 'user.a', b'1', 0)
    assert operations.getxattr('/local/h', 'user.a') == b'1'
    assert operations.listxattr('/local/h') == ['user.a']
    operations.removexattr('/local/h', 'user.a')
    assert errno_of(operations.getxattr, '/local/h', 'user.a') == errno.ENODATA
    operations.rename('/local/h', '/local/d', RENAME_EXCHANGE)
    assert tree.read('/local/d') == b'cont'
    assert tree.names('/local/h') == ['f']
    assert operations.statfs('/local')['f_blocks'] > 0
    assert operations.access('/local/d', os.R_OK) == 0
    fh = operations.open('/local/d', os.O_RDWR).fh
    operations.truncate(None, 2, fh)
    operations.fsync(None, 0, fh)
    assert operations.getattr(None, fh)['st_size'] == 2
    operations.release(None, fh)
    fh = operations.opendir('/local')
    operations.fsyncdir(None, 0, fh)
    operations.releasedir(None, fh)
    for path in ('/local/d', '/local/l', '/local/p', '/local/h/f'):
        operations.unlink(path)
    operations.rmdir('/local/h')
    assert tree.names('/local') == []


def test_what_is_missing_or_not_open_is_the_errno_of_that(tree: Tree) -> None:
    operations = tree.operations
    assert errno_of(operations.getattr, '/nothing') == errno.ENOENT
    assert errno_of(operations.open, '/memory/nothing', os.O_RDONLY) == errno.ENOENT
    assert errno_of(operations.unlink, '/memory/no/thing') == errno.ENOENT
    assert errno_of(operations.flush, None, 999) == errno.EBADF
    assert errno_of(operations.rename, '/memory/a', '/local/a') in {errno.EXDEV, errno.ENOENT}


def test_who_opens_a_name_that_another_content_is_open_by_gets_no_page_cache(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / 'f').write_bytes(b'old')
    old = tree.operations.open('/local/f', os.O_RDONLY)
    same = tree.operations.open('/local/f', os.O_RDONLY)
    assert not old.direct_io
    assert not same.direct_io
    (tmp_path / 'new').write_bytes(b'another')
    (tmp_path / 'new').rename(tmp_path / 'f')
    tree.clock.advance(3600)
    new = tree.operations.open('/local/f', os.O_RDONLY)
    assert new.direct_io
    assert tree.read_open(old.fh) == b'old'
    assert tree.read_open(new.fh) == b'another'
    for opening in (old, same, new):
        tree.operations.release(None, opening.fh)
    again = tree.operations.open('/local/f', os.O_RDONLY)
    assert not again.direct_io
    tree.operations.release(None, again.fh)


def test_a_listing_of_many_is_whole_from_any_offset(tree: Tree) -> None:
    names = [f'file-{number:05}' for number in range(2_000)]
    for name in names:
        tree.storage.node(f'memory:many/{name}').write_bytes(b'')
    fh = tree.operations.opendir('/memory/many')
    listed = list(tree.operations.readdir_with_offset(None, 0, fh))
    assert [name for name, _, _ in listed] == ['.', '..', *names]
    middle = listed[1_000][2]
    assert list(tree.operations.readdir_with_offset(None, middle, fh)) == listed[1_001:]
    tree.operations.releasedir(None, fh)


# libfuse's names for removed files


def test_only_who_asks_for_the_next_name_at_once_finds_it_free() -> None:
    names = RemovedNames()
    first, second = (f'/d/.fuse_hidden00000003{number:08x}' for number in (1, 2))
    assert not names.is_free(first)
    assert names.is_free(second)
    assert names.is_removal(second)
    assert not names.is_removal(second)


@pytest.mark.parametrize(
    'asked',
    [
        ['/d/.fuse_hidden0000000300000001'],
        ['/d/.fuse_hidden0000000300000001', '/d/.fuse_hidden0000000300000001'],
        ['/d/.fuse_hidden0000000300000002', '/d/.fuse_hidden0000000300000001'],
        ['/d/.fuse_hidden0000000300000001', '/d/other', '/d/.fuse_hidden0000000300000002'],
        ['/d/.fuse_hidden0000000300000001', '/d/.fuse_hidden0000000400000002'],
        ['/d/.fuse_hidden0000000300000001', '/e/.fuse_hidden0000000300000002'],
    ],
)
def test_a_program_that_uses_such_a_name_finds_it_taken(asked: list[str]) -> None:
    names = RemovedNames()
    answers = [names.is_free(path) for path in asked]
    assert not answers[-1]
    assert not names.is_removal(asked[-1])


def test_a_thread_does_not_get_what_another_asked_for() -> None:
    names = RemovedNames()
    thread = threading.Thread(target=names.is_free, args=['/d/.fuse_hidden0000000300000001'])
    thread.start()
    thread.join()
    assert not names.is_free('/d/.fuse_hidden0000000300000002')


def test_a_file_that_a_program_gives_such_a_name_is_refused_and_stays(tree: Tree) -> None:
    hidden = '/memory/.fuse_hidden0000000300000001'
    tree.write('/memory/f', b'content')
    fh = tree.operations.open('/memory/f', os.O_RDONLY).fh
    assert tree.operations.getattr(hidden)['st_mode'] == TAKEN.mode
    assert errno_of(tree.operations.rename, '/memory/f', hidden) == errno.EPERM
    assert tree.read('/memory/f') == b'content'
    tree.operations.release(None, fh)


def test_a_file_that_was_left_with_such_a_name_is_a_file_like_others(tree: Tree) -> None:
    hidden = '/memory/.fuse_hidden0000000300000001'
    tree.storage.node('memory:.fuse_hidden0000000300000001').write_bytes(b'left')
    assert tree.read(hidden) == b'left'
    tree.write('/memory/f', b'content')
    tree.operations.rename('/memory/f', hidden)
    assert tree.read(hidden) == b'content'
    tree.operations.unlink(hidden)
    assert tree.names('/memory') == []


# Requests


def test_a_signal_ends_the_wait_for_what_changes_nothing() -> None:
    sent: list[ops.Request] = []
    requests = Requests(lambda: (0, 0, 0), lambda: True)

    def dispatch(request: ops.Request) -> None:
        sent.append(request)
        if isinstance(request, ops.Interrupt):
            assert request.target == sent[0].unique
            requests.answer(sent[0], ops.Failure(errno.EINTR))

    requests.connect(dispatch)
    assert errno_of(requests.ask, ops.Lookup(*requests.head(1), 'f'), ops.EntryReply) == errno.EINTR
    assert len(sent) == 2


def test_an_answer_from_another_thread_ends_the_wait() -> None:
    requests = Requests(lambda: (0, 0, 0), lambda: False)

    def dispatch(request: ops.Request) -> None:
        threading.Timer(0.3, requests.answer, [request, ops.Written(5)]).start()

    requests.connect(dispatch)
    assert requests.ask(ops.Write(*requests.head(1), 1, 0, b'12345', 0, False), ops.Written).size_bytes == 5


# What libfuse is told


def test_the_options_of_a_mount_reach_a_libfuse_that_mounts_itself() -> None:
    options = library_options(parse_options('ro,allow_other,fsname=a,noexec'))
    assert options == {
        'fsname': 'a',
        'ro': True,
        'allow_other': True,
        'default_permissions': True,
        'noexec': True,
        'noatime': False,
        'nosuid': True,
        'nodev': True,
    }


def test_what_we_override_of_mfusepy_is_there() -> None:
    """Its names are no promise of its own: a version that calls them otherwise must not go unnoticed."""
    from fusefs.transports.libfuse import library

    own = {name for name in vars(library._Served) if not name.startswith('_')}
    in_c = {name for name, *_ in library.mfusepy.fuse_operations._fields_}
    assert own >= {'open', 'create', 'read', 'write', 'rename_fuse_3', 'truncate_fuse_3', 'utimens_fuse_3'}
    for name in own:
        assert hasattr(library.mfusepy.FUSE, name) or name in in_c, name


LOAD = """
from fusefs.transports.libfuse.transport import load
try: load()
except Exception as error: print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ('before', 'environment', 'expected'),
    [
        ('import sys; sys.modules["mfusepy"] = None\n', {}, "pip install 'genro-storage[mount]'"),
        ('', {'FUSE_LIBRARY_NAME': 'no-such-library'}, 'libfuse3-3'),
        ('', {'FUSE_LIBRARY_PATH': '/nothing/there.so'}, 'libfuse3-3'),
    ],
)
def test_what_is_missing_is_said_in_one_line_with_the_remedy(
    before: str, environment: dict[str, str], expected: str
) -> None:
    done = subprocess.run(
        [sys.executable, '-c', before + LOAD],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.startswith('MountError ')
    assert expected in done.stdout
    assert done.stdout.count('\n') == 1
