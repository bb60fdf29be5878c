"""Google's and Azure's stores without a server: definitions, the choice of a driver, addresses, and what is shown."""

import pickle
import sys
from typing import Any

import pytest

from genro_storage import StorageManager
from genro_storage.backends import azure, gcs
from genro_storage.backends.azure import AzureBackend, AzureObstoreBackend, account_of
from genro_storage.backends.gcs import GcsBackend, GcsObstoreBackend
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.backends.http_errors import refusal
from genro_storage.backends.registry import create
from genro_storage.config import AzureDefinition, CacheMode, GcsDefinition, definition_from_mapping
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageNoSpaceError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.runtime import SystemClock

_GCS = {'name': 'm', 'type': 'gcs', 'bucket': 'b'}
_AZURE = {'name': 'm', 'type': 'azure', 'container': 'box', 'account_name': 'acc'}
_KEY = 'aHVudGVyMg=='
_STRING = f'AccountName=acc;AccountKey={_KEY};EndpointSuffix=core.chinacloudapi.cn'
_SECRETS = [
    {**_GCS, 'token': '{"private_key": "hunter2"}'},
    {**_AZURE, 'account_key': 'hunter2'},
    {**_AZURE, 'sas_token': 'sv=1&sig=hunter2'},
    {'name': 'm', 'type': 'azure', 'container': 'box', 'connection_string': 'AccountName=a;AccountKey=hunter2'},
]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('STORAGE_EMULATOR_HOST', raising=False)
    for name in ('http_proxy', 'https_proxy', 'all_proxy', 'no_proxy'):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class TestDefinitions:
    def test_every_key_of_gcs_becomes_its_value(self) -> None:
        given = {'prefix': '/a//b/', 'token': 't', 'project': 'p', 'endpoint_url': 'http://h:1'}
        assert definition_from_mapping({**_GCS, **given}) == GcsDefinition(
            name='m', bucket='b', prefix='a/b', token='t', project='p', endpoint_url='http://h:1'
        )
        anonymous = definition_from_mapping({**_GCS, 'anon': 'yes'})
        assert anonymous == GcsDefinition(name='m', bucket='b', anon=True)
        assert (anonymous.cache, anonymous.ttl_s) == (CacheMode.DISK, 10.0)

    def test_every_key_of_azure_becomes_its_value(self) -> None:
        given = {'prefix': 'p', 'account_key': 'k', 'endpoint_url': 'https://h'}
        assert definition_from_mapping({**_AZURE, **given}) == AzureDefinition(
            name='m', container='box', prefix='p', account_name='acc', account_key='k', endpoint_url='https://h'
        )
        assert definition_from_mapping({**_AZURE, 'sas_token': '?s'}) == AzureDefinition(
            name='m', container='box', account_name='acc', sas_token='?s'
        )
        by_string = {'name': 'm', 'type': 'azure', 'container': 'box', 'connection_string': _STRING}
        assert definition_from_mapping(by_string) == AzureDefinition(
            name='m', container='box', connection_string=_STRING
        )

    @pytest.mark.parametrize(
        ('mapping', 'told'),
        [
            ({**_GCS, 'bucket': 'a/b'}, "'bucket': expected the name of a bucket"),
            ({**_GCS, 'prefix': '../x'}, "'prefix': "),
            ({**_GCS, 'endpoint_url': 'host'}, "'endpoint_url': expected a URL"),
            ({**_GCS, 'anon': True, 'token': 'hunter2'}, "'anon': contradicts 'token'"),
            ({**_GCS, 'key': 'k'}, "unknown key 'key'"),
            ({'name': 'm', 'type': 'gcs'}, "'bucket' is missing"),
            ({**_AZURE, 'container': 'a/b'}, "'container': expected the name of a container"),
            ({'name': 'm', 'type': 'azure', 'container': 'b'}, "'account_name': missing"),
            ({**_AZURE, 'account_key': 'hunter2', 'sas_token': 'hunter2'}, "'sas_token': contradicts 'account_key'"),
            ({**_AZURE, 'connection_string': _STRING}, "'connection_string': says all of the account"),
            (
                {'name': 'm', 'type': 'azure', 'container': 'b', 'connection_string': 'AccountKey=hunter2'},
                "'connection_string': expected NAME=VALUE",
            ),
            ({**_AZURE, 'type': 'azur'}, "did you mean 'azure'"),
        ],
    )
    def test_a_wrong_one_says_what_is_wrong_and_no_secret(self, mapping: dict[str, Any], told: str) -> None:
        with pytest.raises(StorageConfigError) as caught:
            definition_from_mapping(mapping)
        assert told in str(caught.value)
        assert 'hunter2' not in str(caught.value)
        assert _KEY not in str(caught.value)

    @pytest.mark.parametrize('mapping', _SECRETS)
    def test_a_secret_is_in_no_repr_and_no_pickle(self, mapping: dict[str, Any]) -> None:
        definition = definition_from_mapping(mapping)
        assert 'hunter2' not in repr(definition)
        with pytest.raises(StorageConfigError, match=r'\$\{NAME\}'):
            pickle.dumps(definition)
        storage = StorageManager()
        storage.configure([mapping])
        with pytest.raises(StorageConfigError) as caught:
            pickle.dumps(storage.node('m:f'))
        assert 'hunter2' not in str(caught.value)


