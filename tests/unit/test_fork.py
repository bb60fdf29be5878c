"""Forked children: what they inherit can be used, whatever the parent's threads were doing at that moment."""

import multiprocessing
import os
import pickle
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager, StorageNode
from genro_storage.cache.blocks import BLOCK_BYTES
from genro_storage.runtime import WorkerPool
from tests.servers import S3Server
from tests.unit.volumes import WAIT_S, Remote

# Python 3.12 and later warn of every fork beside threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings('ignore:.*multi-threaded.*:DeprecationWarning')

CHILD_TIMEOUT_S = 20.0
DATA = bytes(range(256)) * 8192


def in_a_fork(function: Callable[[], Any]) -> Any:
    """What a function returns in a forked child. Raises what it raises there, TimeoutError if it is stuck."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            outcome: Any = (True, function())
        except BaseException as error:  # noqa: BLE001 - raised again in the parent
            outcome = (False, f'{type(error).__name__}: {error}')
        os.write(writing, pickle.dumps(outcome))
        os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], CHILD_TIMEOUT_S)
        if not ready:
            raise TimeoutError('the forked child is stuck')
        succeeded, outcome = pickle.loads(os.read(reading, 1 << 16))
        if not succeeded:
            raise AssertionError(f'in the child: {outcome}')
        return outcome
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def readers_of(*nodes: StorageNode) -> Iterator[None]:
    """Threads that read all the time."""
    stop = threading.Event()

    def work(node: StorageNode) -> None:
        while not stop.is_set():
            assert node.read_bytes() == DATA
            assert node.exists
            node.parent.children()

    threads = [threading.Thread(target=work, args=(node,)) for node in nodes for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)


def use(node: StorageNode) -> tuple[bool, list[str], bytes]:
    """What a child does with a node that it inherited."""
    same = node.read_bytes() == DATA
    child = node.parent / 'by-child'
    child.write_bytes(b'child')
    with child.open('ab') as file:
        file.write(b'!')
    copied = child.copy(node.parent / 'copied')
    content = copied.read_bytes()
    copied.delete()
    return same, [child.basename for child in node.parent.children()], content


@pytest.fixture
def storage(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageManager]:
    (tmp_path / 'files').mkdir()
    monkeypatch.setenv('S3_KEY', s3_server.key)
    monkeypatch.setenv('S3_SECRET', s3_server.secret)
    storage = StorageManager()
    s3 = {
        'name': 's3',
        'type': 's3',
        'bucket': s3_server.new_bucket(),
        'endpoint_url': s3_server.endpoint_url,
        'key': '${S3_KEY}',
        'secret': '${S3_SECRET}',
        'ttl': 0,  # what children do is to be seen at once
    }
    local = {'name': 'local', 'type': 'local', 'path': str(tmp_path / 'files')}
    storage.configure(
        {'mounts': [s3, local, {'name': 'memory', 'type': 'memory'}], 'cache': {'path': str(tmp_path / 'cache')}}
    )
    yield storage
    storage.close()


@pytest.mark.parametrize('kind', ['local', 'memory', 's3'])
def test_a_child_uses_an_inherited_manager_while_threads_of_the_parent_read(storage: StorageManager, kind: str) -> None:
    node = storage.node(kind, 'd', 'f')
    node.write_bytes(DATA)
    with readers_of(node):
        for _ in range(5):
            assert in_a_fork(lambda: use(node)) == (True, ['by-child', 'f'], b'child!')
    assert node.read_bytes() == DATA
    if kind == 'memory':
        assert [child.basename for child in node.parent.children()] == ['f']
    else:
        assert (node.parent / 'by-child').read_bytes() == b'child!'


@pytest.mark.parametrize('kind', ['local', 'memory', 's3'])
def test_a_child_of_multiprocessing_does_too(storage: StorageManager, kind: str) -> None:
    node = storage.node(kind, 'd', 'f')
    node.write_bytes(DATA)
    with multiprocessing.get_context('fork').Pool(2) as pool:
        assert pool.map_async(StorageNode.read_bytes, [node, node]).get(CHILD_TIMEOUT_S) == [DATA, DATA]
        pool.close()
        pool.join()


def test_an_open_file_is_read_on_in_a_child(storage: StorageManager) -> None:
    node = storage.node('s3', 'f')
    node.write_bytes(DATA * 4)
    with node.open('rb') as file:
        file.read(10)
        assert in_a_fork(lambda: file.read() == (DATA * 4)[10:]) is True
        assert file.read(10) == DATA[10:20]


def test_a_file_that_is_open_to_write_is_published_by_who_closes_it(storage: StorageManager) -> None:
    nodes = [storage.node(kind, 'f') for kind in ('local', 's3')]
    files = [node.open('wb') for node in nodes]
    for file in files:
        file.write(b'parent')
        file.flush()
    assert in_a_fork(lambda: [node.exists for node in nodes]) == [False, False]
    for file in files:
        file.close()
    assert [node.read_bytes() for node in nodes] == [b'parent', b'parent']


def test_locks_that_threads_of_the_parent_hold_do_not_stop_a_child(tmp_path: Path) -> None:
    remote = Remote(tmp_path)
    remote.put('d/f', DATA)
    volume = remote.volume
    volume.list_directory('d')
    reader = volume.open_read('d/f')
    shared = volume.open_write('d/g', create=True)
    locks: list[Any] = [
        volume.workers._lock,
        volume._fetchers._lock,
        volume._fetcher._lock,
        volume._entries._lock,
        volume._files._lock,
        remote.cache._lock,
    ]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.acquire()
        held.set()
        done.wait(WAIT_S)
        for lock in locks:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(WAIT_S)

    def child() -> tuple[bool, list[str]]:
        volume.after_fork()
        inherited = bytes(reader.read(0, len(DATA))) == DATA
        writer = volume.open_write('d/new', create=True)
        writer.close()
        return inherited, sorted(entry.name for entry in volume.list_directory('d')[0])

    try:
        assert in_a_fork(child) == (True, ['f', 'new'])
    finally:
        done.set()
        holder.join(WAIT_S)
    shared.close()
    assert remote.names('d') == ['f', 'g']
    assert volume.close(WAIT_S)


def test_blocks_in_flight_in_the_parent_are_fetched_anew(tmp_path: Path) -> None:
    remote = Remote(tmp_path)
    remote.put('f', bytes(4 * BLOCK_BYTES))
    reader = remote.volume.open_read('f')
    stall = remote.backend.stall('read_range')
    thread = threading.Thread(target=lambda: reader.read(0, 10))
    thread.start()
    stall.wait_until_reached()

    def child() -> int:
        remote.volume.after_fork()
        return len(remote.volume.open_read('f').read(0, 10))

    assert in_a_fork(child) == 10
    stall.release()
    thread.join(WAIT_S)
    assert remote.volume.close(WAIT_S)


def test_a_pool_of_the_parent_works_in_a_child() -> None:
    pool = WorkerPool('parent', 2)
    assert pool.submit(lambda: 1).result(WAIT_S) == 1

    def child() -> int:
        pool.after_fork()
        return pool.submit(lambda: 2).result(WAIT_S)

    assert in_a_fork(child) == 2
    assert pool.submit(lambda: 3).result(WAIT_S) == 3
    assert pool.close(WAIT_S)


def test_a_manager_made_in_a_child_is_none_of_the_parent(storage: StorageManager) -> None:
    def child() -> list[str]:
        own = StorageManager()
        own.configure([{'name': 'own', 'type': 'memory'}])
        own.node('own:f').write_bytes(b'1')
        own.close()
        return storage.get_mount_names()

    assert in_a_fork(child) == ['s3', 'local', 'memory']
