"""Memory over disk: one cache for block reads.

Owns the order of the tiers, promotion between them, and that writing to the disk never makes a reader wait. Eviction
belongs to each tier; freshness to nobody, because a BlockKey carries the version of its file and a changed file simply
misses.

Threads: safe; one lock over the blocks that wait for the disk, never held across I/O. After a fork the child has
nothing waiting; its parent writes it.
"""

import functools
import logging
import threading

from genro_storage.cache.blocks import BlockCache, BlockKey
from genro_storage.cache.disk import DiskBlockCache
from genro_storage.errors import StorageUnavailableError
from genro_storage.runtime import WorkerPool

log = logging.getLogger(__name__)

#: 16 MiB of memory; two ranges of the fetcher. One thread writes 1.5 GB/s, so only a disk that stalls fills it.
LIMIT_WAITING = 64


class TieredBlockCache:
    """A BlockCache that asks the memory first and then the disk, and feeds both."""

    def __init__(self, memory: BlockCache, disk: DiskBlockCache, limit_waiting: int = LIMIT_WAITING) -> None:
        self._memory = memory
        self._disk = disk
        self._limit_waiting = limit_waiting
        self._begin()

    def _begin(self) -> None:
        self._written = threading.Condition(threading.Lock())
        self._waiting: dict[BlockKey, bytes] = {}  # for the disk; guarded by _written
        self._writer = WorkerPool('disk-cache', threads=1, queue_limit=self._limit_waiting + 1)

    def get(self, key: BlockKey) -> bytes | None:
        """See BlockCache."""
        block = self._memory.get(key)
        if block is not None:
            return block
        with self._written:
            block = self._waiting.get(key)
        if block is None:
            block = self._disk.get(key)
        if block is not None:
            self._memory.put(key, block)
        return block

    def put(self, key: BlockKey, block: bytes) -> None:
        """See BlockCache. At once: the disk gets it later, or not at all when it cannot keep up."""
        self._memory.put(key, block)
        with self._written:
            if key in self._waiting or len(self._waiting) >= self._limit_waiting:
                return
            self._waiting[key] = block
        try:
            self._writer.start(functools.partial(self._write, key, block))
        except StorageUnavailableError:  # closed: the memory serves on
            self._done(key)

    def after_fork(self) -> None:
        """See BlockCache."""
        self._memory.after_fork()
        self._disk.after_fork()
        self._begin()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the disk has what waits for it, for at most this long; whether it has."""
        with self._written:
            return self._written.wait_for(lambda: not self._waiting, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what waits, for at most this long, and close the disk cache; whether all was written."""
        written = self._writer.close(timeout_s)
        self._disk.close()
        return written

    def _write(self, key: BlockKey, block: bytes) -> None:
        try:
            self._disk.put(key, block)
        except Exception:
            # A worker that ends would leave all later blocks waiting.
            log.exception('disk cache: block %d of %r was not kept', key.number, key.path)
        finally:
            self._done(key)

    def _done(self, key: BlockKey) -> None:
        with self._written:
            self._waiting.pop(key, None)
            self._written.notify_all()
