"""Contents on their way into a bucket: single puts, uploads in parts, and copies inside the server.

Owns which of them it is, how many parts are under way, and that a failure leaves no upload behind to be paid for.
Memory does not grow with the size of a part: each is read as it is sent.

Threads: an upload belongs to the thread that makes it; parts go on workers.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

from genro_storage.backends import object_store_xml as xml
from genro_storage.backends.base import Expected, Source
from genro_storage.backends.object_requests import Commit, StoredObject
from genro_storage.backends.object_store_channel import BytesBody, S3Channel, S3Request, SignedBody, body_of, part_of
from genro_storage.backends.s3_multipart import (
    COPY_PART_BYTES,
    PART_MIN_BYTES,
    PARTS_IN_FLIGHT,
    SINGLE_COPY_MAX_BYTES,
    SINGLE_PUT_MAX_BYTES,
    part_extents,
    unless_completed,
)
from genro_storage.entry import Extent, Version
from genro_storage.runtime import WorkerPool

log = logging.getLogger(__name__)

# Of all transfers of a bucket.
_PART_WORKERS = 8

# What CopyObject takes along by itself and a copy in parts has to be told.
_KEPT_HEADERS = ('content-type', 'content-encoding', 'content-language', 'content-disposition', 'cache-control')
_METADATA = 'x-amz-meta-'

# RFC 9110, 15.5.5.
_NOT_FOUND = 404

_NOTHING: Mapping[str, str] = {}


class S3Transfers:
    """Transfers to one bucket. Parts go on workers of their own, for copies that wait for them may be on others."""

    def __init__(self, channel: S3Channel, *, single_copy_max_bytes: int = SINGLE_COPY_MAX_BYTES) -> None:
        self._channel = channel
        self._pool = WorkerPool('object-store-parts', _PART_WORKERS)
        self._single_copy_max_bytes = single_copy_max_bytes

    def put(self, key: str, body: SignedBody, expected: Expected) -> StoredObject:
        """Store one object in one request."""
        request = S3Request('PUT', key, headers=_conditions(expected), body=body, repeatable=expected is None)
        answer = self._channel.ask(request)
        try:
            return StoredObject(key, body.size_bytes, 0, xml.tag_of(answer.headers['etag']))
        except KeyError as error:
            raise self._channel.malformed(key, error) from error

    @contextmanager
    def upload(self, key: str, source: Source) -> Iterator[Commit]:
        """See ObjectRequests."""
        if source.size_bytes <= SINGLE_PUT_MAX_BYTES:
            whole = Extent(0, source.size_bytes)
            yield lambda expected: self.put(key, body_of(source, whole), expected)
            return
        extents = list(part_extents(source.size_bytes))
        with unless_completed(self.begin(key)) as upload:
            self._pool.each(
                lambda numbered: upload.put(numbered[0], body_of(source, numbered[1])),
                enumerate(extents, start=1),
                PARTS_IN_FLIGHT,
            )
            yield lambda expected: upload.complete(len(extents), expected)

    def begin(self, key: str, headers: Mapping[str, str] = _NOTHING) -> 'S3Upload':
        """See ObjectRequests. ``headers``: what the object will be described by."""
        answer = self._channel.ask(S3Request('POST', key, {'uploads': ''}, headers, repeatable=False))
        try:
            return S3Upload(self._channel, key, xml.field(answer.body, 'UploadId'))
        except ValueError as error:
            raise self._channel.malformed(key, error) from error

    def copy(self, source: str, target: str, size_bytes: int, tag: str | None) -> None:
        """See ObjectRequests. In parts where one request cannot."""
        if size_bytes <= self._single_copy_max_bytes:
            self._channel.ask(S3Request('PUT', target, headers=copy_source(self._channel, source, tag)))
            return
        head = self._channel.ask(S3Request('HEAD', source)).headers
        kept = {name: value for name, value in head.items() if name in _KEPT_HEADERS or name.startswith(_METADATA)}
        version = tag if tag is not None else xml.tag_of(head.get('etag', ''))
        part_bytes = min(COPY_PART_BYTES, max(PART_MIN_BYTES, self._single_copy_max_bytes))
        extents = list(part_extents(size_bytes, part_bytes))
        with unless_completed(self.begin(target, kept)) as upload:
            self._pool.each(
                lambda numbered: upload.copy_from(source, *numbered, version),
                enumerate(extents, start=1),
                PARTS_IN_FLIGHT,
            )
            upload.complete(len(extents), None)

    def close(self, timeout_s: float) -> None:
        """Wait for parts under way, for at most this long."""
        self._pool.close(timeout_s)


class S3Upload:
    """See ObjectUpload. Aborted or completed by whoever begins it."""

    def __init__(self, channel: S3Channel, key: str, token: str) -> None:
        self.token = token
        self.completed = False
        self._channel = channel
        self._key = key
        self._tags: dict[int, str] = {}  # each number belongs to the thread that sends it

    def send(self, number: int, source: Source, extent: Extent) -> None:
        """See ObjectUpload."""
        self.put(number, part_of(source, extent))

    def put(self, number: int, body: SignedBody) -> None:
        """Store a part."""
        answer = self._channel.ask(S3Request('PUT', self._key, self._part(number), body=body))
        try:
            self._tags[number] = xml.tag_of(answer.headers['etag'])
        except KeyError as error:
            raise self._channel.malformed(self._key, error) from error

    def copy(self, number: int, extent: Extent, tag: str) -> None:
        """See ObjectUpload."""
        self.copy_from(self._key, number, extent, tag)

    def copy_from(self, source: str, number: int, extent: Extent, tag: str) -> None:
        """Make a part of bytes of the object of any key."""
        headers = copy_source(self._channel, source, tag)
        headers['x-amz-copy-source-range'] = f'bytes={extent.offset}-{extent.end - 1}'
        answer = self._channel.ask(S3Request('PUT', self._key, self._part(number), headers))
        try:
            self._tags[number] = xml.tag_of(xml.field(answer.body, 'ETag'))
        except ValueError as error:
            raise self._channel.malformed(self._key, error) from error

    def complete(self, count: int, expected: Expected) -> StoredObject:
        """See ObjectUpload."""
        body = BytesBody(xml.completion([self._tags[number] for number in range(1, count + 1)]))
        query = {'uploadId': self.token}
        answer = self._channel.ask(S3Request('POST', self._key, query, _conditions(expected), body, repeatable=False))
        self.completed = True
        try:
            return StoredObject(self._key, 0, 0, xml.tag_of(xml.field(answer.body, 'ETag')))
        except ValueError as error:
            raise self._channel.malformed(self._key, error) from error

    def abort(self) -> None:
        """See ObjectUpload."""
        abort(self._channel, self._key, self.token)

    def _part(self, number: int) -> dict[str, str]:
        return {'partNumber': str(number), 'uploadId': self.token}


def abort(channel: S3Channel, key: str, token: str) -> None:
    """Have the server forget an upload; no error where there is none."""
    channel.ask(S3Request('DELETE', key, {'uploadId': token}, allowed_status=_NOT_FOUND))


def copy_source(channel: S3Channel, key: str, tag: str | None) -> dict[str, str]:
    """What makes a request copy an object of the bucket, in any version or in this one only."""
    headers = {'x-amz-copy-source': quote(f'/{channel.address.bucket}/{key}')}
    return headers if tag is None else {**headers, 'x-amz-copy-source-if-match': f'"{tag}"'}


def _conditions(expected: Expected) -> dict[str, str]:
    if expected is None:
        return {}
    if isinstance(expected, Version):
        return {'if-match': f'"{expected.tag}"'}
    return {'if-none-match': '*'}
