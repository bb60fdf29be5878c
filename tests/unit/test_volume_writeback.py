"""durability: writeback. What is acknowledged is durable here, seen at once, and reaches the backend in the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.backends.base import Backend
from genro_storage.backends.breaker import THRESHOLD
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.config.definitions import Durability
from genro_storage.errors import StorageConflictError, StorageIOError, StorageUnavailableError
from genro_storage.testing import BytesSource
from genro_storage.testing.contract import as_listed
from genro_storage.volume import Volume
from tests.unit.volumes import WAIT_S, Remote, Thread, names, open_new

BROKEN = StorageIOError('broken')


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    # A delay that never ends by itself: what is uploaded, a test has asked for.
    remote = Remote(tmp_path, durability=Durability.WRITEBACK, writeback_delay_s=1e6)
    yield remote
    remote.backend.heal()
    remote.volume.close(WAIT_S)


@pytest.fixture
def volume(remote: Remote) -> Volume:
    return remote.volume


class TestAcknowledging:
    def test_a_close_leaves_the_backend_alone_and_everybody_here_sees_the_file(
        self, remote: Remote, volume: Volume
    ) -> None:
        remote.write('f', b'new')
        assert remote.names() == []
        assert names(volume) == {'f': 3}
        assert remote.read('f') == b'new'
        assert volume.stat('f').size_bytes == 3
        assert remote.kept() == [b'new']

    def test_a_sync_uploads_it_and_clears_the_journal(self, remote: Remote, volume: Volume) -> None:
        remote.write('d/f', b'new')
        volume.sync('')
        assert remote.content('d/f') == b'new'
        assert remote.kept() == []
        assert remote.read('d/f') == b'new'
        assert volume.stat('d/f') == as_listed(remote.store.stat('d/f'))

    def test_a_sync_of_a_path_uploads_what_is_at_or_below_it(self, remote: Remote, volume: Volume) -> None:
        for path in ('d/a', 'd/e/b', 'c'):
            remote.write(path, path.encode())
        volume.sync('d')
        assert remote.content('d/a') == b'd/a'
        assert remote.content('d/e/b') == b'd/e/b'
        assert remote.names() == ['d']

    def test_an_fsync_commits_and_writing_goes_on(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        writer.sync()
        assert remote.content('f') == b'1'
        writer.write(1, b'2')
        writer.close()
        assert remote.content('f') == b'1'
        volume.sync('')
        assert remote.content('f') == b'12'

    def test_closes_of_the_same_file_are_one_upload(self, remote: Remote, volume: Volume) -> None:
        for data in (b'1', b'22', b'333'):
            remote.write('f', data)
        assert remote.kept() == [b'333']
        volume.sync('')
        assert remote.content('f') == b'333'
        assert remote.backend.calls('put') == 1

    def test_what_is_written_after_a_close_is_not_what_was_acknowledged(self, remote: Remote, volume: Volume) -> None:
        remote.write('f', b'0123456789')
        writer = volume.open_write('f', create=False)
        writer.write(2, b'XX')
        assert remote.kept() == [b'0123456789']
        assert remote.read('f') == b'01XX456789'
        writer.abort()

    def test_a_close_without_a_change_journals_nothing_anew(self, remote: Remote, volume: Volume) -> None:
        remote.write('f', b'1')
        (before,) = remote.root.glob('*/*/*.intent')
        volume.open_write('f', create=False).close()
        assert list(remote.root.glob('*/*/*.intent')) == [before]

    def test_a_private_file_is_seen_as_a_whole_once_it_is_acknowledged(self, remote: Remote, volume: Volume) -> None:
        writer = volume.replace('f')
        writer.write(0, b'half')
        assert names(volume) == {}
        writer.write(4, b' and half')
        writer.close()
        assert remote.read('f') == b'half and half'
        assert remote.names() == []
        volume.sync('')
        assert remote.content('f') == b'half and half'
        assert remote.kept() == []

    def test_an_exception_publishes_and_journals_nothing(self, remote: Remote, volume: Volume) -> None:
        writer = volume.replace('f')
        writer.write(0, b'half')
        writer.abort()
        assert names(volume) == {}
        assert remote.kept() == []

    def test_a_private_file_replaces_one_that_waits(self, remote: Remote, volume: Volume) -> None:
        remote.write('f', b'old')
        writer = volume.replace('f')
        writer.write(0, b'newer')
        writer.close()
        assert remote.read('f') == b'newer'
        assert remote.kept() == [b'newer']
        volume.sync('')
        assert remote.content('f') == b'newer'
        assert remote.names() == ['f']

    def test_the_end_of_the_volume_uploads_all(self, remote: Remote, volume: Volume) -> None:
        remote.write('f', b'1')
        writer = open_new(volume, 'open', b'2')
        assert volume.close(WAIT_S)
        assert remote.backend.calls('put') == 2
        assert remote.kept() == []
        writer.abort()


class TestFailures:
    def test_an_upload_that_fails_is_kept_and_told_by_the_next_close(self, remote: Remote, volume: Volume) -> None:
        remote.write('f', b'1')
        writer = volume.open_write('f', create=False)
        remote.backend.fail_always('put', BROKEN)
        with pytest.raises(StorageIOError, match='broken'):
            volume.sync('')
        assert remote.kept() == [b'1']
        with pytest.raises(StorageIOError, match='broken'):
            writer.flush()
        writer.flush()  # told once
        remote.backend.heal()
        writer.close()
        volume.sync('')
        assert remote.content('f') == b'1'

    def test_one_that_fails_does_not_cost_the_others(self, remote: Remote, volume: Volume) -> None:
        for name in ('a', 'b', 'c'):
            remote.write(name, b'1')
        remote.backend.fail('put', BROKEN)
        with pytest.raises(StorageIOError):
            volume.sync('')
        assert len(remote.names()) == 2
        volume.sync('')
        assert remote.names() == ['a', 'b', 'c']

    def test_a_conflict_is_kept_beside_the_winner(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'base')
        writer = volume.open_write('f', create=False)
        writer.write(0, b'ours')
        writer.close()
        remote.put('f', b'theirs')
        with pytest.raises(StorageConflictError, match='conflict-'):
            volume.sync('')
        assert sorted(remote.content(name) for name in remote.names()) == [b'ours', b'theirs']
        assert remote.read('f') == b'theirs'
        assert remote.kept() == []

    def test_what_has_arrived_although_its_answer_was_lost_is_no_conflict(self, remote: Remote, volume: Volume) -> None:
        remote.write('f', b'1')
        remote.backend.fail('put', BROKEN, after=True)
        with pytest.raises(StorageIOError):
            volume.sync('')
        volume.sync('')
        assert remote.names() == ['f']
        assert remote.kept() == []

    def test_what_was_written_since_an_answer_was_lost_is_no_conflict_either(
        self, remote: Remote, volume: Volume
    ) -> None:
        remote.write('f', b'first')
        remote.backend.fail('put', BROKEN, after=True)
        with pytest.raises(StorageIOError):
            volume.sync('')
        with pytest.raises(StorageIOError):  # that of the upload, told once
            remote.write('f', b'second')
        volume.sync('')
        assert remote.names() == ['f']
        assert remote.content('f') == b'second'
        assert remote.kept() == []

    def test_what_is_acknowledged_while_an_upload_is_under_way_follows_it(self, remote: Remote, volume: Volume) -> None:
        remote.write('f', b'first')
        stall = remote.backend.stall('put')
        sync = Thread(lambda: volume.sync(''))
        stall.wait_until_reached()
        remote.write('f', b'second')
        stall.release()
        sync.result()
        assert remote.content('f') == b'first'
        assert remote.read('f') == b'second'
        assert remote.kept() == [b'second']
        volume.sync('')
        assert remote.content('f') == b'second'
        assert remote.names() == ['f']


class TestNames:
    def test_a_file_that_waits_is_removed_without_a_request(self, remote: Remote, volume: Volume) -> None:
        remote.write('f', b'1')
        volume.remove_file('f')
        assert names(volume) == {}
        assert remote.kept() == []
        volume.sync('')
        assert remote.names() == []
        assert remote.backend.calls('remove_file') == 0

    def test_a_rewritten_file_that_waits_is_removed_here_and_there(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'old')
        remote.write('f', b'new')
        volume.remove_file('f')
        assert remote.names() == []
        assert remote.kept() == []

    def test_a_removal_that_fails_leaves_what_was_acknowledged(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'old')
        remote.write('f', b'new')
        remote.backend.fail('remove_file', BROKEN)
        with pytest.raises(StorageIOError):
            volume.remove_file('f')
        assert remote.kept() == [b'new']
        volume.sync('')
        assert remote.content('f') == b'new'

    def test_a_file_that_waits_moves_over_one_that_is_there(self, remote: Remote, volume: Volume) -> None:
        """How editors save."""
        remote.put('f', b'old')
        remote.write('f.tmp', b'new')
        volume.rename('f.tmp', 'f')
        assert names(volume) == {'f': 3}
        assert remote.read('f') == b'new'
        assert remote.content('f') == b'old'
        volume.sync('')
        assert remote.names() == ['f']
        assert remote.content('f') == b'new'

    def test_a_file_that_waits_moves_over_another_that_waits(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'old')
        remote.write('f', b'newer')
        remote.write('f.tmp', b'newest')
        volume.rename('f.tmp', 'f')
        assert remote.kept() == [b'newest']
        volume.sync('')
        assert remote.names() == ['f']
        assert remote.content('f') == b'newest'

    def test_a_directory_with_files_that_wait(self, remote: Remote, volume: Volume) -> None:
        volume.make_directory('d')
        remote.write('d/a', b'a')
        volume.rename('d', 'e')
        assert names(volume, 'e') == {'a': 1}
        assert remote.content('e/a') == b'a'

    def test_a_directory_with_files_that_wait_is_not_empty(self, remote: Remote, volume: Volume) -> None:
        volume.make_directory('d')
        remote.write('d/a', b'a')
        with pytest.raises(OSError, match='not empty'):
            volume.remove_directory('d')


class TestTheNextProcess:
    """What a process that is gone has acknowledged. It is gone once its journal is let go of, as at its end."""

    def crash(self, remote: Remote, backend: Backend | None = None) -> Volume:
        assert remote.volume._changes.journal is not None
        remote.volume._changes.journal.close()
        remote.volume = remote.another_volume(backend)
        return remote.volume

    def test_shows_and_uploads_it(self, remote: Remote) -> None:
        remote.write('d/f', b'precious')
        volume = self.crash(remote)
        assert names(volume, 'd') == {'f': 8}
        assert remote.read('d/f') == b'precious'
        volume.sync('')
        assert remote.content('d/f') == b'precious'
        assert remote.kept() == []

    def test_even_if_it_has_another_durability(self, remote: Remote) -> None:
        remote.write('f', b'precious')
        remote.definition = type(remote.definition)(name='other')
        volume = self.crash(remote)
        volume.sync('')
        assert remote.content('f') == b'precious'

    def test_does_not_double_what_had_arrived(self, remote: Remote) -> None:
        remote.write('f', b'precious')
        remote.store.put('f', BytesSource(b'precious'))  # the upload came just before the end
        self.crash(remote).sync('')
        assert remote.names() == ['f']
        assert remote.kept() == []

    def test_does_not_take_its_own_earlier_upload_for_somebody_elses(self, remote: Remote) -> None:
        remote.write('f', b'first')
        remote.backend.fail('put', BROKEN, after=True)
        with pytest.raises(StorageIOError):
            remote.volume.sync('')
        with pytest.raises(StorageIOError):
            remote.write('f', b'second')
        self.crash(remote).sync('')
        assert remote.names() == ['f']
        assert remote.content('f') == b'second'
        assert remote.kept() == []

    def test_keeps_it_beside_what_somebody_else_has_put_there(self, remote: Remote) -> None:
        remote.write('f', b'ours')
        remote.put('f', b'theirs')
        volume = self.crash(remote)
        with pytest.raises(StorageConflictError):
            volume.sync('')
        assert sorted(remote.content(name) for name in remote.names()) == [b'ours', b'theirs']

    def test_writes_on_where_it_ended(self, remote: Remote) -> None:
        remote.write('f', b'one ')
        volume = self.crash(remote)
        writer = volume.open_write('f', create=False)
        writer.write(4, b'two')
        writer.close()
        assert sorted(remote.kept()) == [b'one ', b'one two']  # the one may have arrived, the other waits
        volume.sync('')
        assert remote.content('f') == b'one two'
        assert remote.names() == ['f']

    def test_retries_what_was_parked_only_when_it_is_asked_to(self, remote: Remote) -> None:
        remote.definition = type(remote.definition)(name='m')
        volume = self.crash(remote)
        remote.backend.fail('put', BROKEN)
        with pytest.raises(StorageIOError):
            remote.write('f', b'parked')
        assert remote.kept() == [b'parked']
        volume = self.crash(remote)
        volume.sync('')
        assert remote.names() == []
        volume.retry_parked('')
        assert remote.content('f') == b'parked'
        assert remote.kept() == []

    def test_asks_for_what_was_parked_a_backend_that_was_given_up(self, remote: Remote) -> None:
        remote.definition = type(remote.definition)(name='m')
        self.crash(remote)
        remote.backend.fail('put', BROKEN)
        with pytest.raises(StorageIOError):
            remote.write('f', b'parked')
        guarded = GuardedBackend(remote.backend, remote.clock, 30, remote.clock.advance)
        volume = self.crash(remote, guarded)
        remote.backend.fail_always('remove_file', StorageUnavailableError('connection refused'))
        for _ in range(THRESHOLD):
            with pytest.raises(StorageUnavailableError, match='refused'):
                guarded.remove_file('other')
        with pytest.raises(StorageUnavailableError, match='did not answer lately'):
            guarded.remove_file('other')
        volume.retry_parked('')
        assert remote.content('f') == b'parked'

    def test_a_sync_asks_a_backend_that_did_not_answer_lately_if_anything_waits(self, remote: Remote) -> None:
        remote.write('d/f', b'waits')
        guarded = GuardedBackend(remote.backend, remote.clock, 30, remote.clock.advance)
        volume = self.crash(remote, guarded)
        remote.backend.fail_always('remove_file', StorageUnavailableError('connection refused'))
        for _ in range(THRESHOLD):
            with pytest.raises(StorageUnavailableError, match='refused'):
                guarded.remove_file('other')
        volume.sync('another')
        with pytest.raises(StorageUnavailableError, match='did not answer lately'):
            guarded.remove_file('other')
        volume.sync('d')
        assert remote.content('d/f') == b'waits'

    def test_completes_a_removal_that_had_begun(self, remote: Remote) -> None:
        remote.put('f', b'old')
        remote.write('f', b'new')
        remote.backend.fail('remove_file', KeyboardInterrupt(), after=True)  # type: ignore[arg-type]
        journal = remote.volume._changes.journal
        assert journal is not None
        dropped, journal.drop = journal.drop, lambda held: None  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            remote.volume.remove_file('f')
        journal.drop = dropped  # type: ignore[method-assign]
        volume = self.crash(remote)
        assert names(volume) == {}
        assert remote.volume._changes.recovery is not None
        remote.volume._changes.recovery.drain(WAIT_S)
        assert remote.names() == []
        assert remote.kept() == []

    def test_keeps_a_conflict_copy_only_once(self, remote: Remote) -> None:
        remote.write('f', b'ours')
        remote.put('f', b'theirs')
        acknowledgements = remote.volume._changes.acknowledgements
        acknowledgements.drop = lambda done: None  # type: ignore[method-assign]  # killed before
        with pytest.raises(StorageConflictError):
            remote.volume.sync('')
        remote.clock.advance(100)
        with pytest.raises(StorageConflictError):
            self.crash(remote).sync('')
        assert sorted(remote.content(name) for name in remote.names()) == [b'ours', b'theirs']
        assert remote.kept() == []

    def test_does_not_take_what_an_upload_has_superseded_for_a_file_of_its_own(self, remote: Remote) -> None:
        remote.write('f', b'first')
        stall = remote.backend.stall('put')
        sync = Thread(lambda: remote.volume.sync(''))
        stall.wait_until_reached()
        remote.write('f', b'second')
        remote.volume._changes.acknowledgements.drop = lambda done: None  # type: ignore[method-assign]  # killed before
        stall.release()
        sync.result()
        self.crash(remote).sync('')
        assert remote.names() == ['f']
        assert remote.content('f') == b'second'

    def test_a_directory_that_moves_with_files_that_wait_can_be_written_to(self, remote: Remote) -> None:
        remote.volume.make_directory('d')
        remote.write('d/f', b'first')
        remote.volume.rename('d', 'e')
        remote.write('e/f', b'second')
        remote.volume.sync('')
        assert remote.content('e/f') == b'second'

    @pytest.mark.parametrize('closed', [True, False])
    def test_does_not_bring_back_what_a_rename_has_replaced(self, remote: Remote, closed: bool) -> None:
        remote.put('f', b'old')
        remote.write('f', b'newer')
        writer = open_new(remote.volume, 'f.tmp', b'newest')
        if closed:
            writer.close()
        remote.volume._changes.acknowledgements.drop = lambda done: None  # type: ignore[method-assign]  # killed before
        remote.volume.rename('f.tmp', 'f')
        self.crash(remote).sync('')
        assert remote.names() == ['f']
        assert remote.content('f') == b'newest'


def test_a_file_that_waits_moves_into_a_directory_that_is_only_here(remote: Remote, volume: Volume) -> None:
    remote.write('d/f', b'first')
    remote.write('g', b'second')
    volume.rename('g', 'd/g')
    assert names(volume, 'd') == {'f': 5, 'g': 6}
    volume.sync('')
    assert remote.content('d/g') == b'second'
