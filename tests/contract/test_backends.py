"""The contract of Backend, kept by every backend there is, against real disks and servers."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_storage.backends.base import Backend, Capabilities
from genro_storage.backends.fsspec_backend import FsspecBackend
from genro_storage.backends.local import LocalBackend
from genro_storage.backends.memory import MemoryBackend
from genro_storage.backends.s3 import S3Backend
from genro_storage.errors import StorageNotFoundError
from genro_storage.testing import BytesSource, FaultyBackend
from genro_storage.testing.contract import ArrangingContract, BackendContract, LookingContract, names, write
from tests.servers import S3Server


class TestMemory(BackendContract):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        backend = MemoryBackend()
        yield backend
        backend.close()


class TestLocal(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        backend = LocalBackend(tmp_path)
        yield backend
        backend.close()


class TestFaultyWithoutFaults(BackendContract):
    """The wrapper changes nothing by itself; with other capabilities it stands for a remote backend."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        remote = Capabilities(strong_versions=True, conditional_put=True, stores_mtime=True, stores_metadata=True)
        backend = FaultyBackend(MemoryBackend(), remote)
        yield backend
        backend.close()


class TestFsspecFile(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        backend = FsspecBackend.of_protocol('file', str(tmp_path), f'file:{tmp_path}')
        yield backend
        backend.close()


class TestFsspecMemory(BackendContract):
    @pytest.fixture
    def store(self) -> Any:
        from fsspec.implementations.memory import MemoryFileSystem

        return MemoryFileSystem(global_store=False, skip_instance_cache=True)

    @pytest.fixture
    def backend(self, store: Any) -> Iterator[Backend]:
        backend = FsspecBackend(lambda: store, '', 'memory:test')
        yield backend
        backend.close()

    def test_a_listing_tells_what_stays_once_while_others_come_and_go(self, backend: Backend) -> None:
        """The store is a dict without a lock, and not made for threads: here they take turns."""
        write(backend, 'd/stays', b'1')
        for name in ('one', 'other'):
            write(backend, f'd/{name}', b'1')
            assert names(backend, 'd') == {'stays', name}
            backend.remove_file(f'd/{name}')
        assert names(backend, 'd') == {'stays'}

    @pytest.mark.parametrize('key', ['/d/\0nul', '/d/..', '/d/.', '/d//x', '/d/' + 'n' * 256])
    def test_keys_that_no_path_can_express_are_hidden(self, backend: FsspecBackend, store: Any, key: str) -> None:
        backend.put('d/shown', BytesSource(b'1'))
        store.store[key] = store.store['/d/shown']
        assert names(backend, 'd') == {'shown'}

    def test_hidden_keys_are_counted_and_logged_once(
        self, backend: FsspecBackend, store: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        backend.put('d/shown', BytesSource(b'1'))
        for key in ('/d/\0nul', '/d/..'):
            store.store[key] = store.store['/d/shown']
        names(backend, 'd')
        names(backend, 'd')
        assert backend.hidden.count == 2
        assert len(caplog.records) == 1


@pytest.fixture(scope='module')
def session() -> Any:
    """One for all backends here: a new one spends 300 ms on reading botocore's definitions."""
    from aiobotocore.session import AioSession

    return AioSession()


@pytest.fixture(scope='module')
def shared_bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


class TestS3BelowAPrefix(BackendContract):
    uploads_in_parts = True
    copies_parts = True
    moves_in_steps = True
    describes_directories = False

    @pytest.fixture
    def backend(self, s3_server: S3Server, shared_bucket: str, session: Any) -> Iterator[Backend]:
        prefix = f'team/{uuid.uuid4().hex}'
        s3_server.put(shared_bucket, prefix, b'beside')
        s3_server.put(shared_bucket, f'{prefix}2/beside', b'beside')
        backend = S3Backend(
            shared_bucket,
            prefix,
            region=s3_server.region,
            endpoint_url=s3_server.endpoint_url,
            key=s3_server.key,
            secret=s3_server.secret,
            options={'session': session},
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


class TestS3WholeBucket(LookingContract, ArrangingContract):
    """Where the root is the bucket: all that has to do with the root, in a bucket of its own for each test."""

    @pytest.fixture
    def backend(self, s3_server: S3Server, session: Any) -> Iterator[Backend]:
        backend = S3Backend(
            s3_server.new_bucket(),
            endpoint_url=s3_server.endpoint_url,
            key=s3_server.key,
            secret=s3_server.secret,
            options={'session': session},
        )
        yield backend
        backend.close()
