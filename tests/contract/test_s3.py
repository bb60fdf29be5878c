"""What S3 has beside the contract: markers, conditions, parts, and servers that are wrong or gone."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from genro_storage.backends import s3_requests
from genro_storage.backends.base import ABSENT
from genro_storage.backends.s3 import S3Backend
from genro_storage.backends.s3_client import S3Client
from genro_storage.backends.s3_transfers import S3fsTransfers
from genro_storage.entry import Extent, Kind
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageIOError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.testing import BytesSource
from genro_storage.testing.contract import names, read, write
from tests.servers import S3Server, free_ports

_MIB = 1 << 20


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


@pytest.fixture
def backend(s3_server: S3Server, bucket: str) -> Iterator[S3Backend]:
    with closing(_backend(s3_server, bucket)) as backend:
        yield backend


def _backend(server: S3Server, bucket: str, **changed: Any) -> S3Backend:
    arguments = {'endpoint_url': server.endpoint_url, 'key': server.key, 'secret': server.secret}
    return S3Backend(bucket, **arguments | changed)


class TestMarkers:
    def test_a_made_directory_is_an_empty_object(self, backend: S3Backend, s3_server: S3Server, bucket: str) -> None:
        backend.make_directory('d')
        assert s3_server.keys(bucket) == ['d/']
        backend.remove_directory('d')
        assert s3_server.keys(bucket) == []

    def test_a_marker_of_another_program_is_a_directory(
        self, backend: S3Backend, s3_server: S3Server, bucket: str
    ) -> None:
        s3_server.put(bucket, 'd/e/', b'')
        assert backend.stat('d/e').kind is Kind.DIRECTORY
        assert backend.list_directory('d/e') == []
        assert names(backend, 'd') == {'e'}

    def test_only_the_directory_that_would_vanish_gets_a_marker(
        self, backend: S3Backend, s3_server: S3Server, bucket: str
    ) -> None:
        for path in ('d/a', 'd/b', 'top'):
            write(backend, path, b'1')
        backend.remove_file('top')
        backend.remove_file('d/a')
        assert s3_server.keys(bucket) == ['d/b']
        backend.remove_file('d/b')
        assert s3_server.keys(bucket) == ['d/']

    def test_an_object_beside_keys_below_it_is_shown_as_the_directory(
        self, backend: S3Backend, s3_server: S3Server, bucket: str
    ) -> None:
        s3_server.put(bucket, 'a', b'hidden')
        s3_server.put(bucket, 'a/b', b'shown')
        assert [(entry.name, entry.kind) for entry in backend.list_directory('')] == [('a', Kind.DIRECTORY)]
        assert backend.stat('a').is_directory
        assert read(backend, 'a/b') == b'shown'

    def test_hidden_keys_keep_their_directory_from_being_removed(
        self, backend: S3Backend, s3_server: S3Server, bucket: str
    ) -> None:
        s3_server.put(bucket, 'd/e/f', b'1')
        with pytest.raises(StorageNotEmptyError):
            backend.remove_directory('d')

    def test_listings_and_removals_go_on_behind_their_first_page(
        self, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s3_requests, '_REMOVED_AT_ONCE', 20)
        expected = {str(number) for number in range(70)}
        for name in expected:
            s3_server.put(bucket, f'd/{name}', b'')
        pages_of_30 = {'s3_additional_kwargs': {'MaxKeys': 30}}
        with closing(_backend(s3_server, bucket, options=pages_of_30)) as backend:
            assert names(backend, 'd') == expected
            backend.rename('d', 'moved')
            assert names(backend, 'moved') == expected
            assert names(backend) == {'moved'}


class TestVersions:
    def test_a_change_of_the_same_size_is_seen(self, backend: S3Backend, s3_server: S3Server, bucket: str) -> None:
        old = write(backend, 'file', b'old')
        tag = s3_server.put(bucket, 'file', b'new')
        seen = backend.stat('file').version
        assert seen is not None
        assert seen != old.version
        assert seen.tag == tag
        with pytest.raises(StorageConflictError):
            backend.read_range('file', 0, 3, old.version)
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(b'mine'), expected=old.version)

    def test_a_part_upload_is_refused_when_the_object_changed_meanwhile(
        self, backend: S3Backend, s3_server: S3Server, bucket: str
    ) -> None:
        old = write(backend, 'file', b'old')
        s3_server.put(bucket, 'file', b'new')
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(bytes(17 * _MIB)), expected=old.version)
        assert read(backend, 'file') == b'new'
        assert s3_server.uploads(bucket) == []


class TestParts:
    def test_a_source_that_ends_early_leaves_no_upload_behind(
        self, backend: S3Backend, s3_server: S3Server, bucket: str
    ) -> None:
        with pytest.raises(StorageIOError):
            backend.put('file', BytesSource(bytes(20 * _MIB), size_bytes=60 * _MIB))
        assert s3_server.uploads(bucket) == []
        assert s3_server.keys(bucket) == []

    def test_an_upload_that_is_not_completed_is_aborted(self, s3_server: S3Server, bucket: str) -> None:
        client = _client(s3_server, bucket)
        with closing(client), S3fsTransfers(client).upload('file', BytesSource(bytes(17 * _MIB))):
            assert s3_server.uploads(bucket) == ['file']
        assert s3_server.uploads(bucket) == []
        assert s3_server.keys(bucket) == []

    def test_an_upload_that_was_begun_is_aborted_by_its_token(
        self, backend: S3Backend, s3_server: S3Server, bucket: str
    ) -> None:
        upload = backend.begin_upload('d/file')
        assert upload is not None
        upload.send(1, BytesSource(b'part'), Extent(0, 4))
        assert s3_server.uploads(bucket) == ['d/file']
        with closing(_backend(s3_server, bucket)) as another:
            another.abort_upload('d/file', upload.token)
        assert s3_server.uploads(bucket) == []

    @pytest.mark.parametrize('size_bytes', [1 * _MIB + 1, 16 * _MIB, 16 * _MIB + 1, 40 * _MIB + 3])
    def test_bodies_that_are_read_while_they_are_sent_arrive_whole(
        self, backend: S3Backend, s3_server: S3Server, bucket: str, size_bytes: int
    ) -> None:
        data = os.urandom(size_bytes)
        backend.put('file', BytesSource(data))
        assert s3_server.request('get_object', Bucket=bucket, Key='file')['Body'].read() == data

    def test_a_body_that_ends_early_is_not_stored(self, backend: S3Backend, s3_server: S3Server, bucket: str) -> None:
        for size_bytes in (2 * _MIB, 20 * _MIB):
            with pytest.raises(StorageIOError):
                backend.put('file', BytesSource(bytes(2 * _MIB - 1), size_bytes=size_bytes))
        assert s3_server.uploads(bucket) == []
        assert s3_server.keys(bucket) == []

    def test_an_object_too_large_for_one_copy_is_copied_in_parts(self, s3_server: S3Server, bucket: str) -> None:
        data = os.urandom(12 * _MIB)
        s3_server.request('put_object', Bucket=bucket, Key='a', Body=data, ContentType='image/png')
        client = _client(s3_server, bucket)
        with closing(client):
            S3fsTransfers(client, single_copy_max_bytes=5 * _MIB).copy('a', 'b', len(data), None)
        copy = s3_server.request('get_object', Bucket=bucket, Key='b')
        assert copy['Body'].read() == data
        assert copy['ContentType'] == 'image/png'
        assert s3_server.uploads(bucket) == []

    def test_a_copy_in_parts_that_fails_is_aborted(self, s3_server: S3Server, bucket: str) -> None:
        s3_server.put(bucket, 'a', bytes(6 * _MIB))
        client = _client(s3_server, bucket)
        with closing(client), pytest.raises(StorageIOError):
            # It is told of more than is there.
            S3fsTransfers(client, single_copy_max_bytes=5 * _MIB).copy('a', 'b', 60 * _MIB, None)
        assert s3_server.uploads(bucket) == []
        assert s3_server.keys(bucket) == ['a']


class TestWrongOrGone:
    def test_a_missing_bucket_is_named(self, s3_server: S3Server) -> None:
        with closing(_backend(s3_server, 'no-such-bucket')) as backend:
            for operation in (
                lambda: backend.stat(''),
                lambda: backend.stat('file'),
                lambda: backend.list_directory(''),
                lambda: backend.read_range('file', 0, 1, None),
                lambda: write(backend, 'file', b'1'),
                lambda: backend.put('file', BytesSource(b'1'), expected=ABSENT),
                lambda: backend.make_directory('d'),
            ):
                with pytest.raises(StorageNotFoundError, match='no-such-bucket'):
                    operation()

    @pytest.mark.parametrize('wrong', [{'secret': 'wrong'}, {'key': 'nobody'}])
    def test_wrong_credentials_are_a_permission_error(
        self, s3_server: S3Server, bucket: str, wrong: dict[str, str]
    ) -> None:
        with closing(_backend(s3_server, bucket, **wrong)) as backend:
            for operation in (
                lambda: backend.stat('file'),
                lambda: backend.list_directory(''),
                lambda: write(backend, 'file', b'1'),
            ):
                with pytest.raises(StoragePermissionError) as caught:
                    operation()
                assert not isinstance(caught.value, FileNotFoundError)
                assert s3_server.secret not in str(caught.value)

    def test_an_endpoint_where_nobody_listens_is_unavailable_at_once(self) -> None:
        started = time.monotonic()
        url = f'http://127.0.0.1:{free_ports(1)[0]}'
        with closing(_backend_at(url)) as backend:
            for operation in (lambda: backend.stat('file'), lambda: write(backend, 'file', b'1')):
                with pytest.raises(StorageUnavailableError):
                    operation()
        assert time.monotonic() - started < 10

    def test_a_host_that_is_not_known_is_unavailable(self) -> None:
        with (
            closing(_backend_at('http://s3.invalid')) as backend,
            pytest.raises(StorageUnavailableError),
        ):
            backend.stat('file')

    def test_a_server_that_says_nothing_is_a_timeout(self) -> None:
        with (
            socket.create_server(('127.0.0.1', 0)) as silent,
            closing(_backend_at(f'http://127.0.0.1:{silent.getsockname()[1]}', timeout_s=0.5)) as backend,
        ):
            started = time.monotonic()
            with pytest.raises(StorageTimeoutError):
                backend.stat('file')
            assert time.monotonic() - started < 10

    def test_a_server_that_is_overloaded_is_unavailable(self) -> None:
        with (
            _Answering(b'HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n') as url,
            closing(_backend_at(url)) as backend,
        ):
            for operation in (lambda: backend.stat('file'), lambda: backend.list_directory('')):
                with pytest.raises(StorageUnavailableError):
                    operation()

    def test_bytes_that_are_no_utf8_are_refused(self, backend: S3Backend) -> None:
        for operation in (
            lambda: backend.stat('\udce9'),
            lambda: write(backend, '\udce9', b'1'),
            lambda: backend.rename('a', '\udce9'),
            lambda: backend.copy('a', '\udce9'),
        ):
            with pytest.raises(StoragePathError):
                operation()

    def test_options_that_s3fs_does_not_know_are_a_config_error(self, s3_server: S3Server, bucket: str) -> None:
        backend = _backend(s3_server, bucket, options={'max_concurrency': 0})
        with pytest.raises(StorageConfigError, match='max_concurrency'):
            backend.stat('')


class TestProcesses:
    def test_a_forked_child_makes_a_connection_of_its_own(self, s3_server: S3Server, bucket: str) -> None:
        # In a process of its own: to fork one that runs other tests' threads would be a gamble.
        program = f"""
