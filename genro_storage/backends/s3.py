"""A bucket of S3 as a Backend, through s3fs: what serves definitions that the quick driver cannot.

Owns how a definition becomes a connection of s3fs. Operations are ObjectDirectories', requests S3fsRequests'.

Versions are ETags. Conditions go with the write to the server (If-Match, If-None-Match); where it refuses them as not
implemented, the version is checked right before.

Threads: safe; there is no state but the connection.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.backends.s3_client import S3Client
from genro_storage.backends.s3_requests import S3fsRequests


class S3Backend(ObjectDirectories):
    """``bucket``, below ``prefix``. Connects on first use; s3fs missing raises StorageConfigError then."""

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
        destination = destination_of(bucket, prefix, endpoint_url)
        arguments = dict(options or {})
        given = {'endpoint_url': endpoint_url, 'key': key, 'secret': secret, 'token': token, 'profile': profile}
        arguments |= {name: value for name, value in given.items() if value is not None}
        if anon:
            arguments['anon'] = True
        if region is not None:
            arguments['client_kwargs'] = {'region_name': region} | dict(arguments.get('client_kwargs', {}))
        client = S3Client(bucket, destination, arguments, timeout_s=timeout_s)
        super().__init__(S3fsRequests(client), prefix)


def destination_of(bucket: str, prefix: str, endpoint_url: str | None) -> str:
    """Where a bucket and prefix really are; without the user and password that an URL may hold."""
    url = urlsplit(endpoint_url or 'https://s3.amazonaws.com')
    host = url.netloc.rpartition('@')[2]
    return '/'.join(['s3:' + host + url.path.rstrip('/'), bucket, prefix]).rstrip('/')
