"""A container of Azure Blob Storage as a Backend: two drivers, one meaning.

Owns how a definition becomes a connection, and which definitions the quick driver can serve. Operations are
ObjectDirectories'. Both drivers ask by AzureConnection, with the client of adlfs; the quick one has obstore read ranges
and list directories (see obstore_requests).

Threads: safe. Forked children make connections of their own.
"""

import os
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from genro_storage.backends.azure_requests import KEY_LIMIT, AzureConnection
from genro_storage.backends.loop_requests import LoopRequests, event_loop
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.backends.object_requests import ObjectRequests
from genro_storage.backends.object_store_reading import client_options
from genro_storage.backends.obstore_requests import ObstoreListingRequests, is_installed, why_not
from genro_storage.errors import StorageConfigError

if TYPE_CHECKING:
    from obstore.store import AzureStore

# "Use the Azurite emulator": what UseDevelopmentStorage=true stands for; the key is public.
_DEVELOPMENT = {
    'accountname': 'devstoreaccount1',
    'accountkey': 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==',
    'blobendpoint': 'http://127.0.0.1:10000/devstoreaccount1',
}


class AzureAccount(msgspec.Struct, frozen=True):
    """Where an account is and who asks; ``endpoint`` is a URL without a slash at its end."""

    endpoint: str
    name: str
    key: str | None = None
    sas_token: str | None = None

    def __repr__(self) -> str:
        return f'AzureAccount({self.endpoint!r})'

    @property
    def connection_string(self) -> str | None:
        """In Azure's words; None where neither a key nor a token is known."""
        if self.key:
            secret = f'AccountKey={self.key}'
        elif self.sas_token:
            secret = f'SharedAccessSignature={self.sas_token.lstrip("?")}'
        else:
            return None
        return f'BlobEndpoint={self.endpoint};AccountName={self.name};{secret}'