import os
from genro_storage.backends.s3 import S3Backend
backend = S3Backend({bucket!r}, endpoint_url={s3_server.endpoint_url!r}, key={s3_server.key!r},
                    secret={s3_server.secret!r})
backend.make_directory('before')
pid = os.fork()
backend.make_directory('child' if pid == 0 else 'parent')
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    backend.make_directory('after')
backend.close()
"""
        subprocess.run([sys.executable, '-c', program], check=True, timeout=40)
        assert s3_server.keys(bucket) == ['after/', 'before/', 'child/', 'parent/']

    def test_a_process_ends_quietly_without_closing(self, s3_server: S3Server, bucket: str) -> None:
        program = f"""
from genro_storage.backends.s3 import S3Backend
backend = S3Backend({bucket!r}, endpoint_url={s3_server.endpoint_url!r}, key={s3_server.key!r},
                    secret={s3_server.secret!r})
backend.stat('')
"""
        ended = subprocess.run(
            [sys.executable, '-W', 'always', '-c', program], capture_output=True, text=True, timeout=30, check=True
        )
        assert ended.stderr == ''

    def test_the_secret_is_in_no_repr(self, s3_server: S3Server, bucket: str) -> None:
        with closing(_backend(s3_server, bucket)) as backend:
            backend.stat('')
            shown = repr(backend) + repr(vars(backend)) + backend.destination
        assert s3_server.secret not in shown


def _backend_at(url: str, **more: Any) -> S3Backend:
    return S3Backend('bucket', endpoint_url=url, key='k', secret='s', **more)


def _client(server: S3Server, bucket: str) -> S3Client:
    arguments = {'endpoint_url': server.endpoint_url, 'key': server.key, 'secret': server.secret}
    return S3Client(bucket, 's3:test', arguments, timeout_s=30)


class _Answering:
    """A server that gives every connection the same answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._socket = socket.create_server(('127.0.0.1', 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        return f'http://127.0.0.1:{self._socket.getsockname()[1]}'

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # shut down
            with connection:
                connection.recv(65_536)
                connection.sendall(self._answer)
