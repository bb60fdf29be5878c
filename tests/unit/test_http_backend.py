"""What web servers may answer: statuses, redirections, pages of all kinds, and who is told the credentials."""

import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from genro_storage.backends.http import HttpBackend
from genro_storage.backends.web_pages import names_in
from genro_storage.entry import Kind
from genro_storage.errors import (
    StorageError,
    StorageIOError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

Answer = tuple[int, Mapping[str, str], bytes]


class Stub:
    """A web server that answers as a test says."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str, Mapping[str, str]], Answer] = lambda method, path, headers: (404, {}, b'')
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.asked.append((self.command, self.path, headers))
                status, answered, body = stub.answer(self.command, self.path, headers)
                self.send_response(status)
                for name, value in {'content-length': str(len(body)), **answered}.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                if self.command != 'HEAD':
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self._server.server_address[1]}'
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


@pytest.fixture
def backend(stub: Stub) -> Iterator[HttpBackend]:
    backend = HttpBackend(stub.url, headers={'X-Api-Key': 'hunter2'}, timeout_s=1)
    yield backend
    backend.close()


@pytest.mark.parametrize(
    ('status', 'ours'),
    [
        (400, StorageIOError),
        (401, StoragePermissionError),
        (403, StoragePermissionError),
        (404, StorageNotFoundError),
        (408, StorageTimeoutError),
        (410, StorageNotFoundError),
        (429, StorageThrottledError),
        (500, StorageUnavailableError),
        (502, StorageUnavailableError),
        (503, StorageThrottledError),
        (504, StorageUnavailableError),
    ],
)
def test_each_status_has_its_own_error_which_tells_no_secret(
    stub: Stub, backend: HttpBackend, status: int, ours: type[StorageError]
) -> None:
    stub.answer = lambda method, path, headers: (status, {}, b'')
    for ask in (lambda: backend.stat('f'), lambda: backend.read_range('f', 0, 10, None)):
        with pytest.raises(StorageError) as caught:
            ask()
        assert type(caught.value) is ours
        assert 'hunter2' not in str(caught.value)
    if status not in {401, 403, 404, 410}:
        with pytest.raises(ours):
            backend.stat('')


def test_a_server_that_shows_no_root_has_one_all_the_same(stub: Stub, backend: HttpBackend) -> None:
    stub.answer = lambda method, path, headers: (200, {}, b'12') if path == '/f' else (404, {}, b'')
    assert backend.stat('').is_directory
    assert backend.stat('f').size_bytes == 2
    with pytest.raises(StorageUnsupportedError, match='index page'):
        backend.list_directory('')


def test_credentials_go_to_no_other_server(stub: Stub, backend: HttpBackend) -> None:
    other = Stub()
    other.answer = lambda method, path, headers: (200, {'etag': '"1"'}, b'content')
    stub.answer = lambda method, path, headers: (302, {'location': f'{other.url}/elsewhere?signed=1'}, b'')
    try:
        assert backend.read_range('f', 0, 7, backend.stat('f').version) == b'content'
    finally:
        other.close()
    assert all(headers['x-api-key'] == 'hunter2' for _, _, headers in stub.asked)
    assert {path for _, path, _ in other.asked} == {'/elsewhere?signed=1'}
    assert all('x-api-key' not in headers for _, _, headers in other.asked)


def test_redirections_in_a_circle_end(stub: Stub, backend: HttpBackend) -> None:
    stub.answer = lambda method, path, headers: (301, {'location': path}, b'')
    with pytest.raises(StorageIOError, match='redirected'):
        backend.stat('f')


@pytest.mark.parametrize('location', ['file:///etc/passwd', 'ftp://h/x', '//'])
def test_a_redirection_to_what_is_no_web_server_is_not_followed(
    stub: Stub, backend: HttpBackend, location: str
) -> None:
    stub.answer = lambda method, path, headers: (302, {'location': location}, b'')
    with pytest.raises(StorageError):
        backend.stat('f')


def test_a_directory_whose_page_is_refused_is_a_directory(stub: Stub, backend: HttpBackend) -> None:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        return (403, {}, b'') if path == '/d/' else (301, {'location': '/d/'}, b'')

    stub.answer = answer
    assert backend.stat('d').is_directory
    with pytest.raises(StoragePermissionError):
        backend.list_directory('d')


def test_a_file_that_is_made_as_it_is_asked_for_is_there_and_cannot_be_read(stub: Stub, backend: HttpBackend) -> None:
    stub.answer = lambda method, path, headers: (200, {'content-length': '', 'connection': 'close'}, b'')
    assert backend.stat('f').kind is Kind.OTHER
    with pytest.raises(StorageUnsupportedError):
        backend.read_range('f', 0, 10, None)


def test_a_server_without_head_is_asked_for_a_byte(stub: Stub, backend: HttpBackend) -> None:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        return (405, {}, b'') if method == 'HEAD' else (206, {'content-range': 'bytes 0-0/77'}, b'x')

    stub.answer = answer
    assert backend.stat('f').size_bytes == 77


def test_one_refused_file_does_not_hide_the_others(stub: Stub, backend: HttpBackend) -> None:
    page = b'<a href=a>a</a><a href=b>b</a><a href=gone>gone</a>'

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        if path == '/':
            return 200, {'content-type': 'text/html'}, page
        return {'/a': 200, '/b': 403}.get(path, 404), {}, b'1'

    stub.answer = answer
    kinds = {entry.name: entry.kind for entry in backend.list_directory('')}
    assert kinds == {'a': Kind.FILE, 'b': Kind.OTHER}


def test_unreachable_files_fail_the_listing(stub: Stub, backend: HttpBackend) -> None:
    page = b'<a href=a>a</a><a href=b>b</a>'
    stub.answer = lambda method, path, headers: (
        (200, {'content-type': 'text/html'}, page) if path == '/' else (502, {}, b'')
    )
    with pytest.raises(StorageUnavailableError):
        backend.list_directory('')


def test_a_silent_server_is_a_timeout(stub: Stub, backend: HttpBackend) -> None:
    silence = threading.Event()

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        silence.wait(10)
        return 200, {}, b''

    stub.answer = answer
    try:
        with pytest.raises(StorageTimeoutError, match='no progress within 1 s'):
            backend.stat('f')
    finally:
        silence.set()


PAGES = {
    'nginx': (b'<a href="../">../</a><a href="d%20e/">d e/</a><a href="f">f</a>', {'d e': True, 'f': False}),
    'apache': (
        b'<A HREF="?C=N;O=D">Name</A><a href="/pub/">Parent</a><a href="/pub/x/f.gz">f</a><a href="sub/">s</a>',
        {'f.gz': False, 'sub': True},
    ),
    'absolute': (b'<a href="http://h/pub/x/a">a</a><a href="http://other/pub/x/b">b</a>', {'a': False}),
    'elsewhere': (b'<a href="a/b">deep</a><a href="#top">t</a><a href="mailto:x@y">m</a><a>none</a><a href>n</a>', {}),
    'signed': (b'<a href="f?X-Signature=1">f</a>', {}),
    'both': (b'<a href="d">d</a><a href="d/">d</a>', {'d': True}),
    'hidden later': (b'<a href="a%2Fb">x</a><a href="%2e%2e">y</a>', {'a/b': False, '..': False}),
    'latin': (b'<a href="caf%E9">x</a>', {'caf\udce9': False}),
    'broken': (b'<a href="http://[">x</a><table><a href=ok', {}),
}


@pytest.mark.parametrize(('page', 'entries'), PAGES.values(), ids=PAGES)
def test_entries_are_the_links_to_right_below(page: bytes, entries: dict[str, bool]) -> None:
    assert names_in(page, 'http://h/pub/x/') == entries
