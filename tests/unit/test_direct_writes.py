"""Writes past the page cache, and what happens where they cannot be."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.cache import direct
from genro_storage.cache.direct import LEAST_BYTES, write_direct
from tests.machine import lacks

PAGE = 4096
CONTENT = os.urandom(2 * LEAST_BYTES + PAGE)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / 'file', os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def direct_file(file: int) -> int:
    try:
        os.close(os.open(f'/proc/self/fd/{file}', os.O_WRONLY | os.O_DIRECT))
    except OSError:
        lacks('a temporary folder on a file system with O_DIRECT (set TMPDIR)')
    return file


def is_in_page_cache(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(PAGE)], offset, os.RWF_NOWAIT) == PAGE
    except BlockingIOError:
        return False


def test_long_runs_are_written_and_leave_no_pages(direct_file: int) -> None:
    offset = 3 * PAGE
    assert write_direct(direct_file, memoryview(CONTENT), offset) == len(CONTENT)
    assert not is_in_page_cache(direct_file, offset)  # only once: the kernel begins to read where it was asked
    assert os.pread(direct_file, len(CONTENT), offset) == CONTENT
    assert is_in_page_cache(direct_file, offset)


def test_the_end_that_is_no_whole_page_is_left_to_the_caller(direct_file: int) -> None:
    assert write_direct(direct_file, memoryview(CONTENT)[:-1], 0) == len(CONTENT) - PAGE
    assert os.fstat(direct_file).st_size == len(CONTENT) - PAGE


@pytest.mark.parametrize(('size_bytes', 'offset'), [(LEAST_BYTES - PAGE, 0), (len(CONTENT), 512), (0, 0)])
def test_what_is_short_or_begins_within_a_page_is_left_to_the_caller(file: int, size_bytes: int, offset: int) -> None:
    assert write_direct(file, memoryview(CONTENT)[:size_bytes], offset) == 0
    assert os.fstat(file).st_size == 0


def test_a_file_system_that_cannot_is_left_alone(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, '_FLAGS', os.O_WRONLY | os.O_DIRECTORY)  # refused at opening, as O_DIRECT would be
    assert write_direct(file, memoryview(CONTENT), 0) == 0
    assert os.fstat(file).st_size == 0


@pytest.mark.parametrize('pieces', [0, 1])
def test_a_device_that_wants_it_otherwise_gets_the_rest_as_usual(
    direct_file: int, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    written = _failing_after(pieces, errno.EINVAL, monkeypatch)
    assert write_direct(direct_file, memoryview(CONTENT), 0) == pieces * LEAST_BYTES == sum(written)


def test_a_full_disk_is_an_error(direct_file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing_after(1, errno.ENOSPC, monkeypatch)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_direct(direct_file, memoryview(CONTENT), 0)


def test_after_a_short_write_the_rest_is_left_to_the_caller(direct_file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, 'pwrite', lambda descriptor, data, offset: pwrite(descriptor, data[:PAGE], offset))
    assert write_direct(direct_file, memoryview(CONTENT), 0) == PAGE


def test_nothing_stays_open(direct_file: int) -> None:
    before = os.listdir('/proc/self/fd')
    write_direct(direct_file, memoryview(CONTENT), 0)
    assert os.listdir('/proc/self/fd') == before


def _failing_after(pieces: int, number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was written, before writing fails with an errno."""
    pwrite, written = os.pwrite, list[int]()

    def write(descriptor: int, data: memoryview, offset: int) -> int:
        if len(written) == pieces:
            raise OSError(number, os.strerror(number))
        written.append(pwrite(descriptor, data, offset))
        return written[-1]

    monkeypatch.setattr(os, 'pwrite', write)
    return written
