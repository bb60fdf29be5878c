"""Small files and listings that are fetched before a program asks for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.cache.blocks import BLOCK_BYTES
from genro_storage.errors import (
    StorageError,
    StorageIOError,
    StorageNotFoundError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.reading.neighbours import OF_EACH_BYTES
from genro_storage.runtime import WouldBlock
from genro_storage.testing import BytesSource
from tests.unit.volumes import WAIT_S, Remote, Thread, serving_thread


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    remote = Remote(tmp_path)
    yield remote
    assert remote.volume.close(WAIT_S)


def fill(remote: Remote, directories: int = 3, files: int = 50, size_bytes: int = 10) -> None:
    for directory in range(directories):
        for file in range(files):
            remote.put(f'd{directory}/f{file:02}', bytes([file]) * size_bytes)


def settle(remote: Remote) -> None:
    """What is being fetched ahead has arrived."""
    done = [remote.volume._fetchers.submit(lambda: None) for _ in range(100)]
    for future in done:
        future.result(WAIT_S)
    assert remote.volume._fetchers.close(WAIT_S)
    remote.volume._fetchers.after_fork()


class TestFiles:
    def test_who_reads_one_file_after_the_other_waits_only_for_the_first(self, remote: Remote) -> None:
        fill(remote)
        remote.volume.list_directory('d0')
        waited = 0
        for file in range(50):
            before = remote.backend.calls('read_range')
            reader = remote.volume.open_read(f'd0/f{file:02}')
            settle(remote)
            ahead = remote.backend.calls('read_range')
            assert bytes(reader.read(0, 100)) == bytes([file]) * 10
            waited += remote.backend.calls('read_range') - ahead
            assert ahead - before <= 64
            reader.close()
        assert waited <= 3
        assert remote.backend.calls('read_range') == 50

    def test_in_the_next_directory_even_that_is_there_once_it_is_listed(self, remote: Remote) -> None:
        fill(remote)
        for directory in ('d0', 'd1'):
            remote.volume.list_directory(directory)
            settle(remote)
            for file in range(50):
                remote.read(f'{directory}/f{file:02}')
                settle(remote)
        assert remote.backend.calls('read_range') == 100
        remote.volume.list_directory('d2')
        settle(remote)
        before = remote.backend.calls('read_range')
        assert before > 100
        remote.read('d2/f00')
        assert remote.cache.size_bytes >= 10 * before

    def test_a_program_that_picks_files_gets_no_others(self, remote: Remote) -> None:
        fill(remote)
        remote.volume.list_directory('d0')
        for file in (30, 2, 44, 13, 25, 7, 39):
            remote.read(f'd0/f{file:02}')
        settle(remote)
        assert remote.backend.calls('read_range') == 7

    def test_of_a_large_file_only_the_beginning(self, remote: Remote) -> None:
        fill(remote, directories=1, files=8, size_bytes=OF_EACH_BYTES + 3 * BLOCK_BYTES)
        remote.volume.list_directory('d0')
        for file in range(3):
            remote.volume.open_read(f'd0/f{file:02}')
        settle(remote)
        assert remote.cache.size_bytes == remote.backend.calls('read_range') * OF_EACH_BYTES > 0

    def test_together_no_more_than_one_reader_may_have_ahead(self, remote: Remote) -> None:
        fill(remote, directories=1, files=50, size_bytes=OF_EACH_BYTES)
        remote.cache.limit_bytes = 4 * OF_EACH_BYTES
        remote.volume.list_directory('d0')
        for file in range(3):
            remote.volume.open_read(f'd0/f{file:02}')
        settle(remote)
        assert remote.backend.calls('read_range') == 2

    def test_a_failure_is_met_by_who_reads_and_by_nobody_else(self, remote: Remote) -> None:
        fill(remote)
        remote.volume.list_directory('d0')
        remote.backend.fail_always('read_range', StorageIOError('broken'))
        for file in range(4):
            remote.volume.open_read(f'd0/f{file:02}')
        settle(remote)
        assert remote.backend.calls('read_range') > 0
        with pytest.raises(StorageIOError):
            remote.read('d0/f05')
        remote.backend.heal()
        assert remote.read('d0/f05') == bytes([5]) * 10

    def test_a_file_that_changed_since_the_listing_is_read_as_it_is(self, remote: Remote) -> None:
        fill(remote)
        remote.volume.list_directory('d0')
        remote.put('d0/f04', b'another')
        for file in range(4):
            remote.read(f'd0/f{file:02}')
        settle(remote)
        remote.clock.advance(100)
        assert remote.read('d0/f04') == b'another'


class TestListings:
    def test_who_walks_a_tree_has_the_next_directories_listed_ahead(self, remote: Remote) -> None:
        fill(remote, directories=40, files=2)
        names = sorted(entry.name for entry in remote.volume.list_directory('')[0])
        waited = 0
        for name in names:
            settle(remote)
            waited += remote.volume._entries.find(f'{name}/f00') is None
            assert len(remote.volume.list_directory(name)[0]) == 2
        settle(remote)
        assert remote.backend.calls('list_directory') == 41
        assert 1 <= waited <= 3

    def test_and_the_first_of_those_below_once_it_is_believed(self, remote: Remote) -> None:
        fill(remote, directories=40, files=1)
        for number in range(10):
            remote.put(f'z/deeper{number}/f', b'')
        for entry in sorted(entry.name for entry in remote.volume.list_directory('')[0]):
            remote.volume.list_directory(entry)
            settle(remote)
        before = remote.backend.calls('list_directory')
        assert before > 42
        remote.volume.list_directory('z/deeper0')
        assert remote.backend.calls('list_directory') - before <= 4

    def test_with_a_ttl_too_short_to_be_of_use_nothing_is(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path, ttl_s=0.0)
        fill(remote, directories=40, files=1)
        remote.volume.list_directory('')
        for number in range(40):
            remote.volume.list_directory(f'd{number}')
        settle(remote)
        assert remote.backend.calls('list_directory') == 41
        assert remote.volume.close(WAIT_S)

    def test_those_who_ask_at_once_ask_the_backend_once(self, remote: Remote) -> None:
        fill(remote)
        stall = remote.backend.stall('list_directory')
        asking = [Thread(lambda: remote.volume.list_directory('d1')) for _ in range(5)]
        stall.wait_until_reached()
        stall.release()
        assert [len(thread.result()[0]) for thread in asking] == [50] * 5
        assert remote.backend.calls('list_directory') == 1

    def test_who_asks_after_a_change_is_not_told_what_was_asked_for_before(self, remote: Remote) -> None:
        fill(remote, directories=1, files=1)
        stall = remote.backend.stall('list_directory')
        before = Thread(lambda: remote.volume.list_directory('d0'))
        stall.wait_until_reached()
        remote.volume.remove_file('d0/f00')
        after = Thread(lambda: remote.volume.list_directory('d0'))
        stall.release()
        before.result()
        assert after.result()[0] == []

    @pytest.mark.parametrize('error', [StorageIOError('broken'), StorageNotFoundError('nothing is there')])
    def test_a_failure_reaches_all_who_wait_for_it(self, remote: Remote, error: StorageError) -> None:
        fill(remote)
        remote.backend.fail_always('list_directory', error)
        for _ in range(2):
            with pytest.raises(type(error)):
                remote.volume.list_directory('d0')
        remote.backend.heal()
        assert len(remote.volume.list_directory('d0')[0]) == 50

    def test_who_waits_for_what_somebody_else_lists_gives_up_at_last(self, tmp_path: Path) -> None:
        remote = Remote(tmp_path, timeout_s=0.001)
        fill(remote, directories=1)
        stall = remote.backend.stall('list_directory')
        first = Thread(lambda: remote.volume.list_directory('d0'))
        stall.wait_until_reached()
        with pytest.raises(StorageTimeoutError, match=r"'d0'.*0\.01 s"):
            remote.volume.list_directory('d0')
        stall.release()
        assert len(first.result()[0]) == 50
        assert remote.volume.close(WAIT_S)

    def test_a_failure_ahead_is_met_by_who_lists_there(self, remote: Remote) -> None:
        fill(remote, directories=10, files=1)
        remote.volume.list_directory('')
        remote.volume.list_directory('d0')
        remote.volume.list_directory('d1')
        remote.backend.fail_always('list_directory', StorageUnavailableError('away'))
        with pytest.raises(StorageUnavailableError):
            remote.volume.list_directory('d2')
        settle(remote)
        remote.backend.heal()
        assert len(remote.volume.list_directory('d3')[0]) == 1

    def test_a_serving_thread_lists_what_is_known_and_waits_for_nothing(self, remote: Remote) -> None:
        fill(remote)
        remote.volume.list_directory('d0')
        with serving_thread() as call:
            assert len(call(lambda: remote.volume.list_directory('d0'))[0]) == 50
            with pytest.raises(WouldBlock):
                call(lambda: remote.volume.list_directory('d1'))


def test_what_is_put_meanwhile_is_a_new_version(remote: Remote) -> None:
    fill(remote)
    remote.volume.list_directory('d0')
    for file in range(4):
        remote.read(f'd0/f{file:02}')
    settle(remote)
    entry = remote.store.put('d0/f05', BytesSource(b'new'))
    remote.clock.advance(100)
    assert remote.volume.stat('d0/f05').version == entry.version
    assert remote.read('d0/f05') == b'new'
