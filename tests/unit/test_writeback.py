"""When what waits is uploaded, and when it is tried again."""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from genro_storage.errors import StorageIOError
from genro_storage.runtime import SystemClock
from genro_storage.testing import ManualClock
from genro_storage.writing.writeback import DELAYS_MAX, FIRST_PAUSE_S, LONGEST_PAUSE_S, UPLOADS_AT_ONCE, Writeback

WAIT_S = 10.0


class Uploads:
    """Counts them, fails some, and holds them up where it is told to."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Semaphore(0)
        self.at_once = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            self.count[name] += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.reached.release()
        try:
            assert self.gate.wait(WAIT_S)
            if name in self.failing:
                raise StorageIOError('broken')
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def waiting(uploads: Uploads, clock: ManualClock) -> Iterator[Writeback[str]]:
    waiting: Writeback[str] = Writeback('m', uploads, clock, 5.0)
    yield waiting
    uploads.gate.set()
    assert waiting.close(WAIT_S)


def due_in(waiting: Writeback[str], clock: ManualClock, name: str) -> float:
    return waiting._due[name].at_s - clock.monotonic()


def test_the_delay_counts_from_the_last_close_and_ends_at_last(waiting: Writeback[str], clock: ManualClock) -> None:
    waiting.add('f')
    assert due_in(waiting, clock, 'f') == 5.0
    for _ in range(DELAYS_MAX - 1):
        clock.advance(4)
        waiting.add('f')
        assert due_in(waiting, clock, 'f') == 5.0
    clock.advance(4)
    waiting.add('f')
    clock.advance(4)
    waiting.add('f')
    assert due_in(waiting, clock, 'f') < 5.0


def test_what_is_due_is_uploaded_by_itself(uploads: Uploads) -> None:
    waiting: Writeback[str] = Writeback('m', uploads, SystemClock(), 0.05)
    waiting.add('f')
    assert uploads.reached.acquire(timeout=WAIT_S)
    assert waiting.wait(WAIT_S) == 0
    assert waiting.close(WAIT_S)


def test_in_a_hurry_everything_is_tried_at_once(waiting: Writeback[str], uploads: Uploads) -> None:
    for number in range(20):
        waiting.add(f'{number}')
    waiting.hurry()
    assert waiting.wait(WAIT_S) == 0
    assert set(uploads.count.values()) == {1}
    assert len(uploads.count) == 20


def test_a_bounded_number_goes_at_once(waiting: Writeback[str], uploads: Uploads) -> None:
    uploads.gate.clear()
    for number in range(3 * UPLOADS_AT_ONCE):
        waiting.add(f'{number}')
    waiting.hurry()
    for _ in range(UPLOADS_AT_ONCE):
        assert uploads.reached.acquire(timeout=WAIT_S)
    uploads.gate.set()
    assert waiting.wait(WAIT_S) == 0
    assert uploads.most == UPLOADS_AT_ONCE


def test_what_fails_is_tried_again_after_pauses_that_grow_up_to_a_bound(
    waiting: Writeback[str], uploads: Uploads, clock: ManualClock
) -> None:
    uploads.failing.add('f')
    waiting.add('f')
    pauses = []
    for tries in range(1, 12):
        waiting.hurry()
        assert uploads.reached.acquire(timeout=WAIT_S)
        with waiting._lock:
            assert waiting._lock.wait_for(lambda: waiting._due['f'].tries == tries, WAIT_S)  # noqa: B023 - called here
        pauses.append(due_in(waiting, clock, 'f'))
    assert FIRST_PAUSE_S / 2 <= pauses[0] <= FIRST_PAUSE_S
    assert all(later > earlier for earlier, later in zip(pauses[:4:2], pauses[2:6:2], strict=True))
    assert all(LONGEST_PAUSE_S / 2 <= pause <= LONGEST_PAUSE_S for pause in pauses[-3:])
    uploads.failing.clear()
    waiting.hurry()
    assert waiting.wait(WAIT_S) == 0


def test_a_close_does_not_shorten_the_pause_of_what_failed(
    waiting: Writeback[str], uploads: Uploads, clock: ManualClock
) -> None:
    uploads.failing.add('f')
    waiting.add('f')
    for _ in range(6):
        waiting.hurry()
        assert uploads.reached.acquire(timeout=WAIT_S)
    with waiting._lock:
        assert waiting._lock.wait_for(lambda: waiting._due['f'].tries == 6, WAIT_S)
    before = due_in(waiting, clock, 'f')
    waiting.add('f')
    assert due_in(waiting, clock, 'f') == before > 5.0


def test_waiting_ends_when_nothing_succeeds_any_more_and_says_what_is_left(
    waiting: Writeback[str], uploads: Uploads
) -> None:
    uploads.failing |= {'a', 'b'}
    for name in 'abc':
        waiting.add(name)
    waiting.hurry()
    assert waiting.wait(0.5) == 2


def test_what_is_added_while_it_is_uploaded_is_uploaded_again(
    waiting: Writeback[str], uploads: Uploads, clock: ManualClock
) -> None:
    uploads.gate.clear()
    waiting.add('f', 0)
    assert uploads.reached.acquire(timeout=WAIT_S)
    waiting.add('f')
    uploads.gate.set()
    with waiting._lock:
        assert waiting._lock.wait_for(lambda: not waiting._due['f'].running, WAIT_S)
    assert due_in(waiting, clock, 'f') == 5.0
    waiting.hurry()
    assert waiting.wait(WAIT_S) == 0
    assert uploads.count['f'] == 2


def test_what_nobody_foresaw_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    def fail(name: str) -> None:
        raise RuntimeError(name)

    waiting: Writeback[str] = Writeback('m', fail, ManualClock(), 5.0)
    waiting.add('f', 0)
    with waiting._lock:
        assert waiting._lock.wait_for(lambda: waiting._due['f'].tries == 1, WAIT_S)
    assert waiting.close(WAIT_S)
    assert 'nobody foresaw' in caplog.text
