"""The contract of moves of directories in steps."""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

from collections.abc import Callable

import pytest

from genro_storage.backends.base import Backend, Move, MovesInSteps
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
)
from genro_storage.testing.contract.asking import agree, as_listed, names, read, write

_FILES = ('a', 'b', 'e/b', 'e/f/c')


class MovingContract:
    """plan_move and the steps after it. A backend that has them says so in its class of tests.

    ``copies_one_version``: whether the server of the tests copies the version that it is told, or none.
    """

    moves_in_steps = False
    copies_one_version = True

    @pytest.fixture
    def mover(self, backend: Backend) -> MovesInSteps | None:
        """The backend with a directory to move, or None where it moves in one step."""
        assert backend.capabilities.moves_in_steps == self.moves_in_steps
        if not self.moves_in_steps:
            return None
        assert isinstance(backend, MovesInSteps)
        for name in _FILES:
            write(backend, f'd/{name}', name.encode())
        backend.make_directory('d/empty')
        backend.make_directory('to')
        return backend

    @pytest.mark.parametrize('target', ['d/new', 'd/b', 'to/new', 'to/new/deeper'])
    def test_a_file_that_was_seen_moves(self, backend: Backend, mover: MovesInSteps | None, target: str) -> None:
        if mover is None:
            return
        arrived = mover.move_seen('d/a', target, backend.stat('d/a'))
        assert agree(backend, arrived, as_listed(backend.stat(target)))
        assert read(backend, target) == b'a'
        with pytest.raises(StorageNotFoundError):
            backend.stat('d/a')

    @pytest.mark.parametrize('beside', [None, False])
    def test_a_directory_outlives_the_file_that_moves_out(
        self, backend: Backend, mover: MovesInSteps | None, beside: bool | None
    ) -> None:
        if mover is None:
            return
        mover.move_seen('d/e/f/c', 'to/c', backend.stat('d/e/f/c'), beside=beside)
        assert names(backend, 'd/e/f') == set()
        assert names(backend, 'to') == {'c'}

    def test_what_has_changed_since_it_was_seen_does_not_move(
        self, backend: Backend, mover: MovesInSteps | None
    ) -> None:
        if mover is None:
            return
        seen = backend.stat('d/a')
        write(backend, 'd/a', b'another')
        if self.copies_one_version:
            with pytest.raises((StorageConflictError, StorageNotFoundError)):
                mover.move_seen('d/a', 'd/new', seen)
            assert read(backend, 'd/a') == b'another'
        backend.remove_file('d/a')
        with pytest.raises((StorageConflictError, StorageNotFoundError)):
            mover.move_seen('d/a', 'd/new', seen)
        assert 'new' not in names(backend, 'd')

    def test_a_plan_names_all_that_moves(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d', 'to/d')
        assert {move.name for move in moves if move.tag} == set(_FILES)
        assert 'empty/' in {move.name for move in moves if not move.tag}
        assert next(move.size_bytes for move in moves if move.name == 'e/f/c') == 5
        assert names(backend, 'to') == set()

    def test_what_is_copied_and_then_removed_has_moved(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d', 'to/d')
        mover.copy_planned('d', 'to/d', moves)
        _assert_whole(backend, 'd')
        _assert_whole(backend, 'to/d')
        for _ in range(2):
            mover.remove_planned('d', 'to/d', moves)
            assert names(backend) == {'to'}
            _assert_whole(backend, 'to/d')

    def test_what_is_copied_and_then_undone_has_not_moved(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d', 'to/d')
        mover.copy_planned('d', 'to/d', moves)
        for _ in range(2):
            mover.undo_planned('d', 'to/d', moves)
            _assert_whole(backend, 'd')
            assert names(backend, 'to') == set()

    def test_an_undoing_leaves_what_is_no_copy(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d', 'to/d')
        mover.copy_planned('d', 'to/d', moves)
        write(backend, 'to/d/b', b'another size')
        write(backend, 'to/d/e/f/new', b'not of the move')
        mover.undo_planned('d', 'to/d', moves)
        _assert_whole(backend, 'd')
        assert names(backend, 'to/d') == {'b', 'e'}
        assert read(backend, 'to/d/b') == b'another size'
        assert names(backend, 'to/d/e') == {'f'}
        assert names(backend, 'to/d/e/f') == {'new'}

    def test_an_undoing_leaves_the_copy_of_an_original_that_is_gone(
        self, backend: Backend, mover: MovesInSteps | None
    ) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d', 'to/d')
        mover.copy_planned('d', 'to/d', moves)
        backend.remove_file('d/e/f/c')
        mover.undo_planned('d', 'to/d', moves)
        assert read(backend, 'to/d/e/f/c') == b'e/f/c'
        assert names(backend, 'to/d') == {'e'}
        assert read(backend, 'd/a') == b'a'

    def test_a_removal_leaves_what_changed_since_it_was_copied(
        self, backend: Backend, mover: MovesInSteps | None
    ) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d', 'to/d')
        mover.copy_planned('d', 'to/d', moves)
        write(backend, 'd/e/b', b'new')
        write(backend, 'd/new', b'not of the move')
        mover.remove_planned('d', 'to/d', moves)
        assert names(backend, 'd') == {'e', 'new'}
        assert names(backend, 'd/e') == {'b'}
        assert read(backend, 'd/e/b') == b'new'
        _assert_whole(backend, 'to/d')

    def test_a_removal_leaves_what_has_no_copy(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d', 'to/d')
        mover.copy_planned('d', 'to/d', [move for move in moves if move.name not in {'a', 'e/f/c'}])
        write(backend, 'to/d/a', b'another size')
        mover.remove_planned('d', 'to/d', moves)
        assert names(backend, 'd') == {'a', 'e'}
        assert read(backend, 'd/e/f/c') == b'e/f/c'
        assert read(backend, 'to/d/e/b') == b'e/b'

    def test_a_copying_that_fails_leaves_nothing_behind(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d', 'to/d')
        for change, error in (
            (lambda: write(backend, 'd/b', b'changed since'), StorageConflictError),
            (lambda: backend.remove_file('d/e/b'), (StorageNotFoundError, StorageConflictError)),
        ):
            change()
            with pytest.raises(error):
                mover.copy_planned('d', 'to/d', moves)
            assert names(backend, 'to') == set()
        assert read(backend, 'd/b') == b'changed since'
        assert read(backend, 'd/a') == b'a'

    def test_a_directory_outlives_the_move_of_its_last_entry(
        self, backend: Backend, mover: MovesInSteps | None
    ) -> None:
        if mover is None:
            return
        moves = mover.plan_move('d/e/f', 'to/f')
        backend.remove_file('d/e/b')
        mover.copy_planned('d/e/f', 'to/f', moves)
        mover.remove_planned('d/e/f', 'to/f', moves)
        assert names(backend, 'd/e') == set()
        assert names(backend, 'to/f') == {'c'}

    def test_many_objects_move(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        for number in range(40):
            write(backend, f'many/{number % 7}/{number}', b'1')
        moves = mover.plan_move('many', 'to/many')
        mover.copy_planned('many', 'to/many', moves)
        mover.remove_planned('many', 'to/many', moves)
        assert names(backend) == {'d', 'to'}
        assert sum(len(names(backend, f'to/many/{number}')) for number in range(7)) == 40

    def test_a_plan_refuses_what_a_rename_refuses(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        write(backend, 'file', b'1')
        write(backend, 'full/file', b'1')
        refused: list[tuple[str, str, type[StorageError]]] = [
            ('', 'elsewhere', StoragePermissionError),
            ('d', '', StoragePermissionError),
            ('d', 'd/below', StoragePathError),
            ('d', 'nothing/d', StorageNotFoundError),
            ('d', 'file/d', StorageNotADirectoryError),
            ('d', 'file', StorageNotADirectoryError),
            ('d', 'full', StorageNotEmptyError),
            ('nothing', 'elsewhere', StorageNotFoundError),
            ('file', 'elsewhere', StorageNotADirectoryError),
        ]
        for source, target, error in refused:
            with pytest.raises(error):
                mover.plan_move(source, target)

    def test_a_move_onto_itself_removes_nothing(self, backend: Backend, mover: MovesInSteps | None) -> None:
        if mover is None:
            return
        assert list(mover.plan_move('d', 'd')) == []
        moves: list[Move] = list(mover.plan_move('d', 'to/d'))
        steps: list[Callable[[], None]] = [
            lambda: mover.remove_planned('d', 'd', moves),
            lambda: mover.undo_planned('d', 'd', moves),
        ]
        for step in steps:
            step()
            _assert_whole(backend, 'd')


def _assert_whole(backend: Backend, path: str) -> None:
    assert names(backend, path) == {'a', 'b', 'e', 'empty'}
    assert names(backend, f'{path}/empty') == set()
    assert [read(backend, f'{path}/{name}') for name in _FILES] == [name.encode() for name in _FILES]
