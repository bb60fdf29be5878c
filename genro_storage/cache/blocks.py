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


class BlockKey(NamedTuple):
    """One block of one version of one file, wherever it is mounted."""

    destination: str
    path: str
    version: str
    number: int


class BlockCache(Protocol):
    """Remembers blocks, for as long as it likes."""

    def get(self, key: BlockKey) -> bytes | None:
        """The block, or None."""

    def put(self, key: BlockKey, block: bytes) -> None:
        """Remember a block, which may push out others."""

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


def runs(ascending: Iterable[int], limit: int) -> Iterator[tuple[int, int]]:
    """Group ascending block numbers into runs (first, last), inclusive, of at most limit blocks each."""
    first = last = -1
    for number in ascending:
        if first >= 0 and number == last + 1 and number - first < limit:
            last = number
            continue
        if first >= 0:
            yield first, last
        first = last = number
    if first >= 0:
        yield first, last


def split(extent: Extent, first: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut the bytes of an extent that begins with block first into (number, block)."""
    if len(data) <= BLOCK_BYTES:
        yield first, data
        return
    for count, start in enumerate(range(0, extent.size_bytes, BLOCK_BYTES)):
        yield first + count, data[start : start + BLOCK_BYTES]
