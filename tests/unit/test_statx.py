"""statx(2) through ctypes says what os.stat says."""

import os
import socket
import stat
from pathlib import Path

import pytest

from fusefs.trees.statx import Identity, statx


def assert_as_os_stat(path: Path) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    directory = os.open(path.parent, os.O_PATH)
    try:
        expected = os.lstat(path)
        for cached in (True, False):
            for found in (statx(descriptor, cached=cached), statx(directory, os.fsencode(path.name), cached=cached)):
                assert os.makedev(*found.identity.device) == expected.st_dev
                assert found.identity.ino == expected.st_ino
                for name in (
                    'mode',
                    'nlink',
                    'uid',
                    'gid',
                    'rdev',
                    'blocks',
                    'blksize',
                    'mtime_ns',
                    'ctime_ns',
                    'atime_ns',
                ):
                    assert getattr(found, name) == getattr(expected, f'st_{name}'), name
                assert found.size_bytes == expected.st_size
    finally:
        os.close(descriptor)
        os.close(directory)


def test_it_agrees_with_os_stat_about_every_type_of_file(tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.write_bytes(b'x' * 12_345)
    os.link(file, tmp_path / 'link')
    os.chmod(file, 0o4751)
    os.utime(file, ns=(1_000_000_000_123_456_789, 2_000_000_000_987_654_321))
    (tmp_path / 'directory').mkdir()
    (tmp_path / 'symlink').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'fifo')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / 'socket'))
    with (tmp_path / 'sparse').open('wb') as sparse:
        sparse.truncate(5 << 30)
    for path in [*tmp_path.iterdir(), Path('/dev/null'), Path('/proc/self/status')]:
        assert_as_os_stat(path)


def test_times_before_1970_are_negative(tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.touch()
    os.utime(file, ns=(-1_500_000_000, -1_500_000_000))
    assert_as_os_stat(file)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    (tmp_path / 'link').symlink_to('file')
    directory = os.open(tmp_path, os.O_PATH)
    try:
        assert stat.S_ISLNK(statx(directory, b'link').mode)
    finally:
        os.close(directory)


def test_a_name_that_is_missing_raises_with_its_name(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(FileNotFoundError, match='nothing'):
            statx(directory, b'nothing')
    finally:
        os.close(directory)


def test_a_file_that_takes_over_an_inode_number_has_another_identity(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_PATH)
    identities: set[Identity] = set()
    try:
        for _ in range(50):
            (tmp_path / 'file').touch()
            identities.add(statx(directory, b'file').identity)
            (tmp_path / 'file').unlink()
    finally:
        os.close(directory)
    assert len(identities) == 50
