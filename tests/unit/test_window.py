"""How far to read ahead."""

from itertools import pairwise

import pytest

from genro_storage.reading.window import FIRST_BYTES, SLACK_BYTES, Window

READ = 128 * 1024
LIMIT = 32 << 20


def after(window: Window, offset: int, size_bytes: int = READ) -> int:
    return window.after(offset, size_bytes, LIMIT)


def test_a_reader_that_goes_on_gets_twice_as_much_each_time_up_to_a_bound() -> None:
    window = Window()
    ahead = [after(window, number * READ) for number in range(11)]
    assert ahead[:4] == [0, FIRST_BYTES, 2 * FIRST_BYTES, 4 * FIRST_BYTES]
    assert ahead[-1] == LIMIT
    assert all(one <= other for one, other in pairwise(ahead))


def test_the_bound_may_change_at_any_time() -> None:
    window = Window()
    for number in range(10):
        after(window, number * READ)
    assert window.after(10 * READ, READ, 4 << 20) == 4 << 20
    assert window.after(11 * READ, READ, LIMIT) == 8 << 20


def test_a_reader_that_jumps_gets_nothing() -> None:
    window = Window()
    for offset in (100 << 20, 50 << 20, 700 << 20, 0):
        assert after(window, offset) == 0


def test_a_reader_that_goes_on_after_a_jump_begins_anew() -> None:
    window = Window()
    for number in range(10):
        after(window, number * READ)
    assert after(window, 500 << 20) == 0
    assert after(window, (500 << 20) + READ) == FIRST_BYTES


@pytest.mark.parametrize('lateness', [READ, -READ, SLACK_BYTES // 2, -SLACK_BYTES])
def test_requests_of_one_stream_may_overtake_each_other_by_a_little(lateness: int) -> None:
    window = Window()
    for number in range(32):
        after(window, number * READ)
    assert after(window, 32 * READ + lateness) > 0


@pytest.mark.parametrize('jump', [SLACK_BYTES + 1, -SLACK_BYTES - 1])
def test_but_by_no_more(jump: int) -> None:
    window = Window()
    start = 64 << 20
    for number in range(32):
        after(window, start + number * READ)
    assert after(window, start + 32 * READ + jump) == 0


def test_a_late_request_does_not_move_the_stream_back() -> None:
    window = Window()
    after(window, 0, 8 * READ)
    assert after(window, READ) == 0
    assert after(window, 8 * READ) == FIRST_BYTES


@pytest.mark.parametrize('stride', [4, 8, 16])
def test_strides_within_the_slack_are_no_stream(stride: int) -> None:
    window = Window()
    assert sum(after(window, number * stride * READ) for number in range(100)) == 0


def test_a_backward_reader_gets_nothing() -> None:
    window = Window()
    start = 64 << 20
    assert sum(after(window, start - number * READ) for number in range(200)) == 0
