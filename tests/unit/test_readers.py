"""Threads that read, and leave the reading to one another."""

import queue
import threading
from collections.abc import Iterator

import pytest

from fusefs.transports.readers import Readers

TIMEOUT_S = 10


class Served:
    """Jobs that are read one by one; what each thread does between two of them is the job's."""

    def __init__(self, at_once: int) -> None:
        self.readers = Readers(at_once, 'served')
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.ended = threading.Event()
        self.left_last = 0
        self.readers.start(self._read)

    def _read(self) -> None:
        while (job := self.jobs.get()) is not None:
            job.run(self.readers)
            if not self.readers.come_back():
                return
        self.jobs.put(None)
        if self.readers.end():
            self.left_last += 1
            self.ended.set()

    def put(self, *, leave: bool, leave_late: bool = False) -> 'Job':
        job = Job(leave, leave_late)
        self.jobs.put(job)
        return job

    def end(self) -> None:
        self.jobs.put(None)
        assert self.ended.wait(TIMEOUT_S)


class Job:
    """Something that waits until it is let go."""

    def __init__(self, leave: bool, leave_late: bool) -> None:
        self._leave = leave
        self._leave_late = leave_late
        self.left: bool | None = None
        self.thread = ''
        self.begun = threading.Event()
        self.done = threading.Event()
        self._go = threading.Event()

    def run(self, readers: Readers) -> None:
        self.thread = threading.current_thread().name
        if self._leave:
            self.left = readers.leave()
        self.begun.set()
        assert self._go.wait(TIMEOUT_S)
        if self._leave_late:
            self.left = readers.leave()
        self.done.set()

    def begin(self) -> 'Job':
        assert self.begun.wait(TIMEOUT_S)
        return self

    def finish(self) -> None:
        self._go.set()
        assert self.done.wait(TIMEOUT_S)


@pytest.fixture(params=[1, 2, 3])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    served = Served(request.param)
    yield served
    served.end()
    assert served.left_last == 1
    for thread in threads():
        thread.join(TIMEOUT_S)
    assert threads() == []


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith('served-')]


def test_however_many_leave_somebody_reads(served: Served) -> None:
    jobs = [served.put(leave=True).begin() for _ in range(7)]
    assert [job.left for job in jobs] == [True] * 7
    for job in jobs:
        job.finish()


def test_who_does_not_leave_is_not_replaced(served: Served) -> None:
    at_once = len(threads())
    jobs = [served.put(leave=False).begin() for _ in range(at_once)]
    late = served.put(leave=False)
    assert not late.begun.wait(0.05)
    for job in jobs:
        job.finish()
    late.begin().finish()
    assert len(threads()) == at_once


def test_threads_that_come_back_are_kept_and_read_again(served: Served) -> None:
    names = set()
    for _ in range(20):
        jobs = [served.put(leave=True).begin() for _ in range(5)]
        names |= {job.thread for job in jobs}
        for job in jobs:
            job.finish()
    assert len(threads()) <= 6  # the five, and the one that read meanwhile
    assert len(names) <= 6


def test_no_more_read_at_once_than_there_should(served: Served) -> None:
    at_once = len(threads())
    for job in [served.put(leave=True).begin() for _ in range(8)]:
        job.finish()
    jobs = [served.put(leave=False) for _ in range(at_once)]
    for job in jobs:
        job.begin()
    late = served.put(leave=False)
    assert not late.begun.wait(0.05)
    for job in [*jobs, late]:
        job.finish()


def test_the_last_one_must_not_leave_if_the_system_has_no_thread_left(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    at_once = len(threads())
    monkeypatch.setattr(threading.Thread, 'start', refuse)
    jobs = [served.put(leave=True).begin() for _ in range(at_once)]
    assert [job.left for job in jobs] == [True] * (at_once - 1) + [False]
    for job in jobs:
        job.finish()
    monkeypatch.undo()
    served.put(leave=True).begin().finish()


def test_who_is_away_at_the_end_reads_no_more() -> None:
    served = Served(2)
    jobs = [served.put(leave=True).begin() for _ in range(3)]
    served.end()
    assert served.left_last == 1
    for job in jobs:
        job.finish()
    for thread in threads():
        thread.join(TIMEOUT_S)
    assert threads() == []


def test_who_leaves_after_the_end_has_begun_meets_it_too() -> None:
    served = Served(2)
    job = served.put(leave=False, leave_late=True).begin()
    served.jobs.put(None)
    while len(threads()) == 2:
        pass  # the other one has read it, and needs nothing to end
    assert not served.ended.is_set()
    job.finish()
    assert job.left
    assert served.ended.wait(TIMEOUT_S)
    assert served.left_last == 1
