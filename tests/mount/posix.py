"""What programs expect of files (POSIX.1-2017 and Linux man pages): one table of cases over system calls.

Each case gets an empty directory. As a program, `posix.py KIND DIRECTORY`, it runs those for a kind of mount, each in a
directory of its own, and prints a line of JSON for each: its name and what went wrong, '' if nothing. test_posix.py
runs it so, in a process that may hang, and runs the cases itself over a file system without a kernel.
"""

import errno
import json
import os
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.mount.calls import NS, Calls, OsCalls

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


CASES: list[Case] = []


def case(*on: str) -> Callable[[Callable[[Calls], None]], Callable[[Calls], None]]:
    """Put a function into the table."""

    def add(function: Callable[[Calls], None]) -> Callable[[Calls], None]:
        CASES.append(Case(function, on or KINDS))
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


# Opening


@case()
def a_new_file_is_empty_and_listed(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as fd:
        assert calls.fstat(fd).size == 0
        assert calls.listdir() == ['f']
    assert read(calls, 'f') == b''
    assert stat.S_ISREG(calls.stat('f').mode)


@case()
def o_excl_refuses_what_is_there(calls: Calls) -> None:
    write(calls, 'f', b'first')
    with fails_with(errno.EEXIST):
        calls.open('f', WRITE | NEW)
    calls.mkdir('d')
    with fails_with(errno.EEXIST):
        calls.open('d', READ | NEW)
    assert read(calls, 'f') == b'first'


@case()
def o_excl_refuses_what_another_handle_has_just_made(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW), fails_with(errno.EEXIST):
        calls.open('f', WRITE | NEW)


@case()
def o_creat_opens_what_is_there_as_it_is(calls: Calls) -> None:
    write(calls, 'f', b'first')
    with opened(calls, 'f', BOTH | os.O_CREAT) as fd:
        assert read_all(calls, fd) == b'first'
    assert read(calls, 'f') == b'first'


@case()
def o_trunc_empties_at_once(calls: Calls) -> None:
    write(calls, 'f', b'first')
    with opened(calls, 'f', WRITE | os.O_TRUNC) as fd:
        assert calls.fstat(fd).size == 0
        assert calls.stat('f').size == 0
    assert read(calls, 'f') == b''


@case()
def o_trunc_without_writing_truncates_too(calls: Calls) -> None:
    write(calls, 'f', b'first')
    with opened(calls, 'f', READ | os.O_TRUNC) as fd:
        assert calls.pread(fd, 10, 0) == b''
    assert calls.stat('f').size == 0
    assert read(calls, 'f') == b''


@case()
def o_append_writes_at_the_end_whoever_wrote_last(calls: Calls) -> None:
    write(calls, 'f', b'0')
    with (
        opened(calls, 'f', WRITE | os.O_APPEND) as one,
        opened(calls, 'f', WRITE | os.O_APPEND) as other,
        opened(calls, 'f', WRITE) as third,
    ):
        calls.append(one, b'1')
        calls.append(other, b'2')
        calls.pwrite(third, b'3', 3)
        calls.append(one, b'4')
    assert read(calls, 'f') == b'01234'


@case()
def missing_files_cannot_be_opened(calls: Calls) -> None:
    for flags in (READ, WRITE, BOTH, WRITE | os.O_TRUNC):
        with fails_with(errno.ENOENT):
            calls.open('nothing', flags)
    with fails_with(errno.ENOENT):
        calls.open('nothing/here', WRITE | os.O_CREAT)


@case()
def a_directory_cannot_be_opened_to_write(calls: Calls) -> None:
    calls.mkdir('d')
    for flags in (WRITE, BOTH, WRITE | os.O_CREAT, WRITE | os.O_TRUNC):
        with fails_with(errno.EISDIR):
            calls.open('d', flags)


@case()
def a_path_through_a_file_is_enotdir(calls: Calls) -> None:
    write(calls, 'f', b'')
    for flags in (READ, WRITE | os.O_CREAT):
        with fails_with(errno.ENOTDIR):
            calls.open('f/x', flags)
    with fails_with(errno.ENOTDIR):
        calls.mkdir('f/x')
    with fails_with(errno.ENOTDIR):
        calls.stat('f/x')


# Reading and writing


@case()
def reading_behind_the_end_is_empty(calls: Calls) -> None:
    write(calls, 'f', b'abc')
    with opened(calls, 'f', READ) as fd:
        assert calls.pread(fd, 10, 0) == b'abc'
        assert calls.pread(fd, 10, 2) == b'c'
        assert calls.pread(fd, 10, 3) == b''
        assert calls.pread(fd, 10, 1 << 40) == b''


@case()
def what_is_not_written_between_is_zeros(calls: Calls) -> None:
    with opened(calls, 'f', BOTH | NEW) as fd:
        calls.pwrite(fd, b'end', 100_000)
        assert calls.fstat(fd).size == 100_003
        assert read_all(calls, fd) == bytes(100_000) + b'end'
    assert read(calls, 'f') == bytes(100_000) + b'end'


@case()
def overwriting_the_middle_keeps_the_rest(calls: Calls) -> None:
    content = bytes(range(256)) * 2000
    write(calls, 'f', content)
    with opened(calls, 'f', WRITE) as fd:
        calls.pwrite(fd, b'HERE', 300_001)
        calls.pwrite(fd, b'and', 5)
    expected = bytearray(content)
    expected[300_001:300_005] = b'HERE'
    expected[5:8] = b'and'
    assert read(calls, 'f') == expected


@case()
def a_handle_reads_what_it_wrote(calls: Calls) -> None:
    write(calls, 'f', b'0123456789')
    with opened(calls, 'f', BOTH) as fd:
        calls.pwrite(fd, b'xx', 4)
        assert calls.pread(fd, 20, 0) == b'0123xx6789'
        calls.pwrite(fd, b'yy', 10)
        assert calls.pread(fd, 20, 0) == b'0123xx6789yy'


@case()
def a_reader_sees_what_is_being_written(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as writer:
        calls.pwrite(writer, b'first', 0)
        with opened(calls, 'f', READ) as reader:
            assert read_all(calls, reader) == b'first'
            calls.pwrite(writer, b' second', 5)
            assert calls.fstat(reader).size == 12
            assert read_all(calls, reader) == b'first second'
    assert read(calls, 'f') == b'first second'


@case()
def two_writers_share_a_file(calls: Calls) -> None:
    write(calls, 'f', b'....')
    with opened(calls, 'f', BOTH) as one, opened(calls, 'f', BOTH) as other:
        calls.pwrite(one, b'1', 0)
        calls.pwrite(other, b'2', 1)
        assert calls.pread(one, 10, 0) == calls.pread(other, 10, 0) == b'12..'
        calls.ftruncate(one, 3)
        assert calls.pread(other, 10, 0) == b'12.'
    assert read(calls, 'f') == b'12.'


@case()
def closing_one_of_two_handles_leaves_the_other_usable(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as one:
        with opened(calls, 'f', BOTH) as other:
            calls.pwrite(other, b'other', 0)
        assert read(calls, 'f') == b'other'
        calls.pwrite(one, b'one', 5)
    assert read(calls, 'f') == b'otherone'


@case()
def writing_goes_on_after_fsync(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as fd:
        for number in range(3):
            calls.pwrite(fd, b'%d' % number, number)
            calls.fsync(fd)
            assert calls.stat('f').size == number + 1
        calls.pwrite(fd, b'!', 3)
    assert read(calls, 'f') == b'012!'


@case()
def fsync_of_what_was_only_read_is_fine(calls: Calls) -> None:
    write(calls, 'f', b'x')
    with opened(calls, 'f', READ) as fd:
        calls.fsync(fd)


@case()
def the_same_file_can_be_written_again_and_again(calls: Calls) -> None:
    for number in range(10):
        write(calls, 'f', b'%d' % number * (number + 1))
        assert read(calls, 'f') == b'%d' % number * (number + 1)
        assert calls.stat('f').size == number + 1


# Truncating


@case()
def truncate_cuts_and_lengthens_by_path(calls: Calls) -> None:
    write(calls, 'f', b'0123456789')
    calls.truncate('f', 4)
    assert calls.stat('f').size == 4
    assert read(calls, 'f') == b'0123'
    calls.truncate('f', 8)
    assert read(calls, 'f') == b'0123\0\0\0\0'
    calls.truncate('f', 0)
    assert read(calls, 'f') == b''


@case()
def truncate_cuts_and_lengthens_by_handle(calls: Calls) -> None:
    write(calls, 'f', b'0123456789')
    with opened(calls, 'f', BOTH) as fd:
        calls.ftruncate(fd, 3)
        assert calls.fstat(fd).size == calls.stat('f').size == 3
        calls.ftruncate(fd, 300_000)
        assert read_all(calls, fd) == b'012' + bytes(299_997)
    assert read(calls, 'f') == b'012' + bytes(299_997)


@case()
def truncate_by_path_is_seen_by_an_open_writer(calls: Calls) -> None:
    write(calls, 'f', b'0123456789')
    with opened(calls, 'f', BOTH) as fd:
        calls.pwrite(fd, b'x', 0)
        calls.truncate('f', 2)
        assert read_all(calls, fd) == b'x1'
        calls.pwrite(fd, b'yy', 2)
    assert read(calls, 'f') == b'x1yy'


@case()
def truncate_needs_a_file(calls: Calls) -> None:
    calls.mkdir('d')
    with fails_with(errno.EISDIR):
        calls.truncate('d', 0)
    with fails_with(errno.ENOENT):
        calls.truncate('nothing', 0)


# Removing and renaming what is open


@case()
def an_unlinked_file_stays_usable_for_its_writer(calls: Calls) -> None:
    with opened(calls, 'f', BOTH | NEW) as fd:
        calls.pwrite(fd, b'old', 0)
        calls.unlink('f')
        assert not exists(calls, 'f')
        assert calls.listdir() == []
        calls.pwrite(fd, b'er', 3)
        assert calls.fstat(fd).size == 5
        assert read_all(calls, fd) == b'older'
        calls.ftruncate(fd, 3)
        assert read_all(calls, fd) == b'old'
        calls.fsync(fd)
        assert calls.fstat(fd).size == 3
    assert not exists(calls, 'f')
    assert calls.listdir() == []


@case()
def a_committed_file_that_is_unlinked_stays_usable_for_its_writer(calls: Calls) -> None:
    write(calls, 'f', b'committed')
    with opened(calls, 'f', BOTH) as fd:
        calls.pwrite(fd, b'C', 0)
        calls.unlink('f')
        assert read_all(calls, fd) == b'Committed'
        assert calls.fstat(fd).size == 9
    assert not exists(calls, 'f')


@case('local')
def an_unlinked_file_stays_readable(calls: Calls) -> None:
    write(calls, 'f', b'content')
    with opened(calls, 'f', READ) as fd:
        calls.unlink('f')
        assert read_all(calls, fd) == b'content'
        assert calls.fstat(fd).nlink == 0


@case(*STORES)
def an_unlinked_file_that_is_only_read_keeps_its_version_or_is_estale(calls: Calls) -> None:
    write(calls, 'f', b'content')
    with opened(calls, 'f', READ) as fd:
        calls.unlink('f')
        write(calls, 'f', b'another')
        with maybe_stale():
            assert read_all(calls, fd) == b'content'
    assert read(calls, 'f') == b'another'


@case()
def a_name_that_was_unlinked_is_free_for_another_file(calls: Calls) -> None:
    with opened(calls, 'f', BOTH | NEW) as old:
        calls.pwrite(old, b'old', 0)
        calls.unlink('f')
        with opened(calls, 'f', BOTH | NEW) as new:
            calls.pwrite(new, b'newer', 0)
            assert read_all(calls, old) == b'old'
            assert calls.fstat(old).size == 3
            assert read_all(calls, new) == b'newer'
            assert calls.fstat(new).size == calls.stat('f').size == 5
    assert read(calls, 'f') == b'newer'


@case()
def an_open_file_is_written_under_its_new_name(calls: Calls) -> None:
    with opened(calls, 'f', BOTH | NEW) as fd:
        calls.pwrite(fd, b'before', 0)
        calls.rename('f', 'g')
        assert not exists(calls, 'f')
        calls.pwrite(fd, b'after', 6)
        assert calls.stat('g').size == calls.fstat(fd).size == 11
    assert calls.listdir() == ['g']
    assert read(calls, 'g') == b'beforeafter'


@case()
def an_open_file_below_a_renamed_directory_goes_with_it(calls: Calls) -> None:
    calls.mkdir('d')
    write(calls, 'd/other', b'other')
    with opened(calls, 'd/f', BOTH | NEW) as fd:
        calls.pwrite(fd, b'before', 0)
        calls.rename('d', 'e')
        calls.pwrite(fd, b'after', 6)
        assert calls.fstat(fd).size == 11
    assert read(calls, 'e/f') == b'beforeafter'
    assert read(calls, 'e/other') == b'other'
    assert not exists(calls, 'd')


@case()
def a_rename_over_an_open_file_replaces_it(calls: Calls) -> None:
    write(calls, 'new', b'new')
    with opened(calls, 'f', BOTH | NEW) as fd:
        calls.pwrite(fd, b'older', 0)
        calls.rename('new', 'f')
        assert read(calls, 'f') == b'new'
        assert read_all(calls, fd) == b'older'
        assert calls.fstat(fd).size == 5
        calls.pwrite(fd, b'!', 5)
    assert read(calls, 'f') == b'new'
    assert calls.listdir() == ['f']


@case()
def a_reader_of_a_replaced_file_gets_nothing_of_the_new_one(calls: Calls) -> None:
    write(calls, 'f', b'old' * 200_000)
    write(calls, 'new', b'new' * 300_000)
    with opened(calls, 'f', READ) as fd:
        assert calls.pread(fd, 6, 0) == b'oldold'
        calls.rename('new', 'f')
        assert read(calls, 'f') == b'new' * 300_000
        with maybe_stale():
            assert read_all(calls, fd) == b'old' * 200_000
    assert read(calls, 'f') == b'new' * 300_000


@case(*STORES)
def a_reader_of_a_rewritten_file_gets_nothing_of_the_new_one(calls: Calls) -> None:
    write(calls, 'f', b'old' * 200_000)
    with opened(calls, 'f', READ) as fd:
        assert calls.pread(fd, 6, 0) == b'oldold'
        write(calls, 'f', b'new!' * 100_000)
        assert read(calls, 'f') == b'new!' * 100_000
        with maybe_stale():
            assert read_all(calls, fd) == b'old' * 200_000
    assert read(calls, 'f') == b'new!' * 100_000


@case()
def a_reader_of_a_renamed_file_reads_on_or_is_estale(calls: Calls) -> None:
    write(calls, 'f', b'old' * 200_000)
    with opened(calls, 'f', READ) as fd:
        assert calls.pread(fd, 6, 0) == b'oldold'
        calls.rename('f', 'g')
        write(calls, 'f', b'new' * 300_000)
        with maybe_stale():
            assert read_all(calls, fd) == b'old' * 200_000
    assert read(calls, 'f') == b'new' * 300_000
    assert read(calls, 'g') == b'old' * 200_000


@case()
def a_reader_of_a_truncated_file_gets_no_mixture(calls: Calls) -> None:
    write(calls, 'f', b'old' * 200_000)
    with opened(calls, 'f', READ) as fd:
        assert calls.pread(fd, 6, 0) == b'oldold'
        calls.truncate('f', 10)
        with maybe_stale():
            assert read_all(calls, fd) in {b'old' * 200_000, b'oldoldoldo'}
    assert read(calls, 'f') == b'oldoldoldo'


# Renaming


@case()
def a_rename_moves_a_file_and_replaces_another(calls: Calls) -> None:
    write(calls, 'a', b'a')
    write(calls, 'b', b'bb')
    calls.mkdir('d')
    calls.rename('a', 'b')
    assert not exists(calls, 'a')
    assert read(calls, 'b') == b'a'
    calls.rename('b', 'd/c')
    assert calls.listdir('d') == ['c']
    assert calls.listdir() == ['d']
    assert read(calls, 'd/c') == b'a'


@case()
def a_rename_moves_a_directory_with_all_below_it(calls: Calls) -> None:
    calls.mkdir('d')
    calls.mkdir('d/e')
    write(calls, 'd/e/f', b'content')
    calls.mkdir('x')
    calls.rename('d', 'x/y')
    assert read(calls, 'x/y/e/f') == b'content'
    assert calls.listdir('x/y') == ['e']
    assert not exists(calls, 'd')
    calls.mkdir('d')
    assert calls.listdir('d') == []


@case()
def a_directory_replaces_an_empty_one_only(calls: Calls) -> None:
    for name in ('d', 'empty', 'full'):
        calls.mkdir(name)
    write(calls, 'd/f', b'f')
    write(calls, 'full/g', b'g')
    with fails_with(errno.ENOTEMPTY, errno.EEXIST):
        calls.rename('d', 'full')
    calls.rename('d', 'empty')
    assert read(calls, 'empty/f') == b'f'
    assert read(calls, 'full/g') == b'g'


@case()
def files_and_directories_do_not_replace_each_other(calls: Calls) -> None:
    calls.mkdir('d')
    write(calls, 'f', b'f')
    with fails_with(errno.EISDIR):
        calls.rename('f', 'd')
    with fails_with(errno.ENOTDIR):
        calls.rename('d', 'f')
    assert read(calls, 'f') == b'f'
    assert calls.listdir('d') == []


@case()
def a_directory_does_not_move_into_itself(calls: Calls) -> None:
    calls.mkdir('d')
    calls.mkdir('d/e')
    with fails_with(errno.EINVAL):
        calls.rename('d', 'd/e/d')
    assert calls.listdir('d') == ['e']


@case()
def a_rename_onto_itself_changes_nothing(calls: Calls) -> None:
    write(calls, 'f', b'f')
    calls.rename('f', 'f')
    assert read(calls, 'f') == b'f'


@case()
def what_is_missing_cannot_be_renamed(calls: Calls) -> None:
    with fails_with(errno.ENOENT):
        calls.rename('nothing', 'x')
    write(calls, 'f', b'f')
    with fails_with(errno.ENOENT):
        calls.rename('f', 'nothing/x')
    assert read(calls, 'f') == b'f'


# Directories and names


@case()
def directories_are_made_and_removed(calls: Calls) -> None:
    calls.mkdir('d')
    assert calls.stat('d').is_directory
    assert calls.listdir('d') == []
    with fails_with(errno.EEXIST):
        calls.mkdir('d')
    calls.mkdir('d/e')
    assert calls.listdir('d') == ['e']
    calls.rmdir('d/e')
    calls.rmdir('d')
    assert not exists(calls, 'd')
    with fails_with(errno.ENOENT):
        calls.rmdir('d')
    with fails_with(errno.ENOENT):
        calls.mkdir('d/e')


@case()
def a_directory_outlives_its_last_entry(calls: Calls) -> None:
    calls.mkdir('d')
    write(calls, 'd/f', b'')
    calls.unlink('d/f')
    assert calls.stat('d').is_directory
    assert calls.listdir('d') == []


@case()
def mkdir_does_not_replace_a_file(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with fails_with(errno.EEXIST):
        calls.mkdir('f')


@case()
def a_full_directory_cannot_be_removed(calls: Calls) -> None:
    calls.mkdir('d')
    write(calls, 'd/f', b'f')
    with fails_with(errno.ENOTEMPTY):
        calls.rmdir('d')
    assert read(calls, 'd/f') == b'f'


@case()
def a_directory_with_only_a_file_under_change_cannot_be_removed(calls: Calls) -> None:
    calls.mkdir('d')
    with opened(calls, 'd/f', WRITE | os.O_CREAT) as fd:
        calls.pwrite(fd, b'f', 0)
        with fails_with(errno.ENOTEMPTY):
            calls.rmdir('d')
    assert read(calls, 'd/f') == b'f'


@case()
def unlink_is_for_files_and_rmdir_for_directories(calls: Calls) -> None:
    calls.mkdir('d')
    write(calls, 'f', b'f')
    with fails_with(errno.EISDIR, errno.EPERM):
        calls.unlink('d')
    with fails_with(errno.ENOTDIR):
        calls.rmdir('f')
    with fails_with(errno.ENOENT):
        calls.unlink('nothing')
    assert sorted(calls.listdir()) == ['d', 'f']


@case()
def names_have_up_to_255_bytes(calls: Calls) -> None:
    for name in ('n' * 255, 'é' * 127):
        write(calls, name, b'x')
        assert calls.listdir() == [name]
        assert read(calls, name) == b'x'
        calls.unlink(name)
    calls.mkdir('d' * 255)
    calls.rmdir('d' * 255)
    for name in ('n' * 256, 'é' * 128):
        with fails_with(errno.ENAMETOOLONG):
            calls.open(name, WRITE | os.O_CREAT)
        with fails_with(errno.ENAMETOOLONG):
            calls.stat(name)
        with fails_with(errno.ENAMETOOLONG):
            calls.mkdir(name)
    write(calls, 'f', b'f')
    with fails_with(errno.ENAMETOOLONG):
        calls.rename('f', 'n' * 256)


@case()
def names_hold_whatever_is_neither_slash_nor_nul(calls: Calls) -> None:
    names = [
        ' ',
        'a b',
        'new\nline',
        'tab\t',
        '-rf',
        '.hidden',
        '...',
        'a.',
        '~',
        '%41',
        '?*[]',
        '"\'',
        'a&b;c',
        '日本',
    ]
    names += ['e\u0301', '\u00e9', '\x7f', '+', 'a%2Fb', '#', 'a=b', 'ä:b', '\U0001f600']
    for name in names:
        write(calls, name, name.encode())
    listed = calls.listdir()
    assert sorted(listed) == sorted(names), set(listed) ^ set(names)
    for name in names:
        assert read(calls, name) == name.encode()
        calls.rename(name, 'moved')
        calls.rename('moved', name)
        calls.unlink(name)
    assert calls.listdir() == []


# SeaweedFS, the server of these tests, takes a backslash for a slash.
@case('memory', 'local')
def names_hold_backslashes(calls: Calls) -> None:
    write(calls, 'a\\b', b'x')
    assert calls.listdir() == ['a\\b']
    assert read(calls, 'a\\b') == b'x'


@case('memory', 'local')
def names_need_not_be_unicode(calls: Calls) -> None:
    name = os.fsdecode(b'\xff\xfe-latin-\xe9')
    write(calls, name, b'x')
    assert calls.listdir() == [name]
    assert read(calls, name) == b'x'
    calls.rename(name, name + '2')
    calls.unlink(name + '2')


@case('bucket')
def names_that_are_not_unicode_are_eilseq(calls: Calls) -> None:
    name = os.fsdecode(b'\xff\xfe-latin-\xe9')
    with fails_with(errno.EILSEQ):
        calls.open(name, WRITE | os.O_CREAT)
    with fails_with(errno.EILSEQ):
        calls.mkdir(name)
    assert calls.listdir() == []


@case()
def a_listing_has_each_entry_once(calls: Calls) -> None:
    names = [f'entry-{number:04}' for number in range(60)]
    for name in names:
        calls.mkdir(name)
    listed = calls.listdir()
    assert len(listed) == 60
    assert set(listed) == set(names)


# Attributes


@case()
def times_are_kept_as_they_are_set(calls: Calls) -> None:
    write(calls, 'f', b'f')
    for moment in (1_000_000_000 * NS + 123_456_789, 0, 4_000_000_000 * NS):
        calls.utime('f', (moment, moment))
        assert calls.stat('f').mtime_ns == moment
    assert read(calls, 'f') == b'f'


@case()
def a_time_that_is_set_while_writing_is_kept(calls: Calls) -> None:
    moment = 1_000_000_000 * NS
    with opened(calls, 'f', WRITE | NEW) as fd:
        calls.pwrite(fd, b'f', 0)
        calls.utime('f', (moment, moment))
    assert calls.stat('f').mtime_ns == moment


@case()
def writing_changes_a_time_that_was_set(calls: Calls) -> None:
    write(calls, 'f', b'f')
    calls.utime('f', (NS, NS))
    with opened(calls, 'f', WRITE) as fd:
        calls.pwrite(fd, b'g', 0)
    assert abs(calls.stat('f').mtime_ns - time.time_ns()) < 100 * NS


@case()
def a_new_file_and_a_touched_one_are_of_now(calls: Calls) -> None:
    write(calls, 'f', b'f')
    assert abs(calls.stat('f').mtime_ns - time.time_ns()) < 100 * NS
    calls.utime('f', (NS, NS))
    calls.utime('f', None)
    assert abs(calls.stat('f').mtime_ns - time.time_ns()) < 100 * NS


@case()
def the_time_of_a_closed_file_stays_as_it_is(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as fd:
        calls.pwrite(fd, b'f', 0)
        calls.fsync(fd)
    after_close = calls.stat('f').mtime_ns
    assert read(calls, 'f') == b'f'
    assert calls.listdir() == ['f']
    assert calls.stat('f').mtime_ns == after_close


@case()
def modes_are_accepted_and_shown(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with opened(calls, 'f', READ):
        for mode in (0o600, 0o755, 0o400):
            calls.chmod('f', mode)
            assert stat.S_IMODE(calls.stat('f').mode) == mode


@case()
def what_is_missing_has_no_attributes_to_change(calls: Calls) -> None:
    for change in (lambda: calls.chmod('x', 0o600), lambda: calls.utime('x', (0, 0)), lambda: calls.truncate('x', 0)):
        with fails_with(errno.ENOENT):
            change()


@case()
def inode_numbers_stay_and_differ(calls: Calls) -> None:
    write(calls, 'a', b'a')
    write(calls, 'b', b'b')
    before = calls.stat('a').ino
    assert before != calls.stat('b').ino
    assert calls.stat('a').ino == before
    with opened(calls, 'a', READ) as fd:
        assert calls.fstat(fd).ino == before


@case()
def a_file_system_has_room_and_limits(calls: Calls) -> None:
    found = calls.statvfs()
    blocks = found.blocks if hasattr(found, 'blocks') else found.f_blocks
    name_max = found.name_max if hasattr(found, 'name_max') else found.f_namemax
    assert blocks > 0
    assert name_max == 255


# Links and extended attributes


@case('local')
def hard_links_are_one_file(calls: Calls) -> None:
    write(calls, 'a', b'a')
    calls.link('a', 'b')
    assert calls.stat('a').ino == calls.stat('b').ino
    assert calls.stat('a').nlink == calls.stat('b').nlink == 2
    with opened(calls, 'b', WRITE | os.O_APPEND) as fd:
        calls.append(fd, b'b')
    assert read(calls, 'a') == b'ab'
    calls.unlink('a')
    assert calls.stat('b').nlink == 1
    assert read(calls, 'b') == b'ab'
    calls.rename('b', 'c')
    assert read(calls, 'c') == b'ab'
    with fails_with(errno.EEXIST):
        calls.link('c', 'c')


@case('local')
def symbolic_links_work(calls: Calls) -> None:
    write(calls, 'f', b'f')
    calls.symlink('f', 'l')
    calls.symlink('nothing/there', 'dangling')
    assert calls.readlink('l') == 'f'
    assert stat.S_ISLNK(calls.stat('l').mode)
    assert calls.readlink('dangling') == 'nothing/there'
    assert calls.stat('dangling').size == len('nothing/there')
    calls.rename('l', 'm')
    calls.unlink('m')
    assert read(calls, 'f') == b'f'
    with fails_with(errno.EEXIST):
        calls.symlink('x', 'f')


@case('local')
def fifos_work(calls: Calls) -> None:
    calls.mkfifo('p')
    assert stat.S_ISFIFO(calls.stat('p').mode)
    calls.unlink('p')


@case(*STORES)
def links_and_fifos_are_eperm_where_they_cannot_be(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with fails_with(errno.EPERM):
        calls.symlink('f', 'l')
    with fails_with(errno.EPERM):
        calls.link('f', 'l')
    with fails_with(errno.EPERM):
        calls.mkfifo('p')
    assert calls.listdir() == ['f']


@case('local')
def extended_attributes_work(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with fails_with(errno.ENODATA):
        calls.getxattr('f', 'user.colour')
    calls.setxattr('f', 'user.colour', b'blue\0!')
    assert calls.getxattr('f', 'user.colour') == b'blue\0!'
    assert calls.listxattr('f') == ['user.colour']
    calls.removexattr('f', 'user.colour')
    assert calls.listxattr('f') == []


@case(*STORES)
def extended_attributes_are_refused_where_they_cannot_be(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with fails_with(errno.ENODATA, errno.ENOTSUP):
        calls.getxattr('f', 'user.colour')
    with fails_with(errno.ENOTSUP):
        calls.setxattr('f', 'user.colour', b'blue')
    assert calls.listxattr('f') == []


def main(kind: str, directory: str, cases: list[Case]) -> None:
    """Run the cases of a kind, each in a new directory, and print how it went."""
    for number, each in enumerate(case for case in cases if kind in case.on):
        place = f'{directory}/{number}'
        os.mkdir(place)
        print(json.dumps([each.name, outcome(each, OsCalls(place))]), flush=True)  # noqa: T201


def outcome(each: Case, calls: Calls) -> str:
    """What went wrong with a case; '' if nothing."""
    try:
        each.function(calls)
    except BaseException:  # noqa: BLE001 - all that a case raises is its outcome
        return traceback.format_exc()
    return ''


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], CASES)
