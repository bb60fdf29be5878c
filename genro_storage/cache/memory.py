"""Blocks in memory, least recently used out first.

Owns its bound in bytes. What came in one buffer stays and goes as one run, so that the bound is of the memory that is
really held, and nothing is copied. Threads: safe; one lock, never held across I/O.
"""

import threading
from collections import OrderedDict

from genro_storage.cache.blocks import Block, BlockKey, Run, Runs, consecutive


class MemoryBlockCache:
    """A BlockCache of at most limit_bytes; a run larger than that is not kept."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.after_fork()

    def after_fork(self) -> None:
        """See BlockCache. Empty: the lock may have been held amid a change."""
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._index = Runs()
        self._runs: OrderedDict[Run, None] = OrderedDict()  # the least recently used first
        self._size_bytes = 0

    @property
    def ahead_bytes(self) -> int:
        """See BlockCache. Half, for what is read ahead is not all that is read."""
        return self.limit_bytes // 2

    def get(self, key: BlockKey) -> Block | None:
        """See BlockCache."""
        with self._lock:
            run = self._index.find(key)
            if run is None:
                return None
            self._runs.move_to_end(run)
        return run.block(key.number)

    def absent(self, first: BlockKey, count: int) -> list[int]:
        """See BlockCache."""
        with self._lock:
            return [key.number for key in consecutive(first, count) if self._index.find(key) is None]

    def put(self, key: BlockKey, data: Block) -> None:
        """See BlockCache."""
        run = Run(key, data)
        if run.size_bytes > self.limit_bytes:
            return
        with self._lock:
            replaced = self._index.find(key)
            if replaced is not None and replaced.first == key and replaced.size_bytes == run.size_bytes:
                self._drop(replaced)
            self._index.add(run)
            self._runs[run] = None
            self._size_bytes += run.size_bytes
            while self._size_bytes > self.limit_bytes:
                self._drop(next(iter(self._runs)))

    def passed(self, key: BlockKey) -> None:
        """See BlockCache. There is nowhere else to find it."""

    def run_of(self, key: BlockKey) -> Run | None:
        """The run that a block is in, which does not count as a use."""
        with self._lock:
            return self._index.find(key)

    def drop(self, run: Run) -> None:
        """Forget a run. Idempotent."""
        with self._lock:
            if run in self._runs:
                self._drop(run)

    def pace(self) -> None:
        """See BlockCache. Memory is never behind."""

    def complete_file(self, destination: str, path: str, version: str, size_bytes: int) -> None:
        """See BlockCache. Memory is no file."""

    def check_file(self, destination: str, path: str, version: str, size_bytes: int) -> None:
        """See BlockCache."""

    @property
    def size_bytes(self) -> int:
        """What is held now."""
        with self._lock:
            return self._size_bytes

    def _drop(self, run: Run) -> None:
        del self._runs[run]
        self._index.discard(run)
        self._size_bytes -= run.size_bytes
