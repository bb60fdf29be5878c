"""What is known of names on a backend, and until when: stats, listings, and names known to be absent.

Owns freshness (the TTL) and the rule that an answer which was under way while we changed the same name is not
believed. Does not ask backends. Threads: safe; one lock, never held across I/O.
"""

import threading
from collections.abc import Iterable
from typing import NamedTuple

from cachetools import LRUCache

from genro_storage import paths
from genro_storage.entry import Entry
from genro_storage.runtime import Clock

#: About 50 MB of Python objects when full; a tree of more names is listed again rather than remembered.
LIMIT_ENTRIES = 100_000
#: How many of our own changes are told apart by name; beyond, all answers under way count as overtaken.
LIMIT_CHANGES = 4_096


class Known(NamedTuple):
    """An answer from the cache: the entry, or None where nothing is, and for how long it may be believed."""

    entry: Entry | None
    remaining_s: float


class _Fact(NamedTuple):
    entry: Entry | None
    expires: float


class _Listing(NamedTuple):
    entries: dict[str, Entry]
    expires: float


class EntryCache:
    """Stats, listings and absences of one mount, each for ttl_s."""

    def __init__(self, ttl_s: float, clock: Clock, limit: int = LIMIT_ENTRIES) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._limit = limit
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew, knowing nothing, in a forked child: the lock may have been held there, amid a change."""
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._facts: LRUCache[str, _Fact] = LRUCache(self._limit)
        self._listings: LRUCache[str, _Listing] = LRUCache(self._limit, getsizeof=_size_of)
        self._now = 0  # counts our own changes
        self._changed: dict[str, int] = {}
        self._all_changed = 0

    def find(self, path: str) -> Known | None:
        """What is known of a path: from a stat, or from a listing of its directory. None: ask."""
        with self._lock:
            now = self._clock.monotonic()
            fact = self._facts.get(path)
            if fact is not None and fact.expires > now:
                return Known(fact.entry, fact.expires - now)
            if path and (listing := self._listings.get(paths.parent(path))) is not None and listing.expires > now:
                return Known(listing.entries.get(paths.basename(path)), listing.expires - now)
            return None

    def list_directory(self, path: str) -> tuple[list[Entry], float] | None:
        """The entries of a directory and their remaining TTL, if a listing is fresh."""
        with self._lock:
            listing = self._listings.get(path)
            remaining_s = listing.expires - self._clock.monotonic() if listing is not None else 0
            return (list(listing.entries.values()), remaining_s) if listing is not None and remaining_s > 0 else None

    def asking(self) -> int:
        """Call before asking the backend; the number goes into learn and learn_listing with the answer."""
        with self._lock:
            return self._now

    def learn(self, path: str, entry: Entry | None, asked: int) -> float:
        """Believe a backend's answer about one path (None: nothing is there), unless we changed it since; its TTL."""
        with self._lock:
            if self._overtaken(path, asked):
                return 0.0
            self._facts[path] = _Fact(entry, self._clock.monotonic() + self._ttl_s)
            return self._ttl_s

    def learn_listing(self, path: str, entries: Iterable[Entry], asked: int) -> float:
        """Believe a backend's listing, which is also a stat of each entry, unless we changed it since; its TTL."""
        with self._lock:
            if self._overtaken(path, asked):
                return 0.0
            listing = _Listing({entry.name: entry for entry in entries}, self._clock.monotonic() + self._ttl_s)
            for name in listing.entries:
                self._facts.pop(paths.child(path, name), None)
            self._keep(path, listing)
            return self._ttl_s

    def changed(self, path: str, entry: Entry | None, asked: int) -> None:
        """We made, replaced (entry) or removed (None) what is at a path; the listing of its directory follows.

        ``asked``: from asking(), before the backend was told to. Of two changes that were under way at once nobody
        knows which came last, so the path is asked for again.
        """
        with self._lock:
            unclear = self._overtaken(path, asked)
            self._note(path)
            if unclear:
                self._facts.pop(path, None)
                self._listings.pop(paths.parent(path), None)
            else:
                self._facts[path] = _Fact(entry, self._clock.monotonic() + self._ttl_s)
                self._follow(path, entry)
            if entry is None:
                self._listings.pop(path, None)
            else:
                self._parents_appeared(path)

    def doubt(self, path: str) -> None:
        """Ask again about one path, its entries and its siblings: something happened there, and nobody knows what."""
        with self._lock:
            self._note(path)
            self._facts.pop(path, None)
            self._listings.pop(path, None)
            self._listings.pop(paths.parent(path), None)

    def forget(self, directory: str) -> None:
        """Believe nothing any more about a directory and all below it."""
        with self._lock:
            self._now += 1
            self._all_changed = self._now
            self._changed.clear()
            for known in (self._facts, self._listings):
                for path in [path for path in known if paths.is_within(path, directory)]:
                    del known[path]
            if directory:
                self._listings.pop(paths.parent(directory), None)

    def _follow(self, path: str, entry: Entry | None) -> None:
        """Keep the listing of a directory right, while there is one to believe."""
        directory, name = paths.parent(path), paths.basename(path)
        listing = self._listings.get(directory)
        if not path or listing is None:
            return
        if listing.expires <= self._clock.monotonic():
            del self._listings[directory]
        elif entry is None:
            listing.entries.pop(name, None)
        else:
            listing.entries[name] = entry
            self._keep(directory, listing)

    def _parents_appeared(self, path: str) -> None:
        """A put makes the directories above it; what says that one of them is not there is wrong now."""
        while path := paths.parent(path):
            fact = self._facts.get(path)
            if fact is not None and (fact.entry is None or not fact.entry.is_directory):
                del self._facts[path]
            listing = self._listings.get(paths.parent(path))
            if listing is not None and paths.basename(path) not in listing.entries:
                del self._listings[paths.parent(path)]

    def _keep(self, path: str, listing: _Listing) -> None:
        if _size_of(listing) <= self._limit:
            self._listings[path] = listing  # again, if it was there: its size counts anew
        else:
            self._listings.pop(path, None)

    def _note(self, path: str) -> None:
        self._now += 1
        if len(self._changed) >= LIMIT_CHANGES:
            self._changed.clear()
            self._all_changed = self._now
        self._changed[path] = self._now
        while path:
            path = paths.parent(path)
            self._changed[path] = self._now

    def _overtaken(self, path: str, asked: int) -> bool:
        return max(self._all_changed, self._changed.get(path, 0)) > asked


def _size_of(listing: _Listing) -> int:
    return len(listing.entries) + 1
