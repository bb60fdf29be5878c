"""Bodies of long ranges: the head without a byte of what follows, the rest in one piece, and a limit of silences."""

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from genro_storage.backends import long_bodies
from genro_storage.backends.long_bodies import LEAST_BYTES

BODY = os.urandom(LEAST_BYTES + 1000)
HEAD = f'HTTP/1.1 206 Partial Content\r\nContent-Length: {len(BODY)}\r\nETag: "x"\r\n\r\n'.encode()
TIMEOUT_S = 0.4


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def sending(theirs: socket.socket, *parts: bytes, pause_s: float = 0.0, close: bool = False) -> threading.Thread:
    def send() -> None:
        for part in parts:
            theirs.sendall(part)
            time.sleep(pause_s)
        if close:
            theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def received(ours: socket.socket, timeout_s: float = 30) -> list[bytes]:
    response = long_bodies.begin(ours, 'GET')
    assert response is not None
    assert (response.status, response.getheader('etag'), response.length) == (206, '"x"', len(BODY))
    return list(long_bodies.pieces(ours, len(BODY), timeout_s))


def test_a_body_comes_in_one_piece_and_the_connection_goes_on(ends: Ends) -> None:
    ours, theirs = ends
    sender = sending(theirs, HEAD + BODY, b'next')
    assert received(ours) == [BODY]
    assert ours.recv(100) == b'next'
    assert ours.gettimeout() == 30
    sender.join(30)


def test_it_comes_in_one_piece_however_it_was_sent(ends: Ends) -> None:
    ours, theirs = ends
    parts = [BODY[start : start + 100_000] for start in range(0, len(BODY), 100_000)]
    sender = sending(theirs, HEAD, *parts, pause_s=0.001)
    assert received(ours) == [BODY]
    sender.join(30)


@pytest.mark.parametrize(
    'answer',
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\nbody',
        b'HTTP/1.1 404 Not Found\r\nContent-Length: 2000000\r\n\r\nbody',
        b'HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\n\r\nbody',
        b'HTTP/1.1 206 Partial Content\r\n\r\nbody',
        b'HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody',
        b'HTTP/1.1 206 Partial Content\r\nContent-Length: 2000000\r\n',
        b'HTTP/1.1 206 Partial Content\r\nX: ' + 9000 * b'x' + b'\r\nContent-Length: 2000000\r\n\r\n',
        b'HTTP/1.1 100 Continue\r\n\r\n' + HEAD,
        b'what is this?',
    ],
)
def test_of_any_other_answer_nothing_is_taken(ends: Ends, answer: bytes) -> None:
    ours, theirs = ends
    theirs.sendall(answer)
    assert long_bodies.begin(ours, 'GET') is None
    assert ours.recv(len(answer), socket.MSG_WAITALL) == answer


def test_a_connection_that_was_closed_has_no_answer(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    assert long_bodies.begin(ours, 'GET') is None


def test_silence_is_a_timeout_and_what_had_come_is_told(ends: Ends) -> None:
    ours, theirs = ends
    sending(theirs, HEAD + BODY[:5000]).join(30)
    assert long_bodies.begin(ours, 'GET') is not None
    pieces = long_bodies.pieces(ours, len(BODY), TIMEOUT_S)
    assert next(pieces) == BODY[:5000]
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        next(pieces)
    assert time.monotonic() - start + TIMEOUT_S / 4 >= TIMEOUT_S
    assert time.monotonic() - start < 10 * TIMEOUT_S


def test_what_crawls_is_none(ends: Ends) -> None:
    ours, theirs = ends
    parts = [BODY[start : start + 100_000] for start in range(0, len(BODY), 100_000)]
    sender = sending(theirs, HEAD, *parts, pause_s=TIMEOUT_S / 3)
    start = time.monotonic()
    assert b''.join(received(ours, TIMEOUT_S)) == BODY
    assert time.monotonic() - start > 2 * TIMEOUT_S
    sender.join(30)


def test_a_body_that_ends_early_is_told_as_far_as_it_came(ends: Ends) -> None:
    ours, theirs = ends
    sending(theirs, HEAD + BODY[:5000], close=True).join(30)
    assert long_bodies.begin(ours, 'GET') is not None
    pieces = long_bodies.pieces(ours, len(BODY), 30)
    assert next(pieces) == BODY[:5000]
    with pytest.raises(http.client.IncompleteRead) as caught:
        next(pieces)
    assert caught.value.expected == len(BODY) - 5000
