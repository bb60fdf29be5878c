"""Contents on their way into a bucket through s3fs: single puts, uploads in parts, and copies inside the server.

Owns which of them it is, how many parts are under way, and that a failure leaves no upload behind to be paid for. The
twin of object_store_transfers in botocore's words; sizes of parts are shared.

Threads: an upload belongs to the thread that makes it; parts of one that was begun may come from several.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

from genro_storage.backends.base import Expected, Source
from genro_storage.backends.content_types import content_type_of
from genro_storage.backends.object_requests import MARKER_TYPE, PLAIN, Commit, StoredObject
from genro_storage.backends.s3_client import S3Client
from genro_storage.backends.s3_described import HEADERS, class_to_keep, kept, tagging
from genro_storage.backends.s3_errors import status_of
from genro_storage.backends.s3_multipart import (
    COPY_PART_BYTES,
    PART_MIN_BYTES,
    PARTS_IN_FLIGHT,
    SINGLE_COPY_MAX_BYTES,
    SINGLE_PUT_MAX_BYTES,
    body_of,
    completed_part,
    part_extents,
    part_of,
    unless_completed,
)
from genro_storage.entry import Extent, Version
from genro_storage.errors import StorageError

log = logging.getLogger(__name__)

# RFC 9110, 15.5.5.
_NOT_FOUND = 404


class S3fsTransfers:
    """Transfers to one bucket."""

    def __init__(self, client: S3Client, *, single_copy_max_bytes: int = SINGLE_COPY_MAX_BYTES) -> None:
        self._client = client
        self._single_copy_max_bytes = single_copy_max_bytes

    @contextmanager
    def upload(self, key: str, source: Source, metadata: Mapping[str, str] = PLAIN) -> Iterator[Commit]:
        """See ObjectRequests."""
        if source.size_bytes <= SINGLE_PUT_MAX_BYTES:
            yield lambda expected: self._put(key, source, expected, metadata)
            return
        extents = list(part_extents(source.size_bytes))
        with unless_completed(self.begin(key, described_by(metadata, key))) as upload:
            _send_all(lambda number, extent: upload.putting(number, body_of(source, extent)), upload, extents)
            yield lambda expected: upload.complete(len(extents), expected)

    def begin(self, key: str, described: Mapping[str, Any] | None = None) -> 'S3fsUpload':
        """See ObjectRequests. ``described``: what the object will be described by."""
        answer = self._client.run(self._client.call, 'create_multipart_upload', Key=key, **(described or {}))
        return S3fsUpload(self._client, key, str(answer['UploadId']))

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
            asked = copy_source(self._client, source, tag) | conditions(expected)
            if storage_class:
                asked['StorageClass'] = storage_class
            if metadata is not None:
                asked |= {'MetadataDirective': 'REPLACE', **described_by(metadata, target)}
            answer = self._client.run(self._client.call, 'copy_object', Key=target, **asked)
            return StoredObject(target, size_bytes, 0, etag_of(answer['CopyObjectResult']))
        head = self._client.run(self._client.call, 'head_object', Key=source)
        version = tag if tag is not None else etag_of(head)
        if metadata is None:
            described = {**kept(head, HEADERS.values()), 'Metadata': head.get('Metadata', {})}
        else:
            described = described_by(metadata, target)
        described |= self._tags(source, head)
        return self._copy_in_parts(source, target, size_bytes, version, described, expected)

    def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See ObjectRequests. A copy onto itself, which would forget the system's headers unless it is told them."""
        head = self._client.run(self._client.call, 'head_object', Key=key)
        size_bytes, version = int(head['ContentLength']), etag_of(head) if tag is None else tag
        kept_class = class_to_keep(head.get('StorageClass', ''))
        described = kept(head, HEADERS.values()) | {'Metadata': dict(metadata)}
        if size_bytes > self._single_copy_max_bytes:
            described |= self._tags(key, head)
            stored = self._copy_in_parts(key, key, size_bytes, version, described, Version(version, strong=True))
            return StoredObject(key, size_bytes, 0, stored.tag, metadata, kept_class)
        asked = copy_source(self._client, key, version) | described | {'MetadataDirective': 'REPLACE'}
        answer = self._client.run(self._client.call, 'copy_object', Key=key, **asked)
        return StoredObject(key, size_bytes, 0, etag_of(answer['CopyObjectResult']), metadata, kept_class)

    def mark(self, key: str, expected: Expected, metadata: Mapping[str, str]) -> None:
        """See ObjectRequests."""
        described = described_by(metadata) | conditions(expected)
        self._client.run(self._client.call, 'put_object', Key=key, Body=b'', ContentType=MARKER_TYPE, **described)

    def _copy_in_parts(
        self,
        source: str,
        target: str,
        size_bytes: int,
        version: str,
        described: Mapping[str, Any],
        expected: Expected,
    ) -> StoredObject:
        part_bytes = min(COPY_PART_BYTES, max(PART_MIN_BYTES, self._single_copy_max_bytes))
        extents = list(part_extents(size_bytes, part_bytes))
        with unless_completed(self.begin(target, described)) as upload:
            _send_all(lambda number, extent: upload.copying(source, number, extent, version), upload, extents)
            return upload.complete(len(extents), expected)

    def _tags(self, key: str, head: Mapping[str, Any]) -> dict[str, str]:
        """The tags of an object, as a request that makes another one takes them. A HEAD tells whether it has any."""
        # Not in botocore's words: older ones have none for it.
        if head['ResponseMetadata']['HTTPHeaders'].get('x-amz-tagging-count', '0') == '0':
            return {}
        answer = self._client.run(self._client.call, 'get_object_tagging', Key=key)
        return {'Tagging': tagging((tag['Key'], tag['Value']) for tag in answer['TagSet'])}

    def _put(self, key: str, source: Source, expected: Expected, metadata: Mapping[str, str]) -> StoredObject:
        body = body_of(source, Extent(0, source.size_bytes))
        described = described_by(metadata, key) | conditions(expected)
        answer = self._client.run(self._client.call, 'put_object', Key=key, Body=body, **described)
        return StoredObject(key, source.size_bytes, 0, etag_of(answer))


