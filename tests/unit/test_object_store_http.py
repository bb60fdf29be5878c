"""Connections that are kept, closed under us, answered early, or break off."""

import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

from genro_storage.backends.base import InterruptedReadError
from genro_storage.backends.object_store_channel import BytesBody, SourceBody
from genro_storage.backends.object_store_http import Answer, HttpConnections, Message
from genro_storage.entry import Extent
from genro_storage.errors import StorageConfigError, StorageTimeoutError, StorageUnavailableError
from genro_storage.testing import BytesSource

_OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

Script = Callable[[socket.socket], None]


@contextmanager
def _server(scripts: Sequence[Script]) -> Iterator[str]:
    """Plays one script for each connection, in the order in which they come."""

    def serve() -> None:
        for script in scripts:
            connection, _ = listener.accept()
            with connection:
                script(connection)

    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{listener.getsockname()[1]}'
        thread.join(10)
        assert not thread.is_alive(), 'fewer connections came than there are scripts'


def _request(connection: socket.socket) -> bytes:
    """One request, with its body."""
    received = b''
    while b'\r\n\r\n' not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b'\r\n\r\n')
    for line in head.lower().split(b'\r\n'):
        if line.startswith(b'content-length:'):
            while len(body) < int(line.split(b':')[1]):
                body += connection.recv(65_536)
    return head + b'\r\n\r\n' + body


