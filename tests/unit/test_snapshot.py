"""Snapshots: what a staged file held at one moment, complete or not, whatever is written later."""

import errno
import os
import threading
from pathlib import Path

import pytest

from genro_storage.backends.copying import copy_source, read_exactly
from genro_storage.entry import Extent, Version
from genro_storage.errors import StorageConflictError, StorageIOError, StorageNoSpaceError
from genro_storage.runtime import WouldBlock
from genro_storage.testing import ManualClock
from genro_storage.writing import snapshot as snapshot_module
from genro_storage.writing import staged_bytes as staging_module
from genro_storage.writing.extents import Extents
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
    return tmp_path / 'staging'


@pytest.fixture
def staged(folder: Path, clock: ManualClock) -> StagedFile:
    staged = stage(folder, clock)
    staged.write(0, b'0123456789')
    return staged


@pytest.fixture
def large_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases of a few bytes are not small, so that writes leave them where they are."""
    monkeypatch.setattr(staging_module, 'SMALL_BASE_BYTES', 0)


def inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


class TestWriting:
    def test_what_is_written_later_is_not_in_it(self, staged: StagedFile, clock: ManualClock) -> None:
        staged.set_mtime(7)
        with staged.snapshot() as snapshot:
            clock.advance(1)
            staged.write(3, b'XYZ')
            staged.truncate(8)
            assert snapshot.read(0, 100) == b'0123456789'
            assert (snapshot.size_bytes, snapshot.mtime_ns, snapshot.keeps_mtime) == (10, 7, True)
            assert (snapshot.path, snapshot.expected) == ('a/f', BASE)
            assert snapshot.sequence < staged.changes
        assert content(staged) == b'012XYZ67'

    def test_appending_copies_nothing(self, staged: StagedFile) -> None:
        with staged.snapshot() as before:
            staged.write(None, b'abc')
            staged.write(20, b'far')
            staged.truncate(12)
            with staged.snapshot() as after:
                assert inode(before.fileno()) == inode(after.fileno())
                assert before.read(0, 100) == b'0123456789'
                assert before.read(8, 100) == b'89'
                assert after.read(0, 100) == b'0123456789ab'

    def test_nothing_is_copied_for_one_that_is_closed(self, staged: StagedFile) -> None:
        with staged.snapshot() as snapshot:
            before = inode(snapshot.fileno())
        staged.write(0, b'X')
        staged.truncate(2)
        with staged.snapshot() as snapshot:
            assert inode(snapshot.fileno()) == before

    def test_one_copy_serves_many_writes(self, staged: StagedFile) -> None:
        with staged.snapshot() as first:
            staged.write(0, b'A')
            with staged.snapshot() as second:
                copied = inode(second.fileno())
            staged.write(1, b'B')
            with staged.snapshot() as third:
                assert inode(first.fileno()) != copied == inode(third.fileno())

    def test_cutting_off_copies_only_what_stays(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        staged.write(0, b'x' * (4 * MIB))
        with staged.snapshot() as snapshot:
            staged.truncate(0)
            staged.write(0, b'new')
            with staged.snapshot() as later:
                assert os.fstat(later.fileno()).st_blocks * 512 < MIB
            assert snapshot.read(4 * MIB - 3, 10) == b'xxx'
        assert content(staged) == b'new'

    def test_a_full_disk_is_told_to_the_writer_and_nothing_is_lost(
        self, staged: StagedFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with staged.snapshot() as snapshot:
            monkeypatch.setattr(os, 'copy_file_range', fail)
            for change in (lambda: staged.write(0, b'X'), lambda: staged.truncate(3)):
                with pytest.raises(StorageNoSpaceError):
                    change()
            assert (staged.changes, content(staged)) == (snapshot.sequence, b'0123456789')
            assert snapshot.read(0, 100) == b'0123456789'
            assert staged.write(None, b'!') == 1
            monkeypatch.undo()
            assert staged.write(0, b'X') == 1
            assert content(staged) == b'X123456789!'

    def test_a_thread_that_serves_does_not_wait_for_a_long_copy(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock)
        staged.write(0, b'x' * (3 * MIB))
        with staged.snapshot() as snapshot, serving_thread() as call:
            if not snapshot_clones(snapshot.fileno(), folder):
                with pytest.raises(WouldBlock):
                    call(lambda: staged.write(5, b'y'))
                assert staged.changes == snapshot.sequence
            staged.write(5, b'y')
            assert staged.read(4, 3) == b'xyx'
            assert snapshot.read(4, 3) == b'xxx'

    def test_readers_never_see_a_copy_in_the_making(self, staged: StagedFile) -> None:
        stop = threading.Event()

        def read() -> int:
            count = 0
            while not stop.is_set():
                assert set(staged.read(0, 10)) in ({number} for number in range(256))
                count += 1
            return count

        staged.write(0, bytes(10))
        readers = [Thread(read) for _ in range(2)]
        for number in range(200):
            with staged.snapshot() as snapshot:
                staged.write(0, bytes([number + 1]) * 10)
                assert snapshot.read(0, 10) == bytes([number]) * 10
        stop.set()
        assert all(reader.result() for reader in readers)


def snapshot_clones(descriptor: int, folder: Path) -> bool:
    from genro_storage.writing.content import Content, _clone

    return _clone(descriptor, Content.create(folder).fileno())


@pytest.mark.usefixtures('large_bases')
class TestBase:
    def test_what_is_missing_is_read_through_the_base(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.write(4, b'XY')
        with staged.snapshot() as snapshot:
            assert list(snapshot.missing) == [Extent(0, 4), Extent(6, 4)]
            assert snapshot.unchanged == snapshot.missing
            assert snapshot.read(2, 6) == b'23XY67'
            assert base.fetched == [(2, 2), (6, 2)]
            assert snapshot.read(4, 2) == b'XY'
            assert snapshot.read(9, 100) == b'9'
            assert snapshot.read(10, 100) == b''

    def test_a_descriptor_is_of_all_its_bytes(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, BytesReader(b'0123456789'))
        staged.write(4, b'XY')
        with staged.snapshot() as snapshot:
            staged.write(None, b'later')
            assert os.pread(snapshot.fileno(), 10, 0) == b'0123XY6789'
            assert not snapshot.missing
            assert snapshot.unchanged == Extents([Extent(0, 4), Extent(6, 4)])
        assert content(staged) == b'0123XY6789later'

    def test_it_is_completed_in_steps(self, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(snapshot_module, 'STEP_BYTES', 4)
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        with staged.snapshot() as snapshot:
            snapshot.complete()
            snapshot.complete()
        assert base.fetched == [(0, 4), (4, 4), (8, 2)]

    def test_copies_of_it_end_where_it_ends(self, folder: Path, clock: ManualClock, tmp_path: Path) -> None:
        staged = stage(folder, clock, BytesReader(b'0123456789'))
        staged.write(0, b'X')
        with staged.snapshot() as snapshot:
            staged.write(None, b'later')
            target = os.open(tmp_path / 'target', os.O_RDWR | os.O_CREAT, 0o600)
            try:
                copy_source(snapshot, target)
            finally:
                os.close(target)
            assert (tmp_path / 'target').read_bytes() == b'X123456789'
            assert read_exactly(snapshot, 8, 2) == b'89'

    def test_several_threads_may_read_and_complete_it(self, folder: Path, clock: ManualClock) -> None:
        data = bytes(range(256)) * 64
        staged = stage(folder, clock, BytesReader(data))
        for offset in range(0, len(data), 512):
            staged.write(offset, b'XYZ')
        with staged.snapshot() as snapshot:
            expected = content(staged)

            def read(start: int) -> bool:
                if start == 2:
                    snapshot.fileno()
                return all(
                    snapshot.read(offset, 100) == expected[offset : offset + 100]
                    for offset in range(start, len(data), 97)
                )

            threads = [Thread(lambda start=start: read(start)) for start in range(4)]
            assert all(thread.result() for thread in threads)

    def test_a_base_that_has_gone_is_a_conflict(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.write(4, b'XY')
        with staged.snapshot() as snapshot:
            base.gone = True
            for use in (snapshot.complete, snapshot.fileno, lambda: snapshot.read(0, 10)):
                with pytest.raises(StorageConflictError):
                    use()
            assert snapshot.read(4, 2) == b'XY'

    def test_a_base_that_ends_early_is_a_conflict(self, folder: Path, clock: ManualClock) -> None:
        staged = stage(folder, clock, BytesReader(b'01234', size_bytes=10))
        staged.touch()
        with staged.snapshot() as snapshot:
            with pytest.raises(StorageConflictError, match=r"'a/f' ends at 5, not 10"):
                snapshot.complete()
            with pytest.raises(StorageConflictError, match='ends at 5, not 8'):
                snapshot.read(0, 8)
            assert snapshot.read(1, 3) == b'123'

    def test_the_base_stays_open_as_long_as_anybody_holds_it(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        snapshot = staged.snapshot()
        staged.close()
        assert snapshot.read(0, 2) == b'01'
        assert base.closed == 0
        snapshot.close()
        snapshot.close()
        assert base.closed == 1

    def test_one_that_is_closed_while_it_is_completed_writes_nothing_more(
        self, folder: Path, clock: ManualClock
    ) -> None:
        reached, go_on = threading.Event(), threading.Event()

        class Stalling(BytesReader):
            def read(self, offset: int, size_bytes: int) -> memoryview:
                reached.set()
                assert go_on.wait(10)
                return super().read(offset, size_bytes)

        staged = stage(folder, clock, Stalling(b'0123456789'))
        snapshot = staged.snapshot()
        completing = Thread(snapshot.complete)
        assert reached.wait(10)
        snapshot.close()
        staged.write(0, b'ABCDEFGHIJ')
        go_on.set()
        with pytest.raises(StorageIOError, match='closed'):
            completing.result()
        assert content(staged) == b'ABCDEFGHIJ'

    def test_a_closed_one_is_of_no_use(self, staged: StagedFile, tmp_path: Path) -> None:
        snapshot = staged.snapshot()
        snapshot.close()
        uses = (snapshot.fileno, snapshot.fsync, lambda: snapshot.read(0, 1), lambda: snapshot.link(tmp_path / 'x'))
        for use in uses:
            with pytest.raises(StorageIOError, match='closed'):
                use()


@pytest.mark.usefixtures('large_bases')
class TestCommitted:
    def test_the_file_is_clean_and_all_of_it_unchanged(self, staged: StagedFile) -> None:
        with staged.snapshot() as snapshot:
            staged.committed(snapshot, NEXT, unused_base)
        assert (staged.dirty, staged.expected) == (False, NEXT)
        with staged.snapshot() as snapshot:
            assert list(snapshot.unchanged) == [Extent(0, 10)]
            assert not snapshot.missing

    def test_what_was_written_since_is_neither(self, staged: StagedFile) -> None:
        with staged.snapshot() as snapshot:
            staged.write(2, b'XY')
            staged.write(None, b'more')
            staged.truncate(9)
            staged.write(12, b'!')
            staged.committed(snapshot, NEXT, unused_base)
        assert staged.dirty
        with staged.snapshot() as snapshot:
            assert list(snapshot.unchanged) == [Extent(0, 2), Extent(4, 5)]
            assert snapshot.expected == NEXT

    def test_what_is_missing_is_read_from_the_new_version(self, folder: Path, clock: ManualClock) -> None:
        old, new = BytesReader(b'0123456789'), BytesReader(b'0X23456789')
        staged = stage(folder, clock, old)
        staged.write(1, b'X')
        with staged.snapshot() as snapshot:
            staged.committed(snapshot, NEXT, lambda: new)
        old.gone = True
        assert old.closed == 1
        assert content(staged) == b'0X23456789'
        assert new.fetched == [(0, 1), (2, 8)]
        staged.close()
        assert new.closed == 1

    def test_what_was_fetched_for_it_is_not_fetched_again(self, folder: Path, clock: ManualClock) -> None:
        base = BytesReader(b'0123456789')
        staged = stage(folder, clock, base)
        staged.touch()
        with staged.snapshot() as snapshot:
            snapshot.complete()
            staged.committed(snapshot, NEXT, unused_base)
        assert base.closed == 1
        assert content(staged) == b'0123456789'
        assert base.fetched_bytes == 10

    def test_later_snapshots_are_based_on_it_too(self, folder: Path, clock: ManualClock) -> None:
        old, new = BytesReader(b'0123456789'), BytesReader(b'0X23456789')
        staged = stage(folder, clock, old)
        staged.write(1, b'X')
        with staged.snapshot() as first:
            staged.write(3, b'Y')
            with staged.snapshot() as second:
                staged.committed(first, NEXT, lambda: new)
                old.gone = True
                assert second.expected == NEXT
                assert second.read(0, 10) == b'0X2Y456789'
                assert not second.unchanged.covers(Extent(3, 1))
                assert (old.closed, new.closed) == (0, 0)  # the first may still be read
            staged.close()
        assert (old.closed, new.closed) == (1, 1)

    def test_a_later_snapshot_keeps_its_base_though_the_file_needs_none(self, folder: Path, clock: ManualClock) -> None:
        new = BytesReader(b'01')
        staged = stage(folder, clock, BytesReader(b'01'))
        with staged.snapshot() as first:
            staged.touch()
            with staged.snapshot() as second:
                staged.write(0, b'XY')
                staged.committed(first, NEXT, lambda: new)
                assert second.read(0, 2) == b'01'
                assert new.closed == 0
            assert new.closed == 1

    def test_a_base_that_cannot_be_opened_undoes_nothing(self, folder: Path, clock: ManualClock) -> None:
        def fail() -> BytesReader:
            raise StorageIOError('no descriptors left')

        staged = stage(folder, clock, BytesReader(b'0123456789'))
        staged.write(1, b'X')
        with staged.snapshot() as snapshot, pytest.raises(StorageIOError):
            staged.committed(snapshot, NEXT, fail)
        assert (staged.dirty, staged.expected) == (False, NEXT)

    def test_one_that_was_stored_elsewhere_leaves_the_file_based_on_what_it_was(
        self, folder: Path, clock: ManualClock
    ) -> None:
        staged = stage(folder, clock, BytesReader(b'0123456789'))
        staged.write(1, b'X')
        with staged.snapshot() as snapshot:
            staged.committed(snapshot, None, None)
        assert (staged.dirty, staged.expected) == (False, BASE)
        with staged.snapshot() as snapshot:
            assert list(snapshot.unchanged) == [Extent(0, 1), Extent(2, 8)]

    def test_after_its_end_nothing_counts_as_unchanged(self, staged: StagedFile) -> None:
        """Nobody noted what was written since."""
        snapshot = staged.snapshot()
        snapshot.close()
        staged.write(0, b'X')
        staged.committed(snapshot, NEXT, unused_base)
        with staged.snapshot() as later:
            assert not later.unchanged

    def test_scattered_writes_are_noted_in_a_bounded_way(
        self, staged: StagedFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(snapshot_module, 'EXTENTS_MAX', 2)
        with staged.snapshot() as snapshot:
            for offset in (2, 4, 6):
                staged.write(offset, b'X')
            staged.committed(snapshot, NEXT, unused_base)
        with staged.snapshot() as snapshot:
            assert list(snapshot.unchanged) == [Extent(0, 2), Extent(7, 3)]


class TestLink:
    def test_its_bytes_get_a_name_of_their_own(self, staged: StagedFile, tmp_path: Path) -> None:
        with staged.snapshot() as snapshot:
            snapshot.link(tmp_path / 'data')
            snapshot.fsync()
            staged.write(0, b'later')
            staged.write(None, b'!')
        assert (tmp_path / 'data').read_bytes()[:10] == b'0123456789'
        assert content(staged) == b'later56789!'


def unused_base() -> BytesReader:
    raise AssertionError('nothing is missing, so no base is needed')
