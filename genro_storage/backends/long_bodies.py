"""The body of a long range, received from a socket by as few calls as can be.

Owns the reading of an answer's head without a byte of the body, and the waiting in the kernel for all that follows,
with the limit of a silence. Each call that may wait hands the interpreter over and queues to have it back, and pieces
are copied once more to join them: a third of the daemon's user time in a cold read (decision 8). Where this does not
apply (TLS, chunks, a head that is late) nothing has been taken from the socket, and the caller receives as usual.

Threads: a socket belongs to one at a time.
"""

import http.client
import io
import socket
import struct
import time
from collections.abc import Iterator
from typing import cast

#: Less is received as usual.
LEAST_BYTES = 1 << 20
# Heads of ranges have some hundred.
_HEAD_BYTES = 8 << 10
_END_OF_HEAD = b'\r\n\r\n'
# How often within the time limit to look whether anything has come.
_LOOKS = 4
_TIMEVAL = struct.Struct('@ll')  # timeval of sys/time.h


class _Head:
    """What http.client wants of a socket, with a head in it."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def makefile(self, mode: str) -> io.BytesIO:
        """Only ever to read."""
        return io.BytesIO(self._head)


def begin(sock: socket.socket, method: str) -> http.client.HTTPResponse | None:
    """Take the head of an answer, if a long part of a file of known length follows it; else None, and nothing is taken.

    Raises OSError, as recv(2).
    """
    seen = sock.recv(_HEAD_BYTES, socket.MSG_PEEK)
    head = seen[: seen.find(_END_OF_HEAD) + len(_END_OF_HEAD)]
    if not (head.startswith(b'HTTP/1.1 206') and head.endswith(_END_OF_HEAD)):
        return None
    response = http.client.HTTPResponse(cast('socket.socket', _Head(head)), method=method)
    try:
        response.begin()
    except http.client.HTTPException:
        return None  # the caller will meet it again
    if response.chunked or (response.length or 0) < LEAST_BYTES:
        return None
    sock.recv(len(head))
    return response


def pieces(sock: socket.socket, size_bytes: int, timeout_s: float) -> Iterator[bytes]:
    """So many bytes of the body as they arrive, in one piece if nothing interrupts.

    Raises TimeoutError (nothing has moved for timeout_s, up to a fourth more), IncompleteRead, OSError.
    """
    look_s = timeout_s / _LOOKS
    seconds = int(look_s)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(seconds, int((look_s - seconds) * 1e6) or 1))
    sock.settimeout(None)  # or the kernel would not wait for all of it
    silent_since_s = time.monotonic()
    while size_bytes:
        try:
            piece = sock.recv(size_bytes, socket.MSG_WAITALL)
        except BlockingIOError:
            if time.monotonic() - silent_since_s >= timeout_s:
                raise TimeoutError from None
            continue
        if not piece:
            raise http.client.IncompleteRead(b'', size_bytes)
        silent_since_s = time.monotonic()
        size_bytes -= len(piece)
        yield piece
    sock.settimeout(timeout_s)
