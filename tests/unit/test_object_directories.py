"""What operations mean on keys: the contract over a dict of keys, and what needs a store that fails or is odd."""

import pytest

from genro_storage.backends.base import ABSENT, Backend
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.backends.object_moves import implied_markers
from genro_storage.entry import Kind
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIOError,
    StorageNotEmptyError,
)
from genro_storage.testing import BytesSource, FaultyBackend, ManualClock
from genro_storage.testing.contract import BackendContract, names, read, write
from tests.unit.buckets import DictRequests


@pytest.fixture
def requests() -> DictRequests:
    return DictRequests()


@pytest.fixture
def backend(requests: DictRequests) -> ObjectDirectories:
    return ObjectDirectories(requests, 'some/prefix')


class InParts(BackendContract):
    """The contract with all that an object store has."""

    uploads_in_parts = True
    copies_parts = True
    moves_in_steps = True


class TestContract(InParts):
    @pytest.fixture
    def backend(self, requests: DictRequests) -> Backend:
        return ObjectDirectories(requests, 'some/prefix')


class TestContractOfAWholeBucket(InParts):
    @pytest.fixture
    def backend(self, requests: DictRequests) -> Backend:
        return ObjectDirectories(requests)


class TestContractOfWrappers(InParts):
    """One that guards, around one that could fail."""

    @pytest.fixture
    def backend(self, requests: DictRequests) -> Backend:
        return GuardedBackend(FaultyBackend(ObjectDirectories(requests)), ManualClock(), 30)


class TestRequests:
    """How many there are: each is a round trip."""

    def test_a_put_that_is_placed_is_one_request(self, backend: ObjectDirectories, requests: DictRequests) -> None:
        for expected in (ABSENT, None):
            entry = backend.put('d/file', BytesSource(b'1'), expected=expected, placed=True)
        backend.put('d/file', BytesSource(b'2'), expected=entry.version, placed=True)
        assert requests.count == {'upload': 3}

    def test_a_removal_of_what_was_seen_beside_others_is_one_request(
        self, backend: ObjectDirectories, requests: DictRequests
    ) -> None:
        for name in 'ab':
            write(backend, f'd/{name}', b'1')
        requests.count.clear()
        backend.remove_file('d/a', seen=True, beside=True)
        assert requests.count == {'remove': 1}

    def test_a_move_of_a_directory_lists_and_asks_for_no_object_by_itself(
        self, backend: ObjectDirectories, requests: DictRequests
    ) -> None:
        for number in range(20):
            write(backend, f'd/{number}', b'1')
        moves = backend.plan_move('d', 'moved')
        requests.count.clear()
        backend.copy_planned('d', 'moved', moves)
        backend.remove_planned('d', 'moved', moves)
        assert requests.count == {'copy': 20, 'pages': 2}


class TestKeys:
    @pytest.mark.parametrize('hidden', ['', '..', '.', 'n' * 256, '/x', '/', '../x'])
    def test_keys_that_no_path_can_express_are_hidden(
        self, backend: ObjectDirectories, requests: DictRequests, hidden: str
    ) -> None:
        write(backend, 'd/shown', b'1')
        requests.stored[f'some/prefix/d/{hidden}'] = b'2'
        assert names(backend, 'd') == {'shown'}
        assert backend.hidden.count == (1 if hidden else 0), 'the marker is not hidden but no entry'

    def test_hidden_keys_keep_their_directory_from_being_removed(
        self, backend: ObjectDirectories, requests: DictRequests
    ) -> None:
        requests.stored['some/prefix/d//x'] = b'1'
        with pytest.raises(StorageNotEmptyError):
            backend.remove_directory('d')

    def test_an_object_beside_keys_below_it_is_shown_as_the_directory(
        self, backend: ObjectDirectories, requests: DictRequests
    ) -> None:
        requests.stored |= {'some/prefix/a': b'hidden', 'some/prefix/a/b': b'shown'}
        assert [(entry.name, entry.kind) for entry in backend.list_directory('')] == [('a', Kind.DIRECTORY)]
        assert backend.stat('a').is_directory

    def test_markers_are_named_deepest_first(self) -> None:
        assert implied_markers('p/a/', ['p/a/b/c/x', 'p/a/y']) == ['p/a/b/c/', 'p/a/b/', 'p/a/']


class TestMoves:
    def test_a_move_that_fails_leaves_all_at_its_old_place_and_nothing_at_the_new(
        self, backend: ObjectDirectories, requests: DictRequests
    ) -> None:
        for name in 'abc':
            write(backend, f'd/{name}', name.encode())
        before = dict(requests.stored)
        requests.broken = {'some/prefix/d/b'}
        with pytest.raises(StorageIOError):
            backend.rename('d', 'moved')
        assert requests.stored == before

    def test_what_is_no_copy_is_told_by_its_tag(self, backend: ObjectDirectories, requests: DictRequests) -> None:
        for name in 'ab':
            write(backend, f'd/{name}', name.encode())
        moves = backend.plan_move('d', 'moved')
        backend.copy_planned('d', 'moved', moves)
        write(backend, 'moved/a', b'x')
        before = dict(requests.stored)
        backend.undo_planned('d', 'moved', moves)
        assert requests.stored == {key: data for key, data in before.items() if not key.endswith('moved/b')}
        backend.copy_planned('d', 'moved', [move for move in moves if move.name == 'b'])
        backend.remove_planned('d', 'moved', moves)
        assert names(backend, 'd') == {'a'}

    def test_where_tags_tell_nothing_a_move_is_complete_or_did_not_begin(
        self, backend: ObjectDirectories, requests: DictRequests, caplog: pytest.LogCaptureFixture
    ) -> None:
        requests.encrypted = True
        for name in 'abc':
            write(backend, f'd/{name}', name.encode())
        before = dict(requests.stored)
        requests.broken = {'some/prefix/d/c'}
        with pytest.raises(StorageIOError):
            backend.rename('d', 'moved')
        assert requests.stored == before
        requests.broken.clear()
        backend.rename('d', 'moved')
        assert names(backend) == {'moved'}
        assert read(backend, 'moved/a') == b'a'
        # Somebody else's content could look the same: that of an unfinished move of another process stays.
        moves = backend.plan_move('moved', 'again')
        backend.copy_planned('moved', 'again', moves)
        backend.undo_planned('moved', 'again', moves)
        assert names(backend) == {'moved', 'again'}
        assert '3 objects' in caplog.text


class TestWithoutConditions:
    def test_what_is_expected_is_looked_at_right_before(
        self, backend: ObjectDirectories, requests: DictRequests
    ) -> None:
        requests.conditions = False
        first = backend.put('file', BytesSource(b'first'), expected=ABSENT)
        with pytest.raises(StorageExistsError):
            backend.put('file', BytesSource(b'second'), expected=ABSENT)
        backend.put('file', BytesSource(b'second'), expected=first.version)
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(b'third'), expected=first.version)
        assert read(backend, 'file') == b'second'
        backend.make_directory('d')
        assert names(backend) == {'file', 'd'}
