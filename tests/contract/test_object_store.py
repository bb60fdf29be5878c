"""The contract of Backend, kept by the obstore driver against a real S3 server, and what it has beside it."""

import os
import socket
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from genro_storage.backends.base import ABSENT, Backend
from genro_storage.backends.object_store import ObjectStoreBackend, make_store, s3_address
from genro_storage.backends.object_store_channel import S3Channel
from genro_storage.backends.object_store_reading import ObstoreReader
from genro_storage.backends.object_store_requests import OWN_READS_FROM_BYTES, S3Connection, S3Requests
from genro_storage.backends.object_store_signing import Credentials, Signer
from genro_storage.backends.object_store_transfers import S3Transfers
from genro_storage.backends.s3 import S3Backend
from genro_storage.entry import Extent
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.testing import BytesSource, FaultyLine
from genro_storage.testing.contract import (
    ArrangingContract,
    BackendContract,
    FailingContract,
    LookingContract,
    agree,
    names,
    read,
    write,
)
from genro_storage.testing.contract.failing import HTTP_503
from tests.servers import S3Server, free_ports

_MIB = 1 << 20


@pytest.fixture(scope='module')
def shared_bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


class TestBelowAPrefix(BackendContract):
    uploads_in_parts = True
    copies_parts = True
    moves_in_steps = True
    describes_directories = False

    @pytest.fixture
    def backend(self, s3_server: S3Server, shared_bucket: str) -> Iterator[Backend]:
        prefix = f'team/{uuid.uuid4().hex}'
        s3_server.put(shared_bucket, prefix, b'beside')
        s3_server.put(shared_bucket, f'{prefix}2/beside', b'beside')
        backend = ObjectStoreBackend(
            shared_bucket,
            prefix,
            region=s3_server.region,
            endpoint_url=s3_server.endpoint_url,
            key=s3_server.key,
            secret=s3_server.secret,
        )
        yield backend
        backend.close()
        left = [key for key in s3_server.keys(shared_bucket, prefix) if not key.startswith(f'{prefix}/')]
        assert left == [prefix, f'{prefix}2/beside']

    def test_a_backslash_is_a_letter(self, backend: Backend) -> None:
        """SeaweedFS takes it for a slash, so what can be seen is what it was asked for."""
        with pytest.raises(StorageNotFoundError) as caught:
            backend.copy('back\\slash', 'elsewhere')
        assert repr('/back\\slash')[1:] in str(caught.value)


class TestWholeBucket(LookingContract, ArrangingContract):
    """Where the root is the bucket: all that has to do with the root, in a bucket of its own for each test."""

    @pytest.fixture
    def backend(self, s3_server: S3Server) -> Iterator[Backend]:
        backend = ObjectStoreBackend(
            s3_server.new_bucket(),
            endpoint_url=s3_server.endpoint_url,
            key=s3_server.key,
            secret=s3_server.secret,
        )
        yield backend
        backend.close()


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


@pytest.fixture
def backend(s3_server: S3Server, bucket: str) -> Iterator[ObjectStoreBackend]:
    with closing(_backend(s3_server, bucket)) as backend:
        yield backend


def _backend(server: S3Server, bucket: str, **changed: Any) -> ObjectStoreBackend:
    arguments = {'endpoint_url': server.endpoint_url, 'key': server.key, 'secret': server.secret}
    return ObjectStoreBackend(bucket, **arguments | changed)


