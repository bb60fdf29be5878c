"""A live mount: what is believed, who may do what, and its end."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from genro_storage.backend_volume import RECENTLY_S
from genro_storage.config import Permissions
from genro_storage.entry import Entry
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageReadOnlyError,
    StorageTimeoutError,
)
from genro_storage.runtime import WouldBlock
from genro_storage.testing.contract import as_listed
from genro_storage.volume import Volume
from tests.unit.volumes import REMOTE, WAIT_S, Remote, Thread, names, open_new, serving_thread

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


class TestLooking:
    def test_a_connection_is_made_when_it_is_needed(self, remote: Remote) -> None:
        assert sum(remote.backend.calls(method) for method in ('stat', 'list_directory', 'usage')) == 0

    def test_within_the_ttl_the_backend_is_asked_once(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        for path in ('f', 'f', 'absent', 'absent'):
            volume.find(path)
        assert remote.backend.calls('stat') == 2
        remote.clock.advance(10)
        volume.find('f')
        assert remote.backend.calls('stat') == 3

    def test_a_listing_answers_stats(self, remote: Remote, volume: Volume) -> None:
        remote.put('d/f', b'1')
        volume.list_directory('d')
        assert volume.stat('d/f').size_bytes == 1
        assert volume.find('d/absent').entry is None
        assert remote.backend.calls('stat') == 0

    @pytest.mark.parametrize('error', [StorageTimeoutError('slow'), StorageIOError('broken')])
    def test_a_failure_is_neither_an_absence_nor_remembered(
        self, remote: Remote, volume: Volume, error: StorageError
    ) -> None:
        remote.put('f', b'1')
        remote.backend.fail_always('stat', error)
        for look in (volume.find, volume.stat, volume.open_read):
            with pytest.raises(type(error)):
                look('f')
        remote.backend.heal()
        assert volume.stat('f').size_bytes == 1

    def test_an_instant_backend_is_asked_each_time(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path, msgspec.structs.replace(REMOTE, instant=True))
        remote.put('f', b'1')
        assert remote.volume.stat('f').size_bytes == 1
        remote.put('f', b'12')
        assert remote.volume.stat('f').size_bytes == 2
        assert list(names(remote.volume)) == ['f']
        remote.put('g', b'')
        assert list(names(remote.volume)) == ['f', 'g']

    def test_an_answer_that_our_own_change_has_overtaken_is_not_believed(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        stall = remote.backend.stall('list_directory')
        asking = Thread(lambda: volume.list_directory(''))
        stall.wait_until_reached()
        volume.remove_file('f')
        stall.release()
        asking.result()
        assert volume.find('f').entry is None
        assert names(volume) == {}

    def test_a_file_that_is_committed_during_a_listing_is_in_it(self, remote: Remote, volume: Volume) -> None:
        """It was there before the listing began, and is still there after it."""

        class Late(list[Entry]):
            pass

        writer = open_new(volume, 'd/f', b'1')
        remote.put('d/other', b'')
        real = remote.backend.inner.list_directory

        def list_before_the_commit(path: str) -> Any:
            entries = Late(real(path))
            writer.close()
            return entries

        remote.backend.inner.list_directory = list_before_the_commit  # type: ignore[method-assign]
        assert names(volume, 'd') == {'f': 1, 'other': 0}


class TestFilesUnderChange:
    def test_everybody_sees_what_is_being_written(self, remote: Remote, volume: Volume) -> None:
        remote.put('d/f', b'old content')
        volume.list_directory('d')
        writer = volume.open_write('d/f', create=False)
        writer.write(0, b'NEW')
        reader = volume.open_read('d/f')
        assert reader.read(0, 100) == b'NEW content'
        writer.truncate(5)
        assert reader.size_bytes == 5
        assert volume.stat('d/f').size_bytes == 5
        assert volume.find('d/f').remaining_s == 0.0
        assert volume.list_directory('d')[1] == 0.0
        assert names(volume, 'd') == {'f': 5}
        assert remote.content('d/f') == b'old content'
        reader.close()
        writer.close()
        assert remote.content('d/f') == b'NEW c'

    def test_a_new_file_is_seen_before_it_is_committed(self, remote: Remote, volume: Volume) -> None:
        assert volume.find('f').entry is None
        writer = open_new(volume, 'f', b'1')
        assert names(volume) == {'f': 1}
        assert remote.names() == []
        writer.close()
        assert remote.names() == ['f']

    def test_handles_share_what_is_staged(self, remote: Remote, volume: Volume) -> None:
        one, two = open_new(volume), volume.open_write('f', create=True, append=True)
        one.write(0, b'12')
        two.write(0, b'3')
        assert one.read(0, 10) == b'123'
        one.close()
        assert remote.content('f') == b'123'
        two.write(0, b'4')
        two.close()
        assert remote.content('f') == b'1234'

    def test_many_handles_of_many_threads_are_one_file(self, remote: Remote, volume: Volume) -> None:
        def append(number: int) -> None:
            writer = volume.open_write('f', create=True, append=True)
            writer.write(0, b'%03d' % number)
            writer.close()

        first = open_new(volume)
        threads = [Thread(lambda number=number: append(number)) for number in range(30)]  # type: ignore[misc]
        for thread in threads:
            thread.result()
        first.close()
        content = remote.content('f')
        assert sorted(content[start : start + 3] for start in range(0, 90, 3)) == [b'%03d' % n for n in range(30)]
        assert remote.names() == ['f']

    def test_an_open_file_has_the_time_it_had(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        before = volume.stat('f').mtime_ns
        remote.clock.advance(100)
        writer = volume.open_write('f', create=False)
        assert volume.stat('f').mtime_ns == before
        writer.write(0, b'2')
        assert volume.stat('f').mtime_ns == remote.clock.time_ns()
        writer.close()

    def test_opening_reads_nothing_and_truncating_never_does(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', bytes(1000))
        volume.open_write('f', create=False).close()
        writer = volume.open_write('f', create=True, truncate=True)
        writer.write(0, b'new')
        writer.close()
        assert remote.backend.calls('read_range') == 0
        assert remote.content('f') == b'new'

    def test_truncating_through_a_second_handle(self, remote: Remote, volume: Volume) -> None:
        one = open_new(volume, 'f', b'12345')
        two = volume.open_write('f', create=False, truncate=True)
        assert one.size_bytes == 0
        two.close()
        one.close()
        assert remote.content('f') == b''

    def test_opening_what_is_not_there_or_no_file(self, remote: Remote, volume: Volume) -> None:
        remote.put('d/f', b'1')
        with pytest.raises(StorageNotFoundError):
            volume.open_write('absent', create=False)
        for path in ('', 'd'):
            with pytest.raises(StorageIsADirectoryError):
                volume.open_write(path, create=True)
            with pytest.raises(StorageIsADirectoryError):
                volume.open_read(path)
        with pytest.raises(StorageNotFoundError):
            volume.open_read('absent')

    def test_what_was_replaced_within_the_ttl_is_opened_as_it_is(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'old')
        volume.stat('f')
        remote.put('f', b'newer')
        writer = volume.open_write('f', create=False, append=True)
        writer.write(0, b'!')
        writer.close()
        assert remote.content('f') == b'newer!'
        remote.put('f', b'newest')
        writer = volume.open_write('f', create=False, truncate=True)
        writer.write(0, b'ours')
        writer.close()
        assert remote.content('f') == b'ours'
        assert remote.names() == ['f']


class TestExclusive:
    def test_takes_the_name_at_open(self, remote: Remote, volume: Volume) -> None:
        writer = volume.open_write('f', create=True, exclusive=True)
        assert remote.content('f') == b''
        with pytest.raises(StorageExistsError):
            volume.open_write('f', create=True, exclusive=True)
        writer.write(0, b'1')
        writer.close()
        with pytest.raises(StorageExistsError):
            volume.open_write('f', create=True, exclusive=True)
        assert remote.content('f') == b'1'

    def test_loses_against_somebody_else_whom_nobody_saw(self, remote: Remote, volume: Volume) -> None:
        assert volume.find('f').entry is None
        remote.put('f', b'theirs')
        with pytest.raises(StorageExistsError):
            volume.open_write('f', create=True, exclusive=True)
        assert volume.stat('f').size_bytes == 6
        assert remote.names() == ['f']


class TestPermissions:
    @pytest.mark.parametrize(
        ('permissions', 'change', 'allowed'),
        [
            (permissions, change, permissions in allowed_by)
            for change, allowed_by in {
                'open_write': ('readwrite', 'delete'),
                'replace': ('readwrite', 'delete'),
                'change': ('readwrite', 'delete'),
                'make_directory': ('readwrite', 'delete'),
                'copy': ('readwrite', 'delete'),
                'set_mtime': ('readwrite', 'delete'),
                'remove_file': ('delete',),
                'remove_directory': ('delete',),
                'rename': ('delete',),
            }.items()
            for permissions in ('readonly', 'readwrite', 'delete')
        ],
    )
    def test_of_every_change(self, tmp_path: Path, permissions: str, change: str, allowed: bool) -> None:
        remote = Remote(tmp_path, permissions=Permissions(permissions))
        remote.put('f', b'1')
        remote.store.make_directory('d')
        volume = remote.volume
        changes: dict[str, Callable[[], Any]] = {
            'open_write': lambda: volume.open_write('f', create=True).close(),
            'replace': lambda: volume.replace('f').close(),
            'change': lambda: volume.change('f', create=True).close(),
            'make_directory': lambda: volume.make_directory('new'),
            'copy': lambda: volume.copy('f', 'g'),
            'set_mtime': lambda: volume.set_mtime('f', 1),
            'remove_file': lambda: volume.remove_file('f'),
            'remove_directory': lambda: volume.remove_directory('d'),
            'rename': lambda: volume.rename('f', 'g'),
        }
        if allowed:
            changes[change]()
        else:
            kind = StorageReadOnlyError if permissions == 'readonly' else StoragePermissionError
            with pytest.raises(kind, match=permissions):
                changes[change]()
            assert remote.names() == ['d', 'f']
            assert remote.content('f') == b'1'


class TestClosing:
    def test_commits_what_is_open(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        private = volume.replace('g')
        private.write(0, b'nobody has closed it')
        committed: list[bytes] = []
        remote.backend.inner.close = lambda: committed.append(remote.content('f'))  # type: ignore[method-assign]
        assert volume.close(WAIT_S)
        assert committed == [b'1']
        assert remote.names() == ['f']
        writer.close()
        private.abort()

    def test_work_under_way_ends_first(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        stall = remote.backend.stall('stat')
        work = volume.workers.submit(lambda: volume.stat('f'))
        stall.wait_until_reached()
        close = Thread(lambda: volume.close(WAIT_S))
        stall.release()
        assert close.result() is True
        assert work.result(WAIT_S).size_bytes == 1

    def test_a_backend_that_is_stuck_does_not_hold_it(self, remote: Remote, volume: Volume) -> None:
        stall = remote.backend.stall('stat')
        work = volume.workers.submit(lambda: volume.find('f'))
        stall.wait_until_reached()
        assert volume.close(0.01) is False
        stall.release()
        work.result(WAIT_S)


def test_messages_name_the_mount_and_the_path(remote: Remote, volume: Volume) -> None:
    for attempt in (volume.stat, volume.open_read, lambda path: volume.open_write(path, create=False)):
        with pytest.raises(StorageNotFoundError, match='m:d/absent'):
            attempt('d/absent')


def test_nothing_is_logged_when_nothing_fails(remote: Remote, volume: Volume, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    remote.write('f', b'1')
    volume.rename('f', 'g')
    volume.remove_file('g')
    assert caplog.records == []


class TestTold:
    """Opening for somebody who was told of a version before."""

    def test_what_was_told_a_moment_ago_is_believed(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path)
        remote.put('f', b'first')
        remote.volume.stat('f')
        entry, reader = remote.volume.open_told('f')
        assert entry == as_listed(remote.store.stat('f'))
        assert remote.backend.calls('read_range') == 0
        reader.close()
        assert remote.volume.close(WAIT_S)

    def test_what_was_told_a_while_ago_is_checked_by_fetching_its_beginning(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path)
        remote.put('f', b'first')
        remote.volume.stat('f')
        remote.clock.advance(RECENTLY_S + 1)
        for _ in range(2):
            _, reader = remote.volume.open_told('f')
            assert remote.backend.calls('read_range') == 1
            assert bytes(reader.read(0, 10)) == b'first'
            reader.close()
        assert remote.backend.calls('read_range') == 1
        assert remote.volume.close(WAIT_S)

    def test_what_has_changed_since_is_a_conflict_and_then_known(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path)
        remote.put('f', b'first')
        remote.volume.stat('f')
        remote.clock.advance(RECENTLY_S + 1)
        remote.put('f', b'second')
        with pytest.raises(StorageConflictError):
            remote.volume.open_told('f')
        entry, reader = remote.volume.open_told('f')
        assert (entry.size_bytes, bytes(reader.read(0, 10))) == (6, b'second')
        reader.close()
        assert remote.volume.close(WAIT_S)

    def test_a_serving_thread_hands_that_over(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path)
        remote.put('f', b'first')
        remote.volume.stat('f')
        with serving_thread() as call:
            assert call(lambda: remote.volume.open_told('f')[0].size_bytes) == 5
            remote.clock.advance(RECENTLY_S + 1)
            with pytest.raises(WouldBlock):
                call(lambda: remote.volume.open_told('f'))
        assert remote.volume.close(WAIT_S)