class TestChoice:
    @pytest.mark.parametrize(
        ('mapping', 'expected'),
        [
            ({**_GCS, 'anon': True}, GcsObstoreBackend),
            ({**_GCS, 'token': 't', 'project': 'p', 'endpoint_url': 'http://h'}, GcsObstoreBackend),
            ({**_GCS, 'options': {'requester_pays': True}}, GcsBackend),
            ({**_GCS, 'driver': 'fsspec'}, GcsBackend),
            ({**_GCS, 'driver': 'obstore'}, GcsObstoreBackend),
            ({**_AZURE, 'account_key': _KEY}, AzureObstoreBackend),
            ({**_AZURE, 'sas_token': 's'}, AzureObstoreBackend),
            (
                {'name': 'm', 'type': 'azure', 'container': 'b', 'connection_string': _STRING},
                AzureObstoreBackend,
            ),
            (_AZURE, AzureBackend),
            ({**_AZURE, 'account_key': _KEY, 'options': {'blocksize': 1}}, AzureBackend),
            ({**_AZURE, 'account_key': _KEY, 'driver': 'fsspec'}, AzureBackend),
        ],
    )
    def test_auto_takes_obstore_where_it_can_serve(self, mapping: dict[str, Any], expected: type) -> None:
        guarded = create(definition_from_mapping(mapping), SystemClock())
        assert isinstance(guarded, GuardedBackend)
        assert type(guarded._inner) is expected

    @pytest.mark.parametrize(
        'mapping',
        [
            {**_GCS, 'driver': 'obstore', 'options': {'requester_pays': 'hunter2'}},
            {**_AZURE, 'driver': 'obstore', 'account_key': _KEY, 'options': {'client_secret': 'hunter2'}},
            {**_AZURE, 'driver': 'obstore'},
        ],
    )
    def test_what_obstore_cannot_serve_is_a_config_error_where_it_is_named(self, mapping: dict[str, Any]) -> None:
        with pytest.raises(StorageConfigError, match='driver: fsspec') as caught:
            create(definition_from_mapping(mapping), SystemClock())
        assert 'hunter2' not in str(caught.value)

    def test_a_proxy_of_the_environment_is_a_reason_against_obstore(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('https_proxy', 'http://user:hunter2@proxy:3128')
        assert gcs.expresses(anon=True) == 'the environment names a proxy for storage.googleapis.com'
        told = azure.expresses(account_name='acc', account_key=_KEY)
        assert told == 'the environment names a proxy for acc.blob.core.windows.net'
        monkeypatch.setenv('no_proxy', '.googleapis.com,.windows.net')
        assert gcs.expresses(anon=True) is None
        assert azure.expresses(account_name='acc', account_key=_KEY) is None

    def test_without_obstore_auto_falls_back_and_its_name_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, 'obstore', None)
        for mapping, expected, extra in (
            (_GCS, GcsBackend, 'gcs'),
            ({**_AZURE, 'account_key': _KEY}, AzureBackend, 'azure'),
        ):
            guarded: Any = create(definition_from_mapping(mapping), SystemClock())
            assert type(guarded._inner) is expected
            with pytest.raises(StorageConfigError, match=rf'genro-storage\[{extra}\]'):
                create(definition_from_mapping({**mapping, 'driver': 'obstore'}), SystemClock())

    @pytest.mark.parametrize(
        ('mapping', 'package', 'extra'),
        [({**_GCS, 'anon': True}, 'gcsfs', 'gcs'), ({**_AZURE, 'account_key': _KEY}, 'adlfs', 'azure')],
    )
    def test_without_its_package_a_mount_says_what_to_install(
        self, mapping: dict[str, Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in sys.modules if name.partition('.')[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        backend: Any = create(definition_from_mapping(mapping), SystemClock())
        assert type(backend._inner) in {GcsBackend, AzureBackend}
        with pytest.raises(StorageConfigError, match=rf'genro-storage\[{extra}\]'):
            backend.stat('')


class TestAddresses:
    @pytest.mark.parametrize(
        ('given', 'endpoint', 'name'),
        [
            ({'account_name': 'acc'}, 'https://acc.blob.core.windows.net', 'acc'),
            ({'connection_string': _STRING}, 'https://acc.blob.core.chinacloudapi.cn', 'acc'),
            ({'connection_string': 'AccountName=a;DefaultEndpointsProtocol=http;'}, 'http://a.blob.core.windows.net',
             'a'),
            ({'connection_string': 'BlobEndpoint=https://a.x.net/;SharedAccessSignature=s'}, 'https://a.x.net', 'a'),
            ({'connection_string': 'usedevelopmentstorage=true'}, 'http://127.0.0.1:10000/devstoreaccount1',
             'devstoreaccount1'),
            ({'account_name': 'a', 'endpoint_url': 'http://u:hunter2@h:1/a/'}, 'http://h:1/a', 'a'),
            ({'connection_string': 'BlobEndpoint=http://h:1/a'}, 'http://h:1/a', 'a'),
        ],
    )  # fmt: skip
    def test_an_azure_account_has_an_address(self, given: dict[str, str], endpoint: str, name: str) -> None:
        keys = ('account_name', 'account_key', 'sas_token', 'connection_string', 'endpoint_url')
        account = account_of(*(given.get(key) for key in keys))
        assert (account.endpoint, account.name) == (endpoint, name)

    def test_what_asks_is_shown_nowhere(self) -> None:
        account = account_of(None, None, None, _STRING, None)
        assert account.key == _KEY
        assert _KEY not in repr(account)
        assert account.connection_string == (
            f'BlobEndpoint=https://acc.blob.core.chinacloudapi.cn;AccountName=acc;AccountKey={_KEY}'
        )

    @pytest.mark.parametrize('wrong', ['hunter2', 'AccountKey=hunter2'])
    def test_a_connection_string_that_is_none_is_a_config_error(self, wrong: str) -> None:
        with pytest.raises(StorageConfigError) as caught:
            AzureBackend('box', connection_string=wrong)
        assert 'hunter2' not in str(caught.value)

    def test_destinations_tell_places_apart_and_show_no_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert GcsBackend('b', 'p/q').destination == 'gcs:storage.googleapis.com/b/p/q'
        assert GcsBackend('b', endpoint_url='http://u:hunter2@h:1/').destination == 'gcs:h:1/b'
        assert AzureBackend('box', 'p', account_name='a').destination == 'azure:a.blob.core.windows.net/box/p'
        monkeypatch.setenv('STORAGE_EMULATOR_HOST', 'localhost:4443')
        assert GcsBackend('b').destination == 'gcs:localhost:4443/b'


@pytest.mark.parametrize(
    ('status', 'error'),
    [
        (400, StorageIOError),
        (401, StoragePermissionError),
        (403, StoragePermissionError),
        (404, StorageNotFoundError),
        (405, StorageUnsupportedError),
        (408, StorageTimeoutError),
        (409, StorageConflictError),
        (412, StorageConflictError),
        (418, StorageIOError),
        (429, StorageThrottledError),
        (500, StorageUnavailableError),
        (501, StorageUnsupportedError),
        (503, StorageThrottledError),
        (504, StorageUnavailableError),
        (507, StorageNoSpaceError),
    ],
)
def test_a_status_has_a_type(status: int, error: type[StorageError]) -> None:
    assert type(refusal(status, 'what')) is error
