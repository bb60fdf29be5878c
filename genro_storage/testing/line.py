"""A line between a backend and its real server, on which a test plans what networks do.

Owns a port of loopback, the connections that come to it, and the fault that is planned: to refuse, to fall silent, to
break off, to end early, to answer in place of the server. Otherwise it carries bytes as they are, and knows no
protocol: a fault comes where so many bytes have passed, whichever connection they went over.

Threads: safe. Connections live on an event loop in a thread of its own, and so does all state.
"""

import asyncio
import enum
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

T = TypeVar('T')

_PIECE_BYTES = 64 << 10
# More than any backend opens; a client beyond that is cut off, and a test that leaks connections fails.
_LINKS_MAX = 64
_CALL_TIMEOUT_S = 10.0
#: SO_LINGER on, for no time: close(2) resets (socket(7)).
_RESET = struct.pack('ii', 1, 0)


class Flow(enum.Enum):
    """Which of the bytes that pass are counted."""

    REQUESTS = 'from the backend'
    ANSWERS = 'from the server'


class _Fault(enum.Enum):
    SILENCE = 'silence'
    RESET = 'reset'
    END = 'end'


class _Plan(msgspec.Struct, eq=False):
    fault: _Fault
    flow: Flow
    left_bytes: int
    met: threading.Event


class FaultyLine:
    """A way to the server at ``host`` and ``port``: give a backend ``127.0.0.1`` and ``line.port`` instead.

    One fault is planned at a time. Each is planned for the byte after so many of a flow, all connections together; the
    event that is returned is set when it has come.
    """

    def __init__(self, port: int, host: str = '127.0.0.1') -> None:
        self._server = (host, port)
        # Of the loop.
        self._links: set[_Link] = set()
        self._listening: asyncio.Server | None = None
        self._plan: _Plan | None = None
        self._silent = False
        self._answer: bytes | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name='faulty-line', daemon=True)
        self._thread.start()
        # Bound all the time, so that nobody else gets the port while nobody listens.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(('127.0.0.1', 0))
        #: Where it takes connections, on 127.0.0.1.
        self.port: int = self._place.getsockname()[1]
        self._call(self._heal())

    def refuse(self) -> None:
        """Cut all connections and refuse new ones until heal(): as a server whose process has ended."""
        self._call(self._refuse())

    def stall(self, after_bytes: int = 0, flow: Flow = Flow.ANSWERS) -> threading.Event:
        """Let so much pass, and then nothing any more on any connection until heal()."""
        return self._call(self._expect(_Fault.SILENCE, after_bytes, flow))

    def reset(self, after_bytes: int = 0, flow: Flow = Flow.ANSWERS) -> threading.Event:
        """Let so much pass, and then reset that connection, at both ends; what had not been read may be lost."""
        return self._call(self._expect(_Fault.RESET, after_bytes, flow))

    def end(self, after_bytes: int = 0, flow: Flow = Flow.ANSWERS) -> threading.Event:
        """Let so much pass, and then close that connection to both ends, as if nothing were to follow."""
        return self._call(self._expect(_Fault.END, after_bytes, flow))

    def answer(self, answer: bytes) -> None:
        """Give every request this answer until heal(), and close; the server hears nothing of it."""
        self._call(self._answer_with(answer))

    def heal(self) -> None:
        """Forget what is planned, and take connections again; those that were silent or had ended are cut."""
        self._call(self._heal())

    def close(self) -> None:
        """End all connections, and the thread. Idempotent."""
        if not self._thread.is_alive():
            return
        self._call(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_TIMEOUT_S)
        self._loop.close()
        self._place.close()

    # On the loop

    def _call(self, act: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(act, self._loop).result(_CALL_TIMEOUT_S)

    async def _expect(self, fault: _Fault, after_bytes: int, flow: Flow) -> threading.Event:
        self._plan = _Plan(fault, flow, after_bytes, threading.Event())
        return self._plan.met

    async def _answer_with(self, answer: bytes) -> None:
        self._answer = answer

    async def _heal(self) -> None:
        self._plan = None
        self._answer = None
        self._silent = False
        for link in self._links:
            if link.is_over:
                link.cut()
        if self._listening is None:
            self._listening = await asyncio.start_server(self._serve, '127.0.0.1', self.port, reuse_address=True)

    async def _refuse(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for link in self._links:
            link.cut()

    async def _end_all(self) -> None:
        await self._refuse()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_CALL_TIMEOUT_S / 2)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        link = _Link(reader, writer)
        if self._listening is None or len(self._links) >= _LINKS_MAX:
            link.cut()
            return
        self._links.add(link)
        try:
            if self._silent:
                link.is_over = True
                await link.has_been_cut.wait()
            else:
                await link.connect(self._server)
                await asyncio.gather(*(self._carry(link, flow) for flow in Flow))
                link.close()
        except OSError:
            link.cut()  # either side has gone: that is how connections end
        finally:
            self._links.discard(link)

    async def _carry(self, link: '_Link', flow: Flow) -> None:
        """Bytes of one direction, until they end or meet what is planned."""
        reader, writer = link.ends[flow]
        while True:
            piece = await reader.read(_PIECE_BYTES)
            if self._silent:
                # Not even that one end has closed gets through.
                link.is_over = True
                await link.has_been_cut.wait()
                return
            if link.is_over:
                if not piece:
                    return
                continue
            if piece and flow is Flow.REQUESTS and self._answer is not None:
                link.ends[Flow.ANSWERS][1].write(self._answer)
                link.end()
                continue
            plan = self._plan
            passing = len(piece) if plan is None or plan.flow is not flow else min(len(piece), plan.left_bytes)
            writer.write(piece[:passing])
            await writer.drain()
            if plan is not None and plan.flow is flow:
                plan.left_bytes -= passing
            if plan is not None and passing < len(piece):
                await self._meet(plan, link)
            elif not piece:
                writer.write_eof()
                return

    async def _meet(self, plan: _Plan, link: '_Link') -> None:
        self._plan = None
        self._silent = plan.fault is _Fault.SILENCE
        # Before an end of the connection can hear of it.
        plan.met.set()
        match plan.fault:
            case _Fault.SILENCE:
                link.is_over = True
                await link.has_been_cut.wait()
            case _Fault.RESET:
                link.cut()
            case _Fault.END:
                link.end()


class _Link:
    """A connection of a client, and the one to the server that belongs to it. ``is_over``: nothing passes any more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.is_over = False
        self.has_been_cut = asyncio.Event()
        self._client = reader, writer
        self._writers = [writer]
        #: From where to where.
        self.ends: dict[Flow, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def connect(self, server: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*server)
        self._writers.append(writer)
        if self.has_been_cut.is_set():
            raise ConnectionResetError
        for one in self._writers:
            # So that to drain is to hand over to the kernel: what is not there would be lost with the connection.
            one.transport.set_write_buffer_limits(0)
        self.ends = {Flow.REQUESTS: (self._client[0], writer), Flow.ANSWERS: (reader, self._client[1])}

    def end(self) -> None:
        """Tell both ends that nothing follows, once they have what was written."""
        self.is_over = True
        for writer in self._writers:
            with suppress(OSError):
                writer.write_eof()

    def close(self) -> None:
        """Close both ends; each still gets what was written to it."""
        for writer in self._writers:
            writer.close()

    def cut(self) -> None:
        """Reset both ends; those that are closed already are not."""
        self.is_over = True
        self.has_been_cut.set()
        for writer in self._writers:
            with suppress(OSError):
                writer.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
