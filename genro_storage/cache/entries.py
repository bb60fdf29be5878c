"""What is known of names on a backend, and until when: stats, listings, and names known to be absent.

Owns freshness (the TTL), the rule that an answer which was under way while we changed the same name is not believed,
and who is told when something turns out to be different. Does not ask backends. Threads: safe; one lock, never held
across I/O nor while others are told.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import msgspec
from cachetools import LRUCache

from genro_storage import paths
from genro_storage.entry import Entry
from genro_storage.runtime import Clock

EntryOrNone = TypeVar('EntryOrNone', Entry, Entry | None)

#: About 60 MB of Python objects when full, and room for a directory of 100,000; a tree of more names is listed again
#: rather than remembered.
LIMIT_ENTRIES = 125_000
#: How many of our own changes are told apart by name; beyond, all answers under way count as overtaken.
LIMIT_CHANGES = 4_096


class Known(NamedTuple):
    """An answer from the cache: the entry, or None where nothing is, and for how long it may be believed.

    ``timed``: its time is known too.
    """

    entry: Entry | None
    remaining_s: float
    timed: bool = True


class Asked(NamedTuple):
    """When somebody asked: after which of our own changes, and at what time."""

    changes: int
    at_s: float


class _Fact(NamedTuple):
    entry: Entry | None
    expires: float
    #: False of what we have put: all is known but its time, which nobody has told yet.
    timed: bool = True


class _Listing(NamedTuple):
    entries: dict[str, Entry]
    expires: float
    #: Names that are there, but whose times nobody has told yet.
    untimed: set[str]


class _Facts(LRUCache[str, _Fact]):
    """Facts by path, and which names of a directory there are facts of."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._names: dict[str, set[str]] = {}

    def names(self, directory: str) -> set[str]:
        """The names in a directory of which something is known, be it old."""
        return self._names.get(directory, set())

    def __setitem__(self, path: str, fact: _Fact) -> None:
        super().__setitem__(path, fact)
        if path:
            self._names.setdefault(paths.parent(path), set()).add(paths.basename(path))

    def __delitem__(self, path: str) -> None:
        super().__delitem__(path)
        if path:
            directory = paths.parent(path)
            names = self._names[directory]
            names.discard(paths.basename(path))
            if not names:
                del self._names[directory]


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
        self._facts = _Facts(self._limit)
        self._listings: LRUCache[str, _Listing] = LRUCache(self._limit, getsizeof=_size_of)
        self._now = 0  # counts our own changes
        self._changed: dict[str, int] = {}
        self._all_changed = 0
        self._subscribers: tuple[Callable[[str], None], ...] = ()  # replaced as a whole

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Have a callback told each path at which something else is, or may be, than was last known; ends by a call.

        What was last known counts however old it is. The callback comes from whatever thread has found out or changed
        it; it must return at once, and neither ask nor raise.
        """
        with self._lock:
            self._subscribers = (*self._subscribers, callback)

        def end() -> None:
            with self._lock:
                self._subscribers = tuple(other for other in self._subscribers if other is not callback)

        return end

    def find(self, path: str, *, timed: bool = True) -> Known | None:
        """What is known of a path: from a stat, or from a listing of its directory. None: ask.

        Not ``timed``: what has been put here will do, of which all is known but its time.
        """
        with self._lock:
            now = self._clock.monotonic()
            fact = self._facts.get(path)
            if fact is not None and fact.expires > now:
                return Known(fact.entry, fact.expires - now, fact.timed) if fact.timed or not timed else None
            if path and (listing := self._listings.get(paths.parent(path))) is not None and listing.expires > now:
                name = paths.basename(path)
                if name not in listing.untimed:
                    return Known(listing.entries.get(name), listing.expires - now)
            return None

    def was_known(self, path: str) -> bool:
        """Whether anything is known of a path, however old."""
        with self._lock:
            return path in self._facts or paths.parent(path) in self._listings

    def has_others(self, path: str) -> bool | None:
        """Whether the directory of a path has other entries; None where that is not known."""
        with self._lock:
            listing = self._listings.get(paths.parent(path))
            if listing is None or listing.expires <= self._clock.monotonic():
                return None
            return len(listing.entries) > (paths.basename(path) in listing.entries)

    def has_file(self, path: str) -> bool:
        """Whether a file is known to be at a path, be its time unknown."""
        with self._lock:
            now = self._clock.monotonic()
            fact = self._facts.get(path)
            listing = self._listings.get(paths.parent(path))
            if fact is not None and fact.expires > now:
                entry = fact.entry
            elif listing is not None and listing.expires > now:
                entry = listing.entries.get(paths.basename(path))
            else:
                entry = None
            return entry is not None and entry.is_file

    def is_directory(self, path: str) -> bool:
        """Whether a directory is known to be at a path."""
        known = self.find(path, timed=False)
        return known is not None and known.entry is not None and known.entry.is_directory

    def list_directory(self, path: str) -> tuple[list[Entry], float] | None:
        """The entries of a directory and their remaining TTL, if a listing is fresh."""
        with self._lock:
            listing = self._listings.get(path)
            remaining_s = listing.expires - self._clock.monotonic() if listing is not None else 0
            if listing is None or remaining_s <= 0 or listing.untimed:
                return None
            return list(listing.entries.values()), remaining_s

    def asking(self) -> Asked:
        """Call before asking the backend; this goes into learn and learn_listing with the answer.

        An answer is as old as its question: it may tell what was so at any time since.
        """
        with self._lock:
            return Asked(self._now, self._clock.monotonic())

    def learn(self, path: str, entry: Entry | None, asked: Asked) -> float:
        """Believe a backend's answer about one path (None: nothing is there), unless we changed it since; its TTL."""
        with self._telling() as changed:
            if self._overtaken(path, asked):
                return 0.0
            entry = _kept(entry)
            fact = _Fact(entry, asked.at_s + self._ttl_s)
            if self._contradicts(path, entry):
                changed.append(path)
            self._facts[path] = fact
            self._learn_time(path, entry)
            return max(0.0, fact.expires - self._clock.monotonic())

    def learn_listing(self, path: str, entries: Iterable[Entry], asked: Asked) -> float:
        """Believe a backend's listing, which is also a stat of each entry, unless we changed it since; its TTL."""
        with self._telling() as changed:
            if self._overtaken(path, asked):
                return 0.0
            attributed = self._with_attributes(path, entries)
            listing = _Listing({entry.name: entry for entry in attributed}, asked.at_s + self._ttl_s, set())
            changed.extend(self._contradicted(path, listing.entries))
            for name in list(self._facts.names(path)):
                del self._facts[paths.child(path, name)]
            self._keep(path, listing)
            return max(0.0, listing.expires - self._clock.monotonic())

    def changed(self, path: str, entry: Entry | None, asked: Asked, *, timed: bool = True, told: bool = False) -> None:
        """We made, replaced (entry) or removed (None) what is at a path; the listing of its directory follows.

        Not ``timed``: all is known of the entry but its time, which whoever looks at it asks for. ``told``: subscribers
        have heard of this content already.
        ``asked``: from asking(), before the backend was told to. Of two changes that were under way at once nobody
        knows which came last, so the path is asked for again.
        """
        entry = _kept(entry)
        with self._telling() as changed:
            if not told:
                changed.append(path)
            unclear = self._overtaken(path, asked)
            self._note(path)
            if unclear:
                self._facts.pop(path, None)
                self._listings.pop(paths.parent(path), None)
            else:
                self._facts[path] = _Fact(entry, self._clock.monotonic() + self._ttl_s, timed)
                self._follow(path, entry, timed=timed)
            if entry is None:
                self._listings.pop(path, None)
            else:
                self._parents_appeared(path)

    def tell(self, path: str) -> None:
        """Something is at a path for those who share this mount, and nothing new on the backend yet."""
        with self._telling() as changed:
            changed.append(path)

    def doubt(self, path: str) -> None:
        """Ask again about one path, its entries and its siblings: something happened there, and nobody knows what."""
        with self._telling() as changed:
            changed.append(path)
            self._note(path)
            self._facts.pop(path, None)
            self._listings.pop(path, None)
            self._listings.pop(paths.parent(path), None)

    def forget(self, directory: str) -> None:
        """Believe nothing any more about a directory and all below it."""
        with self._telling() as changed:
            changed.append(directory)
            self._now += 1
            self._all_changed = self._now
            self._changed.clear()
            for known in (self._facts, self._listings):
                for path in [path for path in known if paths.is_within(path, directory)]:
                    del known[path]
            if directory:
                self._listings.pop(paths.parent(directory), None)

    def with_attributes(self, directory: str, entries: Iterable[Entry]) -> list[Entry]:
        """The entries of a listing, with the attributes that are known of the same version at the same time."""
        with self._lock:
            return self._with_attributes(directory, entries)

    def _with_attributes(self, directory: str, entries: Iterable[Entry]) -> list[Entry]:
        listing = self._listings.get(directory)
        listed = listing.entries if listing is not None else {}
        now = self._clock.monotonic()
        found: list[Entry] = []
        for entry in entries:
            fact = self._facts.get(paths.child(directory, entry.name)) if entry.attributes is None else None
            known = fact.entry if fact is not None else listed.get(entry.name)
            if known is None or known.attributes is None or known.version != entry.version or entry.attributes:
                found.append(_kept(entry))
            elif fact is not None and fact.expires > now:
                # Believed anyway; but nobody may have told the time of what was put, which the listing does.
                found.append(msgspec.structs.replace(entry, attributes=known.attributes))
            elif known.mtime_ns == entry.mtime_ns and entry.is_file:
                # Of directories a listing tells no time, so that nothing says whether they have changed.
                found.append(msgspec.structs.replace(entry, attributes=known.attributes))
            else:
                found.append(_kept(entry))
        return found

    @contextmanager
    def _telling(self) -> Iterator[list[str]]:
        """Hold the lock, and then tell the subscribers of the paths that were added to the list."""
        changed: list[str] = []
        try:
            with self._lock:
                yield changed
        finally:
            for callback in self._subscribers if changed else ():
                for path in changed:
                    callback(path)

    def _contradicts(self, path: str, entry: Entry | None) -> bool:
        """Whether something else was known of a path last; False if nothing was."""
        fact = self._facts.get(path)
        listing = self._listings.get(paths.parent(path)) if path else None
        if listing is not None and (fact is None or fact.expires < listing.expires):
            return _differ(listing.entries.get(paths.basename(path)), entry)
        return fact is not None and _differ(fact.entry, entry)

    def _contradicted(self, directory: str, entries: dict[str, Entry]) -> list[str]:
        """The paths in a directory of which a new listing says something else than was known last."""
        listing = self._listings.get(directory)
        names = set(self._facts.names(directory))
        if listing is not None:
            names |= listing.entries.keys() ^ entries.keys()
            names |= {name for name, entry in entries.items() if _differ(listing.entries.get(name), entry)}
        every = ((paths.child(directory, name), entries.get(name)) for name in sorted(names))
        return [path for path, entry in every if self._contradicts(path, entry)]

    def _learn_time(self, path: str, entry: Entry | None) -> None:
        """What a stat tells of a name completes a listing that lacks its time."""
        listing, name = self._listings.get(paths.parent(path)), paths.basename(path)
        if path and listing is not None and name in listing.untimed and entry is not None:
            listing.untimed.discard(name)
            listing.entries[name] = entry

    def _follow(self, path: str, entry: Entry | None, *, timed: bool) -> None:
        """Keep the listing of a directory right, while there is one to believe."""
        directory, name = paths.parent(path), paths.basename(path)
        listing = self._listings.get(directory)
        if not path or listing is None:
            return
        if listing.expires <= self._clock.monotonic():
            del self._listings[directory]
            return
        listing.untimed.discard(name)
        if entry is None:
            listing.entries.pop(name, None)
            return
        listing.entries[name] = entry
        if not timed:
            listing.untimed.add(name)
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

    def _overtaken(self, path: str, asked: Asked) -> bool:
        return max(self._all_changed, self._changed.get(path, 0)) > asked.changes


def _differ(one: Entry | None, other: Entry | None) -> bool:
    """Whether two answers are about different things. Of a time alone a listing may know more digits than a stat."""
    if one is None or other is None:
        return one is not other
    if one.attributes is not None and other.attributes is not None and one.attributes != other.attributes:
        return True
    return (one.kind, one.size_bytes, one.version) != (other.kind, other.size_bytes, other.version)


def _kept(entry: EntryOrNone) -> EntryOrNone:
    """What is remembered: attributes, but not all the metadata that they were read from."""
    return entry if entry is None or entry.metadata is None else msgspec.structs.replace(entry, metadata=None)


def _size_of(listing: _Listing) -> int:
    return len(listing.entries) + 1