class AzureBackend(ObjectDirectories):
    """``container``, below ``prefix``. Connects on first use; adlfs missing raises StorageConfigError then.

    Without a key, a token or a connection string credentials are found as adlfs finds them.
    """

    def __init__(
        self,
        container: str,
        prefix: str = '',
        *,
        account_name: str | None = None,
        account_key: str | None = None,
        sas_token: str | None = None,
        connection_string: str | None = None,
        endpoint_url: str | None = None,
        timeout_s: float = 30.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        account = account_of(account_name, account_key, sas_token, connection_string, endpoint_url)
        destination = _destination_of(container, prefix, account.endpoint)
        make = partial(_make_filesystem, account, dict(options or {}), destination)
        connect = partial(AzureConnection, container, destination, make, timeout_s)
        requests = LoopRequests(destination, KEY_LIMIT, connect, _filesystem_class)
        super().__init__(self._quickened(requests, account, container, timeout_s), prefix)

    def _quickened(
        self, requests: LoopRequests, account: AzureAccount, container: str, timeout_s: float
    ) -> ObjectRequests:
        return requests


class AzureObstoreBackend(AzureBackend):
    """The same, with ranges read and directories listed by obstore.

    Takes no ``options``, and credentials from the definition alone: raises StorageConfigError otherwise, and without
    obstore.
    """

    def __init__(
        self, container: str, prefix: str = '', *, options: Mapping[str, Any] | None = None, **same: Any
    ) -> None:
        reason = _inexpressible(options, same)
        if reason is not None:
            raise StorageConfigError(f"container {container!r}: {reason}; give 'driver: fsspec'")
        if not is_installed():
            raise StorageConfigError(
                "driver 'obstore' needs a package that is not installed: pip install 'genro-storage[azure]'"
            )
        super().__init__(container, prefix, **same)

    def _quickened(
        self, requests: LoopRequests, account: AzureAccount, container: str, timeout_s: float
    ) -> ObjectRequests:
        return ObstoreListingRequests(requests, partial(_make_store, account, container, timeout_s), timeout_s)


def expresses(*, options: Mapping[str, Any] | None = None, **same: Any) -> str | None:
    """Why the quick driver cannot serve a backend with these arguments, here and now; None if it can."""
    reason = _inexpressible(options, same)
    if reason is not None:
        return reason
    if find_spec('adlfs') is None:
        return 'adlfs, which asks for all but ranges, is not installed'
    given = ('account_name', 'account_key', 'sas_token', 'connection_string', 'endpoint_url')
    return why_not(account_of(*(same.get(name) for name in given)).endpoint)


def account_of(
    account_name: str | None,
    account_key: str | None,
    sas_token: str | None,
    connection_string: str | None,
    endpoint_url: str | None,
) -> AzureAccount:
    """The account of a definition. Raises StorageConfigError; shows no secret."""
    said = _settings(connection_string) if connection_string else {}
    if said.get('usedevelopmentstorage', '').lower() == 'true':
        said = _DEVELOPMENT | said
    name = account_name or said.get('accountname', '')
    endpoint = endpoint_url or said.get('blobendpoint')
    if not name and not endpoint:
        raise StorageConfigError("no Azure account: expected 'account_name', or AccountName in 'connection_string'")
    if endpoint is None:
        protocol = said.get('defaultendpointsprotocol', 'https')
        endpoint = f'{protocol}://{name}.blob.{said.get("endpointsuffix", "core.windows.net")}'
    parts = urlsplit(endpoint)
    host = parts.netloc.rpartition('@')[2]
    # Of an address that names no account: the last part of its path, or else the first of its host.
    name = name or parts.path.strip('/').rpartition('/')[2] or host.partition('.')[0]
    return AzureAccount(
        f'{parts.scheme}://{host}{parts.path.rstrip("/")}',
        name,
        account_key or said.get('accountkey') or None,
        sas_token or said.get('sharedaccesssignature') or None,
    )


def _settings(connection_string: str) -> dict[str, str]:
    """The parts of a connection string by their names in small letters."""
    pairs = [part.split('=', 1) for part in connection_string.strip().strip(';').split(';')]
    if any(len(pair) != 2 for pair in pairs):
        raise StorageConfigError("'connection_string' is none: expected NAME=VALUE;NAME=VALUE…")
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _inexpressible(options: Mapping[str, Any] | None, given: Mapping[str, Any]) -> str | None:
    if options:
        return f"its 'options' are not of this driver: {', '.join(sorted(options))}"
    if not any(given.get(name) for name in ('account_key', 'sas_token', 'connection_string')):
        return 'no credentials are given, and adlfs finds some'
    return None


def _filesystem_class() -> Any:
    try:
        from adlfs import AzureBlobFileSystem
    except ImportError as error:
        raise StorageConfigError(
            "Azure needs a package that is not installed: pip install 'genro-storage[azure]'"
        ) from error
    return AzureBlobFileSystem


def _make_filesystem(account: AzureAccount, options: dict[str, Any], what: str) -> Any:
    make = _filesystem_class()
    own: dict[str, Any] = {'skip_instance_cache': True, 'use_listings_cache': False, 'asynchronous': True}
    # One that the environment holds must not be added to a key of the definition, and may name another account.
    string = account.connection_string or _of_environment(account, options).connection_string
    if string is not None:
        given = {'connection_string': string}
    else:
        given = {'account_name': account.name, 'account_host': account.endpoint.partition('://')[2]}
    try:
        filesystem = make(**own | options | given, loop=event_loop())
        if string is None and filesystem.connection_string is not None:
            filesystem.connection_string = None
            filesystem.do_connect()
    except Exception as error:  # noqa: BLE001 - whatever adlfs and Azure's packages raise for what they were given
        # Its text is left out: it may hold what is wrong about the credentials.
        raise StorageConfigError(
            f'{what}: adlfs cannot use these credentials or options ({type(error).__name__})'
        ) from None
    return filesystem


def _of_environment(account: AzureAccount, options: Mapping[str, Any]) -> AzureAccount:
    """The account with the key or token that adlfs would find, if nothing says how else to ask."""
    if options:
        return account
    key, token = os.environ.get('AZURE_STORAGE_ACCOUNT_KEY'), os.environ.get('AZURE_STORAGE_SAS_TOKEN')
    return AzureAccount(account.endpoint, account.name, key, token)


def _make_store(account: AzureAccount, container: str, timeout_s: float) -> 'AzureStore':
    """obstore's view of a container, with the credentials and the endpoint that all other requests have."""
    from obstore.store import AzureStore

    def provide() -> Any:
        if account.key:
            return {'access_key': account.key, 'expires_at': None}
        return {'sas_token': (account.sas_token or '').lstrip('?'), 'expires_at': None}

    return AzureStore(
        container,
        account_name=account.name,
        endpoint=account.endpoint,
        credential_provider=provide,
        skip_signature=False,
        client_options=client_options(timeout_s, plain_http=account.endpoint.startswith('http:')),
        # Whoever knows the operation decides about more than one attempt.
        retry_config={'max_retries': 0},
    )


def _destination_of(container: str, prefix: str, endpoint: str) -> str:
    return '/'.join([f'azure:{endpoint.partition("://")[2]}', container, prefix]).rstrip('/')
