"""Paths to nodeids: the names that have been looked up, how often, and how long each may be believed.

Owns the tree of names (what the kernel's dentry cache is to devfuse), its bound, and which lookups are to be given
back. Does no I/O and asks nobody: whoever walks a path enters what was found. A place that somebody uses, to walk on or
for an open file, is kept whatever becomes of its name, and its lookups are given back when the last one leaves it.

Threads: safe; one lock, held for dictionary operations only.
"""

import math
import threading
from collections import OrderedDict

from fusefs.ops import ROOT_NODEID, EntryReply
from genro_storage.runtime import Clock, SystemClock

#: Half a kilobyte each, with the inode that it holds. Beyond, what nobody uses is looked up again.
LIMIT_PLACES = 65_536
#: How many places to look at for one that can go. Those that cannot are open, or directories of others.
_TRIES = 64


class Shown:
    """What the kernel has at a name: one inode with one page cache, whatever the name leads to at the file system."""

    __slots__ = ('opens',)

    def __init__(self) -> None:
        self.opens: dict[Place, int] = {}  # open files by what they were opened at; guarded by the lock of the table


class Place:
    """A name that leads to an inode. Its fields are the table's."""

    __slots__ = ('children', 'is_attached', 'lookups', 'name', 'nodeid', 'parent', 'shown', 'until_s', 'users')

    def __init__(self, nodeid: int, parent: 'Place | None', name: str, shown: Shown) -> None:
        self.nodeid = nodeid
        self.parent = parent
        self.name = name
        self.shown = shown
        self.children: dict[str, Place] = {}
        self.lookups = 0
        self.users = 0
        self.until_s = -math.inf
        #: Whether its name leads here.
        self.is_attached = False

    def __repr__(self) -> str:
        return f'Place({self.nodeid}, {self.name!r}, lookups={self.lookups}, users={self.users})'


