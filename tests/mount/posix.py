"""What programs expect of files (POSIX.1-2017 and Linux man pages): the words that the cases are written in.

A case is a function of system calls on an empty directory. The cases are in posix_files, posix_open_names, posix_names
and posix_attributes, those that need a kernel in posix_kernel, posix_local, posix_shared and posix_space; posix_table
has all of them and runs them.
"""

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.mount.calls import Calls, OsCalls

KINDS = ('bucket', 'memory', 'local')
#: Without links and with names that are Unicode: object stores.
STORES = ('bucket', 'memory')

READ, WRITE, BOTH = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
NEW = os.O_CREAT | os.O_EXCL


class Case(NamedTuple):
    """A case and the kinds of mounts that it is for."""

    function: Callable[[Calls], None]
    on: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.function.__name__


class Table(list[Case]):
    """Cases in the order in which they are written."""

    def case(self, *on: str) -> Callable[[Callable[[Calls], None]], Callable[[Calls], None]]:
        """Put a function into the table, for some kinds of mounts or all."""

        def add(function: Callable[[Calls], None]) -> Callable[[Calls], None]:
            self.append(Case(function, on or KINDS))
            return function

        return add

    def of_path(self, *on: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
        """The same for a function of the path of an empty directory, which needs a kernel."""

        def add(function: Callable[[Path], None]) -> Callable[[Path], None]:
            def run(calls: Calls) -> None:
                assert isinstance(calls, OsCalls)
                function(Path(calls.directory))

            run.__name__ = function.__name__
            self.case(*on)(run)
            return function

        return add


@contextmanager
def opened(calls: Calls, path: str, flags: int) -> Iterator[int]:
    """An open file, closed at the end."""
    fd = calls.open(path, flags)
    try:
        yield fd
    finally:
        calls.close(fd)


def write(calls: Calls, path: str, data: bytes) -> None:
    """Make these the bytes of a file."""
    with opened(calls, path, WRITE | os.O_CREAT | os.O_TRUNC) as fd:
        assert calls.pwrite(fd, data, 0) == len(data)


def read(calls: Calls, path: str) -> bytes:
    """The bytes of a file, to its end."""
    with opened(calls, path, READ) as fd:
        return read_all(calls, fd)


def read_all(calls: Calls, fd: int) -> bytes:
    """The bytes of an open file, to its end."""
    pieces: list[bytes] = []
    while piece := calls.pread(fd, 1 << 16, sum(map(len, pieces))):
        pieces.append(piece)
    return b''.join(pieces)


def exists(calls: Calls, path: str) -> bool:
    """Whether a name is there."""
    try:
        calls.stat(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def fails_with(*numbers: int) -> Iterator[None]:
    """The block must raise OSError with one of these errnos."""
    try:
        yield
    except OSError as error:
        raised = error.errno or 0
    else:
        raised = 0
    expected = [errno.errorcode[number] for number in numbers]
    assert raised in numbers, f'{errno.errorcode.get(raised, "no error")}, expected {expected}'


@contextmanager
def maybe_stale() -> Iterator[None]:
    """The block may end with ESTALE: what a version that is gone and not cached answers to who still reads it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise


def outcome(each: Case, calls: Calls) -> str:
    """What went wrong with a case; '' if nothing."""
    try:
        each.function(calls)
    except BaseException:  # noqa: BLE001 - all that a case raises is its outcome
        return traceback.format_exc()
    return ''