class Handed:
    """In the place of obstore's reader: says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read(self, key: str, offset: int, size_bytes: int, tag: str | None, what: str) -> bytes:
        self.asked.append(size_bytes)
        return b'obstore'


@pytest.mark.parametrize(('scheme', 'by_obstore'), [('http', [10, OWN_READS_FROM_BYTES - 1]), ('https', None)])
def test_long_ranges_are_our_own_where_nothing_is_encrypted(
    s3_server: S3Server, bucket: str, scheme: str, by_obstore: list[int] | None
) -> None:
    sizes = [10, OWN_READS_FROM_BYTES - 1, OWN_READS_FROM_BYTES, 2 * OWN_READS_FROM_BYTES]
    address = s3_address(bucket, s3_server.region, s3_server.endpoint_url.replace('http', scheme))
    channel = S3Channel(address, Signer(address.host, address.region, _credentials(s3_server)), 'here', 5)
    reader: Any = Handed()
    with closing(S3Requests('here', lambda: S3Connection(channel, reader))) as requests:
        s3_server.put(bucket, 'long', bytes(3 * OWN_READS_FROM_BYTES))
        for size in sizes:
            assert requests.read('long', 0, size, None) in {b'obstore', bytes(size)}
    assert reader.asked == (sizes if by_obstore is None else by_obstore)


class TestBesideTheOtherDriver:
    def test_both_drivers_tell_the_same_of_the_same_objects(self, s3_server: S3Server, bucket: str) -> None:
        arguments = {'endpoint_url': s3_server.endpoint_url, 'key': s3_server.key, 'secret': s3_server.secret}
        with closing(_backend(s3_server, bucket)) as ours, closing(S3Backend(bucket, **arguments)) as theirs:
            entries = [write(ours, 'd/ours', b'1'), write(theirs, 'd/theirs', b'22')]
            ours.make_directory('d/e')
            assert ours.list_directory('d') == theirs.list_directory('d')
            for entry in entries:
                assert ours.stat(f'd/{entry.name}') == theirs.stat(f'd/{entry.name}')
                assert agree(ours, entry, theirs.stat(f'd/{entry.name}'))
            assert ours.stat('d/e') == theirs.stat('d/e')
            assert ours.destination == theirs.destination
            assert ours.capabilities == theirs.capabilities


class TestMarkers:
    def test_a_made_directory_is_an_empty_object(
        self, backend: ObjectStoreBackend, s3_server: S3Server, bucket: str
    ) -> None:
        backend.make_directory('d')
        assert s3_server.keys(bucket) == ['d/']
        backend.remove_directory('d')
        assert s3_server.keys(bucket) == []

    def test_a_listing_goes_on_behind_its_first_page(
        self, backend: ObjectStoreBackend, s3_server: S3Server, bucket: str
    ) -> None:
        count = 1_050
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: s3_server.put(bucket, f'd/{number}', b''), range(count)))
        assert names(backend, 'd') == {str(number) for number in range(count)}
        backend.rename('d', 'moved')
        assert len(names(backend, 'moved')) == count
        assert names(backend) == {'moved'}


class TestMetadata:
    def test_text_beyond_ascii_is_signed_as_it_is_sent(self, backend: ObjectStoreBackend) -> None:
        """SeaweedFS signs the bytes of headers, and Å and à end in bytes that are blanks as letters."""
        told = {'name': 'grüße Å', 'other': '日本 à'}
        entry = backend.put('file', BytesSource(b'1'), metadata=told)
        assert backend.metadata('file') == told
        changed = backend.set_metadata('file', {'name': 'à'}, expected=entry.version)
        assert backend.stat('file').metadata == changed.metadata == {'name': 'à'}


class TestParts:
    def test_an_upload_in_parts_is_refused_when_the_object_changed_meanwhile(
        self, backend: ObjectStoreBackend, s3_server: S3Server, bucket: str
    ) -> None:
        old = write(backend, 'file', b'old')
        s3_server.put(bucket, 'file', b'new')
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(bytes(17 * _MIB)), expected=old.version)
        assert read(backend, 'file') == b'new'
        assert s3_server.uploads(bucket) == []

    def test_a_source_that_ends_early_leaves_no_upload_behind(
        self, backend: ObjectStoreBackend, s3_server: S3Server, bucket: str
    ) -> None:
        with pytest.raises(StorageIOError):
            backend.put('file', BytesSource(bytes(20 * _MIB), size_bytes=60 * _MIB))
        assert s3_server.uploads(bucket) == []
        assert s3_server.keys(bucket) == []

    def test_an_upload_that_was_begun_is_aborted_by_its_token(
        self, backend: ObjectStoreBackend, s3_server: S3Server, bucket: str
    ) -> None:
        upload = backend.begin_upload('d/file')
        assert upload is not None
        upload.send(1, BytesSource(b'part'), Extent(0, 4))
        assert s3_server.uploads(bucket) == ['d/file']
        with closing(_backend(s3_server, bucket)) as another:
            another.abort_upload('d/file', upload.token)
        assert s3_server.uploads(bucket) == []

    def test_parts_of_more_than_is_held_are_read_as_they_are_sent(
        self, backend: ObjectStoreBackend, s3_server: S3Server, bucket: str
    ) -> None:
        data = os.urandom(18 * _MIB)
        upload = backend.begin_upload('file')
        assert upload is not None
        upload.send(1, BytesSource(data), Extent(0, 17 * _MIB))
        upload.send(2, BytesSource(data), Extent(17 * _MIB, 1 * _MIB))
        upload.complete(2, ABSENT)
        assert s3_server.request('get_object', Bucket=bucket, Key='file')['Body'].read() == data

    def test_an_object_too_large_for_one_copy_is_copied_in_parts(self, s3_server: S3Server, bucket: str) -> None:
        data = os.urandom(12 * _MIB)
        s3_server.request('put_object', Bucket=bucket, Key='a', Body=data, ContentType='image/png')
        with _channel(s3_server, bucket) as channel:
            S3Transfers(channel, single_copy_max_bytes=5 * _MIB).copy('a', 'b', len(data), None)
        copy = s3_server.request('get_object', Bucket=bucket, Key='b')
        assert copy['Body'].read() == data
        assert copy['ContentType'] == 'image/png'
        assert s3_server.uploads(bucket) == []

    def test_a_copy_in_parts_that_fails_is_aborted(self, s3_server: S3Server, bucket: str) -> None:
        s3_server.put(bucket, 'a', bytes(6 * _MIB))
        with _channel(s3_server, bucket) as channel, pytest.raises(StorageIOError):
            # It is told of more than is there.
            S3Transfers(channel, single_copy_max_bytes=5 * _MIB).copy('a', 'b', 60 * _MIB, None)
        assert s3_server.uploads(bucket) == []
        assert s3_server.keys(bucket) == ['a']


class TestOverABadLine(FailingContract):
    secrets = (S3Server.secret,)
    throttled = HTTP_503

    @pytest.fixture
    def line(self, s3_server: S3Server) -> Iterator[FaultyLine]:
        with closing(FaultyLine(urlsplit(s3_server.endpoint_url).port or 0)) as line:
            yield line

    @pytest.fixture
    def prefix(self) -> str:
        return uuid.uuid4().hex

    @pytest.fixture
    def over(self, line: FaultyLine) -> dict[str, Any]:
        return {'endpoint_url': f'http://127.0.0.1:{line.port}', 'timeout_s': self.timeout_s}

    @pytest.fixture
    def backend(self, s3_server: S3Server, shared_bucket: str, prefix: str, over: dict[str, Any]) -> Iterator[Backend]:
        with closing(_backend(s3_server, shared_bucket, prefix=prefix, **over)) as backend:
            yield backend

    @pytest.fixture
    def beyond(self, s3_server: S3Server, shared_bucket: str, prefix: str) -> Iterator[Backend]:
        with closing(_backend(s3_server, shared_bucket, prefix=prefix)) as beyond:
            yield beyond


@pytest.fixture(scope='module')
def session() -> Any:
    """One for all backends of s3fs: a new one spends 300 ms on reading botocore's definitions."""
    from aiobotocore.session import AioSession

    return AioSession()