class Places:
    """The names below the root that are known."""

    def __init__(self, clock: Clock | None = None, limit: int = LIMIT_PLACES) -> None:
        self._clock = clock or SystemClock()
        self._limit = limit
        self._lock = threading.Lock()
        #: Never given back, and always believed.
        self.root = Place(ROOT_NODEID, None, '', Shown())
        self.root.is_attached = True
        # Guarded by _lock.
        self._recent: OrderedDict[Place, None] = OrderedDict()  # all but the root, last used last
        self._by_nodeid: dict[int, set[Place]] = {ROOT_NODEID: {self.root}}
        self._gone: list[tuple[int, int]] = []
        self._changes = 0

    def __len__(self) -> int:
        return len(self._recent)

    @property
    def changes(self) -> int:
        """How often names have changed. Whoever looks one up remembers it from before, for enter()."""
        return self._changes

    def find(self, parent: Place, name: str) -> Place | None:
        """What a name is believed to lead to, for the caller to leave(); None if it must be looked up."""
        with self._lock:
            place = parent.children.get(name)
            if place is None or place.until_s <= self._clock.monotonic():
                return None
            self._recent.move_to_end(place)
            place.users += 1
            return place

    def enter(self, parent: Place, name: str, entry: EntryReply, changes: int) -> Place:
        """What a lookup has found, which counts once; for the caller to leave().

        changes: from before the lookup. If names have changed since, what was found is not believed any longer than by
        the caller.
        """
        with self._lock:
            place = parent.children.get(name)
            if place is None or place.nodeid != entry.nodeid:
                shown = Shown() if place is None else place.shown
                if place is not None:
                    self._detach(place)
                place = Place(entry.nodeid, parent, name, shown)
                if parent.is_attached:
                    self._attach(place)
            else:
                self._recent.move_to_end(place)
            place.lookups += 1
            place.users += 1
            is_sure = changes == self._changes
            place.until_s = self._clock.monotonic() + entry.entry_ttl_s if is_sure else -math.inf
            self._evict()
            return place

    def absent(self, parent: Place, name: str) -> None:
        """A lookup has found nothing. What somebody has open there stays, to be looked up again."""
        with self._lock:
            place = parent.children.get(name)
            if place is not None and not place.shown.opens:
                self._detach(place)
            elif place is not None:
                place.until_s = -math.inf

    def hold(self, place: Place) -> None:
        """Use a place once more."""
        with self._lock:
            place.users += 1

    def leave(self, place: Place) -> None:
        """Use a place no more."""
        with self._lock:
            self._leave(place)

    def open(self, place: Place) -> bool:
        """Use a place for an open file, until close(); whether the kernel's inode has another file open already."""
        with self._lock:
            place.users += 1
            opens = place.shown.opens
            opens[place] = opens.get(place, 0) + 1
            return any(other.nodeid != place.nodeid for other in opens)

    def close(self, place: Place) -> None:
        """An open file is closed."""
        with self._lock:
            opens = place.shown.opens
            opens[place] -= 1
            if not opens[place]:
                del opens[place]
                if opens and place.is_attached and place.until_s == math.inf and place.parent is not None:
                    # Its name leads to what is open yet, which was the name of that one, too.
                    parent = place.parent
                    self._detach(place)
                    self._lead(parent, place.name, next(reversed(opens)))
            self._leave(place)

    def remove(self, parent: Place, name: str) -> None:
        """A name has been removed."""
        with self._lock:
            self._changes += 1
            place = parent.children.get(name)
            if place is not None:
                self._detach(place)

    def rename(self, parent: Place, name: str, new_parent: Place, new_name: str) -> None:
        """A name has moved, and all below it with it."""
        with self._lock:
            self._changes += 1
            place, replaced = parent.children.get(name), new_parent.children.get(new_name)
            if replaced is not None and replaced is not place:
                self._detach(replaced)
            if place is not None:
                self._move(place, new_parent, new_name)

    def exchange(self, parent: Place, name: str, other_parent: Place, other_name: str) -> None:
        """Two names have changed places."""
        with self._lock:
            self._changes += 1
            one, other = parent.children.get(name), other_parent.children.get(other_name)
            for place in (one, other):
                if place is not None and place.parent is not None:
                    del place.parent.children[place.name]
            if one is not None:
                self._put(one, other_parent, other_name)
            if other is not None:
                self._put(other, parent, name)

    def hide(self, parent: Place, name: str, hidden: str) -> None:
        """A name has been removed whose file is open; from now on libfuse calls that file by another name."""
        with self._lock:
            self._changes += 1
            place = parent.children.get(name)
            if place is None:
                return
            shown = place.shown
            if place not in shown.opens and shown.opens:
                # The name has led elsewhere since it was opened.
                self._detach(place)
                place = next(reversed(shown.opens))
            self._lead(parent, hidden, place)

    def is_hidden(self, parent: Place, name: str) -> bool:
        """Whether a name is one of libfuse's for a file that was removed."""
        with self._lock:
            place = parent.children.get(name)
            return place is not None and place.until_s == math.inf

    def doubt(self, path: list[str]) -> None:
        """Have every name of a path looked up again."""
        with self._lock:
            self._changes += 1
            place: Place | None = self.root
            for name in path:
                place = place.children.get(name) if place is not None else None
                if place is not None and place.until_s != math.inf:
                    place.until_s = -math.inf

    def expire(self, parent: int, name: str) -> None:
        """Have a name below a nodeid looked up again."""
        with self._lock:
            self._changes += 1
            for directory in self._by_nodeid.get(parent, ()):
                place = directory.children.get(name)
                if place is not None and place.until_s != math.inf:
                    place.until_s = -math.inf

    def clear(self) -> None:
        """Give back all that nobody uses."""
        with self._lock:
            for place in list(self.root.children.values()):
                self._detach(place)

    def take_gone(self) -> list[tuple[int, int]]:
        """Lookups to give back, as (nodeid, count). Each is returned once."""
        if not self._gone:
            return []
        with self._lock:
            gone, self._gone = self._gone, []
            return gone

    # Called with the lock held.

    def _leave(self, place: Place) -> None:
        place.users -= 1
        self._give_back(place)
        self._evict()

    def _give_back(self, place: Place) -> None:
        if place.lookups and not place.users and not place.is_attached:
            self._gone.append((place.nodeid, place.lookups))
            place.lookups = 0

    def _attach(self, place: Place) -> None:
        place.is_attached = True
        self._recent[place] = None
        self._by_nodeid.setdefault(place.nodeid, set()).add(place)
        if place.parent is not None:
            place.parent.children[place.name] = place

    def _detach(self, place: Place) -> None:
        """Take a place and all below it out of the tree."""
        if place.parent is not None and place.parent.children.get(place.name) is place:
            del place.parent.children[place.name]
        below = [place]
        while below:
            each = below.pop()
            below.extend(each.children.values())
            each.children.clear()
            each.is_attached = False
            self._recent.pop(each, None)
            same = self._by_nodeid[each.nodeid]
            same.discard(each)
            if not same:
                del self._by_nodeid[each.nodeid]
            self._give_back(each)

    def _lead(self, parent: Place, hidden: str, place: Place) -> None:
        """Have one of libfuse's names lead to a place."""
        if place.is_attached:
            self._move(place, parent, hidden)
        elif parent.is_attached:
            place.parent, place.name = parent, hidden
            self._attach(place)
        place.until_s = math.inf

    def _move(self, place: Place, parent: Place, name: str) -> None:
        if place.parent is not None:
            del place.parent.children[place.name]
        self._put(place, parent, name)

    def _put(self, place: Place, parent: Place, name: str) -> None:
        """Put a place that is in the tree, but under no name, under one."""
        if parent.is_attached:
            place.parent, place.name = parent, name
            parent.children[name] = place
        else:
            self._detach(place)

    def _evict(self) -> None:
        for _ in range(_TRIES):
            if len(self._recent) <= self._limit:
                return
            place = next(iter(self._recent))
            if place.users or place.children or place.shown.opens:
                self._recent.move_to_end(place)
            else:
                self._detach(place)
