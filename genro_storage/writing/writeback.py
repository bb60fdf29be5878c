"""When what was acknowledged is uploaded: a while after the last close, in parallel, and again until it succeeds.

Owns delays, pauses between tries and how many uploads go at once. Does not know what an upload is. Threads: safe; one
lock, never held while anything is uploaded. A thread that waits for the next one that is due is started with the first.
"""

import heapq
import itertools
import logging
import math
import random
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import msgspec

from genro_storage.errors import StorageError
from genro_storage.runtime import Clock, WorkerPool

log = logging.getLogger(__name__)

T = TypeVar('T', bound=Hashable)

#: Of one mount: small files are round trips, and a large one is sent in several parts by itself.
UPLOADS_AT_ONCE = 8
#: A file that is written again and again is uploaded at last after so many delays since the first close.
DELAYS_MAX = 6
#: The pause before the n-th further try is random between half of it and all of FIRST_PAUSE_S times 2^n, for ever.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class _Due(msgspec.Struct):
    at_s: float
    first_s: float
    tries: int = 0
    running: bool = False
    again: bool = False  # it was acknowledged anew while it was being uploaded


class Writeback(Generic[T]):
    """What waits for its upload, and when it is due."""

    def __init__(self, name: str, upload: Callable[[T], None], clock: Clock, delay_s: float) -> None:
        """upload: raises StorageError where it is to be tried again."""
        self._name = name
        self._upload = upload
        self._clock = clock
        self._delay_s = delay_s
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child: what waits is the parent's to upload."""
        self._lock = threading.Condition(threading.Lock())
        # All guarded by _lock.
        self._due: dict[T, _Due] = {}
        # (time, number, item), one for each that is not running: that is no later than it is due. Its number keeps two
        # of the same time apart.
        self._queue: list[tuple[float, int, T]] = []
        self._numbers = itertools.count()
        self._sleeps_until_s = math.inf
        self._thread: threading.Thread | None = None
        self._closed = False
        self._workers = WorkerPool(f'{self._name}-upload', UPLOADS_AT_ONCE)

    def add(self, item: T, delay_s: float | None = None) -> None:
        """Upload an item after a delay, by default the mount's; one that waits already, later than it would be."""
        delay_s = self._delay_s if delay_s is None else delay_s
        now = self._clock.monotonic()
        with self._lock:
            due = self._due.get(item)
            if due is None:
                self._due[item] = _Due(now + delay_s, now)
                self._queue_up(item)
            elif due.running:
                due.again = True
            elif not due.tries:  # one that failed keeps its pause
                due.at_s = min(now + delay_s, due.first_s + DELAYS_MAX * delay_s)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=f'{self._name}-writeback', daemon=True)
                self._thread.start()

    def hurry(self) -> None:
        """Have all that waits tried now, whatever its delay or pause."""
        with self._lock:
            for item, due in self._due.items():
                due.at_s = self._clock.monotonic()
                if not due.running:
                    self._queue_up(item)

    def wait(self, patience_s: float) -> int:
        """Wait until nothing is left, or nothing more has succeeded for so long; how many are left."""
        with self._lock:
            while self._due:
                left = len(self._due)
                if not self._lock.wait_for(lambda: len(self._due) < left, patience_s):  # noqa: B023 - called here
                    break
            return len(self._due)

    def close(self, timeout_s: float) -> bool:
        """Begin no further upload, and let those under way end, for at most this long; whether they did."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        return self._workers.close(timeout_s)

    # Inside

    def _queue_up(self, item: T) -> None:
        """Have an item started when it is due. Under the lock."""
        at_s = self._due[item].at_s
        heapq.heappush(self._queue, (at_s, next(self._numbers), item))
        if at_s < self._sleeps_until_s:
            self._lock.notify_all()

    def _run(self) -> None:
        """Start what is due, when it is."""
        while True:
            with self._lock:
                if self._closed:
                    return
                item = self._next()
                if item is None:
                    continue
                self._due[item].running = True
            self._start(item)

    def _next(self) -> T | None:
        """An item that is due; else wait for one, and look again. Under the lock."""
        now = self._clock.monotonic()
        while self._queue:
            at_s, _, item = self._queue[0]
            due = self._due.get(item)
            if due is not None and not due.running and at_s < due.at_s:  # it was put off since
                heapq.heapreplace(self._queue, (due.at_s, next(self._numbers), item))
            elif due is None or due.running or at_s > due.at_s:  # queued twice, or done
                heapq.heappop(self._queue)
            elif at_s <= now:
                heapq.heappop(self._queue)
                return item
            else:
                break
        self._sleeps_until_s = self._queue[0][0] if self._queue else math.inf
        self._lock.wait(self._sleeps_until_s - now if self._queue else None)
        self._sleeps_until_s = -math.inf
        return None

    def _start(self, item: T) -> None:
        try:
            self._workers.start(lambda: self._try(item))
        except StorageError as error:  # thousands wait already
            self._ended(item, error)

    def _try(self, item: T) -> None:
        try:
            self._upload(item)
        except StorageError as error:
            self._ended(item, error)
        except Exception as error:
            log.exception('%s: an upload failed in a way that nobody foresaw', self._name)
            self._ended(item, error)
        else:
            self._ended(item, None)

    def _ended(self, item: T, error: Exception | None) -> None:
        now = self._clock.monotonic()
        with self._lock:
            due = self._due[item]
            due.running = False
            if error is not None:
                due.tries += 1
                pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(due.tries - 1, 16))
                due.at_s = now + random.uniform(pause_s / 2, pause_s)  # noqa: S311 - not a secret
                self._queue_up(item)
            elif due.again:
                self._due[item] = _Due(now + self._delay_s, now)
                self._queue_up(item)
            else:
                del self._due[item]
            self._lock.notify_all()
