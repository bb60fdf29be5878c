"""Copies of open files that a bucket makes by itself: what is taken for one, and that nothing else is ever stored."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.backend_volume import BackendVolume
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.config import MemoryDefinition
from genro_storage.config.definitions import Durability
from genro_storage.copying import Place, copy
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StoragePermissionError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.reading.reader import Reader
from genro_storage.testing import FaultyBackend
from genro_storage.volume import Volume
from genro_storage.writing.writer import Writer
from tests.unit.test_volume_bucket import Bucket, write
from tests.unit.volumes import WAIT_S

MIB = 1 << 20
DATA = os.urandom(2 * MIB + 5)
LARGE = os.urandom(20 * MIB + 5)
ALL = 1 << 40


class Copying(Bucket):
    """A bucket with two files, and a copy of one of them under way."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.requests.stored |= {'a': DATA, 'large': LARGE}
        self.now: Volume = self.volume()

    def open(self, path: str = 'a') -> Reader:
        return self.now.open_read(path)

    def begin(self, target: str = 'b', source: str = 'a') -> Writer:
        """A new file that is a copy of another, not closed yet."""
        reader = self.open(source)
        writer = self.now.open_write(target, create=True, truncate=True)
        size_bytes = len(self.requests.stored[source])
        assert writer.copy_from(reader, 0, 0, ALL) == size_bytes
        reader.close()
        self.requests.count.clear()
        return writer

    def fill_cache(self, path: str) -> None:
        reader = self.open(path)
        reader.read(0, ALL)
        reader.close()

    @property
    def moved(self) -> dict[str, int]:
        """How often contents passed through here."""
        return {name: self.requests.count[name] for name in ('read', 'upload', 'begin') if self.requests.count[name]}


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Copying]:
    bucket = Copying(tmp_path)
    yield bucket
    bucket.backend.heal()
    bucket.opened[-1].close(WAIT_S)


