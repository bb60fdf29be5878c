"""Ctrl-C on whatever waits for a backend ends the program at once, and leaves nothing behind in the server.

A program prepares, says 'ready', and acts once the server behind the mount has begun to stall. What is shown of a
signal to a request alone, without a kernel, is at the end.
"""

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs import ops
from fusefs.filesystem import FileSystem
from fusefs.transports.inprocess import PendingCall
from genro_storage import StorageManager
from genro_storage.backend_volume import WORKERS, BackendVolume
from genro_storage.backends.base import Capabilities
from genro_storage.backends.memory import MemoryBackend
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.config import MemoryDefinition
from genro_storage.runtime import SystemClock
from genro_storage.testing.faulty import FaultyBackend
from tests.faults.fault_proxy import FaultProxy, Stall, fault_proxy
from tests.mount.inprocess_calls import Served, header, served
from tests.mount.mounted import Mounted, await_true, mounted, run, s3_definition
from tests.servers import S3Server

#: 'At once', on a machine that others use too. What stalls does so for longer, and what is believed is so for longer.
SOON_S = 2.0
TIMEOUT_S = 20.0
END_S = 10.0
TTL_S = 600
#: A connection or a thread more or less is chance, one for each program that was ended would be a leak.
SLACK = 4
MIB = 1 << 20

WRITTEN = "fd = os.open('new', os.O_WRONLY | os.O_CREAT); os.write(fd, b'x')"
#: What a program does before, so that names are known and only the action itself is left to wait; and in what it waits.
ACTIONS = {
    'stat': ('', "os.stat('never seen')"),
    'open': ('', "os.open('never opened', os.O_RDONLY)"),
    'create': ('', "os.open('never made', os.O_WRONLY | os.O_CREAT)"),
    'listdir': ('', "os.listdir('never listed')"),
    'read': ("fd = os.open('large', os.O_RDONLY)", 'os.pread(fd, 4096, 1 << 20)'),
    'write': ("fd = os.open('large', os.O_RDWR)", "os.pwrite(fd, b'x', 1 << 20); os.fsync(fd)"),
    'close': (WRITTEN, 'os.close(fd)'),
    'fsync': (WRITTEN, 'os.fsync(fd)'),
    'truncate': ("os.stat('large')", "os.truncate('large', 10)"),
    'rename': ("os.stat('file'); os.path.exists('renamed')", "os.rename('file', 'renamed')"),
    'rename of a directory': ("os.stat('full'); os.path.exists('renamed')", "os.rename('full', 'renamed')"),
    'unlink': ("os.stat('file')", "os.unlink('file')"),
    'mkdir': ("os.path.exists('new')", "os.mkdir('new')"),
    'rmdir': ("os.stat('empty')", "os.rmdir('empty')"),
    # Nothing that it calls waits, but its end does: the kernel closes what it has open.
    'sleep with a file that is written': (WRITTEN, "print('asleep', flush=True); time.sleep(60)"),
}
PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGINT, {handler})
signal.signal(signal.SIGUSR1, lambda *_: None)
{prepare}
print('ready', flush=True)
sys.stdin.readline()
try:
    {act}
    print('done', flush=True)
except KeyboardInterrupt:
    print('interrupted', flush=True)
    os._exit(7)
