"""The dispatcher: threads, interrupts, the one error boundary, and the end."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs import ops
from fusefs.dispatch import Dispatcher
from fusefs.filesystem import FileSystem
from fusefs.transports.inprocess import InProcessTransport
from genro_storage import StorageManager
from genro_storage.backend_volume import WORKERS, BackendVolume
from genro_storage.backends.base import Capabilities
from genro_storage.backends.memory import MemoryBackend
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.config import MemoryDefinition
from genro_storage.errors import StorageIOError, StorageTimeoutError, StorageUnavailableError
from genro_storage.runtime import SystemClock, about_to_block
from genro_storage.testing.faulty import FaultyBackend
from genro_storage.testing.sources import BytesSource as Bytes

TIMEOUT_S = 10
REMOTE = Capabilities(strong_versions=True, conditional_put=True)


def header(nodeid: int) -> tuple[int, int, int, int, int]:
    return 0, nodeid, os.geteuid(), os.getegid(), os.getpid()


class Fixture:
    """A mount 'remote' that waits for its backend, which fails and stalls as it is told, and a mount 'memory'."""

    def __init__(self, storage: StorageManager, folder: Path, *, may_leave: bool) -> None:
        clock = SystemClock()
        self.backend = FaultyBackend(MemoryBackend(clock), REMOTE)
        definition = MemoryDefinition(name='remote')
        storage._volumes['remote'] = BackendVolume(definition, self.backend, MemoryBlockCache(64 << 20), folder, clock)
        self.filesystem = FileSystem(storage)
        self.transport = InProcessTransport(may_leave=may_leave)
        self.dispatcher = Dispatcher(self.filesystem, self.transport)

    def lookup(self, *names: str) -> int:
        nodeid = ops.ROOT_NODEID
        for name in names:
            reply = self.transport.call(ops.Lookup(*header(nodeid), name))
            assert isinstance(reply, ops.EntryReply), reply
            nodeid = reply.nodeid
        return nodeid

    def create(self, parent: int, name: str) -> tuple[int, int]:
        reply = self.transport.call(ops.Create(*header(parent), name, os.O_RDWR | os.O_CREAT, 0o100600, 0))
        assert isinstance(reply, ops.Created), reply
        return reply.entry.nodeid, reply.opened.fh

    def failure(self, request: ops.Request) -> int:
        reply = self.transport.call(request)
        assert isinstance(reply, ops.Failure), reply
        return reply.errno

    def inode_lookups(self, nodeid: int) -> int:
        return self.filesystem.inodes.get(nodeid).lookups


@pytest.fixture(params=[True, False], ids=['waits-here', 'waits-elsewhere'])
def fixture(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fixture]:
    with StorageManager() as storage:
        storage.configure([{'name': 'memory', 'type': 'memory'}])
        fixture = Fixture(storage, tmp_path, may_leave=request.param)
        with serving(fixture):
            yield fixture
        fixture.filesystem.close()


@contextmanager
def serving(fixture: Fixture) -> Iterator[None]:
    ready = threading.Event()
    thread = threading.Thread(target=fixture.transport.serve, args=(fixture.dispatcher, ready.set))
    thread.start()
    assert ready.wait(TIMEOUT_S)
    try:
        yield
    finally:
        fixture.transport.close()
        thread.join(TIMEOUT_S)
        assert fixture.dispatcher.drain(TIMEOUT_S)


def replaced(fixture: Fixture, kind: type[ops.Request], operation: Callable[[ops.Request], ops.Reply]) -> None:
    fixture.filesystem.operations[kind] = operation


def test_a_bug_is_eio_and_one_traceback_and_the_next_request_is_served(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: ops.Request) -> ops.Reply:
        raise ZeroDivisionError('a bug')

    before = fixture.filesystem.operations[ops.Getattr]
    replaced(fixture, ops.Getattr, broken)
    with caplog.at_level(logging.INFO):
        assert fixture.failure(ops.Getattr(*header(1), None)) == errno.EIO
    assert [record.exc_info is not None for record in caplog.records] == [True]
    replaced(fixture, ops.Getattr, before)
    assert isinstance(fixture.transport.call(ops.Getattr(*header(1), None)), ops.AttributesReply)


def test_a_bug_on_a_worker_is_eio_too(fixture: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    remote = fixture.lookup('remote')
    fixture.backend.fail('stat', ZeroDivisionError('a bug'))
    assert fixture.failure(ops.Lookup(*header(remote), 'f')) == errno.EIO
    assert 'nobody foresaw' in caplog.text
    assert fixture.lookup('remote', 'f') == 0


def test_an_operation_that_is_not_known_is_eio_and_not_the_end(fixture: Fixture) -> None:
    class Unheard(ops.Request):
        """A request of a later kernel."""

    assert fixture.failure(Unheard(*header(1))) == errno.EIO
    assert fixture.lookup('memory')


def test_what_one_tree_does_not_have_is_not_refused_in_a_way_that_the_kernel_takes_for_all(fixture: Fixture) -> None:
    def absent(request: ops.Request) -> ops.Reply:
        raise NotImplementedError

    replaced(fixture, ops.Lseek, absent)
    assert fixture.failure(ops.Lseek(*header(1), 1, 0, os.SEEK_DATA)) == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    ('error', 'number'),
    [
        (StorageTimeoutError('slow'), errno.ETIMEDOUT),
        (StorageUnavailableError('down'), errno.EIO),
        (PermissionError(errno.EACCES, 'no'), errno.EACCES),
    ],
)
def test_what_a_backend_raises_becomes_its_errno(fixture: Fixture, error: Exception, number: int) -> None:
    remote = fixture.lookup('remote')
    fixture.backend.fail('stat', error)
    assert fixture.failure(ops.Lookup(*header(remote), 'f')) == number


def test_what_becomes_of_data_that_cannot_be_committed_is_in_the_log(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    nodeid, fh = fixture.create(fixture.lookup('remote'), 'f')
    fixture.transport.call(ops.Write(*header(nodeid), fh, 0, b'mine', 0, False))
    fixture.backend.inner.put('f', Bytes(b'theirs'))
    assert fixture.failure(ops.Flush(*header(nodeid), fh, 0)) == errno.ESTALE
    assert 'f.conflict-' in caplog.text
    fixture.transport.call(ops.Release(*header(nodeid), fh, False))


def test_an_unknown_nodeid_is_estale(fixture: Fixture) -> None:
    assert fixture.failure(ops.Getattr(*header(4711), None)) == errno.ESTALE


def test_others_are_served_while_more_requests_wait_than_there_are_threads_that_serve(fixture: Fixture) -> None:
    remote = fixture.lookup('remote')
    stall = fixture.backend.stall('stat')
    calls = [fixture.transport.start(ops.Lookup(*header(remote), f'f{number}')) for number in range(5)]
    stall.wait_until_reached()
    for _ in range(20):
        assert fixture.lookup('memory')
    assert isinstance(fixture.transport.call(ops.Getattr(*header(remote), None)), ops.AttributesReply)
    stall.release()
    for call in calls:
        reply = call.result()
        assert isinstance(reply, ops.EntryReply)
        assert reply.nodeid == 0


def blocked(waiting: threading.Barrier, seen: list[str]) -> Callable[[ops.Request], ops.Reply]:
    """An operation that waits until so many others do."""

    def run(_: ops.Request) -> ops.Reply:
        about_to_block()
        seen.append(threading.current_thread().name)
        waiting.wait(TIMEOUT_S)

    return run


@pytest.mark.parametrize('fixture', [True], indirect=True)
def test_what_waits_does_so_on_the_thread_that_took_it_and_these_are_used_again(fixture: Fixture) -> None:
    nodeid = fixture.lookup('remote')
    for _ in range(3):
        seen: list[str] = []
        replaced(fixture, ops.Statfs, blocked(threading.Barrier(5), seen))
        for call in [fixture.transport.start(ops.Statfs(*header(nodeid))) for _ in range(5)]:
            assert call.result() is None
        assert {name.partition('-')[0] for name in seen} == {'inprocess'}
        assert len(set(seen)) == 5
    threads = [thread for thread in threading.enumerate() if thread.name.startswith('inprocess')]
    assert len(threads) == 6  # the five, and one that reads meanwhile


def test_no_more_requests_of_a_mount_wait_at_once_than_it_has_workers(fixture: Fixture) -> None:
    nodeid = fixture.lookup('remote')
    at_once, most = [0], [0]
    lock = threading.Lock()

    def run(_: ops.Request) -> ops.Reply:
        about_to_block()
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.002)
        with lock:
            at_once[0] -= 1
        return None

    replaced(fixture, ops.Statfs, run)
    for call in [fixture.transport.start(ops.Statfs(*header(nodeid))) for _ in range(200)]:
        assert call.result() is None
    assert 2 < most[0] <= WORKERS


def test_others_may_take_requests_while_the_disk_is_asked_and_not_while_memory_is(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodeid = fixture.lookup('memory')
    shared: list[bool] = []
    monkeypatch.setattr(fixture.transport, 'share', lambda: shared.append(True))
    fixture.transport.call(ops.Getattr(*header(nodeid), None))
    assert shared == []
    fixture.transport.call(ops.Mkdir(*header(nodeid), 'd', 0o700, 0))
    assert shared == [True]
    monkeypatch.setattr(fixture.filesystem.tree_of(nodeid), 'writes_in_place', True)
    fixture.transport.call(ops.Getattr(*header(nodeid), None))
    assert shared == [True, True]


@pytest.mark.parametrize('fixture', [True], indirect=True)
def test_without_another_thread_to_serve_what_waits_goes_to_a_worker(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodeid = fixture.lookup('remote')
    seen: list[str] = []
    replaced(fixture, ops.Statfs, blocked(threading.Barrier(1), seen))
    monkeypatch.setattr(fixture.transport, 'leave', lambda: False)
    assert fixture.transport.call(ops.Statfs(*header(nodeid))) is None
    assert [name.partition('-')[0] for name in seen] == ['remote']


@pytest.mark.parametrize('fixture', [False], indirect=True)
def test_a_write_that_waits_keeps_its_bytes_though_the_buffer_is_used_again(fixture: Fixture) -> None:
    nodeid, fh = fixture.create(fixture.lookup('remote'), 'f')
    seen: list[bytes] = []
    go = threading.Event()

    def write(request: ops.Request) -> ops.Reply:
        assert isinstance(request, ops.Write)
        about_to_block()
        assert go.wait(TIMEOUT_S)
        seen.append(bytes(request.data))
        return ops.Written(len(request.data))

    replaced(fixture, ops.Write, write)
    buffer = bytearray(b'first')
    call = fixture.transport.start(ops.Write(*header(nodeid), fh, 0, memoryview(buffer), 0, False))
    assert isinstance(fixture.transport.call(ops.Getattr(*header(1), None)), ops.AttributesReply)
    assert isinstance(fixture.transport.call(ops.Getattr(*header(1), None)), ops.AttributesReply)
    buffer[:] = b'other'
    go.set()
    assert call.result() == ops.Written(5)
    assert seen == [b'first']


def test_an_interrupt_ends_a_wait_at_once_and_the_late_result_is_taken_back(fixture: Fixture) -> None:
    nodeid, fh = fixture.create(fixture.lookup('remote'), 'f')
    fixture.transport.call(ops.Flush(*header(nodeid), fh, 0))
    fixture.transport.call(ops.Release(*header(nodeid), fh, False))
    before = fixture.inode_lookups(nodeid)
    fixture.filesystem.tree_of(nodeid)._volume._entries.forget('')  # type: ignore[attr-defined]
    stall = fixture.backend.stall('stat')
    call = fixture.transport.start(ops.Lookup(*header(fixture.lookup('remote')), 'f'))
    stall.wait_until_reached()
    fixture.transport.call(ops.Interrupt(*header(1), call.request.unique))
    assert call.result(TIMEOUT_S) == ops.Failure(errno.EINTR)
    stall.release()
    assert fixture.dispatcher.drain(TIMEOUT_S)
    assert fixture.inode_lookups(nodeid) == before


def test_an_open_that_was_interrupted_leaves_nothing_open(fixture: Fixture) -> None:
    nodeid, fh = fixture.create(fixture.lookup('remote'), 'f')
    fixture.transport.call(ops.Flush(*header(nodeid), fh, 0))
    fixture.transport.call(ops.Release(*header(nodeid), fh, False))
    fixture.filesystem.tree_of(nodeid)._volume._entries.forget('')  # type: ignore[attr-defined]
    stall = fixture.backend.stall('stat')
    call = fixture.transport.start(ops.Open(*header(nodeid), os.O_RDONLY))
    stall.wait_until_reached()
    fixture.transport.call(ops.Interrupt(*header(1), call.request.unique))
    assert call.result(TIMEOUT_S) == ops.Failure(errno.EINTR)
    stall.release()
    assert fixture.dispatcher.drain(TIMEOUT_S)
    assert fixture.filesystem.handles.all() == []


def test_an_interrupt_that_overtakes_its_request_counts(fixture: Fixture) -> None:
    remote = fixture.lookup('remote')
    fixture.transport.call(ops.Interrupt(*header(1), 9_999))
    stall = fixture.backend.stall('stat')
    assert fixture.transport.start(ops.Lookup(9_999, *header(remote)[1:], 'f')).result() == ops.Failure(errno.EINTR)
    stall.release()


def test_what_changes_something_is_not_interrupted(fixture: Fixture) -> None:
    remote = fixture.lookup('remote')
    stall = fixture.backend.stall('make_directory')
    call = fixture.transport.start(ops.Mkdir(*header(remote), 'd', 0o700, 0))
    stall.wait_until_reached()
    fixture.transport.call(ops.Interrupt(*header(1), call.request.unique))
    assert fixture.lookup('memory')
    stall.release()
    assert isinstance(call.result(), ops.EntryReply)


def test_an_interrupt_for_nobody_is_no_error(fixture: Fixture) -> None:
    fixture.transport.call(ops.Interrupt(*header(1), 123_456))
    assert fixture.lookup('memory')


@pytest.mark.parametrize('kind', [ops.CopyFileRange, ops.Fallocate])
def test_the_pages_of_what_changed_when_nobody_waited_any_more_are_dropped(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch, kind: type[ops.Request]
) -> None:
    monkeypatch.setattr('fusefs.dispatch._is_ending', lambda pid: True)
    remote = fixture.lookup('remote')
    begun, go = threading.Event(), threading.Event()

    def change(request: ops.Request) -> ops.Reply:
        begun.set()
        assert go.wait(TIMEOUT_S)
        return None

    replaced(fixture, kind, change)
    request = kind(*header(remote), 1, 0, *((4711, 2, 0, 10, 0) if kind is ops.CopyFileRange else (10, 3)))
    call = fixture.transport.start(request)
    assert begun.wait(TIMEOUT_S)
    fixture.transport.call(ops.Interrupt(*header(1), call.request.unique))
    assert call.result(TIMEOUT_S) == ops.Failure(errno.EINTR)
    go.set()
    expected = (4711 if kind is ops.CopyFileRange else remote, 0, 0)
    deadline = time.monotonic() + TIMEOUT_S
    while expected not in fixture.transport.inode_notifications:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_reply_that_nobody_takes_is_taken_back(fixture: Fixture) -> None:
    remote = fixture.lookup('remote')
    before = len(fixture.filesystem.inodes)
    stall = fixture.backend.stall('stat')
    call = fixture.transport.start(ops.Create(*header(remote), 'f', os.O_RDWR | os.O_CREAT, 0o100600, 0))
    stall.wait_until_reached()
    call.abandon()
    stall.release()
    assert fixture.dispatcher.drain(TIMEOUT_S)
    assert len(fixture.filesystem.inodes) == before
    assert fixture.filesystem.handles.all() == []


def test_a_failure_while_taking_back_ends_no_worker(fixture: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    remote = fixture.lookup('remote')
    for number in range(40):  # more than there are workers
        fixture.backend.fail('put', StorageIOError('down'))
        stall = fixture.backend.stall('stat')
        request = ops.Create(*header(remote), f'{number}', os.O_RDWR | os.O_CREAT, 0o100600, 0)
        call = fixture.transport.start(request)
        stall.wait_until_reached()
        call.abandon()
        stall.release()
        assert fixture.dispatcher.drain(TIMEOUT_S)
        fixture.backend.heal()
    assert fixture.filesystem.handles.all() == []
    assert fixture.lookup('remote', 'nothing') == 0
    assert 'down' in caplog.text


def test_drain_waits_for_what_is_under_way_and_says_if_it_took_too_long(fixture: Fixture) -> None:
    remote = fixture.lookup('remote')
    stall = fixture.backend.stall('make_directory')
    call = fixture.transport.start(ops.Mkdir(*header(remote), 'd', 0o700, 0))
    stall.wait_until_reached()
    assert not fixture.dispatcher.drain(0.05)
    stall.release()
    assert fixture.dispatcher.drain(TIMEOUT_S)
    assert isinstance(call.result(), ops.EntryReply)


def test_a_full_queue_is_an_error_and_not_a_wait(fixture: Fixture) -> None:
    remote = fixture.lookup('remote')
    pool = fixture.filesystem.tree_of(remote).workers
    assert pool is not None
    pool.close(0.0)
    assert fixture.failure(ops.Lookup(*header(remote), 'f')) == errno.EIO
    assert fixture.dispatcher.drain(0.0)
    assert fixture.lookup('memory')