class TestCopies:
    """What a program copies without reading it."""

    def test_a_copy_moves_no_bytes(self, bucket: Copying) -> None:
        bucket.begin().close()
        assert bucket.requests.stored['b'] == DATA
        assert bucket.moved == {}
        assert bucket.requests.count['copy'] == 1

    def test_pieces_one_behind_the_other_are_one_copy(self, bucket: Copying) -> None:
        reader = bucket.open()
        writer = bucket.now.open_write('b', create=True)
        offset = 0
        for size_bytes in (1, 4095, MIB, 2 * MIB):
            offset += writer.copy_from(reader, offset, offset, size_bytes)
        assert offset == len(DATA)
        writer.close()
        reader.close()
        assert bucket.requests.stored['b'] == DATA
        assert bucket.moved == {}

    def test_it_is_read_before_it_is_stored(self, bucket: Copying) -> None:
        writer = bucket.begin()
        assert writer.read(0, ALL) == DATA
        assert bucket.now.stat('b').size_bytes == len(DATA)
        other = bucket.now.open_read('b')
        assert other.read(MIB - 3, 7) == DATA[MIB - 3 : MIB + 4]
        other.close()
        writer.close()
        assert bucket.requests.stored['b'] == DATA

    def test_over_a_file_that_is_there(self, bucket: Copying) -> None:
        bucket.requests.stored['b'] = b'before'
        bucket.begin().close()
        assert bucket.requests.stored['b'] == DATA
        assert bucket.moved == {}

    def test_a_file_that_was_opened_to_write_and_is_stored_is_a_source(self, bucket: Copying) -> None:
        source = bucket.now.open_write('a', create=False)
        writer = bucket.now.open_write('b', create=True)
        assert writer.copy_from(source, 0, 0, ALL) == len(DATA)
        writer.close()
        source.write(0, b'dirty')
        another = bucket.now.open_write('c', create=True)
        with pytest.raises(StorageUnsupportedError):
            another.copy_from(source, 0, 0, ALL)
        for handle in (source, another):
            handle.abort()
        assert bucket.requests.stored['b'] == DATA

    def test_after_it_is_stored_it_is_a_file_of_its_own(self, bucket: Copying) -> None:
        writer = bucket.begin()
        writer.sync()
        del bucket.requests.stored['a']
        writer.write(1, b'later')
        assert writer.read(0, ALL) == DATA[:1] + b'later' + DATA[6:]
        writer.close()
        assert bucket.requests.stored['b'] == DATA[:1] + b'later' + DATA[6:]

    def test_a_copy_goes_on_from_a_sync_by_writing(self, bucket: Copying) -> None:
        reader = bucket.open()
        writer = bucket.now.open_write('b', create=True)
        writer.copy_from(reader, 0, 0, MIB)
        writer.sync()
        with pytest.raises(StorageUnsupportedError):
            writer.copy_from(reader, MIB, MIB, MIB)
        writer.write(MIB, reader.read(MIB, MIB))
        writer.close()
        reader.close()
        assert bucket.requests.stored['b'] == DATA[: 2 * MIB]

    def test_a_copy_that_is_being_stored_does_not_grow_by_borrowing(self, bucket: Copying) -> None:
        reader = bucket.open()
        writer = bucket.now.open_write('b', create=True)
        writer.copy_from(reader, 0, 0, MIB)
        staged = bucket.now._files.find('b')
        assert staged is not None
        with staged.snapshot(), pytest.raises(StorageUnsupportedError):
            writer.copy_from(reader, MIB, MIB, MIB)
        assert writer.copy_from(reader, MIB, MIB, ALL) == len(DATA) - MIB
        writer.close()
        reader.close()
        assert bucket.requests.stored['b'] == DATA

    def test_what_was_fetched_of_a_source_that_is_not_needed_any_more_is_not_taken_for_the_target(
        self, bucket: Copying
    ) -> None:
        bucket.requests.stored['b'] = os.urandom(len(LARGE))
        writer = bucket.begin('b', 'large')
        staged = bucket.now._files.find('b')
        assert staged is not None
        staged.complete()
        assert staged.origin is None
        writer.close()
        assert bucket.requests.stored['b'] == LARGE

    def test_a_file_of_another_mount_of_the_bucket(self, bucket: Copying) -> None:
        bucket.requests.stored['elsewhere/f'] = DATA
        backend = FaultyBackend(ObjectDirectories(bucket.requests, 'elsewhere'))
        definition = MemoryDefinition(name='other')
        other = BackendVolume(definition, backend, MemoryBlockCache(64 << 20), bucket.root / 'other', bucket.clock)
        reader = other.open_read('f')
        writer = bucket.now.open_write('b', create=True)
        assert writer.copy_from(reader, 0, 0, ALL) == len(DATA)
        bucket.requests.count.clear()
        writer.close()
        reader.close()
        assert bucket.requests.stored['b'] == DATA
        copy(Place(bucket.now, 'b'), Place(other, 'back'))
        assert bucket.requests.stored['elsewhere/back'] == DATA
        assert bucket.moved == {}
        other.close(WAIT_S)


