"""A volume over a bucket: requests that a program pays for, parts sent while it writes, and directories that move."""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from genro_storage.backend_volume import BackendVolume
from genro_storage.backends.base import LengthLimit
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.config import MemoryDefinition
from genro_storage.config.definitions import Durability
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNameTooLongError,
    StorageNotADirectoryError,
    StorageNotFoundError,
)
from genro_storage.testing import BytesSource, FaultyBackend, ManualClock
from genro_storage.volume import Volume
from genro_storage.writing.journal import Held, Journal
from genro_storage.writing.stream import START_BYTES
from genro_storage.writing.writeback import Writeback
from genro_storage.writing.writer import Writer
from tests.unit.buckets import DictRequests
from tests.unit.volumes import WAIT_S

MIB = 1 << 20
PIECE = os.urandom(MIB)


ADD = Writeback.add
NAMES = ('a', 'b', 'e/c', 'e/f/g')
FILES = {f'd/{name}': name.encode() for name in NAMES}
MOVED = {f'new/{name}': name.encode() for name in NAMES}


class Killed(BaseException):
    """In place of the end of the process."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def add_and_wait(writeback: Writeback[Held], item: Held) -> None:
    """In place of Writeback.add; of what waits to be uploaded the delay never ends."""
    ADD(writeback, item)
    if writeback._name.endswith('-errands'):
        writeback.wait(WAIT_S)


class Bucket:
    """A bucket in memory, and volumes over it, one after the other, as of processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.requests = DictRequests()
        self.backend = FaultyBackend(ObjectDirectories(self.requests))
        self.root = folder / 'journal'
        self.durability = Durability.CLOSE
        self.opened: list[Volume] = []

    def volume(self) -> Volume:
        """As the next process has it; the one before is gone."""
        for before in self.opened:
            assert before._changes.journal is not None
            before._changes.journal.close()
        definition = MemoryDefinition(name='m', durability=self.durability, writeback_delay_s=1e6)
        journal = Journal(self.root, self.backend.destination, self.clock, self.folder / 'state')
        cache = MemoryBlockCache(64 << 20)
        volume = BackendVolume(definition, self.backend, cache, self.root / 'staging', self.clock, journal)
        self.opened.append(volume)
        return volume

    def recovered(self) -> Volume:
        """The next process, once it has done what the one before has left."""
        volume = self.volume()
        volume.adopt()
        assert volume._changes.recovery is not None
        volume._changes.recovery.drain(WAIT_S)
        volume.sync('')
        return volume

    def left(self) -> list[Path]:
        """What the journal holds."""
        return list(self.root.glob('*/*/*.intent'))


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    bucket = Bucket(tmp_path)
    yield bucket
    bucket.backend.heal()
    for volume in bucket.opened[-1:]:
        volume.close(WAIT_S)


def write(volume: Volume, path: str, data: bytes) -> None:
    writer = volume.open_write(path, create=True, truncate=True)
    writer.write(0, data)
    writer.close()


def write_pieces(writer: Writer, count: int) -> None:
    """Write front to back, as a program does."""
    for number in range(count):
        writer.write(number * MIB, PIECE)


