"""Blocks and extents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_storage.cache.blocks import BLOCK_BYTES, BlockKey, Run, Runs, consecutive, extent_of, numbers, runs
from genro_storage.entry import Extent

B = BLOCK_BYTES


@pytest.mark.parametrize(
    ('offset', 'size_bytes', 'touched'),
    [
        (0, 0, []),
        (0, -5, []),
        (0, 1, [0]),
        (0, B, [0]),
        (0, B + 1, [0, 1]),
        (B - 1, 1, [0]),
        (B - 1, 2, [0, 1]),
        (B, 1, [1]),
        (2 * B + 7, 2 * B, [2, 3, 4]),
    ],
)
def test_blocks_that_an_extent_touches(offset: int, size_bytes: int, touched: list[int]) -> None:
    assert list(numbers(Extent(offset, size_bytes))) == touched


@pytest.mark.parametrize(
    ('first', 'last', 'file_bytes', 'extent'),
    [
        (0, 0, B, Extent(0, B)),
        (0, 0, 10, Extent(0, 10)),
        (1, 2, 3 * B, Extent(B, 2 * B)),
        (1, 2, 2 * B + 1, Extent(B, B + 1)),
    ],
)
def test_bytes_of_blocks(first: int, last: int, file_bytes: int, extent: Extent) -> None:
    assert extent_of(first, last, file_bytes) == extent


@pytest.mark.parametrize(
    ('wanted', 'limit', 'grouped'),
    [
        ([], 3, []),
        ([5], 3, [(5, 5)]),
        ([0, 1, 2], 3, [(0, 2)]),
        ([0, 1, 2, 3], 3, [(0, 2), (3, 3)]),
        ([0, 2, 3, 7], 3, [(0, 0), (2, 2), (3, 3), (7, 7)]),
        ([1, 2, 3], 1, [(1, 1), (2, 2), (3, 3)]),
        ([1, 2, 3, 4, 6], 3, [(1, 2), (3, 4), (6, 6)]),
        ([1, 2, 3, 5], None, [(1, 3), (5, 5)]),
    ],
)
def test_runs(wanted: list[int], limit: int | None, grouped: list[tuple[int, int]]) -> None:
    assert list(runs(wanted, limit)) == grouped


@given(st.sets(st.integers(0, 200)), st.integers(1, 10))
def test_runs_hold_each_number_once_and_no_other(wanted: set[int], limit: int) -> None:
    grouped = list(runs(sorted(wanted), limit))
    assert [number for first, last in grouped for number in range(first, last + 1)] == sorted(wanted)
    assert all(last - first < limit for first, last in grouped)


@given(st.integers(0, 5), st.integers(1, 4 * B))
def test_the_blocks_of_a_run_are_the_whole(first: int, size_bytes: int) -> None:
    data = bytes(size_bytes)
    run = Run(BlockKey('d', 'p', 'v', first), data)
    keys = list(run.block_keys())
    assert [key.number for key in keys] == list(range(first, first + -(-size_bytes // B)))
    blocks = [run.block(key.number) for key in keys]
    assert b''.join(blocks) == data
    assert all(len(block) == B for block in blocks[:-1])


def test_an_index_finds_the_newest_run_and_forgets_only_what_it_is_told() -> None:
    one, other = (Run(BlockKey('d', 'p', 'v', first), bytes(2 * B)) for first in (0, 1))
    index = Runs()
    index.add(one)
    index.add(other)
    found = [index.find(key) for key in consecutive(one.first, 4)]
    assert found == [one, other, other, None]
    index.discard(one)
    assert [index.find(key) for key in consecutive(one.first, 4)] == [None, other, other, None]
    assert len(index) == 2