class TestWhatIsNoCopy:
    """What is read and written instead, or in part."""

    def test_what_is_not_at_the_same_place_or_small(self, bucket: Copying) -> None:
        bucket.requests.stored['small'] = DATA[: MIB - 1]
        writer = bucket.now.open_write('b', create=True)
        reader, small = bucket.open(), bucket.open('small')
        for source, source_offset, offset in ((reader, 1, 0), (reader, 5, 5), (small, 0, 0), (object(), 0, 0)):
            with pytest.raises(StorageUnsupportedError):
                writer.copy_from(source, source_offset, offset, MIB)
        writer.write(0, b'begun')
        for offset in (0, 5):
            with pytest.raises(StorageUnsupportedError):
                writer.copy_from(reader, offset, offset, MIB)
        writer.close()
        for each in (reader, small):
            each.close()
        assert bucket.requests.stored['b'] == b'begun'

    def test_of_two_sources_one_is_borrowed(self, bucket: Copying) -> None:
        writer = bucket.begin()
        large = bucket.open('large')
        with pytest.raises(StorageUnsupportedError):
            writer.copy_from(large, len(DATA), len(DATA), MIB)
        large.close()
        writer.close()
        assert bucket.requests.stored['b'] == DATA

    def test_a_file_is_no_copy_of_itself(self, bucket: Copying) -> None:
        reader = bucket.open()
        writer = bucket.now.open_write('a', create=False, truncate=True)
        with pytest.raises(StorageUnsupportedError):
            writer.copy_from(reader, 0, 0, ALL)
        writer.abort()
        reader.close()

    @pytest.mark.parametrize('source', ['a', 'large'])
    def test_what_is_changed_in_it_is_stored(self, bucket: Copying, source: str) -> None:
        data = bytearray(bucket.requests.stored[source])
        writer = bucket.begin('b', source)
        for offset, piece in ((0, b'first'), (MIB, b'second'), (len(data), b'behind')):
            writer.write(offset, piece)
            data[offset : offset + len(piece)] = piece
        writer.allocate(100, 50, 3)
        data[100:150] = bytes(50)
        assert writer.read(0, ALL) == data
        writer.close()
        assert bucket.requests.stored['b'] == data

    @pytest.mark.parametrize('size_bytes', [0, 1, MIB, len(LARGE) - 1, len(LARGE) + 1])
    def test_what_is_cut_off_or_longer_is_stored_so(self, bucket: Copying, size_bytes: int) -> None:
        writer = bucket.begin('b', 'large')
        writer.truncate(size_bytes)
        writer.close()
        assert bucket.requests.stored['b'] == LARGE[:size_bytes].ljust(size_bytes, b'\0')

    def test_parts_of_a_large_file_that_are_as_in_the_source_are_copied(self, bucket: Copying) -> None:
        writer = bucket.begin('b', 'large')
        writer.write(len(LARGE), b'one more')
        writer.close()
        assert bucket.requests.stored['b'] == LARGE + b'one more'
        assert bucket.backend.calls('upload.copy') == 1
        assert bucket.requests.count['read'] <= 1

    @pytest.mark.parametrize('error', [StorageUnsupportedError('no'), StoragePermissionError('not this one')])
    def test_what_the_server_does_not_copy_passes_through_here(self, bucket: Copying, error: StorageIOError) -> None:
        writer = bucket.begin('b', 'large')
        for method in ('copy', 'upload.copy'):
            bucket.backend.fail_always(method, error)
        writer.close()
        assert bucket.requests.stored['b'] == LARGE


class TestSourcesThatGo:
    """A source that is removed or changed between the copy and its end."""

    def test_it_is_stored_from_the_cache(self, bucket: Copying) -> None:
        bucket.fill_cache('large')
        writer = bucket.begin('b', 'large')
        bucket.requests.stored['large'] = b'somebody else'
        writer.close()
        assert bucket.requests.stored['b'] == LARGE

    @pytest.mark.parametrize('durability', list(Durability))
    @pytest.mark.parametrize('source', ['a', 'large'])
    @pytest.mark.parametrize('new', [None, b'somebody else'])
    def test_or_the_close_fails_and_nothing_is_stored(
        self, bucket: Copying, source: str, new: bytes | None, durability: Durability
    ) -> None:
        bucket.durability = durability
        bucket.now = bucket.volume()
        before = bucket.requests.stored[source]
        writer = bucket.begin('b', source)
        writer.write(1, b'more')
        if new is None:
            del bucket.requests.stored[source]
        else:
            bucket.requests.stored[source] = new
        with pytest.raises(StorageConflictError):
            writer.close()
        assert 'b' not in bucket.requests.stored
        assert len(bucket.left()) == 1
        # Kept with where the rest of it is, and not only in this process.
        bucket.now = bucket.recovered()
        with pytest.raises(StorageConflictError):
            bucket.now.retry_parked('')
        assert 'b' not in bucket.requests.stored
        bucket.requests.stored[source] = before
        bucket.now.retry_parked('')
        assert bucket.requests.stored['b'] == before[:1] + b'more' + before[5:]
        assert bucket.left() == []

    def test_what_this_process_removes_or_renames_is_copied_first(self, bucket: Copying) -> None:
        writer = bucket.begin()
        bucket.now.remove_file('a')
        assert bucket.requests.stored['b'] == DATA
        writer.close()
        writer = bucket.begin('c', 'b')
        bucket.now.rename('b', 'd')
        writer.close()
        assert bucket.requests.stored['c'] == bucket.requests.stored['d'] == DATA
        assert bucket.moved == {}

    def test_a_copy_that_is_renamed_over_its_source(self, bucket: Copying) -> None:
        writer = bucket.begin()
        bucket.now.rename('b', 'a')
        writer.write(0, b'new')
        writer.close()
        assert bucket.requests.stored['a'] == b'new' + DATA[3:]
        assert 'b' not in bucket.requests.stored


