"""An HTTP proxy before a real server that does to chosen answers what networks and servers do.

Owns the plan of faults and the record of what was asked and served. It passes on everything else byte for byte, so that
signatures hold. Runs on an event loop in a thread of its own; tests call it from theirs.

Threads: each method may be called from any thread; the loop's own state is touched on the loop only.
"""

import asyncio
import fcntl
import re
import socket
import struct
import termios
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

T = TypeVar('T')

_PIECE_BYTES = 64 << 10
_CALL_TIMEOUT_S = 10.0
#: SO_LINGER on, for no time: close(2) resets (socket(7)).
_RESET = struct.pack('ii', 1, 0)
_RANGE = re.compile(r'bytes=(\d+)-(\d+)')


@dataclass(frozen=True)
class Stall:
    """Say nothing more: before the answer (None), or after so many bytes of its body."""

    after_bytes: int | None = None


@dataclass(frozen=True)
class Reset:
    """Reset the connection after so many bytes of the body have arrived."""

    after_bytes: int


@dataclass(frozen=True)
class Close:
    """Close the connection after so many bytes of the body, which was announced as longer."""

    after_bytes: int


@dataclass(frozen=True)
class Shorten:
    """Answer a range with its first bytes only, and say so: a 206 of less than was asked for."""

    to_bytes: int


@dataclass(frozen=True)
class Reply:
    """Answer this, and do not ask the server."""

    status: str
    body: bytes = b''
    headers: tuple[tuple[str, str], ...] = ()


Fault = Stall | Reset | Close | Shorten | Reply

SLOW_DOWN = Reply(
    '503 Slow Down',
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.'
    b'</Message></Error>',
    (('content-type', 'application/xml'),),
)


@dataclass
class Asked:
    """One request and what was served of its answer; ``start`` and ``size_bytes`` of the range that it asked for."""

    method: str
    path: str
    start: int | None
    size_bytes: int | None
    fault: Fault | None = None
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass
class _Plan:
    fault: Fault
    key: str
    times: int | None
    reads_only: bool
    reached: threading.Event = field(default_factory=threading.Event)

    def concerns(self, asked: Asked) -> bool:
        return (
            self.times != 0
            and asked.path.endswith(self.key)
            and (not self.reads_only or (asked.method == 'GET' and asked.start is not None))
            # A body that ends before it breaks off would not.
            and (asked.size_bytes is None or asked.size_bytes > (getattr(self.fault, 'after_bytes', None) or 0))
        )


