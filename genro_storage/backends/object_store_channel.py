"""Signed requests to one bucket of S3 and what its refusals mean.

Owns the address of a bucket, the bodies of requests and the one place where an answer becomes an error. Does not know
what a request is for.

Threads: safe.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from urllib.parse import urlsplit

import msgspec

from genro_storage.backends import object_store_xml as xml
from genro_storage.backends.base import Source
from genro_storage.backends.copying import read_exactly, read_part
from genro_storage.backends.object_store_http import Answer, Exchange, HttpConnections, Message
from genro_storage.backends.object_store_signing import EMPTY_SHA256, Signer

# The table of codes and statuses belongs to the protocol, not to the library it was first written for.
from genro_storage.backends.s3_errors import UNEXPLAINED, from_response
from genro_storage.entry import Extent
from genro_storage.errors import StorageError, StorageUnavailableError

# Read, hashed and sent at a time: one limit of silence each, and all that an upload holds of a part.
_PIECE_BYTES = 1 << 20

# The usual part of an upload, twice: four of them under way are what a large upload holds.
_HELD_PART_MAX_BYTES = 16 << 20

# Requests that one thread has under way at once: a check of a deep path should not open a connection for each level.
_AT_ONCE = 8

_NOTHING: Mapping[str, str] = {}


class S3Address(msgspec.Struct, frozen=True):
    """Where a bucket is: ``endpoint`` is a URL, which in virtual-host style holds the bucket's name."""

    bucket: str
    endpoint: str
    region: str
    virtual_host: bool = False

    @property
    def host(self) -> str:
        """What the Host header says."""
        return urlsplit(self.endpoint).netloc.rpartition('@')[2]

    @property
    def path(self) -> str:
        """The path before a key."""
        base = urlsplit(self.endpoint).path.rstrip('/')
        return f'{base}/' if self.virtual_host else f'{base}/{self.bucket}/'

    @property
    def is_plain_http(self) -> bool:
        """Whether nothing is encrypted."""
        return urlsplit(self.endpoint).scheme == 'http'


