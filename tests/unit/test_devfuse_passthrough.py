"""Backing files where the kernel takes none; that it takes them is shown by tests/mount/test_passthrough.py."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.transports.devfuse.passthrough import BackingFiles
from fusefs.transports.devfuse.readahead import raise_readahead


@pytest.fixture
def null() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def test_a_kernel_that_has_not_agreed_is_not_asked() -> None:
    assert BackingFiles(-1).open(0) is None


def test_what_concerns_one_file_is_logged_once_and_tried_again_with_the_next(
    null: int, caplog: pytest.LogCaptureFixture
) -> None:
    files = BackingFiles(null)
    files.offered = True
    with caplog.at_level(logging.DEBUG):
        assert [files.open(null) for _ in range(3)] == [None] * 3
    assert files.offered
    (record,) = caplog.records
    assert os.strerror(errno.ENOTTY) in record.getMessage()


def test_giving_back_to_a_connection_that_has_ended_is_no_error(null: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        BackingFiles(null).close(1)
    assert caplog.records == []


def test_the_thread_is_itself_again_afterwards(null: int) -> None:
    files = BackingFiles(null)
    files.offered = True
    before = credentials()
    files.open(null)
    assert credentials() == before


def credentials() -> list[str]:
    lines = Path('/proc/thread-self/status').read_text().splitlines()
    return [line for line in lines if line.startswith(('Uid:', 'CapEff:'))]


def test_the_readahead_of_what_is_no_mount_of_fuse_stays(tmp_path: Path) -> None:
    assert not raise_readahead(tmp_path)
    assert not raise_readahead('/')
    assert not raise_readahead(tmp_path / 'missing')
