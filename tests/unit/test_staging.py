"""Staged files: the bytes, what they are based on, and where they are kept."""

import errno
import os
import stat
from pathlib import Path

import pytest

from genro_storage.entry import Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StorageNoSpaceError,
    StoragePermissionError,
)
from genro_storage.runtime import WouldBlock
from genro_storage.testing import ManualClock
from genro_storage.writing.staging import StagedFile, private_directory
from tests.unit.volumes import Thread, serving_thread

BASE = Version('1', strong=True)


class Base:
    """A Reader over bytes that counts."""

    def __init__(self, data: bytes, *, size_bytes: int | None = None) -> None:
        self.data = data
        self.size_bytes = len(data) if size_bytes is None else size_bytes
        self.fetched = 0
        self.closed = 0

    def read(self, offset: int, size_bytes: int) -> bytes:
        data = self.data[offset : offset + size_bytes]
        self.fetched += len(data)
        return data

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'cache' / 'staging'


def stage(folder: Path, clock: ManualClock, base: Base | None = None, mtime_ns: int | None = None) -> StagedFile:
    return StagedFile('a/f', folder, clock, BASE, base, mtime_ns)


def content(staged: StagedFile) -> bytes:
    return staged.read(0, 1 << 30)


class TestBase:
    def test_is_not_fetched_before_it_is_needed(self, folder: Path, clock: ManualClock) -> None:
        base = Base(b'0123456789')
        staged = stage(folder, clock, base, 7)
        assert (staged.size_bytes, staged.mtime_ns, staged.dirty) == (10, 7, False)
        assert base.fetched == 0
        assert content(staged) == b'0123456789'
        assert (base.fetched, base.closed) == (10, 1)
        content(staged)
        assert base.fetched == 10
        assert not staged.dirty
        staged.close()

    def test_is_not_fetched_at_all_when_it_is_truncated(self, folder: Path, clock: ManualClock) -> None:
        base = Base(b'0123456789')
        staged = stage(folder, clock, base)
        staged.truncate(0)
        staged.write(0, b'new')
        assert (base.fetched, base.closed) == (0, 1)
        assert content(staged) == b'new'
        staged.close()

    def test_is_fetched_only_as_far_as_it_stays(self, folder: Path, clock: ManualClock) -> None:
        base = Base(b'0123456789')
        staged = stage(folder, clock, base)
        staged.truncate(4)
        assert base.fetched == 4
        assert content(staged) == b'0123'
        staged.truncate(6)
        assert content(staged) == b'0123\0\0'
        staged.close()

    def test_is_completed_by_a_commit(self, folder: Path, clock: ManualClock) -> None:
        base = Base(b'0123456789')
        staged = stage(folder, clock, base)
        with staged.lock:
            staged.prepare()
        assert os.pread(staged.fileno(), 100, 0) == b'0123456789'
        staged.close()

    def test_stays_under_what_is_written(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, Base(b'0123456789'))
        assert staged.write(3, b'XY') == 2
        assert content(staged) == b'012XY56789'
        staged.close()

    def test_that_is_shorter_than_it_was_said_is_a_conflict(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, Base(b'01234', size_bytes=10))
        with pytest.raises(StorageConflictError, match=r"'a/f' ends at 5, not 10"):
            staged.write(0, b'x')
        assert not staged.dirty
        staged.close()

    def test_that_would_block_is_fetched_anew_by_a_worker(self, folder: Path, clock: ManualClock) -> None:
        class Slow(Base):
            def read(self, offset: int, size_bytes: int) -> bytes:
                from genro_storage.runtime import about_to_block

                about_to_block()
                return super().read(offset, size_bytes)

        staged = stage(folder, clock, Slow(b'0123456789'))
        with serving_thread() as call, pytest.raises(WouldBlock):
            call(lambda: staged.write(0, b'X'))
        assert not staged.dirty
        assert staged.write(0, b'X') == 1
        assert content(staged) == b'X123456789'
        staged.close()


