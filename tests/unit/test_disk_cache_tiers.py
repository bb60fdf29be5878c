"""Memory over disk: who is asked first, what is promoted, and that nobody waits for the disk."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genro_storage.cache import tiered
from genro_storage.cache.blocks import BLOCK_BYTES, Block, BlockKey
from genro_storage.cache.disk import DiskBlockCache
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.cache.tiered import LULL_S, TieredBlockCache
from genro_storage.runtime import serve_without_blocking
from tests.unit.volumes import Thread


class StallingDisk(DiskBlockCache):
    """A disk cache whose writes wait for a sign."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        super().__init__(root, limit_bytes)
        self.go_on = threading.Event()
        self.puts = 0
        self.through_pages: list[bool] = []

    def put(self, key: BlockKey, data: Block, *, through_pages: bool = False) -> None:
        self.puts += 1
        self.through_pages.append(through_pages)
        assert self.go_on.wait(30)
        super().put(key, data, through_pages=through_pages)


class BrokenDisk(DiskBlockCache):
    """A disk cache whose first write meets a mistake of ours."""

    def put(self, key: BlockKey, data: Block, *, through_pages: bool = False) -> None:
        if key.number == 0:
            raise ZeroDivisionError
        super().put(key, data, through_pages=through_pages)


def key(number: int) -> BlockKey:
    return BlockKey('destination', 'path', 'version', number)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[StallingDisk]:
    disk = StallingDisk(tmp_path / 'blocks', 1 << 30)
    yield disk
    disk.go_on.set()
    disk.close()


def test_a_block_is_in_memory_at_once_and_on_disk_after_a_flush(disk: StallingDisk) -> None:
    memory = MemoryBlockCache(1000)
    cache = TieredBlockCache(memory, disk)
    cache.put(key(0), b'block')
    assert cache.get(key(0)) == memory.get(key(0)) == b'block'
    assert disk.get(key(0)) is None
    assert not cache.flush(0)
    disk.go_on.set()
    assert cache.flush(30)
    assert disk.get(key(0)) == b'block'
    assert cache.close(30)


def test_a_hit_on_disk_goes_to_memory(disk: StallingDisk) -> None:
    disk.go_on.set()
    disk.put(key(0), b'block')
    memory = MemoryBlockCache(1000)
    cache = TieredBlockCache(memory, disk)
    assert cache.get(key(0)) == memory.get(key(0)) == b'block'
    assert cache.get(key(1)) is None


def test_a_block_that_waits_for_the_disk_is_found_though_memory_has_no_room(disk: StallingDisk) -> None:
    cache = TieredBlockCache(MemoryBlockCache(0), disk)
    cache.put(key(0), b'block')
    assert cache.get(key(0)) == b'block'
    disk.go_on.set()
    assert cache.flush(30)
    assert cache.get(key(0)) == b'block'
    assert cache.close(30)


def test_a_disk_that_stalls_loses_blocks_and_stops_nobody(disk: StallingDisk) -> None:
    cache = TieredBlockCache(MemoryBlockCache(1000), disk, limit_waiting_bytes=4 * len(b'block'))
    for number in range(50):
        cache.put(key(number), b'block')
        cache.put(key(number), b'block')
    assert all(cache.get(key(number)) for number in range(50))
    disk.go_on.set()
    assert cache.flush(30)
    assert disk.puts == 4
    cache.put(key(50), b'block')
    assert cache.close(30)
    assert disk.get(key(50)) == b'block'


def test_whoever_fetches_ahead_waits_for_a_disk_that_is_behind(disk: StallingDisk) -> None:
    cache = TieredBlockCache(MemoryBlockCache(1000), disk, pace_bytes=len(b'block'))
    cache.put(key(0), b'block')
    cache.pace()
    cache.put(key(1), b'block')
    waiting = Thread(cache.pace)
    waiting.join(0.05)
    assert waiting.is_alive()
    disk.go_on.set()
    waiting.result()
    assert cache.close(30)


def test_but_not_for_one_that_takes_nothing_until_it_does(disk: StallingDisk) -> None:
    cache = TieredBlockCache(MemoryBlockCache(1000), disk, pace_bytes=0, patience_s=0.2)
    cache.put(key(0), b'block')
    start = time.monotonic()
    for _ in range(50):
        cache.pace()
    assert 0.2 <= time.monotonic() - start < 5
    disk.go_on.set()
    assert cache.flush(30)
    assert not cache._stuck
    assert cache.close(30)


