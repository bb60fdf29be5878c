"""What operations mean on keys: the contract over a dict of keys, and what needs a store that fails or is odd."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest

from genro_storage.backends.base import ABSENT, Backend, Expected, Source
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.object_directories import ObjectDirectories, implied_markers
from genro_storage.backends.object_requests import ListingPage, StoredObject
from genro_storage.entry import Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIOError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.testing import BytesSource
from genro_storage.testing.contract import BackendContract, names, read, write

T = TypeVar('T')


class DictRequests:
    """ObjectRequests on a dict. ``conditions``: whether it knows any; ``broken``: keys that cannot be copied."""

    destination = 'dict:test'

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.conditions = True
        self.broken: set[str] = set()
        self._lock = threading.Lock()

    def look(self, places: Sequence[tuple[str, str]]) -> list[tuple[StoredObject | None, list[str]]]:
        return [(self.head(key), self._below(prefix)[:1]) for key, prefix in places]

    def first_keys(self, prefixes: Sequence[str], limit: int) -> list[list[str]]:
        return [self._below(prefix)[:limit] for prefix in prefixes]

    def head(self, key: str) -> StoredObject | None:
        data = self.stored.get(key)
        return None if data is None else StoredObject(key, len(data), 1_000_000_000, _tag(data))

    def pages(self, prefix: str, delimiter: str) -> Iterator[ListingPage]:
        for key in self._below(prefix):
            rest = key.removeprefix(prefix)
            if delimiter and delimiter in rest:
                yield ListingPage([], [prefix + rest.partition(delimiter)[0] + delimiter])
            else:
                stored = self.head(key)
                yield ListingPage([stored] if stored is not None else [])

    def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        data = self._get(key)
        if tag not in (None, _tag(data)):
            raise StorageConflictError(key)
        return data[offset : offset + size_bytes]

    @contextmanager
    def upload(self, key: str, source: Source) -> Iterator[Callable[[Expected], str]]:
        data = read_exactly(source, 0, source.size_bytes)
        yield lambda expected: self._store(key, data, expected)

    def mark(self, key: str, expected: Expected = None) -> None:
        self._store(key, b'', expected)

    def remove(self, key: str) -> None:
        self.stored.pop(key, None)

    def remove_all(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.remove(key)

    def copy(self, source: str, target: str, size_bytes: int) -> None:
        if source in self.broken:
            raise StorageIOError(f'{source} cannot be copied')
        self._store(target, self._get(source), None)

    def each(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        for item in items:
            function(item)

    def close(self) -> None:
        pass

    def _get(self, key: str) -> bytes:
        try:
            return self.stored[key]
        except KeyError as error:
            raise StorageNotFoundError(key) from error

    def _below(self, prefix: str) -> list[str]:
        return sorted(key for key in list(self.stored) if key.startswith(prefix))

    def _store(self, key: str, data: bytes, expected: Expected) -> str:
        if expected is not None and not self.conditions:
            raise StorageUnsupportedError('no conditions here')
        with self._lock:
            if expected is ABSENT and key in self.stored:
                raise StorageConflictError(key)
            if isinstance(expected, Version) and expected.tag != _tag(self._get(key)):
                raise StorageConflictError(key)
            self.stored[key] = data
        return _tag(data)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def requests() -> DictRequests:
    return DictRequests()


@pytest.fixture
def backend(requests: DictRequests) -> ObjectDirectories:
    return ObjectDirectories(requests, 'some/prefix')


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self, requests: DictRequests) -> Backend:
        return ObjectDirectories(requests, 'some/prefix')


class TestContractOfAWholeBucket(BackendContract):
    @pytest.fixture
    def backend(self, requests: DictRequests) -> Backend:
        return ObjectDirectories(requests)


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
