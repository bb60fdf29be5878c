"""Which names of a directory to fetch before they are asked for."""

from collections.abc import Callable, Sequence

import pytest

from genro_storage.reading.order import (
    AHEAD_FIRST,
    AHEAD_MOST,
    IN_A_ROW,
    IN_A_ROW_DOUBTED,
    LIMIT_DIRECTORIES,
    LIMIT_NAMES,
    SLACK,
    Order,
)

NAMES = [f'f{number:04}' for number in range(1000)]


def everything() -> Sequence[str]:
    return NAMES


def take(
    order: Order,
    positions: Sequence[int],
    *,
    directory: str = 'd',
    late: bool = False,
    names: Callable[[], Sequence[str] | None] = everything,
) -> list[Sequence[str]]:
    return [order.took(directory, NAMES[position], names, late=late) for position in positions]


def test_after_some_names_in_a_row_the_next_are_fetched() -> None:
    *before, fetched = take(Order(), range(IN_A_ROW))
    assert not any(before)
    assert fetched == NAMES[IN_A_ROW : IN_A_ROW + AHEAD_FIRST]


def test_each_name_is_fetched_once_and_always_before_it_is_taken() -> None:
    order = Order()
    fetched = [name for names in take(order, range(500)) for name in names]
    assert fetched == NAMES[IN_A_ROW : IN_A_ROW + len(fetched)]
    assert len(fetched) >= 500 - IN_A_ROW


def test_what_comes_too_late_is_fetched_further_ahead_up_to_a_bound() -> None:
    order = Order()
    take(order, range(100), late=True)
    fetched = [name for names in take(order, range(100, 200), late=True) for name in names]
    assert max(len(names) for names in take(order, range(200, 400), late=True)) <= AHEAD_MOST
    assert fetched[-1] > NAMES[199 + AHEAD_MOST // 2 - 1]


def test_what_comes_in_time_is_not() -> None:
    assert max(len(names) for names in take(Order(), range(300))) == AHEAD_FIRST


@pytest.mark.parametrize('step', [SLACK + 1, -1, -SLACK - 1, 0, 100])
def test_names_in_no_order_are_not_followed(step: int) -> None:
    assert not any(take(Order(), [(500 + step * count) % 1000 for count in range(100)]))


def test_names_that_are_left_out_now_and_then_do_not_matter() -> None:
    fetched = [name for names in take(Order(), range(0, 300, 3)) for name in names]
    assert len(fetched) > 250


def test_several_threads_that_overtake_each_other_are_followed() -> None:
    order = Order()
    positions = [base + offset for base in range(0, 200, 4) for offset in (1, 0, 3, 2)]
    fetched = [name for names in take(order, positions) for name in names]
    assert len(fetched) > 150


def test_programs_in_different_directories_do_not_disturb_each_other() -> None:
    order = Order()
    fetched = []
    for position in range(100):
        fetched += take(order, [position], directory='one')
        take(order, [(position * 37) % 1000], directory='other')
    assert sum(map(len, fetched)) > 90


def test_a_directory_that_nobody_listed_is_not_followed_until_somebody_does() -> None:
    order = Order()
    assert not any(take(order, range(10), names=lambda: None))
    assert any(take(order, range(10, 20)))


def test_nor_one_of_too_many_names() -> None:
    many = [str(number) for number in range(LIMIT_NAMES + 1)]
    order = Order()
    assert not any(order.took('d', name, lambda: many, late=True) for name in many[:100])


def test_the_names_of_a_directory_are_asked_for_ever_more_rarely_if_that_is_of_no_use() -> None:
    asked = []
    take(Order(), range(1000), names=lambda: asked.append(None))  # type: ignore[func-returns-value]
    assert len(asked) <= 10


def test_what_is_remembered_of_all_directories_is_bounded() -> None:
    order = Order()
    many = [f'{number:06}' for number in range(LIMIT_NAMES // 3)]
    for directory in range(10):
        for name in many[:4]:
            order.took(f'{directory}', name, lambda: many, late=True)
    assert sum(len(row.names) for row in order._rows.values()) == order._names <= LIMIT_NAMES


def test_a_name_that_is_new_since_the_listing_is_passed_over() -> None:
    order = Order()
    take(order, range(5))
    assert order.took('d', 'new', everything, late=True) == ()
    assert order.took('d', NAMES[5], everything, late=True)


class TestTrust:
    def test_a_directory_that_is_entered_is_begun_only_for_who_went_through_others(self) -> None:
        order = Order()
        assert order.entered('next', everything) == ()
        take(order, range(100))
        assert order.entered('next', everything) == NAMES[:AHEAD_FIRST]
        assert any(take(order, range(2), directory='next'))

    def test_one_that_was_begun_by_itself_is_not_begun_again(self) -> None:
        order = Order()
        take(order, range(100))
        assert order.entered('next', everything)
        assert order.entered('next', everything) == ()
        assert order.entered('d', everything) == ()

    def test_after_much_for_nothing_it_takes_more_names_in_a_row(self) -> None:
        order = Order()
        for directory in range(20):
            take(order, range(IN_A_ROW), directory=f'{directory}', late=True)
            take(order, [900], directory=f'{directory}')  # and leaves
        assert not any(take(order, range(IN_A_ROW_DOUBTED - 1), directory='last'))
        assert any(take(order, range(IN_A_ROW_DOUBTED - 1, IN_A_ROW_DOUBTED), directory='last'))

    def test_and_what_is_wanted_again_makes_up_for_it(self) -> None:
        order = Order()
        for directory in range(5):
            take(order, range(IN_A_ROW), directory=f'{directory}')
            take(order, [900], directory=f'{directory}')
        take(order, range(300), directory='read')
        assert order.entered('next', everything)

    def test_what_was_fetched_in_directories_long_forgotten_counts_as_for_nothing(self) -> None:
        order = Order()
        for directory in range(LIMIT_DIRECTORIES + 20):
            take(order, range(IN_A_ROW), directory=f'{directory}')
        assert order._trust < 0
        assert len(order._rows) == LIMIT_DIRECTORIES