# What is slow in it is the other library; the driver that is taken by itself is asked each time.
@pytest.mark.long
class TestS3fsOverABadLine(TestOverABadLine):
    @pytest.fixture
    def backend(
        self, s3_server: S3Server, shared_bucket: str, prefix: str, over: dict[str, Any], session: Any
    ) -> Iterator[Backend]:
        told = {'key': s3_server.key, 'secret': s3_server.secret, 'options': {'session': session}, **over}
        with closing(S3Backend(shared_bucket, prefix, **told)) as backend:
            yield backend


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
                with pytest.raises(StorageNotFoundError, match="no bucket 'no-such-bucket'"):
                    operation()

    @pytest.mark.parametrize('wrong', [{'secret': 'wrong'}, {'key': 'nobody'}, {'key': None, 'anon': True}])
    def test_wrong_credentials_are_a_permission_error(
        self, s3_server: S3Server, bucket: str, wrong: dict[str, Any]
    ) -> None:
        with closing(_backend(s3_server, bucket, **wrong)) as backend:
            for operation in (
                lambda: backend.stat('file'),
                lambda: backend.list_directory(''),
                lambda: backend.read_range('file', 0, 1, None),
                lambda: write(backend, 'file', b'1'),
            ):
                with pytest.raises(StoragePermissionError) as caught:
                    operation()
                shown = ''.join(traceback.format_exception(caught.value))
                assert s3_server.secret not in shown

    def test_an_endpoint_where_nobody_listens_is_unavailable_at_once(self) -> None:
        started = time.monotonic()
        url = f'http://127.0.0.1:{free_ports(1)[0]}'
        _assert_fails(url, StorageUnavailableError)
        assert time.monotonic() - started < 10

    def test_a_host_that_is_not_known_is_unavailable(self) -> None:
        _assert_fails('http://s3.invalid', StorageUnavailableError)

    def test_a_server_that_says_nothing_is_a_timeout(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as silent:
            _assert_fails(f'http://127.0.0.1:{silent.getsockname()[1]}', StorageTimeoutError, timeout_s=0.5)

    def test_a_server_that_is_overloaded_is_unavailable(self) -> None:
        with answering(b'HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n') as url:
            _assert_fails(url, StorageUnavailableError)

    def test_a_server_that_is_none_of_s3_is_unavailable(self) -> None:
        with answering(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi') as url:
            backend = ObjectStoreBackend('bucket', endpoint_url=url, key='k', secret='s')
            with closing(backend), pytest.raises(StorageUnavailableError, match='is this an S3 server'):
                backend.stat('file')

    def test_bytes_that_are_no_utf8_are_refused(self, backend: ObjectStoreBackend) -> None:
        for operation in (
            lambda: backend.stat('\udce9'),
            lambda: write(backend, '\udce9', b'1'),
            lambda: backend.rename('a', '\udce9'),
            lambda: backend.copy('a', '\udce9'),
        ):
            with pytest.raises(StoragePathError):
                operation()


class TestEnvironment:
    def test_credentials_are_found_in_the_environment(
        self, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('AWS_ACCESS_KEY_ID', s3_server.key)
        monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', s3_server.secret)
        monkeypatch.setenv('AWS_ENDPOINT_URL', s3_server.endpoint_url)
        with closing(ObjectStoreBackend(bucket)) as backend:
            write(backend, 'file', b'content')
            assert read(backend, 'file') == b'content'
            assert s3_server.endpoint_url.removeprefix('http:').strip('/') in backend.destination

    def test_given_credentials_and_endpoints_are_not_mixed_with_those_of_the_environment(
        self, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('AWS_SESSION_TOKEN', 'of somebody else')
        monkeypatch.setenv('AWS_ENDPOINT_URL_S3', 'http://s3.invalid')
        monkeypatch.setenv('AWS_SKIP_SIGNATURE', 'true')
        monkeypatch.setenv('AWS_VIRTUAL_HOSTED_STYLE_REQUEST', 'true')
        with _channel(s3_server, bucket) as channel, closing(_backend(s3_server, bucket)) as backend:
            write(backend, 'file', b'content')
            assert _obstore(s3_server, channel).read('file', 0, 7, None, '') == b'content'


class TestObstore:
    """Not seen through the backend, which reads otherwise where obstore does not."""

    def test_it_reads_what_it_can_and_leaves_the_rest(self, s3_server: S3Server, bucket: str) -> None:
        tag = s3_server.put(bucket, 'd/grüße %2F?#*', b'0123456789')
        s3_server.put(bucket, 'new\nline', b'0123456789')
        with _channel(s3_server, bucket) as channel:
            reader = _obstore(s3_server, channel)
            assert reader.read('d/grüße %2F?#*', 2, 3, tag, '') == b'234'
            assert reader.read('d/grüße %2F?#*', 8, 3, None, '') == b'89'
            assert reader.read('new\nline', 2, 3, None, '') is None
            assert reader.read('d/grüße %2F?#*', 10, 3, None, '') is None, 'a range behind the end'
            with pytest.raises(StorageConflictError):
                reader.read('d/grüße %2F?#*', 2, 3, 'another', '')
            with pytest.raises(StorageNotFoundError):
                reader.read('nothing', 2, 3, None, '')

    def test_neither_the_store_nor_what_it_raises_shows_the_secret(self, s3_server: S3Server, bucket: str) -> None:
        with _channel(s3_server, bucket) as channel:
            reader = _obstore(s3_server, channel)
            with pytest.raises(StorageNotFoundError) as caught:
                reader.read('nothing', 0, 1, None, '')
            store: Any = reader._store
            shown = ''.join(traceback.format_exception(caught.value)) + repr(store) + repr(store.config)
        assert s3_server.secret not in shown

    def test_the_secret_is_in_no_repr(self, s3_server: S3Server, bucket: str) -> None:
        with closing(_backend(s3_server, bucket)) as backend:
            backend.stat('')
            connection: Any = backend._requests._process.get()  # type: ignore[attr-defined]
            parts = [backend, backend._requests, connection, connection.channel, connection.channel._signer]
            shown = ''.join(repr(part) + repr(vars(part)) for part in parts)
        assert s3_server.secret not in shown


class TestProcesses:
    def test_a_forked_child_makes_a_connection_of_its_own_and_reads(self, s3_server: S3Server, bucket: str) -> None:
        # In a process of its own: to fork one that runs other tests' threads would be a gamble.
        ended = _run(
            s3_server,
            bucket,
            """
import os
backend.put('file', BytesSource(b'content'))
assert backend.read_range('file', 0, 7, None) == b'content'
pid = os.fork()
assert backend.read_range('file', 0, 7, None) == b'content'
backend.make_directory('child' if pid == 0 else 'parent')
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    backend.make_directory('after')
    assert backend.read_range('file', 0, 7, None) == b'content'
backend.close()
""",
        )
        assert ended.stderr == ''
        assert s3_server.keys(bucket) == ['after/', 'child/', 'file', 'parent/']

    def test_a_process_ends_quietly_without_closing(self, s3_server: S3Server, bucket: str) -> None:
        program = "backend.put('file', BytesSource(b'1')); backend.read_range('file', 0, 1, None)"
        assert _run(s3_server, bucket, program).stderr == ''

    def test_obstore_is_not_imported_before_it_reads(self, s3_server: S3Server, bucket: str) -> None:
        assert _run(s3_server, bucket, "import sys; assert 'obstore' not in sys.modules").stderr == ''

    def test_a_missing_obstore_says_what_to_install(self, s3_server: S3Server, bucket: str) -> None:
        program = """
import sys
sys.modules['obstore'] = None
try:
    backend.stat('')
except StorageConfigError as error:
    assert 'genro-storage[s3]' in str(error)
else:
    raise AssertionError
"""
        assert _run(s3_server, bucket, program).stderr == ''


def _assert_fails(url: str, error: type[Exception], **changed: Any) -> None:
    with closing(ObjectStoreBackend('bucket', endpoint_url=url, key='k', secret='s', **changed)) as backend:
        for operation in (
            lambda: backend.stat('file'),
            lambda: backend.list_directory(''),
            lambda: backend.read_range('file', 0, 10, None),
            lambda: write(backend, 'file', b'1'),
        ):
            started = time.monotonic()
            with pytest.raises(error):
                operation()
            assert time.monotonic() - started < 5


@contextmanager
def _channel(server: S3Server, bucket: str) -> Iterator[S3Channel]:
    address = s3_address(bucket, None, server.endpoint_url)
    signer = Signer(address.host, address.region, _credentials(server))
    with closing(S3Channel(address, signer, 's3:test', 30)) as channel:
        yield channel


def _obstore(server: S3Server, channel: S3Channel) -> ObstoreReader:
    return ObstoreReader(lambda: make_store(channel.address, _credentials(server), 30), 30)


def _credentials(server: S3Server) -> Any:
    return lambda: Credentials(server.key, server.secret)


def _run(server: S3Server, bucket: str, program: str) -> subprocess.CompletedProcess[str]:
    prelude = f"""
from genro_storage.backends.object_store import ObjectStoreBackend
from genro_storage.errors import StorageConfigError
from genro_storage.testing import BytesSource
backend = ObjectStoreBackend({bucket!r}, endpoint_url={server.endpoint_url!r}, key={server.key!r},
                             secret={server.secret!r})
"""
    arguments = [sys.executable, '-W', 'always', '-c', prelude + program]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=True)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that gives every connection the same answer."""
    with heard_by(answer) as (url, _):
        yield url


@contextmanager
def heard_by(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """The same, and what it was asked."""
    heard: list[bytes] = []
    head = b''.join(answer.partition(b'\r\n\r\n')[:2])

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # shut down
            with connection:
                heard.append(connection.recv(65_536))
                connection.sendall(head if heard[-1].startswith(b'HEAD ') else answer)

    with socket.create_server(('127.0.0.1', 0)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(serve)
        try:
            yield f'http://127.0.0.1:{listener.getsockname()[1]}', heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
