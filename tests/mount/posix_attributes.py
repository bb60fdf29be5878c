"""POSIX cases: times, modes, sizes, links and extended attributes."""

import errno
import os
import stat
import time

from tests.mount.calls import NS, Calls
from tests.mount.posix import NEW, READ, STORES, WRITE, Table, fails_with, opened, read, write

CASES = Table()

# Attributes


@CASES.case()
def times_are_kept_as_they_are_set(calls: Calls) -> None:
    write(calls, 'f', b'f')
    for moment in (1_000_000_000 * NS + 123_456_789, 0, 4_000_000_000 * NS):
        calls.utime('f', (moment, moment))
        assert calls.stat('f').mtime_ns == moment
    assert read(calls, 'f') == b'f'


@CASES.case()
def a_time_that_is_set_while_writing_is_kept(calls: Calls) -> None:
    moment = 1_000_000_000 * NS
    with opened(calls, 'f', WRITE | NEW) as fd:
        calls.pwrite(fd, b'f', 0)
        calls.utime('f', (moment, moment))
    assert calls.stat('f').mtime_ns == moment


@CASES.case()
def writing_changes_a_time_that_was_set(calls: Calls) -> None:
    write(calls, 'f', b'f')
    calls.utime('f', (NS, NS))
    with opened(calls, 'f', WRITE) as fd:
        calls.pwrite(fd, b'g', 0)
    assert abs(calls.stat('f').mtime_ns - time.time_ns()) < 100 * NS


@CASES.case()
def a_new_file_and_a_touched_one_are_of_now(calls: Calls) -> None:
    write(calls, 'f', b'f')
    assert abs(calls.stat('f').mtime_ns - time.time_ns()) < 100 * NS
    calls.utime('f', (NS, NS))
    calls.utime('f', None)
    assert abs(calls.stat('f').mtime_ns - time.time_ns()) < 100 * NS


@CASES.case()
def the_time_of_a_closed_file_stays_as_it_is(calls: Calls) -> None:
    with opened(calls, 'f', WRITE | NEW) as fd:
        calls.pwrite(fd, b'f', 0)
        calls.fsync(fd)
    after_close = calls.stat('f').mtime_ns
    assert read(calls, 'f') == b'f'
    assert calls.listdir() == ['f']
    assert calls.stat('f').mtime_ns == after_close


@CASES.case()
def modes_are_accepted_and_shown(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with opened(calls, 'f', READ):
        for mode in (0o600, 0o755, 0o400):
            calls.chmod('f', mode)
            assert stat.S_IMODE(calls.stat('f').mode) == mode


@CASES.case()
def what_is_missing_has_no_attributes_to_change(calls: Calls) -> None:
    for change in (lambda: calls.chmod('x', 0o600), lambda: calls.utime('x', (0, 0)), lambda: calls.truncate('x', 0)):
        with fails_with(errno.ENOENT):
            change()


@CASES.case()
def inode_numbers_stay_and_differ(calls: Calls) -> None:
    write(calls, 'a', b'a')
    write(calls, 'b', b'b')
    before = calls.stat('a').ino
    assert before != calls.stat('b').ino
    assert calls.stat('a').ino == before
    with opened(calls, 'a', READ) as fd:
        assert calls.fstat(fd).ino == before


@CASES.case()
def an_inode_number_goes_along_with_a_rename(calls: Calls) -> None:
    write(calls, 'a', b'a')
    before = calls.stat('a').ino
    with opened(calls, 'a', READ) as fd:
        calls.rename('a', 'b')
        assert calls.stat('b').ino == calls.fstat(fd).ino == before
        write(calls, 'a', b'new')
        assert calls.stat('a').ino not in {before, calls.stat('b').ino}
        calls.rename('b', 'c')
        assert calls.stat('c').ino == calls.fstat(fd).ino == before
    assert calls.stat('c').ino == before


@CASES.case()
def a_directory_takes_all_numbers_below_it_along(calls: Calls) -> None:
    for name in ('d', 'd/e', 'x'):
        calls.mkdir(name)
    write(calls, 'd/e/f', b'f')
    before = [calls.stat(f'd{rest}').ino for rest in ('', '/e', '/e/f')]
    calls.rename('d/e/f', 'd/e/g')
    calls.rename('d', 'x/y')
    assert [calls.stat(f'x/y{rest}').ino for rest in ('', '/e', '/e/g')] == before
    for name in ('d', 'd/e'):
        calls.mkdir(name)
    write(calls, 'd/e/g', b'another')
    write(calls, 'x/y/e/f', b'another')
    made = [calls.stat(name).ino for name in ('d', 'd/e', 'd/e/g', 'x/y/e/f')]
    assert len({*before, *made}) == 7


@CASES.case()
def what_replaces_a_file_brings_its_number(calls: Calls) -> None:
    write(calls, 'f', b'0')
    for count in (b'1', b'2', b'3'):
        before = calls.stat('f').ino
        write(calls, 'f.new', count)
        new = calls.stat('f.new').ino
        assert new != before
        with opened(calls, 'f', READ) as fd:
            calls.rename('f.new', 'f')
            assert calls.stat('f').ino == new
            assert calls.fstat(fd).ino == before
    assert read(calls, 'f') == b'3'


@CASES.case()
def a_new_file_has_not_the_number_of_one_that_is_removed_and_open(calls: Calls) -> None:
    write(calls, 'f', b'old')
    with opened(calls, 'f', READ) as fd:
        calls.unlink('f')
        write(calls, 'f', b'new')
        assert calls.stat('f').ino != calls.fstat(fd).ino


@CASES.case()
def a_file_system_has_room_and_limits(calls: Calls) -> None:
    found = calls.statvfs()
    assert found.blocks > 0
    assert found.name_max == 255


# Links and extended attributes


@CASES.case('local')
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


@CASES.case('local')
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


@CASES.case('local')
def fifos_work(calls: Calls) -> None:
    calls.mkfifo('p')
    assert stat.S_ISFIFO(calls.stat('p').mode)
    calls.unlink('p')


@CASES.case(*STORES)
def links_and_fifos_are_eperm_where_they_cannot_be(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with fails_with(errno.EPERM):
        calls.symlink('f', 'l')
    with fails_with(errno.EPERM):
        calls.link('f', 'l')
    with fails_with(errno.EPERM):
        calls.mkfifo('p')
    assert calls.listdir() == ['f']


@CASES.case()
def extended_attributes_work(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with fails_with(errno.ENODATA):
        calls.getxattr('f', 'user.colour')
    for value in (b'blue', b'light green'):
        calls.setxattr('f', 'user.colour', value)
        assert calls.getxattr('f', 'user.colour') == value
    assert calls.listxattr('f') == ['user.colour']
    calls.removexattr('f', 'user.colour')
    assert calls.listxattr('f') == []
    with fails_with(errno.ENODATA):
        calls.removexattr('f', 'user.colour')
    assert read(calls, 'f') == b'f'


@CASES.case('local')
def extended_attributes_hold_any_bytes(calls: Calls) -> None:
    write(calls, 'f', b'f')
    calls.setxattr('f', 'user.Colour \xe4', b'blue\0!\xff')
    assert calls.getxattr('f', 'user.Colour \xe4') == b'blue\0!\xff'
    assert calls.listxattr('f') == ['user.Colour \xe4']
