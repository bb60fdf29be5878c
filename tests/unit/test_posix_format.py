"""Attributes in the metadata of objects: there and back, and what anybody else may have written there."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_storage.entry import Attributes
from genro_storage.posix_format import (
    ID_MAX,
    NOTHING,
    TIME_MAX_NS,
    attributes_of,
    changed,
    metadata_of,
    without_times,
)

KINDS = [0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]

modes = st.builds(lambda kind, bits: kind | bits, st.sampled_from(KINDS), st.integers(0, 0o7777))
ids = st.integers(0, ID_MAX)
times = st.integers(-TIME_MAX_NS, TIME_MAX_NS)
attributes = st.builds(
    Attributes,
    mode=st.none() | modes,
    uid=st.none() | ids,
    gid=st.none() | ids,
    atime_ns=st.none() | times,
    mtime_ns=st.none() | times,
    ctime_ns=st.none() | times,
    rdev=st.none() | st.integers(0, (1 << 32) - 1),
)
NAMES = ['mode', 'uid', 'gid', 'rdev', 'atime', 'mtime', 'ctime']
digits = st.text('0123456789.-+eE xX_٣', max_size=40)


@given(attributes)
def test_what_was_stored_is_read_back(stored: Attributes) -> None:
    assert attributes_of(metadata_of(stored)) == stored


@given(attributes, st.dictionaries(st.text(), st.text()))
def test_other_metadata_stay(stored: Attributes, others: dict[str, str]) -> None:
    others = {name: value for name, value in others.items() if name not in NAMES}
    described = changed(others, stored)
    assert {name: value for name, value in described.items() if name not in NAMES} == others
    assert attributes_of(described) == stored


@given(attributes, attributes)
def test_changes_of_values_and_of_metadata_are_the_same(before: Attributes, changes: Attributes) -> None:
    assert attributes_of(changed(metadata_of(before), changes)) == before.changed(changes)


@given(st.dictionaries(st.sampled_from(NAMES), digits | st.text()))
def test_what_anybody_wrote_is_a_value_that_stat_can_show_or_nothing(metadata: dict[str, str]) -> None:
    found = attributes_of(metadata)
    assert found.mode is None or (stat.S_IFMT(found.mode) in KINDS and found.mode < 1 << 16)
    for number in (found.uid, found.gid):
        assert number is None or 0 <= number <= ID_MAX
    for time_ns in (found.atime_ns, found.mtime_ns, found.ctime_ns):
        assert time_ns is None or abs(time_ns) <= TIME_MAX_NS


@pytest.mark.parametrize(
    ('text', 'time_ns'),
    [
        ('1700000000', 1_700_000_000_000_000_000),  # s3fs-fuse, of a whole second
        ('1700000000.000000005', 1_700_000_000_000_000_005),  # s3fs-fuse
        ('1700000000.123456789', 1_700_000_000_123_456_789),  # rclone
        ('1700000000.5', 1_700_000_000_500_000_000),  # rclone, which leaves zeros at the end out
        ('1700000000.1234567891', 1_700_000_000_123_456_789),
        ('0', 0),
        ('-1.5', -1_500_000_000),  # rclone, before 1970
        ('2023-11-14T22:13:20.123456789Z', 1_700_000_000_123_456_789),  # rclone, on Google's and Azure's stores
        ('2023-11-14T23:13:20+01:00', 1_700_000_000_000_000_000),
    ],
)
def test_times_of_other_programs_are_understood(text: str, time_ns: int) -> None:
    assert attributes_of({'mtime': text}).mtime_ns == time_ns


@pytest.mark.parametrize(
    'text',
    ['', ' 1', '1 ', '1e9', '0x10', '+1', '1.', '.5', '--1', '1,5', 'now', '99999999999', '٣', '2023-13-45T00:00:00Z'],
)
def test_what_is_no_time_was_not_stored(text: str) -> None:
    assert attributes_of({'mtime': text}) == NOTHING


@pytest.mark.parametrize('text', ['', '-1', '0o755', '0x1ff', '65536', '49152999', '1' * 400, '12288', '٣'])
def test_what_is_no_mode_was_not_stored(text: str) -> None:
    assert attributes_of({'mode': text, 'uid': '4294967295', 'gid': '4294967296'}) == NOTHING


def test_nine_digits_are_written_because_s3fs_counts_them_as_nanoseconds() -> None:
    assert metadata_of(Attributes(mtime_ns=1_000_000_005)) == {'mtime': '1.000000005'}
    assert metadata_of(Attributes(mtime_ns=1_500_000_000)) == {'mtime': '1.500000000'}
    assert metadata_of(Attributes(mtime_ns=1_000_000_000)) == {'mtime': '1'}


def test_content_of_another_time_keeps_all_but_times() -> None:
    metadata = {'mode': '33188', 'mtime': '1', 'atime': '1', 'ctime': '1', 'colour': 'blue'}
    assert without_times(metadata) == {'mode': '33188', 'colour': 'blue'}
