"""How far to read ahead."""

from itertools import pairwise

import pytest

from genro_storage.reading.window import FIRST_BYTES, LIMIT_BYTES, SLACK_BYTES, Window

READ = 128 * 1024


def test_a_reader_that_goes_on_gets_twice_as_much_each_time_up_to_a_bound() -> None:
    window = Window()
    ahead = [window.after(number * READ, READ) for number in range(10)]
    assert ahead[:3] == [FIRST_BYTES, 2 * FIRST_BYTES, 4 * FIRST_BYTES]
    assert ahead[-1] == LIMIT_BYTES
    assert all(one <= other for one, other in pairwise(ahead))


def test_a_reader_that_jumps_gets_nothing() -> None:
    window = Window()
    for offset in (100 << 20, 50 << 20, 700 << 20, 0):
        assert window.after(offset, READ) == 0


def test_a_reader_that_goes_on_after_a_jump_begins_anew() -> None:
    window = Window()
    for number in range(10):
        window.after(number * READ, READ)
    assert window.after(500 << 20, READ) == 0
    assert window.after((500 << 20) + READ, READ) == FIRST_BYTES


@pytest.mark.parametrize('lateness', [READ, -READ, SLACK_BYTES, -SLACK_BYTES])
def test_requests_of_one_stream_may_overtake_each_other_by_a_little(lateness: int) -> None:
    window = Window()
    start = 64 << 20
    window.after(start, READ)
    assert window.after(start + READ + lateness, READ) > 0


@pytest.mark.parametrize('jump', [SLACK_BYTES + 1, -SLACK_BYTES - 1])
def test_but_by_no_more(jump: int) -> None:
    window = Window()
    start = 64 << 20
    window.after(start, READ)
    assert window.after(start + READ + jump, READ) == 0


def test_a_late_request_does_not_move_the_stream_back() -> None:
    window = Window()
    window.after(0, 8 * READ)
    window.after(READ, READ)
    assert window._next == 8 * READ
