"""Requests to one bucket of S3: ObjectRequests with keys exactly as they are.

Owns which requests there are and what their answers mean. Ranges are read through obstore, but for long ones where
nothing is encrypted. Everything else is asked for by signed requests of our own, which are as fast and can what obstore
cannot: its paths name neither a marker (``d/`` becomes ``d``) nor a key with a control character; its listings fail as
a whole on one such key, or show another name for it, and always fetch a thousand keys where one would do; its
completion of an upload takes no condition; and its failures do not tell a timeout from a refusal but by text.

Threads: safe; connections and workers are shared by all. A forked child makes its own.
"""

import base64
import codecs
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from typing import TypeVar

from genro_storage.backends import object_store_xml as xml
from genro_storage.backends.base import Expected, Headers, LengthLimit, Source
from genro_storage.backends.object_requests import PLAIN, Commit, ListingPage, StoredObject
from genro_storage.backends.object_store_channel import BytesBody, S3Channel, S3Request
from genro_storage.backends.object_store_http import Answer
from genro_storage.backends.object_store_reading import ObstoreReader
from genro_storage.backends.object_store_transfers import S3Transfers, S3Upload, abort, headers_of, metadata_in
from genro_storage.backends.per_process import PerProcess
from genro_storage.backends.ranges import PARTIAL
from genro_storage.backends.s3_described import class_to_keep
from genro_storage.backends.s3_errors import from_removal
from genro_storage.entry import Extent
from genro_storage.errors import StorageConflictError, StorageThrottledError
from genro_storage.runtime import WorkerPool

T = TypeVar('T')

# Copies are made by the server and cost a round trip each.
_WORKERS = 16

# DeleteObjects takes no more.
_REMOVED_AT_ONCE = 1_000

# RFC 9110, 15.5.4, 15.5.5 and 15.5.17.
_FORBIDDEN = 403
_NOT_FOUND = 404
_RANGE_NOT_SATISFIABLE = 416

# Answers that tell nothing of an object whose bytes were asked for: it is empty, or archived, which a HEAD may know.
_NO_BYTES = frozenset({_FORBIDDEN, _RANGE_NOT_SATISFIABLE})

#: Without a cipher, ranges from this length on are read by requests of our own, as bytes pass through fewer hands (see
#: decision 8). A request of obstore's takes less of the interpreter's time, which counts where many fetch a little.
OWN_READS_FROM_BYTES = 1 << 20

# How long close waits for workers; what is under way then goes with the process.
_CLOSE_TIMEOUT_S = 1.0


class S3Connection:
    """What one process has of a bucket: the channel, the reader and the workers."""

    def __init__(self, channel: S3Channel, reader: ObstoreReader) -> None:
        self.channel = channel
        self.reader = reader
        self.pool = WorkerPool('object-store', _WORKERS)
        self.transfers = S3Transfers(channel)

    def close(self) -> None:
        """Idempotent."""
        self.pool.close(_CLOSE_TIMEOUT_S)
        self.transfers.close(_CLOSE_TIMEOUT_S)
        self.channel.close()


