"""The threads that read requests: so many at a time, and one at least, whoever waits for something else.

Owns who reads. Of those that serve, one that is about to wait leaves the reading to the others first, and when it was
the last, to a further thread; when it comes back and enough are reading, it is kept for the next time. So nobody hands
a request over to another thread: that would cost as much as many requests take altogether.

Does not know what is read. Threads: safe; one lock, a leaf, under which nothing is read.
"""

import threading
from collections.abc import Callable


class Readers:
    """Threads that run one function until it returns."""

    def __init__(self, at_once: int, name: str) -> None:
        self._at_once = at_once
        self._name = name
        self._lock = threading.Condition(threading.Lock())
        # All guarded by _lock.
        self._read: Callable[[], None] = lambda: None
        self._started = 0
        self._reading = 0
        self._kept = 0  # came back, and nobody needs them yet
        self._called = 0  # of those, to read again as soon as they wake up; counted as reading already
        self._away: set[int] = set()  # threads that have left, by identity; looked at without the lock by themselves
        self._over = False

    def start(self, read: Callable[[], None]) -> None:
        """Have so many threads run this. Raises RuntimeError if the system has none left."""
        with self._lock:
            self._read = read
            for _ in range(self._at_once):
                self._start_one()

    def leave(self) -> bool:
        """The calling thread, a reader, does something else until it has come back; False if it must go on reading.

        That is, where nobody else reads, and the system has no thread left.
        """
        with self._lock:
            if self._over:
                return True  # nobody need read in its place; that there is nothing left, it will find out by itself
            if self._reading == 1 and not self._call_one():
                return False
            self._reading -= 1
            self._away.add(threading.get_ident())
            return True

    def come_back(self) -> bool:
        """The calling thread has done what it was asked for; whether it is to read, perhaps after a while."""
        own = threading.get_ident()
        if own not in self._away:
            return True
        with self._lock:
            self._away.discard(own)
            if self._reading < self._at_once and not self._over:
                self._reading += 1
                return True
            self._kept += 1
            while not self._called and not self._over:
                self._lock.wait()
            if not self._called:
                return False
            self._called -= 1
            return True

    def end(self) -> bool:
        """The calling thread reads no more, because there is nothing left to read; whether no other one does."""
        with self._lock:
            self._over = True
            self._reading -= 1
            self._lock.notify_all()
            return not self._reading

    def _call_one(self) -> bool:
        """Have one more thread read. Under the lock."""
        if self._kept:
            self._kept -= 1
            self._called += 1
            self._reading += 1
            self._lock.notify()
            return True
        try:
            self._start_one()
        except RuntimeError:
            return False
        return True

    def _start_one(self) -> None:
        # A daemon: it stays in read(2) until the connection ends, and must not keep the process.
        threading.Thread(target=self._read, name=f'{self._name}-{self._started}', daemon=True).start()
        self._started += 1
        self._reading += 1
