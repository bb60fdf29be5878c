"""Worker pools, and the rule that a thread which serves requests never waits."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from genro_storage.errors import StorageUnavailableError
from genro_storage.runtime import (
    HandleLock,
    SystemClock,
    WorkerPool,
    WouldBlock,
    about_to_block,
    serve_without_blocking,
)
from genro_storage.testing import ManualClock

WAIT_S = 10.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Jobs that wait for it are let go at the end, whatever happens."""
    gate = threading.Event()
    yield gate
    gate.set()


def threads_of(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f'{name}-')]


def on_serving_thread(function: Callable[[], object]) -> BaseException | None:
    """What a function raises on a thread that serves requests."""
    raised: list[BaseException] = []

    def serve() -> None:
        serve_without_blocking()
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    return raised[0] if raised else None


class TestWorkerPool:
    def test_no_thread_is_started_before_there_is_work(self) -> None:
        pool = WorkerPool('lazy', 4)
        assert threads_of('lazy') == []
        assert pool.submit(lambda: 7).result(WAIT_S) == 7
        assert len(threads_of('lazy')) == 1
        assert pool.close(WAIT_S)
        assert threads_of('lazy') == []

    def test_an_idle_thread_is_used_again(self) -> None:
        pool = WorkerPool('reuse', 4)
        for number in range(50):
            assert pool.submit(lambda number=number: number).result(WAIT_S) == number  # type: ignore[misc]
            while not pool._idle:
                pass  # the worker is on its way back to the queue, and needs nothing for it
        assert len(threads_of('reuse')) == 1
        assert pool.close(WAIT_S)

    def test_as_many_run_at_once_as_there_may_be_threads_and_no_more(self, gate: threading.Event) -> None:
        pool = WorkerPool('bound', 3)
        running = threading.Semaphore(0)

        def work() -> None:
            running.release()
            gate.wait(WAIT_S)

        futures = [pool.submit(work) for _ in range(5)]
        for _ in range(3):
            assert running.acquire(timeout=WAIT_S)
        assert not running.acquire(blocking=False)
        assert len(threads_of('bound')) == 3
        gate.set()
        for future in futures:
            future.result(WAIT_S)
        assert pool.close(WAIT_S)

    def test_a_job_never_waits_behind_one_that_is_stuck_while_there_may_be_more_threads(
        self, gate: threading.Event
    ) -> None:
        """However the worker and the next job race for what is said of idle threads."""
        for _ in range(200):
            pool = WorkerPool('stuck', 2)
            pool.submit(lambda: None).result(WAIT_S)
            stuck = pool.submit(lambda: gate.wait(WAIT_S))
            assert pool.submit(lambda: 7).result(WAIT_S) == 7
            gate.set()
            stuck.result(WAIT_S)
            assert pool.close(WAIT_S)
            gate.clear()

    def test_who_is_admitted_counts_as_a_worker_and_leaves_the_last_place_to_one(self, gate: threading.Event) -> None:
        pool = WorkerPool('guests', 3)
        assert [pool.admit() for _ in range(3)] == [True, True, False]
        futures = [pool.submit(lambda: gate.wait(WAIT_S)), pool.submit(lambda: True)]
        assert len(threads_of('guests')) == 1
        assert not futures[1].done()
        pool.dismiss()
        assert futures[1].result(WAIT_S)
        gate.set()
        assert futures[0].result(WAIT_S)
        pool.dismiss()
        assert pool.close(WAIT_S)

    def test_who_is_admitted_takes_no_place_from_what_waits_already(self, gate: threading.Event) -> None:
        pool = WorkerPool('order', 2)
        assert pool.admit()
        stuck, queued = pool.submit(lambda: gate.wait(WAIT_S)), pool.submit(lambda: True)
        assert not pool.admit()
        gate.set()
        assert stuck.result(WAIT_S)
        assert queued.result(WAIT_S)
        pool.dismiss()
        assert pool.admit()
        pool.dismiss()
        assert pool.close(WAIT_S)

    def test_threads_that_are_idle_begin_nothing_while_the_pool_is_full_of_guests(self, gate: threading.Event) -> None:
        pool = WorkerPool('both', 3)
        for future in [pool.submit(lambda: gate.wait(WAIT_S)) for _ in range(3)]:
            gate.set()
            assert future.result(WAIT_S)
        gate.clear()
        while pool._idle < 3:
            pass
        assert pool.admit()
        assert pool.admit()
        running = threading.Semaphore(0)
        futures = [pool.submit(lambda: (running.release(), gate.wait(WAIT_S))) for _ in range(3)]
        assert running.acquire(timeout=WAIT_S)
        assert not running.acquire(timeout=0.05)
        pool.dismiss()
        assert running.acquire(timeout=WAIT_S)
        assert not running.acquire(timeout=0.05)
        gate.set()
        for future in futures:
            future.result(WAIT_S)
        pool.dismiss()
        assert pool.close(WAIT_S)

    def test_close_waits_for_guests_too(self) -> None:
        pool = WorkerPool('guest', 2)
        assert pool.admit()
        assert pool.close(0.01) is False
        assert not pool.admit()
        pool.dismiss()
        assert pool.close(0.01) is True

    def test_the_queue_is_bounded(self, gate: threading.Event) -> None:
        pool = WorkerPool('full', 1, queue_limit=2)
        begun = threading.Event()

        def work() -> None:
            begun.set()
            gate.wait(WAIT_S)

        futures = [pool.submit(work)]
        assert begun.wait(WAIT_S)
        futures += [pool.submit(work), pool.submit(work)]
        with pytest.raises(StorageUnavailableError, match=r'full.*2 requests'):
            pool.submit(work)
        gate.set()
        for future in futures:
            future.result(WAIT_S)
        assert pool.submit(lambda: 7).result(WAIT_S) == 7
        assert pool.close(WAIT_S)

    def test_close_lets_queued_work_finish(self, gate: threading.Event) -> None:
        pool = WorkerPool('drain', 1)
        done: list[int] = []
        first = pool.submit(lambda: gate.wait(WAIT_S))
        for number in range(3):
            pool.start(lambda number=number: done.append(number))  # type: ignore[misc]
        closer = threading.Thread(target=lambda: done.append(99 if pool.close(WAIT_S) else -1))
        closer.start()
        gate.set()
        closer.join(WAIT_S)
        assert done == [0, 1, 2, 99]
        assert first.done()

    def test_close_waits_only_as_long_as_it_is_told(self, gate: threading.Event) -> None:
        pool = WorkerPool('deadline', 1)
        future = pool.submit(lambda: gate.wait(WAIT_S))
        assert pool.close(0.01) is False
        gate.set()
        future.result(WAIT_S)
        assert pool.close(WAIT_S) is True

    def test_a_closed_pool_takes_no_work(self) -> None:
        pool = WorkerPool('closed', 1)
        assert pool.close(0.0)
        with pytest.raises(StorageUnavailableError, match='closed'):
            pool.start(lambda: None)

    def test_what_a_function_raises_is_raised_to_who_waits(self) -> None:
        pool = WorkerPool('error', 1)
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 // 0).result(WAIT_S)
        assert pool.submit(lambda: 7).result(WAIT_S) == 7
        assert pool.close(WAIT_S)

    def test_what_is_cancelled_in_time_does_not_run(self, gate: threading.Event) -> None:
        pool = WorkerPool('cancel', 1)
        done: list[int] = []
        pool.submit(lambda: gate.wait(WAIT_S))
        future: Future[None] = pool.submit(lambda: done.append(1))
        assert future.cancel()
        gate.set()
        assert pool.close(WAIT_S)
        assert done == []

    def test_a_system_without_threads_is_said_and_holds_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pool = WorkerPool('none', 2)
        done: list[int] = []

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, 'start', refuse)
            with pytest.raises(StorageUnavailableError, match='no thread'):
                pool.start(lambda: done.append(1))
        pool.start(lambda: done.append(2))
        assert pool.close(WAIT_S)
        assert done == [2]


