"""Locks between programs on one machine: flock(2), fcntl(2) and those of an open file description.

The kernel keeps them, with its inode: so those who have a file open must have the same one. Each holder is a program of
its own, which is told step by step.
"""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.mount.mounted import await_true
from tests.mount.places import Place
from tests.mount.stepping import Program, program

END_S = 10.0
#: For what is expected to wait.
WAITING_S = 0.3

DEFINITIONS = """
import fcntl, signal, struct
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring)
def opened(flags=os.O_RDWR): return os.open('f', flags)
def flock(fd, kind): return fcntl.flock(fd, kind)
def fcntl_lock(fd, kind): return fcntl.lockf(fd, kind)
def ofd(fd, kind):
    command = fcntl.F_OFD_SETLK if kind & fcntl.LOCK_NB else fcntl.F_OFD_SETLKW
    kinds = {fcntl.LOCK_SH: fcntl.F_RDLCK, fcntl.LOCK_EX: fcntl.F_WRLCK, fcntl.LOCK_UN: fcntl.F_UNLCK}
    fcntl.fcntl(fd, command, struct.pack('hhqqixxxx', kinds[kind & ~fcntl.LOCK_NB], os.SEEK_SET, 0, 0, 0))
def within(seconds, lock, *arguments):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: return lock(*arguments)
    except Alarm: return 'rang'
    finally: signal.setitimer(signal.ITIMER_REAL, 0)
"""
SHARED, EXCLUSIVE, NOT_WAITING, OFF = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN
BUSY = ('EAGAIN', 'EACCES')


class Holders:
    """Two programs and a file 'f' that both have open to read and write."""

    def __init__(self, place: Place, stack: ExitStack) -> None:
        place.sh('echo content > f')
        self.place = place
        self._stack = stack
        self.one, self.other = self.new(), self.new()

    def new(self, flags: str = 'os.O_RDWR') -> Program:
        holder = self._stack.enter_context(program(self.place.path))
        holder.does(f'exec({DEFINITIONS!r})')
        holder.does(f'globals().update(fd=opened({flags}))')
        return holder


@pytest.fixture
def holders(place: Place) -> Iterator[Holders]:
    with ExitStack() as stack:
        yield Holders(place, stack)