def test_of_blocks_in_a_row_those_are_absent_that_no_tier_has(disk: StallingDisk) -> None:
    disk.go_on.set()
    disk.put(key(1), b'block')
    disk.go_on.clear()
    memory = MemoryBlockCache(0)
    cache = TieredBlockCache(memory, disk)
    cache.put(key(3), b'block')  # waits for the disk
    assert cache.absent(key(0), 5) == [0, 2, 4]
    memory.limit_bytes = 1000
    memory.put(key(2), b'block')
    assert cache.absent(key(0), 5) == [0, 4]
    disk.go_on.set()
    assert cache.close(30)


def test_what_a_reader_in_sequence_has_behind_it_leaves_the_memory_for_the_disk(disk: StallingDisk) -> None:
    disk.go_on.set()
    memory = MemoryBlockCache(1 << 30)
    cache = TieredBlockCache(memory, disk)
    data = b''.join(bytes([number]) * BLOCK_BYTES for number in range(4))
    cache.put(key(0), data)
    assert cache.flush(30)
    for number in range(3):
        cache.passed(key(number))
        assert memory.size_bytes == len(data)
    cache.passed(key(3))
    assert memory.size_bytes == 0
    assert cache.get(key(2)) == bytes([2]) * BLOCK_BYTES
    assert cache.close(30)


def test_but_not_what_the_disk_did_not_get(disk: StallingDisk) -> None:
    memory = MemoryBlockCache(1000)
    cache = TieredBlockCache(memory, disk, limit_waiting_bytes=len(b'block'))
    cache.put(key(0), b'block')
    cache.put(key(1), b'other')
    for number in range(2):
        cache.passed(key(number))
    assert memory.get(key(0)) is None  # it waits for the disk, and is found there
    assert memory.get(key(1)) == b'other'
    assert [cache.get(key(number)) for number in range(2)] == [b'block', b'other']


def test_a_whole_file_is_checked_behind_what_waits_for_the_disk(disk: StallingDisk) -> None:
    cache = TieredBlockCache(MemoryBlockCache(1 << 20), disk)
    cache.put(key(0), bytes(BLOCK_BYTES))
    cache.check_file('destination', 'path', 'version', BLOCK_BYTES)
    assert cache.complete_file('destination', 'path', 'version', BLOCK_BYTES) is None
    disk.go_on.set()
    assert cache.flush(30)
    assert cache._checker.close(30)
    descriptor = cache.complete_file('destination', 'path', 'version', BLOCK_BYTES)
    assert descriptor is not None
    os.close(descriptor)
    assert cache.close(30)


def test_closing_does_not_wait_for_a_disk_for_ever(disk: StallingDisk) -> None:
    cache = TieredBlockCache(MemoryBlockCache(1000), disk)
    cache.put(key(0), b'block')
    assert not cache.close(0.01)
    assert cache.get(key(0)) == b'block'


def test_after_close_the_memory_serves_on(disk: StallingDisk) -> None:
    disk.go_on.set()
    cache = TieredBlockCache(MemoryBlockCache(1000), disk)
    assert cache.close(30)
    cache.put(key(0), b'block')
    assert cache.get(key(0)) == b'block'
    assert cache.flush(0)


def test_a_mistake_in_the_disk_tier_is_logged_and_the_next_block_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = BrokenDisk(tmp_path / 'blocks', 1 << 30)
    cache = TieredBlockCache(MemoryBlockCache(1000), disk)
    cache.put(key(0), b'zero')
    cache.put(key(1), b'one')
    assert cache.close(30)
    assert disk.get(key(1)) == b'one'
    assert 'block 0' in caplog.text
    assert cache._waiting_bytes == 0
    disk.close()


@pytest.mark.parametrize('ask', [lambda cache: cache.get(key(1)), lambda cache: cache.absent(key(1), 1)])
def test_the_disk_gets_nothing_while_readers_ask(disk: StallingDisk, ask: Callable[[TieredBlockCache], object]) -> None:
    disk.go_on.set()
    cache = TieredBlockCache(MemoryBlockCache(1000), disk)
    cache.put(key(0), b'block')
    end_s = time.monotonic() + 4 * LULL_S
    while time.monotonic() < end_s:
        ask(cache)
    assert not disk.puts
    await_puts(disk, 1)  # nobody waits for it
    assert cache.flush(30)
    assert disk.get(key(0)) == b'block'
    assert cache.close(30)


