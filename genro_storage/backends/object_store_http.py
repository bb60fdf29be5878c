"""HTTP/1.1 requests to one server over connections that are kept.

Owns the connections, the time limits (of a silence, never of a whole transfer) and what a broken connection means.
Knows neither S3 nor signatures. What the network fails at leaves here as a StorageError, by type.

A request is sent and received in two steps, so that one thread can have several under way.

Threads: safe; an exchange belongs to the thread that began it.
"""

import http.client
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from genro_storage.backends import long_bodies
from genro_storage.backends.base import InterruptedReadError
from genro_storage.backends.oserrors import from_oserror
from genro_storage.backends.ranges import PARTIAL, WHOLE, ReceivedRange
from genro_storage.entry import Extent
from genro_storage.errors import StorageConfigError, StorageError, StorageTimeoutError, StorageUnavailableError

# However patient a mount is: a host that has not accepted a connection by then is not there.
_CONNECT_TIMEOUT_MAX_S = 10.0

# More than a mount has threads; what is above is closed when its request has ended.
_KEPT_MAX = 32
# Routers forget connections that were silent for some minutes without telling either end, servers close them earlier.
_KEPT_FOR_S = 50.0

# Received at a time, at most: read1() gives what has arrived, so that a connection that breaks off loses none of it.
_PIECE_BYTES = 256 << 10


# Sent with the headers in one call: a server that reads both at once is woken once. Larger ones it reads bit by bit.
_JOINED_MAX_BYTES = 64 << 10


class Body(Protocol):
    """What a request carries. Its pieces may be asked for again, when a kept connection turns out to be closed."""

    #: The length of all pieces.
    size_bytes: int

    def pieces(self) -> Iterable[bytes]:
        """The bytes, in order."""


class Message(msgspec.Struct, frozen=True):
    """One request. ``target`` is encoded; ``repeatable``: to do it twice is to do it once.

    ``extent``: what the headers ask for, where that is not everything.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: Body | None = None
    repeatable: bool = True
    extent: Extent | None = None


class Answer(msgspec.Struct, frozen=True):
    """What the server said; the names of headers in lower case. The body of a success is the extent asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpConnections:
    """The connections of this process to the host of a URL."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ''
        self._port = parts.port
        self._tls = ssl.create_default_context() if parts.scheme == 'https' else None
        self._timeout_s = timeout_s
        self.connect_timeout_s = min(_CONNECT_TIMEOUT_MAX_S, timeout_s)
        self._lock = threading.Lock()
        self._kept: list[tuple[float, http.client.HTTPConnection]] = []  # guarded by _lock; the last used is last
        self._closed = False  # guarded by _lock
        # A process that ends without closing would warn of each.
        weakref.finalize(self, _close_all, self._kept)

    def begin(self, message: Message, what: str) -> 'Exchange':
        """Send a request. ``what`` names destination and key, for errors; those of sending come with the answer."""
        return Exchange(self, message, what, self._timeout_s)

    def close(self) -> None:
        """Close what is not in use; what is, closes when its exchange ends. Idempotent."""
        with self._lock:
            self._closed = True
            _close_all(self._kept)

    def take(self) -> http.client.HTTPConnection | None:
        """A connection that was used before and that the server has not closed, or None."""
        while True:
            with self._lock:
                since, connection = self._kept.pop() if self._kept else (0.0, None)
            if connection is None:
                return None
            if time.monotonic() - since < _KEPT_FOR_S and not _has_ended(connection):
                return connection
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        """A new connection. Raises OSError."""
        limit_s = self.connect_timeout_s
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=limit_s)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=limit_s, context=self._tls)
        connection.connect()
        connection.sock.settimeout(self._timeout_s)
        return connection

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next request."""
        with self._lock:
            keep = not self._closed and len(self._kept) < _KEPT_MAX
            if keep:
                self._kept.append((time.monotonic(), connection))
        if not keep:
            connection.close()


