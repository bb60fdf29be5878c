"""Files that begin to arrive with the answer to what is at their path."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.backend_volume import BackendVolume
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.cache.blocks import BLOCK_BYTES
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.config import MemoryDefinition
from genro_storage.errors import StorageNotFoundError, StorageUnavailableError
from genro_storage.reading.beginnings import IN_VAIN_MOST, LIMIT_PATHS
from genro_storage.testing import FaultyBackend, ManualClock
from tests.unit.buckets import DictRequests
from tests.unit.volumes import WAIT_S

TTL_S = 10.0


class Shelf:
    """A volume over a bucket that others fill, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.requests = DictRequests()
        self.backend = FaultyBackend(ObjectDirectories(self.requests))
        definition = MemoryDefinition(name='m', ttl_s=TTL_S)
        self.volume = BackendVolume(
            definition, self.backend, MemoryBlockCache(64 << 20), folder / 'staging', self.clock
        )

    def put(self, count: int, data: bytes = b'content') -> None:
        for number in range(count):
            self.requests.stored[f'd/f{number}'] = data

    def read(self, path: str) -> bytes:
        reader = self.volume.open_read(path)
        try:
            return bytes(reader.read(0, 1 << 40))
        finally:
            reader.close()

    def asked(self) -> dict[str, int]:
        """What was asked since the last time."""
        counted = dict(self.requests.count)
        self.requests.count.clear()
        return counted


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    assert shelf.volume.close(WAIT_S)


def test_a_small_file_that_nobody_has_seen_is_one_request(shelf: Shelf) -> None:
    shelf.put(50)
    for number in range(50):
        assert shelf.read(f'd/f{number}') == b'content'
    assert shelf.asked() == {'look_into': 50}


def test_of_a_large_one_the_rest_is_fetched(shelf: Shelf) -> None:
    data = bytes(range(256)) * (BLOCK_BYTES // 128)
    shelf.put(1, data)
    reader = shelf.volume.open_read('d/f0')
    assert reader.read(0, 100) == data[:100]
    assert shelf.asked() == {'look_into': 1}
    assert reader.read(BLOCK_BYTES - 5, 10) == data[BLOCK_BYTES - 5 :][:10]
    assert shelf.asked() == {'read': 1}
    reader.close()


def test_what_was_seen_before_is_only_asked_about(shelf: Shelf) -> None:
    shelf.put(2)
    shelf.read('d/f0')
    shelf.volume.list_directory('d')
    shelf.clock.advance(TTL_S + 1)
    shelf.asked()
    for path in ('d/f0', 'd/f1'):
        shelf.volume.stat(path)
    assert shelf.asked() == {'look': 2}


def test_what_has_changed_since_is_read_as_it_is(shelf: Shelf) -> None:
    shelf.put(1)
    shelf.read('d/f0')
    shelf.put(1, b'other')
    shelf.clock.advance(TTL_S + 1)
    assert shelf.read('d/f0') == b'other'


def test_who_only_looks_has_little_brought_in_vain(shelf: Shelf) -> None:
    shelf.put(100)
    for number in range(100):
        assert shelf.volume.stat(f'd/f{number}').size_bytes == 7
    assert shelf.asked() == {'look_into': IN_VAIN_MOST, 'look': 100 - IN_VAIN_MOST}


def test_who_opens_after_all_is_believed_again(shelf: Shelf) -> None:
    shelf.put(100)
    for number in range(IN_VAIN_MOST):
        shelf.volume.stat(f'd/f{number}')
    shelf.read('d/f50')
    assert shelf.asked() == {'look_into': IN_VAIN_MOST, 'look': 1, 'read': 1}
    shelf.read('d/f51')
    assert shelf.asked() == {'look_into': 1}


def test_what_another_run_has_cached_is_brought_in_vain(shelf: Shelf) -> None:
    shelf.put(50)
    for number in range(50):
        shelf.read(f'd/f{number}')
    shelf.volume._entries.after_fork()
    shelf.asked()
    for number in range(50):
        shelf.read(f'd/f{number}')
    assert shelf.asked() == {'look_into': IN_VAIN_MOST, 'look': 50 - IN_VAIN_MOST}


def test_an_opening_long_after_the_look_tells_nothing(shelf: Shelf) -> None:
    shelf.put(LIMIT_PATHS + 10)
    for number in range(LIMIT_PATHS + IN_VAIN_MOST):
        shelf.volume.stat(f'd/f{number}')
    for number in range(IN_VAIN_MOST):
        shelf.read(f'd/f{number}')
    shelf.asked()
    shelf.volume.stat(f'd/f{LIMIT_PATHS + 9}')
    assert shelf.asked() == {'look': 1}


@pytest.mark.parametrize('path', ['d', 'd/nothing', 'd/empty'])
def test_what_has_no_bytes_counts_for_nothing(shelf: Shelf, path: str) -> None:
    shelf.put(1)
    shelf.requests.stored['d/empty'] = b''
    for _ in range(IN_VAIN_MOST + 1):
        shelf.volume._entries.after_fork()
        shelf.volume.find(path)
    shelf.asked()
    shelf.volume.stat('d/f0')
    assert shelf.asked() == {'look_into': 1}


def test_a_failure_is_that_of_a_stat(shelf: Shelf) -> None:
    shelf.put(1)
    shelf.backend.fail('stat_and_read', StorageUnavailableError('gone'))
    with pytest.raises(StorageUnavailableError):
        shelf.volume.stat('d/f0')
    with pytest.raises(StorageNotFoundError):
        shelf.volume.stat('d/nothing')
    assert shelf.read('d/f0') == b'content'


def test_a_forked_child_begins_anew(shelf: Shelf) -> None:
    shelf.put(20)
    for number in range(10):
        shelf.volume.stat(f'd/f{number}')
    shelf.volume.after_fork()
    shelf.asked()
    shelf.read('d/f0')
    assert shelf.asked() == {'look_into': 1}
