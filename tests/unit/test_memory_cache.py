"""Blocks in memory, within their bound."""

import threading

from genro_storage.cache.blocks import BlockKey
from genro_storage.cache.memory import MemoryBlockCache


def key(number: int, version: str = 'v1') -> BlockKey:
    return BlockKey('destination', 'path', version, number)


def test_what_was_put_is_there() -> None:
    cache = MemoryBlockCache(100)
    cache.put(key(1), b'data')
    assert cache.get(key(1)) == b'data'
    assert cache.get(key(2)) is None
    assert cache.size_bytes == 4


def test_another_version_of_a_file_is_another_block() -> None:
    cache = MemoryBlockCache(100)
    cache.put(key(1, 'v1'), b'old')
    assert cache.get(key(1, 'v2')) is None


def test_the_least_recently_used_go_first() -> None:
    cache = MemoryBlockCache(30)
    for number in range(3):
        cache.put(key(number), bytes(10))
    cache.get(key(0))
    cache.put(key(3), bytes(10))
    assert [cache.get(key(number)) is not None for number in range(4)] == [True, False, True, True]
    assert cache.size_bytes == 30


def test_a_block_that_is_put_again_counts_once() -> None:
    cache = MemoryBlockCache(30)
    for _ in range(10):
        cache.put(key(1), bytes(10))
    assert cache.size_bytes == 10


def test_a_block_over_the_bound_is_not_kept() -> None:
    cache = MemoryBlockCache(10)
    cache.put(key(1), bytes(11))
    assert cache.get(key(1)) is None
    nothing = MemoryBlockCache(0)
    nothing.put(key(1), b'1')
    assert nothing.size_bytes == 0


def test_many_threads_stay_within_the_bound() -> None:
    cache = MemoryBlockCache(1000)

    def work(seed: int) -> None:
        for number in range(2000):
            cache.put(key(number * seed % 97), bytes(10))
            block = cache.get(key(number % 97))
            assert block is None or len(block) == 10

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.size_bytes <= 1000


def test_after_a_fork_it_begins_empty() -> None:
    cache = MemoryBlockCache(100)
    cache.put(key(1), b'data')
    cache._lock.acquire()  # as by a thread that is not in the child
    cache.after_fork()
    assert cache.get(key(1)) is None
    cache.put(key(1), b'data')
    assert cache.get(key(1)) == b'data'
