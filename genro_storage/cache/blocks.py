"""Blocks: the fixed unit in which files are cached, and the arithmetic between blocks and extents.

Pure values and functions, and the protocol that every cache of blocks fulfils. A BlockKey carries the version of its
file, so that a changed file misses instead of needing invalidation.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from genro_storage.entry import Extent

#: Small enough that a random 4 KiB read over a 10 ms line costs little more than the round trip, large enough that a
#: sequential 1 GiB is 4,096 dictionary entries, not 262,144.
BLOCK_BYTES = 256 * 1024


#: The bytes of a block: a view where it is part of a longer range that came in one buffer.
Block = bytes | memoryview


class BlockKey(NamedTuple):
    """One block of one version of one file, wherever it is mounted."""

    destination: str
    path: str
    version: str
    number: int


class BlockCache(Protocol):
    """Remembers blocks, for as long as it likes."""

    @property
    def ahead_bytes(self) -> int:
        """How much may be fetched before it is asked for without pushing itself out again."""

    def get(self, key: BlockKey) -> Block | None:
        """The block, or None."""

    def absent(self, first: BlockKey, count: int) -> list[int]:
        """The numbers of those of these consecutive blocks that are not here, without reading the others."""

    def put(self, key: BlockKey, data: Block) -> None:
        """Remember a block, or several in a row of which this is the first key; it may push out others.

        Whoever puts a view never changes what is under it.
        """

    def passed(self, key: BlockKey) -> None:
        """A reader in sequence has this block behind it, and will hardly come back."""

    def pace(self) -> None:
        """Wait, for a bounded time, while what was put is not stored yet. For whoever fetches ahead of demand."""

    def complete_file(self, destination: str, path: str, version: str, size_bytes: int) -> int | None:
        """A read-only descriptor of the whole of a version on the local disk, all checked; None if there is none.

        At once, and for the caller to close; the file is not evicted before that.
        """

    def check_file(self, destination: str, path: str, version: str, size_bytes: int) -> None:
        """Have a version checked that may be all here by now, so that complete_file gives it. At once: others do it."""

    def after_fork(self) -> None:
        """Begin anew in a forked child, where locks may have been held."""


def numbers(extent: Extent) -> range:
    """The blocks that an extent touches."""
    if extent.size_bytes <= 0:
        return range(0)
    return range(extent.offset // BLOCK_BYTES, (extent.end - 1) // BLOCK_BYTES + 1)


def extent_of(first: int, last: int, file_bytes: int) -> Extent:
    """The bytes of blocks first to last, inclusive, of a file of this size."""
    offset = first * BLOCK_BYTES
    return Extent(offset, min((last + 1) * BLOCK_BYTES, file_bytes) - offset)


def runs(ascending: Iterable[int], limit: int | None = None) -> Iterator[tuple[int, int]]:
    """Group ascending block numbers into runs (first, last), inclusive, none across a multiple of a ``limit``."""
    first = last = -1
    for number in ascending:
        if first >= 0 and number == last + 1 and (limit is None or number % limit):
            last = number
            continue
        if first >= 0:
            yield first, last
        first = last = number
    if first >= 0:
        yield first, last


def consecutive(first: BlockKey, count: int) -> Iterator[BlockKey]:
    """The keys of so many blocks in a row."""
    destination, path, version, number = first
    for each in range(number, number + count):
        yield BlockKey(destination, path, version, each)


class Run:
    """Consecutive blocks of one file in one buffer, which is not copied to cut them out."""

    __slots__ = ('_data', 'first')

    def __init__(self, first: BlockKey, data: Block) -> None:
        self.first = first
        self._data = memoryview(data)

    @property
    def size_bytes(self) -> int:
        """What the buffer holds."""
        return self._data.nbytes

    @property
    def data(self) -> memoryview:
        """All of it."""
        return self._data

    def block_keys(self) -> Iterator[BlockKey]:
        """The keys of its blocks, in order."""
        return consecutive(self.first, self.count)

    @property
    def count(self) -> int:
        """How many blocks it has."""
        return -(-self._data.nbytes // BLOCK_BYTES)

    def block(self, number: int) -> memoryview:
        """One of its blocks."""
        start = (number - self.first.number) * BLOCK_BYTES
        return self._data[start : start + BLOCK_BYTES]


class Runs:
    """An index of runs by each of their blocks. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._by_block: dict[BlockKey, Run] = {}

    def __len__(self) -> int:
        return len(self._by_block)

    def find(self, key: BlockKey) -> Run | None:
        """The run that a block is in, the newest if there are several."""
        return self._by_block.get(key)

    def add(self, run: Run) -> None:
        """Index a run."""
        for key in run.block_keys():
            self._by_block[key] = run

    def discard(self, run: Run) -> None:
        """Forget a run, but not those that came later for the same blocks."""
        for key in run.block_keys():
            if self._by_block.get(key) is run:
                del self._by_block[key]