class TestWriting:
    def test_appending_ends_at_the_end_whoever_writes(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        threads = [Thread(lambda: [staged.write(None, b'12345') for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.result()
        assert content(staged) == b'12345' * 400
        assert staged.size_bytes == 2000
        staged.close()

    def test_holes_read_as_zeros(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        staged.write(5, b'x')
        assert content(staged) == b'\0\0\0\0\0x'
        staged.truncate(8)
        assert content(staged) == b'\0\0\0\0\0x\0\0'
        assert staged.read(100, 5) == b''
        staged.close()

    def test_each_change_has_its_time(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, Base(b'0'), 7)
        changes = (lambda: staged.write(0, b'x'), lambda: staged.truncate(3), staged.touch)
        for change in changes:
            clock.advance(1)
            change()
            assert staged.dirty
            assert staged.mtime_ns == clock.time_ns()
        staged.close()

    def test_a_time_that_was_set_stays_until_the_next_write(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        staged.set_mtime(5)
        assert (staged.mtime_ns, staged.keeps_mtime) == (5, True)
        staged.write(0, b'x')
        assert (staged.mtime_ns, staged.keeps_mtime) == (clock.time_ns(), False)
        staged.close()

    def test_reading_does_not_wait_for_a_commit(self, folder: Path, clock: ManualClock) -> None:
        """A Source is read by the threads of a backend while the lock is held for them."""
        staged = stage(folder, clock, Base(b'base'))
        with staged.lock:
            staged.prepare()
            assert Thread(lambda: content(staged)).result() == b'base'
        staged.close()

    @pytest.mark.parametrize(
        ('number', 'kind'),
        [(errno.ENOSPC, StorageNoSpaceError), (errno.EDQUOT, StorageNoSpaceError), (errno.EIO, StorageIOError)],
    )
    def test_a_full_disk_is_told_apart_from_a_broken_one(
        self, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[OSError]
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        staged = stage(folder, clock)
        monkeypatch.setattr(os, 'pwrite', fail)
        with pytest.raises(kind, match=str(folder)):
            staged.write(0, b'x')
        assert not staged.dirty
        staged.close()

    def test_a_file_that_is_too_large_keeps_its_errno(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        with pytest.raises(StorageIOError) as caught:
            staged.truncate(-1)
        assert caught.value.errno == errno.EINVAL
        staged.close()


class TestFolder:
    def test_staged_bytes_have_no_name(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        staged.write(0, b'secret')
        assert list(folder.iterdir()) == []
        staged.close()
        staged.close()

    def test_where_there_are_only_names_they_go_with_the_file(
        self, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, 'O_TMPFILE')
        staged = stage(folder, clock)
        staged.write(0, b'secret')
        (named,) = folder.iterdir()
        assert stat.S_IMODE(named.stat().st_mode) == 0o600
        staged.close()
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize('unnamed', [True, False])
    def test_kept_bytes_outlive_the_file(
        self, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, unnamed: bool
    ) -> None:
        if not unnamed:
            monkeypatch.delattr(os, 'O_TMPFILE')
        kept = []
        for number in range(3):  # at one time, by this clock
            staged = stage(folder, clock)
            staged.write(0, b'%d' % number)
            kept.append(staged.keep())
            staged.close()
        assert [path.read_bytes() for path in kept] == [b'0', b'1', b'2']
        assert all(path.parent == folder and stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)
        assert len(list(folder.iterdir())) == 3

    def test_the_folder_is_private(self, tmp_path: Path) -> None:
        folder = tmp_path / 'open'
        folder.mkdir(mode=0o755)
        private_directory(folder)
        private_directory(tmp_path / 'new' / 'deep')
        for path in (folder, tmp_path / 'new' / 'deep'):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700

    def test_a_folder_of_somebody_else_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, 'geteuid', lambda: 12345)
        with pytest.raises(StoragePermissionError, match='cache: path:'):
            private_directory(tmp_path)

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path, clock: ManualClock) -> None:
        (tmp_path / 'file').write_bytes(b'')
        with pytest.raises(StorageIOError, match='file/staging'):
            stage(tmp_path / 'file' / 'staging', clock)