def test_but_it_gets_what_has_waited_for_long(disk: StallingDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiered, 'LINGER_S', 0.2)
    disk.go_on.set()
    cache = TieredBlockCache(MemoryBlockCache(1000), disk)
    cache.put(key(0), b'block')
    end_s = time.monotonic() + 30
    while not disk.puts and time.monotonic() < end_s:
        cache.get(key(1))
    assert disk.puts
    assert cache.close(30)


@pytest.mark.parametrize('limit', ['LINGER_BYTES', 'LINGER_JOBS'])
def test_and_everything_at_once_where_much_waits(
    disk: StallingDisk, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(tiered, 'LULL_S', 60.0)
    monkeypatch.setattr(tiered, 'LINGER_S', 60.0)
    monkeypatch.setattr(tiered, limit, 3 * len(b'block') if limit == 'LINGER_BYTES' else 3)
    disk.go_on.set()
    cache = TieredBlockCache(MemoryBlockCache(1000), disk)
    for number in range(3):
        cache.put(key(number), b'block')
    assert not disk.puts
    cache.put(key(3), b'block')
    await_puts(disk, 1)
    assert cache.close(30)


def test_who_waits_for_a_whole_file_does_not_wait_for_a_lull(
    disk: StallingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiered, 'LULL_S', 60.0)
    monkeypatch.setattr(tiered, 'LINGER_S', 60.0)
    disk.go_on.set()
    cache = TieredBlockCache(MemoryBlockCache(1 << 20), disk)
    cache.put(key(0), bytes(BLOCK_BYTES))
    cache.check_file('destination', 'path', 'version', BLOCK_BYTES)
    await_puts(disk, 1)
    assert cache.flush(30)
    cache.put(key(1), b'block')  # and the next does
    time.sleep(0.1)
    assert disk.puts == 1
    assert cache.flush(30)
    assert disk.puts == 2
    assert cache.close(30)


def test_a_disk_that_is_behind_is_written_through_the_page_cache(disk: StallingDisk) -> None:
    cache = TieredBlockCache(MemoryBlockCache(1000), disk, pace_bytes=2 * len(b'block'))
    for number in range(4):
        cache.put(key(number), b'block')
    disk.go_on.set()
    assert cache.flush(30)
    assert disk.through_pages == [True, True, False, False]
    assert cache.close(30)


def await_puts(disk: StallingDisk, count: int) -> None:
    end_s = time.monotonic() + 30
    while disk.puts < count:
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_thread_that_must_not_wait_may_ask(disk: StallingDisk) -> None:
    disk.go_on.set()
    disk.put(key(0), b'block')
    cache = TieredBlockCache(MemoryBlockCache(1000), disk)
    found: list[bytes | None] = []

    def serve() -> None:
        serve_without_blocking()
        found.extend([cache.get(key(0)), cache.get(key(1))])
        cache.put(key(2), b'two')

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(30)
    assert found == [b'block', None]
    assert cache.flush(30)
    assert disk.get(key(2)) == b'two'


def test_a_forked_child_begins_with_nothing_waiting_and_what_is_on_disk(tmp_path: Path) -> None:
    script = f"""
import os, threading
from pathlib import Path
from genro_storage.cache.blocks import BlockKey, Run
from genro_storage.cache.disk import DiskBlockCache
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.cache.tiered import TieredBlockCache
key = lambda number: BlockKey('d', 'p', 'v', number)
cache = TieredBlockCache(MemoryBlockCache(1000), DiskBlockCache(Path({str(tmp_path)!r}) / 'blocks', 1 << 24))
cache.put(key(0), b'zero')
assert cache.flush(30)
with cache._moved:  # by a thread that will not be in the child
    cache._waiting.add(Run(key(7), b'never written'))
    child = os.fork()
    if not child:
        cache.after_fork()
        assert cache.get(key(0)) == b'zero' and cache.get(key(7)) is None
        cache.put(key(1), b'one')
        os._exit(0 if cache.close(30) else 1)
assert os.waitpid(child, 0)[1] == 0
assert cache.get(key(1)) == b'one'
assert cache.close(30)
"""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
