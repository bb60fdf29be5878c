"""Commits of a live mount: what others see of them, and that nothing acknowledged is lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
)
from genro_storage.runtime import WouldBlock
from genro_storage.testing.contract import as_listed
from genro_storage.volume import Volume
from genro_storage.writing.journal import folder_of
from tests.unit.volumes import WAIT_S, Remote, names, open_new, serving_thread

BROKEN = StorageIOError('broken')


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    remote = Remote(tmp_path)
    yield remote
    remote.backend.heal()
    remote.volume.close(WAIT_S)


@pytest.fixture
def volume(remote: Remote) -> Volume:
    return remote.volume


class TestCommits:
    def test_only_what_changed_is_committed(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        writer = volume.open_write('f', create=False)
        writer.read(0, 1)
        writer.flush()
        writer.close()
        assert remote.backend.calls('put') == 0

    def test_a_flush_is_not_a_close(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        for _ in range(5):
            writer.flush()
        assert remote.content('f') == b'1'
        assert remote.backend.calls('put') == 1
        writer.write(1, b'2')
        assert remote.content('f') == b'1'
        writer.close()
        writer.close()
        assert remote.content('f') == b'12'
        assert remote.backend.calls('put') == 2

    def test_the_time_that_a_commit_gave_is_shown_while_the_file_is_still_open(
        self, remote: Remote, volume: Volume
    ) -> None:
        writer = open_new(volume, 'f', b'1')
        remote.clock.advance(5)
        writer.flush()
        assert volume.stat('f').mtime_ns == remote.backend.inner.stat('f').mtime_ns
        writer.close()

    def test_the_close_of_a_reader_publishes_nothing(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'half of it')
        for _ in range(3):
            reader = volume.open_read('f')
            reader.read(0, 4)
            reader.close()
            reader.close()
        assert remote.names() == []
        writer.abort()

    def test_a_reader_may_outlive_the_writers(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        reader = volume.open_read('f')
        writer.close()
        assert reader.read(0, 10) == b'1'
        reader.close()
        assert remote.content('f') == b'1'

    @pytest.mark.parametrize('truncate', [False, True])
    def test_a_reader_keeps_what_was_there_when_the_last_writer_left(
        self, remote: Remote, volume: Volume, truncate: bool
    ) -> None:
        writer = open_new(volume, 'f', b'one')
        readers = [volume.open_read('f') for _ in range(2)]
        writer.write(3, b' two')
        assert readers[0].read(0, 10) == b'one two'
        writer.close()
        writer = volume.open_write('f', create=False, truncate=truncate)
        writer.write(0, b'THREE')
        late = volume.open_read('f')
        for reader in readers:
            assert reader.read(0, 10) == b'one two'
            assert reader.size_bytes == 7
        assert late.read(0, 10) == (b'THREE' if truncate else b'THREEwo')
        writer.close()
        for reader in (*readers, late):
            reader.close()

    def test_what_was_committed_is_known_at_once(self, remote: Remote, volume: Volume) -> None:
        assert names(volume) == {}
        remote.write('d/f', b'123')
        stats = remote.backend.calls('stat')
        assert volume.stat('d/f') == as_listed(remote.store.stat('d/f'))
        assert remote.backend.calls('stat') == stats
        assert names(volume) == {'d': 0}

    def test_a_serving_thread_does_not_commit_and_a_worker_does_it_again(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        with serving_thread() as call:
            for step in (writer.flush, writer.close):
                with pytest.raises(WouldBlock):
                    call(step)
        writer.close()
        assert remote.content('f') == b'1'
        assert remote.kept() == []

    def test_a_conflict_shows_everybody_the_winner(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'base')
        writer = volume.open_write('f', create=False)
        writer.write(0, b'ours')
        volume.list_directory('')
        remote.put('f', b'theirs')
        with pytest.raises(StorageConflictError, match='conflict-'):
            writer.flush()
        assert volume.stat('f').size_bytes == 6
        assert remote.read('f') == b'theirs'
        assert len(names(volume)) == 2
        writer.close()
        assert remote.content('f') == b'theirs'
        assert remote.kept() == []

    def test_who_goes_on_writing_after_a_conflict_loses_nothing(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'base')
        writer = volume.open_write('f', create=False)
        writer.write(0, b'ours')
        remote.put('f', b'theirs')
        with pytest.raises(StorageConflictError):
            writer.flush()
        remote.clock.advance(1)
        writer.write(4, b' and more')
        with pytest.raises(StorageConflictError):
            writer.close()
        assert remote.content('f') == b'theirs'
        kept = [remote.content(name) for name in remote.names() if name != 'f']
        assert kept == [b'ours', b'ours and more']


class TestFailedCommits:
    """What was written is kept in the journal, and the log says where."""

    def test_a_failed_commit_keeps_the_bytes_and_says_where(
        self, remote: Remote, volume: Volume, caplog: pytest.LogCaptureFixture
    ) -> None:
        writer = open_new(volume, 'f', b'precious')
        remote.backend.fail_always('put', BROKEN)
        with pytest.raises(StorageIOError):
            writer.close()
        assert remote.kept() == [b'precious']
        (path,) = remote.root.glob('*/*/*.data')
        assert str(path.parent) in caplog.text
        assert path.stem in caplog.text
        assert 'm:f' in caplog.text
        writer.close()
        assert len(remote.kept()) == 1

    def test_a_flush_may_fail_and_the_close_succeed(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'precious')
        remote.backend.fail('put', BROKEN)
        with pytest.raises(StorageIOError):
            writer.flush()
        assert remote.kept() == []
        writer.close()
        assert remote.content('f') == b'precious'
        assert remote.kept() == []

    @pytest.mark.parametrize('last', ['writer', 'reader', 'aborted'])
    def test_of_a_handle_that_is_not_the_last(self, remote: Remote, volume: Volume, last: str) -> None:
        """The bytes live as long as any handle does, and are kept when the last one that writes goes."""
        writer = open_new(volume, 'f')
        other: Any = volume.open_read('f') if last == 'reader' else volume.open_write('f', create=False)
        writer.write(0, b'precious')
        remote.backend.fail_always('put', BROKEN)
        with pytest.raises(StorageIOError):
            writer.close()
        assert remote.kept() == ([b'precious'] if last == 'reader' else [])
        assert other.read(0, 100) == b'precious'
        if last == 'writer':
            with pytest.raises(StorageIOError):
                other.close()
        elif last == 'reader':
            other.close()
        else:
            other.abort()
        assert remote.kept() == [b'precious']

    def test_another_handle_may_commit_it_after_all(self, remote: Remote, volume: Volume) -> None:
        one, two = open_new(volume, 'f', b'precious'), volume.open_write('f', create=False)
        remote.backend.fail('put', BROKEN)
        with pytest.raises(StorageIOError):
            one.close()
        two.close()
        assert remote.content('f') == b'precious'
        assert remote.kept() == []

    def test_an_interrupt_keeps_it_too(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'precious')
        remote.backend.fail('put', KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            writer.close()
        assert remote.kept() == [b'precious']

    def test_at_the_end_of_the_volume(self, remote: Remote, volume: Volume, caplog: pytest.LogCaptureFixture) -> None:
        writers = [open_new(volume, path, path.encode()) for path in ('a', 'b')]
        remote.backend.fail('put', BROKEN)
        assert volume.close(WAIT_S)
        assert len(remote.kept()) == 1
        assert 'm:a' in caplog.text
        for writer in writers:
            writer.abort()

    def test_a_folder_that_has_gone_is_said_and_hides_no_other_error(
        self, remote: Remote, volume: Volume, caplog: pytest.LogCaptureFixture
    ) -> None:
        writer = open_new(volume, 'f', b'precious')
        (remote.root / folder_of(remote.backend.destination)).write_text('in the way')
        remote.backend.fail_always('put', BROKEN)
        with pytest.raises(StorageIOError, match='broken'):
            writer.close()
        assert 'could not be kept' in caplog.text

    def test_what_failed_is_asked_for_again(self, remote: Remote, volume: Volume) -> None:
        assert volume.find('f').entry is None
        writer = open_new(volume, 'f', b'1')
        remote.backend.fail('put', BROKEN, after=True)
        with pytest.raises(StorageIOError):
            writer.close()
        assert volume.stat('f').size_bytes == 1  # the answer was lost, the file was not


class TestPrivateWriters:
    def test_are_seen_when_they_are_closed(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'old')
        writer = volume.replace('f')
        writer.write(0, b'newer')
        assert remote.read('f') == b'old'
        writer.close()
        assert remote.read('f') == b'newer'

    def test_publish_nothing_when_they_are_aborted(self, remote: Remote, volume: Volume) -> None:
        for writer in (volume.replace('f'), volume.change('f', create=True), volume.replace('f', exclusive=True)):
            writer.write(0, b'1')
            writer.abort()
            writer.close()
        assert remote.names() == []
        assert remote.kept() == []

    def test_a_failed_close_is_reported_and_keeps_what_was_written(self, remote: Remote, volume: Volume) -> None:
        writer = volume.replace('f')
        writer.write(0, b'precious')
        remote.backend.fail('put', BROKEN)
        with pytest.raises(StorageIOError):
            writer.close()
        assert remote.kept() == [b'precious']

    def test_of_two_changes_at_once_the_second_is_refused(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'base')
        one, two = volume.change('f', create=False), volume.change('f', create=False)
        one.write(4, b'1')
        two.write(4, b'2')
        one.close()
        with pytest.raises(StorageConflictError):
            two.close()
        assert remote.content('f') == b'base1'
        assert remote.names() == ['f']

    def test_a_change_begins_with_what_is_being_written_elsewhere(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'0123456789')
        shared = volume.open_write('f', create=False)
        shared.truncate(0)
        shared.write(0, b'short')
        private = volume.change('f', create=False)
        private.write(private.size_bytes, b'!')
        private.close()
        assert remote.content('f') == b'short!'
        shared.close()
        assert remote.content('f') == b'short!'

    def test_a_new_content_is_seen_by_who_opens_next_though_an_older_is_open(
        self, remote: Remote, volume: Volume
    ) -> None:
        remote.put('f', b'old')
        idle = volume.open_write('f', create=False)
        assert idle.read(0, 10) == b'old'
        private = volume.replace('f')
        private.write(0, b'newer')
        private.close()
        assert remote.read('f') == b'newer'
        assert volume.stat('f').size_bytes == 5
        assert idle.read(0, 10) == b'old'
        idle.close()
        assert remote.content('f') == b'newer'

    def test_an_older_one_that_was_changed_loses_nothing_and_overwrites_nothing(
        self, remote: Remote, volume: Volume
    ) -> None:
        remote.put('f', b'old')
        shared = volume.open_write('f', create=False)
        shared.write(0, b'OLD')
        private = volume.replace('f')
        private.write(0, b'newer')
        private.close()
        with pytest.raises(StorageConflictError):
            shared.close()
        assert remote.content('f') == b'newer'
        assert sorted(remote.content(name) for name in remote.names()) == [b'OLD', b'newer']
