"""Memory over disk: one cache for block reads.

Owns the order of the tiers, promotion between them, and that the disk costs readers little: it gets what was read when
they pause, and what it is too slow for goes through the page cache. Eviction belongs to
each tier; freshness to nobody, because a BlockKey carries the version of its file and a changed file simply misses.

Threads: safe; one lock over the runs that wait for the disk, never held across I/O. After a fork the child has nothing
waiting; its parent writes it.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable

from genro_storage.cache.blocks import Block, BlockKey, Run, Runs
from genro_storage.cache.disk import DiskBlockCache
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.errors import StorageUnavailableError
from genro_storage.runtime import WorkerPool

log = logging.getLogger(__name__)

#: What may wait for the disk: most of it is in the memory tier too. Beyond, the disk does without.
LIMIT_WAITING_BYTES = 96 << 20
#: Whoever fetches ahead waits when so much waits for the disk: fetching no faster than the disk takes it is better than
#: a file of which a part is missing each time. The rest up to the limit is for ranges that are under way by then.
PACE_BYTES = 32 << 20
#: But not for a disk that takes nothing at all for so long: then nobody waits again until it does.
PATIENCE_S = 1.0
#: Jobs of the writer: runs of small files too.
LIMIT_JOBS = 4096
#: The disk gets nothing as long as the last question is not so long ago: to keep a small file takes 0.25 ms of the
#: interpreter's time, a fifth of what it takes to fetch it, and whoever reads a thousand of them waits for that.
LULL_S = 0.05
#: But what has waited so long is written, and so is everything once so much waits or so many.
LINGER_S = 2.0
LINGER_BYTES = 8 << 20
LINGER_JOBS = LIMIT_JOBS // 2
#: Whole files to be checked; of more, the next close will ask again.
LIMIT_CHECKS = 64


class TieredBlockCache:
    """A BlockCache that asks the memory first and then the disk, and feeds both."""

    def __init__(
        self,
        memory: MemoryBlockCache,
        disk: DiskBlockCache,
        limit_waiting_bytes: int = LIMIT_WAITING_BYTES,
        pace_bytes: int = PACE_BYTES,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._memory = memory
        self._disk = disk
        self._limit_waiting_bytes = limit_waiting_bytes
        self._pace_bytes = pace_bytes
        self._patience_s = patience_s
        self._begin()

    def _begin(self) -> None:
        self._moved = threading.Condition(threading.Lock())
        # All guarded by _moved.
        self._waiting = Runs()  # for the disk
        self._waiting_bytes = 0
        self._stuck = False  # the disk has not taken anything for as long as anybody waits
        self._jobs = 0
        self._pressed = False  # somebody waits for all that waits
        # Not guarded: the latest of several is as good as another.
        self._asked_s = time.monotonic()
        self._writer = WorkerPool('disk-cache', threads=1, queue_limit=LIMIT_JOBS)
        self._checker = WorkerPool('disk-cache-check', threads=1, queue_limit=LIMIT_CHECKS)

    @property
    def ahead_bytes(self) -> int:
        """See BlockCache."""
        return self._memory.ahead_bytes

    def get(self, key: BlockKey) -> Block | None:
        """See BlockCache."""
        self._asked_s = time.monotonic()
        block = self._memory.get(key)
        if block is not None:
            return block
        with self._moved:
            run = self._waiting.find(key)
        if run is not None:
            return run.block(key.number)
        block = self._disk.get(key)
        if block is not None:
            self._memory.put(key, block)
        return block

    def absent(self, first: BlockKey, count: int) -> list[int]:
        """See BlockCache."""
        self._asked_s = time.monotonic()
        absent = self._memory.absent(first, count)
        if absent:
            with self._moved:
                absent = [number for number in absent if self._waiting.find(first._replace(number=number)) is None]
        if absent:
            on_disk = set(range(absent[0], absent[-1] + 1))
            on_disk -= set(self._disk.absent(first._replace(number=absent[0]), absent[-1] + 1 - absent[0]))
            absent = [number for number in absent if number not in on_disk]
        return absent

    def put(self, key: BlockKey, data: Block) -> None:
        """See BlockCache. At once: the disk gets it later, or not at all when it cannot keep up."""
        self._asked_s = put_s = time.monotonic()
        self._memory.put(key, data)
        run = Run(key, data)
        with self._moved:
            if self._waiting.find(key) is not None:
                return
            if self._waiting_bytes and self._waiting_bytes + run.size_bytes > self._limit_waiting_bytes:
                return
            self._waiting.add(run)
            self._waiting_bytes += run.size_bytes
        if not self._start(functools.partial(self._write, run, put_s), key):
            self._leave(run)

    def passed(self, key: BlockKey) -> None:
        """See BlockCache. What the disk has need not take memory: of the buffer, the next range will be made."""
        run = self._memory.run_of(key)
        if run is None or key.number != run.first.number + run.count - 1:
            return
        with self._moved:
            waits = self._waiting.find(run.first) is not None
        if waits or not self._disk.absent(run.first, run.count):
            self._memory.drop(run)

    def pace(self) -> None:
        """See BlockCache."""
        with self._moved:
            if self._stuck or self._waiting_bytes <= self._pace_bytes:
                return
            self._stuck = not self._moved.wait_for(lambda: self._waiting_bytes <= self._pace_bytes, self._patience_s)

    def complete_file(self, destination: str, path: str, version: str, size_bytes: int) -> int | None:
        """See BlockCache."""
        return self._disk.complete_file(destination, path, version, size_bytes)

    def check_file(self, destination: str, path: str, version: str, size_bytes: int) -> None:
        """See BlockCache. After all that waits for the disk now."""
        check = functools.partial(self._check, destination, path, version, size_bytes)
        self._press()
        # By way of the writer, behind what it has to write; and not on it, which others wait for.
        self._start(functools.partial(self._checker.start, check), BlockKey(destination, path, version, 0))

    def after_fork(self) -> None:
        """See BlockCache."""
        self._memory.after_fork()
        self._disk.after_fork()
        self._begin()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the disk has what waits for it, for at most this long; whether it has."""
        self._press()
        with self._moved:
            return self._moved.wait_for(lambda: not self._jobs, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what waits, for at most this long, and close the disk cache; whether all was written."""
        self._press()
        written = self._writer.close(timeout_s)
        self._checker.close(0)  # a check that is under way changes nothing that lasts
        self._disk.close()
        return written

    def _start(self, job: Callable[[], object], key: BlockKey) -> bool:
        """Have the writer see to a file; False if it does not, being closed or far behind: the memory serves on."""
        with self._moved:
            self._jobs += 1
            if self._is_much():
                self._moved.notify_all()
        try:
            self._writer.start(functools.partial(self._run, job, key))
        except StorageUnavailableError:
            self._ended()
            return False
        return True

    def _run(self, job: Callable[[], object], key: BlockKey) -> None:
        try:
            job()
        except StorageUnavailableError as error:
            log.debug('disk cache: %s', error)  # there are enough checks
        except Exception:
            # A worker that ends would leave all later runs waiting.
            log.exception('disk cache: from block %d of %r on something was not kept', key.number, key.path)
        finally:
            self._ended()

    def _check(self, destination: str, path: str, version: str, size_bytes: int) -> None:
        try:
            self._disk.verify_file(destination, path, version, size_bytes)
        except Exception:
            log.exception('disk cache: %r could not be checked', path)

    def _ended(self) -> None:
        with self._moved:
            self._jobs -= 1
            if not self._jobs:
                self._pressed = False
            self._moved.notify_all()

    def _press(self) -> None:
        with self._moved:
            self._pressed = bool(self._jobs)
            self._moved.notify_all()

    def _write(self, run: Run, put_s: float) -> None:
        try:
            is_behind = self._await_lull(put_s)
            self._disk.put(run.first, run.data, through_pages=is_behind)
        finally:
            self._leave(run)

    def _await_lull(self, since_s: float) -> bool:
        """Let readers go first, until they pause or there is no more waiting; whether the disk is behind then."""
        with self._moved:
            while not self._pressed and not self._is_much():
                pause_s = min(self._asked_s + LULL_S, since_s + LINGER_S) - time.monotonic()
                if pause_s <= 0:
                    break
                self._moved.wait(pause_s)
            return self._waiting_bytes > self._pace_bytes

    def _is_much(self) -> bool:
        """Called with the lock held."""
        return self._waiting_bytes > LINGER_BYTES or self._jobs > LINGER_JOBS

    def _leave(self, run: Run) -> None:
        with self._moved:
            self._waiting.discard(run)
            self._waiting_bytes -= run.size_bytes
            self._stuck = False
            self._moved.notify_all()
