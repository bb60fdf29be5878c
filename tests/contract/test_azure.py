"""The contract of Backend, kept by both drivers of Azure against a real server (Azurite), and what they add."""

import base64
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from genro_storage.backends.azure import AzureBackend, AzureObstoreBackend
from genro_storage.backends.base import Backend
from genro_storage.errors import StorageConfigError, StorageNotFoundError, StoragePermissionError
from genro_storage.testing.contract import ArrangingContract, LookingContract, names, read, write
from tests.azure_server import AzureServer, running_azure_server
from tests.contract.clouds import BadLineCases, CloudCases, NamesContract, ObstoreCases

_WRONG_KEY = base64.b64encode(b'a key that is wrong, and no less secret').decode()


class Azure:
    """See Cloud."""

    type = 'azure'
    key = 'container'
    secrets = [AzureServer.account_key, AzureServer.account_key.rstrip('=')]  # noqa: RUF012 - never changed

    def __init__(self, server: AzureServer) -> None:
        self.server = server
        self.new_place = server.new_container
        self.put = server.put
        self.get = server.get
        self.keys = server.keys

    def arguments(self) -> dict[str, Any]:
        return self.arguments_at(self.server.endpoint_url)

    def arguments_at(self, url: str) -> dict[str, Any]:
        return {
            'endpoint_url': url,
            'account_name': self.server.account_name,
            'account_key': self.server.account_key,
        }


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    with running_azure_server(tmp_path_factory.mktemp('azure')) as server:
        yield server


@pytest.fixture(scope='module')
def cloud(server: AzureServer) -> Azure:
    return Azure(server)


@pytest.fixture(scope='module')
def shared_container(server: AzureServer) -> str:
    return server.new_container()


class TestFsspecBelowAPrefix(NamesContract):
    uploads_in_parts = True
    moves_in_steps = True
    make: type[AzureBackend] = AzureBackend
    # Azure takes a backslash for a slash, drops dots at the end, and knows no control characters.
    refused = frozenset({'new\nline', 'tab\tbell\x07', '...', 'dot.', 'back\\slash'})

    @pytest.fixture
    def backend(self, cloud: Azure, shared_container: str) -> Iterator[Backend]:
        prefix = f'team/{uuid.uuid4().hex}'
        cloud.put(shared_container, prefix, b'beside')
        cloud.put(shared_container, f'{prefix}2/beside', b'beside')
        backend = self.make(shared_container, prefix, **cloud.arguments())
        yield backend
        backend.close()
        left = [key for key in cloud.keys(shared_container, prefix) if not key.startswith(f'{prefix}/')]
        assert left == [prefix, f'{prefix}2/beside']


class TestObstoreBelowAPrefix(TestFsspecBelowAPrefix):
    make = AzureObstoreBackend


class TestFsspecWholeContainer(LookingContract, ArrangingContract):
    """Where the root is the container: all that has to do with the root, in one of its own for each test."""

    make: type[AzureBackend] = AzureBackend

    @pytest.fixture
    def backend(self, cloud: Azure) -> Iterator[Backend]:
        with closing(self.make(cloud.new_place(), **cloud.arguments())) as backend:
            yield backend


class TestObstoreWholeContainer(TestFsspecWholeContainer):
    make = AzureObstoreBackend


class TestFsspec(CloudCases):
    make = AzureBackend
    other = AzureObstoreBackend


class TestObstore(ObstoreCases):
    make = AzureObstoreBackend
    other = AzureBackend

    def test_obstore_lists_what_it_can_and_leaves_the_rest(self, cloud: Azure, place: str) -> None:
        """Not seen through the backend, which asks otherwise where obstore cannot."""
        for key in ('d/', 'd/file', 'd/e/file', 'd/empty/', 'bad//file'):
            cloud.put(place, key, b'1' if key.endswith('file') else b'')
        with closing(AzureObstoreBackend(place, **cloud.arguments())) as backend:
            requests: Any = backend._requests
            page = requests._listed('d/')
            assert [stored.key for stored in page.objects] == ['d/file']
            assert msgspec.structs.replace(page.objects[0], metadata={}) == requests.head('d/file')
            assert sorted(page.prefixes) == ['d/e/', 'd/empty/']
            assert requests._listed('bad/') is None
            assert names(backend, 'bad') == set()
            assert backend.hidden.count == 1

    @pytest.mark.long
    @pytest.mark.timeout(300)
    def test_a_listing_goes_on_behind_its_first_page(self, cloud: Azure, place: str) -> None:
        expected = {f'{number:04}' for number in range(5_001)}  # Azure's pages have 5,000
        with closing(AzureObstoreBackend(place, **cloud.arguments())) as backend:
            backend._requests.each(lambda name: backend._requests.mark(f'd/{name}'), expected)
            assert names(backend, 'd') == expected


# What is slow in it is the other library; the driver that is taken by itself is asked each time.
@pytest.mark.long
class TestFsspecOverABadLine(BadLineCases):
    slack_s = 6.0  # Azure's own client asks for a body that broke off or stalls three times, a second apart
    make = AzureBackend
    secrets = Azure.secrets