class TestRequests:
    """What is asked of the server for what a program does, where its directory was made or listed here."""

    def asked(self, bucket: Bucket) -> dict[str, int]:
        counted = dict(bucket.requests.count)
        bucket.requests.count.clear()
        return counted

    def test_a_new_file_is_one_request(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        volume.make_directory('d')
        self.asked(bucket)
        for number in range(10):
            assert volume.find(f'd/f{number}').entry is None
            write(volume, f'd/f{number}', b'1')
        assert self.asked(bucket) == {'upload': 10}

    def test_a_removal_is_one_request_while_others_are_there(self, bucket: Bucket) -> None:
        for number in range(10):
            bucket.requests.stored[f'd/f{number}'] = b'1'
        volume = bucket.volume()
        names = [entry.name for entry in volume.list_directory('d')[0]]
        self.asked(bucket)
        for name in names[:-1]:
            volume.remove_file(f'd/{name}')
        assert self.asked(bucket) == {'remove': 9}
        volume.remove_file(f'd/{names[-1]}')
        assert volume.stat('d').is_directory

    def test_a_save_by_an_editor_is_three_requests(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        volume.make_directory('d')
        self.asked(bucket)
        for number in range(10):
            assert volume.find('d/new').entry is None
            write(volume, 'd/new', b'%d' % number)
            volume.rename('d/new', 'd/document')
            assert volume.stat('d/document').size_bytes == 1
        assert self.asked(bucket) == {'upload': 10, 'copy': 10, 'remove': 10}
        assert bucket.requests.stored['d/document'] == b'9'
        assert {entry.name for entry in volume.list_directory('d')[0]} == {'document'}
        assert bucket.left() == []

    def test_what_others_have_changed_since_it_was_seen_moves_as_it_is(self, bucket: Bucket) -> None:
        bucket.requests.stored |= {'d/f': b'seen', 'd/g': b'replaced'}
        volume = bucket.volume()
        volume.list_directory('d')
        bucket.requests.stored['d/f'] = b'changed since'
        volume.rename('d/f', 'd/g')
        assert volume.stat('d/g').size_bytes == len(b'changed since')
        assert bucket.requests.stored['d/g'] == b'changed since'
        del bucket.requests.stored['d/g']
        with pytest.raises(StorageNotFoundError):
            volume.rename('d/g', 'd/h')
        assert volume.find('d/g').entry is None

    @pytest.mark.parametrize('target', ['e', 'nothing/f', 'd/file/f'])
    def test_where_no_file_may_go_that_is_said_as_ever(self, bucket: Bucket, target: str) -> None:
        bucket.requests.stored |= {'d/f': b'1', 'd/file': b'2', 'e/g': b'3'}
        volume = bucket.volume()
        for directory in ('', 'd', 'e'):
            volume.list_directory(directory)
        with pytest.raises((StorageIsADirectoryError, StorageNotFoundError, StorageNotADirectoryError)):
            volume.rename('d/f', target)
        assert volume.stat('d/f').size_bytes == 1

    def test_the_time_goes_with_the_file_to_the_nanosecond_and_is_asked_for_by_nobody(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        volume.make_directory('d')
        self.asked(bucket)
        bucket.clock.advance(0.123456789)
        write(volume, 'd/f', b'1')
        written_ns = bucket.clock.time_ns()
        assert volume.stat('d/f').modified_ns == written_ns
        assert self.asked(bucket) == {'upload': 1}
        assert bucket.backend.stat('d/f').modified_ns == written_ns
        bucket.clock.advance(1)
        write(volume, 'd/f', b'2')
        assert bucket.volume().stat('d/f').modified_ns == bucket.clock.time_ns() > written_ns


class TestLongPaths:
    """A key has 1,024 bytes at most, with the slash of a directory."""

    DEEP = '/'.join(['d' * 249] * 4)  # 999 bytes
    FITS = f'{DEEP}/{"f" * 24}'
    TOO_LONG = f'{DEEP}/{"f" * 25}'

    @pytest.mark.parametrize(
        'operation',
        [
            lambda volume, path: volume.find(path),
            lambda volume, path: volume.open_write(path, create=True),
            lambda volume, path: volume.replace(path),
            lambda volume, path: volume.change(path, create=True),
            lambda volume, path: volume.make_directory(path),
            lambda volume, path: volume.rename('f', path),
            lambda volume, path: volume.copy('f', path),
        ],
    )
    def test_a_path_that_is_longer_is_too_long_before_anything_is_asked(
        self, bucket: Bucket, operation: Callable[[Volume, str], object]
    ) -> None:
        bucket.requests.stored['f'] = b'1'
        volume = bucket.volume()
        with pytest.raises(StorageNameTooLongError, match='1,024 bytes'):
            operation(volume, self.TOO_LONG)
        assert not bucket.requests.count
        assert bucket.left() == []

    def test_one_that_fits_is_kept_and_a_directory_needs_room_for_its_slash(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        write(volume, self.FITS, b'1')
        assert [len(key) for key in bucket.requests.stored] == [1024]
        bucket.requests.count.clear()
        with pytest.raises(StorageNameTooLongError):
            volume.make_directory(self.FITS[:-1] + 'g')
        assert bucket.requests.count['mark'] == 0
        volume.make_directory(self.FITS[:-1])
        assert max(map(len, bucket.requests.stored)) == 1024

    def test_a_directory_does_not_move_to_where_what_is_in_it_would_be_too_long(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        write(volume, self.FITS, b'1')
        top, before = 'd' * 249, dict(bucket.requests.stored)
        bucket.requests.count.clear()
        with pytest.raises(StorageNameTooLongError):
            volume.rename(top, top + 'd')
        assert bucket.requests.stored == before
        assert bucket.requests.count['copy'] == bucket.requests.count['mark'] == 0
        assert bucket.left() == []
        volume.rename(top, 'e')
        assert volume.stat(self.FITS.replace(top, 'e', 1)).is_file

    @pytest.mark.parametrize(
        ('limit', 'name', 'fits'),
        [
            (LengthLimit(4), 'abcd', True),
            (LengthLimit(4), 'abcde', False),
            (LengthLimit(4), 'ää', True),
            (LengthLimit(4), 'ääa', False),
            (LengthLimit(4, in_characters=True), 'ääää', True),
            (LengthLimit(4, in_characters=True), 'äääää', False),
            (LengthLimit(6).behind('ä/'), 'abc', True),
            (LengthLimit(6).behind('ä/'), 'abcd', False),
            (LengthLimit(1).behind('prefix'), 'a', False),
        ],
    )
    def test_bytes_or_characters_are_counted_and_those_of_a_prefix_too(
        self, limit: LengthLimit, name: str, fits: bool
    ) -> None:
        assert limit.allows(name) is fits

    def test_the_prefix_of_a_mount_takes_its_part(self) -> None:
        limit = ObjectDirectories(DictRequests(), 'some/prefix').capabilities.path_limit
        assert limit == LengthLimit(1024 - len('some/prefix/'))


class TestStreams:
    def test_parts_are_sent_while_the_file_is_written(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        writer = volume.replace('f')
        write_pieces(writer, 40)
        stream = writer._staged.progress.stream
        assert stream is not None
        for future in list(stream._under_way.values()):
            future.result(WAIT_S)
        assert len(stream._sent) >= START_BYTES // (8 * MIB)
        assert bucket.requests.stored == {}
        writer.close()
        assert bucket.requests.stored['f'] == PIECE * 40
        assert bucket.requests.uploads == {}
        assert bucket.left() == []

    def test_what_is_written_again_is_sent_again(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        writer = volume.open_write('f', create=True)
        write_pieces(writer, 32)
        writer.write(5, b'again')
        writer.write(20 * MIB, b'and again')
        writer.truncate(30 * MIB)
        writer.close()
        expected = bytearray(PIECE * 30)
        expected[5:10] = b'again'
        expected[20 * MIB : 20 * MIB + 9] = b'and again'
        assert bucket.requests.stored['f'] == expected

    def test_a_part_that_cannot_be_sent_ahead_is_sent_at_the_commit(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        bucket.backend.fail('upload.send', StorageIOError('broken'))
        writer = volume.open_write('f', create=True)
        write_pieces(writer, 40)
        writer.close()
        assert bucket.requests.stored['f'] == PIECE * 40

    def test_an_upload_that_cannot_be_begun_is_done_at_the_commit(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        bucket.backend.fail('begin_upload', StorageIOError('broken'))
        writer = volume.open_write('f', create=True)
        write_pieces(writer, 40)
        writer.close()
        assert bucket.requests.stored['f'] == PIECE * 40

    def test_an_exception_leaves_no_parts(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        writer = volume.replace('f')
        write_pieces(writer, 40)
        writer.abort()
        assert bucket.requests.uploads == {}
        assert bucket.requests.stored == {}
        assert bucket.left() == []

    def test_parts_of_a_process_that_is_gone_are_aborted_by_the_next(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        writer = volume.replace('f')
        write_pieces(writer, 40)
        stream = writer._staged.progress.stream
        assert stream is not None
        assert stream._upload.result(WAIT_S) is not None
        assert len(bucket.requests.uploads) == 1
        bucket.recovered()
        assert bucket.requests.uploads == {}
        assert bucket.left() == []

    def test_a_file_that_was_renamed_while_it_was_written_arrives_under_its_new_name(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        writer = volume.open_write('f', create=True)
        write_pieces(writer, 40)
        volume.rename('f', 'g')
        writer.close()
        assert list(bucket.requests.stored) == ['g']
        assert bucket.requests.uploads == {}


class TestLargeFiles:
    def test_of_a_file_that_is_appended_to_only_the_end_is_sent(self, bucket: Bucket) -> None:
        bucket.requests.stored['f'] = PIECE * 64
        volume = bucket.volume()
        writer = volume.open_write('f', create=False)
        writer.write(64 * MIB, b'the end')
        writer.close()
        assert bucket.requests.stored['f'] == PIECE * 64 + b'the end'
        assert bucket.requests.count['read'] == 0
        assert bucket.backend.calls('upload.copy') == 2
        assert bucket.backend.calls('upload.send') == 1

    def test_of_a_file_that_is_synced_again_and_again_only_what_is_new_is_sent(self, bucket: Bucket) -> None:
        volume = bucket.volume()
        writer = volume.open_write('f', create=True)
        writer.write(0, PIECE * 24)
        writer.sync()
        for number in range(24, 28):
            sent = bucket.backend.calls('upload.send')
            writer.write(number * MIB, PIECE)
            writer.sync()
            assert bucket.requests.stored['f'] == PIECE * (number + 1)
            assert bucket.backend.calls('upload.send') <= sent + 1
        writer.close()

    def test_a_few_bytes_in_the_middle_move_one_part(self, bucket: Bucket) -> None:
        bucket.requests.stored['f'] = PIECE * 64
        volume = bucket.volume()
        writer = volume.open_write('f', create=False)
        writer.write(33 * MIB, b'changed')
        assert writer.read(33 * MIB, 10) == b'changed' + PIECE[7:10]
        writer.close()
        expected = bytearray(PIECE * 64)
        expected[33 * MIB : 33 * MIB + 7] = b'changed'
        assert bucket.requests.stored['f'] == expected
        assert bucket.backend.calls('upload.send') == 1

    def test_what_was_written_of_a_version_that_has_gone_stays_in_the_journal(self, bucket: Bucket) -> None:
        bucket.requests.stored['f'] = PIECE * 64
        volume = bucket.volume()
        writer = volume.open_write('f', create=False)
        writer.write(33 * MIB, b'precious')
        bucket.requests.stored['f'] = b'theirs'
        with pytest.raises(StorageConflictError):
            writer.close()
        assert bucket.requests.stored == {'f': b'theirs'}
        (data,) = bucket.root.glob('*/*/*.data')
        with data.open('rb') as file:
            file.seek(33 * MIB)
            assert file.read(8) == b'precious'

    def test_what_was_acknowledged_of_a_large_file_is_completed_by_the_next_process(self, bucket: Bucket) -> None:
        bucket.durability = Durability.WRITEBACK
        bucket.requests.stored['f'] = PIECE * 64
        writer = bucket.volume().open_write('f', create=False)
        writer.write(33 * MIB, b'changed')
        writer.close()
        bucket.recovered()
        expected = bytearray(PIECE * 64)
        expected[33 * MIB : 33 * MIB + 7] = b'changed'
        assert bucket.requests.stored['f'] == expected
        assert bucket.left() == []

    @pytest.mark.parametrize('theirs', [False, True])
    def test_what_had_arrived_of_a_large_file_is_recognised_by_what_was_written_of_it(
        self, bucket: Bucket, *, theirs: bool
    ) -> None:
        bucket.durability = Durability.WRITEBACK
        bucket.requests.stored['f'] = PIECE * 64
        writer = bucket.volume().open_write('f', create=False)
        writer.write(33 * MIB, b'changed')
        writer.close()
        there = bytearray(PIECE * 64)
        there[33 * MIB : 33 * MIB + 7] = b'by them' if theirs else b'changed'
        bucket.requests.stored['f'] = bytes(there)  # and the version before it is gone
        with pytest.raises(StorageConflictError) if theirs else nullcontext():
            bucket.recovered()
        assert bucket.requests.stored == {'f': bytes(there)}
        assert bool(bucket.left()) == theirs

    def test_a_file_that_is_removed_while_it_is_open_can_be_read_to_its_end(self, bucket: Bucket) -> None:
        bucket.requests.stored['f'] = PIECE * 3
        volume = bucket.volume()
        writer = volume.open_write('f', create=False)
        volume.remove_file('f')
        assert writer.read(0, 3 * MIB) == PIECE * 3
        writer.close()
        assert 'f' not in bucket.requests.stored


class TestDirectories:
    def files(self, bucket: Bucket) -> dict[str, bytes]:
        return {key: data for key, data in bucket.requests.stored.items() if not key.endswith('/')}

    def test_a_move(self, bucket: Bucket) -> None:
        bucket.requests.stored.update(FILES)
        bucket.volume().rename('d', 'new')
        assert self.files(bucket) == MOVED
        assert bucket.left() == []

    def test_a_move_that_fails_leaves_everything(self, bucket: Bucket) -> None:
        bucket.requests.stored.update(FILES)
        bucket.requests.broken.add('d/e/c')
        with pytest.raises(StorageIOError):
            bucket.volume().rename('d', 'new')
        assert self.files(bucket) == FILES
        assert bucket.left() == []

    def test_a_move_that_was_interrupted_while_copying_is_undone(self, bucket: Bucket) -> None:
        bucket.requests.stored.update(FILES)
        volume = bucket.volume()
        bucket.backend.fail('copy_planned', Killed(), after=True)  # type: ignore[arg-type]
        with pytest.raises(Killed):
            volume.rename('d', 'new')
        assert self.files(bucket) == FILES | MOVED
        volume = bucket.recovered()
        assert self.files(bucket) == FILES
        assert bucket.left() == []
        assert volume.stat('d/a').size_bytes == 1

    def test_a_move_that_was_interrupted_while_removing_is_completed(self, bucket: Bucket) -> None:
        bucket.requests.stored.update(FILES)
        volume = bucket.volume()
        bucket.backend.fail('remove_planned', Killed())  # type: ignore[arg-type]
        with pytest.raises(Killed):
            volume.rename('d', 'new')
        bucket.recovered()
        assert self.files(bucket) == MOVED
        assert bucket.left() == []

    @pytest.mark.parametrize('at_once', [False, True])
    @pytest.mark.parametrize('step', ['before it', 'copied', 'done'])
    @pytest.mark.parametrize('method', ['rename', 'move_seen'])
    def test_a_rename_over_a_file_that_waits_is_made_or_not_when_it_was_interrupted(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, method: str, step: str, at_once: bool
    ) -> None:
        """``at_once``: what is left to be done is done before anybody goes on, as a quick thread may do it."""
        bucket.durability = Durability.WRITEBACK
        bucket.requests.stored.update({'one': b'moved', 'other': b'old'})
        volume = bucket.volume()
        write(volume, 'other', b'acknowledged')
        if method == 'rename':
            volume._entries.forget('')
        with monkeypatch.context() as patched:
            if step == 'copied':
                patched.setattr(bucket.requests, 'remove', killed)
            else:
                bucket.backend.fail(method, Killed(), after=step == 'done')  # type: ignore[arg-type]
            with pytest.raises(Killed):
                volume.rename('one', 'other')
        if at_once:
            monkeypatch.setattr(Writeback, 'add', add_and_wait)
        bucket.recovered()
        not_made, made = {'one': b'moved', 'other': b'acknowledged'}, {'other': b'moved'}
        assert self.files(bucket) == (not_made if step == 'before it' else made)
        assert bucket.left() == []

    def test_a_rename_of_an_open_file_that_had_not_begun_removes_nothing(self, bucket: Bucket) -> None:
        stored = {'one': b'moved', 'other': b'other'}  # as long as each other
        bucket.requests.stored.update(stored)
        volume = bucket.volume()
        writer = volume.open_write('one', create=False)
        bucket.backend.fail('rename', Killed())  # type: ignore[arg-type]
        with pytest.raises(Killed):
            volume.rename('one', 'other')
        writer.abort()
        bucket.recovered()
        assert self.files(bucket) == stored
        assert bucket.left() == []

    def test_a_rename_that_fails_leaves_what_waits_as_it_was(self, bucket: Bucket) -> None:
        bucket.durability = Durability.WRITEBACK
        bucket.requests.stored.update({'one': b'moved', 'other': b'old'})
        volume = bucket.volume()
        write(volume, 'other', b'acknowledged')
        bucket.backend.fail('move_seen', StorageIOError('refused'))
        with pytest.raises(StorageIOError):
            volume.rename('one', 'other')
        volume.sync('')
        assert self.files(bucket) == {'one': b'moved', 'other': b'acknowledged'}
        assert bucket.left() == []

    def test_what_others_have_changed_since_is_kept_by_both(self, bucket: Bucket) -> None:
        for step, after in (('copy_planned', True), ('remove_planned', False)):
            bucket.requests.stored.clear()
            bucket.requests.stored.update(FILES)
            volume = bucket.volume()
            bucket.backend.fail(step, Killed(), after=after)  # type: ignore[arg-type]
            with pytest.raises(Killed):
                volume.rename('d', 'new')
            bucket.backend.put('d/a', BytesSource(b'changed in the old place'))
            bucket.backend.put('new/b', BytesSource(b'changed in the new place'))
            bucket.recovered()
            assert b'changed in the old place' in self.files(bucket).values()
            assert b'changed in the new place' in self.files(bucket).values()
            for name in NAMES:
                assert {f'd/{name}', f'new/{name}'} & self.files(bucket).keys()