class TestServingThreads:
    def test_a_serving_thread_raises_in_place_of_waiting(self) -> None:
        assert isinstance(on_serving_thread(about_to_block), WouldBlock)

    def test_others_wait(self) -> None:
        about_to_block()

    def test_would_block_passes_what_catches_errors(self) -> None:
        assert not issubclass(WouldBlock, Exception)


class TestHandleLock:
    def test_a_serving_thread_takes_a_free_one(self) -> None:
        lock = HandleLock()

        def take() -> None:
            with lock:
                pass

        assert on_serving_thread(take) is None

    def test_a_serving_thread_does_not_wait_for_one_that_is_held(self) -> None:
        lock = HandleLock()

        def take() -> None:
            with lock:
                pass

        with lock:
            assert isinstance(on_serving_thread(take), WouldBlock)
        assert on_serving_thread(take) is None

    def test_others_wait_for_it(self) -> None:
        lock = HandleLock()
        order: list[str] = []

        def wait() -> None:
            with lock:
                order.append('waited')

        thread = threading.Thread(target=wait)
        with lock:
            thread.start()
            order.append('first')
        thread.join(WAIT_S)
        assert order == ['first', 'waited']

    def test_who_holds_it_may_take_it_again(self) -> None:
        lock = HandleLock()
        with lock, lock:
            pass


class TestClocks:
    def test_the_system_clock_goes_forward(self) -> None:
        clock = SystemClock()
        assert clock.monotonic() <= clock.monotonic()
        assert clock.time_ns() > 1_700_000_000_000_000_000

    def test_a_manual_clock_moves_only_when_told(self) -> None:
        clock = ManualClock(5)
        assert (clock.monotonic(), clock.time_ns()) == (0.0, 5)
        clock.advance(1.5)
        assert (clock.monotonic(), clock.time_ns()) == (1.5, 1_500_000_005)
        with pytest.raises(ValueError, match='forward'):
            clock.advance(-1)
