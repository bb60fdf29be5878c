"""Requests to one bucket of S3 through s3fs: ObjectRequests in the words of botocore.

Owns which requests there are and what their answers mean. Connections and errors are S3Client's.

Threads: safe. Coroutines run on fsspec's one loop; contents are read by the threads that call, bodies too large for
that while they are sent.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TypeVar

from genro_storage.backends.base import Expected, Headers, LengthLimit, Source
from genro_storage.backends.object_requests import PLAIN, Commit, ListingPage, StoredObject
from genro_storage.backends.object_store_xml import is_expressible
from genro_storage.backends.s3_client import S3Client
from genro_storage.backends.s3_described import class_to_keep
from genro_storage.backends.s3_errors import from_removal
from genro_storage.backends.s3_transfers import S3fsTransfers, S3fsUpload, abort, described_by, etag_of
from genro_storage.entry import Extent
from genro_storage.errors import StorageNotFoundError
from genro_storage.runtime import WorkerPool

T = TypeVar('T')

# Copies are made by the server and cost a round trip each; 16 leave most of the connections to the mount's readers.
_AT_ONCE = 16

# DeleteObjects takes no more.
_REMOVED_AT_ONCE = 1_000

# How long close waits for workers; what is under way then goes with the process.
_CLOSE_TIMEOUT_S = 1.0


class S3fsRequests:
    """See ObjectRequests."""

    #: See S3Requests.
    tells_mtime = False
    key_limit = LengthLimit(1024)

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._transfers = S3fsTransfers(client)

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._client.destination

    def prepare(self) -> None:
        """See ObjectRequests."""
        self._client.prepare()

    def look(self, places: Sequence[tuple[str, str]]) -> list[tuple[StoredObject | None, list[str]]]:
        """See ObjectRequests."""

        async def look_at(place: tuple[str, str]) -> tuple[StoredObject | None, list[str]]:
            # The listing's failure first: a HEAD cannot tell a missing bucket from a missing key.
            below, head = await asyncio.gather(self._first(place[1], 1), self._head(place[0]), return_exceptions=True)
            return _outcome(head), _outcome(below)

        return self._client.run(_all_at_once, look_at, places)

    def first_keys(self, prefixes: Sequence[str], limit: int) -> list[list[str]]:
        """See ObjectRequests."""
        return self._client.run(_all_at_once, lambda prefix: self._first(prefix, limit), prefixes)

    def head(self, key: str) -> StoredObject | None:
        """See ObjectRequests."""
        return self._client.run(self._head, key)

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """See ObjectRequests."""
        found: list[StoredObject | None] = []
        for start in range(0, len(keys), _AT_ONCE):
            found += self._client.run(_all_at_once, self._head, keys[start : start + _AT_ONCE])
        return found

    def headers(self, key: str) -> Headers | None:
        """See ObjectRequests."""
        try:
            answer = self._client.run(self._client.call, 'head_object', Key=key)
        except StorageNotFoundError:
            return None
        return Headers(answer.get('ETag'), answer.get('ContentType'))

    def url(self, key: str, valid_s: float) -> str:
        """See ObjectRequests."""
        return self._client.run(self._client.url, key, valid_s)

    def pages(self, prefix: str, delimiter: str) -> Iterator[ListingPage]:
        """See ObjectRequests."""
        asked = {'Prefix': prefix} | ({'Delimiter': delimiter} if delimiter else {})
        token: str | None = ''
        while token is not None:
            after = {'ContinuationToken': token} if token else {}
            answer = self._client.run(self._client.call, 'list_objects_v2', **asked, **after)
            token = answer['NextContinuationToken'] if answer.get('IsTruncated') else None
            yield page_of(answer)

    def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        """See ObjectRequests."""
        condition = {} if tag is None else {'IfMatch': f'"{tag}"'}
        return self._client.run(self._client.read, Extent(offset, size_bytes), Key=key, **condition)

    def upload(self, key: str, source: Source, metadata: Mapping[str, str] = PLAIN) -> AbstractContextManager[Commit]:
        """See ObjectRequests."""
        return self._transfers.upload(key, source, metadata)

    def begin(self, key: str, metadata: Mapping[str, str] = PLAIN) -> S3fsUpload:
        """See ObjectRequests."""
        return self._transfers.begin(key, described_by(metadata, key))

    def abort(self, key: str, token: str) -> None:
        """See ObjectRequests."""
        abort(self._client, key, token)

    def mark(self, key: str, expected: Expected = None, metadata: Mapping[str, str] = PLAIN) -> None:
        """See ObjectRequests."""
        self._transfers.mark(key, expected, metadata)

    def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See ObjectRequests."""
        return self._transfers.describe(key, metadata, tag)

    def remove(self, key: str) -> None:
        """See ObjectRequests."""
        self._client.run(self._client.call, 'delete_object', Key=key)

    def remove_all(self, keys: Sequence[str]) -> None:
        """See ObjectRequests. A thousand in one request, and one by one, first, what XML cannot name."""
        for key in keys:
            if not is_expressible(key):
                self.remove(key)
        named = [{'Key': key} for key in keys if is_expressible(key)]
        for start in range(0, len(named), _REMOVED_AT_ONCE):
            self._remove_batch(named[start : start + _REMOVED_AT_ONCE])

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
        """See ObjectRequests."""
        return self._transfers.copy(source, target, size_bytes, tag, expected, metadata, storage_class)

    def each(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        """See ObjectRequests. On workers that end with it: a rename of a directory is rare."""
        pool = WorkerPool('s3fs', _AT_ONCE)
        try:
            pool.each(function, items, _AT_ONCE)
        finally:
            pool.close(_CLOSE_TIMEOUT_S)

    def close(self) -> None:
        """See ObjectRequests."""
        self._client.close()

    async def _head(self, key: str) -> StoredObject | None:
        try:
            answer = await self._client.call('head_object', Key=key)
        except StorageNotFoundError:
            return None
        metadata = {name.lower(): value for name, value in answer.get('Metadata', {}).items()}
        kept_class = class_to_keep(answer.get('StorageClass', ''))
        moment = _seconds(answer['LastModified'])
        return StoredObject(key, answer['ContentLength'], moment, etag_of(answer), metadata, kept_class)

    async def _first(self, prefix: str, limit: int) -> list[str]:
        answer = await self._client.call('list_objects_v2', Prefix=prefix, MaxKeys=limit)
        return [str(item['Key']) for item in answer.get('Contents', [])]

    def _remove_batch(self, batch: Sequence[Mapping[str, str]]) -> None:
        answer = self._client.run(self._client.call, 'delete_objects', Delete={'Objects': batch, 'Quiet': True})
        kept = answer.get('Errors', [])
        if kept:
            raise from_removal(kept, len(batch), self.destination)


def page_of(answer: Mapping[str, Any]) -> ListingPage:
    """A page of a listing."""
    objects = [
        StoredObject(
            item['Key'],
            item['Size'],
            _seconds(item['LastModified']),
            etag_of(item),
            storage_class=class_to_keep(item.get('StorageClass', '')),
        )
        for item in answer.get('Contents', [])
    ]
    return ListingPage(objects, [item['Prefix'] for item in answer.get('CommonPrefixes', [])])


async def _all_at_once(ask: Callable[[Any], Awaitable[T]], items: Sequence[Any]) -> list[T]:
    """Ask for each at the same time; the first failure, once all have ended."""
    return [_outcome(answer) for answer in await asyncio.gather(*map(ask, items), return_exceptions=True)]


def _outcome(answer: T | BaseException) -> T:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _seconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())