class TestTargets:
    """What is there when the copy is stored."""

    def test_what_somebody_else_has_put_there_stays_and_the_copy_is_kept_beside_it(self, bucket: Copying) -> None:
        writer = bucket.begin()
        bucket.requests.stored['b'] = b'somebody else'
        with pytest.raises(StorageConflictError, match='conflict-'):
            writer.close()
        assert bucket.requests.stored['b'] == b'somebody else'
        (kept,) = (key for key in bucket.requests.stored if 'conflict' in key)
        assert bucket.requests.stored[kept] == DATA
        assert bucket.moved == {}

    def test_a_copy_whose_answer_was_lost_is_recognised(self, bucket: Copying) -> None:
        writer = bucket.begin()
        bucket.backend.fail('copy', StorageUnavailableError('no answer'), after=True)
        writer.close()
        assert bucket.requests.stored['b'] == DATA
        assert [key for key in bucket.requests.stored if 'conflict' in key] == []

    def test_a_copy_that_fails_is_parked_and_made_later(self, bucket: Copying) -> None:
        writer = bucket.begin()
        bucket.backend.fail_always('copy', StorageIOError('broken'))
        with pytest.raises(StorageIOError):
            writer.close()
        bucket.backend.heal()
        bucket.requests.count.clear()
        bucket.now.retry_parked('')
        assert bucket.requests.stored['b'] == DATA
        assert bucket.moved == {}


class TestWriteback:
    """What a close that waits for no upload promises of a copy."""

    @pytest.fixture(autouse=True)
    def _writeback(self, bucket: Copying) -> None:
        bucket.durability = Durability.WRITEBACK
        bucket.now = bucket.volume()

    def test_a_copy_is_made_at_the_close_for_its_source_may_go(self, bucket: Copying) -> None:
        bucket.begin().close()
        assert bucket.requests.stored['b'] == DATA
        assert bucket.left() == []
        assert bucket.moved == {}

    def test_a_copy_over_what_waits(self, bucket: Copying) -> None:
        write(bucket.now, 'b', b'acknowledged')
        assert len(bucket.left()) == 1
        bucket.begin().close()
        assert bucket.requests.stored['b'] == DATA
        assert bucket.left() == []

    def test_what_waited_is_uploaded_while_the_copy_is_open(self, bucket: Copying) -> None:
        write(bucket.now, 'b', b'acknowledged')
        writer = bucket.begin()
        staged = bucket.now._files.find('b')
        assert staged is not None
        bucket.now._commits.upload(staged)
        assert bucket.requests.stored['b'] == b'acknowledged'
        assert writer.read(0, ALL) == DATA
        writer.close()
        assert bucket.requests.stored['b'] == DATA
        assert bucket.left() == []

    def test_a_copy_in_place_of_what_waits(self, bucket: Copying) -> None:
        write(bucket.now, 'c', b'acknowledged')
        writer = bucket.begin()
        bucket.now.rename('b', 'c')
        writer.close()
        assert bucket.requests.stored['c'] == DATA
        assert 'b' not in bucket.requests.stored
        assert bucket.left() == []
