"""Requests to one bucket of Google Cloud Storage: what is asked of its JSON API, and what the answers mean.

A version is a generation, which every change of the content changes. Conditions are checked by the server, of uploads
in parts too.

Threads: coroutines run on fsspec's loop; an upload in parts belongs to the thread that makes it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from genro_storage.backends.base import Expected, Headers, LengthLimit, Source
from genro_storage.backends.content_types import content_type_of
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.gcs_channel import GcsAnswer, GcsChannel, GcsRequest
from genro_storage.backends.http_errors import NOT_FOUND, RANGE_NOT_SATISFIABLE
from genro_storage.backends.loop_requests import run
from genro_storage.backends.object_requests import Commit, ListingPage, StoredObject
from genro_storage.entry import Extent, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageNameTooLongError,
    StorageNotFoundError,
    StoragePathError,
)

# A part of an upload; Google wants multiples of 256 KiB, and recommends 8 MiB at least. They go one after the other, so
# of what is large they are longer.
_PART_BYTES = 8 << 20
_PART_MAX_BYTES = 64 << 20
_PARTS = 128

# The parts of an upload that are not the last one are answered with the first, its end by the client with the second.
_RESUME_INCOMPLETE = 308
_CLIENT_CLOSED = 499

# "Object naming guidelines": as many bytes of UTF-8, and neither CR nor LF.
KEY_LIMIT = LengthLimit(1024)

_FIELDS = 'name,size,updated,generation,metadata'
_LISTED = 'name,size,updated,generation'
_BYTES = 'application/octet-stream'


class GcsConnection:
    """See LoopConnection."""

    # One round trip, where an upload in parts takes three at least.
    single_put_max_bytes = 16 << 20

    def __init__(self, bucket: str, channel: GcsChannel) -> None:
        self.channel = channel
        self._bucket = bucket
        self._objects = f'{channel.endpoint}/storage/v1/b/{_quoted(bucket)}/o'
        self._uploads = f'{channel.endpoint}/upload/storage/v1/b/{_quoted(bucket)}/o'

    # Looking

    async def head(self, key: str) -> StoredObject | None:
        """See LoopConnection."""
        if not _is_expressible(key):
            return None
        answer = await self._ask('GET', self._object(key), key, query={'fields': _FIELDS}, allowed_status=NOT_FOUND)
        return None if answer.status == NOT_FOUND else self._described(key, self._json(key, answer))

    async def headers(self, key: str) -> Headers | None:
        """See LoopConnection."""
        if not _is_expressible(key):
            return None
        query = {'fields': 'etag,contentType'}
        answer = await self._ask('GET', self._object(key), key, query=query, allowed_status=NOT_FOUND)
        said = {} if answer.status == NOT_FOUND else self._json(key, answer)
        return None if answer.status == NOT_FOUND else Headers(said.get('etag'), said.get('contentType'))

    def url(self, key: str, valid_s: float) -> str:
        """See LoopConnection."""
        return self.channel.url(self._bucket, key, valid_s)

    async def page(
        self, prefix: str, delimiter: str, limit: int | None, after: str | None
    ) -> tuple[ListingPage, str | None]:
        """See LoopConnection."""
        if not _is_expressible(prefix):
            return ListingPage(()), None
        query = {'prefix': prefix, 'delimiter': delimiter, 'pageToken': after, 'maxResults': limit}
        query['fields'] = f'items({_LISTED}),prefixes,nextPageToken'
        said = self._json(prefix, await self._ask_of_bucket('GET', self._objects, prefix, query=query))
        objects = [self._stored(prefix, item) for item in said.get('items', ())]
        return ListingPage(objects, said.get('prefixes', ())), said.get('nextPageToken') or None

    async def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        """See LoopConnection."""
        if not _is_expressible(key):
            raise StorageNotFoundError(f'{self.channel.what(key)}: nothing is there')
        answer = await self._ask(
            'GET',
            self._object(key),
            key,
            query={'alt': 'media', 'generation': tag},
            # Of a compressed object the bytes that its size counts; without this Google would send the content.
            headers={'Accept-Encoding': 'gzip'},
            allowed_status=RANGE_NOT_SATISFIABLE,
            extent=Extent(offset, size_bytes),
        )
        return b'' if answer.status == RANGE_NOT_SATISFIABLE else answer.body

    # Writing

    async def put(self, key: str, data: bytes, expected: Expected, metadata: Mapping[str, str]) -> StoredObject:
        """See LoopConnection."""
        self._refuse(key)
        # Metadata and content in one request, between boundaries that no content can hold by chance.
        boundary = f'genro-{os.urandom(16).hex()}'
        described = json.dumps({'name': key, 'contentType': _type_of(key), 'metadata': dict(metadata)})
        head = (
            f'--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{described}\r\n'
            f'--{boundary}\r\nContent-Type: {_type_of(key)}\r\n\r\n'
        )
        answer = await self._ask_of_bucket(
            'POST',
            self._uploads,
            key,
            query={'uploadType': 'multipart', 'fields': _FIELDS, **_condition(expected)},
            headers={'Content-Type': f'multipart/related; boundary={boundary}'},
            body=b''.join([head.encode(), data, f'\r\n--{boundary}--'.encode()]),
        )
        return self._stored(key, self._json(key, answer))

    async def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See LoopConnection. What is not named in a change stays, so that what is to go must be named."""
        there = await self.head(key)
        if there is None:
            raise StorageNotFoundError(f'{self.channel.what(key)}: nothing is there')
        if tag is not None and there.tag != tag:
            raise StorageConflictError(f'{self.channel.what(key)}: another version is there')
        gone = dict.fromkeys(there.metadata or ())
        answer = await self._ask(
            'PATCH',
            self._object(key),
            key,
            query={'fields': _FIELDS, 'ifGenerationMatch': there.tag if tag is None else tag},
            headers={'Content-Type': 'application/json'},
            body=json.dumps({'metadata': gone | dict(metadata)}).encode(),
        )
        return self._described(key, self._json(key, answer))

    @contextmanager
    def upload(self, key: str, source: Source, metadata: Mapping[str, str]) -> Iterator[Commit]:
        """See LoopConnection. All of it is sent with the commit, because the condition belongs to the beginning."""
        self._refuse(key)
        yield lambda expected: self._send(key, source, expected, metadata)

    def begin(self, key: str, metadata: Mapping[str, str]) -> None:
        """See LoopConnection. Google's uploads take one part after the other, and their condition at the beginning."""

    async def remove(self, key: str) -> None:
        """See LoopConnection."""
        if _is_expressible(key):
            await self._ask('DELETE', self._object(key), key, allowed_status=NOT_FOUND)

    async def copy(
        self, source: str, target: str, tag: str | None, expected: Expected, metadata: Mapping[str, str] | None
    ) -> StoredObject:
        """See LoopConnection. A large one takes several requests, each for so long as the server likes."""
        self._refuse(target)
        url = f'{self._object(source)}/rewriteTo/b/{_quoted(self._bucket)}/o/{_quoted(target)}'
        described: dict[str, Any] = {}
        if metadata is not None:
            described = {
                'headers': {'Content-Type': 'application/json'},
                'body': json.dumps({'contentType': _type_of(target), 'metadata': dict(metadata)}).encode(),
            }
        token: str | None = None
        while True:
            query = {'rewriteToken': token, 'ifSourceGenerationMatch': tag, **_condition(expected)}
            said = self._json(source, await self._ask('POST', url, source, query=query, **described))
            if said.get('done'):
                return self._stored(target, said.get('resource') or {})
            token = said.get('rewriteToken')

    def close(self) -> None:
        """See LoopConnection."""
        self.channel.close()

    # Uploads in parts

    def _send(self, key: str, source: Source, expected: Expected, metadata: Mapping[str, str]) -> StoredObject:
        # Google checks the condition, with the last part at the latest. Looked at here too, before gigabytes are sent
        # in vain; and fake-gcs-server 1.54 checks it of uploads in one request only.
        if expected is not None and not _holds(expected, run(self.head(key))):
            raise StorageConflictError(f'{self.channel.what(key)} is not what was expected')
        location = run(self._begin(key, expected, metadata))
        try:
            return self._send_parts(location, key, source)
        except BaseException:
            # The error that led here is the one to raise; Google forgets the upload after a week by itself.
            with suppress(StorageError):
                run(self._ask('DELETE', location, key, signed=False, allowed_status=_CLIENT_CLOSED))
            raise

    def _send_parts(self, location: str, key: str, source: Source) -> StoredObject:
        sent, part_bytes = 0, _part_bytes(source.size_bytes)
        while True:
            piece = read_exactly(source, sent, min(part_bytes, source.size_bytes - sent))
            stored, received = run(self._part(location, key, piece, sent, source.size_bytes))
            if stored is not None:
                return stored
            if received <= sent:
                raise StorageIOError(f'{self.channel.what(key)}: the server took nothing of a part of the upload')
            sent = received

    async def _begin(self, key: str, expected: Expected, metadata: Mapping[str, str]) -> str:
        """Where the parts go."""
        answer = await self._ask_of_bucket(
            'POST',
            self._uploads,
            key,
            query={'uploadType': 'resumable', 'name': key, 'fields': _FIELDS, **_condition(expected)},
            headers={'X-Upload-Content-Type': _type_of(key), 'Content-Type': 'application/json'},
            body=json.dumps({'contentType': _type_of(key), 'metadata': dict(metadata)}).encode(),
        )
        if 'Location' not in answer.headers:
            raise self.channel.malformed(key)
        return str(answer.headers['Location'])

    async def _part(
        self, location: str, key: str, piece: bytes, offset: int, size_bytes: int
    ) -> tuple[StoredObject | None, int]:
        """The object after the last part, else None and how much has arrived, which may be less than was sent."""
        # Google has heard the type when the upload began; fake-gcs-server 1.54 believes the last part.
        content_range = f'bytes {offset}-{offset + len(piece) - 1}/{size_bytes}'
        headers = {'Content-Range': content_range, 'Content-Type': _type_of(key)}
        # Not signed: the address is the secret.
        answer = await self._ask(
            'PUT', location, key, headers=headers, body=piece, signed=False, allowed_status=_RESUME_INCOMPLETE
        )
        if answer.status != _RESUME_INCOMPLETE:
            return self._stored(key, self._json(key, answer)), size_bytes
        arrived = answer.headers.get('Range', '').rpartition('-')[2]
        return None, int(arrived) + 1 if arrived.isdigit() else 0

    # Words

    async def _ask(self, method: str, url: str, key: str, **more: Any) -> GcsAnswer:
        return await self.channel.ask(GcsRequest(method=method, url=url, key=key, **more))

    async def _ask_of_bucket(self, method: str, url: str, key: str, **more: Any) -> GcsAnswer:
        """The same where 404 is about the bucket and not about a key."""
        answer = await self._ask(method, url, key, allowed_status=NOT_FOUND, **more)
        if answer.status == NOT_FOUND:
            raise StorageNotFoundError(f'{self.channel.what(key)}: there is no bucket {self._bucket!r}')
        return answer

    def _object(self, key: str) -> str:
        return f'{self._objects}/{_quoted(key)}'

    def _json(self, key: str, answer: GcsAnswer) -> dict[str, Any]:
        try:
            said = json.loads(answer.body)
        except ValueError:
            raise self.channel.malformed(key) from None
        if not isinstance(said, dict):
            raise self.channel.malformed(key)
        return said

    def _stored(self, key: str, item: Mapping[str, Any]) -> StoredObject:
        try:
            moment = datetime.fromisoformat(item['updated'])
            return StoredObject(item['name'], int(item['size']), int(moment.timestamp()), str(item['generation']))
        except (KeyError, ValueError, TypeError) as error:
            raise self.channel.malformed(key) from error

    def _described(self, key: str, item: Mapping[str, Any]) -> StoredObject:
        metadata = item.get('metadata') or {}
        return msgspec.structs.replace(self._stored(key, item), metadata=metadata)

    def _refuse(self, key: str) -> None:
        if not _is_expressible(key):
            raise StoragePathError(f'{self.channel.what(key)}: Google allows no line breaks in names')
        if not KEY_LIMIT.allows(key):
            raise StorageNameTooLongError(f'{self.channel.what(key[:40])}…: Google allows {KEY_LIMIT} in all')


def _is_expressible(key: str) -> bool:
    return '\n' not in key and '\r' not in key


def _quoted(name: str) -> str:
    return quote(name, safe='')


def _part_bytes(size_bytes: int) -> int:
    """How long the parts of an upload are."""
    return min(_PART_MAX_BYTES, _PART_BYTES * max(1, -(-size_bytes // (_PARTS * _PART_BYTES))))


def _type_of(key: str) -> str:
    return content_type_of(key) or _BYTES


def _condition(expected: Expected) -> dict[str, str]:
    if expected is None:
        return {}
    return {'ifGenerationMatch': expected.tag if isinstance(expected, Version) else '0'}


def _holds(expected: Expected, there: StoredObject | None) -> bool:
    if isinstance(expected, Version):
        return there is not None and there.tag == expected.tag
    return there is None
