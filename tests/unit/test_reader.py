"""Open read handles."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.cache.blocks import BLOCK_BYTES as B
from genro_storage.errors import StorageConflictError, StorageIOError, StorageNotFoundError
from genro_storage.reading.reader import DescriptorReader, DirectReader, Reader
from genro_storage.runtime import WouldBlock
from tests.unit.volumes import WAIT_S, Remote, Thread, serving_thread

DATA = b''.join(number.to_bytes(4, 'big') for number in range(6 * B // 4)) + b'the end'


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    remote = Remote(tmp_path)
    remote.put('f', DATA)
    yield remote
    assert remote.volume.close(WAIT_S)


@pytest.fixture(params=['blocks', 'direct', 'descriptor'])
def reader(request: pytest.FixtureRequest, remote: Remote, tmp_path: Path) -> Iterator[Reader]:
    reader: Reader
    if request.param == 'blocks':
        reader = remote.volume.open_read('f')
    elif request.param == 'direct':
        reader = DirectReader('f', remote.store.stat('f'), remote.store)
    else:
        (tmp_path / 'f').write_bytes(DATA)
        reader = DescriptorReader(os.open(tmp_path / 'f', os.O_RDONLY))
    yield reader
    reader.close()
    reader.close()


@pytest.mark.parametrize(
    ('offset', 'size_bytes'),
    [
        (0, 0),
        (0, 1),
        (0, 10),
        (B - 1, 2),
        (B, B),
        (B + 1, 3 * B),
        (0, len(DATA)),
        (0, 10 * len(DATA)),
        (len(DATA) - 3, 10),
        (len(DATA), 10),
        (len(DATA) + B, 10),
    ],
)
def test_all_kinds_read_alike(reader: Reader, offset: int, size_bytes: int) -> None:
    assert bytes(reader.read(offset, size_bytes)) == DATA[offset : offset + size_bytes]
    assert reader.size_bytes == len(DATA)


def test_an_empty_file(remote: Remote) -> None:
    remote.put('empty', b'')
    reader = remote.volume.open_read('empty')
    assert reader.read(0, 10) == b''
    assert reader.size_bytes == 0
    assert remote.backend.calls('read_range') == 0


def test_a_reader_in_sequence_is_prefetched_for(remote: Remote) -> None:
    remote.put('g', bytes(64 * B))
    reader = remote.volume.open_read('g')
    for number in range(4):
        assert len(reader.read(number * B, B)) == B
    remote.volume._fetchers.close(WAIT_S)
    calls = remote.backend.calls('read_range')
    for number in range(4, 8):
        assert len(reader.read(number * B, B)) == B
    assert remote.cache.size_bytes > 2 * calls * B
    assert remote.backend.calls('read_range') == calls


def test_a_random_reader_is_not(remote: Remote) -> None:
    remote.put('g', bytes(100 * B))
    reader = remote.volume.open_read('g')
    for number in (90, 50, 10, 70):
        reader.read(number * B, 10)
    remote.volume._fetchers.close(WAIT_S)
    assert remote.cache.size_bytes == 4 * B


def test_a_block_once_read_is_read_from_memory(remote: Remote) -> None:
    remote.read('f')
    calls = remote.backend.calls('read_range')
    assert remote.read('f') == DATA
    assert remote.backend.calls('read_range') == calls


def test_a_reader_that_has_begun_keeps_to_its_version(remote: Remote) -> None:
    remote.put('g', bytes(100 * B))
    reader = remote.volume.open_latest('g')
    assert reader.read(90 * B, 1) == b'\0'
    remote.put('g', b'1' * 100 * B)
    assert reader.read(90 * B, 1) == b'\0'
    with pytest.raises(StorageConflictError):
        reader.read(10 * B, 1)
    assert reader.size_bytes == 100 * B


class TestLatest:
    def test_an_unread_handle_follows_its_file(self, remote: Remote) -> None:
        remote.volume.stat('f')
        remote.put('f', b'newer')
        reader = remote.volume.open_latest('f')
        assert bytes(reader.read(0, 100)) == b'newer'
        assert reader.size_bytes == 5
        assert remote.volume.stat('f').size_bytes == 5

    def test_a_handle_whose_size_was_told_does_not(self, remote: Remote) -> None:
        reader = remote.volume.open_latest('f')
        assert reader.size_bytes == len(DATA)
        remote.put('f', b'newer')
        with pytest.raises(StorageConflictError):
            reader.read(0, 100)

    def test_a_file_that_has_gone_is_not_found(self, remote: Remote) -> None:
        reader = remote.volume.open_latest('f')
        remote.store.remove_file('f')
        with pytest.raises(StorageNotFoundError):
            reader.read(0, 100)

    def test_it_follows_once(self, remote: Remote) -> None:
        reader = remote.volume.open_latest('f')
        remote.backend.fail_always('read_range', StorageConflictError('always another version'))
        with pytest.raises(StorageConflictError):
            reader.read(0, 100)
        remote.backend.heal()

    def test_other_errors_are_raised_and_the_handle_goes_on(self, remote: Remote) -> None:
        reader = remote.volume.open_latest('f')
        remote.backend.fail('read_range', StorageIOError('broken'))
        with pytest.raises(StorageIOError):
            reader.read(0, 100)
        assert bytes(reader.read(0, 100)) == DATA[:100]

    def test_of_many_threads_all_see_one_version(self, remote: Remote) -> None:
        remote.put('g', b'1' * 4 * B)
        reader = remote.volume.open_latest('g')
        remote.put('g', b'2' * 4 * B)
        threads = [Thread(lambda number=number: bytes(reader.read(number * B, 1))) for number in range(4)]  # type: ignore[misc]
        assert {thread.result() for thread in threads} == {b'2'}


def test_without_following_a_version_that_is_gone_is_an_error_and_forgotten(remote: Remote) -> None:
    remote.volume.stat('f')
    remote.put('f', b'newer')
    reader = remote.volume.open_read('f')
    with pytest.raises(StorageConflictError):
        reader.read(0, 100)
    assert remote.read('f') == b'newer'


def test_a_serving_thread_reads_what_is_in_memory_and_nothing_else(remote: Remote) -> None:
    reader = remote.volume.open_read('f')
    with serving_thread() as call:
        with pytest.raises(WouldBlock):
            call(lambda: reader.read(0, 10))
        assert bytes(reader.read(0, 10)) == DATA[:10]
        assert bytes(call(lambda: reader.read(0, 10))) == DATA[:10]


def test_a_descriptor_keeps_its_file_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / 'f'
    path.write_bytes(b'old')
    reader = DescriptorReader(os.open(path, os.O_RDONLY))
    path.unlink()
    path.write_bytes(b'newer')
    assert reader.read(0, 10) == b'old'
    assert reader.size_bytes == 3
    reader.close()
