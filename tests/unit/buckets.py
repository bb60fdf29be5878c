"""A bucket in memory, for tests of what stands on one: ObjectRequests on a dict. Threads: safe."""

import functools
import hashlib
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from genro_storage.backends.base import ABSENT, Expected, Headers, LengthLimit, Source
from genro_storage.backends.copying import read_exactly, read_part
from genro_storage.backends.object_requests import PLAIN, Commit, ListingPage, StoredObject
from genro_storage.entry import Extent, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StorageNotFoundError,
    StorageUnsupportedError,
)

T = TypeVar('T')


def counted(method: Callable[..., T]) -> Callable[..., T]:
    """Count the calls of a request by its name."""

    @functools.wraps(method)
    def counting(self: 'DictRequests', *args: Any, **kwargs: Any) -> T:
        self.count[method.__name__] += 1
        return method(self, *args, **kwargs)

    return counting


class DictRequests:
    """ObjectRequests on a dict, with the parts of uploads under way beside it.

    ``conditions``: whether it knows any; ``encrypted``: tags tell nothing of contents, though they look like it;
    ``broken``: keys that cannot be copied; ``described``: user metadata by key; ``count``: requests of each kind.
    """

    destination = 'dict:test'
    tells_mtime = False
    key_limit = LengthLimit(1024)

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.described: dict[str, Mapping[str, str]] = {}
        self.conditions = True
        self.encrypted = False
        self.broken: set[str] = set()
        self.uploads: dict[str, DictUpload] = {}
        self.count: Counter[str] = Counter()
        self._lock = threading.Lock()

    @counted
    def look(self, places: Sequence[tuple[str, str]]) -> list[tuple[StoredObject | None, list[str]]]:
        return [(self._head(key), self._below(prefix)[:1]) for key, prefix in places]

    @counted
    def look_into(self, key: str, prefix: str, size_bytes: int) -> tuple[StoredObject | None, list[str], bytes | None]:
        return self._head(key), self._below(prefix)[:1], self.stored.get(key, b'')[:size_bytes] or None

    @counted
    def first_keys(self, prefixes: Sequence[str], limit: int) -> list[list[str]]:
        return [self._below(prefix)[:limit] for prefix in prefixes]

    @counted
    def head(self, key: str) -> StoredObject | None:
        return self._head(key)

    @counted
    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        return [self._head(key) for key in keys]

    def headers(self, key: str) -> Headers | None:
        data = self.stored.get(key)
        return None if data is None else Headers(f'"{self.tag(key, data)}"', 'text/x-dict')

    def url(self, key: str, valid_s: float) -> str:
        return f'https://dict.test/{key}?valid={valid_s:g}'

    @counted
    def pages(self, prefix: str, delimiter: str) -> Iterator[ListingPage]:
        for key in self._below(prefix):
            rest = key.removeprefix(prefix)
            if delimiter and delimiter in rest:
                yield ListingPage([], [prefix + rest.partition(delimiter)[0] + delimiter])
            else:
                stored = self._head(key)
                yield ListingPage([msgspec.structs.replace(stored, metadata=None)] if stored is not None else [])

    @counted
    def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        return self.get(key, tag)[offset : offset + size_bytes]

    @counted
    @contextmanager
    def upload(self, key: str, source: Source, metadata: Mapping[str, str] = PLAIN) -> Iterator[Commit]:
        data = read_exactly(source, 0, source.size_bytes)
        yield lambda expected: self.store(key, data, expected, metadata)

    @counted
    def begin(self, key: str, metadata: Mapping[str, str] = PLAIN) -> 'DictUpload':
        upload = DictUpload(self, key, metadata)
        self.uploads[upload.token] = upload
        return upload

    def abort(self, key: str, token: str) -> None:
        self.uploads.pop(token, None)

    def prepare(self) -> None:
        pass

    @counted
    def mark(self, key: str, expected: Expected = None, metadata: Mapping[str, str] = PLAIN) -> None:
        self.store(key, b'', expected, metadata)

    @counted
    def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        data = self.get(key, tag)
        self.described[key] = metadata
        return StoredObject(key, len(data), 0, self.tag(key, data), metadata)

    @counted
    def remove(self, key: str) -> None:
        self.stored.pop(key, None)

    def remove_all(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.stored.pop(key, None)

    @counted
    def copy(
        self,
        source: str,
        target: str,
        size_bytes: int,
        tag: str | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
        storage_class: str = '',
    ) -> StoredObject:
        if source in self.broken:
            raise StorageIOError(f'{source} cannot be copied')
        described = self.described.get(source, PLAIN) if metadata is None else metadata
        return self.store(target, self.get(source, tag), expected, described)

    def each(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        for item in items:
            function(item)

    def close(self) -> None:
        pass

    def get(self, key: str, tag: str | None) -> bytes:
        """A content. Raises StorageNotFoundError, StorageConflictError."""
        try:
            data = self.stored[key]
        except KeyError as error:
            raise StorageNotFoundError(key) from error
        if tag not in (None, self.tag(key, data)):
            raise StorageConflictError(key)
        return data

    def _head(self, key: str) -> StoredObject | None:
        data = self.stored.get(key)
        if data is None:
            return None
        return StoredObject(key, len(data), 1_000_000_000, self.tag(key, data), self.described.get(key, PLAIN))

    def tag(self, key: str, data: bytes) -> str:
        """What a content at a key has for an ETag."""
        return hashlib.md5(key.encode() * self.encrypted + data, usedforsecurity=False).hexdigest()

    def _below(self, prefix: str) -> list[str]:
        return sorted(key for key in list(self.stored) if key.startswith(prefix))

    def store(self, key: str, data: bytes, expected: Expected, metadata: Mapping[str, str] = PLAIN) -> StoredObject:
        """Make a content visible, under a condition."""
        if expected is not None and not self.conditions:
            raise StorageUnsupportedError('no conditions here')
        with self._lock:
            if expected is ABSENT and key in self.stored:
                raise StorageConflictError(key)
            if isinstance(expected, Version) and self.get(key, expected.tag) is None:
                raise AssertionError
            self.stored[key], self.described[key] = data, metadata
        return StoredObject(key, len(data), 0, self.tag(key, data))


class DictUpload:
    """ObjectUpload on such a dict."""

    def __init__(self, bucket: DictRequests, key: str, metadata: Mapping[str, str]) -> None:
        self.token = uuid.uuid4().hex
        self._bucket = bucket
        self._key = key
        self._metadata = metadata
        self._parts: dict[int, bytes] = {}

    def send(self, number: int, source: Source, extent: Extent) -> None:
        self._require()
        self._parts[number] = read_part(source, extent.offset, extent.size_bytes)

    def copy(self, number: int, extent: Extent, tag: str, source: str | None = None) -> None:
        self._require()
        self._parts[number] = self._bucket.get(source or self._key, tag)[extent.offset : extent.end]

    def complete(self, count: int, expected: Expected) -> StoredObject:
        self._require()
        data = b''.join(self._parts[number] for number in range(1, count + 1))
        stored = self._bucket.store(self._key, data, expected, self._metadata)
        self.abort()
        return stored

    def abort(self) -> None:
        self._bucket.abort(self._key, self.token)

    def _require(self) -> None:
        if self.token not in self._bucket.uploads:
            raise StorageIOError(f'{self._key}: no such upload')
