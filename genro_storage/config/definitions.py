"""The definitions of mounts: one frozen struct per type, its fields the keys of the configuration as typed values.

Owns the keys, their defaults and what of them is secret. A new type is one more struct here and its name in ``TYPES``;
the parser, the messages and the masks follow from the fields. Does not read text (see parsing), connects to nothing and
does not look whether a path exists.

Struct and mapping differ where the unit is in the name: the key ``ttl: 5m`` becomes ``ttl_s=300.0``.
Threads: values, never changed; ``options`` is a dict that nobody may change either.
"""

import enum
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from genro_storage import paths
from genro_storage.config import interpolation, keys, masking, units
from genro_storage.config.keys import Key
from genro_storage.errors import StorageConfigError, StoragePathError


class Permissions(enum.Enum):
    """What may be done with the files of a mount; each allows what the ones before it do."""

    READONLY = 'readonly'
    READWRITE = 'readwrite'
    DELETE = 'delete'


class CacheMode(enum.Enum):
    """Where blocks that were read stay."""

    OFF = 'off'
    MEMORY = 'memory'
    DISK = 'disk'


class Durability(enum.Enum):
    """What close waits for: the commit on the backend, or the journal on the local disk."""

    CLOSE = 'close'
    WRITEBACK = 'writeback'


class Posix(enum.Enum):
    """What becomes of mode, owner and the like on a backend that has none."""

    IGNORE = 'ignore'
    STORE = 'store'
    STRICT = 'strict'


class Driver(enum.Enum):
    """What speaks to the server."""

    AUTO = 'auto'
    OBSTORE = 'obstore'
    FSSPEC = 'fsspec'


Ttl = Annotated[float, Key(keys.plain(units.seconds_or_forever))]
Secret = Annotated[str | None, Key(secret=True)]

# What says which account an Azure connection string is of.
_AZURE_STRING = re.compile(r'(^|;)\s*(AccountName|BlobEndpoint|UseDevelopmentStorage)\s*=', re.IGNORECASE)


