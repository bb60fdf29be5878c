"""Cases that need a kernel: what processes share on one machine, locks and mappings."""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mount.posix import Table, fails_with

CASES = Table()
case = CASES.of_path

WAIT_S = 20
#: Without F_OFD_SETLK in the fcntl module of 3.11 (linux/fcntl.h).
F_OFD_SETLK = 37
_FLOCK = struct.Struct('hhqqixxxx')  # struct flock: l_type l_whence l_start l_len l_pid

_Lock = Callable[..., None]


class Other:
    """Another process, that does one thing after another and says how it went."""

    def __init__(self, steps: Callable[['Other'], None]) -> None:
        mine, its = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid:
            self._read, self._write = mine[0], its[1]
            os.close(mine[1])
            os.close(its[0])
            return
        self._read, self._write = its[0], mine[1]
        os.close(mine[0])
        os.close(its[1])
        code = 1
        try:
            steps(self)
            code = 0
        finally:
            os._exit(code)

    def say(self, word: bytes = b'.') -> None:
        """Tell the other side a letter."""
        os.write(self._write, word)

    def hear(self) -> bytes:
        """Wait for a letter of the other side; '' once it has ended."""
        ready, _, _ = select.select([self._read], [], [], WAIT_S)
        assert ready, 'the other process says nothing'
        return os.read(self._read, 1)

    def is_silent(self) -> bool:
        """Whether it has nothing to say for a tenth of a second."""
        return not select.select([self._read], [], [], 0.1)[0]

    def end(self) -> None:
        """Wait for the end, that must be a good one."""
        os.close(self._write)
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == 0


@contextmanager
def other(steps: Callable[[Other], None]) -> Iterator[Other]:
    """Another process, until it has ended."""
    process = Other(steps)
    yield process
    process.end()


def is_locked(path: Path, lock: _Lock, kind: int = fcntl.LOCK_EX, *extent: int) -> bool:
    """Whether another process cannot have a lock."""
    child = os.fork()
    if not child:
        try:
            with path.open('r+b') as file:
                lock(file, kind | fcntl.LOCK_NB, *extent)
        except BlockingIOError:
            os._exit(1)
        except BaseException:  # noqa: BLE001 - nothing of the parent's must run in the child
            os._exit(2)
        os._exit(0)
    result = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert result < 2
    return bool(result)


# Locks


@case()
def locks_exclude_each_other(directory: Path) -> None:
    (directory / 'f').touch()
    for lock in (fcntl.flock, fcntl.lockf):
        with (directory / 'f').open('r+b') as file:
            lock(file, fcntl.LOCK_EX)
            assert is_locked(directory / 'f', lock)
            assert is_locked(directory / 'f', lock, fcntl.LOCK_SH)
            lock(file, fcntl.LOCK_SH)
            assert is_locked(directory / 'f', lock)
            assert not is_locked(directory / 'f', lock, fcntl.LOCK_SH)
            lock(file, fcntl.LOCK_UN)
            assert not is_locked(directory / 'f', lock)
            lock(file, fcntl.LOCK_EX)
        assert not is_locked(directory / 'f', lock)


@case()
def ranges_are_locked_by_themselves(directory: Path) -> None:
    (directory / 'f').write_bytes(bytes(100))
    with (directory / 'f').open('r+b') as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 50)
        assert is_locked(directory / 'f', fcntl.lockf, fcntl.LOCK_EX, 5, 55)
        assert not is_locked(directory / 'f', fcntl.lockf, fcntl.LOCK_EX, 50, 0)
        assert not is_locked(directory / 'f', fcntl.lockf, fcntl.LOCK_EX, 0, 60)
        fcntl.lockf(file, fcntl.LOCK_UN, 5, 50)
        assert not is_locked(directory / 'f', fcntl.lockf, fcntl.LOCK_EX, 5, 50)
        assert is_locked(directory / 'f', fcntl.lockf, fcntl.LOCK_EX, 5, 55)


@case()
def who_holds_a_lock_is_told(directory: Path) -> None:
    (directory / 'f').touch()
    with (directory / 'f').open('r+b') as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 50)

        def ask(me: Other) -> None:
            with (directory / 'f').open('r+b') as again:
                asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                kind, _, start, length, pid = _FLOCK.unpack(fcntl.fcntl(again, fcntl.F_GETLK, asked))
            assert (kind, start, length, pid) == (fcntl.F_WRLCK, 50, 10, os.getppid())

        with other(ask):
            pass


@case()
def a_lock_that_is_waited_for_is_had_when_it_is_given_up(directory: Path) -> None:
    (directory / 'f').touch()

    for lock in (fcntl.flock, fcntl.lockf):

        def wait(me: Other, lock: _Lock = lock) -> None:
            me.hear()
            with (directory / 'f').open('r+b') as again:
                me.say()
                lock(again, fcntl.LOCK_EX)
                me.say()

        with other(wait) as waiting, (directory / 'f').open('r+b') as file:
            lock(file, fcntl.LOCK_EX)
            waiting.say()
            waiting.hear()
            assert waiting.is_silent()
            lock(file, fcntl.LOCK_UN)
            waiting.hear()


