"""POSIX cases: opening, reading, writing and truncating files."""

import errno
import os
import stat

from tests.mount.calls import Calls
from tests.mount.posix import BOTH, NEW, READ, WRITE, Table, fails_with, opened, read, read_all, write

CASES = Table()

# Opening


@CASES.case()
def a_new_file_is_empty_and_listed(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as fd:
        assert calls.fstat(fd).size == 0
        assert calls.listdir() == ['f']
    assert read(calls, 'f') == b''
    assert stat.S_ISREG(calls.stat('f').mode)


@CASES.case()
def o_excl_refuses_what_is_there(calls: Calls) -> None:
    write(calls, 'f', b'first')
    with fails_with(errno.EEXIST):
        calls.open('f', WRITE | NEW)
    calls.mkdir('d')
    with fails_with(errno.EEXIST):
        calls.open('d', READ | NEW)
    assert read(calls, 'f') == b'first'


@CASES.case()
def o_excl_refuses_what_another_handle_has_just_made(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW), fails_with(errno.EEXIST):
        calls.open('f', WRITE | NEW)


@CASES.case()
def o_creat_opens_what_is_there_as_it_is(calls: Calls) -> None:
    write(calls, 'f', b'first')
    with opened(calls, 'f', BOTH | os.O_CREAT) as fd:
        assert read_all(calls, fd) == b'first'
    assert read(calls, 'f') == b'first'


@CASES.case()
def o_trunc_empties_at_once(calls: Calls) -> None:
    write(calls, 'f', b'first')
    with opened(calls, 'f', WRITE | os.O_TRUNC) as fd:
        assert calls.fstat(fd).size == 0
        assert calls.stat('f').size == 0
    assert read(calls, 'f') == b''


@CASES.case()
def o_trunc_without_writing_truncates_too(calls: Calls) -> None:
    write(calls, 'f', b'first')
    with opened(calls, 'f', READ | os.O_TRUNC) as fd:
        assert calls.pread(fd, 10, 0) == b''
    assert calls.stat('f').size == 0
    assert read(calls, 'f') == b''


@CASES.case()
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


@CASES.case()
def missing_files_cannot_be_opened(calls: Calls) -> None:
    for flags in (READ, WRITE, BOTH, WRITE | os.O_TRUNC):
        with fails_with(errno.ENOENT):
            calls.open('nothing', flags)
    with fails_with(errno.ENOENT):
        calls.open('nothing/here', WRITE | os.O_CREAT)


@CASES.case()
def a_directory_cannot_be_opened_to_write(calls: Calls) -> None:
    calls.mkdir('d')
    for flags in (WRITE, BOTH, WRITE | os.O_CREAT, WRITE | os.O_TRUNC):
        with fails_with(errno.EISDIR):
            calls.open('d', flags)


@CASES.case()
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


@CASES.case()
def reading_behind_the_end_is_empty(calls: Calls) -> None:
    write(calls, 'f', b'abc')
    with opened(calls, 'f', READ) as fd:
        assert calls.pread(fd, 10, 0) == b'abc'
        assert calls.pread(fd, 10, 2) == b'c'
        assert calls.pread(fd, 10, 3) == b''
        assert calls.pread(fd, 10, 1 << 40) == b''


@CASES.case()
def what_is_not_written_between_is_zeros(calls: Calls) -> None:
    with opened(calls, 'f', BOTH | NEW) as fd:
        calls.pwrite(fd, b'end', 100_000)
        assert calls.fstat(fd).size == 100_003
        assert read_all(calls, fd) == bytes(100_000) + b'end'
    assert read(calls, 'f') == bytes(100_000) + b'end'


@CASES.case()
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


@CASES.case()
def a_handle_reads_what_it_wrote(calls: Calls) -> None:
    write(calls, 'f', b'0123456789')
    with opened(calls, 'f', BOTH) as fd:
        calls.pwrite(fd, b'xx', 4)
        assert calls.pread(fd, 20, 0) == b'0123xx6789'
        calls.pwrite(fd, b'yy', 10)
        assert calls.pread(fd, 20, 0) == b'0123xx6789yy'


@CASES.case()
def a_reader_sees_what_is_being_written(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as writer:
        calls.pwrite(writer, b'first', 0)
        with opened(calls, 'f', READ) as reader:
            assert read_all(calls, reader) == b'first'
            calls.pwrite(writer, b' second', 5)
            assert calls.fstat(reader).size == 12
            assert read_all(calls, reader) == b'first second'
    assert read(calls, 'f') == b'first second'


@CASES.case()
def two_writers_share_a_file(calls: Calls) -> None:
    write(calls, 'f', b'....')
    with opened(calls, 'f', BOTH) as one, opened(calls, 'f', BOTH) as other:
        calls.pwrite(one, b'1', 0)
        calls.pwrite(other, b'2', 1)
        assert calls.pread(one, 10, 0) == calls.pread(other, 10, 0) == b'12..'
        calls.ftruncate(one, 3)
        assert calls.pread(other, 10, 0) == b'12.'
    assert read(calls, 'f') == b'12.'


@CASES.case()
def closing_one_of_two_handles_leaves_the_other_usable(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as one:
        with opened(calls, 'f', BOTH) as other:
            calls.pwrite(other, b'other', 0)
        assert read(calls, 'f') == b'other'
        calls.pwrite(one, b'one', 5)
    assert read(calls, 'f') == b'otherone'


@CASES.case()
def writing_goes_on_after_fsync(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as fd:
        for number in range(3):
            calls.pwrite(fd, b'%d' % number, number)
            calls.fsync(fd)
            assert calls.stat('f').size == number + 1
        calls.pwrite(fd, b'!', 3)
    assert read(calls, 'f') == b'012!'


@CASES.case()
def fsync_of_what_was_only_read_is_fine(calls: Calls) -> None:
    write(calls, 'f', b'x')
    with opened(calls, 'f', READ) as fd:
        calls.fsync(fd)


@CASES.case()
def the_same_file_can_be_written_again_and_again(calls: Calls) -> None:
    for number in range(10):
        write(calls, 'f', b'%d' % number * (number + 1))
        assert read(calls, 'f') == b'%d' % number * (number + 1)
        assert calls.stat('f').size == number + 1


# Truncating


@CASES.case()
def truncate_cuts_and_lengthens_by_path(calls: Calls) -> None:
    write(calls, 'f', b'0123456789')
    calls.truncate('f', 4)
    assert calls.stat('f').size == 4
    assert read(calls, 'f') == b'0123'
    calls.truncate('f', 8)
    assert read(calls, 'f') == b'0123\0\0\0\0'
    calls.truncate('f', 0)
    assert read(calls, 'f') == b''


@CASES.case()
def truncate_cuts_and_lengthens_by_handle(calls: Calls) -> None:
    write(calls, 'f', b'0123456789')
    with opened(calls, 'f', BOTH) as fd:
        calls.ftruncate(fd, 3)
        assert calls.fstat(fd).size == calls.stat('f').size == 3
        calls.ftruncate(fd, 300_000)
        assert read_all(calls, fd) == b'012' + bytes(299_997)
    assert read(calls, 'f') == b'012' + bytes(299_997)


@CASES.case()
def truncate_by_path_is_seen_by_an_open_writer(calls: Calls) -> None:
    write(calls, 'f', b'0123456789')
    with opened(calls, 'f', BOTH) as fd:
        calls.pwrite(fd, b'x', 0)
        calls.truncate('f', 2)
        assert read_all(calls, fd) == b'x1'
        calls.pwrite(fd, b'yy', 2)
    assert read(calls, 'f') == b'x1yy'


@CASES.case()
def truncate_needs_a_file(calls: Calls) -> None:
    calls.mkdir('d')
    with fails_with(errno.EISDIR):
        calls.truncate('d', 0)
    with fails_with(errno.ENOENT):
        calls.truncate('nothing', 0)