"""


class Place:
    """A directory of a mount whose server stalls when it is told to."""

    def __init__(self, tree: Mounted, proxy: FaultProxy, name: str) -> None:
        self.tree = tree
        self.proxy = proxy
        self.name = name
        self.path = tree.path('sick', name)

    def shows(self, name: str) -> bool:
        """Whether a name is there, as the kernel has it."""
        return run('test', '-e', self.path / name).returncode == 0

    @contextmanager
    def program(self, action: str, handler: str = 'signal.SIG_DFL') -> Iterator['subprocess.Popen[str]']:
        """A program that waits in an action, or is about to."""
        prepare, act = ACTIONS[action]
        code = PROGRAM.format(handler=handler, prepare=prepare, act=act)
        process = subprocess.Popen(
            [sys.executable, '-I', '-c', code], cwd=self.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == 'ready\n'
            reached = self.proxy.plan(Stall(), times=None, reads_only=False)
            process.stdin.write('\n')
            process.stdin.flush()
            if action.startswith('sleep'):
                assert process.stdout.readline() == 'asleep\n'
            else:
                assert reached.wait(END_S)
                await_true(lambda: state(process.pid) in 'SD', what='waiting')
            yield process
        finally:
            self.proxy.heal()
            process.kill()
            process.communicate(timeout=END_S)


@pytest.fixture(scope='module')
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.endpoint_url) as running:
        yield running


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, proxy: FaultProxy) -> Iterator[Mounted]:
    bucket = s3_server.new_bucket()
    definition = s3_definition(s3_server, bucket, name='sick', timeout=TIMEOUT_S, ttl=TTL_S, cache='off')
    with mounted(tmp_path_factory.mktemp('sick'), [definition | {'endpoint_url': proxy.url}]) as running:
        running.bucket = bucket
        yield running


_numbers = itertools.count(1)


@pytest.fixture
def place(tree: Mounted, proxy: FaultProxy, s3_server: S3Server) -> Place:
    return new_place(tree, proxy, s3_server)


def new_place(tree: Mounted, proxy: FaultProxy, server: S3Server) -> Place:
    name = f'place-{next(_numbers)}'
    for key, size in {
        'large': 2 * MIB,
        'file': 10,
        'full/f': 1,
        'full/g': 1,
        'empty/': 0,
        'never listed/f': 1,
    }.items():
        server.put(tree.bucket, f'{name}/{key}', bytes(size))
    return Place(tree, proxy, name)


@pytest.mark.parametrize('action', ACTIONS)
def test_a_program_that_waits_ends_at_once_by_ctrl_c(place: Place, action: str) -> None:
    with place.program(action) as process:
        assert_ends_soon(process, signal.SIGINT)
    assert place.tree.sh('ls > /dev/null; echo later > later; cat later', cwd=place.path) == 'later\n'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize('action', ['close', 'rename of a directory'])
def test_so_it_does_by_whatever_else_kills_it(place: Place, action: str, number: signal.Signals) -> None:
    with place.program(action) as process:
        assert_ends_soon(process, number)


def assert_ends_soon(process: 'subprocess.Popen[str]', number: signal.Signals) -> None:
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(END_S) == -number
    assert time.monotonic() - started < SOON_S


@pytest.mark.parametrize('action', ['stat', 'listdir', 'close', 'rename', 'mkdir'])
def test_a_program_that_handles_ctrl_c_comes_to_that_at_once(place: Place, action: str) -> None:
    with place.program(action, 'signal.default_int_handler') as process:
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=END_S)[0] == 'interrupted\n'
        assert time.monotonic() - started < SOON_S


def test_after_any_other_signal_a_program_learns_what_became_of_its_change(place: Place) -> None:
    with place.program('mkdir') as process:
        process.send_signal(signal.SIGUSR1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        place.proxy.heal()
        assert process.communicate(timeout=END_S)[0] == 'done\n'


@pytest.mark.parametrize(
    ('action', 'name'), [('mkdir', 'new'), ('rename', 'renamed'), ('rename of a directory', 'renamed')]
)
def test_what_went_on_without_its_program_is_seen_though_the_kernel_believed_otherwise(
    place: Place, action: str, name: str
) -> None:
    assert not place.shows(name)
    with place.program(action) as process:
        assert_ends_soon(process, signal.SIGINT)
    await_true(lambda: place.shows(name), what=f'the {action}')
    assert name in place.tree.run('ls', cwd=place.path).split()


def test_what_a_killed_program_has_written_is_committed_all_the_same(place: Place, s3_server: S3Server) -> None:
    with place.program('sleep with a file that is written') as process:
        assert_ends_soon(process, signal.SIGKILL)
    key = f'{place.name}/new'
    await_true(lambda: key in s3_server.keys(place.tree.bucket, key), what='committed')
    assert s3_server.request('get_object', Bucket=place.tree.bucket, Key=key)['Body'].read() == b'x'


def test_nothing_is_left_in_the_server(tree: Mounted, proxy: FaultProxy, s3_server: S3Server) -> None:
    def end_all() -> tuple[int, int]:
        for action in ACTIONS:
            place = new_place(tree, proxy, s3_server)
            with place.program(action) as process:
                assert_ends_soon(process, signal.SIGINT)
            tree.run('ls', cwd=place.path)
        return tuple(len(os.listdir(f'/proc/{tree.pid}/{what}')) for what in ('task', 'fd'))  # type: ignore[return-value]

    end_all()
    threads, descriptors = end_all()
    limits = threads + SLACK, descriptors + SLACK
    assert len(ACTIONS) > SLACK
    again = end_all()
    assert again[0] <= limits[0]
    assert again[1] <= limits[1]


# Without a kernel: programs are of flesh and blood, what waits is a request.


class Remote:
    """A mount that waits for a backend which stalls as it is told."""

    def __init__(self, served: Served, backend: FaultyBackend) -> None:
        self.served = served
        self.backend = backend
        self.nodeid = self.look(ops.ROOT_NODEID, 'remote')
        self.inodes = len(served.filesystem.inodes)

    def look(self, nodeid: int, name: str) -> int:
        return self.served.ask(ops.Lookup(*header(nodeid), name), ops.EntryReply).nodeid

    def interrupt(self, call: PendingCall) -> None:
        self.served.transport.call(ops.Interrupt(*header(1), call.request.unique))

    def drain(self) -> None:
        assert self.served.dispatcher.drain(END_S)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with StorageManager() as storage:
        clock = SystemClock()
        backend = FaultyBackend(MemoryBackend(clock), Capabilities(strong_versions=True, conditional_put=True))
        definition = MemoryDefinition(name='remote')
        storage.configure([{'name': 'remote', 'type': 'memory'}])
        storage._volumes['remote'] = BackendVolume(definition, backend, MemoryBlockCache(1 << 20), tmp_path, clock)
        with served(FileSystem(storage)) as running:
            yield Remote(running, backend)


@contextmanager
def interrupted_program() -> Iterator[int]:
    """The id of a process for which a SIGINT waits that it handles."""
    code = 'import signal, time; signal.signal(signal.SIGINT, print); print(flush=True); time.sleep(60)'
    process = subprocess.Popen([sys.executable, '-I', '-c', code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        await_true(lambda: state(process.pid) == 'T', what='stopped')
        process.send_signal(signal.SIGINT)
        yield process.pid
    finally:
        process.kill()
        process.communicate(timeout=END_S)


@contextmanager
def ended_program(*, killed: bool) -> Iterator[int]:
    """The id of a process that has ended, and of which nobody has been told."""
    process = subprocess.Popen(['sleep', '60' if killed else '0'])
    if killed:
        process.kill()
    try:
        await_true(lambda: state(process.pid) == 'Z', what='ended')
        yield process.pid
    finally:
        process.wait(END_S)


def state(pid: int) -> str:
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]


def of(pid: int, nodeid: int) -> tuple[int, int, int, int, int]:
    return (*header(nodeid)[:4], pid)


def test_a_change_whose_program_has_gone_is_made_and_told_to_the_kernel(remote: Remote) -> None:
    stall = remote.backend.stall('make_directory')
    with interrupted_program() as pid:
        call = remote.served.transport.start(ops.Mkdir(*of(pid, remote.nodeid), 'd', 0o700, 0))
        stall.wait_until_reached()
        remote.interrupt(call)
        assert call.result() == ops.Failure(errno.EINTR)
    assert remote.served.transport.entry_notifications == []
    stall.release()
    remote.drain()
    await_true(lambda: remote.served.transport.entry_notifications == [(remote.nodeid, 'd')], what='told')
    assert len(remote.served.filesystem.inodes) == remote.inodes
    assert remote.backend.inner.stat('d').is_directory


def test_a_change_whose_program_has_gone_before_it_began_is_not_made(remote: Remote) -> None:
    stalls = [remote.backend.stall('stat', nth=number + 1) for number in range(WORKERS)]
    calls = [
        remote.served.transport.start(ops.Lookup(*header(remote.nodeid), str(number))) for number in range(WORKERS)
    ]
    for stall in stalls:
        stall.wait_until_reached()
    with interrupted_program() as pid:
        call = remote.served.transport.start(ops.Mkdir(*of(pid, remote.nodeid), 'd', 0o700, 0))
        remote.interrupt(call)
        assert call.result() == ops.Failure(errno.EINTR)
    for stall in stalls:
        stall.release()
    for other in calls:
        assert isinstance(other.result(), ops.EntryReply)
    remote.drain()
    assert remote.look(remote.nodeid, 'd') == 0


@pytest.mark.parametrize('killed', [True, False])
def test_the_last_close_of_a_program_is_answered_at_once_only_if_it_was_killed(remote: Remote, killed: bool) -> None:
    created = remote.served.ask(
        ops.Create(*header(remote.nodeid), 'f', os.O_RDWR | os.O_CREAT, 0o100600, 0), ops.Created
    )
    nodeid, fh = created.entry.nodeid, created.opened.fh
    remote.served.ask(ops.Write(*header(nodeid), fh, 0, b'content', 0, False), ops.Written)
    stall = remote.backend.stall('put')
    with ended_program(killed=killed) as pid:
        call = remote.served.transport.start(ops.Flush(*of(pid, nodeid), fh, 0))
        stall.wait_until_reached()
        if killed:
            assert call.result() is None
        else:
            with pytest.raises(TimeoutError):
                call.result(0.1)
    stall.release()
    remote.served.tell(ops.Release(*header(nodeid), fh, False))
    remote.drain()
    assert remote.backend.inner.stat('f').size_bytes == len(b'content')
    assert remote.served.filesystem.handles.all() == []
