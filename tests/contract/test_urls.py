"""URLs of files, made by every driver that can and fetched from real servers without credentials."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from genro_storage.backends.azure import AzureBackend, AzureObstoreBackend
from genro_storage.backends.base import Backend, Headers, MakesUrls, StoresMetadata, TellsHeaders, UploadsInParts
from genro_storage.backends.fsspec_backend import FsspecBackend
from genro_storage.backends.gcs import GcsBackend, GcsObstoreBackend
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.backends.memory import MemoryBackend
from genro_storage.backends.object_store import ObjectStoreBackend
from genro_storage.backends.s3 import S3Backend
from genro_storage.entry import Extent
from genro_storage.errors import StorageNotFoundError, StorageUnsupportedError
from genro_storage.runtime import SystemClock
from genro_storage.testing import BytesSource
from genro_storage.testing.contract import write
from tests.azure_server import AzureServer, running_azure_server
from tests.gcs_server import GcsServer, running_gcs_server
from tests.servers import S3Server

NAME = "d/a b+c&d=e%20'ü~.txt"
PREFIX = 'team'


@pytest.fixture(scope='module')
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    with running_azure_server(tmp_path_factory.mktemp('azure')) as server:
        yield server


@pytest.fixture(scope='module')
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    with running_gcs_server(tmp_path_factory.mktemp('gcs')) as server:
        yield server


def s3_arguments(server: S3Server) -> dict[str, Any]:
    return {
        'endpoint_url': server.endpoint_url,
        'region': server.region,
        'key': server.key,
        'secret': server.secret,
    }


def azure_arguments(server: AzureServer) -> dict[str, Any]:
    return {
        'endpoint_url': server.endpoint_url,
        'account_name': server.account_name,
        'account_key': server.account_key,
    }


@pytest.fixture(params=['s3', 's3 by s3fs', 'azure', 'azure by adlfs', 'gcs', 'gcs by gcsfs'])
def backend(
    request: pytest.FixtureRequest, s3_server: S3Server, azure_server: AzureServer, gcs_server: GcsServer
) -> Iterator[Backend]:
    made: Backend
    match str(request.param).partition(' by '):
        case ('s3', _, own):
            make = S3Backend if own else ObjectStoreBackend
            made = make(s3_server.new_bucket(), PREFIX, **s3_arguments(s3_server))
        case ('azure', _, own):
            make_azure = AzureBackend if own else AzureObstoreBackend
            made = make_azure(azure_server.new_container(), PREFIX, **azure_arguments(azure_server))
        case (_, _, own):
            make_gcs = GcsBackend if own else GcsObstoreBackend
            made = make_gcs(gcs_server.new_bucket(), PREFIX, endpoint_url=gcs_server.endpoint_url, anon=True)
    with closing(made):
        yield GuardedBackend(made, SystemClock(), 30.0)


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def status_of(url: str) -> int:
    """What a server answers that is asked for a file."""
    try:
        fetched(url)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return 200


def test_anybody_can_get_a_file_by_its_url(backend: Backend) -> None:
    write(backend, NAME, b'content')
    assert isinstance(backend, MakesUrls)
    assert fetched(backend.url(NAME, 60)) == b'content'


def test_the_type_and_etag_of_an_object_are_told(backend: Backend) -> None:
    write(backend, NAME, b'content')
    assert isinstance(backend, TellsHeaders)
    headers = backend.headers(NAME)
    assert headers.etag
    assert headers.content_type
    for path in ('d', '', 'nothing'):
        with pytest.raises(StorageNotFoundError):
            backend.headers(path)


def test_what_is_stored_has_the_type_that_its_name_tells(backend: Backend) -> None:
    assert isinstance(backend, TellsHeaders)
    large = BytesSource(bytes(range(256)) * 256 * 300)  # in parts, or more requests than one
    for path, source in (('a.html', BytesSource(b'x')), ('b.JPG', BytesSource(b'x')), ('c.csv.gz', large)):
        backend.put(path, source)
    types = {path: backend.headers(path).content_type for path in ('a.html', 'b.JPG', 'c.csv.gz')}
    assert types == {'a.html': 'text/html', 'b.JPG': 'image/jpeg', 'c.csv.gz': 'application/gzip'}
    # As it was when it is only moved, or described anew; by its own name where it is new.
    backend.rename('a.html', 'moved.css')
    assert isinstance(backend, StoresMetadata)
    backend.set_metadata('moved.css', {'colour': 'blue'}, expected=None)
    assert backend.headers('moved.css').content_type == 'text/html'
    assert isinstance(backend, UploadsInParts)
    upload = backend.begin_upload('d.png')
    if upload is not None:
        upload.send(1, BytesSource(b'x'), Extent(0, 1))
        upload.complete(1, None)
        assert backend.headers('d.png').content_type == 'image/png'


@pytest.mark.parametrize('make', [ObjectStoreBackend, S3Backend])
def test_a_url_ends(s3_server: S3Server, make: type[ObjectStoreBackend | S3Backend]) -> None:
    with closing(make(s3_server.new_bucket(), **s3_arguments(s3_server))) as backend:
        write(backend, 'f', b'content')
        url = backend.url('f', 1)
        assert fetched(url) == b'content'
        deadline = time.monotonic() + 10  # it counts whole seconds, by its own clock
        while (status := status_of(url)) == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert status == 403


@pytest.mark.parametrize('make', [ObjectStoreBackend, S3Backend])
def test_a_url_is_of_one_file(s3_server: S3Server, make: type[ObjectStoreBackend | S3Backend]) -> None:
    with closing(make(s3_server.new_bucket(), **s3_arguments(s3_server))) as backend:
        write(backend, 'f', b'content')
        write(backend, 'g', b'content')
        url = backend.url('f', 60)
        assert s3_server.secret not in url
        assert status_of(url) == 200
        assert status_of(url.replace('/f?', '/g?')) == 403


def service_account(folder: Path) -> str:
    """A file with the key of a service account that nobody knows."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    path = folder / 'account.json'
    account = {
        'type': 'service_account',
        'project_id': 'p',
        'private_key_id': '1',
        'private_key': pem,
        'client_email': 'somebody@p.iam.gserviceaccount.com',
        'client_id': '1',
        'token_uri': 'http://127.0.0.1:9/token',
    }
    path.write_text(json.dumps(account))
    return str(path)


