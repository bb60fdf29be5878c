"""Attributes through a volume: stored at once, with the commit of what is under change, or with what waits."""

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from genro_storage.backends.base import Capabilities
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.cache.entries import EntryCache
from genro_storage.config import Posix
from genro_storage.config.definitions import Durability
from genro_storage.entry import Attributes, Kind, Version
from genro_storage.errors import StorageConflictError, StorageUnavailableError, StorageUnsupportedError
from genro_storage.reading.listings import Listings
from genro_storage.runtime import WorkerPool
from genro_storage.testing import BytesSource, ManualClock
from genro_storage.volume import Volume
from tests.unit.buckets import DictRequests
from tests.unit.volumes import Remote, Thread, open_new

BUCKET = Capabilities(strong_versions=True, conditional_put=True, stores_metadata=True)
THEN_NS = 1_600_000_000_123_456_789
FILE = Attributes(mode=0o100640, uid=5, gid=6)
METADATA = {'mode': str(0o100640), 'uid': '5', 'gid': '6'}


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path, BUCKET, posix=Posix.STORE)


@pytest.fixture
def volume(remote: Remote) -> Volume:
    return remote.volume


@pytest.fixture
def waiting(tmp_path: Path) -> Remote:
    """Under writeback, and nothing is uploaded by itself: the clock stands still."""
    return Remote(tmp_path, BUCKET, posix=Posix.STORE, durability=Durability.WRITEBACK, writeback_delay_s=3600.0)


def stored(remote: Remote, path: str = 'f') -> Mapping[str, str]:
    return remote.store.metadata(path)


def shown(volume: Volume, path: str = 'f') -> Attributes:
    attributes = volume.stat(path).attributes
    assert attributes is not None
    return attributes


