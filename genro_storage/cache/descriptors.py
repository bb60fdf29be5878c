"""Cached files that are open: few, the most recently used, and none for longer than it is in use.

Owns the descriptors. A file that another process has evicted takes room on the disk for as long as anybody has it open,
and no count sees that room; so whatever is idle, or has lost its name, is closed within two sweeps. A file is opened
again in 30 µs.

Threads: safe; one lock, never held across I/O. A file is closed only when nobody uses it: its number could be given to
another file under a read. The sweeper is a thread that lives while anything is open.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genro_storage.cache.cached_file import CachedFile
from genro_storage.cache.directory import FileKey
from genro_storage.runtime import Clock

#: 128 descriptors of the 1,024 that a process usually has.
LIMIT_FILES = 64
IDLE_S = 2.0


class OpenFiles:
    """Opens cached files and keeps some of them open."""

    def __init__(self, root: Path, clock: Clock, limit: int = LIMIT_FILES) -> None:
        self._root = root
        self._clock = clock
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[FileKey, CachedFile] = OrderedDict()  # guarded by _lock
        self._sweeper: threading.Thread | None = None  # guarded by _lock
        self._closed = threading.Event()

    @contextmanager
    def borrow(self, key: FileKey, *, create: bool = False) -> Iterator[CachedFile | None]:
        """The open file of a key, or None where there is none. Raises OSError, StoragePermissionError."""
        file = self.acquire(key, create=create)
        try:
            yield file
        finally:
            if file is not None:
                self.release(file)

    def acquire(self, key: FileKey, *, create: bool = False) -> CachedFile | None:
        """See borrow; whoever calls this calls release."""
        now_s = self._clock.monotonic()
        with self._lock:
            file = self._open.get(key)
            if file is not None:
                return self._use(file, now_s)
        opened = CachedFile.open(self._root, key, create=create)
        if opened is None:
            return None
        with self._lock:
            file = self._open.setdefault(key, opened)
            surplus = [] if file is opened else [opened]
            self._use(file, now_s)
            if len(self._open) > self._limit:
                idle = [other for other in self._open.values() if not other.users]
                surplus += [self._open.pop(other.key) for other in idle[: len(self._open) - self._limit]]
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep_while_open, name='disk-cache-sweep', daemon=True)
                self._sweeper.start()
        for other in surplus:
            other.close()
        return file

    def release(self, file: CachedFile) -> None:
        """The caller is done with a file."""
        with self._lock:
            file.users -= 1
            close = file.dropped and not file.users
        if close:
            file.close()

    def drop(self, file: CachedFile) -> None:
        """Hand out this open file no more; the caller has it acquired."""
        with self._lock:
            file.dropped = True
            if self._open.get(file.key) is file:
                del self._open[file.key]

    def sweep(self) -> None:
        """Close what is idle, and what has been evicted by others."""
        now_s = self._clock.monotonic()
        with self._lock:
            files = list(self._open.values())
            for file in files:
                file.users += 1
        for file in files:
            if now_s - file.used_s >= IDLE_S or not _is_linked(file):
                self.drop(file)
            self.release(file)

    def close(self) -> None:
        """Close everything that nobody uses at this moment, and the rest after it. The next use opens again."""
        with self._lock:
            files = list(self._open.values())
            for file in files:
                file.users += 1
        for file in files:
            self.drop(file)
            self.release(file)
        self._closed.set()

    def after_fork(self) -> None:
        """In the child: give up the descriptors that came along, and begin anew. Those who used them are not here."""
        files = list(self._open.values())
        self._begin()
        for file in files:
            file.close()

    def _use(self, file: CachedFile, now_s: float) -> CachedFile:
        file.users += 1
        file.used_s = now_s
        self._open.move_to_end(file.key)
        return file

    def _sweep_while_open(self) -> None:
        while True:
            self._closed.wait(IDLE_S)
            self._closed.clear()
            self.sweep()
            with self._lock:
                if not self._open:
                    self._sweeper = None
                    return


def _is_linked(file: CachedFile) -> bool:
    try:
        return file.is_linked()
    except OSError:  # ESTALE: on a network file system, removed by another machine
        return False
