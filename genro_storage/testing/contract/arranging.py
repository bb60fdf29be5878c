"""The contract of directories, removals, renames and copies."""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

from collections.abc import Callable
from contextlib import suppress

import pytest

from genro_storage.backends.base import Backend
from genro_storage.errors import (
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageUnsupportedError,
)
from genro_storage.testing.contract.asking import agree, names, read, write


class ArrangingContract:
    """Directories, removals, renames and copies."""

    def test_a_made_directory_is_empty_and_lasts(self, backend: Backend) -> None:
        backend.make_directory('d')
        backend.make_directory('d/e')
        assert names(backend, 'd') == {'e'}
        assert names(backend, 'd/e') == set()
        backend.remove_directory('d/e')
        assert names(backend, 'd') == set()

    @pytest.mark.parametrize('path', ['', 'd', 'implied', 'file'])
    def test_a_directory_is_not_made_where_something_is(self, backend: Backend, path: str) -> None:
        backend.make_directory('d')
        write(backend, 'implied/file', b'1')
        write(backend, 'file', b'1')
        with pytest.raises(StorageExistsError):
            backend.make_directory(path)

    def test_a_directory_needs_a_parent(self, backend: Backend) -> None:
        write(backend, 'file', b'1')
        with pytest.raises(StorageNotFoundError):
            backend.make_directory('nothing/d')
        with pytest.raises(StorageNotADirectoryError):
            backend.make_directory('file/d')

    @pytest.mark.parametrize('seen', [False, True])
    @pytest.mark.parametrize('beside', [False, True])
    def test_a_file_is_removed(self, backend: Backend, seen: bool, beside: bool) -> None:
        for name in 'ab':
            write(backend, f'd/{name}', b'1')
        backend.remove_file('d/a', seen=seen, beside=beside)
        assert names(backend, 'd') == {'b'}

    def test_to_remove_what_was_seen_and_is_gone_changes_nothing(self, backend: Backend) -> None:
        for name in 'ab':
            write(backend, f'd/{name}', b'1')
        backend.remove_file('d/a')
        # Who looks without a request tells it nevertheless.
        with suppress(StorageNotFoundError):
            backend.remove_file('d/a', seen=True, beside=True)
        assert names(backend, 'd') == {'b'}

    def test_the_root_is_no_file_that_anybody_has_seen(self, backend: Backend) -> None:
        with pytest.raises(StorageIsADirectoryError):
            backend.remove_file('', seen=True, beside=True)

    @pytest.mark.parametrize('seen', [False, True])
    def test_a_directory_outlives_its_last_file(self, backend: Backend, seen: bool) -> None:
        write(backend, 'd/e/file', b'1')
        backend.remove_file('d/e/file', seen=seen)
        assert names(backend, 'd/e') == set()
        assert names(backend, 'd') == {'e'}

    def test_a_directory_outlives_the_move_of_its_last_file(self, backend: Backend) -> None:
        write(backend, 'd/e/file', b'1')
        backend.rename('d/e/file', 'file')
        assert names(backend, 'd/e') == set()

    def test_a_directory_outlives_its_last_directory(self, backend: Backend) -> None:
        write(backend, 'd/e/f/file', b'1')
        backend.rename('d/e/f', 'f')
        assert names(backend, 'd/e') == set()
        backend.remove_directory('d/e')
        assert names(backend, 'd') == set()

    def test_a_directory_is_no_file_to_remove(self, backend: Backend) -> None:
        write(backend, 'd/file', b'1')
        for path in ('', 'd'):
            with pytest.raises(StorageIsADirectoryError):
                backend.remove_file(path)
        assert read(backend, 'd/file') == b'1'

    def test_a_file_is_no_directory_to_remove(self, backend: Backend) -> None:
        write(backend, 'file', b'1')
        with pytest.raises(StorageNotADirectoryError):
            backend.remove_directory('file')

    @pytest.mark.parametrize('entry', ['file', 'e/file'])
    def test_a_directory_with_entries_is_not_removed(self, backend: Backend, entry: str) -> None:
        write(backend, f'd/{entry}', b'1')
        with pytest.raises(StorageNotEmptyError):
            backend.remove_directory('d')
        assert read(backend, f'd/{entry}') == b'1'

    def test_the_root_stays(self, backend: Backend) -> None:
        backend.make_directory('d')
        operations: list[Callable[[], object]] = [
            lambda: backend.remove_directory(''),
            lambda: backend.rename('', 'elsewhere'),
            lambda: backend.rename('d', ''),
        ]
        for operation in operations:
            with pytest.raises(StoragePermissionError):
                operation()
        assert names(backend) == {'d'}

    def test_a_file_moves(self, backend: Backend) -> None:
        write(backend, 'a', b'content')
        backend.make_directory('d')
        backend.rename('a', 'd/b')
        assert names(backend) == {'d'}
        assert read(backend, 'd/b') == b'content'

    def test_a_moved_file_replaces_a_file(self, backend: Backend) -> None:
        write(backend, 'a', b'new content')
        write(backend, 'b', b'old')
        backend.rename('a', 'b')
        assert names(backend) == {'b'}
        assert read(backend, 'b') == b'new content'

    def test_a_move_onto_itself_changes_nothing(self, backend: Backend) -> None:
        write(backend, 'd/file', b'1')
        backend.rename('d/file', 'd/file')
        backend.rename('d', 'd')
        assert read(backend, 'd/file') == b'1'

    def test_a_directory_moves_with_all_below_it(self, backend: Backend) -> None:
        for path in ('d/a', 'd/e/b', 'd/e/f/c'):
            write(backend, path, path.encode())
        backend.make_directory('d/empty')
        backend.make_directory('to')
        backend.rename('d', 'to/there')
        assert names(backend) == {'to'}
        assert names(backend, 'to/there') == {'a', 'e', 'empty'}
        assert read(backend, 'to/there/e/f/c') == b'd/e/f/c'
        assert names(backend, 'to/there/empty') == set()

    def test_a_moved_directory_replaces_an_empty_one_only(self, backend: Backend) -> None:
        write(backend, 'd/file', b'1')
        backend.make_directory('empty')
        write(backend, 'full/other', b'2')
        with pytest.raises(StorageNotEmptyError):
            backend.rename('d', 'full')
        backend.rename('d', 'empty')
        assert names(backend) == {'empty', 'full'}
        assert names(backend, 'empty') == {'file'}

    def test_a_move_keeps_files_and_directories_apart(self, backend: Backend) -> None:
        write(backend, 'file', b'1')
        backend.make_directory('d')
        with pytest.raises(StorageIsADirectoryError):
            backend.rename('file', 'd')
        with pytest.raises(StorageNotADirectoryError):
            backend.rename('d', 'file')
        assert names(backend) == {'file', 'd'}

    def test_a_move_needs_a_parent_to_go_to(self, backend: Backend) -> None:
        write(backend, 'file', b'1')
        write(backend, 'other', b'2')
        with pytest.raises(StorageNotFoundError):
            backend.rename('file', 'nothing/file')
        with pytest.raises(StorageNotADirectoryError):
            backend.rename('file', 'other/file')
        assert names(backend) == {'file', 'other'}

    def test_a_directory_does_not_move_into_itself(self, backend: Backend) -> None:
        write(backend, 'd/file', b'1')
        with pytest.raises(StoragePathError):
            backend.rename('d', 'd/e')
        assert names(backend, 'd') == {'file'}

    def test_a_copy_is_made_inside_or_refused(self, backend: Backend) -> None:
        write(backend, 'a', b'content')
        write(backend, 'b', b'old')
        try:
            entry = backend.copy('a', 'd/e/c')
        except StorageUnsupportedError:
            assert names(backend) == {'a', 'b'}
            return
        assert agree(backend, entry, backend.stat('d/e/c'))
        assert read(backend, 'd/e/c') == read(backend, 'a') == b'content'
        backend.copy('a', 'b')
        assert read(backend, 'b') == b'content'
        for source, target, error in [
            ('nothing', 'x', StorageNotFoundError),
            ('d', 'x', StorageIsADirectoryError),
            ('a', 'd', StorageIsADirectoryError),
            ('a', 'b/x', StorageNotADirectoryError),
        ]:
            with pytest.raises(error):
                backend.copy(source, target)