class S3fsUpload:
    """See ObjectUpload. Aborted or completed by whoever begins it."""

    def __init__(self, client: S3Client, key: str, token: str) -> None:
        self.token = token
        self.completed = False
        self._client = client
        self._key = key
        self._parts: dict[int, dict[str, Any]] = {}  # each number belongs to the thread that sends it

    def send(self, number: int, source: Source, extent: Extent) -> None:
        """See ObjectUpload."""
        self.arrived(number, self._client.wait(self.putting(number, part_of(source, extent))))

    def copy(self, number: int, extent: Extent, tag: str, source: str | None = None) -> None:
        """See ObjectUpload."""
        key = self._key if source is None else source
        self.arrived(number, self._client.wait(self.copying(key, number, extent, tag)))

    def putting(self, number: int, body: Any) -> 'Future[dict[str, Any]]':
        """A part under way; what the server answers is for arrived()."""
        return self._start('upload_part', number, Body=body)

    def copying(self, source: str, number: int, extent: Extent, tag: str) -> 'Future[dict[str, Any]]':
        """A part of bytes of the object of any key, under way."""
        asked = copy_source(self._client, source, tag)
        asked['CopySourceRange'] = f'bytes={extent.offset}-{extent.end - 1}'
        return self._start('upload_part_copy', number, **asked)

    def arrived(self, number: int, answer: dict[str, Any]) -> None:
        """Count a part in."""
        self._parts[number] = completed_part(number, answer.get('CopyPartResult', answer))

    def complete(self, count: int, expected: Expected) -> StoredObject:
        """See ObjectUpload."""
        answer = self._client.run(
            self._client.call,
            'complete_multipart_upload',
            Key=self._key,
            UploadId=self.token,
            MultipartUpload={'Parts': [self._parts[number] for number in range(1, count + 1)]},
            **conditions(expected),
        )
        self.completed = True
        return StoredObject(self._key, 0, 0, etag_of(answer))

    def abort(self) -> None:
        """See ObjectUpload."""
        abort(self._client, self._key, self.token)

    def _start(self, operation: str, number: int, **parameters: Any) -> 'Future[dict[str, Any]]':
        named = {'Key': self._key, 'UploadId': self.token, 'PartNumber': number}
        return self._client.start(self._client.call, operation, **named, **parameters)


def _send_all(
    begin: Callable[[int, Extent], Future[dict[str, Any]]], upload: S3fsUpload, extents: Sequence[Extent]
) -> None:
    """Bring up all parts, some at once. None is under way any more when this returns or raises."""
    under_way: deque[tuple[int, Future[dict[str, Any]]]] = deque()
    try:
        for number, extent in enumerate(extents, start=1):
            if len(under_way) >= PARTS_IN_FLIGHT:
                earlier, answer = under_way.popleft()
                upload.arrived(earlier, answer.result())
            under_way.append((number, begin(number, extent)))
        while under_way:
            earlier, answer = under_way.popleft()
            upload.arrived(earlier, answer.result())
    finally:
        # A part that arrived after the abort would stay for ever.
        for _, answer in under_way:
            answer.cancel()
        wait([answer for _, answer in under_way])


def abort(client: S3Client, key: str, token: str) -> None:
    """Have the server forget an upload; no error where there is none."""
    try:
        client.run(client.call, 'abort_multipart_upload', Key=key, UploadId=token)
    except StorageError as error:
        if status_of(error) != _NOT_FOUND:
            raise


def copy_source(client: S3Client, key: str, tag: str | None) -> dict[str, Any]:
    """What makes a request copy an object of the bucket, in any version or in this one only."""
    asked: dict[str, Any] = {'CopySource': {'Bucket': client.bucket, 'Key': key}}
    return asked if tag is None else asked | {'CopySourceIfMatch': f'"{tag}"'}


def described_by(metadata: Mapping[str, str], key: str = '') -> dict[str, Any]:
    """User metadata in botocore's words; of a new object at a key with the type of its content."""
    described: dict[str, Any] = {'Metadata': dict(metadata)} if metadata else {}
    content_type = content_type_of(key)
    return described if content_type is None else {**described, 'ContentType': content_type}


def conditions(expected: Expected) -> dict[str, str]:
    """An expectation in botocore's words."""
    if expected is None:
        return {}
    if isinstance(expected, Version):
        return {'IfMatch': f'"{expected.tag}"'}
    return {'IfNoneMatch': '*'}


def etag_of(answer: Mapping[str, Any]) -> str:
    """An ETag as versions hold it."""
    return str(answer['ETag']).strip('"')
