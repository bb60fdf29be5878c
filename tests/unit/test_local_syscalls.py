"""System calls through ctypes, against what os says of their effects."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs import ops
from fusefs.trees.local_syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, fallocate, rename, set_times

MOMENT = 981_173_106_123_456_789
RENAME_WHITEOUT = 4


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_PATH)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize('atime_ns', [MOMENT, 0, -1_500_000_001, None])
@pytest.mark.parametrize('mtime_ns', [MOMENT, -7, None])
def test_each_time_is_set_or_left_as_it_is(tmp_path: Path, atime_ns: int | None, mtime_ns: int | None) -> None:
    path = tmp_path / 'f'
    path.touch()
    os.utime(path, ns=(1, 2))
    set_times(str(path), atime_ns, mtime_ns)
    found = path.stat()
    assert found.st_atime_ns == (1 if atime_ns is None else atime_ns)
    assert found.st_mtime_ns == (2 if mtime_ns is None else mtime_ns)


def test_now_is_what_the_disk_takes_for_it(tmp_path: Path) -> None:
    for name in ('before', 'f', 'after'):
        (tmp_path / name).touch()
        if name == 'f':
            os.utime(tmp_path / name, ns=(1, 2))
            set_times(str(tmp_path / name), None, ops.NOW)
    before, found, after = [(tmp_path / name).stat() for name in ('before', 'f', 'after')]
    assert found.st_atime_ns == 1
    assert before.st_mtime_ns <= found.st_mtime_ns <= after.st_mtime_ns <= time.time_ns()


def test_a_name_moves_replaces_is_refused_or_changes_places(tmp_path: Path, directory: int) -> None:
    for name in ('a', 'b\udcff'):
        (tmp_path / name).write_text(name[0])
    with pytest.raises(FileExistsError):
        rename(directory, 'a', directory, 'b\udcff', RENAME_NOREPLACE)
    rename(directory, 'a', directory, 'b\udcff', RENAME_EXCHANGE)
    assert (tmp_path / 'a').read_text() == 'b'
    rename(directory, 'a', directory, 'b\udcff', 0)
    assert os.listdir(tmp_path) == ['b\udcff']
    with pytest.raises(FileNotFoundError):
        rename(directory, 'a', directory, 'c', 0)


def test_no_whiteout_is_left_behind(tmp_path: Path, directory: int) -> None:
    (tmp_path / 'a').touch()
    with pytest.raises(OSError, match='Invalid argument'):
        rename(directory, 'a', directory, 'b', RENAME_WHITEOUT)
    assert os.listdir(tmp_path) == ['a']


def test_room_is_reserved_beyond_four_gigabytes_and_errors_are_raised(tmp_path: Path) -> None:
    with (tmp_path / 'f').open('wb') as file:
        fallocate(file.fileno(), 0, 5 << 30, 4096)
        assert os.fstat(file.fileno()).st_size == (5 << 30) + 4096
    with (tmp_path / 'f').open('rb') as file, pytest.raises(OSError, match='Bad file descriptor') as raised:
        fallocate(file.fileno(), 0, 0, 4096)
    assert raised.value.errno == errno.EBADF
