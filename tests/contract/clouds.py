"""What Google's and Azure's stores have beside the contract, for both drivers of each: inherited with fixtures.

``Cloud`` is what the tests need to know of a store; a test module makes one of its server.
"""

import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

from genro_storage import StorageManager
from genro_storage.backends.base import ABSENT, Backend
from genro_storage.backends.loop_requests import LoopRequests
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.entry import Kind
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.testing import BytesSource, FaultyLine
from genro_storage.testing.contract import BackendContract, FailingContract, names, read, write
from genro_storage.testing.contract.failing import HTTP_503
from genro_storage.testing.contract.putting import NAMES
from tests.servers import free_ports

_MIB = 1 << 20

#: What a server may answer, and what that is to us.
REFUSALS: list[tuple[int, type[StorageError]]] = [
    (400, StorageIOError),
    (401, StoragePermissionError),
    (403, StoragePermissionError),
    (408, StorageTimeoutError),
    (429, StorageThrottledError),
    (500, StorageUnavailableError),
    (502, StorageUnavailableError),
    (503, StorageThrottledError),
]


class Cloud(Protocol):
    """A store and its server. ``secrets``: what no text may show; ``key``: of a place in a definition of ``type``."""

    type: str
    key: str
    secrets: list[str]

    def new_place(self) -> str:
        """Make an empty bucket or container; its name."""

    def put(self, place: str, key: str, data: bytes) -> str:
        """Store an object as somebody else would; its tag."""

    def get(self, place: str, key: str) -> bytes:
        """The content of an object."""

    def keys(self, place: str, prefix: str = '') -> list[str]:
        """All keys."""

    def arguments(self) -> dict[str, Any]:
        """What a backend needs to be told beside the place."""

    def arguments_at(self, url: str) -> dict[str, Any]:
        """The same for a server elsewhere."""


class NamesContract(BackendContract):
    """The contract, of a store that keeps some names not at all: they are refused, and nothing comes of it."""

    refused: frozenset[str]

    @pytest.mark.parametrize('name', NAMES)
    def test_any_name_goes_there_and_back(self, backend: Backend, name: str) -> None:
        if name not in self.refused:
            super().test_any_name_goes_there_and_back(backend, name)
            return
        write(backend, 'd/source', b'1')
        _assert_refused(backend, 'd', name)

    @pytest.mark.parametrize('name', NAMES)
    def test_directories_take_any_name_too(self, backend: Backend, name: str) -> None:
        if name not in self.refused:
            super().test_directories_take_any_name_too(backend, name)
            return
        write(backend, 'source', b'1')
        with pytest.raises(StoragePathError):
            backend.make_directory(name)
        _assert_refused(backend, '', name)

    def test_a_backslash_is_a_letter(self, backend: Backend) -> None:
        if 'back\\slash' not in self.refused:
            super().test_a_backslash_is_a_letter(backend)
            return
        write(backend, 'source', b'1')
        _assert_refused(backend, '', 'back\\slash')


def _assert_refused(backend: Backend, directory: str, name: str) -> None:
    path = f'{directory}/{name}' if directory else name
    source = f'{directory}/source' if directory else 'source'
    for change in (
        lambda: write(backend, path, b'1'),
        lambda: backend.rename(source, path),
        lambda: backend.copy(source, path),
    ):
        with pytest.raises(StoragePathError):
            change()
    with pytest.raises(StorageNotFoundError):
        backend.stat(path)
    with pytest.raises(StorageNotFoundError):
        backend.read_range(path, 0, 1, None)
    assert names(backend, directory) == {'source'}


