"""POSIX cases: renaming, directories, and what names may hold."""

import errno
import os

from tests.mount.calls import Calls
from tests.mount.posix import WRITE, Table, exists, fails_with, opened, read, write

CASES = Table()

# Renaming


@CASES.case()
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


@CASES.case()
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


@CASES.case()
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


@CASES.case()
def files_and_directories_do_not_replace_each_other(calls: Calls) -> None:
    calls.mkdir('d')
    write(calls, 'f', b'f')
    with fails_with(errno.EISDIR):
        calls.rename('f', 'd')
    with fails_with(errno.ENOTDIR):
        calls.rename('d', 'f')
    assert read(calls, 'f') == b'f'
    assert calls.listdir('d') == []


@CASES.case()
def a_directory_does_not_move_into_itself(calls: Calls) -> None:
    calls.mkdir('d')
    calls.mkdir('d/e')
    with fails_with(errno.EINVAL):
        calls.rename('d', 'd/e/d')
    assert calls.listdir('d') == ['e']


@CASES.case()
def a_rename_onto_itself_changes_nothing(calls: Calls) -> None:
    write(calls, 'f', b'f')
    calls.rename('f', 'f')
    assert read(calls, 'f') == b'f'


@CASES.case()
def what_is_missing_cannot_be_renamed(calls: Calls) -> None:
    with fails_with(errno.ENOENT):
        calls.rename('nothing', 'x')
    write(calls, 'f', b'f')
    with fails_with(errno.ENOENT):
        calls.rename('f', 'nothing/x')
    assert read(calls, 'f') == b'f'


# Directories and names


@CASES.case()
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


@CASES.case()
def a_directory_outlives_its_last_entry(calls: Calls) -> None:
    calls.mkdir('d')
    write(calls, 'd/f', b'')
    calls.unlink('d/f')
    assert calls.stat('d').is_directory
    assert calls.listdir('d') == []


@CASES.case()
def mkdir_does_not_replace_a_file(calls: Calls) -> None:
    write(calls, 'f', b'f')
    with fails_with(errno.EEXIST):
        calls.mkdir('f')


@CASES.case()
def a_full_directory_cannot_be_removed(calls: Calls) -> None:
    calls.mkdir('d')
    write(calls, 'd/f', b'f')
    with fails_with(errno.ENOTEMPTY):
        calls.rmdir('d')
    assert read(calls, 'd/f') == b'f'


@CASES.case()
def a_directory_with_only_a_file_under_change_cannot_be_removed(calls: Calls) -> None:
    calls.mkdir('d')
    with opened(calls, 'd/f', WRITE | os.O_CREAT) as fd:
        calls.pwrite(fd, b'f', 0)
        with fails_with(errno.ENOTEMPTY):
            calls.rmdir('d')
    assert read(calls, 'd/f') == b'f'


@CASES.case()
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


@CASES.case()
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


@CASES.case()
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
@CASES.case('memory', 'local')
def names_hold_backslashes(calls: Calls) -> None:
    write(calls, 'a\\b', b'x')
    assert calls.listdir() == ['a\\b']
    assert read(calls, 'a\\b') == b'x'


@CASES.case('memory', 'local')
def names_need_not_be_unicode(calls: Calls) -> None:
    name = os.fsdecode(b'\xff\xfe-latin-\xe9')
    write(calls, name, b'x')
    assert calls.listdir() == [name]
    assert read(calls, name) == b'x'
    calls.rename(name, name + '2')
    calls.unlink(name + '2')


@CASES.case('bucket')
def names_that_are_not_unicode_are_eilseq(calls: Calls) -> None:
    name = os.fsdecode(b'\xff\xfe-latin-\xe9')
    with fails_with(errno.EILSEQ):
        calls.open(name, WRITE | os.O_CREAT)
    with fails_with(errno.EILSEQ):
        calls.mkdir(name)
    assert calls.listdir() == []


@CASES.case()
def a_listing_has_each_entry_once(calls: Calls) -> None:
    names = [f'entry-{number:04}' for number in range(60)]
    for name in names:
        calls.mkdir(name)
    listed = calls.listdir()
    assert len(listed) == 60
    assert set(listed) == set(names)