class Definition(msgspec.Struct, frozen=True, kw_only=True, tag_field='type'):
    """What a mount of every type has. Made directly, its fields want final values; from a mapping, see parsing.

    ``ttl_s``: how long an entry is believed; math.inf for ever. ``timeout_s``: how long nothing may move.
    Raises StorageConfigError, one problem per line.
    """

    name: Annotated[str, Key(keys.mount_name)]
    permissions: Permissions = Permissions.DELETE
    ttl_s: Ttl = msgspec.field(name='ttl', default=10.0)
    cache: CacheMode = CacheMode.DISK
    durability: Durability = Durability.CLOSE
    writeback_delay_s: Annotated[float, Key(keys.plain(units.seconds))] = msgspec.field(
        name='writeback_delay', default=5.0
    )
    posix: Posix = Posix.IGNORE
    timeout_s: Annotated[float, Key(keys.plain(units.seconds_above_zero))] = msgspec.field(name='timeout', default=30.0)
    uid: int | None = None
    gid: int | None = None
    umask: Annotated[int | None, Key(keys.umask)] = None
    driver: Driver = Driver.AUTO
    #: Handed to the driver as they are. All count as secret when shown: nobody knows what a driver takes.
    options: Annotated[dict[str, Any], Key(secret=True)] = msgspec.field(default_factory=dict)

    @property
    def type(self) -> str:
        """The name of its type, as in the configuration."""
        return str(self.__struct_config__.tag)

    def __post_init__(self) -> None:
        wrong = [(f.key, f'expected {f.types[0].__name__}') for f in self._fields() if not self._fits(f)]
        # Values of a wrong type would trip the comparisons of _problems.
        if problems := wrong or list(self._problems()):
            raise StorageConfigError('\n'.join(f'mount {self.name!r}: key {key!r}: {text}' for key, text in problems))

    def _problems(self) -> Iterator[tuple[str, str]]:
        """(key, what is wrong) of values that are right in type only, and of keys that contradict each other."""
        try:
            keys.mount_name(keys.Given(self.name, ''))
        except keys.WrongValueError as error:
            yield 'name', str(error)
        if not self.ttl_s >= 0:
            yield 'ttl', 'expected zero or more seconds'
        if not 0 <= self.writeback_delay_s < float('inf'):
            yield 'writeback_delay', 'expected zero or more seconds'
        if not 0 < self.timeout_s < float('inf'):
            yield 'timeout', 'expected more than zero seconds'
        if self.umask is not None and not 0 <= self.umask <= 0o777:
            yield 'umask', 'expected 0 to 0o777'

    def _fields(self) -> list[keys.Field]:
        return list(keys.fields_of(self.__class__).values())

    def _fits(self, field: keys.Field) -> bool:
        value = getattr(self, field.attribute)
        return isinstance(value, field.types) and (bool in field.types or not isinstance(value, bool))

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What is set, secrets masked (msgspec's own would show all to rich)."""
        shown = []
        for field in self._fields():
            value = getattr(self, field.attribute)
            if value in (field.default, None, {}):
                continue
            if field.secret:
                value = masking.masked(value)
            elif isinstance(value, str):
                value = masking.without_userinfo(value)
            shown.append((field.attribute, value))
        return shown

    def __repr__(self) -> str:
        shown = ', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())
        return f'{self.__class__.__name__}({shown})'

    def __reduce__(self) -> Any:
        """Pickles a definition without secrets. Raises StorageConfigError for one with."""
        if held := self.secrets_held():
            raise StorageConfigError(
                f'mount {self.name!r}: {", ".join(held)} would put a secret into a pickle; configure from a file, '
                'or write the value as ${NAME}, and pickle that'
            )
        return super().__reduce__()

    def secrets_held(self) -> list[str]:
        """The names of the secret keys that are set, and of what else looks like a credential."""
        values = {field.key: getattr(self, field.attribute) for field in self._fields()}
        declared = [field.key for field in self._fields() if field.secret]
        return [name for name, _ in masking.credentials(values, declared)]


class LocalDefinition(Definition, frozen=True, kw_only=True, tag='local'):
    """A folder of this machine. ``path`` is absolute."""

    path: Annotated[str, Key(keys.folder)]
    ttl_s: Ttl = msgspec.field(name='ttl', default=1.0)
    cache: CacheMode = CacheMode.OFF

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if not os.path.isabs(self.path) or '..' in self.path.split('/') or '\0' in self.path:
            yield 'path', "expected an absolute path without '..'"


class MemoryDefinition(Definition, frozen=True, kw_only=True, tag='memory'):
    """A store of this process alone, empty at first and gone with it."""

    cache: CacheMode = CacheMode.OFF


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

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _place_problems('container', self.container, self.prefix, self.endpoint_url)
        if self.connection_string:
            if any((self.account_name, self.account_key, self.sas_token, self.endpoint_url)):
                yield 'connection_string', 'says all of the account: give it alone, or the other keys without it'
            elif not _AZURE_STRING.search(self.connection_string):
                yield 'connection_string', 'expected NAME=VALUE;NAME=VALUE with an AccountName or a BlobEndpoint'
        elif not self.account_name:
            yield 'account_name', "missing; it or 'connection_string' says which account"
        if self.account_key and self.sas_token:
            yield 'sas_token', "contradicts 'account_key'; give one of them"


class FsspecDefinition(Definition, frozen=True, kw_only=True, tag='fsspec'):
    """Any file system that fsspec knows by ``protocol``; ``path`` is the root of the mount, in that one's words."""

    protocol: str
    path: Annotated[str, Key(keys.remote_path)] = ''

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if not self.protocol:
            yield 'protocol', 'expected the name of a protocol'
        if '..' in self.path.split('/') or '\0' in self.path:
            yield 'path', "expected a path without '..'"


def _place_problems(key: str, place: str, prefix: str, endpoint_url: str | None) -> Iterator[tuple[str, str]]:
    """What is wrong with the place of an object store, which ``key`` names."""
    if not place or '/' in place:
        yield key, f"expected the name of a {key}; a folder inside it goes into 'prefix'"
    if not _is_normalised(prefix):
        yield 'prefix', "expected a path without '..', and without slashes at its ends"
    if endpoint_url is not None and not endpoint_url.startswith(('http://', 'https://')):
        yield 'endpoint_url', 'expected a URL that starts with http:// or https://'


def _is_normalised(path: str) -> bool:
    try:
        return paths.join(path) == path
    except StoragePathError:
        return False


_ALL: tuple[type[Definition], ...] = (
    LocalDefinition,
    MemoryDefinition,
    S3Definition,
    GcsDefinition,
    AzureDefinition,
    FsspecDefinition,
)

#: The types of mounts by their names in the configuration.
TYPES: Mapping[str, type[Definition]] = {str(struct.__struct_config__.tag): struct for struct in _ALL}


_SECRETS = {
    name for struct in _ALL for name, field in keys.fields_of(struct).items() if field.secret and field.types[0] is str
}


def literal_secrets(raw: Mapping[str, object] | Definition) -> list[str]:
    """The keys of an uninterpolated definition that hold a secret itself, not ``${NAME}``: 'secret', 'options.token'.

    Of options, and of URLs with a password in them, what looks like a credential counts. A default inside a reference
    is literal too. Of a Definition, where nothing is a reference any more, every secret that is set counts.
    """
    if isinstance(raw, Definition):
        return raw.secrets_held()
    found = [name for name, value in masking.credentials(raw, _SECRETS) if interpolation.is_literal(str(value))]
    return list(dict.fromkeys(found))