def _answer(*answers: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        for answer in answers:
            _request(connection)
            connection.sendall(answer)

    return script


def _closing_on_the_second(connection: socket.socket) -> None:
    _request(connection)
    connection.sendall(_OK)
    _request(connection)


def _ask(connections: HttpConnections, message: Message) -> Answer:
    return connections.begin(message, 'what').receive()


def _get(repeatable: bool = True, extent: Extent | None = None) -> Message:
    return Message('GET', '/x', {'host': 'h'}, repeatable=repeatable, extent=extent)


def test_one_connection_serves_request_after_request() -> None:
    with _server([_answer(_OK, _OK)]) as url, closing(HttpConnections(url, 5)) as connections:
        assert [_ask(connections, _get()).body for _ in range(2)] == [b'ok', b'ok']


def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    with _server([_answer(_OK), _answer(_OK)]) as url, closing(HttpConnections(url, 5)) as connections:
        _ask(connections, _get(repeatable=False))
        # The first script closes when it has ended, and the second can only be reached by a new connection.
        select.select([connections._kept[0][1].sock], [], [], 5)
        assert _ask(connections, _get(repeatable=False)).status == 200


def test_a_request_that_was_not_answered_on_a_kept_connection_is_sent_again() -> None:
    with (
        _server([_closing_on_the_second, _answer(_OK)]) as url,
        closing(HttpConnections(url, 5)) as connections,
    ):
        assert [_ask(connections, _get()).status for _ in range(2)] == [200, 200]


def test_a_request_that_cannot_be_repeated_is_not() -> None:
    with _server([_closing_on_the_second]) as url, closing(HttpConnections(url, 5)) as connections:
        _ask(connections, _get())
        with pytest.raises(StorageUnavailableError):
            _ask(connections, _get(repeatable=False))


def test_several_requests_are_under_way_at_once() -> None:
    arrived = threading.Barrier(2)

    def script(connection: socket.socket) -> None:
        _request(connection)
        connection.sendall(_OK)

    def first(connection: socket.socket) -> None:
        threading.Thread(target=later, args=(connection.dup(),), daemon=True).start()

    def later(connection: socket.socket) -> None:
        with connection:
            arrived.wait(5)  # nobody is answered before the second request is there
            script(connection)

    def second(connection: socket.socket) -> None:
        arrived.wait(5)
        script(connection)

    with _server([first, second]) as url, closing(HttpConnections(url, 5)) as connections:
        exchanges = [connections.begin(_get(), 'what') for _ in range(2)]
        assert [exchange.receive().status for exchange in exchanges] == [200, 200]


def test_an_abandoned_exchange_that_has_ended_leaves_its_connection_to_others() -> None:
    with _server([_answer(_OK, _OK)]) as url, closing(HttpConnections(url, 5)) as connections:
        exchange = connections.begin(_get(), 'what')
        exchange.receive()
        exchange.abandon()
        assert _ask(connections, _get()).status == 200


def test_a_body_arrives_whole_and_in_order() -> None:
    data = bytes(range(256)) * 12_000
    received: list[bytes] = []

    def script(connection: socket.socket) -> None:
        received.append(_request(connection))
        connection.sendall(_OK)

    body = SourceBody(BytesSource(b'before' + data + b'after'), Extent(6, len(data)))
    with _server([script]) as url, closing(HttpConnections(url, 5)) as connections:
        _ask(connections, Message('PUT', '/x', {}, body))
    assert received[0].endswith(b'\r\n\r\n' + data)


def test_a_refusal_that_comes_before_the_body_was_read_is_heard() -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b'HTTP/1.1 412 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
        # What is left unread when a socket is closed would reset the connection, and the answer with it.
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    with _server([script]) as url, closing(HttpConnections(url, 5)) as connections:
        answer = _ask(connections, Message('PUT', '/x', {}, BytesBody(bytes(8 << 20)), repeatable=False))
    assert answer.status == 412


_RANGE = b'HTTP/1.1 206 Partial\r\nContent-Range: bytes 3-12/20\r\n'
_WHOLE = b'HTTP/1.1 200 OK\r\n'


@pytest.mark.parametrize(
    ('broken', 'received'),
    [
        pytest.param(_RANGE + b'Content-Length: 10\r\n\r\n3456', b'3456', id='range'),
        pytest.param(_RANGE + b'Transfer-Encoding: chunked\r\n\r\n4\r\n3456\r\n', b'3456', id='range in chunks'),
        # Of the part of a range, which says that it is one, all is there.
        pytest.param(
            b'HTTP/1.1 206 Partial\r\nContent-Range: bytes 3-6/20\r\nContent-Length: 4\r\n\r\n3456', b'3456', id='part'
        ),
        pytest.param(_WHOLE + b'Content-Length: 20\r\n\r\n0123456', b'3456', id='everything'),
        pytest.param(_WHOLE + b'Content-Length: 20\r\n\r\n01', b'', id='too little of everything'),
    ],
)
def test_what_arrived_of_a_range_that_breaks_off_is_told(broken: bytes, received: bytes) -> None:
    with (
        _server([_answer(broken)]) as url,
        closing(HttpConnections(url, 5)) as connections,
        pytest.raises(InterruptedReadError) as caught,
    ):
        _ask(connections, _get(extent=Extent(3, 10)))
    assert caught.value.received == received


def test_of_any_other_answer_that_breaks_off_nothing_is_told() -> None:
    with (
        _server([_answer(_WHOLE + b'Content-Length: 10\r\n\r\n0123')]) as url,
        closing(HttpConnections(url, 5)) as connections,
        pytest.raises(InterruptedReadError) as caught,
    ):
        _ask(connections, _get())
    assert caught.value.received == b''


def test_the_range_is_cut_out_of_everything_and_the_rest_is_not_awaited() -> None:
    ended = threading.Event()

    def script(connection: socket.socket) -> None:
        _request(connection)
        connection.sendall(_WHOLE + b'Content-Length: 1000\r\n\r\n' + b'0123456789' * 2)
        assert connection.recv(1) == b''
        ended.set()

    with _server([script, _answer(_OK)]) as url, closing(HttpConnections(url, 5)) as connections:
        assert _ask(connections, _get(extent=Extent(3, 10))).body == b'3456789012'
        assert ended.wait(5), 'the connection has the rest in it and must not be used again'
        assert _ask(connections, _get()).body == b'ok'


def test_a_long_range_comes_in_one_piece_and_keeps_its_connection() -> None:
    body = bytes(range(256)) * 8192
    head = f'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-{len(body) + 4}/*\r\nContent-Length: {len(body)}'
    script = _answer(f'{head}\r\n\r\n'.encode() + body, _OK)
    with _server([script]) as url, closing(HttpConnections(url, 5)) as connections:
        assert _ask(connections, _get(extent=Extent(5, len(body)))).body == body
        assert _ask(connections, _get()).body == b'ok'


def test_what_arrived_of_a_long_range_that_breaks_off_is_told() -> None:
    head = b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2097151/*\r\nContent-Length: 2097152\r\n\r\n'
    with (
        _server([_answer(head + 5000 * b'x')]) as url,
        closing(HttpConnections(url, 5)) as connections,
        pytest.raises(InterruptedReadError) as caught,
    ):
        _ask(connections, _get(extent=Extent(0, 2 << 20)))
    assert caught.value.received == 5000 * b'x'


def test_a_range_at_the_end_of_a_file_may_be_shorter_and_keeps_its_connection() -> None:
    last = b'HTTP/1.1 206 Partial\r\nContent-Range: bytes 8-9/10\r\n'
    whole = [last + b'Content-Length: 2\r\n\r\n89', last + b'Transfer-Encoding: chunked\r\n\r\n2\r\n89\r\n0\r\n\r\n']
    with _server([_answer(*whole, _OK)]) as url, closing(HttpConnections(url, 5)) as connections:
        for _ in whole:
            assert _ask(connections, _get(extent=Extent(8, 100))).body == b'89'
        assert _ask(connections, _get()).body == b'ok'


def test_an_answer_that_stops_is_a_timeout_and_one_that_crawls_is_none() -> None:
    stopped = threading.Event()

    def crawl(connection: socket.socket) -> None:
        _request(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n')
        for _ in range(8):
            # Slower in all than the limit, faster than it each time.
            stopped.wait(0.15)
            connection.sendall(b'.')

    def stop(connection: socket.socket) -> None:
        _request(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n....')
        stopped.wait(5)

    with _server([crawl, stop]) as url, closing(HttpConnections(url, 0.5)) as connections:
        assert _ask(connections, Message('GET', '/x', {})).body == b'........'
        connections.close()
        with pytest.raises(StorageTimeoutError):
            _ask(connections, Message('GET', '/x', {}))
        stopped.set()


@pytest.mark.parametrize('answer', [b'', b'nonsense\r\n\r\n', b'HTTP/1.1 abc\r\n\r\n'])
def test_an_answer_that_is_no_http_is_unavailable(answer: bytes) -> None:
    with (
        _server([_answer(answer)]) as url,
        closing(HttpConnections(url, 5)) as connections,
        pytest.raises(StorageUnavailableError),
    ):
        _ask(connections, _get())


@pytest.mark.parametrize('value', ['a\nb', 'a\r\nx-other: b', '\u20ac'])
def test_what_no_header_can_hold_is_refused_and_not_shown(value: str) -> None:
    with _server([lambda connection: None]) as url, closing(HttpConnections(url, 5)) as connections:
        with pytest.raises(StorageConfigError) as caught:
            connections.begin(Message('GET', '/x', {'authorization': value}), 'what')
        assert value not in str(caught.value)


def test_a_small_body_comes_with_the_headers() -> None:
    received: list[bytes] = []

    def script(connection: socket.socket) -> None:
        received.append(connection.recv(65_536))
        connection.sendall(_OK)

    with _server([script]) as url, closing(HttpConnections(url, 5)) as connections:
        _ask(connections, Message('PUT', '/x', {'host': 'h'}, BytesBody(b'x' * 8_192)))
    assert received == [b'PUT /x HTTP/1.1\r\nhost: h\r\ncontent-length: 8192\r\n\r\n' + b'x' * 8_192]
