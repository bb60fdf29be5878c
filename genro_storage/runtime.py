"""Time and threads, injected so that tests own both.

Owns the clock, the bounded worker pool and the rule that a thread which serves requests never waits for a backend.
"""

import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol, TypeVar

from genro_storage.errors import StorageError, StorageTimeoutError, StorageUnavailableError

T = TypeVar('T')
S = TypeVar('S')


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds since some start; never goes back."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""


class SystemClock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    def time_ns(self) -> int:
        """See Clock."""
        return time.time_ns()


class WouldBlock(BaseException):
    """Raised on a serving thread in place of waiting; the request starts again where it may.

    A BaseException, as trio's Cancelled is, because ``except Exception`` and the translation of errors on the way up
    must let it pass: nothing has failed.
    """


class _Thread(threading.local):
    serving = False


_thread = _Thread()


def serve_without_blocking() -> None:
    """Declare that the calling thread answers requests from memory and local disk and must never wait."""
    _thread.serving = True


def serving_without_blocking() -> AbstractContextManager[None]:
    """The calling thread does so inside."""
    return _serving(True)


def waiting_allowed() -> AbstractContextManager[None]:
    """The calling thread may wait inside, whatever it declared: somebody else serves meanwhile."""
    return _serving(False)


@contextmanager
def _serving(now: bool) -> Iterator[None]:
    before, _thread.serving = _thread.serving, now
    try:
        yield
    finally:
        _thread.serving = before


def about_to_block() -> None:
    """Call before waiting for a network or for another thread's I/O. Raises WouldBlock on a serving thread."""
    if _thread.serving:
        raise WouldBlock


_fork_safe: 'weakref.WeakSet[threading.Lock]' = weakref.WeakSet()
#: More than any of these locks is ever held; one that is stuck must not keep the process from forking.
_FORK_WAIT_S = 1.0


def fork_safe_lock() -> threading.Lock:
    """A lock that a fork waits for, so that the child finds it free and what it guards whole.

    Only for locks under which nothing waits and no other lock is taken.
    """
    lock = threading.Lock()
    _fork_safe.add(lock)
    return lock


class _Forking(threading.local):
    def __init__(self) -> None:
        self.taken: list[threading.Lock] = []


_forking = _Forking()


def _before_fork() -> None:
    _forking.taken = [lock for lock in list(_fork_safe) if lock.acquire(timeout=_FORK_WAIT_S)]


def _after_fork() -> None:
    for lock in _forking.taken:
        lock.release()
    _forking.taken = []


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def outcome_of(future: Future[T], deadline_s: float, what: str) -> T:
    """What somebody else is at, waiting for it. Raises what that raises, StorageTimeoutError after the deadline."""
    try:
        return future.result(deadline_s)
    except FutureTimeoutError as error:
        if isinstance(error, StorageError):  # the backend's own, which is a TimeoutError too
            raise
        raise StorageTimeoutError(f'{what} within {deadline_s:g} s') from error


def jitter_s(first_s: float, failures: int) -> float:
    """How long to pause after so many failures in a row: random between nothing and first_s times 2^(failures - 1).

    "Full jitter": of the ways to spread retries the one with the least work for the server.
    """
    return random.uniform(0, first_s * 2 ** (failures - 1))  # noqa: S311 - not a secret


class HandleLock:
    """The one kind of lock that may be held across I/O: a handle's or a staged file's own.

    A serving thread takes it only if it is free.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            about_to_block()
            self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    @property
    def is_taken(self) -> bool:
        """Whether another thread held it a moment ago."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return False
        return True


class WorkerPool:
    """Threads for one purpose of one mount, started as needed, with a bounded queue; those of others count if admitted.

    A standard ThreadPoolExecutor has no bound on its queue and joins its threads at exit, where a dead backend would
    hold the process; these threads are daemons, and close() waits only as long as it is told.
    """

    def __init__(self, name: str, threads: int, queue_limit: int = 4096) -> None:
        self._name = name
        self._thread_limit = threads
        self._queue_limit = queue_limit
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child, where the threads are gone and a lock may have been held."""
        self._lock = threading.Condition(threading.Lock())
        # All guarded by _lock.
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0  # threads that wait, or were woken and have not taken their job yet
        self._guests = 0  # threads of others, admitted and not dismissed yet
        self._closed = False

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run a function on a worker. Raises StorageUnavailableError when the queue is full or the pool closed."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - the future carries it to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

        self.start(run)
        return future

    def start(self, job: Callable[[], None]) -> None:
        """Run a job that handles its own errors. Raises StorageUnavailableError as submit does."""
        with self._lock:
            if self._closed:
                raise StorageUnavailableError(f'{self._name}: closed')
            if len(self._jobs) >= self._queue_limit:
                raise StorageUnavailableError(f'{self._name}: {self._queue_limit} requests wait already')
            self._jobs.append(job)
            try:
                self._have_it_done()
            except BaseException:
                self._jobs.pop()
                raise

    def admit(self) -> bool:
        """Count the calling thread, which is about to wait, as a worker until dismiss(). False if all are busy."""
        with self._lock:
            # The last place is for a thread of its own: what is queued must not depend on guests.
            if self._closed or self._jobs or self._is_full() or self._guests >= self._thread_limit - 1:
                return False
            self._guests += 1
            return True

    def dismiss(self) -> None:
        """The calling thread has done what it was admitted for."""
        with self._lock:
            self._guests -= 1
            if self._jobs:
                self._have_it_done()
            if self._closed:
                self._lock.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Let queued work finish, for at most this long; whether it did."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            left = self._lock.wait_for(lambda: not self._guests, max(0.0, deadline - time.monotonic()))
        return left and not any(thread.is_alive() for thread in threads)

    def each(self, function: Callable[[S], object], items: Iterable[S], at_once: int) -> None:
        """Call a function for each item, so many at a time; the first failure, once all that had begun have ended."""
        under_way: set[Future[object]] = set()
        try:
            for item in items:
                if len(under_way) >= at_once:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                under_way.add(self.submit(partial(function, item)))
            for future in under_way:
                future.result()
        finally:
            for future in under_way:
                future.cancel()
            wait(under_way)

    def _is_full(self) -> bool:
        """Whether as many are busy as may be. Under the lock."""
        return len(self._threads) - self._idle + self._guests >= self._thread_limit

    def _have_it_done(self) -> None:
        """See to it that somebody takes the job that was queued last. Under the lock."""
        # Jobs that nobody has taken, against threads that are free to: a job never waits behind one that is stuck
        # while there may be more threads.
        if len(self._jobs) > self._idle and len(self._threads) + self._guests < self._thread_limit:
            self._start_thread()
        self._lock.notify()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f'{self._name}-{len(self._threads)}', daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads; those that run will do
            if not self._threads:
                raise StorageUnavailableError(f'{self._name}: no thread could be started: {error}') from error
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
                while (not self._jobs or self._is_full()) and not self._closed:
                    self._lock.wait()
                self._idle -= 1
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            job()
