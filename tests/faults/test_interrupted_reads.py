"""A range whose answer breaks off, falls short, stalls or is another: the right bytes, or the right error.

Of backends as the library makes them, guarded, by each way in which they read.
"""

import itertools
import threading
import time

import pytest

from genro_storage.backends.base import Backend, InterruptedReadError, TellsBeginnings
from genro_storage.entry import Version
from genro_storage.errors import (
    StorageConflictError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from tests.faults.fault_proxy import SLOW_DOWN, Asked, Close, Fault, FaultProxy, Reply, Reset, Shorten, Stall
from tests.faults.sick import MIB, PATIENT_S, Reading, Sick

#: obstore hands over pieces of this; less than one is asked for again.
LOST_MAX_BYTES = 256 << 10
SIZE = 3 * MIB
BROKEN_AT = MIB + 100_000
#: A timeout that tests wait for.
SHORT_S = 0.5
#: Beside the timeout itself, on a machine that others use too.
SLACK_S = 2.0

#: An object in cold storage: to ask about it is allowed, to read it is not (S3 API reference, GetObject).
ARCHIVED = Reply('403 Forbidden', b'<Error><Code>InvalidObjectState</Code><Message>archived</Message></Error>')


def version_of(backend: Backend, key: str) -> Version:
    version = backend.stat(key).version
    assert version is not None
    return version


def assert_resumed(proxy: FaultProxy, key: str, first: Asked, second: Asked) -> None:
    """The second request begins where the first one broke off, and ends where that would have ended."""
    assert first.start is not None
    assert second.start is not None
    assert first.size_bytes is not None
    assert first.sent_bytes == getattr(first.fault, 'after_bytes', first.sent_bytes)
    arrived = second.start - first.start
    assert first.sent_bytes - LOST_MAX_BYTES < arrived <= first.sent_bytes
    assert second.size_bytes == first.size_bytes - arrived


@pytest.mark.parametrize('fault', [Reset(5_000), Close(5_000), Shorten(5_000), ARCHIVED], ids=repr)
def test_a_look_does_not_fail_for_the_bytes_that_come_with_it(sick: Sick, fault: Fault) -> None:
    key, data = sick.new(MIB)
    backend = sick.backend('obstore', PATIENT_S)
    assert isinstance(backend, TellsBeginnings)
    entry = backend.stat(key)
    sick.proxy.plan(fault, key=key)
    assert backend.stat_and_read(key, 10_000) == (entry, None)
    assert backend.stat_and_read(key, 10_000) == (entry, data[:10_000])


@pytest.mark.parametrize('fault', [Reset(BROKEN_AT), Close(BROKEN_AT)], ids=['reset', 'closed early'])
def test_a_read_that_breaks_off_goes_on_where_it_was(reading: Reading, fault: Fault) -> None:
    key, data = reading.new(SIZE)
    backend = reading.backend()
    version = version_of(backend, key)
    reading.proxy.plan(fault, key=key)
    assert backend.read_range(key, 1_000, SIZE - 2_000, version) == data[1_000:-1_000]
    first, second = reading.proxy.reads(key)
    assert_resumed(reading.proxy, key, first, second)
    assert first.sent_bytes + second.sent_bytes < SIZE + LOST_MAX_BYTES


def test_a_line_that_breaks_every_megabyte_gets_there(reading: Reading) -> None:
    size = 6 * MIB
    key, data = reading.new(size)
    backend = reading.backend()
    version = version_of(backend, key)
    reading.proxy.plan(Reset(MIB), key=key, times=None)
    assert backend.read_range(key, 0, size, version) == data
    reads = reading.proxy.reads(key)
    assert len(reads) > 4
    for first, second in itertools.pairwise(reads):
        assert_resumed(reading.proxy, key, first, second)


def test_a_read_that_breaks_off_before_its_first_byte_is_tried_again(reading: Reading) -> None:
    key, data = reading.new(100_000)
    backend = reading.backend()
    version = version_of(backend, key)
    reading.proxy.plan(Reset(0), key=key, times=2)
    assert backend.read_range(key, 0, 100_000, version) == data


def test_what_has_changed_since_the_read_broke_off_is_a_conflict_and_no_mixture(reading: Reading) -> None:
    key, _ = reading.new(SIZE)
    backend = reading.backend()
    version = version_of(backend, key)
    # The answer stays open at its first half until the object is another one.
    half_way = reading.proxy.plan(Stall(BROKEN_AT), key=key)
    outcome: list[object] = []

    def read() -> None:
        try:
            outcome.append(backend.read_range(key, 0, SIZE, version))
        except StorageConflictError as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert half_way.wait(5)
    reading.sick.put(bytes(SIZE), key)
    reading.proxy.heal()
    reader.join(10)
    assert [type(one) for one in outcome] == [StorageConflictError]


def test_without_a_version_a_read_that_broke_off_begins_anew(reading: Reading) -> None:
    key, data = reading.new(SIZE)
    backend = reading.backend()
    reading.proxy.plan(Reset(BROKEN_AT), key=key)
    assert backend.read_range(key, 0, SIZE, None) == data
    first, *_, last = reading.proxy.reads(key)
    assert (first.start, first.size_bytes) == (last.start, last.size_bytes)


def test_a_range_that_is_answered_with_less_goes_on_behind_it(reading: Reading) -> None:
    key, data = reading.new(100_000)
    backend = reading.backend()
    version = version_of(backend, key)
    reading.proxy.plan(Shorten(30_000), key=key)
    assert backend.read_range(key, 10, 99_000, version) == data[10:99_010]


def test_a_server_that_sends_everything_instead_of_a_range(reading: Reading) -> None:
    key, data = reading.new(200_000)
    backend = reading.backend()
    version = version_of(backend, key)
    headers = (('etag', f'"{version.tag}"'), ('last-modified', 'Mon, 02 Feb 2026 00:00:00 GMT'))
    reading.proxy.plan(Reply('200 OK', data, headers), key=key, times=None)
    assert backend.read_range(key, 70_000, 50_000, version) == data[70_000:120_000]
    assert backend.read_range(key, 190_000, 50_000, version) == data[190_000:]


@pytest.mark.parametrize('content_range', ['bytes 5-14/100', 'bytes */100', None])
def test_another_range_than_was_asked_for_is_never_taken_for_it(reading: Reading, content_range: str | None) -> None:
    key, _ = reading.new(100)
    backend = reading.backend(SHORT_S)
    version = version_of(backend, key)
    headers = [('etag', f'"{version.tag}"'), ('last-modified', 'Mon, 02 Feb 2026 00:00:00 GMT')]
    headers += [('content-range', content_range)] if content_range else []
    reading.proxy.plan(Reply('206 Partial Content', b'x' * 10, tuple(headers)), key=key, times=None)
    with pytest.raises(StorageUnavailableError):
        backend.read_range(key, 0, 10, version)


def test_a_server_that_ignores_the_version_asked_for_is_found_out(reading: Reading) -> None:
    key, _ = reading.new(100)
    backend = reading.backend()
    version = version_of(backend, key)
    headers = (
        ('etag', '"0123456789abcdef0123456789abcdef"'),
        ('content-range', 'bytes 0-9/100'),
        ('last-modified', 'Mon, 02 Feb 2026 00:00:00 GMT'),
    )
    reading.proxy.plan(Reply('206 Partial Content', b'x' * 10, headers), key=key, times=None)
    with pytest.raises(StorageConflictError):
        backend.read_range(key, 0, 10, version)


@pytest.mark.parametrize('fault', [Stall(), Stall(BROKEN_AT)], ids=['before the answer', 'in its body'])
def test_a_read_that_stalls_ends_with_a_timeout(reading: Reading, fault: Fault) -> None:
    key, data = reading.new(SIZE)
    backend = reading.backend(SHORT_S)
    version = version_of(backend, key)
    reading.proxy.plan(fault, key=key, times=None)
    started = time.monotonic()
    with pytest.raises(StorageTimeoutError):
        backend.read_range(key, 0, SIZE, version)
    assert SHORT_S * 0.9 < time.monotonic() - started < SHORT_S + SLACK_S
    assert len(reading.proxy.reads(key)) == 1
    reading.proxy.heal()
    assert backend.read_range(key, 0, SIZE, version) == data


def test_a_storm_of_slow_down_is_waited_out(reading: Reading) -> None:
    key, data = reading.new(1_000)
    backend = reading.backend()
    version = version_of(backend, key)
    reading.proxy.plan(SLOW_DOWN, key=key, times=4)
    assert backend.read_range(key, 0, 1_000, version) == data
    assert len(reading.proxy.reads(key)) == 5


def test_a_storm_that_does_not_end_is_an_error_within_the_timeout_and_no_outage(reading: Reading) -> None:
    key, _ = reading.new(1_000)
    other, data = reading.new(1_000)
    backend = reading.backend(SHORT_S)
    version = version_of(backend, key)
    reading.proxy.plan(SLOW_DOWN, key=key, times=None)
    for _ in range(4):  # more than the failures that would open the breaker
        started = time.monotonic()
        with pytest.raises(StorageThrottledError, match='SlowDown'):
            backend.read_range(key, 0, 1_000, version)
        assert time.monotonic() - started < SHORT_S + SLACK_S
    assert backend.read_range(other, 0, 1_000, None) == data


def test_a_line_that_brings_nothing_is_given_up_and_then_left_alone(reading: Reading) -> None:
    key, _ = reading.new(1_000)
    backend = reading.backend(SHORT_S)
    version = version_of(backend, key)
    reading.proxy.plan(Reset(1), key=key, times=None)
    for _ in range(3):
        with pytest.raises(InterruptedReadError):
            backend.read_range(key, 0, 1_000, version)
    asked = reading.proxy.asked()
    with pytest.raises(StorageUnavailableError, match='asked again in'):
        backend.read_range(key, 0, 1_000, version)
    assert reading.proxy.asked() == asked
