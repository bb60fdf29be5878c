"""Missing blocks: each fetched once, in few ranges, and failures that reach who waits."""

from collections.abc import Iterator
from typing import Any

import pytest

from genro_storage.backends.base import Capabilities
from genro_storage.backends.memory import MemoryBackend
from genro_storage.cache.blocks import BLOCK_BYTES as B
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.entry import Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StorageTimeoutError,
)
from genro_storage.reading.fetcher import AHEAD_BYTES_LEAST, RANGE_BLOCKS, Fetcher, File
from genro_storage.runtime import WorkerPool, WouldBlock
from genro_storage.testing import BytesSource, FaultyBackend
from tests.unit.volumes import WAIT_S, Thread, serving_thread

BLOCKS = 100
DATA = b''.join(number.to_bytes(4, 'big') * (B // 4) for number in range(BLOCKS)) + b'the end'


class Recording(FaultyBackend):
    """Remembers which ranges were asked for."""

    def __init__(self) -> None:
        super().__init__(MemoryBackend(), Capabilities(strong_versions=True))
        self.ranges: list[tuple[int, int]] = []

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        self.ranges.append((offset // B, size_bytes))
        return super().read_range(path, offset, size_bytes, version)


class Setup:
    def __init__(self, cache_bytes: int = 64 << 20, threads: int = 4, queue_limit: int = 100) -> None:
        self.backend = Recording()
        entry = self.backend.put('f', BytesSource(DATA))
        self.file = File('f', entry)
        self.cache = MemoryBlockCache(cache_bytes)
        self.workers = WorkerPool('fetch', threads, queue_limit)
        self.fetcher = Fetcher(self.backend, self.cache, self.workers, timeout_s=1.0)


def block(number: int) -> bytes:
    return DATA[number * B : (number + 1) * B]


@pytest.fixture
def setup() -> Iterator[Setup]:
    setup = Setup()
    yield setup
    assert setup.workers.close(WAIT_S)


def test_blocks_are_fetched_and_remembered(setup: Setup) -> None:
    assert setup.fetcher.find(setup.file, [3, 4]) == [None, None]
    assert setup.fetcher.fetch(setup.file, [3, 4]) == [block(3), block(4)]
    assert setup.fetcher.find(setup.file, [3, 4, 5]) == [block(3), block(4), None]
    assert setup.backend.ranges == [(3, 2 * B)]


def test_the_last_block_is_as_long_as_the_file_goes(setup: Setup) -> None:
    assert setup.fetcher.fetch(setup.file, [BLOCKS]) == [b'the end']
    assert setup.backend.ranges == [(BLOCKS, 7)]


def test_neighbours_become_one_range_of_bounded_length(setup: Setup) -> None:
    wanted = [*range(RANGE_BLOCKS + 3), 50, 52, 53]
    assert setup.fetcher.fetch(setup.file, wanted) == [block(number) for number in wanted]
    assert sorted(setup.backend.ranges) == [(0, RANGE_BLOCKS * B), (RANGE_BLOCKS, 3 * B), (50, B), (52, 2 * B)]


def test_each_block_is_fetched_once_however_many_readers_want_it(setup: Setup) -> None:
    stall = setup.backend.stall('read_range')
    first = Thread(lambda: setup.fetcher.fetch(setup.file, [0, 1, 2]))
    stall.wait_until_reached()
    others = [Thread(lambda: setup.fetcher.fetch(setup.file, [1, 2, 3])) for _ in range(10)]
    for _ in range(3):
        setup.fetcher.prefetch(setup.file, 0, 2)
    stall.release()
    assert first.result() == [block(0), block(1), block(2)]
    assert [other.result() for other in others] == [[block(1), block(2), block(3)]] * 10
    fetched = [number for first, size in setup.backend.ranges for number in range(first, first + size // B)]
    assert sorted(fetched) == [0, 1, 2, 3]


def test_a_block_that_arrived_between_a_miss_and_the_request_is_not_fetched_again(setup: Setup) -> None:
    setup.fetcher.fetch(setup.file, [7])
    assert setup.fetcher.fetch(setup.file, [7]) == [block(7)]  # as who missed it a moment before
    assert setup.backend.ranges == [(7, B)]


def test_what_the_cache_does_not_keep_still_reaches_who_waits() -> None:
    setup = Setup(cache_bytes=0)
    assert setup.fetcher.fetch(setup.file, [0, 1]) == [block(0), block(1)]
    assert setup.workers.close(WAIT_S)


@pytest.mark.parametrize('error', [StorageIOError('broken'), StorageTimeoutError('slow'), ZeroDivisionError('a bug')])
def test_a_failure_reaches_all_who_wait_and_is_not_remembered(setup: Setup, error: Exception) -> None:
    setup.backend.fail_always('read_range', error)
    stalled: list[Any] = []
    stall = setup.backend.stall('stat')
    gate = Thread(lambda: setup.backend.stat('f'))
    stall.wait_until_reached()
    waiting = [Thread(lambda: setup.fetcher.fetch(setup.file, [0, 1])) for _ in range(3)]
    for thread in waiting:
        with pytest.raises(type(error), match=str(error)):
            thread.result()
    stall.release()
    gate.result()
    assert stalled == []
    setup.backend.heal()
    assert setup.fetcher.fetch(setup.file, [0, 1]) == [block(0), block(1)]


def test_a_failure_of_one_range_leaves_the_others(setup: Setup) -> None:
    setup.fetcher.fetch(setup.file, [0])
    setup.backend.fail('read_range', StorageIOError('broken'))
    with pytest.raises(StorageIOError):
        setup.fetcher.fetch(setup.file, [5])
    assert setup.fetcher.find(setup.file, [0]) == [block(0)]


def test_a_failed_prefetch_is_met_again_by_who_reads(setup: Setup) -> None:
    setup.backend.fail_always('read_range', StorageIOError('broken'))
    setup.fetcher.prefetch(setup.file, 0, 2)
    with pytest.raises(StorageIOError):
        setup.fetcher.fetch(setup.file, [0])


def test_a_version_that_is_gone_is_a_conflict(setup: Setup) -> None:
    setup.backend.put('f', BytesSource(DATA[::-1]))
    with pytest.raises(StorageConflictError):
        setup.fetcher.fetch(setup.file, [0])
    setup.backend.remove_file('f')
    with pytest.raises(StorageConflictError):
        setup.fetcher.fetch(setup.file, [0])


def test_blocks_of_a_version_that_is_gone_are_still_served_from_the_cache(setup: Setup) -> None:
    setup.fetcher.fetch(setup.file, [0])
    newer = File('f', setup.backend.put('f', BytesSource(DATA[::-1])))
    assert setup.fetcher.find(setup.file, [0]) == [block(0)]
    assert setup.fetcher.find(newer, [0]) == [None]


def test_a_short_body_is_a_conflict_and_nothing_of_it_is_kept(setup: Setup) -> None:
    class Short(Recording):
        def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
            return super().read_range(path, offset, size_bytes, version)[:-1]

    backend = Short()
    file = File('f', backend.put('f', BytesSource(DATA)))
    fetcher = Fetcher(backend, setup.cache, setup.workers, timeout_s=1.0)
    with pytest.raises(StorageConflictError, match='ends at'):
        fetcher.fetch(file, [0, 1])
    assert fetcher.find(file, [0, 1]) == [None, None]


def test_a_full_queue_leaves_nothing_in_flight_and_who_waits_fetches_himself() -> None:
    setup = Setup(threads=1, queue_limit=1)
    stall = setup.backend.stall('read_range')
    setup.fetcher.prefetch(setup.file, 0, 0)
    stall.wait_until_reached()
    setup.fetcher.prefetch(setup.file, 10, 10)
    setup.fetcher.prefetch(setup.file, 20, 20)  # there is no room for it
    last = Thread(lambda: setup.fetcher.fetch(setup.file, [20]))
    assert last.result() == [block(20)]
    stall.release()
    assert setup.fetcher.fetch(setup.file, [0, 10]) == [block(0), block(10)]
    assert setup.workers.close(WAIT_S)
    assert sorted(setup.backend.ranges) == [(0, B), (10, B), (20, B)]


def test_what_waits_for_a_worker_is_fetched_by_whoever_needs_it_first() -> None:
    setup = Setup(threads=1)
    stall = setup.backend.stall('read_range')
    setup.fetcher.prefetch(setup.file, 0, 0)
    stall.wait_until_reached()
    (queued,) = setup.fetcher.prefetch(setup.file, 10, 12)
    assert Thread(lambda: setup.fetcher.fetch(setup.file, [11])).result() == [block(11)]
    assert queued.run.done()
    stall.release()
    assert setup.workers.close(WAIT_S)
    assert sorted(setup.backend.ranges) == [(0, B), (10, 3 * B)]


def test_what_has_not_begun_can_be_called_off() -> None:
    setup = Setup(threads=1)
    stall = setup.backend.stall('read_range')
    begun = setup.fetcher.prefetch(setup.file, 0, 0)
    stall.wait_until_reached()
    queued = setup.fetcher.prefetch(setup.file, 10, 12)
    setup.fetcher.call_off(begun + queued)
    stall.release()
    assert setup.fetcher.fetch(setup.file, [0]) == [block(0)]
    assert setup.workers.close(WAIT_S)
    assert setup.backend.ranges == [(0, B)]
    assert setup.fetcher.fetch(setup.file, [11]) == [block(11)]


def test_readers_share_what_may_be_ahead() -> None:
    setup = Setup(cache_bytes=32 << 20)
    alone = setup.fetcher.ahead_bytes
    assert alone == 16 << 20
    for _ in range(4):
        setup.fetcher.opened_stream(1)
    assert setup.fetcher.ahead_bytes == alone // 4
    for _ in range(100):
        setup.fetcher.opened_stream(1)
    assert setup.fetcher.ahead_bytes == AHEAD_BYTES_LEAST
    for _ in range(104):
        setup.fetcher.opened_stream(-1)
    assert setup.fetcher.ahead_bytes == alone


def test_who_waits_for_what_somebody_else_fetches_gives_up_at_last() -> None:
    setup = Setup()
    fetcher = Fetcher(setup.backend, setup.cache, setup.workers, timeout_s=0.001)
    stall = setup.backend.stall('read_range')
    fetcher.prefetch(setup.file, 0, 0)
    stall.wait_until_reached()
    with pytest.raises(StorageTimeoutError, match=r"'f'.*0\.01 s"):
        fetcher.fetch(setup.file, [0])
    stall.release()
    assert setup.workers.close(WAIT_S)


def test_a_serving_thread_never_waits_for_blocks(setup: Setup) -> None:
    setup.fetcher.fetch(setup.file, [0])
    with serving_thread() as call:
        assert call(lambda: setup.fetcher.find(setup.file, [0, 1])) == [block(0), None]
        with pytest.raises(WouldBlock):
            call(lambda: setup.fetcher.fetch(setup.file, [1]))
        call(lambda: setup.fetcher.prefetch(setup.file, 1, 1))
    assert setup.fetcher.fetch(setup.file, [1]) == [block(1)]
