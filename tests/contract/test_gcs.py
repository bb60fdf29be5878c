"""The contract of Backend, kept by both drivers of Google Cloud Storage against a real server, and what they add.

The server, fake-gcs-server, asks nobody who he is, and checks the condition of an upload in parts not at all: what is
seen of that here is what was checked right before. Its XML API reads and does not write, which these drivers do not ask
of it.
"""

import json
import traceback
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from genro_storage.backends.base import Backend, MovesInSteps
from genro_storage.backends.gcs import GcsBackend, GcsObstoreBackend
from genro_storage.errors import StorageConfigError, StorageError, StorageNotFoundError, StoragePermissionError
from genro_storage.testing.contract import ArrangingContract, LookingContract, names, read, write
from tests.contract.clouds import BadLineCases, CloudCases, NamesContract, ObstoreCases, answering
from tests.gcs_server import GcsServer, running_gcs_server

_TOKEN = 'ya29.an-access-token'


class Gcs:
    """See Cloud. The server takes any token, so one is given, which nothing may show."""

    type = 'gcs'
    key = 'bucket'
    secrets = [_TOKEN]  # noqa: RUF012 - never changed

    def __init__(self, server: GcsServer) -> None:
        self.server = server
        self.new_place = server.new_bucket
        self.put = server.put
        self.get = server.get
        self.keys = server.keys

    def arguments(self) -> dict[str, Any]:
        return self.arguments_at(self.server.endpoint_url)

    def arguments_at(self, url: str) -> dict[str, Any]:
        return {'endpoint_url': url, 'token': _TOKEN}


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    with running_gcs_server(tmp_path_factory.mktemp('gcs')) as server:
        yield server


@pytest.fixture(scope='module')
def cloud(server: GcsServer) -> Gcs:
    return Gcs(server)


@pytest.fixture(scope='module')
def shared_bucket(server: GcsServer) -> str:
    return server.new_bucket()


class TestFsspecBelowAPrefix(NamesContract):
    empties_metadata = True  # fake-gcs-server takes null for no text; Google removes the key

    moves_in_steps = True
    copies_one_version = False  # fake-gcs-server takes no notice of ifSourceGenerationMatch
    make: type[GcsBackend] = GcsBackend
    # "Object names cannot contain carriage return or line feed characters"; the server would take them.
    refused = frozenset({'new\nline'})

    @pytest.fixture
    def backend(self, server: GcsServer, shared_bucket: str) -> Iterator[Backend]:
        prefix = f'team/{uuid.uuid4().hex}'
        server.put(shared_bucket, prefix, b'beside')
        server.put(shared_bucket, f'{prefix}2/beside', b'beside')
        backend = self.make(shared_bucket, prefix, endpoint_url=server.endpoint_url, anon=True)
        yield backend
        backend.close()
        left = [key for key in server.keys(shared_bucket, prefix) if not key.startswith(f'{prefix}/')]
        assert left == [prefix, f'{prefix}2/beside']

    def test_a_copying_that_fails_leaves_nothing_behind(self, backend: Backend, mover: MovesInSteps | None) -> None:
        """fake-gcs-server 1.54 takes no notice of ifSourceGenerationMatch, so only what is gone fails here."""
        assert mover is not None
        moves = mover.plan_move('d', 'to/d')
        backend.remove_file('d/e/b')
        with pytest.raises(StorageNotFoundError):
            mover.copy_planned('d', 'to/d', moves)
        assert names(backend, 'to') == set()
        assert read(backend, 'd/a') == b'a'


class TestObstoreBelowAPrefix(TestFsspecBelowAPrefix):
    make = GcsObstoreBackend


class TestFsspecWholeBucket(LookingContract, ArrangingContract):
    """Where the root is the bucket: all that has to do with the root, in a bucket of its own for each test."""

    make: type[GcsBackend] = GcsBackend

    @pytest.fixture
    def backend(self, server: GcsServer) -> Iterator[Backend]:
        with closing(self.make(server.new_bucket(), endpoint_url=server.endpoint_url, anon=True)) as backend:
            yield backend


class TestObstoreWholeBucket(TestFsspecWholeBucket):
    make = GcsObstoreBackend


class TestFsspec(CloudCases):
    make = GcsBackend
    other = GcsObstoreBackend


class TestObstore(ObstoreCases):
    make = GcsObstoreBackend
    other = GcsBackend


# What is slow in it is the other library; the driver that is taken by itself is asked each time.
@pytest.mark.long
class TestFsspecOverABadLine(BadLineCases):
    make = GcsBackend
    secrets = Gcs.secrets


class TestObstoreOverABadLine(BadLineCases):
    make = GcsObstoreBackend
    secrets = Gcs.secrets


@pytest.mark.parametrize('make', [GcsBackend, GcsObstoreBackend])
class TestCredentials:
    def test_an_access_token_is_sent_and_by_an_anonymous_client_none(self, make: type[GcsBackend]) -> None:
        for arguments in ({'token': _TOKEN}, {'anon': True}):
            told: list[bytes] = []  # a new one: what the first client does last may arrive while the second one asks
            with answering(_refusing(), told) as url, closing(make('b', endpoint_url=url, **arguments)) as backend:
                with pytest.raises(StoragePermissionError):
                    backend.read_range('file', 0, 1, None)
                sent = list(told)
            assert sent
            assert [f'Bearer {_TOKEN}'.encode() in request for request in sent] == ['token' in arguments for _ in sent]

    def test_a_file_and_its_content_are_the_same(self, make: type[GcsBackend], tmp_path: Path) -> None:
        refreshing = {'refresh_token': 'the-secret', 'client_id': 'i', 'client_secret': 'the-secret'}
        described = json.dumps({'type': 'authorized_user', **refreshing})
        path = tmp_path / 'credentials.json'
        path.write_text(described)
        for token in (described, str(path)):
            backend = make('b', endpoint_url='http://store.invalid', token=token)
            requests: Any = backend._requests
            exact = getattr(requests, '_exact', requests)
            held = exact.connection.channel.filesystem.credentials.credentials
            assert held.refresh_token == 'the-secret'
            backend.close()

    @pytest.mark.parametrize('token', ['{"the-secret": 1}', '{the-secret', '/no/such/file-of-the-secret.json'])
    def test_a_token_that_is_none_is_a_config_error_that_does_not_show_it(
        self, make: type[GcsBackend], token: str
    ) -> None:
        backend = make('b', endpoint_url='http://store.invalid', token=token)
        with closing(backend), pytest.raises(StorageConfigError) as caught:
            backend.stat('')
        # What the message may show of a file is its key alone; a token may stand where a file was meant.
        assert 'the-secret' not in ''.join(traceback.format_exception(caught.value))


def test_options_are_for_gcsfs(server: GcsServer) -> None:
    bucket = server.new_bucket()
    options = {'requester_pays': 'a-project'}
    with closing(GcsBackend(bucket, endpoint_url=server.endpoint_url, anon=True, options=options)) as backend:
        write(backend, 'file', b'1')
        assert read(backend, 'file') == b'1'
    with closing(GcsBackend(bucket, options={'access': 'odd'})) as backend, pytest.raises(StorageError):
        backend.stat('')
    with pytest.raises(StorageConfigError, match=r'requester_pays.*driver: fsspec'):
        GcsObstoreBackend(bucket, options=options)


def _refusing() -> bytes:
    return b'HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
