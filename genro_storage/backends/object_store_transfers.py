"""Contents on their way into a bucket: single puts, uploads in parts, and copies inside the server.

Owns which of them it is, how many parts are under way, and that a failure leaves no upload behind to be paid for.
Memory does not grow with the size of a part: each is read as it is sent.

Threads: an upload belongs to the thread that makes it; parts go on workers.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

import msgspec

from genro_storage.backends import object_store_xml as xml
from genro_storage.backends.base import Expected, Source
from genro_storage.backends.content_types import content_type_of
from genro_storage.backends.object_requests import MARKER_TYPE, PLAIN, Commit, StoredObject
from genro_storage.backends.object_store_channel import BytesBody, S3Channel, S3Request, SignedBody, body_of, part_of
from genro_storage.backends.s3_described import HEADERS, class_to_keep, kept, tagging
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

    def put(
        self, key: str, body: SignedBody, expected: Expected, described: Mapping[str, str] = _NOTHING
    ) -> StoredObject:
        """Store one object in one request. ``described``: headers."""
        headers = {**described, **_conditions(expected)}
        request = S3Request('PUT', key, headers=headers, body=body, repeatable=expected is None)
        answer = self._channel.ask(request)
        try:
            return StoredObject(key, body.size_bytes, 0, xml.tag_of(answer.headers['etag']))
        except KeyError as error:
            raise self._channel.malformed(key, error) from error

    def mark(self, key: str, expected: Expected, metadata: Mapping[str, str]) -> None:
        """See ObjectRequests."""
        self.put(key, BytesBody(b''), expected, {'content-type': MARKER_TYPE, **headers_of(metadata)})

    @contextmanager
    def upload(self, key: str, source: Source, metadata: Mapping[str, str] = PLAIN) -> Iterator[Commit]:
        """See ObjectRequests."""
        described = headers_of(metadata, key)
        if source.size_bytes <= SINGLE_PUT_MAX_BYTES:
            whole = Extent(0, source.size_bytes)
            yield lambda expected: self.put(key, body_of(source, whole), expected, described)
            return
        extents = list(part_extents(source.size_bytes))
        with unless_completed(self.begin(key, described)) as upload:
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

    def copy(
        self,
        source: str,
        target: str,
        size_bytes: int,
        tag: str | None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
        storage_class: str = '',
    ) -> StoredObject:
        """See ObjectRequests. In parts where one request cannot."""
        if size_bytes <= self._single_copy_max_bytes:
            placed = {'x-amz-storage-class': storage_class} if storage_class else {}
            return self._copy_at_once(source, target, size_bytes, tag, expected, metadata, placed)
        head = self._channel.ask(S3Request('HEAD', source)).headers
        if metadata is None:
            described = kept(head, HEADERS) | headers_of(metadata_in(head))
        else:
            described = headers_of(metadata, target)
        described |= self._tags(source, head)
        version = tag if tag is not None else xml.tag_of(head.get('etag', ''))
        return self._copy_in_parts(source, target, size_bytes, version, described, expected)

    def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See ObjectRequests. A copy onto itself, which would forget the system's headers unless it is told them."""
        head = self._channel.ask(S3Request('HEAD', key)).headers
        try:
            size_bytes, found = int(head['content-length']), xml.tag_of(head['etag'])
        except (KeyError, ValueError) as error:
            raise self._channel.malformed(key, error) from error
        version = found if tag is None else tag
        kept_class = class_to_keep(head.get('x-amz-storage-class', ''))
        described = kept(head, HEADERS) | headers_of(metadata)
        if size_bytes > self._single_copy_max_bytes:
            described |= self._tags(key, head)
            stored = self._copy_in_parts(key, key, size_bytes, version, described, Version(version, strong=True))
            return msgspec.structs.replace(stored, size_bytes=size_bytes, metadata=metadata, storage_class=kept_class)
        asked = {**copy_source(self._channel, key, version), **described, 'x-amz-metadata-directive': 'REPLACE'}
        answer = self._channel.ask(S3Request('PUT', key, headers=asked))
        try:
            tag = xml.tag_of(xml.field(answer.body, 'ETag'))
            return StoredObject(key, size_bytes, 0, tag, metadata, kept_class)
        except ValueError as error:
            raise self._channel.malformed(key, error) from error

    def close(self, timeout_s: float) -> None:
        """Wait for parts under way, for at most this long."""
        self._pool.close(timeout_s)

    def _copy_at_once(
        self,
        source: str,
        target: str,
        size_bytes: int,
        tag: str | None,
        expected: Expected,
        metadata: Mapping[str, str] | None,
        placed: Mapping[str, str],
    ) -> StoredObject:
        headers = {**copy_source(self._channel, source, tag), **_conditions(expected), **placed}
        if metadata is not None:
            headers |= {'x-amz-metadata-directive': 'REPLACE', **headers_of(metadata, target)}
        answer = self._channel.ask(S3Request('PUT', target, headers=headers, repeatable=expected is None))
        try:
            return StoredObject(target, size_bytes, 0, xml.tag_of(xml.field(answer.body, 'ETag')))
        except ValueError as error:
            raise self._channel.malformed(target, error) from error

    def _copy_in_parts(
        self,
        source: str,
        target: str,
        size_bytes: int,
        version: str,
        described: Mapping[str, str],
        expected: Expected,
    ) -> StoredObject:
        part_bytes = min(COPY_PART_BYTES, max(PART_MIN_BYTES, self._single_copy_max_bytes))
        extents = list(part_extents(size_bytes, part_bytes))
        with unless_completed(self.begin(target, described)) as upload:
            self._pool.each(
                lambda numbered: upload.copy_from(source, *numbered, version),
                enumerate(extents, start=1),
                PARTS_IN_FLIGHT,
            )
            return upload.complete(len(extents), expected)

    def _tags(self, key: str, head: Mapping[str, str]) -> dict[str, str]:
        """The tags of an object, as a request that makes another one takes them. A HEAD tells whether it has any."""
        if head.get('x-amz-tagging-count', '0') == '0':
            return {}
        answer = self._channel.ask(S3Request('GET', key, {'tagging': ''}))
        try:
            return {'x-amz-tagging': tagging(xml.tags(answer.body))}
        except ValueError as error:
            raise self._channel.malformed(key, error) from error


def headers_of(metadata: Mapping[str, str], key: str = '') -> dict[str, str]:
    """User metadata as a request and an answer have it; of a new object at a key with the type of its content."""
    headers = {_METADATA + name: _sent(value) for name, value in metadata.items()}
    content_type = content_type_of(key)
    return headers if content_type is None else {**headers, 'content-type': content_type}


def metadata_in(headers: Mapping[str, str]) -> dict[str, str]:
    """The inverse of headers_of, among other headers."""
    return {name.removeprefix(_METADATA): _text(value) for name, value in headers.items() if name.startswith(_METADATA)}


def _sent(text: str) -> str:
    """Text as a header, whose letters are bytes. Amazon's own is ASCII; others give back the bytes that they got."""
    return text if text.isascii() else text.encode('utf-8', 'surrogateescape').decode('latin-1')


def _text(header: str) -> str:
    """The inverse."""
    return header if header.isascii() else header.encode('latin-1').decode('utf-8', 'surrogateescape')


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

    def copy(self, number: int, extent: Extent, tag: str, source: str | None = None) -> None:
        """See ObjectUpload."""
        self.copy_from(self._key if source is None else source, number, extent, tag)

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
    channel.ask(S3Request('DELETE', key, {'uploadId': token}, allowed=frozenset({_NOT_FOUND})))


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