class CloudCases:
    """For one driver. ``make``: its class; ``cloud`` is a fixture."""

    make: type[ObjectDirectories]
    other: type[ObjectDirectories]

    @pytest.fixture
    def place(self, cloud: Cloud) -> str:
        return cloud.new_place()

    @pytest.fixture
    def backend(self, cloud: Cloud, place: str) -> Iterator[ObjectDirectories]:
        with closing(self.make(place, **cloud.arguments())) as backend:
            yield backend

    def test_a_mount_of_its_type_works_through_nodes(self, cloud: Cloud, place: str, tmp_path: Path) -> None:
        driver = 'obstore' if self.make.__name__.endswith('ObstoreBackend') else 'fsspec'
        own = {'name': 'm', 'type': cloud.type, cloud.key: place, 'prefix': 'p', 'driver': driver}
        with closing(StorageManager()) as storage:
            storage.configure({'mounts': [{**own, **cloud.arguments()}], 'cache': {'path': str(tmp_path)}})
            node = storage.node('m:a/b')
            node.write_text('content')
            node.copy('m:c')
            node.move('m:d/e')
            assert storage.node('m:d/e').read_text() == storage.node('m:c').read_text() == 'content'
            assert [child.basename for child in storage.node('m').children()] == ['a', 'c', 'd']
            with pytest.raises(FileExistsError), storage.node('m:c').open('xb') as file:
                file.write(b'other')
            assert type(storage.volume('m').backend._inner) is self.make
        assert cloud.get(place, 'p/c') == b'content'

    # Directories

    def test_a_made_directory_is_an_empty_object(self, backend: Backend, cloud: Cloud, place: str) -> None:
        backend.make_directory('d')
        assert cloud.keys(place) == ['d/']
        backend.remove_directory('d')
        assert cloud.keys(place) == []

    def test_an_object_beside_keys_below_it_is_shown_as_the_directory(
        self, backend: Backend, cloud: Cloud, place: str
    ) -> None:
        cloud.put(place, 'a', b'hidden')
        cloud.put(place, 'a/b', b'shown')
        assert [(entry.name, entry.kind) for entry in backend.list_directory('')] == [('a', Kind.DIRECTORY)]
        assert backend.stat('a').is_directory
        assert read(backend, 'a/b') == b'shown'

    def test_hidden_keys_are_counted_and_keep_their_directory(
        self, backend: ObjectDirectories, cloud: Cloud, place: str
    ) -> None:
        cloud.put(place, 'd//below', b'1')
        cloud.put(place, 'd/shown', b'1')
        assert names(backend, 'd') == {'shown'}
        assert backend.hidden.count == 1
        backend.remove_file('d/shown')
        with pytest.raises(StorageNotEmptyError):
            backend.remove_directory('d')

    def test_listings_and_moves_go_on_behind_their_first_page(
        self, backend: ObjectDirectories, cloud: Cloud, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = {str(number) for number in range(70)}
        for name in expected:
            cloud.put(place, f'd/{name}', b'')
        # Where obstore lists, it pages by itself; this is how the others do.
        backend._requests = getattr(backend._requests, '_exact', backend._requests)
        connection = _connection(backend)
        whole = connection.page

        async def short(prefix: str, delimiter: str, limit: int | None, after: str | None) -> Any:
            return await whole(prefix, delimiter, limit or 30, after)

        monkeypatch.setattr(connection, 'page', short)
        assert names(backend, 'd') == expected
        backend.rename('d', 'moved')
        assert names(backend, 'moved') == expected
        assert names(backend) == {'moved'}

    # Versions and large files

    def test_both_drivers_tell_the_same(self, backend: Backend, cloud: Cloud, place: str) -> None:
        with closing(self.other(place, **cloud.arguments())) as other:
            entries = [write(backend, 'd/ours', b'1'), write(other, 'd/theirs', b'22')]
            backend.make_directory('d/e')
            assert backend.list_directory('d') == other.list_directory('d')
            for entry in entries:
                assert backend.stat(f'd/{entry.name}') == other.stat(f'd/{entry.name}') == entry
            assert backend.destination == other.destination
            assert backend.capabilities == other.capabilities

    def test_a_change_of_the_same_size_is_seen(self, backend: Backend, cloud: Cloud, place: str) -> None:
        old = write(backend, 'file', b'old')
        tag = cloud.put(place, 'file', b'new')
        seen = backend.stat('file').version
        assert seen is not None
        assert seen != old.version
        assert seen.tag == tag
        with pytest.raises(StorageConflictError):
            backend.read_range('file', 0, 3, old.version)
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(b'mine'), expected=old.version)
        assert read(backend, 'file') == b'new'

    def test_an_upload_in_parts_is_refused_when_the_object_changed_meanwhile(
        self, backend: Backend, cloud: Cloud, place: str
    ) -> None:
        old = write(backend, 'file', b'old')
        cloud.put(place, 'file', b'new')
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(bytes(17 * _MIB)), expected=old.version)
        assert read(backend, 'file') == b'new'

    @pytest.mark.parametrize('size_bytes', [1 * _MIB, 1 * _MIB + 1, 8 * _MIB, 16 * _MIB, 16 * _MIB + 1, 33 * _MIB + 3])
    def test_contents_of_any_size_arrive_whole(
        self, backend: Backend, cloud: Cloud, place: str, size_bytes: int
    ) -> None:
        data = os.urandom(size_bytes)
        backend.put('file', BytesSource(data))
        assert cloud.get(place, 'file') == data

    def test_a_source_that_ends_early_leaves_nothing_behind(self, backend: Backend, cloud: Cloud, place: str) -> None:
        for size_bytes, announced in ((2 * _MIB - 1, 2 * _MIB), (20 * _MIB, 60 * _MIB)):
            with pytest.raises(StorageIOError):
                backend.put('file', BytesSource(bytes(size_bytes), size_bytes=announced))
        assert cloud.keys(place) == []

    # Wrong or gone

    def test_a_missing_place_is_named(self, cloud: Cloud) -> None:
        with closing(self.make('no-such-place', **cloud.arguments())) as backend:
            for operation in (
                lambda: backend.stat(''),
                lambda: backend.stat('file'),
                lambda: backend.list_directory(''),
                lambda: backend.read_range('file', 0, 1, None),
                lambda: write(backend, 'file', b'1'),
                lambda: backend.put('file', BytesSource(b'1'), expected=ABSENT),
                lambda: backend.put('file', BytesSource(bytes(17 * _MIB))),
                lambda: backend.make_directory('d'),
            ):
                with pytest.raises(StorageNotFoundError, match=r"no (bucket|container) 'no-such-place'"):
                    operation()

    @pytest.mark.parametrize(('status', 'error'), REFUSALS)
    def test_what_a_server_refuses_has_a_type_and_shows_no_answer(
        self, cloud: Cloud, status: int, error: type[StorageError]
    ) -> None:
        body = b'<Error>the secret of the answer</Error>'
        head = f'HTTP/1.1 {status} Refused\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n'
        with answering(head.encode() + body) as url:
            for caught in self._failures(cloud, url):
                assert type(caught) is error
                assert 'the secret' not in str(caught)

    @pytest.mark.parametrize('status', [409, 412])
    def test_a_condition_that_does_not_hold_is_a_conflict(self, cloud: Cloud, status: int) -> None:
        head = f'HTTP/1.1 {status} Conflict\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
        with answering(head.encode()) as url, closing(self.make('place', **cloud.arguments_at(url))) as backend:
            requests = backend._requests
            with pytest.raises(StorageConflictError):
                requests.mark('key', ABSENT)

    def test_a_server_of_another_kind_is_unavailable(self, cloud: Cloud) -> None:
        with answering(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi') as url:
            backend = self.make('place', **cloud.arguments_at(url))
            with closing(backend), pytest.raises(StorageUnavailableError):
                backend.stat('file')

    def test_an_endpoint_where_nobody_listens_is_unavailable_at_once(self, cloud: Cloud) -> None:
        self._assert_fails(cloud, f'http://127.0.0.1:{free_ports(1)[0]}', StorageUnavailableError)

    def test_a_host_that_is_not_known_is_unavailable(self, cloud: Cloud) -> None:
        self._assert_fails(cloud, 'http://store.invalid', StorageUnavailableError)

    def test_a_server_that_says_nothing_is_a_timeout(self, cloud: Cloud) -> None:
        with socket.create_server(('127.0.0.1', 0)) as silent:
            url = f'http://127.0.0.1:{silent.getsockname()[1]}'
            self._assert_fails(cloud, url, StorageTimeoutError, timeout_s=0.5)

    def test_an_answer_that_breaks_off_is_unavailable_and_no_short_read(self, cloud: Cloud) -> None:
        answer = (
            b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n'
            b'ETag: "tag"\r\nLast-Modified: Mon, 23 Nov 2026 05:00:00 GMT\r\nConnection: close\r\n\r\n01234'
        )
        with (
            answering(answer) as url,
            closing(self.make('place', **cloud.arguments_at(url))) as backend,
            pytest.raises(StorageUnavailableError),
        ):
            backend.read_range('file', 0, 10, None)

    def test_bytes_that_are_no_utf8_are_refused(self, backend: Backend) -> None:
        for operation in (
            lambda: backend.stat('\udce9'),
            lambda: write(backend, '\udce9', b'1'),
            lambda: backend.rename('a', '\udce9'),
            lambda: backend.copy('a', '\udce9'),
        ):
            with pytest.raises(StoragePathError):
                operation()

    def test_a_path_longer_than_the_store_keeps_is_too_long(self, backend: Backend) -> None:
        path = '/'.join(['n' * 200] * 6)
        with pytest.raises(StoragePathError, match='allows 1,024'):
            write(backend, path, b'1')

    def test_a_path_may_be_as_long_as_it_says(self, backend: Backend) -> None:
        limit = backend.capabilities.path_limit
        assert limit is not None
        path = ('ä' if limit.in_characters else 'n') + ('n' * 99 + '/') * 11
        path = path[: limit.length - 1] + 'e'
        assert limit.allows(path)
        assert not limit.allows(path + 'e')
        write(backend, path, b'long')
        assert read(backend, path) == b'long'

    def _assert_fails(self, cloud: Cloud, url: str, error: type[StorageError], **changed: Any) -> None:
        started = time.monotonic()
        for caught in self._failures(cloud, url, **changed):
            assert isinstance(caught, error)
            shown = ''.join(traceback.format_exception(caught))
            assert not [secret for secret in cloud.secrets if secret in shown]
        # Four operations; one that asks twice, by obstore and otherwise, may not wait twice.
        assert time.monotonic() - started < 10

    def _failures(self, cloud: Cloud, url: str, **changed: Any) -> Iterator[StorageError]:
        """What each kind of operation raises."""
        with closing(self.make('place', **{**cloud.arguments_at(url), **changed})) as backend:
            operations: list[Callable[[], object]] = [
                partial(backend.stat, 'file'),
                partial(backend.list_directory, ''),
                partial(backend.read_range, 'file', 0, 10, None),
                partial(write, backend, 'file', b'1'),
            ]
            for operation in operations:
                with pytest.raises(StorageError) as caught:
                    operation()
                yield caught.value

    # Processes and secrets

    def test_no_repr_and_no_error_shows_a_secret(self, backend: ObjectDirectories, cloud: Cloud) -> None:
        write(backend, 'file', b'1')
        assert backend.read_range('file', 0, 1, None) == b'1'
        texts = []
        for operation in (
            partial(backend.stat, 'nothing'),
            partial(backend.read_range, 'nothing', 0, 1, None),
            partial(backend.read_range, 'nothing', 0, 1, backend.stat('file').version),
        ):
            with pytest.raises(StorageError) as caught:
                operation()
            texts.append(''.join(traceback.format_exception(caught.value)))
        connection: Any = _connection(backend)
        parts = [backend, backend._requests, connection, *vars(connection).values()]
        texts += [repr(part) + repr(vars(part)) for part in parts if type(part).__module__.startswith('genro_storage')]
        assert cloud.secrets
        assert not [secret for secret in cloud.secrets for text in texts if secret in text]

    def test_a_forked_child_makes_a_connection_of_its_own_and_reads(self, cloud: Cloud, place: str) -> None:
        # In a process of its own: to fork one that runs other tests' threads would be a gamble. Both ends run what is
        # registered for the exit.
        ended = self._run(
            cloud,
            place,
            """
import os, sys, time
backend.put('file', BytesSource(b'content'))
assert backend.read_range('file', 0, 7, None) == b'content'
pid = os.fork()
assert backend.read_range('file', 0, 7, None) == b'content'
backend.make_directory('child' if pid == 0 else 'parent')
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    backend.make_directory('after')
    assert backend.read_range('file', 0, 7, None) == b'content'
""",
        )
        assert ended.stderr == ''
        assert sorted(cloud.keys(place)) == ['after/', 'child/', 'file', 'parent/']

    def test_a_process_ends_quietly_without_closing(self, cloud: Cloud, place: str) -> None:
        program = "backend.put('file', BytesSource(b'1')); backend.read_range('file', 0, 1, None)"
        assert self._run(cloud, place, program).stderr == ''

    def test_nothing_heavy_is_imported_before_it_is_used(self, cloud: Cloud, place: str) -> None:
        program = "import sys; assert not {'obstore', 'gcsfs', 'adlfs', 'azure.core', 'aiohttp'} & set(sys.modules)"
        assert self._run(cloud, place, program).stderr == ''

    def test_what_is_prepared_is_loaded_and_asks_nobody(self, cloud: Cloud) -> None:
        told: list[bytes] = []
        with answering(b'', told) as url, closing(self.make('place', **cloud.arguments_at(url))) as backend:
            backend.prepare()
        assert told == []
        assert {'gcs': 'gcsfs', 'azure': 'adlfs'}[cloud.type] in sys.modules

    def _run(self, cloud: Cloud, place: str, program: str) -> 'subprocess.CompletedProcess[str]':
        prelude = f"""
from {self.make.__module__} import {self.make.__name__}
from genro_storage.errors import StorageConfigError
from genro_storage.testing import BytesSource
backend = {self.make.__name__}({place!r}, **{cloud.arguments()!r})
"""
        # Of these packages, not of ours; gcsfs imports what deprecates itself.
        arguments = [sys.executable, '-W', 'default', '-W', 'ignore::DeprecationWarning', '-W', 'ignore::FutureWarning']
        ended = subprocess.run(
            [*arguments, '-c', prelude + program], capture_output=True, text=True, timeout=50, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended


class BadLineCases(FailingContract):
    """For one driver. ``make``: its class; ``cloud`` is a fixture."""

    make: type[ObjectDirectories]
    throttled = HTTP_503

    @pytest.fixture
    def line(self, cloud: Cloud) -> Iterator[FaultyLine]:
        with closing(FaultyLine(urlsplit(cloud.arguments()['endpoint_url']).port or 0)) as line:
            yield line

    @pytest.fixture
    def place(self, cloud: Cloud) -> str:
        return cloud.new_place()

    @pytest.fixture
    def backend(self, cloud: Cloud, place: str, line: FaultyLine) -> Iterator[Backend]:
        url = urlsplit(cloud.arguments()['endpoint_url'])._replace(netloc=f'127.0.0.1:{line.port}').geturl()
        with closing(self.make(place, timeout_s=self.timeout_s, **cloud.arguments_at(url))) as backend:
            yield backend

    @pytest.fixture
    def beyond(self, cloud: Cloud, place: str) -> Iterator[Backend]:
        with closing(self.make(place, **cloud.arguments())) as beyond:
            yield beyond


class ObstoreCases(CloudCases):
    """What the drivers over obstore add. Not seen through the backend, which asks otherwise where obstore cannot."""

    def test_obstore_reads_what_it_can_and_leaves_the_rest(
        self, backend: ObjectDirectories, cloud: Cloud, place: str
    ) -> None:
        tag = cloud.put(place, 'd/grüße %2F?#*', b'0123456789')
        requests: Any = backend._requests
        reader = requests._process.get()
        assert reader.read('d/grüße %2F?#*', 2, 3, tag, '') == b'234'
        assert reader.read('d/grüße %2F?#*', 8, 3, None, '') == b'89'
        assert reader.read('new\nline', 2, 3, None, '') is None
        assert reader.read('d/grüße %2F?#*', 10, 3, None, '') is None, 'a range behind the end'
        # Several times: None is what comes of a kept connection that the server closes just then, too.
        with pytest.raises((StorageConflictError, StorageNotFoundError)):
            assert [reader.read('d/grüße %2F?#*', 2, 3, '123', '') for _ in range(5)] == []
        with pytest.raises(StorageNotFoundError):
            assert [reader.read('nothing', 2, 3, None, '') for _ in range(5)] == []

    def test_what_the_environment_holds_for_obstore_is_not_mixed_in(
        self, backend: ObjectDirectories, cloud: Cloud, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {
            'AZURE_STORAGE_SAS_KEY': 'sv=2020&sig=of-somebody-else',
            'AZURE_SKIP_SIGNATURE': 'true',
            'AZURE_STORAGE_ENDPOINT': 'http://store.invalid',
            'AZURE_STORAGE_ACCOUNT_NAME': 'somebody',
            'GOOGLE_BASE_URL': 'http://store.invalid',
            'GOOGLE_BEARER_TOKEN': 'of-somebody-else',
        }.items():
            monkeypatch.setenv(name, value)
        cloud.put(place, 'file', b'content')
        requests: Any = backend._requests
        assert requests._process.get().read('file', 0, 7, None, '') == b'content'


@contextmanager
def answering(answer: bytes, told: list[bytes] | None = None) -> Iterator[str]:
    """A server that gives every connection the same answer, and keeps what it was told."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # shut down
            with connection:
                request = connection.recv(65_536)
                connection.sendall(answer)
                if told is not None:
                    told.append(request)

    with socket.create_server(('127.0.0.1', 0)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(serve)
        try:
            yield f'http://127.0.0.1:{listener.getsockname()[1]}'
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _connection(backend: ObjectDirectories) -> Any:
    requests: Any = backend._requests
    exact = requests if isinstance(requests, LoopRequests) else requests._exact
    return exact.connection
