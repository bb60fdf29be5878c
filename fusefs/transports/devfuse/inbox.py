"""Where readers get their next request from: who has served one looks for the next for a moment before it sleeps.

Owns that moment, and who is woken. A program that waits for an answer mostly asks again as soon as it has it, and a
processor that was left idle takes longer to wake up than such a request takes altogether (docs/decisions/0021). So
while a reader is *on duty*, which it is from taking a request until it sleeps again, nobody else is woken. It goes off
duty before what takes longer than an answer from memory. Where looking was in vain several times in a row, it is tried
only now and then.

Threads: safe; one lock, a leaf, held for a call of epoll_ctl(2). The descriptor must not block.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from mmap import mmap

#: How long to look: about what it takes in a virtual machine to wake up the program and then a reader.
LOOK_S = 100e-6
#: So often in vain in a row, and it is done after one request of so many only.
IN_VAIN_MAX = 8
SELDOM = 16


class _Reader(threading.local):
    on_duty = False


class Inbox:
    """The requests of one descriptor. To be closed when nobody reads any more."""

    def __init__(self, fd: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._fd = fd
        self._clock = clock
        self._poll = select.epoll(1)
        self._reader = _Reader()
        self._lock = threading.Lock()
        self._on_duty = 0  # guarded by _lock; the descriptor is in _poll while there are none
        # Guesses, which threads may change at once.
        self._taken = 0
        self._in_vain = 0
        self._poll.register(fd, select.EPOLLIN)

    def read(self, buffers: list[mmap]) -> int:
        """Wait for a request and read it into these; how long it is. Raises OSError as read(2) of /dev/fuse does."""
        length = self._look(buffers)
        while length is None:
            self.go_off_duty()
            self._poll.poll()
            length = self._taken_now(buffers)
        self._taken += 1
        if not self._reader.on_duty:
            self._go_on_duty()
        return length

    def go_off_duty(self) -> None:
        """The calling thread reads no more, or not for a while: others take requests, or meet the end. Idempotent."""
        reader = self._reader
        if reader.on_duty:
            reader.on_duty = False
            with self._lock:
                self._on_duty -= 1
                if not self._on_duty:
                    # If something is there already, one of those who sleep is woken at once.
                    self._poll.register(self._fd, select.EPOLLIN)

    def close(self) -> None:
        """Give back what they sleep on."""
        self._poll.close()

    def _go_on_duty(self) -> None:
        self._reader.on_duty = True
        with self._lock:
            self._on_duty += 1
            if self._on_duty == 1:
                self._poll.unregister(self._fd)

    def _look(self, buffers: list[mmap]) -> int | None:
        """Look for a request for a moment, if that was of use lately."""
        if not self._taken or (self._in_vain >= IN_VAIN_MAX and self._taken % SELDOM):
            return None
        if not self._reader.on_duty:
            self._go_on_duty()
        until_s = self._clock() + LOOK_S
        length = self._taken_now(buffers)
        while length is None and self._clock() < until_s:
            length = self._taken_now(buffers)
        self._in_vain = self._in_vain + 1 if length is None else 0
        return length

    def _taken_now(self, buffers: list[mmap]) -> int | None:
        try:
            return os.readv(self._fd, buffers)
        except BlockingIOError:
            return None
