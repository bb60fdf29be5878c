"""A clock that tests move by hand.

Owns a time. Threads: safe.
"""

import threading


class ManualClock:
    """A Clock that stands still until it is told to go on. Starts on 1 January 2024, 00:00 UTC."""

    def __init__(self, time_ns: int = 1_704_067_200_000_000_000) -> None:
        self._lock = threading.Lock()
        self._time_ns = time_ns
        self._elapsed_ns = 0

    def monotonic(self) -> float:
        """Seconds gone by since it was made."""
        with self._lock:
            return self._elapsed_ns / 1_000_000_000

    def time_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        with self._lock:
            return self._time_ns

    def advance(self, seconds: float) -> None:
        """Let time go by. Raises ValueError for a step back, which a monotonic clock never makes."""
        if seconds < 0:
            raise ValueError(f'a clock goes forward, not by {seconds} s')
        step_ns = round(seconds * 1_000_000_000)
        with self._lock:
            self._elapsed_ns += step_ns
            self._time_ns += step_ns
