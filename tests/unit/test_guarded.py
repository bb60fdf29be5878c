"""Retries and the circuit breaker, with a backend that fails when it is told to and a clock that is moved by hand."""

import pytest

from genro_storage.backends.base import (
    ABSENT,
    Backend,
    Capabilities,
    HoldsBack,
    InterruptedReadError,
    MovesInSteps,
    PartUpload,
    UploadsInParts,
)
from genro_storage.backends.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, THRESHOLD, CircuitBreaker
from genro_storage.backends.guarded import PROGRESS_BYTES, THROTTLED_TRIES, TRIES, GuardedBackend
from genro_storage.backends.memory import MemoryBackend
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.entry import Extent
from genro_storage.errors import (
    StorageNotFoundError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.testing.clock import ManualClock
from genro_storage.testing.faulty import FaultyBackend
from genro_storage.testing.sources import BytesSource
from tests.unit.buckets import DictRequests

REMOTE = Capabilities(strong_versions=True, conditional_put=True)
UNREACHABLE = StorageUnavailableError('connection refused')


class Guarded:
    """A guarded backend, what is below it, and time that goes by in pauses only."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.clock = ManualClock()
        self.faulty = FaultyBackend(MemoryBackend(self.clock), REMOTE)
        self.pauses: list[float] = []
        self.backend: Backend = GuardedBackend(self.faulty, self.clock, timeout_s, self._pause)
        self.version = self.faulty.inner.put('file', BytesSource(b'0123456789')).version

    def read(self) -> bytes:
        return self.backend.read_range('file', 0, 10, self.version)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def test_operation_is_tried_again_until_it_succeeds(guarded: Guarded) -> None:
    for nth in range(1, TRIES):
        guarded.faulty.fail('stat', UNREACHABLE, nth=nth)
    assert guarded.backend.stat('file').size_bytes == 10
    assert guarded.faulty.calls('stat') == TRIES


def test_one_lost_connection_is_not_noticed(guarded: Guarded) -> None:
    guarded.faulty.fail('stat', UNREACHABLE)
    assert guarded.backend.stat('file').size_bytes == 10
    assert len(guarded.pauses) == 1


def test_throttling_is_waited_out_and_opens_no_breaker(guarded: Guarded) -> None:
    for _ in range(20):
        for nth in range(1, TRIES):
            guarded.faulty.fail('stat', StorageThrottledError('slow down'), nth=nth)
        assert guarded.backend.stat('file').size_bytes == 10


def test_pauses_grow_but_are_bounded_by_the_timeout() -> None:
    guarded = Guarded(timeout_s=0.3)
    guarded.faulty.fail_always('stat', StorageThrottledError('slow down'))
    with pytest.raises(StorageThrottledError):
        guarded.backend.stat('file')
    assert sum(guarded.pauses) <= 0.3


def test_what_the_backend_answers_is_no_failure(guarded: Guarded) -> None:
    for _ in range(THRESHOLD + 1):
        with pytest.raises(StorageNotFoundError):
            guarded.backend.stat('nothing')
    assert guarded.faulty.calls('stat') == THRESHOLD + 1
    assert guarded.pauses == []


def test_read_goes_on_where_it_broke_off(guarded: Guarded) -> None:
    guarded.faulty.fail('read_range', InterruptedReadError('reset', b'0123'))
    asked: list[tuple[int, int]] = []
    read = guarded.faulty.inner.read_range
    guarded.faulty.inner.read_range = lambda path, offset, size, version: (  # type: ignore[method-assign]
        asked.append((offset, size)) or read(path, offset, size, version)
    )
    assert guarded.read() == b'0123456789'
    assert asked == [(4, 6)]


def test_progress_begins_the_timeout_anew() -> None:
    guarded = Guarded(timeout_s=0.001)
    guarded.faulty.fail('read_range', InterruptedReadError('reset', b'01'), nth=1)
    # A pause of at most 0.2 s is longer than this timeout, whatever the dice say but nothing.
    with pytest.raises(InterruptedReadError):
        guarded.read()
    patient = Guarded(timeout_s=10)
    for nth in (1, 2):
        patient.faulty.fail('read_range', InterruptedReadError('reset', b'01'), nth=nth)
    assert patient.read() == b'0101456789'


def test_what_is_of_no_known_version_is_read_from_the_start(guarded: Guarded) -> None:
    guarded.faulty.fail('read_range', InterruptedReadError('reset', b'of an older'))
    assert guarded.backend.read_range('file', 0, 10, None) == b'0123456789'


def test_a_read_that_broke_off_behind_its_last_byte_is_complete(guarded: Guarded) -> None:
    guarded.faulty.fail('read_range', InterruptedReadError('reset', b'0123456789'))
    assert guarded.read() == b'0123456789'
    assert guarded.faulty.calls('read_range') == 1


def test_a_line_that_breaks_again_and_again_gets_there_as_long_as_it_brings_something(guarded: Guarded) -> None:
    data = bytes(range(256)) * (PROGRESS_BYTES // 64)
    version = guarded.faulty.inner.put('large', BytesSource(data)).version
    breaks = len(data) // PROGRESS_BYTES
    assert breaks > TRIES - 1
    for number in range(breaks):
        piece = data[number * PROGRESS_BYTES : (number + 1) * PROGRESS_BYTES]
        guarded.faulty.fail('read_range', InterruptedReadError('reset', piece), nth=number + 1)
    assert guarded.backend.read_range('large', 0, len(data), version) == data
    # One that brings next to nothing is given up.
    for number in range(TRIES):
        guarded.faulty.fail('read_range', InterruptedReadError('reset', b'0'), nth=number + 1)
    with pytest.raises(InterruptedReadError):
        guarded.backend.read_range('large', 0, len(data), version)


def test_a_storm_of_throttling_is_waited_out_longer_than_silence(guarded: Guarded) -> None:
    for nth in range(1, THROTTLED_TRIES):
        guarded.faulty.fail('stat', StorageThrottledError('slow down'), nth=nth)
    assert guarded.backend.stat('file').size_bytes == 10
    guarded.faulty.fail_always('stat', StorageThrottledError('slow down'))
    with pytest.raises(StorageThrottledError):
        guarded.backend.stat('file')
    assert guarded.faulty.calls('stat') == 2 * THROTTLED_TRIES


def test_conditional_put_is_not_tried_again(guarded: Guarded) -> None:
    guarded.faulty.fail('put', UNREACHABLE, after=True)
    with pytest.raises(StorageUnavailableError):
        guarded.backend.put('new', BytesSource(b'x'), expected=ABSENT)
    assert guarded.faulty.calls('put') == 1


def test_unconditional_put_is_tried_again(guarded: Guarded) -> None:
    guarded.faulty.fail('put', UNREACHABLE)
    assert guarded.backend.put('new', BytesSource(b'x')).size_bytes == 1


@pytest.mark.parametrize('error', [UNREACHABLE, StorageTimeoutError('nothing came')], ids=['refused', 'stalled'])
def test_dead_backend_fails_at_once_after_a_few_failures(guarded: Guarded, error: Exception) -> None:
    guarded.faulty.fail_always('remove_file', error)
    for _ in range(THRESHOLD):
        with pytest.raises(type(error)):
            guarded.backend.remove_file('file')
    with pytest.raises(StorageUnavailableError, match='asked again in'):
        guarded.backend.stat('file')
    assert guarded.faulty.calls('remove_file') == THRESHOLD
    assert guarded.faulty.calls('stat') == 0


def test_backend_that_is_back_works_again_after_the_pause(guarded: Guarded) -> None:
    guarded.faulty.fail_always('remove_file', UNREACHABLE)
    for _ in range(THRESHOLD):
        with pytest.raises(StorageUnavailableError):
            guarded.backend.remove_file('file')
    guarded.faulty.heal()
    guarded.clock.advance(2 * FIRST_PAUSE_S)
    assert guarded.backend.stat('file').size_bytes == 10
    guarded.backend.remove_file('file')


def test_backend_that_is_wanted_again_is_asked_at_once(guarded: Guarded) -> None:
    guarded.faulty.fail_always('remove_file', UNREACHABLE)
    for _ in range(THRESHOLD):
        with pytest.raises(StorageUnavailableError):
            guarded.backend.remove_file('file')
    guarded.faulty.heal()
    assert isinstance(guarded.backend, HoldsBack)
    guarded.backend.ask_again()
    assert guarded.backend.stat('file').size_bytes == 10


def test_only_one_caller_tries_after_the_pause() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(clock)
    for _ in range(THRESHOLD):
        breaker.failed()
    clock.advance(2 * FIRST_PAUSE_S)
    assert breaker.may_ask() == 0
    assert breaker.may_ask() > 0
    breaker.left_open()
    assert breaker.may_ask() == 0
    breaker.succeeded()
    assert breaker.may_ask() == breaker.may_ask() == 0


def test_pauses_of_the_breaker_double_up_to_a_bound() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(clock)
    for _ in range(THRESHOLD):
        breaker.failed()
    waits = []
    for _ in range(10):
        waits.append(breaker.may_ask())
        clock.advance(2 * LONGEST_PAUSE_S)
        assert breaker.may_ask() == 0
        breaker.failed()
    assert all(0.8 * FIRST_PAUSE_S * 2**n <= wait <= 1.2 * FIRST_PAUSE_S * 2**n for n, wait in enumerate(waits[:3]))
    assert max(waits) <= 1.2 * LONGEST_PAUSE_S


def test_many_failures_of_one_outage_make_one_pause() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(clock)
    for _ in range(20):  # of as many readers that asked before it opened
        breaker.failed()
    assert breaker.may_ask() <= 1.2 * FIRST_PAUSE_S


class GuardedUploads:
    """A guarded backend with uploads in parts, and what is below it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bucket = DictRequests()
        self.faulty = FaultyBackend(ObjectDirectories(self.bucket))
        guarded = GuardedBackend(self.faulty, self.clock, 30, self.clock.advance)
        assert guarded.capabilities.moves_in_steps
        self.mover: MovesInSteps = guarded
        self.backend: GuardedBackend = guarded

    def begin(self) -> PartUpload:
        upload = self.backend.begin_upload('file')
        assert upload is not None
        return upload


@pytest.fixture
def uploads() -> GuardedUploads:
    return GuardedUploads()


def test_all_of_an_upload_but_its_completion_is_tried_again(uploads: GuardedUploads) -> None:
    version = uploads.faulty.put('file', BytesSource(b'0123456789')).version
    assert version is not None
    for method in ('begin_upload', 'upload.send', 'upload.copy', 'upload.abort', 'abort_upload'):
        uploads.faulty.fail(method, UNREACHABLE, after=method != 'begin_upload')
    upload = uploads.begin()
    upload.send(1, BytesSource(b'new'), Extent(0, 3))
    upload.copy(2, Extent(3, 7), version)
    assert upload.complete(2, version).size_bytes == 10
    assert uploads.bucket.stored['file'] == b'new3456789'
    another = uploads.begin()
    uploads.backend.abort_upload('file', another.token)
    another.abort()
    assert uploads.bucket.uploads == {}
    for method in ('upload.send', 'upload.copy', 'upload.abort', 'abort_upload'):
        assert uploads.faulty.calls(method) == 2


def test_completion_of_an_upload_is_not_tried_again(uploads: GuardedUploads) -> None:
    upload = uploads.begin()
    upload.send(1, BytesSource(b'new'), Extent(0, 3))
    uploads.faulty.fail('upload.complete', UNREACHABLE, after=True)
    with pytest.raises(StorageUnavailableError):
        upload.complete(1, None)
    assert uploads.faulty.calls('upload.complete') == 1


def test_backend_without_uploads_in_parts_has_none_when_it_is_guarded(guarded: Guarded) -> None:
    assert isinstance(guarded.backend, UploadsInParts)
    assert guarded.backend.begin_upload('file') is None
    guarded.backend.abort_upload('file', 'of nothing')
    assert not guarded.backend.capabilities.moves_in_steps


@pytest.mark.parametrize('step', ['plan_move', 'copy_planned', 'remove_planned'])
def test_steps_of_a_move_are_tried_again(uploads: GuardedUploads, step: str) -> None:
    uploads.faulty.put('d/file', BytesSource(b'1'))
    uploads.faulty.fail(step, UNREACHABLE, after=True)
    moves = uploads.mover.plan_move('d', 'moved')
    uploads.mover.copy_planned('d', 'moved', moves)
    uploads.mover.remove_planned('d', 'moved', moves)
    assert uploads.bucket.stored == {'moved/file': b'1'}
    assert uploads.faulty.calls(step) == 2


def test_undoing_a_move_is_tried_again(uploads: GuardedUploads) -> None:
    uploads.faulty.put('d/file', BytesSource(b'1'))
    moves = uploads.mover.plan_move('d', 'moved')
    uploads.mover.copy_planned('d', 'moved', moves)
    uploads.faulty.fail('undo_planned', UNREACHABLE, after=True)
    uploads.mover.undo_planned('d', 'moved', moves)
    assert uploads.bucket.stored == {'d/file': b'1'}


def test_hints_reach_the_backend(uploads: GuardedUploads) -> None:
    for name in 'ab':
        uploads.backend.put(f'd/{name}', BytesSource(b'1'), placed=True)
    uploads.backend.remove_file('d/a', seen=True, beside=True)
    assert uploads.bucket.count == {'upload': 2, 'remove': 1}
