"""Sets of byte ranges: what of a file is missing, unchanged or written.

Owns their arithmetic. Pure: no I/O. Threads: not safe; whoever owns a set locks.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Self

from genro_storage.entry import Extent


class Extents:
    """A set of byte ranges, sorted, disjoint, adjacent ones merged. Not thread-safe: whoever owns it locks."""

    # Two lists of integers rather than one of extents: the bisection then compares no objects, and a set of one or
    # two ranges, which is nearly every one, costs half a microsecond to change.
    __slots__ = ('_ends', '_starts')
    __hash__ = None  # type: ignore[assignment]  # it changes

    def __init__(self, extents: Iterable[Extent] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for extent in extents:
            self.add(extent.offset, extent.size_bytes)

    def __iter__(self) -> Iterator[Extent]:
        """The ranges in order, as they are when the iteration begins."""
        for start, end in list(zip(self._starts, self._ends, strict=True)):
            yield Extent(start, end - start)

    def __len__(self) -> int:
        """The number of ranges."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extents):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    def __repr__(self) -> str:
        shown = ', '.join(f'[{start}, {end})' for start, end in zip(self._starts[:8], self._ends[:8], strict=True))
        return f'Extents({shown}{", …" if len(self) > 8 else ""})'

    @property
    def size_bytes(self) -> int:
        """How many bytes are in it."""
        return sum(self._ends) - sum(self._starts)

    @property
    def end(self) -> int:
        """The offset behind its last byte; 0 if it is empty."""
        return self._ends[-1] if self._ends else 0

    def add(self, offset: int, size_bytes: int) -> None:
        """Put a range in."""
        if size_bytes <= 0:
            return
        end = offset + size_bytes
        first = bisect_left(self._ends, offset)  # the first that reaches it or touches it
        last = bisect_right(self._starts, end)
        if first < last:
            offset = min(offset, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [offset]
        self._ends[first:last] = [end]

    def remove(self, offset: int, size_bytes: int) -> None:
        """Take a range out, as far as it is in."""
        end = offset + size_bytes
        first = bisect_right(self._ends, offset)
        last = bisect_left(self._starts, end)
        if size_bytes <= 0 or first >= last:
            return
        starts, ends = [], []
        if self._starts[first] < offset:
            starts.append(self._starts[first])
            ends.append(offset)
        if self._ends[last - 1] > end:
            starts.append(end)
            ends.append(self._ends[last - 1])
        self._starts[first:last] = starts
        self._ends[first:last] = ends

    def clip(self, end: int) -> None:
        """Take out all that is at or behind an offset."""
        if self.end > end:
            self.remove(end, self.end - end)

    def within(self, extent: Extent) -> list[Extent]:
        """What it has in common with a range, in order."""
        start, end = extent.offset, extent.end
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        # At both ends a range may reach out of it; an empty extent may be inside one.
        bounds = [(max(self._starts[index], start), min(self._ends[index], end)) for index in range(first, last)]
        return [Extent(low, high - low) for low, high in bounds if low < high]

    def covers(self, extent: Extent) -> bool:
        """Whether all of a range is in it."""
        if extent.size_bytes <= 0:
            return True
        index = bisect_right(self._starts, extent.offset) - 1
        return index >= 0 and self._ends[index] >= extent.end

    def at(self, offset: int) -> Extent | None:
        """The range that holds the byte at an offset."""
        index = bisect_right(self._starts, offset) - 1
        if index < 0 or self._ends[index] <= offset:
            return None
        return Extent(self._starts[index], self._ends[index] - self._starts[index])

    def common(self, other: 'Extents') -> 'Extents':
        """What is in both."""
        return Extents(shared for extent in other for shared in self.within(extent))

    def largest(self, count: int) -> 'Extents':
        """At most so many of the ranges, none of them smaller than one that is left out."""
        ranges = sorted(self, key=lambda extent: -extent.size_bytes)[:count]
        return Extents(sorted(ranges))

    def copy(self) -> Self:
        """Another set with the same ranges."""
        copied = type(self)()
        copied._starts = self._starts.copy()
        copied._ends = self._ends.copy()
        return copied