class TestObstoreOverABadLine(BadLineCases):
    make = AzureObstoreBackend
    secrets = Azure.secrets


@pytest.mark.parametrize('make', [AzureBackend, AzureObstoreBackend])
class TestCredentials:
    def test_a_connection_string_says_all(self, make: type[AzureBackend], server: AzureServer) -> None:
        string = (
            f'DefaultEndpointsProtocol=http;AccountName={server.account_name};AccountKey={server.account_key};'
            f'BlobEndpoint={server.endpoint_url};'
        )
        container = server.new_container()
        with closing(make(container, connection_string=string)) as backend:
            write(backend, 'file', b'content')
            assert read(backend, 'file') == b'content'
            assert server.endpoint_url.partition('://')[2] in backend.destination
            assert server.account_key not in backend.destination

    @pytest.mark.parametrize('mark', ['', '?'])
    def test_a_sas_token_works_and_is_not_shown(self, make: type[AzureBackend], server: AzureServer, mark: str) -> None:
        container = server.new_container()
        token = mark + server.sas_token(container)
        signature = token.rpartition('sig=')[2]
        arguments = {'account_name': server.account_name, 'endpoint_url': server.endpoint_url, 'sas_token': token}
        with closing(make(container, **arguments)) as backend:
            version = write(backend, 'd/file', b'content').version
            assert read(backend, 'd/file') == b'content'
            backend.rename('d/file', 'd/moved')
            assert names(backend, 'd') == {'moved'}
            texts = [repr(vars(backend)), repr(backend)]
            for operation in (
                lambda: backend.read_range('nothing', 0, 1, None),
                lambda: backend.read_range('d/file', 0, 1, version),
            ):
                with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is another test's
                    operation()
                texts.append(_formatted(caught.value))
        assert not [text for text in texts if signature in text]

    def test_wrong_credentials_are_a_permission_error(self, make: type[AzureBackend], server: AzureServer) -> None:
        container = server.new_container()
        given = {'account_name': server.account_name, 'endpoint_url': server.endpoint_url}
        reading = server.sas_token(container, 'r')
        forged = reading.rpartition('sig=')[0] + 'sig=' + base64.b64encode(b'forged' * 5).decode()
        for secret in ({'account_key': _WRONG_KEY}, {'sas_token': forged}):
            with closing(make(container, **given, **secret)) as backend:
                for operation in (
                    lambda: backend.stat('file'),
                    lambda: backend.list_directory(''),
                    lambda: backend.read_range('file', 0, 1, None),
                    lambda: write(backend, 'file', b'1'),
                ):
                    with pytest.raises(StoragePermissionError) as caught:
                        operation()
                    assert not isinstance(caught.value, FileNotFoundError)
                    assert _WRONG_KEY not in _formatted(caught.value)

    def test_the_environment_adds_nothing_to_what_is_given(
        self, make: type[AzureBackend], server: AzureServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('AZURE_STORAGE_CONNECTION_STRING', 'AccountName=other;AccountKey=b3RoZXI=')
        monkeypatch.setenv('AZURE_STORAGE_SAS_TOKEN', 'sv=2020&sig=other')
        monkeypatch.setenv('AZURE_STORAGE_ACCOUNT_KEY', 'b3RoZXI=')
        container = server.new_container()
        with closing(make(container, **Azure(server).arguments())) as backend:
            write(backend, 'file', b'content')
            assert read(backend, 'file') == b'content'


def test_a_key_of_the_environment_is_used_where_none_is_given(
    server: AzureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('AZURE_STORAGE_CONNECTION_STRING', 'AccountName=other;AccountKey=b3RoZXI=')
    monkeypatch.setenv('AZURE_STORAGE_ACCOUNT_KEY', server.account_key)
    container = server.new_container()
    arguments = {'account_name': server.account_name, 'endpoint_url': server.endpoint_url}
    with closing(AzureBackend(container, **arguments)) as backend:
        write(backend, 'file', b'content')
        assert read(backend, 'file') == b'content'


def test_what_stands_for_a_directory_elsewhere_is_no_file(cloud: Azure) -> None:
    container = cloud.new_place()
    cloud.server.put(container, 'd', b'', metadata={'hdi_isfolder': 'true'})
    with closing(AzureBackend(container, **cloud.arguments())) as backend:
        with pytest.raises(StorageNotFoundError):
            backend.read_range('d', 0, 0, None)
        write(backend, 'd/file', b'1')
        assert backend.stat('d').is_directory


def test_options_are_for_adlfs(cloud: Azure) -> None:
    container = cloud.new_place()
    options = {'blocksize': 1 << 20}
    with closing(AzureBackend(container, options=options, **cloud.arguments())) as backend:
        write(backend, 'file', b'1')
    with pytest.raises(StorageConfigError, match=r'blocksize.*driver: fsspec'):
        AzureObstoreBackend(container, options=options, **cloud.arguments())


def _formatted(error: BaseException) -> str:
    import traceback

    return ''.join(traceback.format_exception(error))
