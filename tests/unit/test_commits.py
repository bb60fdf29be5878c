"""Commits: the condition, and the copy that a conflict leaves."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.backends.base import ABSENT, Expected
from genro_storage.errors import StorageConflictError, StorageExistsError, StorageIOError
from genro_storage.paths import NAME_MAX_BYTES, encode
from genro_storage.runtime import WouldBlock
from genro_storage.writing.staging import StagedFile
from genro_storage.writing.uploader import conflict_name
from tests.unit.volumes import Remote, Thread, serving_thread


class Setup(Remote):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.commits = self.volume._commits
        self.staged: list[StagedFile] = []

    def stage(self, path: str, expected: Expected, data: bytes = b'ours') -> StagedFile:
        staged = StagedFile(path, self.staging, self.clock, expected, None)
        staged.write(0, data)
        self.staged.append(staged)
        return staged


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path)
    yield setup
    for staged in setup.staged:
        staged.close()


def test_a_commit_stores_and_later_ones_build_on_it(setup: Setup) -> None:
    staged = setup.stage('d/f', ABSENT)
    setup.commits.commit(staged)
    assert setup.content('d/f') == b'ours'
    assert staged.expected == setup.store.stat('d/f').version
    assert not staged.dirty
    staged.write(4, b'!')
    setup.commits.commit(staged)
    assert setup.content('d/f') == b'ours!'


def test_what_is_clean_or_orphaned_is_not_committed(setup: Setup) -> None:
    staged = setup.stage('f', ABSENT)
    staged.orphaned = True
    setup.commits.commit(staged)
    assert setup.backend.calls('put') == 0
    staged.orphaned = False
    setup.commits.commit(staged)
    setup.commits.commit(staged)
    assert setup.backend.calls('put') == 1


def test_none_replaces_whatever_is_there(setup: Setup) -> None:
    setup.put('f', b'theirs')
    setup.commits.commit(setup.stage('f', None), keep_conflict=False)
    assert setup.content('f') == b'ours'


@pytest.mark.parametrize('fate', ['replaced', 'removed', 'appeared'])
def test_a_conflict_keeps_ours_beside_the_winner_and_says_where(setup: Setup, fate: str) -> None:
    expected: Expected = ABSENT
    if fate != 'appeared':
        setup.put('d/f', b'base')
        expected = setup.store.stat('d/f').version
    staged = setup.stage('d/f', expected)
    if fate == 'removed':
        setup.store.remove_file('d/f')
    else:
        setup.put('d/f', b'theirs')
    with pytest.raises(StorageConflictError) as caught:
        setup.commits.commit(staged)
    (kept,) = [name for name in setup.names('d') if name != 'f']
    assert kept == conflict_name('f', socket.gethostname(), setup.clock.time_ns())
    assert f'd/{kept}' in str(caught.value)
    assert setup.content(f'd/{kept}') == b'ours'
    assert fate == 'removed' or setup.content('d/f') == b'theirs'
    assert not staged.dirty


@pytest.mark.parametrize('expected_error', [StorageExistsError, StorageConflictError])
def test_without_keeping_a_conflict_is_only_an_error(setup: Setup, expected_error: type[Exception]) -> None:
    setup.put('f', b'base')
    expected = ABSENT if expected_error is StorageExistsError else setup.store.stat('f').version
    staged = setup.stage('f', expected)
    setup.put('f', b'theirs')
    with pytest.raises(expected_error):
        setup.commits.commit(staged, keep_conflict=False)
    assert setup.names() == ['f']
    assert staged.dirty


def test_a_failure_leaves_all_as_it_was_and_may_be_tried_again(setup: Setup) -> None:
    staged = setup.stage('f', ABSENT)
    setup.backend.fail('put', StorageIOError('broken'))
    with pytest.raises(StorageIOError):
        setup.commits.commit(staged)
    assert staged.dirty
    assert staged.expected is ABSENT
    setup.commits.commit(staged)
    assert setup.content('f') == b'ours'


def test_a_conflict_copy_that_fails_leaves_the_bytes_dirty(setup: Setup) -> None:
    setup.put('f', b'theirs')
    staged = setup.stage('f', ABSENT)
    setup.backend.fail('put', StorageIOError('broken'), nth=2)
    with pytest.raises(StorageIOError):
        setup.commits.commit(staged)
    assert staged.dirty


def test_what_has_arrived_although_its_answer_was_lost_is_recognised(setup: Setup) -> None:
    staged = setup.stage('f', ABSENT)
    setup.backend.fail('put', StorageIOError('broken'), after=True)
    with pytest.raises(StorageIOError):
        setup.commits.commit(staged)
    setup.commits.commit(staged)
    assert setup.names() == ['f']
    assert setup.content('f') == b'ours'
    assert staged.expected == setup.store.stat('f').version


def test_what_others_have_put_after_a_lost_answer_is_a_conflict(setup: Setup) -> None:
    staged = setup.stage('f', ABSENT)
    setup.backend.fail('put', StorageIOError('broken'), after=True)
    with pytest.raises(StorageIOError):
        setup.commits.commit(staged)
    setup.put('f', b'them')
    with pytest.raises(StorageConflictError):
        setup.commits.commit(staged)
    assert sorted(setup.content(name) for name in setup.names()) == [b'ours', b'them']


def test_who_writes_while_a_commit_is_under_way_does_not_wait_and_is_committed_next(setup: Setup) -> None:
    staged = setup.stage('f', ABSENT)
    stall = setup.backend.stall('put')
    commit = Thread(lambda: setup.commits.commit(staged))
    stall.wait_until_reached()
    Thread(lambda: staged.write(0, b'late')).result()
    assert staged.read(0, 4) == b'late'
    stall.release()
    commit.result()
    assert setup.content('f') == b'ours'
    assert staged.dirty
    setup.commits.commit(staged)
    assert setup.content('f') == b'late'


def test_a_serving_thread_does_not_commit(setup: Setup) -> None:
    staged = setup.stage('f', ABSENT)
    with serving_thread() as call, pytest.raises(WouldBlock):
        call(lambda: setup.commits.commit(staged))
    assert staged.dirty


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        ('f', 'f.conflict-host-1704067200123'),
        ('a/b/f.txt', 'a/b/f.txt.conflict-host-1704067200123'),
    ],
)
def test_the_name_of_a_conflict_copy(path: str, name: str) -> None:
    assert conflict_name(path, 'host', 1_704_067_200_123_456_789) == name


@pytest.mark.parametrize('name', ['n' * 255, 'é' * 127])
def test_the_name_of_a_conflict_copy_is_never_too_long(name: str) -> None:
    made = conflict_name(f'd/{name}', 'host', 0)
    assert made.startswith('d/')
    assert made.endswith('.conflict-host-0')
    assert len(encode(made.removeprefix('d/'))) <= NAME_MAX_BYTES
