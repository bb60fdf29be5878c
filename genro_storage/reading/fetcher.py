"""Missing blocks become few ranges, fetched in parallel and each block once, however many readers want it.

Owns what is in flight, and how much all readers together may have fetched ahead. Asks the cache first and feeds it.
Who waits for a block fetches it himself, unless somebody is at it already; what nobody waits for is fetched by the
workers, and can be called off until it has begun.

Threads: safe; one lock, never held across I/O.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from genro_storage.backends.base import Backend
from genro_storage.cache.blocks import BLOCK_BYTES, Block, BlockCache, BlockKey, Run, extent_of, runs
from genro_storage.entry import Entry, Extent, Version
from genro_storage.errors import StorageConflictError, StorageError
from genro_storage.runtime import WorkerPool, about_to_block, outcome_of

#: The longest range of one request: long enough to hide its round trip, short enough to be retried. None crosses a
#: multiple of it: servers keep objects in parts of such sizes, and SeaweedFS spent a third more on ranges across two.
RANGE_BLOCKS = (8 << 20) // BLOCK_BYTES
#: What one reader may have ahead: four ranges in flight saturate one core; more only takes memory.
AHEAD_BYTES = 32 << 20
#: And what it may have even if there are many readers.
AHEAD_BYTES_LEAST = 1 << 20

#: How many blocks to look for at a time, where all of a file are counted: 4 GiB.
LOOKED_AT_BLOCKS = 16_384


class File:
    """What the fetcher must know of a file: where it is and which version."""

    __slots__ = ('path', 'size_bytes', 'version')

    def __init__(self, path: str, entry: Entry) -> None:
        self.path = path
        self.size_bytes = entry.size_bytes
        self.version = entry.version or Version.weak(entry.mtime_ns, entry.size_bytes)


class Fetch:
    """A range of a file that is being fetched or waits to be."""

    __slots__ = ('file', 'first', 'last', 'run', 'taken')

    def __init__(self, file: File, first: int, last: int) -> None:
        self.file = file
        self.first = first
        self.last = last
        self.run: Future[Run] = Future()
        self.taken = False  # somebody is at it, or it was called off; guarded by the lock of the Fetcher


class Fetcher:
    """Blocks of the files of one backend."""

    def __init__(self, backend: Backend, cache: BlockCache, workers: WorkerPool, timeout_s: float) -> None:
        self.backend = backend
        #: The version with the same bytes that came in the place of one, by a change of what is no content.
        self.successor: Callable[[str, Version], Version | None] = lambda path, version: None
        self._destination = backend.destination
        self._cache = cache
        self._workers = workers
        # The backend itself notices when nothing moves for timeout_s, whoever asks it. What somebody else fetches may
        # have to be tried again and again, so this wait is only the last resort.
        self._deadline_s = 10 * timeout_s
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child, where nothing is in flight and locks may have been held."""
        self._lock = threading.Lock()
        self._in_flight: dict[BlockKey, Fetch] = {}  # guarded by _lock
        self._streams = 0  # readers that have something fetched ahead; guarded by _lock
        self._cache.after_fork()

    def find(self, file: File, wanted: Sequence[int]) -> list[Block | None]:
        """These blocks as far as the cache holds them. Never waits."""
        return [self._cache.get(self._key(file, number)) for number in wanted]

    def has_begun(self, file: File) -> bool:
        """Whether the beginning of a file is in the cache by now. Never waits."""
        return not self._cache.absent(self._key(file, 0), 1)

    def cached_bytes(self, file: File) -> int:
        """How much of a file is in the cache. Never waits."""
        cached = file.size_bytes
        blocks = -(-file.size_bytes // BLOCK_BYTES)
        for first in range(0, blocks, LOOKED_AT_BLOCKS):
            for number in self._cache.absent(self._key(file, first), min(LOOKED_AT_BLOCKS, blocks - first)):
                cached -= extent_of(number, number, file.size_bytes).size_bytes
        return cached

    def fetch(self, file: File, missing: Sequence[int]) -> list[Block]:
        """These blocks, waiting for them.

        Raises StorageConflictError if the version is gone, StorageTimeoutError, and what the backend raises.
        """
        about_to_block()
        fetches, mine = self._request(file, missing, take=True)
        # One is for this thread, which would only wait; what there is beside it goes on at the same time.
        for fetch in mine[1:]:
            self._start(fetch, self._fetch)
        if mine:
            self._fetch(mine[0])
        return [self._wait(fetches[number]).block(number) for number in missing]

    def keep(self, file: File, beginning: bytes) -> None:
        """The first block of a file, which somebody has brought with something else."""
        if beginning and len(beginning) == extent_of(0, 0, file.size_bytes).size_bytes:
            self._cache.put(self._key(file, 0), beginning)

    def prefetch(self, file: File, first: int, last: int) -> list[Fetch]:
        """Have these blocks fetched if missing, and return what was begun; who reads there meets a failure again."""
        _, begun = self._request(file, self._cache.absent(self._key(file, first), last + 1 - first), take=False)
        for fetch in begun:
            self._start(fetch, self._fetch_ahead)
        return begun

    def passed(self, file: File, blocks: range) -> None:
        """A reader in sequence has these blocks behind it."""
        for number in blocks:
            self._cache.passed(self._key(file, number))

    def call_off(self, fetches: Iterable[Fetch]) -> None:
        """What has not begun of these need not be fetched any more."""
        for fetch in fetches:
            with self._lock:
                if fetch.taken:
                    continue
                # At once: whoever found it from now on would wait for it.
                fetch.taken = True
                self._forget(fetch)

    def opened_stream(self, delta: int) -> None:
        """A reader begins (1) or ends (-1) to have something fetched ahead."""
        with self._lock:
            self._streams += delta

    @property
    def ahead_bytes(self) -> int:
        """How much one reader may have fetched ahead now, so that all of it is still there when it is read."""
        return max(AHEAD_BYTES_LEAST, min(AHEAD_BYTES, self._cache.ahead_bytes // max(1, self._streams)))

    def complete_file(self, file: File) -> int | None:
        """A descriptor of the whole file on the local disk, for the caller to close; None if it is not all there."""
        return self._cache.complete_file(self._destination, file.path, file.version.tag, file.size_bytes)

    def check_file(self, file: File) -> None:
        """The whole file may be on the local disk by now: have that checked, so that complete_file finds it."""
        self._cache.check_file(self._destination, file.path, file.version.tag, file.size_bytes)

    def _key(self, file: File, number: int) -> BlockKey:
        return BlockKey(self._destination, file.path, file.version.tag, number)

    def _request(self, file: File, missing: Sequence[int], *, take: bool) -> tuple[dict[int, Fetch], list[Fetch]]:
        """What fetches these blocks, by number, and which of that the caller has to see to: what is new.

        With ``take``, also what others have asked for and nobody has begun.
        """
        fetches: dict[int, Fetch] = {}
        mine: list[Fetch] = []
        with self._lock:
            for number in missing:
                fetch = self._in_flight.get(self._key(file, number))
                if fetch is None:
                    continue
                fetches[number] = fetch
                if take and not fetch.taken:
                    fetch.taken = True
                    mine.append(fetch)
            for first, last in runs((number for number in missing if number not in fetches), RANGE_BLOCKS):
                fetch = Fetch(file, first, last)
                fetch.taken = take
                mine.append(fetch)
                for number in range(first, last + 1):
                    fetches[number] = self._in_flight[self._key(file, number)] = fetch
        return fetches, mine

    def _start(self, fetch: Fetch, job: Callable[[Fetch], None]) -> None:
        try:
            self._workers.start(functools.partial(job, fetch))
        except StorageError as error:
            if job == self._fetch:
                self._settle(fetch, error)
            else:
                self.call_off([fetch])

    def _take(self, fetch: Fetch) -> bool:
        with self._lock:
            taken, fetch.taken = fetch.taken, True
        return not taken

    def _fetch_ahead(self, fetch: Fetch) -> None:
        self._cache.pace()
        if self._take(fetch):
            self._fetch(fetch)

    def _fetch(self, fetch: Fetch) -> None:
        try:
            outcome: Run | Exception = self._bring(fetch.file, fetch.first, fetch.last)
        except Exception as error:  # noqa: BLE001 - it is raised again where the blocks are awaited
            outcome = error
        self._settle(fetch, outcome)

    def _bring(self, file: File, first: int, last: int) -> Run:
        """These blocks, from the backend what is not in the cache by now.

        Between a reader's miss and this, what was in flight then may have arrived.
        """
        key = self._key(file, first)
        absent = self._cache.absent(key, last + 1 - first)
        if len(absent) == last + 1 - first:
            return self._read(file, first, last)
        blocks = dict(zip(range(first, last + 1), self.find(file, range(first, last + 1)), strict=True))
        for start, end in runs((number for number, block in blocks.items() if block is None), RANGE_BLOCKS):
            run = self._read(file, start, end)
            blocks |= {number: run.block(number) for number in range(start, end + 1)}
        return Run(key, b''.join(block for block in blocks.values() if block is not None))

    def _read_version(self, file: File, extent: Extent, version: Version) -> bytes:
        try:
            return self.backend.read_range(file.path, extent.offset, extent.size_bytes, version)
        except StorageConflictError:
            successor = self.successor(file.path, version)
            if successor is None:
                raise
        return self.backend.read_range(file.path, extent.offset, extent.size_bytes, successor)

    def _read(self, file: File, first: int, last: int) -> Run:
        extent = extent_of(first, last, file.size_bytes)
        data = self._read_version(file, extent, file.version)
        if len(data) != extent.size_bytes:
            end = extent.offset + len(data)
            raise StorageConflictError(f'{file.path!r} ends at {end}, not {file.size_bytes}: it has changed')
        key = self._key(file, first)
        self._cache.put(key, data)
        return Run(key, data)

    def _settle(self, fetch: Fetch, outcome: Run | Exception) -> None:
        with self._lock:
            self._forget(fetch)
        if isinstance(outcome, Run):
            fetch.run.set_result(outcome)
        else:
            fetch.run.set_exception(outcome)

    def _forget(self, fetch: Fetch) -> None:
        """Called with the lock held."""
        for number in range(fetch.first, fetch.last + 1):
            self._in_flight.pop(self._key(fetch.file, number), None)

    def _wait(self, fetch: Fetch) -> Run:
        return outcome_of(fetch.run, self._deadline_s, f'{fetch.file.path!r}: no data')
