"""How commits are cut into parts, against the limits of S3."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genro_storage.backends.s3_multipart import part_extents
from genro_storage.entry import Extent
from genro_storage.errors import StorageIOError
from genro_storage.writing.extents import Extents
from genro_storage.writing.parts import Part, part_of, plan, plan_streamed

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

sizes = st.one_of(
    st.integers(1, 100 * MIB),
    st.integers(1, 20 << 10).map(lambda size: size * MIB),
    st.integers(1, 5 * TIB),
    st.sampled_from([8 * MIB, 8 * MIB + 1, 10_000 * 8 * MIB, 10_000 * 8 * MIB + 1, 512 * MIB + 1, 5 * TIB]),
)


def require_possible(parts: list[Part], size_bytes: int) -> None:
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert len(parts) <= 10_000
    end = 0
    for part in parts:
        assert part.extent.offset == end
        assert 0 < part.extent.size_bytes <= 5 * GIB
        assert part.extent.size_bytes >= 5 * MIB or part is parts[-1]
        end = part.extent.end
    assert end == size_bytes


@st.composite
def files(draw: st.DrawFn) -> tuple[int, Extents]:
    size_bytes = draw(sizes)
    bounds = sorted(draw(st.lists(st.integers(0, size_bytes), max_size=12)))
    pairs = zip(bounds[::2], bounds[1::2], strict=False)
    return size_bytes, Extents(Extent(start, end - start) for start, end in pairs)


@settings(deadline=None)  # ten thousand parts take a while on a busy machine
@given(files())
def test_parts_tile_a_file_and_are_copied_only_where_it_is_unchanged(file: tuple[int, Extents]) -> None:
    size_bytes, unchanged = file
    parts = plan(size_bytes, unchanged, copies=True)
    require_possible(parts, size_bytes)
    for part in parts:
        if part.copied:
            assert unchanged.covers(part.extent)
            assert part.extent.size_bytes >= 5 * MIB
    sent = {part.extent.size_bytes for part in parts[:-1] if not part.copied}
    assert len(sent) <= 1
    slot_bytes = plan(size_bytes, Extents(), copies=False)[0].extent.size_bytes
    assert all(part.extent.size_bytes <= max(32 * MIB, slot_bytes) for part in parts)
    # Nothing is sent of a slot that could be copied.
    for part in parts[:-1]:
        assert part.copied or not unchanged.covers(part.extent)


@settings(deadline=None)
@given(sizes)
def test_parts_that_are_all_sent_are_of_one_size(size_bytes: int) -> None:
    parts = plan(size_bytes, Extents([Extent(0, size_bytes)]), copies=False)
    require_possible(parts, size_bytes)
    assert not any(part.copied for part in parts)
    assert [part.extent for part in parts] == list(part_extents(size_bytes))


@settings(deadline=None)
@given(st.one_of(sizes, st.just(0)))
def test_parts_of_a_stream_tile_the_file(size_bytes: int) -> None:
    parts = plan_streamed(size_bytes)
    require_possible(parts, size_bytes)
    if size_bytes <= 4_000 * 8 * MIB:
        assert parts == plan(size_bytes, Extents(), copies=False)


def test_parts_of_a_stream_begin_where_the_one_before_ends_and_reach_five_terabytes() -> None:
    end = 0
    for number in range(1, 10_001):
        extent = part_of(number)
        assert extent.offset == end
        assert 8 * MIB <= extent.size_bytes <= 5 * GIB
        end = extent.end
    assert end >= 5 * TIB
    assert part_of(4_000).size_bytes == 8 * MIB
    assert part_of(4_001).size_bytes == 16 * MIB


CASES = {
    'nothing is unchanged': (20 * MIB, [], [(8, False), (8, False), (4, False)]),
    'all of it is': (20 * MIB, [(0, 20)], [(20, True)]),
    'the beginning is': (24 * MIB, [(0, 17)], [(16, True), (8, False)]),
    'an end too short to be copied alone': (20 * MIB, [(16, 4)], [(8, False), (8, False), (4, False)]),
    'an end long enough': (22 * MIB, [(16, 6)], [(8, False), (8, False), (6, True)]),
    'an end too short, behind others': (20 * MIB, [(8, 12)], [(8, False), (12, True)]),
    'one byte in the middle has changed': (40 * MIB, [(0, 17), (18, 22)], [(16, True), (8, False), (16, True)]),
    'half a slot is no slot': (24 * MIB, [(4, 8), (13, 10)], [(8, False), (8, False), (8, False)]),
    'runs behind the end do not count': (12 * MIB, [(0, 100)], [(12, True)]),
    'a long run is cut in equal pieces': (72 * MIB, [(0, 72)], [(24, True), (24, True), (24, True)]),
    'a run and a little more than one copy': (33 * MIB, [(0, 33)], [(16, True), (17, True)]),
}


@pytest.mark.parametrize('case', CASES)
def test_what_is_copied_and_what_is_sent(case: str) -> None:
    size_bytes, unchanged, expected = CASES[case]
    parts = plan(size_bytes, Extents(Extent(start * MIB, size * MIB) for start, size in unchanged), copies=True)
    assert [(part.extent.size_bytes // MIB, part.copied) for part in parts] == expected
    require_possible(parts, size_bytes)


def test_an_empty_file_has_no_parts() -> None:
    assert plan(0, Extents(), copies=True) == []
    assert plan_streamed(0) == []


@pytest.mark.parametrize('cut', [lambda size: plan(size, Extents(), copies=False), plan_streamed])
def test_a_file_over_five_terabytes_is_refused(cut: object) -> None:
    assert callable(cut)
    with pytest.raises(StorageIOError, match='5 TiB') as caught:
        cut(5 * TIB + 1)
    assert caught.value.errno == errno.EFBIG


def test_a_file_in_ten_thousand_ranges_is_planned_at_once() -> None:
    """Within the timeout of every test, which one that goes through all ranges for each part would not be."""
    unchanged = Extents(Extent(number * 8 * MIB, 8 * MIB - 1) for number in range(10_000))
    assert len(plan(10_000 * 8 * MIB, unchanged, copies=True)) == 10_000
