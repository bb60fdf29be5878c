"""One kind and one backing file for all who have an inode open at one time, whoever comes first."""

import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fusefs.passthrough import Backings, OtherContentError

NODEID = 7


class Kernel:
    """Registers backing files as the kernel does, and knows which ids are in use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.takes_files = True
        self.takes = True  # this file
        self.given = 0
        self.ids: set[int] = set()

    def open_backing(self, descriptor: int) -> int | None:
        os.fstat(descriptor)
        with self._lock:
            if not self.takes:
                return None
            self.given += 1
            self.ids.add(self.given)
            return self.given

    def close_backing(self, backing_id: int) -> None:
        with self._lock:
            self.ids.remove(backing_id)


class Opener:
    """Opens a file and counts how often."""

    def __init__(self, *, has_file: bool = True) -> None:
        self._has_file = has_file
        self.opened: list[int] = []

    def __call__(self) -> int | None:
        if not self._has_file:
            return None
        self.opened.append(os.open(os.devnull, os.O_RDONLY))
        return self.opened[-1]


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def backings(kernel: Kernel) -> Backings:
    backings = Backings()
    backings.connect(kernel)
    return backings


def test_all_opens_share_the_id_of_the_first_and_the_last_gives_it_back(backings: Backings, kernel: Kernel) -> None:
    opener = Opener()
    assert [backings.join(fh, NODEID, 'v1', opener) for fh in range(3)] == [1, 1, 1]
    assert len(opener.opened) == 1
    for fh in range(3):
        assert kernel.ids == {1}
        backings.leave(fh)
    assert kernel.ids == set()
    assert backings.join(3, NODEID, 'v2', Opener()) == 2


def test_the_descriptor_is_closed_whether_the_kernel_takes_it_or_not(kernel: Kernel) -> None:
    for kernel.takes in (True, False):
        backings, opener = Backings(), Opener()
        backings.connect(kernel)
        backings.join(1, NODEID, None, opener)
        with pytest.raises(OSError, match='Bad file descriptor'):
            os.fstat(opener.opened[0])


@pytest.mark.parametrize('opener', [Opener(has_file=False), Opener()])
def test_who_comes_after_a_first_that_was_not_handed_over_is_not_either(
    backings: Backings, kernel: Kernel, opener: Opener
) -> None:
    kernel.takes = False
    assert backings.join(1, NODEID, None, opener) == 0
    kernel.takes = True
    assert backings.join(2, NODEID, None, Opener()) == 0
    backings.leave(1)
    assert backings.join(3, NODEID, None, Opener()) == 0
    backings.leave(2)
    backings.leave(3)
    assert backings.join(4, NODEID, None, Opener()) == 1


def test_another_content_needs_another_inode(backings: Backings, kernel: Kernel) -> None:
    backings.join(1, NODEID, 'v1', Opener())
    for _ in range(2):
        with pytest.raises(OtherContentError):
            backings.join(2, NODEID, 'v2', Opener())
    assert backings.join(2, NODEID + 1, 'v2', Opener()) == 2
    backings.leave(1)
    assert kernel.ids == {2}
    assert backings.join(3, NODEID, 'v2', Opener()) == 3


def test_contents_may_differ_where_nothing_is_handed_over(backings: Backings, kernel: Kernel) -> None:
    kernel.takes = False
    assert [backings.join(fh, NODEID, content, Opener()) for fh, content in enumerate(('v1', 'v2', None))] == [0] * 3


def test_an_inode_that_is_about_to_be_written_is_not_handed_over_meanwhile(backings: Backings, kernel: Kernel) -> None:
    with backings.served_here(NODEID):
        assert backings.join(1, NODEID, 'v1', Opener()) == 0
    assert backings.join(2, NODEID, 'v1', Opener()) == 0
    for fh in (1, 2):
        backings.leave(fh)
    assert backings.join(3, NODEID, 'v1', Opener()) == 1
    for _ in range(2):
        with pytest.raises(OtherContentError), backings.served_here(NODEID):
            pytest.fail('it is handed over')
    backings.leave(3)
    assert kernel.ids == set()
    with backings.served_here(NODEID), backings.served_here(NODEID):
        pass
    assert backings.join(4, NODEID, 'v1', Opener()) == 2


def test_leaving_twice_counts_once(backings: Backings, kernel: Kernel) -> None:
    for fh in (1, 2):
        backings.join(fh, NODEID, None, Opener())
    backings.leave(1)
    backings.leave(1)
    backings.leave(99)
    assert kernel.ids == {1}


def test_without_a_connection_no_file_is_opened() -> None:
    opener = Opener()
    backings = Backings()
    assert backings.join(1, NODEID, None, opener) == 0
    backings.leave(1)
    assert opener.opened == []


def test_no_file_is_opened_for_a_kernel_that_takes_none(backings: Backings, kernel: Kernel) -> None:
    opener = Opener()
    kernel.takes_files = False
    assert backings.join(1, NODEID, None, opener) == 0
    assert opener.opened == []


def test_a_file_that_cannot_be_opened_counts_nothing(backings: Backings) -> None:
    def fail() -> int:
        raise PermissionError

    with pytest.raises(PermissionError):
        backings.join(1, NODEID, 'v1', fail)
    assert backings.join(2, NODEID, 'v2', Opener()) == 1


def test_close_gives_everything_back(backings: Backings, kernel: Kernel) -> None:
    for fh in range(5):
        backings.join(fh, fh // 2, None, Opener())
    backings.close()
    backings.leave(0)
    assert kernel.ids == set()


def test_of_two_first_opens_at_once_one_decides(backings: Backings, kernel: Kernel) -> None:
    both_are_first = threading.Barrier(2, timeout=10)

    def opener() -> int:
        both_are_first.wait()
        return os.open(os.devnull, os.O_RDONLY)

    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(lambda fh: backings.join(fh, NODEID, None, opener), range(2)))
    assert len(set(ids)) == 1
    assert kernel.ids == set(ids)
    assert kernel.given == 2


def test_many_threads_that_open_and_close_never_see_two_kinds(backings: Backings, kernel: Kernel) -> None:
    lock = threading.Lock()
    open_now: Counter[int] = Counter()
    mixed: list[Counter[int]] = []

    def open_and_close(thread: int) -> None:
        for number in range(300):
            fh = thread * 1000 + number
            backing_id = backings.join(fh, NODEID, None, Opener(has_file=number % 3 != 0))
            with lock:
                open_now[backing_id] += 1
                if sum(count > 0 for count in open_now.values()) > 1:
                    mixed.append(open_now.copy())
            with lock:
                open_now[backing_id] -= 1
            backings.leave(fh)

    run_in_threads(open_and_close, 6)
    assert mixed == []
    assert kernel.ids == set()
    assert kernel.given > 0


def run_in_threads(work: Callable[[int], None], count: int) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
