"""The definitions of object stores: S3, Google Cloud Storage, Azure Blob Storage.

Owns their keys, which of them contradict each other, and which reach for credentials of this machine. Connects to
nothing. Threads: values, never changed.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from genro_storage import paths
from genro_storage.config import keys
from genro_storage.config.definitions import Definition, Secret
from genro_storage.config.keys import Key
from genro_storage.config.trust import Privilege
from genro_storage.errors import StoragePathError

# What says which account an Azure connection string is of.
_AZURE_STRING = re.compile(r'(^|;)\s*(AccountName|BlobEndpoint|UseDevelopmentStorage)\s*=', re.IGNORECASE)


class S3Definition(Definition, frozen=True, kw_only=True, tag='s3'):
    """A bucket of Amazon S3 or of a server that speaks its protocol, or what lies below ``prefix`` in it.

    ``token`` is a session token. Without ``key`` the credentials are found as AWS's own tools find them.
    """

    bucket: str
    prefix: Annotated[str, Key(keys.prefix)] = ''
    region: str | None = None
    endpoint_url: str | None = None
    key: Secret = None
    secret: Secret = None
    token: Secret = None
    profile: str | None = None
    anon: bool = False

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition."""
        yield from super().needs(values)
        if values.get('profile'):
            yield 'profile', Privilege.CREDENTIALS, ''
        elif not values.get('key') and not values.get('anon'):
            yield 'key', Privilege.CREDENTIALS, "give 'key' and 'secret', or 'anon: true'"

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _place_problems('bucket', self.bucket, self.prefix, self.endpoint_url)
        if bool(self.key) != bool(self.secret):
            yield ('secret' if self.key else 'key'), "missing; 'key' and 'secret' go together"
        if self.token and not self.key:
            yield 'token', "of no use without 'key' and 'secret'"
        if self.anon and (self.key or self.profile):
            yield 'anon', "contradicts 'key' or 'profile': an anonymous client has no credentials"


class GcsDefinition(Definition, frozen=True, kw_only=True, tag='gcs'):
    """A bucket of Google Cloud Storage, or what lies below ``prefix`` in it.

    ``token``: the path of a JSON file with credentials, such JSON itself, or an access token. Without it the
    credentials are found as Google's own tools find them.
    """

    bucket: str
    prefix: Annotated[str, Key(keys.prefix)] = ''
    token: Secret = None
    project: str | None = None
    endpoint_url: str | None = None
    anon: bool = False

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition. A token that is no JSON may be the path of a file, or gcsfs's name for a way to find one."""
        yield from super().needs(values)
        token = values.get('token')
        if not token and not values.get('anon'):
            yield 'token', Privilege.CREDENTIALS, "give a 'token' as JSON, or 'anon: true'"
        elif isinstance(token, str) and not _is_service_account(token):
            yield 'token', Privilege.CREDENTIALS, 'a token that is not the JSON of a service account may name a file'

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _place_problems('bucket', self.bucket, self.prefix, self.endpoint_url)
        if self.anon and self.token:
            yield 'anon', "contradicts 'token': an anonymous client has no credentials"


class AzureDefinition(Definition, frozen=True, kw_only=True, tag='azure'):
    """A container of Azure Blob Storage, or what lies below ``prefix`` in it.

    The account is named, or a connection string says which it is. Without a key, a token or such a string the
    credentials are found as Azure's own tools find them.
    """

    container: str
    prefix: Annotated[str, Key(keys.prefix)] = ''
    account_name: str | None = None
    account_key: Secret = None
    sas_token: Secret = None
    connection_string: Secret = None
    endpoint_url: str | None = None

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition."""
        yield from super().needs(values)
        if not any(values.get(name) for name in ('account_key', 'sas_token', 'connection_string')):
            yield 'account_key', Privilege.CREDENTIALS, "give it, a 'sas_token' or a 'connection_string'"

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _place_problems('container', self.container, self.prefix, self.endpoint_url)
        if self.connection_string:
            if any((self.account_name, self.account_key, self.sas_token, self.endpoint_url)):
                yield 'connection_string', 'says all of the account: give it alone, or the other keys without it'
            elif isinstance(self.connection_string, str) and not _AZURE_STRING.search(self.connection_string):
                yield 'connection_string', 'expected NAME=VALUE;NAME=VALUE with an AccountName or a BlobEndpoint'
        elif not self.account_name:
            yield 'account_name', "missing; it or 'connection_string' says which account"
        if self.account_key and self.sas_token:
            yield 'sas_token', "contradicts 'account_key'; give one of them"


def _place_problems(key: str, place: str, prefix: str, endpoint_url: str | None) -> Iterator[tuple[str, str]]:
    """What is wrong with the place of an object store, which ``key`` names."""
    if not place or '/' in place:
        yield key, f"expected the name of a {key}; a folder inside it goes into 'prefix'"
    if not _is_normalised(prefix):
        yield 'prefix', "expected a path without '..', and without slashes at its ends"
    if endpoint_url is not None and not endpoint_url.startswith(('http://', 'https://')):
        yield 'endpoint_url', 'expected a URL that starts with http:// or https://'


def _is_service_account(token: str) -> bool:
    """Whether it is JSON with a key in it. Other kinds of JSON may name files and programs that give credentials."""
    import json

    try:
        said = json.loads(token)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get('type') == 'service_account'


def _is_normalised(path: str) -> bool:
    try:
        return paths.join(path) == path
    except StoragePathError:
        return False
