"""Inode numbers of the files and directories of a volume: a number goes where its file goes.

Owns which number a path has. It is made of a *seed*: of the path itself, in every run, until something is renamed.
What is renamed keeps its seed, and so does all below it, for as long as the tree is mounted. No two names have one
seed, and no name that of something that is removed and still held: what comes to a path whose seed is taken gets
another one.

Threads: safe; one lock, a leaf.
"""

import itertools
import threading
from collections import OrderedDict

from fusefs import attrs
from genro_storage import paths

#: Names whose seeds are remembered, 6 MB of Python objects. Of more, those that were looked at longest ago have the
#: number of their path again.
LIMIT_SEEDS = 16_384
# No name holds a NUL, so that what is made with one is no path.
_HELD = '\0'


class InodeNumbers:
    """Those of one mount.

    A *slot* is the seed of a directory with a name: what the seed of that name is if nothing else is known. It is no
    path, so that a directory which moves takes all below it along at once.
    """

    def __init__(self, mount: str, limit: int = LIMIT_SEEDS) -> None:
        self._mount = mount
        self._limit = limit
        self._lock = threading.Lock()
        # Guarded by _lock, and inverse to each other.
        self._seeds: OrderedDict[str, str] = OrderedDict()  # by slot, if it is another; what was looked at last is last
        self._slots: dict[str, str] = {}  # by seed
        self._made = itertools.count(1)

    def of(self, path: str) -> int:
        """The number of what is at a path."""
        return self.of_seed(self.seed_of(path))

    def seed_of(self, path: str) -> str:
        """What the number of a path is made of, for whoever may need it later: to make it takes some microseconds."""
        if not self._seeds:  # almost always, and for each entry of a listing
            return path
        with self._lock:
            return self._seed(path)

    def of_seed(self, seed: str) -> int:
        """The number that is made of a seed."""
        return attrs.stable_ino(self._mount, seed)

    def move(self, source: str, target: str) -> None:
        """A file or directory has another path, where nothing else is any more."""
        with self._lock:
            seed = self._seed(source)
            self._drop(self._slot(source))
            slot = self._slot(target)
            self._drop(slot)
            if slot != seed:
                self._put(slot, seed)

    def hold(self, path: str) -> str:
        """What was at a path is gone, and somebody may look at it still: its seed, which is its own until let_go()."""
        with self._lock:
            seed = self._seed(path)
            self._drop(self._slot(path))
            self._put(_HELD + seed, seed)
            return seed

    def let_go(self, seed: str) -> None:
        """Nobody looks any more at what had this seed."""
        with self._lock:
            self._drop(_HELD + seed)

    # Called with the lock held.

    def _seed(self, path: str) -> str:
        seed = ''
        for name in path.split('/') if path else ():
            seed = self._seed_at(paths.child(seed, name))
        return seed

    def _slot(self, path: str) -> str:
        return paths.child(self._seed(paths.parent(path)), paths.basename(path))

    def _seed_at(self, slot: str) -> str:
        known = self._seeds.get(slot)
        if known is not None:
            self._seeds.move_to_end(slot)
            return known
        if slot not in self._slots:
            return slot
        made = f'{slot}\0{next(self._made)}'
        self._put(slot, made)
        return made

    def _put(self, slot: str, seed: str) -> None:
        self._seeds[slot] = seed
        self._slots[seed] = slot
        if len(self._seeds) > self._limit:
            _, forgotten = self._seeds.popitem(last=False)
            del self._slots[forgotten]

    def _drop(self, slot: str) -> None:
        seed = self._seeds.pop(slot, None)
        if seed is not None:
            del self._slots[seed]
