"""What every Backend must do: a suite of tests to be inherited with a ``backend`` fixture.

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def backend(self) -> Iterator[Backend]:
            backend = MyBackend(...)  # an empty place
            yield backend
            backend.close()

Cases follow the declared capabilities; where one says that something is not there, the suite asserts the documented
behaviour without it, so that no test is skipped.
"""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageUnsupportedError,
)
from genro_storage.runtime import WouldBlock, serve_without_blocking
from genro_storage.testing.sources import BytesSource

# Each is one name in one directory. Keys, URLs, globs, shells and XML all have their own idea of some of these.
NAMES = [
    'plain.txt',
    'two words',
    ' leading space',
    'trailing space ',
    'new\nline',
    'tab\tbell\x07',
    'percent%20plus+and&',
    'question?hash#',
    'star*[a-z]{x}',
    'back\\slash',
    'quote"\'',
    '~tilde',
    '.hidden',
    '...',
    'dot.',
    'colon:semicolon;',
    '<tag>&amp;',
    'grüße-日本語-🙂',
    'e\u0301 is not é',
    'n' * 255,
    'ü' * 127 + 'x',
]

# Beyond what any backend stores in one request.
LARGE_BYTES = 20 << 20


def write(backend: Backend, path: str, data: bytes) -> Entry:
    """Put bytes at a path."""
    return backend.put(path, BytesSource(data))


def read(backend: Backend, path: str) -> bytes:
    """All bytes of a file."""
    return backend.read_range(path, 0, backend.stat(path).size_bytes, None)


def names(backend: Backend, path: str = '') -> set[str]:
    """The names in a directory, each once."""
    listed = [entry.name for entry in backend.list_directory(path)]
    assert len(listed) == len(set(listed))
    return set(listed)


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
        assert stored == backend.stat('d/file') == listed['file']
        assert backend.stat('d/e') == listed['e']

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
        outcomes: list[object] = []

        def serve() -> None:
            serve_without_blocking()
            for operation in (lambda: backend.stat(''), lambda: backend.read_range('no', 0, 1, None)):
                try:
                    outcomes.append(operation())
                except (WouldBlock, StorageError) as error:
                    outcomes.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        blocked = [isinstance(outcome, WouldBlock) for outcome in outcomes]
        assert blocked == [not backend.capabilities.instant] * 2

    def test_usage_is_unknown_or_consistent(self, backend: Backend) -> None:
        usage = backend.usage()
        assert usage is None or 0 <= usage.available_bytes <= usage.free_bytes <= usage.total_bytes


