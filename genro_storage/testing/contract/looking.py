"""The contract of stat, list_directory, read_range and usage."""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

from collections.abc import Callable

import pytest

from genro_storage.backends.base import Backend
from genro_storage.entry import Kind
from genro_storage.errors import (
    StorageConflictError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
)
from genro_storage.testing.contract.asking import (
    agree,
    as_listed,
    blocks_a_serving_thread,
    names,
    read,
    stat_and_read,
    write,
)


class LookingContract:
    """stat, list_directory and read_range."""

    def test_the_destination_is_constant_and_not_empty(self, backend: Backend) -> None:
        before = backend.destination
        write(backend, 'a', b'1')
        assert before
        assert backend.destination == before

    def test_the_root_is_an_empty_directory_at_first(self, backend: Backend) -> None:
        root = backend.stat('')
        assert (root.name, root.kind) == ('', Kind.DIRECTORY)
        assert names(backend) == set()

    def test_stat_tells_name_kind_size_time_and_version(self, backend: Backend) -> None:
        write(backend, 'd/file', b'12345')
        entry = backend.stat('d/file')
        assert (entry.name, entry.kind, entry.size_bytes) == ('file', Kind.FILE, 5)
        assert entry.mtime_ns > 0
        assert entry.version is not None
        assert entry.version.strong == backend.capabilities.strong_versions

    def test_stat_of_a_directory_tells_its_name_and_no_version(self, backend: Backend) -> None:
        write(backend, 'd/e/file', b'1')
        for path, name in [('d', 'd'), ('d/e', 'e')]:
            entry = backend.stat(path)
            assert (entry.name, entry.kind, entry.size_bytes, entry.version) == (name, Kind.DIRECTORY, 0, None)

    @pytest.mark.parametrize('path', ['nothing', 'nothing/below', 'd/nothing'])
    def test_what_is_not_there_is_not_found(self, backend: Backend, path: str) -> None:
        write(backend, 'd/file', b'1')
        operations: list[Callable[[], object]] = [
            lambda: backend.stat(path),
            lambda: backend.list_directory(path),
            lambda: backend.read_range(path, 0, 10, None),
            lambda: backend.read_range(path, 0, 0, None),
            lambda: backend.remove_file(path),
            lambda: backend.remove_directory(path),
            lambda: backend.rename(path, 'elsewhere'),
        ]
        for operation in operations:
            with pytest.raises(StorageNotFoundError) as caught:
                operation()
            assert isinstance(caught.value, FileNotFoundError)

    def test_below_a_file_nothing_is_found(self, backend: Backend) -> None:
        write(backend, 'file', b'1')
        for operation in (backend.stat, backend.list_directory):
            with pytest.raises((StorageNotFoundError, StorageNotADirectoryError)):
                operation('file/below')

    def test_put_stat_and_listing_agree_on_an_entry(self, backend: Backend) -> None:
        stored = write(backend, 'd/file', b'123')
        backend.make_directory('d/e')
        listed = {entry.name: entry for entry in backend.list_directory('d')}
        assert as_listed(backend.stat('d/file')) == as_listed(listed['file'])
        assert agree(backend, stored, listed['file'])
        assert as_listed(backend.stat('d/e')) == as_listed(listed['e'])

    def test_a_listing_has_each_child_once_and_no_grandchildren(self, backend: Backend) -> None:
        for path in ('d/a', 'd/b', 'd/e/x', 'd/e/y', 'd/e/f/z', 'other'):
            write(backend, path, b'1')
        assert names(backend) == {'d', 'other'}
        assert names(backend, 'd') == {'a', 'b', 'e'}
        assert names(backend, 'd/e') == {'x', 'y', 'f'}

    def test_names_that_begin_alike_are_kept_apart(self, backend: Backend) -> None:
        for path in ('ab/x', 'a/y', 'a.txt', 'abc'):
            write(backend, path, b'1')
        assert names(backend, 'a') == {'y'}
        assert names(backend, 'ab') == {'x'}

    def test_a_file_has_no_listing(self, backend: Backend) -> None:
        write(backend, 'file', b'1')
        with pytest.raises(StorageNotADirectoryError) as caught:
            backend.list_directory('file')
        assert isinstance(caught.value, NotADirectoryError)

    @pytest.mark.parametrize(
        ('offset', 'size_bytes', 'expected'),
        [(0, 10, b'0123456789'), (3, 4, b'3456'), (8, 100, b'89'), (10, 5, b''), (50, 5, b''), (4, 0, b'')],
    )
    def test_a_range_is_short_only_at_the_end(
        self, backend: Backend, offset: int, size_bytes: int, expected: bytes
    ) -> None:
        version = write(backend, 'digits', b'0123456789').version
        assert backend.read_range('digits', offset, size_bytes, None) == expected
        assert backend.read_range('digits', offset, size_bytes, version) == expected

    @pytest.mark.parametrize('size_bytes', [0, 1, 9, 10, 11, 5_000])
    def test_a_stat_and_a_beginning_in_one_are_what_both_tell(self, backend: Backend, size_bytes: int) -> None:
        data = bytes(index % 251 for index in range(size_bytes))
        write(backend, 'd/file', data)
        for path, content in [('d/file', data), ('d', None), ('', None)]:
            entry, beginning = stat_and_read(backend, path, 10)
            assert entry == backend.stat(path)
            assert beginning is None or beginning == (content or b'')[:10]
        with pytest.raises(StorageNotFoundError):
            stat_and_read(backend, 'd/nothing', 10)

    def test_an_empty_file_reads_as_nothing(self, backend: Backend) -> None:
        entry = write(backend, 'empty', b'')
        assert entry.size_bytes == 0
        assert backend.read_range('empty', 0, 100, entry.version) == b''

    @pytest.mark.parametrize('path', ['', 'd'])
    def test_a_directory_has_no_bytes(self, backend: Backend, path: str) -> None:
        backend.make_directory('d')
        for size_bytes in (0, 10):
            with pytest.raises(StorageIsADirectoryError) as caught:
                backend.read_range(path, 0, size_bytes, None)
            assert isinstance(caught.value, IsADirectoryError)

    def test_a_changed_file_is_a_conflict_for_who_reads_the_old_version(self, backend: Backend) -> None:
        old = write(backend, 'file', b'old')
        # Where versions are weak, a change of the same size may go unseen; one of another size never does.
        new = write(backend, 'file', b'new' if backend.capabilities.strong_versions else b'longer')
        assert old.version != new.version
        with pytest.raises(StorageConflictError):
            backend.read_range('file', 0, 10, old.version)
        assert backend.read_range('file', 0, 3, new.version) == read(backend, 'file')[:3]

    def test_a_removed_file_is_a_conflict_for_who_reads_a_version_of_it(self, backend: Backend) -> None:
        old = write(backend, 'file', b'old')
        backend.remove_file('file')
        with pytest.raises(StorageConflictError):
            backend.read_range('file', 0, 10, old.version)

    def test_only_instant_backends_answer_a_serving_thread(self, backend: Backend) -> None:
        blocked = blocks_a_serving_thread(lambda: backend.stat(''), lambda: backend.read_range('no', 0, 1, None))
        assert blocked == [not backend.capabilities.instant] * 2

    def test_usage_is_unknown_or_consistent(self, backend: Backend) -> None:
        usage = backend.usage()
        assert usage is None or 0 <= usage.available_bytes <= usage.free_bytes <= usage.total_bytes