class Exchange:
    """One request on its way, and its answer. Must be received or abandoned."""

    def __init__(self, connections: HttpConnections, message: Message, what: str, timeout_s: float) -> None:
        self._connections = connections
        self._message = message
        self._what = what
        self._limit_s = connections.connect_timeout_s
        self._timeout_s = timeout_s
        self._failure: OSError | None = None
        self._is_long = False  # only the head has been taken from the socket
        self._ended = False  # the connection is somebody else's, or closed
        kept = connections.take()
        self._reused = kept is not None
        with self._translating():
            self._connection = kept or connections.connect()
            self._limit_s = timeout_s
            self._send()

    def receive(self) -> Answer:
        """Wait for the answer.

        Raises StorageTimeoutError, StorageUnavailableError, InterruptedReadError (an answer that began).
        """
        try:
            with self._translating():
                return self._receive_or_repeat()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Give up on the answer; none to give up on is no error."""
        if not self._ended:
            self._ended = True
            self._connection.close()

    def _receive_or_repeat(self) -> Answer:
        try:
            response = self._response()
        except (http.client.RemoteDisconnected, ConnectionError):
            # A server may close a connection that was idle just when it is used again.
            if not (self._reused and self._message.repeatable):
                raise
            self._connection.close()
            self._connection = self._connections.connect()
            self._send()
            response = self._response()
        try:
            return self._finish(response)
        finally:
            response.close()

    def _send(self) -> None:
        message, connection = self._message, self._connection
        try:
            pieces = iter(message.body.pieces() if message.body is not None else ())
            first, head = next(pieces, b''), _head(message)
            # Never the head alone: SeaweedFS stores an empty object where a connection ends behind it.
            connection.sock.sendall(head + first[:_JOINED_MAX_BYTES])
            if len(first) > _JOINED_MAX_BYTES:
                connection.sock.sendall(memoryview(first)[_JOINED_MAX_BYTES:])
            for piece in pieces:
                # A limit for each piece, not for all: what moves slowly does move.
                connection.sock.sendall(piece)
            self._failure = None
        except (BrokenPipeError, ConnectionResetError) as error:
            # A server that refuses a body may answer and close before it has read all of it.
            self._failure = error
        except BaseException:
            connection.close()
            raise

    def _response(self) -> http.client.HTTPResponse:
        try:
            return self._begin_long() or self._begin()
        except (http.client.HTTPException, OSError) as error:
            if self._failure is not None:
                raise self._failure from error
            raise

    def _begin(self) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(self._connection.sock, method=self._message.method)
        try:
            response.begin()
        except BaseException:
            response.close()
            raise
        return response

    def _begin_long(self) -> http.client.HTTPResponse | None:
        wanted, sock = self._message.extent, self._connection.sock
        if wanted is None or wanted.size_bytes < long_bodies.LEAST_BYTES or isinstance(sock, ssl.SSLSocket):
            return None
        response = long_bodies.begin(sock, self._message.method)
        self._is_long = response is not None
        return response

    def _finish(self, response: http.client.HTTPResponse) -> Answer:
        headers = {name.lower(): value for name, value in response.getheaders()}
        wanted = self._message.extent
        if wanted is not None and response.status in {WHOLE, PARTIAL}:
            arriving = ReceivedRange(wanted, response.status, headers.get('content-range'), self._what)
            pieces = self._pieces(response)
            self._receive_range(pieces, arriving)
            # The rest of a whole may be long; of a range nothing is left but the end of a chunked body.
            body, ended = arriving.result(), response.status == PARTIAL and next(pieces, None) is None
        else:
            body, ended = self._receive_all(response), True
        response.close()
        self._ended = True
        if response.will_close or self._failure is not None or not ended:
            self._connection.close()
        else:
            self._connections.give_back(self._connection)
        return Answer(response.status, headers, body)

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        if self._is_long:
            return long_bodies.pieces(self._connection.sock, response.length or 0, self._timeout_s)
        return _pieces(response)

    def _receive_range(self, pieces: Iterator[bytes], arriving: ReceivedRange) -> None:
        try:
            while arriving.missing_bytes and (piece := next(pieces, b'')):
                arriving.add(piece)
        except TimeoutError:
            raise
        except (http.client.HTTPException, OSError) as error:
            raise arriving.interrupted(_broke_off(error)) from error

    def _receive_all(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return b''.join(_pieces(response))
        except TimeoutError:
            raise
        except (http.client.HTTPException, OSError) as error:
            raise InterruptedReadError(f'{self._what}: {_broke_off(error)}') from error

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except TimeoutError as error:
            raise StorageTimeoutError(f'{self._what}: no progress within {self._limit_s:g} s') from error
        except ssl.SSLCertVerificationError as error:
            raise StorageUnavailableError(f'{self._what}: its certificate: {error.verify_message}') from error
        except (ssl.SSLError, socket.gaierror, http.client.HTTPException) as error:
            raise StorageUnavailableError(f'{self._what}: {error}') from error
        except OSError as error:
            raise from_oserror(error, self._what) from error


def _head(message: Message) -> bytes:
    """The bytes before a body. Raises StorageConfigError for what no header can hold; it may be a secret, unshown."""
    headers = dict(message.headers)
    if message.body is not None:
        headers['content-length'] = str(message.body.size_bytes)
    lines = [f'{message.method} {message.target} HTTP/1.1', *(f'{name}: {value}' for name, value in headers.items())]
    try:
        if any('\r' in line or '\n' in line for line in lines):
            raise ValueError
        return '\r\n'.join([*lines, '', '']).encode('latin-1')
    except ValueError:
        raise StorageConfigError(
            'a key, a token or a region that holds a line break or letters beyond ISO 8859-1'
        ) from None


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives. Raises IncompleteRead if it is shorter than was announced, OSError."""
    missing = response.length
    # Counted here: read1() does so itself only since Python 3.11.8.
    while missing != 0:
        piece = response.read1(_PIECE_BYTES if missing is None else min(missing, _PIECE_BYTES))
        if not piece:
            break
        if missing is not None:
            missing -= len(piece)
        yield piece
    if missing:
        raise http.client.IncompleteRead(b'', missing)


def _broke_off(error: http.client.HTTPException | OSError) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f'the connection was closed {error.expected} bytes before the end of the answer'
    return f'the connection broke off: {error}'


def _close_all(kept: list[tuple[float, http.client.HTTPConnection]]) -> None:
    while kept:
        kept.pop()[1].close()


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed it: between requests it has nothing else to say."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
