"""Missing blocks become few ranges, fetched in parallel and each block once, however many readers want it.

Owns what is in flight. Asks the cache first and feeds it. Threads: safe; one lock, never held across I/O.
"""

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from genro_storage.backends.base import Backend
from genro_storage.cache.blocks import BLOCK_BYTES, BlockCache, BlockKey, extent_of, runs, split
from genro_storage.entry import Entry, Version
from genro_storage.errors import StorageConflictError, StorageError, StorageTimeoutError
from genro_storage.runtime import WorkerPool, about_to_block

#: The longest range of one request: long enough to hide its round trip, short enough to be retried.
RANGE_BLOCKS = (8 << 20) // BLOCK_BYTES


class File:
    """What the fetcher must know of a file: where it is and which version."""

    __slots__ = ('path', 'size_bytes', 'version')

    def __init__(self, path: str, entry: Entry) -> None:
        self.path = path
        self.size_bytes = entry.size_bytes
        self.version = entry.version or Version.weak(entry.mtime_ns, entry.size_bytes)


class Fetcher:
    """Blocks of the files of one backend."""

    def __init__(self, backend: Backend, cache: BlockCache, workers: WorkerPool, timeout_s: float) -> None:
        self._backend = backend
        self._destination = backend.destination
        self._cache = cache
        self._workers = workers
        # The backend itself notices when nothing moves for timeout_s. A block may queue behind others that do move,
        # so this wait is only the last resort.
        self._deadline_s = 10 * timeout_s
        self._lock = threading.Lock()
        self._in_flight: dict[BlockKey, Future[bytes]] = {}  # guarded by _lock

    def after_fork(self) -> None:
        """Begin anew in a forked child, where nothing is in flight and locks may have been held."""
        self._lock = threading.Lock()
        self._in_flight = {}
        self._cache.after_fork()

    def find(self, file: File, wanted: Sequence[int]) -> list[bytes | None]:
        """These blocks as far as the cache holds them. Never waits."""
        return [self._cache.get(self._key(file, number)) for number in wanted]

    def fetch(self, file: File, missing: Sequence[int]) -> list[bytes]:
        """These blocks, waiting for them.

        Raises StorageConflictError if the version is gone, StorageTimeoutError, and what the backend raises.
        """
        about_to_block()
        return [self._wait(file, future) for future in self._request(file, missing)]

    def prefetch(self, file: File, wanted: Sequence[int]) -> None:
        """Have these blocks fetched if missing. Nobody waits; who reads there meets a failure again."""
        missing = [number for number, block in zip(wanted, self.find(file, wanted), strict=True) if block is None]
        if missing:
            self._request(file, missing)

    def _key(self, file: File, number: int) -> BlockKey:
        return BlockKey(self._destination, file.path, file.version.tag, number)

    def _request(self, file: File, missing: Sequence[int]) -> list[Future[bytes]]:
        """The futures of these blocks; those that nobody fetches yet are asked for."""
        with self._lock:
            new = [number for number in missing if self._key(file, number) not in self._in_flight]
            for number in new:
                self._in_flight[self._key(file, number)] = Future()
            futures = [self._in_flight[self._key(file, number)] for number in missing]
        for first, last in runs(new, RANGE_BLOCKS):
            try:
                self._workers.start(functools.partial(self._fetch, file, first, last))
            except StorageError as error:
                self._settle(file, first, [error] * (last - first + 1))
        return futures

    def _fetch(self, file: File, first: int, last: int) -> None:
        # Between a reader's miss and this job, the one that was in flight then may have arrived.
        blocks = self.find(file, range(first, last + 1))
        if None in blocks:
            try:
                blocks = self._read(file, first, last)
            except Exception as error:  # noqa: BLE001 - it is raised again where the block is awaited
                self._settle(file, first, [error] * (last - first + 1))
                return
        self._settle(file, first, blocks)

    def _read(self, file: File, first: int, last: int) -> list[bytes | None]:
        extent = extent_of(first, last, file.size_bytes)
        data = self._backend.read_range(file.path, extent.offset, extent.size_bytes, file.version)
        if len(data) != extent.size_bytes:
            end = extent.offset + len(data)
            raise StorageConflictError(f'{file.path!r} ends at {end}, not {file.size_bytes}: it has changed')
        blocks: list[bytes | None] = []
        for number, block in split(extent, first, data):
            self._cache.put(self._key(file, number), block)
            blocks.append(block)
        return blocks

    def _settle(self, file: File, first: int, outcomes: Sequence[bytes | Exception | None]) -> None:
        for number, outcome in enumerate(outcomes, first):
            with self._lock:
                future = self._in_flight.pop(self._key(file, number))
            if isinstance(outcome, bytes):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    def _wait(self, file: File, future: Future[bytes]) -> bytes:
        try:
            return future.result(self._deadline_s)
        except FutureTimeoutError as error:
            if isinstance(error, StorageError):  # the backend's own, which is a TimeoutError too
                raise
            raise StorageTimeoutError(f'{file.path!r}: no data within {self._deadline_s:g} s') from error
