"""Sizes and times: what people write, and what no spelling of it may become."""

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genro_storage.config.units import seconds, seconds_above_zero, seconds_or_forever, size_bytes


@pytest.mark.parametrize(
    ('written', 'expected'),
    [
        ('256MiB', 256 * 2**20),
        ('1.5 GB', 1_500_000_000),
        ('2.3kB', 2300),
        ('10gib', 10 * 2**30),
        ('0', 0),
        (' 512 B ', 512),
        ('1PiB', 2**50),
        (4096, 4096),
        (4096.0, 4096),
        ('1048576', 2**20),
    ],
)
def test_sizes_are_bytes(written: object, expected: int) -> None:
    assert size_bytes(written) == expected


@pytest.mark.parametrize(
    'written',
    [True, -1, '-1', 1.5, math.nan, math.inf, 'nan', '', 'MiB', '12 parsecs', '1M', None, [], 2**63, '9' * 5000, '1e3'],
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match='expected a size such as'):
        size_bytes(written)


@pytest.mark.parametrize(
    ('written', 'expected'),
    [
        ('10s', 10.0),
        ('5m', 300.0),
        ('2h', 7200.0),
        ('250ms', 0.25),
        ('1.5 s', 1.5),
        ('1d', 86400.0),
        (3, 3.0),
        (0, 0.0),
    ],
)
def test_times_are_seconds(written: object, expected: float) -> None:
    assert seconds(written) == pytest.approx(expected)


@pytest.mark.parametrize(
    'written',
    [
        False,
        -1,
        -0.5,
        '-1s',
        math.nan,
        math.inf,
        'inf',
        'forever',
        '',
        's',
        '5 fortnights',
        None,
        {},
        10**400,
        '9' * 20,
    ],
)
def test_what_is_no_time_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match='expected a time such as'):
        seconds(written)


def test_forever_only_where_it_is_allowed() -> None:
    assert seconds_or_forever('forever') == math.inf
    with pytest.raises(ValueError, match="or 'forever'"):
        seconds_or_forever('never')


def test_a_waiting_time_of_zero_is_refused() -> None:
    assert seconds_above_zero('1ms') == pytest.approx(0.001)
    with pytest.raises(ValueError, match='above zero'):
        seconds_above_zero('0s')


_ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(deadline=None)
@given(_ANYTHING)
def test_anything_is_a_finite_time_or_a_value_error(value: object) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= seconds(value) < math.inf


@settings(deadline=None)
@given(_ANYTHING)
def test_anything_is_a_size_or_a_value_error(value: object) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= size_bytes(value) < 2**63


@settings(deadline=None)
@given(st.integers(0, 2**40), st.sampled_from([('', 1), ('KiB', 2**10), ('MiB', 2**20), ('kB', 1000), ('MB', 10**6)]))
def test_whole_sizes_are_exact(number: int, unit: tuple[str, int]) -> None:
    assert size_bytes(f'{number}{unit[0]}') == number * unit[1]
