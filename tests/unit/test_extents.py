"""Sets of byte ranges, against sets of integers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_storage.entry import Extent
from genro_storage.writing.extents import Extents

END = 40
offsets = st.integers(0, END)
sizes = st.integers(0, 12)
changes = st.lists(st.tuples(st.sampled_from(['add', 'remove', 'clip']), offsets, sizes), max_size=30)


def members(extents: Extents) -> set[int]:
    return {number for extent in extents for number in range(extent.offset, extent.end)}


def built(steps: list[tuple[str, int, int]]) -> tuple[Extents, set[int]]:
    extents, reference = Extents(), set[int]()
    for kind, offset, size_bytes in steps:
        if kind == 'add':
            extents.add(offset, size_bytes)
            reference |= set(range(offset, offset + size_bytes))
        elif kind == 'remove':
            extents.remove(offset, size_bytes)
            reference -= set(range(offset, offset + size_bytes))
        else:
            extents.clip(offset)
            reference = {number for number in reference if number < offset}
    return extents, reference


@given(changes)
def test_a_set_of_ranges_is_a_set_of_bytes_in_the_fewest_ranges(steps: list[tuple[str, int, int]]) -> None:
    extents, reference = built(steps)
    assert members(extents) == reference
    ranges = list(extents)
    assert len(extents) == len(ranges)
    assert bool(extents) == bool(reference)
    assert all(extent.size_bytes > 0 for extent in ranges)
    assert all(first.end < second.offset for first, second in pairwise(ranges))
    assert extents.size_bytes == len(reference)
    assert extents.end == max(reference, default=-1) + 1


@given(changes, offsets, sizes)
def test_questions_are_answered_as_by_a_set_of_bytes(
    steps: list[tuple[str, int, int]], offset: int, size_bytes: int
) -> None:
    extents, reference = built(steps)
    asked = Extent(offset, size_bytes)
    bytes_asked = set(range(offset, offset + size_bytes))
    within = extents.within(asked)
    assert members(Extents(within)) == reference & bytes_asked
    assert within == sorted(within)
    assert all(extent.size_bytes > 0 for extent in within)
    assert extents.covers(asked) == (bytes_asked <= reference)
    found = extents.at(offset)
    assert (found is not None) == (offset in reference)
    assert found is None or (found in list(extents) and found.offset <= offset < found.end)


@given(changes, changes)
def test_what_two_sets_have_in_common(one: list[tuple[str, int, int]], two: list[tuple[str, int, int]]) -> None:
    first, second = built(one)[0], built(two)[0]
    assert members(first.common(second)) == members(first) & members(second)
    assert (first == second) == (members(first) == members(second))


@given(changes, st.integers(0, 10))
def test_the_largest_ranges_are_some_of_them(steps: list[tuple[str, int, int]], count: int) -> None:
    extents = built(steps)[0]
    kept = list(extents.largest(count))
    left_out = [extent for extent in extents if extent not in kept]
    assert len(kept) == min(count, len(extents))
    assert len(kept) + len(left_out) == len(extents)
    assert all(one.size_bytes >= other.size_bytes for one in kept for other in left_out)


def test_a_copy_goes_its_own_way() -> None:
    extents = Extents([Extent(0, 10)])
    copied = extents.copy()
    copied.remove(2, 3)
    extents.add(20, 5)
    assert list(copied) == [Extent(0, 2), Extent(5, 5)]
    assert list(extents) == [Extent(0, 10), Extent(20, 5)]


def test_an_iteration_goes_through_the_ranges_of_its_beginning() -> None:
    extents = Extents([Extent(0, 1), Extent(2, 1), Extent(4, 1)])
    for extent in extents:
        extents.remove(extent.offset, 1)
    assert not extents


def test_a_set_shows_its_ranges_but_not_thousands() -> None:
    assert repr(Extents([Extent(0, 2), Extent(5, 1)])) == 'Extents([0, 2), [5, 6))'
    assert len(repr(Extents(Extent(2 * number, 1) for number in range(10_000)))) < 200


def test_a_set_that_changes_is_no_key() -> None:
    with pytest.raises(TypeError):
        hash(Extents())
    assert Extents() != []