def test_google_wants_the_key_of_a_service_account(tmp_path: Path, gcs_server: GcsServer) -> None:
    bucket = gcs_server.new_bucket()
    gcs_server.put(bucket, 'd/ü', b'content')
    token = service_account(tmp_path)
    with closing(GcsBackend(bucket, endpoint_url=gcs_server.endpoint_url, token=token)) as backend:
        url = backend.url('d/ü', 90.5)
        assert 'X-Goog-Expires=90&' in url
        assert 'X-Goog-Signature=' in url
        assert fetched(url) == b'content'
    with closing(GcsBackend(bucket, endpoint_url=gcs_server.endpoint_url, token='ya29.a-token')) as backend:
        with pytest.raises(StorageUnsupportedError, match='service account') as raised:
            backend.url('f', 60)
        assert 'ya29' not in str(raised.value)


def test_azure_does_not_hand_on_a_token_for_everything(azure_server: AzureServer) -> None:
    container = azure_server.new_container()
    given = {'endpoint_url': azure_server.endpoint_url, 'account_name': azure_server.account_name}
    with closing(AzureBackend(container, **given, sas_token='sv=2024&sig=for-all')) as backend:
        with pytest.raises(StorageUnsupportedError, match="account's key") as raised:
            backend.url('f', 60)
        assert 'for-all' not in str(raised.value)


def test_what_is_on_the_web_has_its_address_and_no_password() -> None:
    backend = FsspecBackend.of_protocol('http', 'https://me:secret@example.com/base', 'fsspec:http:1')
    assert backend.url('d/a b%20c.txt', 60) == 'https://example.com/base/d/a%20b%20c.txt'


def test_what_has_no_url_says_so() -> None:
    with pytest.raises(StorageUnsupportedError):
        FsspecBackend.of_protocol('ftp', 'base', 'fsspec:ftp:1').url('f', 60)
    guarded = GuardedBackend(MemoryBackend(), SystemClock(), 30.0)
    with pytest.raises(StorageUnsupportedError, match='memory:'):
        guarded.url('f', 60)
    assert guarded.headers('f') == Headers()


def test_a_url_of_a_public_bucket_is_not_signed(s3_server: S3Server) -> None:
    endpoint = s3_server.endpoint_url
    for make in (ObjectStoreBackend, S3Backend):
        with closing(make('public', 'p', endpoint_url=endpoint, region='us-east-1', anon=True)) as backend:
            url = backend.url('a b', 60)
            assert (urlsplit(url).path, urlsplit(url).query) == ('/public/p/a%20b', '')
