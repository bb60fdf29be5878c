"""Staged files: the bytes, what of their base is here, and what they become after a crash."""

import errno
import os
import threading
from pathlib import Path

import pytest

from genro_storage.entry import Extent, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StorageNoSpaceError,
    StorageUnavailableError,
)
from genro_storage.runtime import WouldBlock
from genro_storage.testing import ManualClock
from genro_storage.writing import staged_bytes as staging_module
from genro_storage.writing.staging import StagedFile
from tests.unit.staged import BASE, BytesReader, content, stage
from tests.unit.volumes import Thread, serving_thread

MIB = 1 << 20
NEXT = Version('2', strong=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'cache' / 'staging'


@pytest.fixture
def large_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases of a few bytes are not small, so that writes leave them where they are."""
    monkeypatch.setattr(staging_module, 'SMALL_BASE_BYTES', 0)


def missing(staged: StagedFile) -> list[tuple[int, int]]:
    with staged.snapshot() as snapshot:
        return [(extent.offset, extent.size_bytes) for extent in snapshot.missing]


def unchanged(staged: StagedFile) -> list[tuple[int, int]]:
    with staged.snapshot() as snapshot:
        return [(extent.offset, extent.size_bytes) for extent in snapshot.unchanged]


@pytest.mark.usefixtures('large_bases')
class TestBase:
    def test_is_read_through_and_not_kept(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base, 7)
        assert (staged.size_bytes, staged.mtime_ns, staged.dirty) == (10, 7, False)
        assert base.fetched == []
        assert content(staged) == b'0123456789'
        assert content(staged) == b'0123456789'
        assert base.fetched == [(0, 10), (0, 10)]
        assert not staged.dirty
        staged.close()
        assert base.closed == 1

    def test_is_not_fetched_by_writes(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        assert staged.write(3, b'XY') == 2
        staged.write(None, b'!')
        assert base.fetched == []
        assert missing(staged) == unchanged(staged) == [(0, 3), (5, 5)]
        assert content(staged) == b'012XY56789!'
        assert base.fetched == [(0, 3), (5, 5)]

    def test_is_let_go_of_when_nothing_of_it_is_left(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.write(0, b'abcdef')
        assert base.closed == 0
        staged.write(4, b'ghijkl')
        assert (base.closed, base.fetched) == (1, [])
        assert content(staged) == b'abcdghijkl'
        staged.close()
        assert base.closed == 1

    def test_is_not_fetched_at_all_when_it_is_truncated(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.truncate(0)
        staged.write(0, b'new')
        assert (base.fetched, base.closed) == ([], 1)
        assert content(staged) == b'new'

    def test_what_was_cut_off_and_lengthened_again_is_zeros(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.truncate(4)
        staged.truncate(6)
        assert missing(staged) == [(0, 4)]
        assert content(staged) == b'0123\0\0'
        staged.write(8, b'x')
        assert content(staged) == b'0123\0\0\0\0x'
        assert base.fetched_bytes == 8

    def test_a_read_fetches_only_what_it_wants(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.write(4, b'XY')
        assert staged.read(3, 4) == b'3XY6'
        assert staged.read(4, 2) == b'XY'
        assert staged.read(8, 100) == b'89'
        assert staged.read(10, 100) == staged.read(100, 1) == b''
        assert base.fetched == [(3, 1), (6, 1), (8, 2)]

    def test_that_is_shorter_than_it_was_said_is_a_conflict(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, BytesReader(b'01234', size_bytes=10))
        with pytest.raises(StorageConflictError, match=r"'a/f' ends at 5, not 10"):
            staged.read(0, 10)
        assert staged.read(0, 5) == b'01234'

    def test_that_has_gone_is_a_conflict_only_where_it_is_needed(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        base.gone = True
        staged.write(4, b'XY')
        assert staged.read(4, 2) == b'XY'
        with pytest.raises(StorageConflictError) as caught:
            staged.read(0, 10)
        assert caught.value.errno == errno.ESTALE

    def test_that_would_block_is_read_by_a_worker(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789', slow=True)
        staged = stage(folder, clock, base)
        with serving_thread() as call:
            assert call(lambda: staged.write(0, b'XY')) == 2
            assert call(lambda: staged.read(0, 2)) == b'XY'
            with pytest.raises(WouldBlock):
                call(lambda: staged.read(0, 3))
        assert content(staged) == b'XY23456789'

    def test_reading_it_holds_nobody_up(self, folder: Path, clock: ManualClock) -> None:
        reached, go_on = threading.Event(), threading.Event()

        class Stalling(BytesReader):
            def read(self, offset: int, size_bytes: int) -> memoryview:
                reached.set()
                assert go_on.wait(10)
                return super().read(offset, size_bytes)

        base = Stalling(b'0123456789')
        staged = stage(folder, clock, base)
        staged.write(0, b'ab')
        reading = Thread(lambda: staged.read(0, 10))
        assert reached.wait(10)
        assert Thread(lambda: staged.write(0, b'XYZ')).result() == 3
        staged.close()
        assert base.closed == 0
        go_on.set()
        assert reading.result() == b'ab23456789'  # as it was when the read began
        assert base.closed == 1

    def test_has_another_version_or_name_with_the_same_content(self, folder: Path, clock: ManualClock) -> None:
        old, new = BytesReader(b'0123456789'), BytesReader(b'0123456789')
        staged = stage(folder, clock, old)
        staged.write(0, b'X')
        with staged.snapshot() as snapshot:
            staged.rebase(NEXT, new)
            old.gone = True
            assert (staged.expected, snapshot.expected) == (NEXT, NEXT)
            assert content(staged) == snapshot.read(0, 10) == b'X123456789'
        assert old.closed == 1
        staged.close()
        assert new.closed == 1

    def test_of_another_length_is_somebody_elses(self, folder: Path, clock: ManualClock) -> None:
        other = BytesReader(b'other')
        staged = stage(folder, clock, BytesReader(b'0123456789'))
        staged.rebase(NEXT, other)
        assert (staged.expected, other.closed) == (BASE, 1)
        assert content(staged) == b'0123456789'

    def test_that_is_not_needed_any_more_is_closed_at_once(self, folder: Path, clock: ManualClock) -> None:
        other = BytesReader(b'0123456789')
        staged = stage(folder, clock)
        staged.rebase(NEXT, other)
        assert (staged.expected, other.closed) == (NEXT, 1)

    def test_in_many_pieces_is_fetched_beside_further_writes(
        self, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(staging_module, 'EXTENTS_MAX', 3)
        data = bytes(range(100))
        base = BytesReader(data)
        staged = stage(folder, clock, base)
        for offset in (10, 20, 30, 40, 52, 95):
            staged.write(offset, b'X')
        assert len(missing(staged)) == 3
        # Always the shorter side of what would be split; never what lies elsewhere.
        assert base.fetched == [(21, 9), (31, 9), (41, 11), (96, 4)]
        expected = bytearray(data)
        for offset in (10, 20, 30, 40, 52, 95):
            expected[offset] = ord('X')
        assert content(staged) == expected

    def test_what_is_unchanged_is_known_in_a_bounded_way(
        self, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(staging_module, 'EXTENTS_MAX', 2)
        staged = stage(folder, clock)
        staged.write(0, bytes(100))
        with staged.snapshot() as snapshot:
            staged.committed(snapshot, NEXT, lambda: BytesReader(b''))
        for offset in (1, 3, 30, 32):
            staged.write(offset, b'X')
        assert unchanged(staged) == [(33, 67)]

    def test_what_was_just_written_is_not_unchanged_at_the_bound(
        self, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(staging_module, 'EXTENTS_MAX', 3)
        staged = stage(folder, clock, BytesReader(bytes(20)))
        for offset in (1, 3, 5, 7, 9, 11):
            staged.write(offset, b'X')
        assert unchanged(staged) == missing(staged) == [(0, 1), (2, 1), (12, 8)]


class TestSmallBase:
    def test_is_fetched_by_the_first_write_so_that_it_can_be_kept(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.write(3, b'XY')
        assert (base.fetched, base.closed) == ([(0, 3), (5, 5)], 1)
        assert missing(staged) == []
        assert unchanged(staged) == [(0, 3), (5, 5)]
        assert content(staged) == b'012XY56789'

    def test_is_not_fetched_where_all_of_it_is_written(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.write(0, b'abcdefghijkl')
        assert (base.fetched, base.closed) == ([], 1)

    def test_is_fetched_only_as_far_as_it_stays(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.truncate(4)
        assert base.fetched == [(0, 4)]
        staged.truncate(6)
        assert content(staged) == b'0123\0\0'

    def test_is_not_fetched_by_a_touch_or_a_time(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.touch()
        staged.set_mtime(3)
        assert base.fetched == []

    def test_that_would_block_is_fetched_by_a_worker(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, BytesReader(b'0123456789', slow=True))
        with serving_thread() as call:
            for change in (lambda: staged.write(0, b'X'), lambda: staged.truncate(5)):
                with pytest.raises(WouldBlock):
                    call(change)
        assert not staged.dirty
        assert staged.write(0, b'X') == 1
        assert content(staged) == b'X123456789'

    def test_that_has_gone_refuses_the_write(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        base.gone = True
        with pytest.raises(StorageConflictError):
            staged.write(0, b'X')
        assert not staged.dirty

    def test_ends_at_a_mebibyte(self, folder: Path, clock: ManualClock) -> None:
        small, large = BytesReader(bytes(MIB)), BytesReader(bytes(MIB + 1))
        stage(folder, clock, small).write(0, b'X')
        stage(folder, clock, large).write(0, b'X')
        assert (small.fetched_bytes, large.fetched_bytes) == (MIB - 1, 0)


class TestWriting:
    def test_appending_ends_at_the_end_whoever_writes(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        threads = [Thread(lambda: [staged.write(None, b'12345') for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.result()
        assert content(staged) == b'12345' * 400
        assert staged.size_bytes == 2000

    def test_holes_read_as_zeros(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        staged.write(5, b'x')
        assert content(staged) == b'\0\0\0\0\0x'
        staged.truncate(8)
        assert content(staged) == b'\0\0\0\0\0x\0\0'
        assert staged.read(100, 5) == b''

    def test_each_change_has_its_time_and_number(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, BytesReader(b'0'), 7)
        changes = (lambda: staged.write(0, b'x'), lambda: staged.truncate(3), staged.touch)
        for number, change in enumerate(changes, start=1):
            clock.advance(1)
            change()
            assert staged.dirty
            assert (staged.mtime_ns, staged.changes) == (clock.time_ns(), number)

    def test_to_write_nothing_changes_nothing(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        assert staged.write(100, b'') == 0
        assert (staged.dirty, staged.size_bytes) == (False, 0)

    def test_a_time_that_was_set_stays_until_the_next_write(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        staged.set_mtime(5)
        assert (staged.mtime_ns, staged.keeps_mtime) == (5, True)
        staged.write(0, b'x')
        assert (staged.mtime_ns, staged.keeps_mtime) == (clock.time_ns(), False)

    def test_reading_does_not_wait_for_whoever_holds_the_lock(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        staged.write(0, b'data')
        with staged.lock:
            assert Thread(lambda: content(staged)).result() == b'data'

    def test_whoever_watches_is_told_of_each_change_after_it(self, folder: Path, clock: ManualClock) -> None:
        told: list[tuple[object, ...]] = []

        class Watch:
            def wrote(self, start: int, end: int) -> None:
                told.append(('wrote', start, end, staged.size_bytes))

            def cut(self, size_bytes: int) -> None:
                told.append(('cut', size_bytes, staged.size_bytes))

        staged = stage(folder, clock)
        staged.watch = Watch()
        staged.write(0, b'abc')
        staged.write(None, b'd')
        staged.truncate(2)
        staged.touch()
        assert told == [('wrote', 0, 3, 3), ('wrote', 3, 4, 4), ('cut', 2, 2)]

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
        for call in ('pwrite', 'pread', 'ftruncate'):
            monkeypatch.setattr(os, call, fail)
        for use in (lambda: staged.write(0, b'x'), lambda: staged.read(0, 1), lambda: staged.truncate(3)):
            with pytest.raises(kind, match=str(folder)):
                use()
        assert (staged.dirty, staged.size_bytes) == (False, 0)

    def test_a_length_that_cannot_be_keeps_its_errno(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, BytesReader(b'0123456789'))
        with pytest.raises(StorageIOError) as caught:
            staged.truncate(-1)
        assert caught.value.errno == errno.EINVAL
        assert (staged.size_bytes, staged.dirty) == (10, False)

    def test_a_file_that_is_closed_says_so(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.close()
        staged.close()
        assert base.closed == 1
        for use in (lambda: staged.read(0, 1), lambda: staged.write(0, b'x'), lambda: staged.truncate(0)):
            with pytest.raises(StorageIOError, match='closed'):
                use()
        assert list(folder.iterdir()) == []


class TestRecovered:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        """What a journal keeps: only what was written of a file, and bytes that came behind its end later."""
        path = tmp_path / 'data'
        path.write_bytes(bytes(4) + b'XY' + bytes(4) + b'behind the end')
        return path

    def recover(self, folder: Path, clock: ManualClock, data: Path, base: BytesReader | None) -> StagedFile:
        return StagedFile.recovered(
            'a/f',
            folder,
            clock,
            os.open(data, os.O_RDONLY),
            size_bytes=10,
            mtime_ns=7,
            keeps_mtime=True,
            expected=BASE,
            missing=[Extent(0, 4), Extent(6, 4)],
            base=base,
        )

    def test_it_is_as_it_was_and_waits_to_be_committed(self, folder: Path, clock: ManualClock, data: Path) -> None:
        base = BytesReader(b'0123456789')
        staged = self.recover(folder, clock, data, base)
        assert (staged.size_bytes, staged.mtime_ns, staged.keeps_mtime) == (10, 7, True)
        assert (staged.dirty, staged.expected) == (True, BASE)
        assert missing(staged) == unchanged(staged) == [(0, 4), (6, 4)]
        assert content(staged) == b'0123XY6789'
        staged.close()
        assert base.closed == 1

    @pytest.mark.parametrize('small', [True, False])
    def test_what_was_acknowledged_is_never_written(
        self, folder: Path, clock: ManualClock, data: Path, monkeypatch: pytest.MonkeyPatch, small: bool
    ) -> None:
        monkeypatch.setattr(staging_module, 'SMALL_BASE_BYTES', MIB if small else 0)
        before = data.read_bytes()
        staged = self.recover(folder, clock, data, BytesReader(b'0123456789'))
        staged.truncate(12)
        staged.write(0, b'ab')
        staged.write(None, b'!')
        assert content(staged) == b'ab23XY6789\0\0!'
        assert data.read_bytes() == before

    def test_its_snapshot_completes_a_copy(self, folder: Path, clock: ManualClock, data: Path) -> None:
        before = data.read_bytes()
        staged = self.recover(folder, clock, data, BytesReader(b'0123456789'))
        with staged.snapshot() as snapshot:
            assert os.pread(snapshot.fileno(), 100, 0) == b'0123XY6789'
            staged.committed(snapshot, NEXT, lambda: BytesReader(b'0123XY6789'))
        assert not staged.dirty
        assert content(staged) == b'0123XY6789'
        assert data.read_bytes() == before

    def test_without_a_base_only_what_was_written_can_be_read(
        self, folder: Path, clock: ManualClock, data: Path
    ) -> None:
        staged = self.recover(folder, clock, data, None)
        assert staged.read(4, 2) == b'XY'
        staged.write(0, b'abcd')
        assert staged.read(0, 6) == b'abcdXY'
        with staged.snapshot() as snapshot:
            for use in (snapshot.complete, lambda: snapshot.read(0, 10), lambda: staged.read(0, 10)):
                with pytest.raises(StorageConflictError, match="'a/f'"):
                    use()

    def test_a_base_that_cannot_be_reached_can_be_tried_again(
        self, folder: Path, clock: ManualClock, data: Path
    ) -> None:
        class Unreachable(BytesReader):
            down = True

            def read(self, offset: int, size_bytes: int) -> memoryview:
                if self.down:
                    raise StorageUnavailableError('nobody answers')
                return super().read(offset, size_bytes)

        base = Unreachable(b'0123456789')
        staged = self.recover(folder, clock, data, base)
        with pytest.raises(StorageUnavailableError):
            content(staged)
        base.down = False
        assert content(staged) == b'0123XY6789'