class SignedBody:
    """A Body that knows its hash, which is part of the signature."""

    size_bytes: int

    def pieces(self) -> Iterable[bytes]:
        """See Body."""
        raise NotImplementedError

    def sha256(self) -> str:
        """In hexadecimal digits."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


class BytesBody(SignedBody):
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self._data = data

    def pieces(self) -> Iterable[bytes]:
        """See Body."""
        return (self._data,)


class SourceBody(SignedBody):
    """A part of a source, read as it is sent, and before that once for its hash; memory does not grow with it."""

    def __init__(
        self, source: Source, extent: Extent, read: Callable[[Source, int, int], bytes] = read_exactly
    ) -> None:
        self.size_bytes = extent.size_bytes
        self._source = source
        self._extent = extent
        self._read = read

    def pieces(self) -> Iterator[bytes]:
        """See Body. Raises StorageIOError if the source ends early; the hash finds that before anything is sent."""
        for offset in range(self._extent.offset, self._extent.end, _PIECE_BYTES):
            yield self._read(self._source, offset, min(_PIECE_BYTES, self._extent.end - offset))


def body_of(source: Source, extent: Extent) -> SignedBody:
    """A part of a source as a body."""
    if extent.size_bytes > _PIECE_BYTES:
        return SourceBody(source, extent)
    return BytesBody(read_exactly(source, extent.offset, extent.size_bytes))


def part_of(source: Source, extent: Extent) -> SignedBody:
    """A part of a source as a body, by read(): to ask for the descriptor may fetch all that is missing of a source.

    One of the usual size is read once and held, as parts of a large one are read twice but never held.
    """
    if extent.size_bytes > _HELD_PART_MAX_BYTES:
        return SourceBody(source, extent, read_part)
    return BytesBody(read_part(source, extent.offset, extent.size_bytes))


class S3Request(msgspec.Struct, frozen=True):
    """A method on a key, or on the bucket where there is none.

    ``repeatable``: to do it twice is to do it once. ``allowed``: statuses beside 2xx that are no error. ``extent``:
    only these bytes of the object.
    """

    method: str
    key: str
    query: Mapping[str, str] = _NOTHING
    headers: Mapping[str, str] = _NOTHING
    body: SignedBody | None = None
    repeatable: bool = True
    allowed: frozenset[int] = frozenset()
    extent: Extent | None = None


class S3Channel:
    """One bucket and the connections to it."""

    def __init__(self, address: S3Address, signer: Signer, destination: str, timeout_s: float) -> None:
        self.address = address
        self._signer = signer
        self._destination = destination
        self._connections = HttpConnections(address.endpoint, timeout_s)

    def ask(self, request: S3Request) -> Answer:
        """Send a request and wait for its answer. Raises a StorageError for any but 2xx and what is allowed."""
        return self._settle(request, self._begin(request))

    def ask_all(self, requests: Sequence[S3Request]) -> list[Answer]:
        """The same for several, under way at the same time."""
        answers = []
        for start in range(0, len(requests), _AT_ONCE):
            answers += self._ask_some(requests[start : start + _AT_ONCE])
        return answers

    def url(self, key: str, valid_s: float) -> str:
        """From which anybody can get an object for so long."""
        scheme = urlsplit(self.address.endpoint).scheme
        return f'{scheme}://{self.address.host}{self._signer.presign(self.address.path + key, valid_s)}'

    def what(self, key: str) -> str:
        """How messages name a key."""
        return f'{self._destination}: {key!r}'

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._connections.close()

    def _ask_some(self, requests: Sequence[S3Request]) -> list[Answer]:
        with ExitStack() as abandoning:
            exchanges = []
            for request in requests:
                exchanges.append(self._begin(request))
                abandoning.callback(exchanges[-1].abandon)
            answers = [self._settle(request, exchange) for request, exchange in zip(requests, exchanges, strict=True)]
            abandoning.pop_all()
            return answers

    def _begin(self, request: S3Request) -> Exchange:
        digest = request.body.sha256() if request.body is not None else EMPTY_SHA256
        path = self.address.path + request.key
        headers = dict(request.headers)
        if request.extent is not None:
            headers['range'] = f'bytes={request.extent.offset}-{request.extent.end - 1}'
        target, signed = self._signer.sign(request.method, path, request.query, headers, digest)
        message = Message(request.method, target, signed, request.body, request.repeatable, request.extent)
        return self._connections.begin(message, self.what(request.key))

    def _settle(self, request: S3Request, exchange: Exchange) -> Answer:
        answer = exchange.receive()
        if answer.status in request.allowed:
            return answer
        # A copy or a completion that fails after a while has said 200 already (S3 API reference, CopyObject).
        told = answer.body and (answer.status >= 300 or request.method != 'GET')
        error = xml.error_of(answer.body) if told else None
        if answer.status < 300 and error is None:
            return answer
        if request.method == 'HEAD' and answer.status in UNEXPLAINED:
            self.ask(S3Request('GET', request.key, extent=Extent(0, 1)))
        raise self._refusal(request, answer, error)

    def _refusal(self, request: S3Request, answer: Answer, error: xml.S3Error | None) -> StorageError:
        status = answer.status if answer.status >= 300 else 500
        said = {
            'Error': {'Code': error.code, 'Message': error.message} if error is not None else {},
            'ResponseMetadata': {'HTTPStatusCode': status, 'HTTPHeaders': answer.headers},
        }
        return from_response(said, self.address.bucket, self.what(request.key))

    def malformed(self, key: str, error: ValueError | KeyError) -> StorageError:
        """The error for an answer that is not what S3 says it should be."""
        return StorageUnavailableError(f'{self.what(key)}: {error!r} in the answer; is this an S3 server?')
