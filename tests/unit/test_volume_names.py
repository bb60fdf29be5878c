"""Changes of names in a live mount: what becomes of files that are open, and of what is believed."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from genro_storage.backend_volume import BackendVolume
from genro_storage.backends.local import LocalBackend
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.config import LocalDefinition
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
)
from genro_storage.runtime import SystemClock
from genro_storage.volume import Volume
from tests.unit.volumes import REMOTE, WAIT_S, Remote, Thread, names, open_new

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


class TestRemoving:
    def test_a_removed_file_goes_on_for_who_has_it_open_and_never_comes_back(
        self, remote: Remote, volume: Volume
    ) -> None:
        remote.put('f', b'old')
        writer = volume.open_write('f', create=False)
        writer.write(0, b'NEW')
        reader = volume.open_read('f')
        volume.remove_file('f')
        assert volume.find('f').entry is None
        assert names(volume) == {}
        assert reader.read(0, 10) == b'NEW'
        writer.write(3, b'!')
        writer.flush()
        assert writer.read(0, 10) == b'NEW!'
        writer.close()
        reader.close()
        assert remote.names() == []
        assert remote.kept() == []

    def test_a_file_that_nobody_has_committed_yet(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        volume.remove_file('f')
        writer.close()
        assert volume.find('f').entry is None
        assert remote.names() == []

    def test_a_file_whose_commit_had_an_answer_that_was_lost(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        remote.backend.fail('put', BROKEN, after=True)
        with pytest.raises(StorageIOError):
            writer.flush()
        volume.remove_file('f')
        writer.close()
        assert remote.names() == []

    def test_a_name_may_be_used_again_while_the_old_file_is_open(self, remote: Remote, volume: Volume) -> None:
        old = open_new(volume, 'f', b'old')
        volume.remove_file('f')
        new = open_new(volume, 'f', b'new')
        old.write(3, b'er')
        old.close()
        assert remote.names() == []
        new.close()
        assert remote.content('f') == b'new'

    def test_a_removal_waits_for_the_commit_under_way(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        stall = remote.backend.stall('put')
        commit = Thread(writer.flush)
        stall.wait_until_reached()
        removal = Thread(lambda: volume.remove_file('f'))
        stall.release()
        commit.result()
        removal.result()
        assert volume.find('f').entry is None
        assert remote.names() == []
        writer.close()
        assert remote.names() == []

    def test_a_file_that_appears_during_a_removal_is_not_orphaned(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'old')
        stall = remote.backend.stall('remove_file')
        removal = Thread(lambda: volume.remove_file('f'))
        stall.wait_until_reached()
        remote.store.remove_file('f')
        volume._entries.forget('')
        writer = open_new(volume, 'f', b'new')
        writer.close()
        writer = volume.open_write('f', create=False, append=True)
        writer.write(0, b'er')
        remote.put('f', b'new')  # which the removal under way takes
        stall.release()
        removal.result()
        with pytest.raises(StorageConflictError):
            writer.close()
        assert [remote.content(name) for name in remote.names()] == [b'newer']

    def test_what_is_there_after_a_removal_and_a_creation_at_once_is_asked_for(
        self, remote: Remote, volume: Volume
    ) -> None:
        remote.put('f', b'old')
        removed = remote.backend.inner.remove_file

        def remove_and_be_overtaken(path: str, **known: bool) -> None:
            removed(path, **known)
            remote.backend.inner.remove_file = removed  # type: ignore[method-assign]
            writer = volume.replace(path)
            writer.write(0, b'new')
            writer.close()

        remote.backend.inner.remove_file = remove_and_be_overtaken  # type: ignore[method-assign]
        volume.remove_file('f')
        assert volume.stat('f').size_bytes == 3

    def test_only_a_certain_version(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        version = volume.stat('f').version
        remote.put('f', b'2')
        with pytest.raises(StorageConflictError, match='stays'):
            volume.remove_file('f', expected=version)
        assert remote.content('f') == b'2'
        volume.remove_file('f', expected=remote.store.stat('f').version)
        assert remote.names() == []

    def test_what_is_not_there_or_no_file(self, remote: Remote, volume: Volume) -> None:
        remote.put('d/f', b'1')
        with pytest.raises(StorageNotFoundError):
            volume.remove_file('absent')
        with pytest.raises(StorageIsADirectoryError):
            volume.remove_file('d')
        with pytest.raises(StorageNotADirectoryError):
            volume.remove_directory('d/f')
        with pytest.raises(StorageNotEmptyError):
            volume.remove_directory('d')

    def test_a_directory_with_an_uncommitted_file_is_not_empty(self, remote: Remote, volume: Volume) -> None:
        volume.make_directory('d')
        writer = open_new(volume, 'd/f', b'1')
        with pytest.raises(StorageNotEmptyError):
            volume.remove_directory('d')
        writer.close()
        assert remote.content('d/f') == b'1'
        volume.remove_file('d/f')
        volume.remove_directory('d')
        assert names(volume) == {}

    def test_a_failure_may_have_done_it(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        remote.put('d/g', b'1')
        volume.list_directory('')
        remote.backend.fail('remove_file', BROKEN, after=True)
        with pytest.raises(StorageIOError):
            volume.remove_file('f')
        assert names(volume) == {'d': 0}


class TestDirectories:
    def test_are_made_once(self, remote: Remote, volume: Volume) -> None:
        volume.make_directory('d')
        assert volume.stat('d').is_directory
        for path in ('d', ''):
            with pytest.raises(StorageExistsError):
                volume.make_directory(path)
        with pytest.raises(StorageNotFoundError):
            volume.make_directory('no/such')
        remote.put('f', b'')
        with pytest.raises(StorageNotADirectoryError):
            volume.make_directory('f/x')

    def test_not_where_a_file_is_being_written(self, volume: Volume) -> None:
        writer = open_new(volume, 'f')
        with pytest.raises(StorageExistsError):
            volume.make_directory('f')
        writer.abort()

    def test_that_somebody_else_has_made_are_known_after_the_refusal(self, remote: Remote, volume: Volume) -> None:
        assert volume.find('d').entry is None
        remote.store.make_directory('d')
        with pytest.raises(StorageExistsError):
            volume.make_directory('d')
        assert volume.stat('d').is_directory


class TestRenaming:
    def test_a_file_that_is_closed_while_it_moves_is_there_under_its_new_name(
        self, remote: Remote, volume: Volume
    ) -> None:
        writer = open_new(volume, 'a', b'content')
        writer.flush()
        stall = remote.backend.stall('rename')
        rename = Thread(lambda: volume.rename('a', 'b'))
        stall.wait_until_reached()
        writer.close()
        stall.release()
        rename.result()
        reader = volume.open_read('b')
        assert reader.read(0, 10) == b'content'
        reader.close()
        writer = volume.open_write('b', create=False, append=True)
        writer.write(0, b', and more')
        writer.close()
        assert remote.content('b') == b'content, and more'

    def test_a_file_with_open_handles(self, remote: Remote, volume: Volume) -> None:
        remote.put('a', b'old')
        writer = volume.open_write('a', create=False)
        writer.write(0, b'NEW')
        volume.rename('a', 'b')
        assert volume.find('a').entry is None
        assert volume.stat('b').size_bytes == 3
        writer.write(3, b'!')
        assert remote.read('b') == b'NEW!'
        writer.close()
        assert remote.content('b') == b'NEW!'
        assert remote.names() == ['b']

    def test_a_file_that_is_open_and_was_not_read_yet(self, remote: Remote, volume: Volume) -> None:
        remote.put('d/a', b'old')
        writer = volume.open_write('d/a', create=False, append=True)
        volume.rename('d', 'e')
        writer.write(0, b'er')
        writer.close()
        assert remote.content('e/a') == b'older'

    def test_a_file_that_was_never_committed(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'a', b'1')
        volume.rename('a', 'b')
        assert names(volume) == {'b': 1}
        assert remote.backend.calls('put') == remote.backend.calls('rename') == 0
        writer.close()
        assert remote.names() == ['b']

    def test_a_file_that_was_never_committed_over_another(self, remote: Remote, volume: Volume) -> None:
        remote.put('b', b'old')
        writer = open_new(volume, 'a', b'1')
        volume.rename('a', 'b')
        assert remote.content('b') == b'old'
        writer.close()
        assert remote.names() == ['b']
        assert remote.content('b') == b'1'

    def test_what_others_put_over_the_name_of_a_file_that_was_never_committed_is_not_lost(
        self, remote: Remote, volume: Volume
    ) -> None:
        writer = open_new(volume, 'a', b'1')
        volume.rename('a', 'b')
        remote.put('b', b'theirs')
        with pytest.raises(StorageConflictError):
            writer.close()
        assert sorted(remote.content(name) for name in remote.names()) == [b'1', b'theirs']

    def test_a_directory_with_open_files(self, remote: Remote, volume: Volume) -> None:
        remote.put('d/deep/a', b'a')
        one = volume.open_write('d/deep/a', create=False)
        one.write(1, b'1')
        two = open_new(volume, 'd/b', b'b')
        beside = open_new(volume, 'dd', b'beside')
        volume.rename('d', 'e')
        one.write(2, b'2')
        two.write(1, b'2')
        for writer in (one, two, beside):
            writer.close()
        assert remote.content('e/deep/a') == b'a12'
        assert remote.content('e/b') == b'b2'
        assert remote.names() == ['dd', 'e']

    def test_versions_are_those_after_the_rename(self, tmp_path: Path) -> None:
        """On a local disk a rename changes the version of a file."""
        folder = tmp_path / 'files'
        folder.mkdir()
        definition = LocalDefinition(name='l', path=str(folder))
        backend = LocalBackend(folder)
        volume = BackendVolume(definition, backend, MemoryBlockCache(0), tmp_path / 'staging', SystemClock())
        writer = open_new(volume, 'a', b'1')
        volume.rename('a', 'b')
        writer.write(1, b'2')
        writer.close()
        assert (folder / 'b').read_bytes() == b'12'
        assert [path.name for path in folder.iterdir()] == ['b']

    def test_onto_a_file_that_is_open(self, remote: Remote, volume: Volume) -> None:
        remote.put('a', b'new')
        remote.put('b', b'old')
        writer = volume.open_write('b', create=False)
        writer.write(0, b'OLD')
        volume.rename('a', 'b')
        assert writer.read(0, 10) == b'OLD'
        assert remote.read('b') == b'new'
        writer.close()
        assert remote.content('b') == b'new'
        assert remote.names() == ['b']

    def test_onto_a_file_that_is_being_committed(self, remote: Remote, volume: Volume) -> None:
        remote.put('a', b'new')
        writer = open_new(volume, 'b', b'old')
        stall = remote.backend.stall('put')
        commit = Thread(writer.flush)
        stall.wait_until_reached()
        rename = Thread(lambda: volume.rename('a', 'b'))
        stall.release()
        commit.result()
        rename.result()
        writer.close()
        assert remote.content('b') == b'new'
        assert remote.names() == ['b']

    def test_onto_a_directory_with_an_uncommitted_file(self, remote: Remote, volume: Volume) -> None:
        volume.make_directory('d')
        volume.make_directory('e')
        writer = open_new(volume, 'e/f', b'1')
        with pytest.raises(StorageNotEmptyError):
            volume.rename('d', 'e')
        writer.close()
        assert remote.content('e/f') == b'1'

    def test_a_directory_onto_an_uncommitted_file(self, remote: Remote, volume: Volume) -> None:
        volume.make_directory('d')
        writer = open_new(volume, 'f', b'1')
        with pytest.raises(StorageNotADirectoryError):
            volume.rename('d', 'f')
        writer.close()
        assert remote.content('f') == b'1'

    def test_a_failure_leaves_handles_where_they_are(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'a', b'1')
        writer.flush()
        remote.backend.fail('rename', BROKEN)
        with pytest.raises(StorageIOError):
            volume.rename('a', 'b')
        writer.write(1, b'2')
        writer.close()
        assert remote.content('a') == b'12'
        assert remote.names() == ['a']

    def test_a_commit_that_fails_stops_it(self, remote: Remote, volume: Volume) -> None:
        remote.put('a', b'0')
        writer = volume.open_write('a', create=False)
        writer.write(0, b'1')
        remote.backend.fail('put', BROKEN)
        with pytest.raises(StorageIOError):
            volume.rename('a', 'b')
        assert remote.backend.calls('rename') == 0
        writer.close()
        assert remote.content('a') == b'1'

    def test_handles_move_though_the_backend_cannot_be_asked_afterwards(self, remote: Remote, volume: Volume) -> None:
        remote.put('a', b'1')
        writer = volume.open_write('a', create=False)
        writer.read(0, 1)
        stats = remote.backend.calls('stat')
        remote.backend.fail('stat', BROKEN, nth=2)
        volume.rename('a', 'b')
        assert remote.backend.calls('stat') == stats + 2
        writer.write(1, b'2')
        writer.close()
        assert remote.content('b') == b'12'

    def test_what_somebody_else_has_put_there_is_not_taken_for_our_base(self, remote: Remote, volume: Volume) -> None:
        remote.put('a', b'base')
        writer = volume.open_write('a', create=False)
        writer.read(0, 1)
        remote.put('a', b'theirs')
        volume.rename('a', 'b')
        writer.write(0, b'ours')
        with pytest.raises(StorageConflictError):
            writer.close()
        assert remote.content('b') == b'theirs'

    def test_two_at_once_of_a_file_and_its_directory(self, remote: Remote, volume: Volume) -> None:
        for number in range(30):
            remote.put(f'd{number}/x', b'1')
            remote.store.make_directory(f'e{number}')
            writer = volume.open_write(f'd{number}/x', create=False, append=True)
            renames = [
                Thread(lambda number=number: volume.rename(f'd{number}/x', f'e{number}/x')),  # type: ignore[misc]
                Thread(lambda number=number: volume.rename(f'd{number}', f'f{number}')),  # type: ignore[misc]
            ]
            for rename in renames:
                with suppress(StorageNotFoundError):  # the other one was first
                    rename.result()
            writer.write(0, b'2')
            writer.close()
            found = [
                remote.content(path)
                for path in (f'e{number}/x', f'f{number}/x')
                if volume._lookups.ask_anew(path).entry is not None  # past what is remembered
            ]
            assert found == [b'12']

    @pytest.mark.parametrize(('source', 'target'), [('d', 'd/x'), ('d', 'd/x/y')])
    def test_into_itself(self, remote: Remote, volume: Volume, source: str, target: str) -> None:
        remote.put('d/f', b'1')
        with pytest.raises(StoragePathError):
            volume.rename(source, target)

    def test_the_root_stays(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        for source, target in (('', 'x'), ('f', '')):
            with pytest.raises(StoragePermissionError):
                volume.rename(source, target)


class TestCopying:
    def test_a_file_under_change_is_committed_first(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'a', b'1')
        volume.copy('a', 'b')
        assert remote.content('b') == b'1'
        writer.close()

    def test_onto_a_file_that_is_open(self, remote: Remote, volume: Volume) -> None:
        remote.put('a', b'new')
        remote.put('b', b'old')
        writer = volume.open_write('b', create=False)
        volume.copy('a', 'b')
        assert remote.read('b') == b'new'
        writer.close()
        assert remote.content('b') == b'new'


class TestTimes:
    def test_are_kept_by_the_backend(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        volume.stat('f')
        assert volume.set_mtime('f', 5)
        assert volume.stat('f').mtime_ns == 5

    def test_of_a_file_under_change_come_with_its_commit(self, remote: Remote, volume: Volume) -> None:
        writer = open_new(volume, 'f', b'1')
        volume.set_mtime('f', 5)
        assert volume.stat('f').mtime_ns == 5
        writer.close()
        assert volume.stat('f').mtime_ns == remote.store.stat('f').mtime_ns == 5

    def test_of_an_open_file_that_was_not_changed(self, remote: Remote, volume: Volume) -> None:
        remote.put('f', b'1')
        writer = volume.open_write('f', create=False)
        volume.set_mtime('f', 5)
        assert volume.stat('f').mtime_ns == remote.store.stat('f').mtime_ns == 5
        writer.close()

    def test_setting_one_is_no_conflict_where_versions_are_made_of_it(self, tmp_path: Path) -> None:
        folder = tmp_path / 'files'
        folder.mkdir()
        definition = LocalDefinition(name='l', path=str(folder))
        backend = LocalBackend(folder)
        volume = BackendVolume(definition, backend, MemoryBlockCache(0), tmp_path / 'staging', SystemClock())
        writer = open_new(volume, 'f', b'1')
        volume.set_mtime('f', 5)
        writer.flush()
        assert (folder / 'f').stat().st_mtime_ns == 5
        writer.close()
        writer = volume.open_write('f', create=False)
        volume.set_mtime('f', 4)
        writer.write(1, b'2')
        writer.flush()
        volume.set_mtime('f', 6)
        writer.write(2, b'3')
        writer.close()
        assert (folder / 'f').read_bytes() == b'123'

    def test_a_backend_without_says_so(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path, msgspec.structs.replace(REMOTE, stores_mtime=False))
        remote.put('f', b'1')
        assert remote.volume.set_mtime('f', 5) is False
        assert remote.backend.calls('set_mtime') == 0