@pytest.fixture(params=['flock', 'fcntl_lock', 'ofd'])
def lock(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_exclusive_lock_keeps_all_others_out_until_it_is_given_back(holders: Holders, lock: str) -> None:
    one, other = holders.one, holders.other
    assert one.does(f'{lock}(fd, {EXCLUSIVE})') is None
    for kind in (EXCLUSIVE, SHARED):
        assert other.does(f'{lock}(fd, {kind | NOT_WAITING})') in BUSY
    assert one.does(f'{lock}(fd, {OFF})') is None
    assert other.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') is None


def test_shared_locks_go_together(holders: Holders, lock: str) -> None:
    one, other = holders.one, holders.other
    assert one.does(f'{lock}(fd, {SHARED})') is None
    assert other.does(f'{lock}(fd, {SHARED | NOT_WAITING})') is None
    assert other.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') in BUSY
    assert one.does(f'{lock}(fd, {OFF})') is None
    assert other.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') is None


def test_who_waits_gets_the_lock_when_it_is_given_back(holders: Holders, lock: str) -> None:
    one, other = holders.one, holders.other
    assert one.does(f'{lock}(fd, {EXCLUSIVE})') is None
    other.begin(f'{lock}(fd, {EXCLUSIVE})')
    with pytest.raises(TimeoutError):
        other.answer(WAITING_S)
    assert one.does(f'{lock}(fd, {OFF})') is None
    assert other.answer() is None


def test_a_signal_ends_the_wait_for_a_lock(holders: Holders, lock: str) -> None:
    one, other = holders.one, holders.other
    assert one.does(f'{lock}(fd, {EXCLUSIVE})') is None
    assert other.does(f'within({WAITING_S}, {lock}, fd, {EXCLUSIVE})') == 'rang'
    other.begin(f'{lock}(fd, {EXCLUSIVE})')
    with pytest.raises(TimeoutError):
        other.answer(WAITING_S)
    other.process.send_signal(signal.SIGKILL)
    assert other.process.wait(END_S) == -signal.SIGKILL
    # Nor does the dead one keep a place in the queue.
    assert one.does(f'{lock}(fd, {OFF})') is None
    assert holders.new().does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') is None


def test_a_lock_ends_with_who_holds_it(holders: Holders, lock: str) -> None:
    one, other = holders.one, holders.other
    assert one.does(f'{lock}(fd, {EXCLUSIVE})') is None
    other.begin(f'{lock}(fd, {EXCLUSIVE})')
    one.process.send_signal(signal.SIGKILL)
    assert one.process.wait(END_S) == -signal.SIGKILL
    assert other.answer() is None


def test_a_write_and_its_commit_go_on_under_a_lock(holders: Holders, lock: str) -> None:
    one, other = holders.one, holders.other
    assert one.does(f'{lock}(fd, {EXCLUSIVE})') is None
    assert one.does('(os.pwrite(fd, b"changed", 0), os.fsync(fd))[0]') == 7
    assert other.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') in BUSY
    assert one.does(f'{lock}(fd, {OFF})') is None
    assert other.does(f'({lock}(fd, {EXCLUSIVE | NOT_WAITING}), os.pread(fd, 7, 0))[1]') == b'changed'


def test_parts_of_a_file_are_locked_one_by_one(holders: Holders) -> None:
    one, other = holders.one, holders.other
    assert one.does(f'fcntl.lockf(fd, {EXCLUSIVE}, 10, 100)') is None
    assert other.does(f'fcntl.lockf(fd, {EXCLUSIVE | NOT_WAITING}, 10, 110)') is None
    assert other.does(f'fcntl.lockf(fd, {SHARED | NOT_WAITING}, 1, 109)') in BUSY
    # Who is in the way: F_GETLK.
    asked = "struct.unpack('hhqqixxxx', fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqixxxx', 1, 0, 105, 1, 0)))"
    assert other.does(asked)[1:] == (os.SEEK_SET, 100, 10, one.process.pid)


def test_locks_of_a_process_end_with_its_first_close_and_those_of_a_description_with_the_last(holders: Holders) -> None:
    one, other = holders.one, holders.other
    assert one.does(f'(fcntl_lock(fd, {EXCLUSIVE}), os.close(os.dup(fd)))[0]') is None
    assert other.does(f'(fcntl_lock(fd, {EXCLUSIVE | NOT_WAITING}), fcntl_lock(fd, {OFF}))[0]') is None
    for lock in ('flock', 'ofd'):
        assert one.does(f'({lock}(fd, {EXCLUSIVE}), os.close(os.dup(fd)))[0]') is None
        assert other.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') in BUSY
        assert one.does(f'{lock}(fd, {OFF})') is None
    # Two descriptions of one process keep each other out.
    assert one.does(f'(globals().update(second=opened()), ofd(fd, {EXCLUSIVE}))[1]') is None
    assert one.does(f'ofd(second, {EXCLUSIVE | NOT_WAITING})') in BUSY


def test_who_reads_and_who_writes_a_file_on_a_disk_keep_each_other_out(local: Place, lock: str) -> None:
    with ExitStack() as stack:
        holders = Holders(local, stack)
        reader = holders.new('os.O_RDONLY')
        assert reader.does(f'{lock}(fd, {SHARED})') is None
        assert holders.one.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') in BUSY
        assert reader.does(f'{lock}(fd, {OFF})') is None
        assert holders.one.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') is None


def test_a_lock_file_that_is_empty_may_be_open_to_read_or_to_write(place: Place, lock: str) -> None:
    place.sh(': > f')
    with ExitStack() as stack:
        reader, writer = (stack.enter_context(program(place.path)) for _ in range(2))
        for each, flags in ((reader, 'os.O_RDONLY'), (writer, 'os.O_RDWR | os.O_TRUNC')):
            each.does(f'exec({DEFINITIONS!r})')
            each.does(f'globals().update(fd=opened({flags}))')
        assert reader.does(f'{lock}(fd, {SHARED})') is None
        assert writer.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') in BUSY
        assert reader.does(f'{lock}(fd, {OFF})') is None
        assert writer.does(f'{lock}(fd, {EXCLUSIVE | NOT_WAITING})') is None
        # Nothing was read of the version without bytes: what is written is no mixture with it.
        assert reader.does('os.read(fd, 9)') == b''
        assert writer.does('os.write(fd, b"17")') == 2
        assert reader.does('os.read(fd, 9)') == b'17'


def test_the_programs_of_the_shell_wait_for_each_other(place: Place) -> None:
    script = 'exec 9> lock; for i in 1 2 3 4; do (for n in $(seq 10); do flock 9; read -r x < n; echo $((x + 1)) > n;'
    place.sh(f'echo 0 > n; {script} flock -u 9; done) 9> lock & done; wait')
    assert place.sh('cat n') == '40\n'
    await_true(lambda: place.stored('n') == b'40\n', what='committed')