class Head:
    """The first line and the headers of a request or an answer."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        lines = raw.decode('latin-1').split('\r\n')
        self.first = lines[0].split(' ', 2)
        pairs = [line.partition(':') for line in lines[1:] if line]
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    @property
    def length(self) -> int:
        return int(self.headers.get('content-length', 0))

    @property
    def is_chunked(self) -> bool:
        return self.headers.get('transfer-encoding', '').lower() == 'chunked'


class FaultProxy:
    """See the module. ``url`` stands for the server's."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._lock = threading.Lock()
        self._asked: list[Asked] = []  # guarded by _lock
        self._plans: list[_Plan] = []  # guarded by _lock
        # Of the loop.
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._healed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name='fault-proxy', daemon=True)
        self._thread.start()
        # Bound all the time, so that nobody else gets the port while nobody listens.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(('127.0.0.1', 0))
        self.port = self._place.getsockname()[1]
        self.accept()
        self.url = f'http://127.0.0.1:{self.port}'

    # What tests call

    def plan(self, fault: Fault, *, key: str = '', times: int | None = 1, reads_only: bool = True) -> threading.Event:
        """Have the next requests (None: all) meet a fault; by default only reads of ranges, and those of one key.

        The event is set once a request has met it. Plans are asked in the order in which they were made.
        """
        plan = _Plan(fault, key, times, reads_only)
        with self._lock:
            self._plans.append(plan)
        return plan.reached

    def heal(self) -> None:
        """Forget all plans; what stalls is cut off."""
        with self._lock:
            self._plans.clear()
        self._call(self._release)

    def refuse(self) -> None:
        """Cut all connections and take no more: as a server whose process has ended."""
        self._call(self._stop)

    def accept(self) -> None:
        """Take connections, at the same port as before."""
        self._call(self._start)

    def reads(self, key: str) -> list[Asked]:
        """The requests for ranges of a key, in the order in which they came."""
        with self._lock:
            return [
                asked
                for asked in self._asked
                if asked.method == 'GET' and asked.start is not None and asked.path.endswith(key)
            ]

    def asked(self) -> int:
        """How many requests came."""
        with self._lock:
            return len(self._asked)

    def moved_bytes(self) -> int:
        """How many bytes passed in the bodies of requests and answers."""
        with self._lock:
            return sum(asked.received_bytes + asked.sent_bytes for asked in self._asked)

    def methods(self) -> list[str]:
        """The methods of all requests, in the order in which they came."""
        with self._lock:
            return [asked.method for asked in self._asked]

    def close(self) -> None:
        self.heal()
        self.refuse()
        self._call(self._drain)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_TIMEOUT_S)
        self._loop.close()
        self._place.close()

    # On the loop

    def _call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(function(), self._loop).result(_CALL_TIMEOUT_S)

    async def _release(self) -> None:
        healed, self._healed = self._healed, asyncio.Event()
        healed.set()

    async def _start(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, '127.0.0.1', self.port, limit=1 << 20, backlog=256, reuse_address=True
            )

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            _reset(writer)

    async def _drain(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            answers, upstream = await asyncio.open_connection(*self._upstream, limit=1 << 20)
            while True:
                head = Head(await reader.readuntil(b'\r\n\r\n'))
                if not await self._exchange(head, reader, writer, answers, upstream):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # either side has gone: that is how connections end
        finally:
            self._writers.discard(writer)
            for side in (writer, upstream):
                if side is not None:
                    side.close()

    async def _exchange(
        self,
        head: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> bool:
        """Serve one request; whether the connection goes on."""
        asked = _asked(head)
        # Taken at the same moment: a stall that the test heals at once has not even begun.
        healed = self._healed
        asked.fault = self._next_fault(asked)
        if head.headers.get('expect', '').lower() == '100-continue':
            writer.write(b'HTTP/1.1 100 Continue\r\n\r\n')
        body = await reader.readexactly(head.length)
        asked.received_bytes = len(body)
        match asked.fault:
            case Reply() as reply:
                asked.sent_bytes = len(reply.body)
                writer.write(_reply(reply, with_body=asked.method != 'HEAD'))
                await writer.drain()
                return True
            case Stall(after_bytes=None):
                await _stall(reader, healed)
                return False
        upstream.write(head.raw + body)
        await upstream.drain()
        answer = Head(await answers.readuntil(b'\r\n\r\n'))
        while answer.first[1] == '100':
            answer = Head(await answers.readuntil(b'\r\n\r\n'))
        return await self._answer(asked, answer, answers, reader, writer, healed)

    async def _answer(
        self,
        asked: Asked,
        answer: Head,
        answers: asyncio.StreamReader,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        healed: asyncio.Event,
    ) -> bool:
        fault = asked.fault
        limit: int | None = None
        raw = answer.raw
        match fault:
            case Shorten(to_bytes=size):
                limit, raw = size, _shortened(answer, size)
            case Stall(after_bytes=size) | Reset(after_bytes=size) | Close(after_bytes=size):
                limit = size
        writer.write(raw)
        async for piece in _body(asked, answer, answers):
            room = len(piece) if limit is None else limit - asked.sent_bytes
            writer.write(piece[:room])
            await writer.drain()
            asked.sent_bytes += len(piece[:room])
            if limit is not None and asked.sent_bytes >= limit:
                await _until_arrived(writer)
                if isinstance(fault, Reset):
                    _reset(writer)
                elif isinstance(fault, Stall):
                    await _stall(reader, healed)
                return False
        return True

    def _next_fault(self, asked: Asked) -> Fault | None:
        with self._lock:
            self._asked.append(asked)
            plan = next((plan for plan in self._plans if plan.concerns(asked)), None)
            if plan is None:
                return None
            if plan.times is not None:
                plan.times -= 1
        plan.reached.set()
        return plan.fault


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy before a server."""
    proxy = FaultProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


def _asked(head: Head) -> Asked:
    match = _RANGE.fullmatch(head.headers.get('range', ''))
    start = int(match[1]) if match else None
    size = int(match[2]) + 1 - int(match[1]) if match else None
    return Asked(head.first[0], unquote(head.first[1].partition('?')[0]), start, size)


async def _stall(reader: asyncio.StreamReader, healed: asyncio.Event) -> None:
    """Until heal(), or the client gives up."""
    waits = [asyncio.ensure_future(healed.wait()), asyncio.ensure_future(reader.read(1))]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await wait


async def _body(asked: Asked, answer: Head, answers: asyncio.StreamReader) -> Any:
    """The raw bytes of a body, as they come."""
    if asked.method == 'HEAD' or answer.first[1] in {'204', '304'}:
        return
    if not answer.is_chunked:
        left = answer.length
        while left:
            piece = await answers.read(min(left, _PIECE_BYTES))
            if not piece:
                raise ConnectionResetError
            left -= len(piece)
            yield piece
        return
    while True:
        line = await answers.readuntil(b'\r\n')
        size = int(line.partition(b';')[0], 16)
        yield line + await answers.readexactly(size + 2)
        if not size:
            return


def _reply(reply: Reply, *, with_body: bool) -> bytes:
    headers = [*reply.headers, ('content-length', str(len(reply.body)))]
    head = ''.join([f'HTTP/1.1 {reply.status}\r\n', *(f'{name}: {value}\r\n' for name, value in headers), '\r\n'])
    return head.encode('latin-1') + (reply.body if with_body else b'')


def _shortened(answer: Head, size_bytes: int) -> bytes:
    """The head of a 206 that holds less."""
    start, total = re.fullmatch(r'bytes (\d+)-\d+/(\d+)', answer.headers['content-range']).groups()  # type: ignore[union-attr]
    headers = answer.headers | {
        'content-length': str(size_bytes),
        'content-range': f'bytes {start}-{int(start) + size_bytes - 1}/{total}',
        # It is the last one of this connection, which has more of the server's answer in it.
        'connection': 'close',
    }
    lines = [' '.join(answer.first), *(f'{name}: {value}' for name, value in headers.items())]
    return '\r\n'.join([*lines, '', '']).encode('latin-1')


async def _until_arrived(writer: asyncio.StreamWriter) -> None:
    """Wait until the other end has all that was written: what is not there yet would be lost by a reset."""
    connection = writer.get_extra_info('socket')
    while writer.transport.get_write_buffer_size() or _unsent(connection):  # type: ignore[attr-defined]
        await asyncio.sleep(0.001)


def _unsent(connection: socket.socket) -> int:
    # SIOCOUTQ (tcp(7)) is TIOCOUTQ: bytes that were not acknowledged.
    return int(struct.unpack('i', fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0])


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info('socket')
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
