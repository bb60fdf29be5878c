"""A bucket of S3 as a Backend, through obstore and signed requests: quicker than s3fs, with the same meaning.

Owns how a definition becomes a connection: where the bucket is, who asks, and which definitions this driver cannot
serve. Operations are ObjectDirectories', requests S3Requests'. Another store is another connection: its ObjectRequests
with an obstore store of its kind to read from.

obstore reads the environment by itself, so all that it could find there is told to it: a token in the environment must
not be added to a key from a definition.

Threads: safe. Forked children make connections of their own; they read without obstore, which would hang there.
"""

import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.backends.object_store_channel import S3Address, S3Channel
from genro_storage.backends.object_store_reading import ObstoreReader, client_options, require_obstore
from genro_storage.backends.object_store_requests import S3Connection, S3Requests
from genro_storage.backends.object_store_signing import Credentials, Signer, credential_source
from genro_storage.backends.s3 import destination_of
from genro_storage.errors import StorageConfigError

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store

# Of Amazon and of every server beside it that has no regions.
_DEFAULT_REGION = 'us-east-1'

# A bucket that can be a label of a host name under one certificate (S3 user guide, "Virtual hosting of buckets").
_LABEL = re.compile('[a-z0-9][a-z0-9-]{1,61}[a-z0-9]')

# botocore renews what expires 10 minutes before it does; obstore asks again 5 minutes before it is told.
_CREDENTIALS_KEPT = timedelta(minutes=10)

_ADDRESSING_STYLES = ('path', 'virtual')


class ObjectStoreBackend(ObjectDirectories):
    """``bucket``, below ``prefix``. Connects on first use; obstore missing raises StorageConfigError then.

    ``options``: ``addressing_style`` (path or virtual), where the endpoint does not follow the usual: virtual for
    Amazon, path for others. Raises StorageConfigError for any other.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = '',
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        key: str | None = None,
        secret: str | None = None,
        token: str | None = None,
        profile: str | None = None,
        anon: bool = False,
        timeout_s: float = 30.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        reason = _inexpressible(bucket, profile, options or {})
        if reason is not None:
            raise StorageConfigError(f"bucket {bucket!r}: {reason}; give 'driver: fsspec'")
        endpoint_url = endpoint_url or _endpoint_of_environment()
        address = s3_address(bucket, region, endpoint_url, (options or {}).get('addressing_style'))
        destination = destination_of(bucket, prefix, endpoint_url)
        credentials = partial(
            credential_source, key=key, secret=secret, token=token, anon=anon, destination=destination
        )
        connect = partial(_connect, address, credentials, destination, anon=anon, timeout_s=timeout_s)
        super().__init__(S3Requests(destination, connect), prefix)


def expresses(
    *,
    bucket: str = '',
    region: str | None = None,
    endpoint_url: str | None = None,
    key: str | None = None,
    profile: str | None = None,
    anon: bool = False,
    options: Mapping[str, Any] | None = None,
    **_same: object,
) -> str | None:
    """Why this driver cannot serve a backend with these arguments, here and now; None if it can. Shows no secret."""
    reason = _inexpressible(bucket, profile, options or {})
    if reason is not None:
        return reason
    if find_spec('obstore') is None:
        return 'obstore is not installed'
    endpoint_url = endpoint_url or _endpoint_of_environment()
    if endpoint_url is None and _region(region) is None:
        return 'no region is given, and s3fs finds that of the bucket'
    if not key and not anon:
        if os.environ.get('AWS_PROFILE') or os.environ.get('AWS_DEFAULT_PROFILE'):
            return 'AWS_PROFILE names a profile, which may hold more than credentials'
        if find_spec('botocore') is None:
            return 'no key is given, and botocore, which finds credentials, is not installed'
    address = s3_address(bucket or 'bucket', region, endpoint_url)
    if not address.is_plain_http and os.environ.get('AWS_CA_BUNDLE'):
        return 'AWS_CA_BUNDLE names certificates'
    host = urlsplit(address.endpoint).hostname or ''
    scheme = urlsplit(address.endpoint).scheme
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return f'the environment names a proxy for {host}'
    return None


def s3_address(
    bucket: str, region: str | None, endpoint_url: str | None, addressing_style: str | None = None
) -> S3Address:
    """Where a bucket is, by the region and the endpoint of a definition, or else of the environment."""
    region = _region(region) or _DEFAULT_REGION
    virtual = addressing_style == 'virtual'
    if endpoint_url is None:
        virtual = addressing_style != 'path' and _LABEL.fullmatch(bucket) is not None
        domain = 'amazonaws.com.cn' if region.startswith('cn-') else 'amazonaws.com'
        endpoint_url = f'https://s3.{region}.{domain}'
    parts = urlsplit(endpoint_url)
    host = parts.netloc.rpartition('@')[2]
    endpoint = f'{parts.scheme}://{bucket}.{host}{parts.path}' if virtual else f'{parts.scheme}://{host}{parts.path}'
    return S3Address(bucket, endpoint.rstrip('/'), region, virtual)


def _connect(
    address: S3Address, credentials: Callable[[], Any], destination: str, *, anon: bool, timeout_s: float
) -> S3Connection:
    require_obstore()
    source = credentials()
    channel = S3Channel(address, Signer(address.host, address.region, source), destination, timeout_s)
    reader = ObstoreReader(partial(make_store, address, None if anon else source, timeout_s), timeout_s)
    return S3Connection(channel, reader)


def make_store(address: S3Address, credentials: Callable[[], Credentials] | None, timeout_s: float) -> 'S3Store':
    """obstore's view of a bucket; without credentials requests are not signed."""
    from obstore.store import S3Store

    def provide() -> 'S3Credential':
        assert credentials is not None  # noqa: S101 - asked only where requests are signed
        found = credentials()
        return {
            'access_key_id': found.key,
            'secret_access_key': found.secret,
            'token': found.token,
            'expires_at': datetime.now(UTC) + _CREDENTIALS_KEPT,
        }

    return S3Store(
        address.bucket,
        endpoint=address.endpoint,
        aws_endpoint_url_s3=address.endpoint,
        region=address.region,
        virtual_hosted_style_request=address.virtual_host,
        skip_signature=credentials is None,
        credential_provider=provide if credentials is not None else None,
        client_options=client_options(timeout_s, plain_http=address.is_plain_http),
        # Whoever knows the operation decides about more than one attempt.
        retry_config={'max_retries': 0},
    )


def _inexpressible(bucket: str, profile: str | None, options: Mapping[str, Any]) -> str | None:
    if profile:
        return "a 'profile' may hold more than credentials, and is botocore's to read"
    unknown = sorted(name for name in options if name != 'addressing_style')
    if unknown:
        return f"its 'options' are not of this driver: {', '.join(unknown)}"
    if options.get('addressing_style', 'path') not in _ADDRESSING_STYLES:
        return f"'addressing_style' is one of {', '.join(_ADDRESSING_STYLES)}"
    if bucket.startswith('arn:') or bucket.endswith('--x-s3'):
        return 'access points and directory buckets have addresses of their own'
    return None


def _region(given: str | None) -> str | None:
    return given or os.environ.get('AWS_REGION') or os.environ.get('AWS_DEFAULT_REGION')


def _endpoint_of_environment() -> str | None:
    # As botocore and obstore both read them.
    return os.environ.get('AWS_ENDPOINT_URL_S3') or os.environ.get('AWS_ENDPOINT_URL')