class PuttingContract:
    """put: its conditions, and what it refuses."""

    def test_what_is_put_is_read_back(self, backend: Backend) -> None:
        data = bytes(range(256)) * 100
        entry = write(backend, 'file', data)
        assert entry.size_bytes == len(data)
        assert read(backend, 'file') == data

    def test_a_put_replaces(self, backend: Backend) -> None:
        write(backend, 'file', b'a long first content')
        write(backend, 'file', b'short')
        assert read(backend, 'file') == b'short'
        assert names(backend) == {'file'}

    def test_missing_parents_appear(self, backend: Backend) -> None:
        write(backend, 'a/b/c/file', b'1')
        assert backend.stat('a').is_directory
        assert backend.stat('a/b/c').is_directory

    def test_a_large_file_is_stored_and_read_in_ranges(self, backend: Backend) -> None:
        block = os.urandom(1 << 16)
        data = block * (LARGE_BYTES // len(block)) + b'tail'
        entry = write(backend, 'd/large', data)
        assert entry == backend.stat('d/large')
        assert entry.size_bytes == len(data)
        step = 7 << 20
        ranges = [backend.read_range('d/large', start, step, entry.version) for start in range(0, len(data), step)]
        assert b''.join(ranges) == data

    def test_a_large_file_obeys_conditions(self, backend: Backend) -> None:
        large = BytesSource(bytes(LARGE_BYTES))
        backend.put('large', large, expected=ABSENT)
        with pytest.raises(StorageExistsError):
            backend.put('large', large, expected=ABSENT)
        newer = write(backend, 'large', b'newer')
        with pytest.raises(StorageConflictError):
            backend.put('large', large, expected=Version('another', newer.version.strong if newer.version else True))
        assert read(backend, 'large') == b'newer'
        assert backend.put('large', large, expected=newer.version).size_bytes == LARGE_BYTES

    def test_absent_creates_only_where_nothing_is(self, backend: Backend) -> None:
        backend.put('new', BytesSource(b'first'), expected=ABSENT)
        with pytest.raises(StorageExistsError) as caught:
            backend.put('new', BytesSource(b'second'), expected=ABSENT)
        assert isinstance(caught.value, FileExistsError)
        assert read(backend, 'new') == b'first'

    def test_absent_refuses_a_directory_too(self, backend: Backend) -> None:
        backend.make_directory('d')
        with pytest.raises(StorageExistsError):
            backend.put('d', BytesSource(b'1'), expected=ABSENT)

    def test_a_version_is_replaced_only_while_it_is_there(self, backend: Backend) -> None:
        first = write(backend, 'file', b'first')
        second = backend.put('file', BytesSource(b'second one'), expected=first.version)
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(b'third'), expected=first.version)
        assert read(backend, 'file') == b'second one'
        assert backend.stat('file').version == second.version

    def test_a_version_that_is_gone_is_a_conflict(self, backend: Backend) -> None:
        entry = write(backend, 'file', b'1')
        backend.remove_file('file')
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(b'2'), expected=entry.version)
        with pytest.raises(StorageNotFoundError):
            backend.stat('file')

    def test_of_many_who_create_at_once_one_wins(self, backend: Backend) -> None:
        contestants = 8
        barrier = threading.Barrier(contestants)

        def create(number: int) -> int | None:
            barrier.wait()
            try:
                backend.put('prize', BytesSource(str(number).encode()), expected=ABSENT)
            except StorageExistsError:
                return None
            return number

        with ThreadPoolExecutor(contestants) as pool:
            winners = [number for number in pool.map(create, range(contestants)) if number is not None]
        if backend.capabilities.conditional_put:
            assert len(winners) == 1
        assert int(read(backend, 'prize')) in winners

    def test_a_source_that_ends_early_publishes_nothing(self, backend: Backend) -> None:
        write(backend, 'file', b'old')
        for path in ('file', 'new'):
            with pytest.raises(StorageIOError):
                backend.put(path, BytesSource(b'too short', size_bytes=100))
        assert read(backend, 'file') == b'old'
        assert names(backend) == {'file'}

    def test_a_reader_sees_old_or_new_and_never_a_mixture(self, backend: Backend) -> None:
        contents = [bytes([value]) * 50_000 for value in range(10)]
        write(backend, 'file', contents[0])
        done = threading.Event()
        seen: list[bytes] = []

        def look() -> None:
            while not done.is_set():
                seen.append(backend.read_range('file', 0, 50_000, None))

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            try:
                for data in contents:
                    write(backend, 'file', data)
            finally:
                done.set()
            looking.result()
        assert {data in contents for data in seen} == {True}
        order = [contents.index(data) for data in seen]
        assert all(earlier <= later for earlier, later in pairwise(order))

    def test_many_files_can_be_put_at_once(self, backend: Backend) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: write(backend, f'd/e/{number}', b'x' * number), range(40)))
        sizes = {entry.name: entry.size_bytes for entry in backend.list_directory('d/e')}
        assert sizes == {str(number): number for number in range(40)}

    @pytest.mark.parametrize('path', ['', 'd', 'd/e'])
    def test_a_file_never_replaces_a_directory(self, backend: Backend, path: str) -> None:
        write(backend, 'd/e/file', b'1')
        with pytest.raises(StorageIsADirectoryError):
            write(backend, path, b'2')
        assert read(backend, 'd/e/file') == b'1'

    @pytest.mark.parametrize('path', ['file/below', 'file/far/below'])
    def test_nothing_goes_below_a_file(self, backend: Backend, path: str) -> None:
        write(backend, 'file', b'1')
        with pytest.raises(StorageNotADirectoryError):
            write(backend, path, b'2')
        assert read(backend, 'file') == b'1'

    @pytest.mark.parametrize('name', NAMES)
    def test_any_name_goes_there_and_back(self, backend: Backend, name: str) -> None:
        entry = write(backend, f'd/{name}', b'content')
        assert entry.name == name
        assert names(backend, 'd') == {name}
        assert read(backend, f'd/{name}') == b'content'
        backend.rename(f'd/{name}', 'd/renamed')
        backend.rename('d/renamed', f'd/{name}')
        backend.remove_file(f'd/{name}')
        assert names(backend, 'd') == set()

    @pytest.mark.parametrize('name', NAMES)
    def test_directories_take_any_name_too(self, backend: Backend, name: str) -> None:
        backend.make_directory(name)
        write(backend, f'{name}/file', b'1')
        assert names(backend) == {name}
        assert names(backend, name) == {'file'}
        backend.remove_file(f'{name}/file')
        backend.remove_directory(name)
        assert names(backend) == set()

    def test_bytes_that_are_no_utf8_go_there_and_back_or_are_refused(self, backend: Backend) -> None:
        name = paths.decode(b'latin-\xe9')
        try:
            write(backend, name, b'1')
        except StoragePathError:
            assert names(backend) == set()
        else:
            assert names(backend) == {name}
            assert read(backend, name) == b'1'

    def test_times_are_kept_or_refused(self, backend: Backend) -> None:
        before = write(backend, 'file', b'1')
        moment_ns = 1_234_567_890_000_000_000
        if backend.capabilities.stores_mtime:
            backend.set_mtime('file', moment_ns)
            assert backend.stat('file').mtime_ns == moment_ns
        else:
            with pytest.raises(StorageUnsupportedError):
                backend.set_mtime('file', moment_ns)
            assert backend.stat('file') == before


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

    def test_of_many_who_make_a_directory_at_once_one_succeeds(self, backend: Backend) -> None:
        contestants = 6
        barrier = threading.Barrier(contestants)

        def make(_: int) -> bool:
            barrier.wait()
            try:
                backend.make_directory('d')
            except StorageExistsError:
                return False
            return True

        with ThreadPoolExecutor(contestants) as pool:
            succeeded = sum(pool.map(make, range(contestants)))
        if backend.capabilities.real_directories or backend.capabilities.conditional_put:
            assert succeeded == 1
        assert backend.stat('d').is_directory

    def test_a_directory_needs_a_parent(self, backend: Backend) -> None:
        write(backend, 'file', b'1')
        with pytest.raises(StorageNotFoundError):
            backend.make_directory('nothing/d')
        with pytest.raises(StorageNotADirectoryError):
            backend.make_directory('file/d')

    def test_a_directory_outlives_its_last_file(self, backend: Backend) -> None:
        write(backend, 'd/e/file', b'1')
        backend.remove_file('d/e/file')
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
        assert entry == backend.stat('d/e/c')
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


class BackendContract(LookingContract, PuttingContract, ArrangingContract):
    """All of it."""
