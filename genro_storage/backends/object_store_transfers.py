"""Contents on their way into a bucket: single puts, uploads in parts, and copies inside the server.

Owns which of them it is, how many parts are under way, and that a failure leaves no upload behind to be paid for.
Memory does not grow with the size of a part: each is read as it is sent.

Threads: an upload belongs to the thread that makes it; parts go on workers.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from genro_storage.backends import object_store_xml as xml
from genro_storage.backends.base import Expected, Source
from genro_storage.backends.object_store_channel import BytesBody, S3Channel, S3Request, SignedBody, body_of
from genro_storage.backends.s3_multipart import SINGLE_COPY_MAX_BYTES, part_extents
from genro_storage.entry import Extent, Version
from genro_storage.errors import StorageError
from genro_storage.runtime import WorkerPool

log = logging.getLogger(__name__)

T = TypeVar('T')

# Up to here one request, which costs one round trip where parts cost three.
SINGLE_PUT_MAX_BYTES = 16 << 20

# Of one transfer, and of all of a bucket.
_PARTS_IN_FLIGHT = 4
_PART_WORKERS = 8

# A server copies 512 MiB in about the time of its round trips; 10,000 of them are just short of the 5 TiB limit.
_COPY_PART_BYTES = 512 << 20
_PART_MIN_BYTES = 5 << 20

# What CopyObject takes along by itself and a copy in parts has to be told.
_KEPT_HEADERS = ('content-type', 'content-encoding', 'content-language', 'content-disposition', 'cache-control')
_METADATA = 'x-amz-meta-'


class S3Transfers:
    """Transfers to one bucket. Parts go on workers of their own, for copies that wait for them may be on others."""

    def __init__(self, channel: S3Channel, *, single_copy_max_bytes: int = SINGLE_COPY_MAX_BYTES) -> None:
        self._channel = channel
        self._pool = WorkerPool('object-store-parts', _PART_WORKERS)
        self._single_copy_max_bytes = single_copy_max_bytes

    def put(self, key: str, body: SignedBody, expected: Expected) -> str:
        """Store one object in one request; its tag."""
        request = S3Request('PUT', key, headers=_conditions(expected), body=body, repeatable=expected is None)
        answer = self._channel.ask(request)
        try:
            return xml.tag_of(answer.headers['etag'])
        except KeyError as error:
            raise self._channel.malformed(key, error) from error

    @contextmanager
    def upload(self, key: str, source: Source) -> Iterator[Callable[[Expected], str]]:
        """See ObjectRequests."""
        if source.size_bytes <= SINGLE_PUT_MAX_BYTES:
            whole = Extent(0, source.size_bytes)
            yield lambda expected: self.put(key, body_of(source, whole), expected)
            return
        with self._in_parts(key, {}) as parts:
            parts.send(
                lambda number, extent: self._put_part(parts, number, body_of(source, extent)),
                part_extents(source.size_bytes),
            )
            yield parts.complete

    def copy(self, source: str, target: str, size_bytes: int) -> None:
        """See ObjectRequests. In parts where one request cannot."""
        if size_bytes <= self._single_copy_max_bytes:
            self._channel.ask(S3Request('PUT', target, headers=self._copy_source(source)))
            return
        head = self._channel.ask(S3Request('HEAD', source)).headers
        kept = {name: value for name, value in head.items() if name in _KEPT_HEADERS or name.startswith(_METADATA)}
        conditions = {'x-amz-copy-source-if-match': head.get('etag', '*')}
        with self._in_parts(target, kept) as parts:
            part_bytes = min(_COPY_PART_BYTES, max(_PART_MIN_BYTES, self._single_copy_max_bytes))
            parts.send(
                lambda number, extent: self._copy_part(parts, number, extent, self._copy_source(source) | conditions),
                part_extents(size_bytes, part_bytes),
            )
            parts.complete(None)

    def close(self, timeout_s: float) -> None:
        """Wait for parts under way, for at most this long."""
        self._pool.close(timeout_s)

    @contextmanager
    def _in_parts(self, key: str, headers: Mapping[str, str]) -> 'Iterator[_Parts]':
        answer = self._channel.ask(S3Request('POST', key, {'uploads': ''}, headers, repeatable=False))
        try:
            parts = _Parts(self._channel, self._pool, key, xml.field(answer.body, 'UploadId'))
        except ValueError as error:
            raise self._channel.malformed(key, error) from error
        try:
            yield parts
        finally:
            if not parts.completed:
                parts.abort()

    def _put_part(self, parts: '_Parts', number: int, body: SignedBody) -> str:
        answer = self._channel.ask(S3Request('PUT', parts.key, parts.query(number), body=body))
        return xml.tag_of(answer.headers['etag'])

    def _copy_part(self, parts: '_Parts', number: int, extent: Extent, headers: Mapping[str, str]) -> str:
        asked = {**headers, 'x-amz-copy-source-range': f'bytes={extent.offset}-{extent.end - 1}'}
        answer = self._channel.ask(S3Request('PUT', parts.key, parts.query(number), asked))
        return xml.tag_of(xml.field(answer.body, 'ETag'))

    def _copy_source(self, key: str) -> dict[str, str]:
        return {'x-amz-copy-source': quote(f'/{self._channel.address.bucket}/{key}')}


class _Parts:
    """One upload that was begun: its parts, and its end."""

    def __init__(self, channel: S3Channel, pool: WorkerPool, key: str, upload_id: str) -> None:
        self.key = key
        self.completed = False
        self._channel = channel
        self._pool = pool
        self._upload_id = upload_id
        self._tags: dict[int, str] = {}

    def query(self, number: int) -> dict[str, str]:
        """What makes a request be about a part."""
        return {'partNumber': str(number), 'uploadId': self._upload_id}

    def send(self, send: Callable[[int, Extent], str], extents: Iterable[Extent]) -> None:
        """Send all parts; none is under way any more when this returns or raises."""

        def one(numbered: tuple[int, Extent]) -> None:
            try:
                self._tags[numbered[0]] = send(*numbered)
            except (KeyError, ValueError) as error:
                if isinstance(error, StorageError):
                    raise
                raise self._channel.malformed(self.key, error) from error

        each_on(self._pool, one, enumerate(extents, start=1), _PARTS_IN_FLIGHT)

    def complete(self, expected: Expected) -> str:
        """Make the object visible; its tag."""
        body = BytesBody(xml.completion([tag for _, tag in sorted(self._tags.items())]))
        query = {'uploadId': self._upload_id}
        answer = self._channel.ask(S3Request('POST', self.key, query, _conditions(expected), body, repeatable=False))
        self.completed = True
        try:
            return xml.tag_of(xml.field(answer.body, 'ETag'))
        except ValueError as error:
            raise self._channel.malformed(self.key, error) from error

    def abort(self) -> None:
        """Have the server forget the upload. A failure is logged: the error that led here is the one to raise."""
        try:
            self._channel.ask(S3Request('DELETE', self.key, {'uploadId': self._upload_id}))
        except StorageError as error:
            log.warning('upload %s was not aborted and its parts remain: %s', self._upload_id, error)


def each_on(pool: WorkerPool, function: Callable[[T], None], items: Iterable[T], at_once: int) -> None:
    """Call a function for each item on workers; the first failure, once all that had begun have ended."""
    under_way: set[Future[None]] = set()
    try:
        for item in items:
            if len(under_way) >= at_once:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            under_way.add(pool.submit(partial(function, item)))
        for future in under_way:
            future.result()
    finally:
        for future in under_way:
            future.cancel()
        wait(under_way)


def _conditions(expected: Expected) -> dict[str, str]:
    if expected is None:
        return {}
    if isinstance(expected, Version):
        return {'if-match': f'"{expected.tag}"'}
    return {'if-none-match': '*'}