@case()
def the_locks_of_a_process_end_with_it(directory: Path) -> None:
    (directory / 'f').touch()
    for lock in (fcntl.flock, fcntl.lockf):

        def hold(me: Other, lock: _Lock = lock) -> None:
            with (directory / 'f').open('r+b') as file:
                lock(file, fcntl.LOCK_EX)
                me.say()
                me.hear()
                os._exit(0)

        with other(hold) as holding:
            holding.hear()
            assert is_locked(directory / 'f', lock)
        assert not is_locked(directory / 'f', lock)


@case()
def locks_of_one_kind_are_nothing_to_the_other(directory: Path) -> None:
    (directory / 'f').touch()
    with (directory / 'f').open('r+b') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not is_locked(directory / 'f', fcntl.lockf)
        fcntl.lockf(file, fcntl.LOCK_EX)
        (directory / 'f').open('rb').close()  # which ends all such locks of this process (fcntl(2))
        assert not is_locked(directory / 'f', fcntl.lockf)
        assert is_locked(directory / 'f', fcntl.flock)


@case()
def a_lock_can_belong_to_what_is_open(directory: Path) -> None:
    lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with (directory / 'f').open('w+b') as one, (directory / 'f').open('r+b') as another:
        fcntl.fcntl(one, F_OFD_SETLK, lock)
        with fails_with(errno.EAGAIN):
            fcntl.fcntl(another, F_OFD_SETLK, lock)
        assert is_locked(directory / 'f', fcntl.lockf)
    assert not is_locked(directory / 'f', fcntl.lockf)


# Mappings


@case()
def two_processes_see_each_other_through_a_mapping(directory: Path) -> None:
    (directory / 'f').write_bytes(bytes(10_000))

    def answer(me: Other) -> None:
        with (directory / 'f').open('r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
            me.say()
            me.hear()
            assert mapped[5000:5008] == b'question'
            mapped[9000:9006] = b'answer'
            me.say()

    with (
        other(answer) as answering,
        (directory / 'f').open('r+b') as file,
        mmap.mmap(file.fileno(), 0) as mapped,
    ):
        answering.hear()
        mapped[5000:5008] = b'question'
        answering.say()
        answering.hear()
        assert mapped[9000:9006] == b'answer'
        mapped.flush()
    content = (directory / 'f').read_bytes()
    assert (content[5000:5008], content[9000:9006], len(content)) == (b'question', b'answer', 10_000)


@case()
def what_is_written_to_a_private_mapping_is_nobody_elses(directory: Path) -> None:
    (directory / 'f').write_bytes(b'content' * 1000)
    with (directory / 'f').open('rb') as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        mapped[:7] = b'private'
        assert mapped[:14] == b'privatecontent'
        mapped.close()
    assert (directory / 'f').read_bytes() == b'content' * 1000


@case()
def reads_and_writes_see_a_mapping_and_are_seen_in_it(directory: Path) -> None:
    with (directory / 'f').open('w+b', buffering=0) as file:
        file.write(bytes(10_000))
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[100:104] = b'here'
            assert os.pread(file.fileno(), 4, 100) == b'here'
            os.pwrite(file.fileno(), b'there', 200)
            assert mapped[200:205] == b'there'
    content = (directory / 'f').read_bytes()
    assert (content[100:104], content[200:205]) == (b'here', b'there')


@case()
def a_mapping_reaches_what_a_file_is_lengthened_by(directory: Path) -> None:
    with (directory / 'f').open('w+b', buffering=0) as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096) as mapped:
            file.truncate(3 * 4096)
            mapped.resize(3 * 4096)
            mapped[2 * 4096 :] = b'x' * 4096
            mapped.flush()
    assert (directory / 'f').read_bytes() == bytes(2 * 4096) + b'x' * 4096


@case()
def a_mapping_needs_a_file_that_is_open_for_it(directory: Path) -> None:
    (directory / 'f').write_bytes(bytes(4096))
    with (directory / 'f').open('rb') as file, fails_with(errno.EACCES):
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)


@case()
def programs_are_run_and_are_not_written_meanwhile(directory: Path) -> None:
    """A program is a mapping; the kernel calls it busy."""
    path = directory / 'program'
    path.write_bytes(Path('/bin/sleep').read_bytes())
    path.chmod(0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if not child:
        libc.prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
        os.execv(path, ['sleep', '60'])
    try:
        while Path(f'/proc/{child}/comm').read_text() != 'program\n':
            select.select([], [], [], 0.01)
        with fails_with(errno.ETXTBSY):
            path.open('r+b')
        with fails_with(errno.ETXTBSY):
            path.open('wb')
        with fails_with(errno.ETXTBSY):
            os.truncate(path, 0)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    path.open('r+b').close()
