"""The disk cache: what is kept when there is not room for all, and what it holds open."""

import os
import shutil
import time
from pathlib import Path

import pytest

from genro_storage.cache import eviction
from genro_storage.cache.blocks import BLOCK_BYTES, BlockKey
from genro_storage.cache.descriptors import IDLE_S, LIMIT_FILES
from genro_storage.cache.directory import FORMAT
from genro_storage.cache.disk import DiskBlockCache
from genro_storage.cache.eviction import Stored
from genro_storage.cache.space import RETRY_S
from genro_storage.cache.usage import BELIEVED_NS
from genro_storage.testing.clock import ManualClock

#: Ten files of one block, with the page of their checksums.
FILE_BYTES = BLOCK_BYTES + 4096
LIMIT_BYTES = 10 * FILE_BYTES


def block(number: int) -> bytes:
    return number.to_bytes(2, 'big') * (BLOCK_BYTES // 2)


def key(file: int, number: int = 0) -> BlockKey:
    return BlockKey('destination', f'file {file}', 'version', number)


def kept(cache: DiskBlockCache, files: range) -> list[int]:
    found = {file: cache.get(key(file)) for file in files}
    assert all(data in {None, block(file)} for file, data in found.items())
    return [file for file, data in found.items() if data is not None]


def stored_bytes(root: Path) -> int:
    return sum(file.size_bytes for file in eviction.walk(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / 'blocks'


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def fill(cache: DiskBlockCache, clock: ManualClock, files: range) -> None:
    for file in files:
        clock.advance(1)
        cache.put(key(file), block(file))


def test_the_bound_holds_and_the_newest_stay(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    for file in range(50):
        fill(cache, clock, range(file, file + 1))
        assert stored_bytes(root) <= LIMIT_BYTES
    files = kept(cache, range(50))
    assert len(files) >= 8
    assert files == list(range(files[0], 50))


def test_what_was_read_lately_stays(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    fill(cache, clock, range(9))
    clock.advance(61)
    assert cache.get(key(0)) == block(0)
    cache.close()
    fill(DiskBlockCache(root, LIMIT_BYTES, clock=clock), clock, range(10, 17))
    assert 0 in kept(cache, range(20))
    assert kept(cache, range(1, 6)) == []


def test_use_is_noted_once_a_minute(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    cache.put(key(0), block(0))
    stamps = []
    for _ in range(8):
        clock.advance(20)
        cache.get(key(0))
        stamps.append(next(eviction.walk(root)).used_ns)
    assert len(set(stamps)) == 3


@pytest.mark.parametrize('lost', ['nothing', 'the count', 'the boot', 'a day', 'half of the count'])
def test_the_bound_holds_after_a_restart_whatever_became_of_the_count(
    root: Path, clock: ManualClock, lost: str
) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    fill(cache, clock, range(8))
    cache.close()
    usage = root / 'usage'
    raw = usage.read_bytes()
    if lost == 'the count':
        usage.unlink()
    elif lost == 'the boot':  # and with the page that was not written before the power went, the count
        usage.write_bytes(raw[:8] + bytes(16) + raw[24:32] + bytes(8))
    elif lost == 'a day':
        usage.write_bytes(raw[:32] + bytes(8))
        clock.advance(BELIEVED_NS / 1e9 + 1)
    elif lost == 'half of the count':
        usage.write_bytes(raw[: len(raw) // 2])
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    for file in range(8, 30):
        fill(cache, clock, range(file, file + 1))
        assert stored_bytes(root) <= LIMIT_BYTES
    assert len(kept(cache, range(30))) >= 8


def test_the_count_is_what_the_walk_finds(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    assert cache.size_bytes is None
    fill(cache, clock, range(7))
    cache.close()
    assert cache.size_bytes == stored_bytes(root) == 7 * FILE_BYTES


def test_two_caches_share_one_bound(root: Path, clock: ManualClock) -> None:
    caches = [DiskBlockCache(root, LIMIT_BYTES, clock=clock) for _ in range(2)]
    for file in range(60):
        fill(caches[file % 2], clock, range(file, file + 1))
        assert stored_bytes(root) <= LIMIT_BYTES + 2 * (LIMIT_BYTES // 64)


def test_a_claim_that_was_not_used_is_given_back(root: Path) -> None:
    cache = DiskBlockCache(root, 1 << 30)
    cache.put(key(0), b'small')
    assert cache.size_bytes == 4 << 20
    cache.close()
    assert cache.size_bytes == 4096


def test_a_file_larger_than_the_bound_keeps_its_beginning(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    fill(cache, clock, range(1, 9))
    for number in range(40):
        cache.put(key(0, number), block(number))
    assert stored_bytes(root) <= LIMIT_BYTES
    there = [number for number in range(40) if cache.get(key(0, number)) is not None]
    assert there == list(range(len(there)))
    assert len(there) >= 8


def test_a_file_that_was_handed_out_is_not_evicted_and_counts(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    held = []
    for file in range(9):
        fill(cache, clock, range(file, file + 1))
        assert cache.verify_file(*key(file)[:3], BLOCK_BYTES)
        held.append(cache.complete_file(*key(file)[:3], BLOCK_BYTES))
    assert None not in held
    fill(cache, clock, range(20, 30))
    assert kept(cache, range(9)) == list(range(9))
    assert stored_bytes(root) <= LIMIT_BYTES
    for file, descriptor in enumerate(held):
        assert os.pread(descriptor, BLOCK_BYTES, 0) == block(file)
        os.close(descriptor)
    clock.advance(RETRY_S)
    fill(cache, clock, range(30, 40))
    assert kept(cache, range(30, 40))[-3:] == [37, 38, 39]
    assert kept(cache, range(5)) == []


def test_files_of_another_format_go_first(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    fill(cache, clock, range(3))
    for path in [path for path in root.rglob(f'{FORMAT}-*') if path.is_file()]:
        path.rename(path.with_name('0' + path.name[1:]))
    cache.close()
    clock.advance(1000)
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    assert kept(cache, range(3)) == []
    fill(cache, clock, range(10, 20))
    assert not list(root.rglob('0-*'))
    assert len(kept(cache, range(10, 20))) >= 9


def test_bytes_left_without_checksums_count_and_go_first(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    fill(cache, clock, range(5))
    cache.close()
    for path in list(root.rglob('*.sums')):
        path.unlink()
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    fill(cache, clock, range(10, 25))
    assert stored_bytes(root) <= LIMIT_BYTES
    assert len(list(root.rglob('*.data'))) == len(list(root.rglob('*.sums')))


def test_while_somebody_else_evicts_a_block_is_dropped_rather_than_waited_for(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    fill(cache, clock, range(10))
    with eviction.exclusively(root) as mine:
        assert mine
        fill(cache, clock, range(20, 30))
        assert kept(cache, range(30)) == list(range(len(kept(cache, range(30)))))
    fill(cache, clock, range(30, 31))
    assert kept(cache, range(30, 31)) == [30]


@pytest.mark.parametrize(
    ('files', 'size_bytes', 'chosen'),
    [
        ([], 10, []),
        ([(1, 5)], 10, [1]),
        ([(1, 5), (2, 5), (3, 5)], 10, [1, 2]),
        ([(3, 5), (2, 5), (1, 5)], 10, [1, 2]),
        ([(3, 5), (1, 50), (2, 5)], 10, [1]),
        ([(3, 5), (1, 5), (2, 50)], 10, [1, 2]),
        ([(2, 0), (1, 0), (3, 10)], 10, [1, 2, 3]),
        ([(1, 5), (2, 5)], 0, []),
    ],
)
def test_the_oldest_files_of_so_many_bytes_are_chosen(
    files: list[tuple[int, int]], size_bytes: int, chosen: list[int]
) -> None:
    stored = [Stored(used, size, f'{used}') for used, size in files]
    assert [file.used_ns for file in eviction.oldest(stored, size_bytes)] == chosen


def open_below(root: Path) -> list[str]:
    return [link for link in map(_link, os.listdir('/proc/self/fd')) if link.startswith(str(root))]


def _link(descriptor: str) -> str:
    try:
        return os.readlink(f'/proc/self/fd/{descriptor}')
    except FileNotFoundError:
        return ''


def test_few_files_stay_open_and_none_when_idle(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, 1 << 30, clock=clock)
    fill(cache, clock, range(LIMIT_FILES + 20))
    assert len(open_below(root)) <= 2 * LIMIT_FILES
    clock.advance(IDLE_S)
    cache._files.sweep()
    assert open_below(root) == []
    assert kept(cache, range(3)) == [0, 1, 2]


def test_what_others_evicted_is_let_go_of_while_it_is_in_use(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, 1 << 30, clock=clock)
    fill(cache, clock, range(2))
    assert eviction.evict(root, 1, keep='').size_bytes == FILE_BYTES
    assert len(open_below(root)) == 4
    cache._files.sweep()
    assert len(open_below(root)) == 2


def test_an_idle_cache_closes_its_files_by_itself(root: Path) -> None:
    cache = DiskBlockCache(root, 1 << 30)
    cache.put(key(0), block(0))
    assert open_below(root)
    deadline = time.monotonic() + 30
    while open_below(root) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not open_below(root)
    assert cache.get(key(0)) == block(0)


def test_close_leaves_nothing_open_and_the_cache_usable(root: Path) -> None:
    cache = DiskBlockCache(root, 1 << 30)
    cache.put(key(0), block(0))
    cache.close()
    cache.close()
    assert open_below(root) == []
    assert cache.get(key(0)) == block(0)
    cache.close()


def test_a_directory_removed_under_an_eviction_ends_it(root: Path, clock: ManualClock) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES, clock=clock)
    fill(cache, clock, range(10))
    walked = eviction.walk(root)
    next(walked)
    shutil.rmtree(root)
    list(walked)
    fill(cache, clock, range(20, 23))
    assert kept(cache, range(20, 23))[-1] == 22