class TestStored:
    def test_what_is_set_is_stored_and_all_else_stays(self, remote: Remote, volume: Volume) -> None:
        remote.store.put('f', BytesSource(b'content'), metadata={'colour': 'blue', 'uid': '9'})
        volume.set_attributes('f', FILE)
        assert stored(remote).items() >= {**METADATA, 'colour': 'blue'}.items()
        assert shown(volume).mode == 0o100640
        assert remote.content('f') == b'content'

    def test_a_new_file_has_them_with_its_first_commit(self, remote: Remote, volume: Volume) -> None:
        writer = volume.open_write('f', create=True, attributes=FILE)
        assert shown(volume).uid == 5
        writer.write(0, b'1')
        writer.close()
        assert remote.backend.calls('put') == 1
        assert remote.backend.calls('set_metadata') == 0
        assert stored(remote).items() >= METADATA.items()

    def test_what_is_set_while_a_file_is_written_goes_with_its_commit(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, data=b'1')
        volume.set_attributes('f', FILE)
        volume.set_attributes('f', Attributes(mtime_ns=THEN_NS))
        assert shown(volume).mtime_ns == THEN_NS
        writer.close()
        assert remote.backend.calls('set_metadata') == 0
        assert stored(remote).items() >= {**METADATA, 'mtime': '1600000000.123456789'}.items()
        assert shown(volume).mtime_ns == THEN_NS

    def test_what_is_set_once_it_is_committed_is_stored_and_the_next_commit_meets_no_conflict(
        self, remote: Remote, volume: Volume
    ) -> None:
        writer = open_new(volume, data=b'1')
        writer.flush()
        volume.set_attributes('f', FILE)
        assert stored(remote).items() >= METADATA.items()
        writer.write(1, b'2')
        writer.close()
        assert remote.content('f') == b'12'
        assert stored(remote).items() >= METADATA.items()

    def test_new_content_has_a_time_of_its_own_and_keeps_mode_and_owner(self, remote: Remote, volume: Volume) -> None:
        metadata = {**METADATA, 'mtime': '1600000000', 'colour': 'blue'}
        remote.store.put('f', BytesSource(b'content'), metadata=metadata)
        writer = volume.open_write('f', create=False)
        writer.write(0, b'C')
        writer.close()
        assert stored(remote).items() >= {**METADATA, 'colour': 'blue'}.items()
        assert shown(volume).mtime_ns == remote.clock.time_ns()

    def test_somebody_who_replaces_it_meanwhile_wins_and_gets_the_mode(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'old')
        stall = remote.backend.stall('set_metadata')
        changing = Thread(lambda: volume.set_attributes('f', FILE))
        stall.wait_until_reached()
        remote.put('f', b'new')
        stall.release()
        changing.result()
        assert remote.content('f') == b'new'
        assert stored(remote).items() >= METADATA.items()

    def test_who_is_always_too_late_is_told(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        remote.backend.fail_always('set_metadata', StorageConflictError('changed'))
        with pytest.raises(StorageConflictError):
            volume.set_attributes('f', FILE)

    def test_a_failure_is_told_and_what_was_known_is_asked_for_again(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        remote.backend.fail('set_metadata', StorageUnavailableError('gone'), after=True)
        with pytest.raises(StorageUnavailableError):
            volume.set_attributes('f', FILE)
        assert shown(volume).uid == 5

    def test_a_directory_has_them_too(self, remote: Remote, volume: Volume) -> None:
        volume.make_directory('d', Attributes(mode=0o040750, uid=5))
        assert remote.store.metadata('d') == {'mode': str(0o040750), 'uid': '5'}
        volume.set_attributes('d', Attributes(mode=0o040700))
        assert shown(volume, 'd').mode == 0o040700
        assert volume.stat('d').is_directory

    def test_a_reader_of_a_version_that_a_change_of_metadata_ended_reads_on(
        self, remote: Remote, volume: Volume, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = bytes(range(256)) * 4096 * 3
        remote.put('f', content)
        reader = volume.open_read('f')
        begin = bytes(reader.read(0, 10))
        # As a bucket does with what was stored in parts: the same bytes have another version.
        change = remote.store.set_metadata
        monkeypatch.setattr(
            remote.store,
            'set_metadata',
            lambda path, metadata, *, expected: (
                change(path, metadata, expected=expected),
                remote.store.put(path, BytesSource(content), metadata=metadata),
            )[1],
        )
        before = volume.stat('f').version
        volume.set_attributes('f', FILE)
        assert volume.stat('f').version != before
        assert begin + bytes(reader.read(10, len(content))) == content
        remote.put('f', b'x' * len(content))
        other = volume.open_read('f')
        other.close()


class TestListed:
    def test_heads_are_asked_for_once_for_each_version(self, tmp_path: Path) -> None:
        bucket = DictRequests()
        entries = EntryCache(10.0, clock := ManualClock())
        backend = ObjectDirectories(bucket)
        for number in range(100):
            backend.put(f'd/{number}', BytesSource(b'1'), metadata=METADATA)
        pool = WorkerPool('test', 4)
        listings = Listings(backend, entries, pool, 10.0, 10.0, WorkerPool('heads', 4))
        for round_number in range(3):
            listed, _ = listings.of('d')
            assert {entry.attributes.uid for entry in listed if entry.attributes} == {5}
            assert len(listed) == 100
            assert bucket.count['heads'] == 4, round_number
            clock.advance(20.0)
        backend.put('d/7', BytesSource(b'2'), metadata={'uid': '7'})
        assert {entry.name: entry.attributes.uid for entry in listings.of('d')[0] if entry.attributes}['7'] == 7
        assert bucket.count['heads'] == 5

    def test_links_and_pipes_are_neither_files_nor_read(self, remote: Remote, volume: Volume) -> None:
        link = {'mode': str(stat.S_IFLNK | 0o777)}
        remote.store.put('link', BytesSource(b'target'), metadata=link)
        remote.store.put('pipe', BytesSource(b''), metadata={'mode': str(stat.S_IFIFO | 0o600)})
        assert {entry.name: entry.kind for entry in volume.list_directory('')[0]} == {
            'link': Kind.OTHER,
            'pipe': Kind.OTHER,
        }
        assert volume.read_link('link') == b'target'
        for path in ('link', 'pipe'):
            for use in (
                lambda path=path: volume.open_read(path),
                lambda path=path: volume.open_write(path, create=True),
                lambda path=path: volume.replace(path),
                lambda path=path: volume.change(path, create=True),
            ):
                with pytest.raises(StorageUnsupportedError):
                    use()
        with pytest.raises(StorageUnsupportedError):
            volume.read_link('pipe')
        assert remote.content('link') == b'target'


class TestWaiting:
    def test_what_waits_has_them_in_the_journal_through_a_kill(self, waiting: Remote) -> None:
        waiting.write('f', b'content')
        waiting.volume.set_attributes('f', FILE)
        waiting.volume.set_attributes('f', Attributes(mtime_ns=THEN_NS))
        assert waiting.names() == []
        waiting.volume._changes.journal.close()  # type: ignore[union-attr]  # its process is gone
        volume = waiting.another_volume()
        assert shown(volume).mode == 0o100640
        assert shown(volume).mtime_ns == THEN_NS
        volume.sync('')
        assert waiting.content('f') == b'content'
        assert stored(waiting).items() >= {**METADATA, 'mtime': '1600000000.123456789'}.items()

    def test_what_waits_is_uploaded_with_them_in_one_request(self, waiting: Remote) -> None:
        waiting.write('f', b'content')
        waiting.volume.set_attributes('f', FILE)
        waiting.volume.sync('')
        assert waiting.backend.calls('put') == 1
        assert waiting.backend.calls('set_metadata') == 0
        assert stored(waiting).items() >= METADATA.items()


class TestIgnored:
    def test_the_time_of_a_file_is_kept_and_nothing_else(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path, BUCKET)
        remote.store.put('f', BytesSource(b'1'), metadata={'mode': str(0o100640), 'mtime': '5'})
        assert remote.volume.stat('f').attributes == Attributes(mtime_ns=5_000_000_000)
        assert remote.volume.set_attributes('f', FILE) is False
        assert remote.volume.set_attributes('f', Attributes(mode=0o100600, mtime_ns=THEN_NS)) is True
        assert stored(remote) == {'mode': str(0o100640), 'mtime': '1600000000.123456789'}
        assert remote.volume.stat('f').modified_ns == THEN_NS
        remote.volume.make_directory('d')
        assert remote.volume.set_mtime('d', THEN_NS) is False

    def test_a_link_is_a_file_where_types_are_not_kept(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path, BUCKET)
        remote.store.put('f', BytesSource(b'target'), metadata={'mode': str(stat.S_IFLNK | 0o777)})
        assert remote.volume.stat('f').kind is Kind.FILE
        assert remote.read('f') == b'target'

    def test_a_backend_that_keeps_times_itself_is_asked_to(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path)
        remote.put('f', b'1')
        assert remote.volume.set_mtime('f', THEN_NS) is True
        assert stored(remote) == {}
        assert remote.volume.stat('f').modified_ns == THEN_NS


def test_the_last_successor_of_a_version_is_told_and_circles_end(volume: Volume) -> None:
    one, two, three = (Version(tag, strong=True) for tag in '123')
    descriptions = volume._descriptions
    assert descriptions.successor('f', one) is None
    descriptions._successors.update({('f', one): two, ('f', two): three})
    assert descriptions.successor('f', one) == descriptions.successor('f', two) == three
    descriptions._successors['f', three] = one
    assert descriptions.successor('f', one) == three


def test_a_mount_that_is_to_keep_what_it_cannot_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remote = Remote(tmp_path, posix=Posix.STORE)
    assert 'posix: store' in caplog.text
    remote.put('f', b'1')
    assert not remote.volume.keeps_attributes
    assert remote.volume.set_attributes('f', FILE) is False
