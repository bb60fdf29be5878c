"""Listings of directories: each asked for once at a time, remembered, and for whoever walks a tree the next ones ahead.

Owns who asks the backend. What is believed, and for how long, is the EntryCache's; what comes next in a walk Order's.
Threads: safe; one lock, never held across I/O.
"""

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress

from genro_storage import paths
from genro_storage.backends.base import Backend, StoresMetadata
from genro_storage.cache.entries import EntryCache
from genro_storage.entry import Entry
from genro_storage.errors import StorageError, StorageUnavailableError
from genro_storage.reading.order import Order
from genro_storage.runtime import WorkerPool, about_to_block, outcome_of

#: A listing that is believed for less is not worth fetching before it is asked for.
TTL_LEAST_S = 1.0
#: Entries whose attributes one worker asks for, several under way at once, and how many workers do.
HEADS_OF_ONE = 32
HEADS_AT_ONCE = 4


class Listings:
    """The directories of one backend."""

    def __init__(
        self,
        backend: Backend,
        entries: EntryCache,
        workers: WorkerPool,
        ttl_s: float,
        timeout_s: float,
        heads: WorkerPool | None = None,
    ) -> None:
        """heads: for the attributes of entries, which listings of object stores do not tell; None: not wanted.

        Not the workers: these fetch listings ahead, and would wait for themselves.
        """
        self._backend = backend
        self._heads = heads
        self._entries = entries
        self._workers = workers
        self._looks_ahead = ttl_s >= TTL_LEAST_S
        # As for blocks: the backend notices when nothing moves, and this is the last resort.
        self._deadline_s = 10 * timeout_s
        self._order = Order()
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child, where nothing is in flight and locks may have been held."""
        self._lock = threading.Lock()
        self._in_flight: dict[str, Future[tuple[list[Entry], float]]] = {}  # guarded by _lock
        self._order.after_fork()

    def of(self, path: str) -> tuple[list[Entry], float]:
        """The entries of a directory and how long they may be believed.

        Raises StorageNotFoundError, StorageNotADirectoryError, StorageTimeoutError.
        """
        known = self._entries.list_directory(path)
        listed = known or self._ask(path)
        if self._looks_ahead:
            self._look_ahead(path, listed[0], late=known is None)
        return listed

    def _ask(self, path: str) -> tuple[list[Entry], float]:
        about_to_block()
        with self._lock:
            under_way = self._in_flight.get(path)
            if under_way is None:
                mine = self._in_flight[path] = Future()
        if under_way is None:
            return self._ask_backend(path, mine)
        listed = outcome_of(under_way, self._deadline_s, f'{path!r}: no listing')
        # What was asked for before something changed here is not believed, and whoever asks after that must see it.
        return listed if listed[1] else self._ask_backend(path, Future())

    def _ask_backend(self, path: str, future: Future[tuple[list[Entry], float]]) -> tuple[list[Entry], float]:
        try:
            asked = self._entries.asking()
            entries = self._with_attributes(path, self._backend.list_directory(path))
            listed = entries, self._entries.learn_listing(path, entries, asked)
        except BaseException as error:
            self._settled(path, future)
            future.set_exception(
                error if isinstance(error, Exception) else StorageUnavailableError(f'{path!r}: gave up')
            )
            raise
        self._settled(path, future)
        future.set_result(listed)
        return listed

    def _with_attributes(self, path: str, entries: Sequence[Entry]) -> list[Entry]:
        if self._heads is None or not isinstance(self._backend, StoresMetadata):
            return list(entries)
        storer = self._backend
        known = {entry.name: entry for entry in self._entries.with_attributes(path, entries)}
        missing = [entry for entry in known.values() if entry.attributes is None]
        chunks = [missing[start : start + HEADS_OF_ONE] for start in range(0, len(missing), HEADS_OF_ONE)]

        def tell(chunk: Sequence[Entry]) -> None:
            told = {entry.name: entry for entry in storer.tell_attributes(path, chunk)}
            for entry in chunk:
                if entry.name in told:
                    known[entry.name] = told[entry.name]
                else:
                    del known[entry.name]

        self._heads.each(tell, chunks, HEADS_AT_ONCE)
        return list(known.values())

    def _settled(self, path: str, future: Future[tuple[list[Entry], float]]) -> None:
        with self._lock:
            if self._in_flight.get(path) is future:
                del self._in_flight[path]

    def _look_ahead(self, path: str, entries: Sequence[Entry], *, late: bool) -> None:
        next_ones = [paths.child(path, name) for name in self._order.entered(path, lambda: _directories(entries))]
        if path:
            parent = paths.parent(path)
            taken = self._order.took(parent, paths.basename(path), lambda: self._known_directories(parent), late=late)
            next_ones += [paths.child(parent, name) for name in taken]
        for each in next_ones:
            try:
                self._workers.start(functools.partial(self._fetch, each))
            except StorageError:  # so many wait already, or all is being closed: then it is asked for when it is needed
                return

    def _known_directories(self, path: str) -> Sequence[str] | None:
        known = self._entries.list_directory(path)
        return None if known is None else _directories(known[0])

    def _fetch(self, path: str) -> None:
        """Ask ahead; a failure is met again by whoever needs the listing."""
        with self._lock:
            if path in self._in_flight:
                return
            future = self._in_flight[path] = Future()
        if self._entries.list_directory(path) is not None:
            self._settled(path, future)
            future.set_result(([], 0.0))
            return
        with suppress(Exception):
            self._ask_backend(path, future)


def _directories(entries: Sequence[Entry]) -> Sequence[str]:
    return sorted(entry.name for entry in entries if entry.is_directory)
