"""A bucket of Google Cloud Storage as a Backend: two drivers, one meaning.

Owns how a definition becomes a connection, and which definitions the quick driver can serve. Operations are
ObjectDirectories'. Both drivers ask by GcsConnection, with the credentials of gcsfs; the quick one has obstore read
ranges (see obstore_requests).

Threads: safe. Forked children make connections of their own.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from genro_storage.backends.gcs_channel import GcsChannel
from genro_storage.backends.gcs_requests import KEY_LIMIT, GcsConnection
from genro_storage.backends.loop_requests import LoopRequests, event_loop, run
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.backends.object_requests import ObjectRequests
from genro_storage.backends.object_store_reading import client_options
from genro_storage.backends.obstore_requests import GenerationReader, ObstoreRequests, is_installed, why_not
from genro_storage.errors import StorageConfigError

if TYPE_CHECKING:
    from obstore.store import GCSCredential, GCSStore

_GOOGLE = 'https://storage.googleapis.com'

# Ways to find credentials that gcsfs has a name for.
_METHODS = ('google_default', 'cache', 'cloud', 'anon')


class GcsBackend(ObjectDirectories):
    """``bucket``, below ``prefix``. Connects on first use; gcsfs missing raises StorageConfigError then.

    ``token``: the path of a JSON file with credentials, such JSON itself, an access token, or a name that gcsfs has for
    a way to find some. Without it they are found as Google's own tools find them.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = '',
        *,
        token: str | None = None,
        project: str | None = None,
        endpoint_url: str | None = None,
        anon: bool = False,
        timeout_s: float = 30.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        destination = _destination_of(bucket, prefix, endpoint_url)
        make = partial(_make_filesystem, token, project, endpoint_url, anon, dict(options or {}), destination)

        def connect() -> GcsConnection:
            return GcsConnection(bucket, GcsChannel(destination, make(), timeout_s))

        requests = LoopRequests(destination, KEY_LIMIT, connect, _filesystem_class)
        super().__init__(self._quickened(requests, bucket, timeout_s), prefix)

    def _quickened(self, requests: LoopRequests, bucket: str, timeout_s: float) -> ObjectRequests:
        return requests


class GcsObstoreBackend(GcsBackend):
    """The same, with ranges read by obstore. Raises StorageConfigError without obstore, and for any ``options``."""

    def __init__(self, bucket: str, prefix: str = '', *, options: Mapping[str, Any] | None = None, **same: Any) -> None:
        if options:
            raise StorageConfigError(f"bucket {bucket!r}: {_unknown(options)}; give 'driver: fsspec'")
        if not is_installed():
            raise StorageConfigError(
                "driver 'obstore' needs a package that is not installed: pip install 'genro-storage[gcs]'"
            )
        super().__init__(bucket, prefix, **same)

    def _quickened(self, requests: LoopRequests, bucket: str, timeout_s: float) -> ObjectRequests:
        make_store = partial(_make_store, requests, bucket, timeout_s)
        return ObstoreRequests(requests, lambda: GenerationReader(make_store, timeout_s))


def expresses(
    *,
    endpoint_url: str | None = None,
    options: Mapping[str, Any] | None = None,
    **_same: object,
) -> str | None:
    """Why the quick driver cannot serve a backend with these arguments, here and now; None if it can."""
    if options:
        return _unknown(options)
    if find_spec('gcsfs') is None:
        return 'gcsfs, which finds credentials, is not installed'
    return why_not(endpoint_url or _of_environment() or _GOOGLE)


def _unknown(options: Mapping[str, Any]) -> str:
    return f"its 'options' are not of this driver: {', '.join(sorted(options))}"


def _filesystem_class() -> Any:
    try:
        # Not gcsfs.GCSFileSystem: see gcs_channel.
        from gcsfs.core import GCSFileSystem
    except ImportError as error:
        raise StorageConfigError(
            "Google Cloud Storage needs a package that is not installed: pip install 'genro-storage[gcs]'"
        ) from error
    return GCSFileSystem


def _make_filesystem(
    token: str | None, project: str | None, endpoint_url: str | None, anon: bool, options: dict[str, Any], what: str
) -> Any:
    make = _filesystem_class()
    own: dict[str, Any] = {'skip_instance_cache': True, 'use_listings_cache': False, 'asynchronous': True}
    given = {'project': project, 'endpoint_url': endpoint_url, 'token': 'anon' if anon else _credentials(token, what)}
    merged = own | options | {name: value for name, value in given.items() if value is not None}
    try:
        return make(**merged, loop=event_loop())
    except Exception as error:  # noqa: BLE001 - whatever gcsfs and Google's packages raise for what they were given
        # Its text is left out: it may hold what is wrong about the credentials.
        raise StorageConfigError(
            f'{what}: gcsfs cannot use this token or these options ({type(error).__name__})'
        ) from None


def _credentials(token: str | None, what: str) -> Any:
    """A token in the words of gcsfs. Raises StorageConfigError."""
    if token is None or token in _METHODS or os.path.exists(os.path.expanduser(token)):
        return None if token is None else os.path.expanduser(token)
    if not token.lstrip().startswith('{'):
        if os.sep in token and token.endswith('.json'):
            raise StorageConfigError(f"{what}: the file that 'token' names does not exist")
        from google.oauth2 import credentials

        # gcsfs would send it to Google to be told when it expires.
        make: Any = credentials.Credentials
        return make(token)
    try:
        found: dict[str, Any] = json.loads(token)
    except ValueError:
        raise StorageConfigError(f"{what}: 'token' begins like JSON and is none") from None
    return found


def _make_store(requests: LoopRequests, bucket: str, timeout_s: float) -> 'GCSStore':
    """obstore's view of a bucket, with the credentials and the endpoint that all other requests have."""
    from obstore.store import GCSStore

    connection = requests.connection
    assert isinstance(connection, GcsConnection)  # noqa: S101 - made in this module

    def provide() -> 'GCSCredential':
        token, expiry = run(channel.token())
        return {'token': token, 'expires_at': expiry.replace(tzinfo=UTC) if expiry is not None else None}

    channel, anon = connection.channel, connection.channel.is_anonymous
    return GCSStore(
        bucket,
        base_url=channel.endpoint,
        skip_signature=anon,
        credential_provider=None if anon else provide,
        client_options=client_options(timeout_s, plain_http=channel.endpoint.startswith('http:')),
        # Whoever knows the operation decides about more than one attempt.
        retry_config={'max_retries': 0},
    )


def _of_environment() -> str | None:
    # As gcsfs reads it.
    host = os.environ.get('STORAGE_EMULATOR_HOST', '')
    if host in {'', 'default'}:
        return None
    return host if host.startswith(('http://', 'https://')) else f'http://{host}'


def _destination_of(bucket: str, prefix: str, endpoint_url: str | None) -> str:
    """Where a bucket and prefix really are; without the user and password that an URL may hold."""
    url = urlsplit(endpoint_url or _of_environment() or _GOOGLE)
    host = url.netloc.rpartition('@')[2]
    return '/'.join(['gcs:' + host + url.path.rstrip('/'), bucket, prefix]).rstrip('/')
