"""A circuit breaker: a backend that does not answer is not asked for a while.

Owns when that begins, how long it lasts and who tries again. Asks nothing itself. Threads: safe; one lock, held for
arithmetic only.
"""

import random

from genro_storage.runtime import Clock, fork_safe_lock

#: Operations in a row that failed, with all their tries, until the backend counts as gone: one can be chance.
THRESHOLD = 3
#: The first pause; each failed try doubles it. Short enough that a restart of the server is noticed at once.
FIRST_PAUSE_S = 1.0
#: The longest pause: how long a backend may be back before anybody notices.
LONGEST_PAUSE_S = 15.0


class CircuitBreaker:
    """Closed (asks), open (does not), and half-open: after a pause one caller tries."""

    def __init__(self, clock: Clock, threshold: int = THRESHOLD) -> None:
        self._clock = clock
        self._threshold = threshold
        self._lock = fork_safe_lock()
        # All guarded by _lock.
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until: float | None = None
        self._trying = False

    def may_ask(self) -> float:
        """0.0 if the caller may ask the backend, and must then tell the outcome; else in how many seconds to try."""
        with self._lock:
            if self._open_until is None:
                return 0.0
            remaining_s = self._open_until - self._clock.monotonic()
            if remaining_s > 0 or self._trying:
                return max(remaining_s, 0.1)
            self._trying = True
            return 0.0

    def succeeded(self) -> None:
        """The backend answered, whatever it said."""
        with self._lock:
            self._failures = 0
            self._pause_s = FIRST_PAUSE_S
            self._open_until = None
            self._trying = False

    def close(self) -> None:
        """Somebody who may know that the backend is back wants it asked, now and as if nothing had failed."""
        self.succeeded()

    def left_open(self) -> None:
        """The caller was stopped before it knew: somebody else may try."""
        with self._lock:
            self._trying = False

    def failed(self) -> None:
        """The backend did not answer."""
        with self._lock:
            self._failures += 1
            if self._open_until is None and self._failures < self._threshold:
                return
            # Of those who asked before it opened, many may fail in the same instant; the pause is for one outage.
            if self._open_until is not None and not self._trying:
                return
            # Jitter, so that many mounts of one server do not all come back in the same instant.
            pause_s = self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
            self._open_until = self._clock.monotonic() + pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._trying = False
