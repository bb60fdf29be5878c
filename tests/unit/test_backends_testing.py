"""The tools for tests of backends."""

import threading

import pytest

from genro_storage.backends.memory import MemoryBackend
from genro_storage.errors import StorageNotFoundError, StorageUnavailableError
from genro_storage.testing import BytesSource, FaultyBackend, ManualClock
from genro_storage.testing.contract import read, write


def test_the_nth_call_fails_and_no_other() -> None:
    backend = FaultyBackend(MemoryBackend())
    backend.fail('put', StorageUnavailableError('gone'), nth=2)
    write(backend, 'a', b'1')
    with pytest.raises(StorageUnavailableError):
        write(backend, 'b', b'2')
    write(backend, 'c', b'3')
    assert backend.calls('put') == 3
    with pytest.raises(StorageNotFoundError):
        backend.stat('b')


def test_an_answer_can_be_lost_after_the_deed() -> None:
    backend = FaultyBackend(MemoryBackend())
    backend.fail('put', StorageUnavailableError('gone'), after=True)
    with pytest.raises(StorageUnavailableError):
        write(backend, 'a', b'1')
    assert read(backend, 'a') == b'1'


def test_faults_can_last_until_healed() -> None:
    backend = FaultyBackend(MemoryBackend())
    backend.fail_always('stat', StorageUnavailableError('gone'))
    for _ in range(3):
        with pytest.raises(StorageUnavailableError):
            backend.stat('')
    backend.heal()
    assert backend.stat('').is_directory


def test_a_stalled_call_goes_on_when_it_is_released() -> None:
    backend = FaultyBackend(MemoryBackend())
    stall = backend.stall('put')
    thread = threading.Thread(target=write, args=(backend, 'a', b'1'))
    thread.start()
    stall.wait_until_reached()
    with pytest.raises(StorageNotFoundError):
        backend.stat('a')
    stall.release()
    thread.join()
    assert read(backend, 'a') == b'1'


def test_a_stall_that_nobody_reaches_is_an_error() -> None:
    with pytest.raises(TimeoutError):
        FaultyBackend(MemoryBackend()).stall('put').wait_until_reached(0.01)


def test_the_clock_goes_only_where_it_is_told() -> None:
    clock = ManualClock()
    start = clock.monotonic(), clock.time_ns()
    assert (clock.monotonic(), clock.time_ns()) == start
    clock.advance(2.5)
    assert clock.monotonic() - start[0] == 2.5
    assert clock.time_ns() - start[1] == 2_500_000_000
    with pytest.raises(ValueError, match='forward'):
        clock.advance(-1)


def test_a_source_can_promise_more_than_it_has() -> None:
    source = BytesSource(b'abc', size_bytes=10)
    assert (source.size_bytes, source.read(0, 10), source.read(1, 1)) == (10, b'abc', b'b')
