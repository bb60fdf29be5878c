"""POSIX cases: what becomes of open files when their names go, move or lead elsewhere."""

from tests.mount.calls import Calls
from tests.mount.posix import BOTH, NEW, READ, STORES, Table, exists, maybe_stale, opened, read, read_all, write

CASES = Table()

# Removing and renaming what is open


@CASES.case()
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


@CASES.case()
def a_committed_file_that_is_unlinked_stays_usable_for_its_writer(calls: Calls) -> None:
    write(calls, 'f', b'committed')
    with opened(calls, 'f', BOTH) as fd:
        calls.pwrite(fd, b'C', 0)
        calls.unlink('f')
        assert read_all(calls, fd) == b'Committed'
        assert calls.fstat(fd).size == 9
    assert not exists(calls, 'f')


@CASES.case('local')
def an_unlinked_file_stays_readable(calls: Calls) -> None:
    write(calls, 'f', b'content')
    with opened(calls, 'f', READ) as fd:
        calls.unlink('f')
        assert read_all(calls, fd) == b'content'
        assert calls.fstat(fd).nlink == 0


@CASES.case(*STORES)
def an_unlinked_file_that_is_only_read_keeps_its_version_or_is_estale(calls: Calls) -> None:
    write(calls, 'f', b'content')
    with opened(calls, 'f', READ) as fd:
        calls.unlink('f')
        write(calls, 'f', b'another')
        with maybe_stale():
            assert read_all(calls, fd) == b'content'
    assert read(calls, 'f') == b'another'


@CASES.case()
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


@CASES.case()
def an_open_file_is_written_under_its_new_name(calls: Calls) -> None:
    with opened(calls, 'f', BOTH | NEW) as fd:
        calls.pwrite(fd, b'before', 0)
        calls.rename('f', 'g')
        assert not exists(calls, 'f')
        calls.pwrite(fd, b'after', 6)
        assert calls.stat('g').size == calls.fstat(fd).size == 11
    assert calls.listdir() == ['g']
    assert read(calls, 'g') == b'beforeafter'


@CASES.case()
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


@CASES.case()
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


@CASES.case()
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


@CASES.case(*STORES)
def a_reader_of_a_rewritten_file_gets_nothing_of_the_new_one(calls: Calls) -> None:
    write(calls, 'f', b'old' * 200_000)
    with opened(calls, 'f', READ) as fd:
        assert calls.pread(fd, 6, 0) == b'oldold'
        write(calls, 'f', b'new!' * 100_000)
        assert read(calls, 'f') == b'new!' * 100_000
        with maybe_stale():
            assert read_all(calls, fd) == b'old' * 200_000
    assert read(calls, 'f') == b'new!' * 100_000


@CASES.case()
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


@CASES.case()
def a_reader_of_a_truncated_file_gets_no_mixture(calls: Calls) -> None:
    write(calls, 'f', b'old' * 200_000)
    with opened(calls, 'f', READ) as fd:
        assert calls.pread(fd, 6, 0) == b'oldold'
        calls.truncate('f', 10)
        with maybe_stale():
            assert read_all(calls, fd) in {b'old' * 200_000, b'oldoldoldo'}
    assert read(calls, 'f') == b'oldoldoldo'
