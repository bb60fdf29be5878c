"""The contract of a backend that can only be read: what it shows of files that were there before it.

class TestMyArchive(ReadOnlyContract):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        backend = MyArchive(an_archive_of(TREE))
        yield backend
        backend.close()
"""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

import random
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from genro_storage.backends.base import Backend
from genro_storage.entry import Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StorageReadOnlyError,
)
from genro_storage.testing.contract.asking import blocks_a_serving_thread, names, read
from genro_storage.testing.contract.putting import NAMES
from genro_storage.testing.sources import BytesSource

_LETTERS = random.Random(0).randbytes(1 << 12)  # noqa: S311 - the same in each run

#: What has to be in a backend that the suite is run on, and nothing else: paths and contents.
TREE: dict[str, bytes] = {
    'digits': b'0123456789',
    'empty': b'',
    'ab/x': b'1',
    'a/y': b'2',
    'a.txt': b'3',
    'abc': b'4',
    'd/e/f/deep': b'5',
    'd/e/beside': b'6',
    **{f'names/{name}': name.encode() for name in NAMES},
    # Some of it can be compressed and each place in it is another.
    'large': b''.join(b'%08d' % number + _LETTERS[: 64 + number % 4000] for number in range(3000)),
}


class ReadOnlyContract:
    """stat, list_directory, read_range, and the refusal of everything else.

    ``composes_names``: letters and their accents become one (NFC), whatever they are in the place itself.
    """

    composes_names = False

    def shown(self, name: str) -> str:
        return unicodedata.normalize('NFC', name) if self.composes_names else name

    def test_it_says_that_it_can_only_be_read(self, backend: Backend) -> None:
        assert not backend.capabilities.writable

    def test_the_destination_is_constant_and_not_empty(self, backend: Backend) -> None:
        before = backend.destination
        backend.stat('')
        assert before
        assert backend.destination == before

    @pytest.mark.parametrize('path', TREE)
    def test_each_file_is_told_and_read(self, backend: Backend, path: str) -> None:
        content, path = TREE[path], self.shown(path)
        entry = backend.stat(path)
        assert (entry.name, entry.kind, entry.size_bytes) == (path.rpartition('/')[2], Kind.FILE, len(content))
        assert entry.mtime_ns > 0
        assert entry.version is not None
        assert read(backend, path) == content
        assert backend.read_range(path, 0, entry.size_bytes + 100, entry.version) == content

    def test_directories_are_what_the_names_of_files_imply(self, backend: Backend) -> None:
        assert names(backend) == {path.partition('/')[0] for path in TREE}
        assert names(backend, 'd') == {'e'}
        assert names(backend, 'd/e') == {'f', 'beside'}
        assert names(backend, 'names') == {self.shown(name) for name in NAMES}
        for path, name in [('', ''), ('d', 'd'), ('d/e/f', 'f')]:
            entry = backend.stat(path)
            assert (entry.name, entry.kind, entry.size_bytes, entry.version) == (name, Kind.DIRECTORY, 0, None)

    def test_names_that_begin_alike_are_kept_apart(self, backend: Backend) -> None:
        assert names(backend, 'a') == {'y'}
        assert names(backend, 'ab') == {'x'}

    @pytest.mark.parametrize('path', ['', 'd', 'd/e', 'names'])
    def test_stat_and_listing_agree_on_an_entry(self, backend: Backend, path: str) -> None:
        for entry in backend.list_directory(path):
            assert backend.stat(f'{path}/{entry.name}'.lstrip('/')) == entry

    @pytest.mark.parametrize('path', ['nothing', 'nothing/below', 'd/nothing', 'names/', 'd/e/f/deep '])
    def test_what_is_not_there_is_not_found(self, backend: Backend, path: str) -> None:
        path = path.rstrip('/') + ('x' if path.endswith('/') else '')
        operations: list[Callable[[], object]] = [
            lambda: backend.stat(path),
            lambda: backend.list_directory(path),
            lambda: backend.read_range(path, 0, 10, None),
        ]
        for operation in operations:
            with pytest.raises(StorageNotFoundError):
                operation()

    def test_below_a_file_nothing_is_found(self, backend: Backend) -> None:
        for operation in (backend.stat, backend.list_directory):
            with pytest.raises((StorageNotFoundError, StorageNotADirectoryError)):
                operation('digits/below')

    def test_a_file_has_no_listing(self, backend: Backend) -> None:
        with pytest.raises(StorageNotADirectoryError):
            backend.list_directory('digits')

    @pytest.mark.parametrize('path', ['', 'd'])
    def test_a_directory_has_no_bytes(self, backend: Backend, path: str) -> None:
        for size_bytes in (0, 10):
            with pytest.raises(StorageIsADirectoryError):
                backend.read_range(path, 0, size_bytes, None)

    @pytest.mark.parametrize(
        ('offset', 'size_bytes', 'expected'),
        [(0, 10, b'0123456789'), (3, 4, b'3456'), (8, 100, b'89'), (10, 5, b''), (50, 5, b''), (4, 0, b'')],
    )
    def test_a_range_is_short_only_at_the_end(
        self, backend: Backend, offset: int, size_bytes: int, expected: bytes
    ) -> None:
        version = backend.stat('digits').version
        assert backend.read_range('digits', offset, size_bytes, None) == expected
        assert backend.read_range('digits', offset, size_bytes, version) == expected

    def test_a_large_file_is_read_at_any_place_in_any_order_by_many(self, backend: Backend) -> None:
        version = backend.stat('large').version
        places = random.Random(1)  # noqa: S311 - the same in each run
        ranges = [(places.randrange(len(TREE['large'])), places.randrange(1 << 20)) for _ in range(24)]

        def is_right(at: tuple[int, int]) -> bool:
            offset, size_bytes = at
            return backend.read_range('large', offset, size_bytes, version) == TREE['large'][offset:][:size_bytes]

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(is_right, ranges))

    def test_another_version_is_a_conflict(self, backend: Backend) -> None:
        with pytest.raises(StorageConflictError):
            backend.read_range('digits', 0, 10, Version('another', backend.capabilities.strong_versions))

    def test_nothing_can_be_changed(self, backend: Backend) -> None:
        operations: list[Callable[[], object]] = [
            lambda: backend.put('new', BytesSource(b'1')),
            lambda: backend.put('digits', BytesSource(b'1')),
            lambda: backend.remove_file('digits'),
            lambda: backend.make_directory('new'),
            lambda: backend.remove_directory('d/e/f'),
            lambda: backend.rename('digits', 'new'),
            lambda: backend.copy('digits', 'new'),
            lambda: backend.set_mtime('digits', 1),
        ]
        for operation in operations:
            with pytest.raises(StorageReadOnlyError) as caught:
                operation()
            assert isinstance(caught.value, PermissionError)
        assert read(backend, 'digits') == TREE['digits']
        assert backend.usage() is None

    def test_only_instant_backends_answer_a_serving_thread(self, backend: Backend) -> None:
        blocked = blocks_a_serving_thread(lambda: backend.stat(''), lambda: backend.read_range('digits', 0, 1, None))
        assert blocked == [not backend.capabilities.instant] * 2