class S3Requests:
    """See ObjectRequests. ``connect`` is called once in each process, on first use."""

    #: The answer to a PUT has the ETag but no LastModified, and its Date is not the same: of an object in parts Amazon
    #: shows the time at which the upload began.
    tells_mtime = False
    #: "Naming Amazon S3 objects"; other servers have the same.
    key_limit = LengthLimit(1024)

    def __init__(self, destination: str, connect: Callable[[], S3Connection]) -> None:
        self._destination = destination
        self._process = PerProcess(connect)

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._destination

    def prepare(self) -> None:
        """See ObjectRequests."""
        self._process.get().reader.prepare()
        codecs.lookup('idna')  # for the name of the host

    def look(self, places: Sequence[tuple[str, str]]) -> list[tuple[StoredObject | None, list[str]]]:
        """See ObjectRequests."""
        # The listing's answer first: that of a HEAD has no body, and says less of what is wrong.
        requests = [request for key, prefix in places for request in (_first(prefix, 1), _head(key))]
        answers = self._channel.ask_all(requests)
        return [
            (self._described(key, heads), self._keys(prefix, listed))
            for (key, prefix), listed, heads in zip(places, answers[::2], answers[1::2], strict=True)
        ]

    def look_into(self, key: str, prefix: str, size_bytes: int) -> tuple[StoredObject | None, list[str], bytes | None]:
        """See ReadsBeginnings."""
        reading = S3Request('GET', key, allowed=_NO_BYTES | {_NOT_FOUND}, extent=Extent(0, size_bytes))
        # Sent first what takes the server longer.
        answer, listed = self._channel.ask_all([reading, _first(prefix, 1)])
        below = self._keys(prefix, listed)
        if answer.status in _NO_BYTES:
            return self.head(key), below, None
        stored = self._described(key, answer)
        return stored, below, None if stored is None else answer.body

    def first_keys(self, prefixes: Sequence[str], limit: int) -> list[list[str]]:
        """See ObjectRequests."""
        answers = self._channel.ask_all([_first(prefix, limit) for prefix in prefixes])
        return [self._keys(prefix, answer) for prefix, answer in zip(prefixes, answers, strict=True)]

    def head(self, key: str) -> StoredObject | None:
        """See ObjectRequests."""
        return self._described(key, self._channel.ask(_head(key)))

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """See ObjectRequests."""
        answers = self._channel.ask_all([_head(key) for key in keys])
        return [self._described(key, answer) for key, answer in zip(keys, answers, strict=True)]

    def headers(self, key: str) -> Headers | None:
        """See ObjectRequests."""
        answer = self._channel.ask(_head(key))
        if answer.status == _NOT_FOUND:
            return None
        return Headers(answer.headers.get('etag'), answer.headers.get('content-type'))

    def url(self, key: str, valid_s: float) -> str:
        """See ObjectRequests."""
        return self._channel.url(key, valid_s)

    def pages(self, prefix: str, delimiter: str) -> Iterator[ListingPage]:
        """See ObjectRequests."""
        query = {'list-type': '2', 'encoding-type': 'url', 'prefix': prefix}
        if delimiter:
            query['delimiter'] = delimiter
        token: str | None = ''
        while token is not None:
            asked = query | ({'continuation-token': token} if token else {})
            page, token = self._page(prefix, self._channel.ask(S3Request('GET', '', asked)))
            yield page

    def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        """See ObjectRequests."""
        connection = self._process.get()
        if not (connection.channel.address.is_plain_http and size_bytes >= OWN_READS_FROM_BYTES):
            data = connection.reader.read(key, offset, size_bytes, tag, connection.channel.what(key))
            if data is not None:
                return data
        headers = {} if tag is None else {'if-match': f'"{tag}"'}
        wanted = Extent(offset, size_bytes)
        request = S3Request('GET', key, headers=headers, allowed=frozenset({_RANGE_NOT_SATISFIABLE}), extent=wanted)
        try:
            answer = connection.channel.ask(request)
        except StorageThrottledError:
            connection.reader.rest()
            raise
        if answer.status == _RANGE_NOT_SATISFIABLE:
            return b''
        if tag is not None and xml.tag_of(answer.headers.get('etag', tag)) != tag:
            # The server took no notice of the condition.
            raise StorageConflictError(f'{connection.channel.what(key)} is another version, whatever was asked for')
        return answer.body

    def upload(self, key: str, source: Source, metadata: Mapping[str, str] = PLAIN) -> AbstractContextManager[Commit]:
        """See ObjectRequests."""
        return self._process.get().transfers.upload(key, source, metadata)

    def begin(self, key: str, metadata: Mapping[str, str] = PLAIN) -> S3Upload:
        """See ObjectRequests."""
        return self._process.get().transfers.begin(key, headers_of(metadata, key))

    def abort(self, key: str, token: str) -> None:
        """See ObjectRequests."""
        abort(self._channel, key, token)

    def mark(self, key: str, expected: Expected = None, metadata: Mapping[str, str] = PLAIN) -> None:
        """See ObjectRequests."""
        self._process.get().transfers.mark(key, expected, metadata)

    def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See ObjectRequests."""
        return self._process.get().transfers.describe(key, metadata, tag)

    def remove(self, key: str) -> None:
        """See ObjectRequests."""
        self._channel.ask(S3Request('DELETE', key))

    def remove_all(self, keys: Sequence[str]) -> None:
        """See ObjectRequests."""
        # One by one what XML cannot name; first, because directories whose names it can may hold these.
        for key in keys:
            if not xml.is_expressible(key):
                self.remove(key)
        named = [key for key in keys if xml.is_expressible(key)]
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
        transfers = self._process.get().transfers
        return transfers.copy(source, target, size_bytes, tag, expected, metadata, storage_class)

    def each(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        """See ObjectRequests."""
        self._process.get().pool.each(function, items, _WORKERS)

    def close(self) -> None:
        """See ObjectRequests."""
        connection = self._process.take()
        if connection is not None:
            connection.close()

    @property
    def _channel(self) -> S3Channel:
        return self._process.get().channel

    def _remove_batch(self, keys: Sequence[str]) -> None:
        body = xml.removal(keys)
        # Amazon wants a checksum here beside the signature.
        checksum = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        request = S3Request('POST', '', {'delete': ''}, {'content-md5': checksum}, BytesBody(body))
        answer = self._channel.ask(request)
        try:
            kept = xml.kept_keys(answer.body) if answer.body else []
        except ValueError as error:
            raise self._channel.malformed('', error) from error
        if kept:
            told = [{'Key': error.key, 'Code': error.code, 'Message': error.message} for error in kept]
            raise from_removal(told, len(keys), self._destination)

    def _described(self, key: str, answer: Answer) -> StoredObject | None:
        if answer.status == _NOT_FOUND:
            return None
        headers = answer.headers
        try:
            moment = parsedate_to_datetime(headers['last-modified'])
            tag = xml.tag_of(headers['etag'])
            # The length of a part of it is that of the part.
            partial = answer.status == PARTIAL
            told = headers['content-range'].rpartition('/')[2] if partial else headers['content-length']
            kept_class = class_to_keep(headers.get('x-amz-storage-class', ''))
            return StoredObject(key, int(told), int(moment.timestamp()), tag, metadata_in(headers), kept_class)
        except (KeyError, ValueError) as error:
            raise self._channel.malformed(key, error) from error

    def _keys(self, prefix: str, answer: Answer) -> list[str]:
        return [stored.key for stored in self._page(prefix, answer)[0].objects]

    def _page(self, prefix: str, answer: Answer) -> tuple[ListingPage, str | None]:
        try:
            return xml.listing(answer.body)
        except (KeyError, ValueError) as error:
            raise self._channel.malformed(prefix, error) from error


def _head(key: str) -> S3Request:
    return S3Request('HEAD', key, allowed=frozenset({_NOT_FOUND}))


def _first(prefix: str, limit: int) -> S3Request:
    return S3Request('GET', '', {'list-type': '2', 'encoding-type': 'url', 'prefix': prefix, 'max-keys': str(limit)})
