"""The line on which tests plan what networks do, between a plain client and a server that repeats what it hears."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from genro_storage.testing import FaultyLine, Flow

_LIMIT_S = 5.0


class _Repeating(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while piece := self.request.recv(65_536):
                self.request.sendall(piece)
        except ConnectionError:
            pass  # as the tests plan it


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope='module')
def server() -> Iterator[int]:
    with _Server(('127.0.0.1', 0), _Repeating) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def line(server: int) -> Iterator[FaultyLine]:
    with closing(FaultyLine(server)) as line:
        yield line


@pytest.fixture
def client(line: FaultyLine) -> Iterator[socket.socket]:
    with _connected(line) as client:
        yield client


def _connected(line: FaultyLine) -> socket.socket:
    return socket.create_connection(('127.0.0.1', line.port), _LIMIT_S)


def _received(client: socket.socket, size_bytes: int) -> bytes:
    data = b''
    while len(data) < size_bytes and (piece := client.recv(size_bytes - len(data))):
        data += piece
    return data


def test_bytes_pass_as_they_are_in_both_directions_and_to_their_end(client: socket.socket) -> None:
    data = bytes(range(256)) * 20_000
    sending = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
    sending.start()
    assert _received(client, len(data) + 1) == data
    sending.join()


@pytest.mark.parametrize('flow', Flow)
def test_a_connection_is_reset_behind_so_many_bytes_and_the_next_one_is_not(
    line: FaultyLine, client: socket.socket, flow: Flow
) -> None:
    met = line.reset(5, flow)
    client.sendall(b'12345')
    assert _received(client, 5) == b'12345'
    assert not met.is_set()
    client.sendall(b'67')
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert met.is_set()
    with _connected(line) as another:
        another.sendall(b'12345678')
        assert _received(another, 8) == b'12345678'


@pytest.mark.parametrize('flow', Flow)
def test_an_answer_ends_behind_so_many_bytes(line: FaultyLine, client: socket.socket, flow: Flow) -> None:
    met = line.end(5, flow)
    client.sendall(b'1234567')
    told = _received(client, 7)
    # Of a request that ends early the server may not have said anything by then.
    assert told == b'12345' or (flow is Flow.REQUESTS and b'12345'.startswith(told))
    assert met.is_set()


def test_silence_is_of_all_connections_old_and_new_until_it_is_healed(line: FaultyLine, client: socket.socket) -> None:
    with _connected(line) as beside:
        beside.sendall(b'1')
        assert _received(beside, 1) == b'1'
        met = line.stall(3)
        client.sendall(b'12345')
        assert _received(client, 3) == b'123'
        assert met.wait(_LIMIT_S)
        with _connected(line) as new:
            for one in (client, beside, new):
                one.settimeout(0.02)
                one.sendall(b'x')
                with pytest.raises(TimeoutError):
                    one.recv(1)
            line.heal()
            for one in (client, beside, new):
                one.settimeout(_LIMIT_S)
                with pytest.raises(ConnectionResetError):
                    one.recv(1)
    with _connected(line) as later:
        later.sendall(b'1')
        assert _received(later, 1) == b'1'


def test_a_line_that_refuses_cuts_what_is_there_and_keeps_its_port(line: FaultyLine, client: socket.socket) -> None:
    client.sendall(b'1')
    assert _received(client, 1) == b'1'
    line.refuse()
    line.refuse()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        _connected(line)
    line.heal()
    with _connected(line) as later:
        later.sendall(b'1')
        assert _received(later, 1) == b'1'


def test_an_answer_comes_in_place_of_the_server_s(line: FaultyLine, client: socket.socket) -> None:
    line.answer(b'no')
    for one in (client, _connected(line)):
        with one:
            one.sendall(b'1')
            assert _received(one, 10) == b'no'
    line.heal()
    with _connected(line) as later:
        later.sendall(b'1')
        assert _received(later, 1) == b'1'


def test_a_server_that_is_not_there_is_a_connection_that_ends() -> None:
    with closing(FaultyLine(1)) as line, pytest.raises(ConnectionResetError), _connected(line) as client:
        client.recv(1)


def test_what_is_open_ends_with_the_line_and_so_does_its_thread(server: int) -> None:
    before = threading.active_count()
    line = FaultyLine(server)
    with _connected(line) as client:
        client.sendall(b'1')
        assert _received(client, 1) == b'1'
        line.close()
        line.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert threading.active_count() <= before + 1  # one of the server, which may not have heard of it yet
