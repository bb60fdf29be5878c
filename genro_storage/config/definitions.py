"""The definition of a mount: one frozen struct per type, its fields the keys of the configuration as typed values.

Owns what all types have in common: their keys and defaults, what of them is secret, what is shown of it, and when a
secret is looked up. The types, see mount_types. Does not read text (see parsing), connects to nothing and does not look
whether a path exists.

Struct and mapping differ where the unit is in the name: the key ``ttl: 5m`` becomes ``ttl_s=300.0``.
Threads: values, never changed; ``options`` is a dict that nobody may change either.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import msgspec

from genro_storage.config import keys, masking, secrets, units
from genro_storage.config.keys import Key
from genro_storage.config.secrets import Reference
from genro_storage.config.trust import Privilege
from genro_storage.errors import StorageConfigError


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


class Noise(enum.Enum):
    """What becomes of what desktops leave in every directory, and of programs that read every file.

    REFUSE: neither is let in. LOCAL: small files that file managers leave are kept here and never uploaded. ALLOW:
    they are files and programs like others.
    """

    REFUSE = 'refuse'
    LOCAL = 'local'
    ALLOW = 'allow'


class Driver(enum.Enum):
    """What speaks to the server."""

    AUTO = 'auto'
    OBSTORE = 'obstore'
    FSSPEC = 'fsspec'


Ttl = Annotated[float, Key(keys.Plain(units.seconds_or_forever))]
Secret = Annotated[str | Reference | None, Key(secret=True)]

#: For no longer do S3, GCS and Azure sign: SigV4's limit, V4 signing's, and that of a key for delegation.
URL_MOST_S = 7 * 86400.0

#: Attributes that are secret and say where the data are too: looked up when configured, and not to change after.
LOCATING = frozenset({'connection_string'})

# Options that reach nothing but the server that the definition names.
_HARMLESS_OPTIONS = frozenset({'addressing_style'})


class WrongDefinitionError(StorageConfigError):
    """``problems``: (key, what is wrong) of one definition."""

    def __init__(self, name: object, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__('\n'.join(f'mount {name!r}: key {key!r}: {text}' for key, text in problems))
        self.name = name
        self.problems = problems


class Definition(msgspec.Struct, frozen=True, kw_only=True, tag_field='type'):
    """What a mount of every type has. Made directly, its fields want final values; from a mapping, see parsing.

    ``ttl_s``: how long an entry is believed; math.inf for ever. ``timeout_s``: how long nothing may move. ``urls_s``:
    for how long URLs are valid that are made of files for whoever asks; None: none are made, because who has one can
    read the file. ``noise``: of remote types.
    Raises StorageConfigError, one problem per line.
    """

    #: Attributes that ``defaults:`` does not set, because this type has no choice.
    fixed: ClassVar[frozenset[str]] = frozenset()

    name: Annotated[str, Key(keys.mount_name)]
    permissions: Permissions = Permissions.DELETE
    ttl_s: Ttl = msgspec.field(name='ttl', default=10.0)
    cache: CacheMode = CacheMode.DISK
    durability: Durability = Durability.CLOSE
    writeback_delay_s: Annotated[float, Key(keys.Plain(units.seconds))] = msgspec.field(
        name='writeback_delay', default=5.0
    )
    posix: Posix = Posix.IGNORE
    timeout_s: Annotated[float, Key(keys.Plain(units.seconds_above_zero))] = msgspec.field(name='timeout', default=30.0)
    uid: int | None = None
    gid: int | None = None
    umask: Annotated[int | None, Key(keys.umask)] = None
    noise: Noise = Noise.LOCAL
    urls_s: Annotated[float | None, Key(keys.Plain(units.seconds_above_zero))] = msgspec.field(
        name='urls', default=None
    )
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
            raise WrongDefinitionError(self.name, problems)

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
        if self.urls_s is not None and not 0 < self.urls_s <= URL_MOST_S:
            yield 'urls', 'expected more than zero seconds and at most 7 days'

    @property
    def refers_to(self) -> str | None:
        """The name of the mount that this one is made of, if there is one."""
        return None

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """(key, privilege, hint) for all that a source must be trusted with, to give these values of attributes."""
        if set(values.get('options', ())) - _HARMLESS_OPTIONS:
            yield 'options', Privilege.FSSPEC, ''

    def resolved(self) -> Self:
        """The same with its secrets looked up, as they are now; for whoever connects. Raises StorageConfigError."""
        found = {}
        for field in self._fields():
            value = getattr(self, field.attribute)
            if field.secret and secrets.holds(value):
                look_up = partial(_look_up, f'mount {self.name!r}: key {field.key!r}')
                found[field.attribute] = secrets.replaced(value, _is_parsed, look_up)
        return msgspec.structs.replace(self, **found) if found else self

    def unresolved(self) -> Self:
        """The same with references as texts, but for those that say where the data are: for whoever does not connect.

        Raises StorageConfigError.
        """
        held = {field.attribute: getattr(self, field.attribute) for field in self._fields() if field.secret}
        found = {
            name: secrets.replaced(value, _is_parsed, str)
            for name, value in held.items()
            if secrets.holds(value) and name not in LOCATING
        }
        return msgspec.structs.replace(self, **found).resolved() if found else self.resolved()

    @property
    def has_references(self) -> bool:
        """Whether a secret of it is one that is looked up."""
        return any(field.secret and secrets.holds(getattr(self, field.attribute)) for field in self._fields())

    def _fields(self) -> list[keys.Field]:
        return list(keys.fields_of(self.__class__).values())

    def _fits(self, field: keys.Field) -> bool:
        value = getattr(self, field.attribute)
        return isinstance(value, field.types) and (bool in field.types or not isinstance(value, bool))

    def shown(self) -> dict[str, Any]:
        """All of it in the words of the configuration, by key, secrets masked; what is unset is left out."""
        told: dict[str, Any] = {'name': self.name, 'type': self.type}
        for field in self._fields():
            value = getattr(self, field.attribute)
            if value in (None, '', {}):
                continue
            if field.secret:
                value = masking.masked(value)
            elif isinstance(value, str):
                value = masking.without_userinfo(value)
            elif isinstance(value, enum.Enum):
                value = value.value
            elif field.key == 'umask':
                value = f'{value:03o}'
            elif value == float('inf'):
                value = 'forever'
            elif isinstance(value, float) and value.is_integer():
                value = int(value)
            told[field.key] = value
        return told

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


def _look_up(where: str, reference: Reference) -> str:
    try:
        return reference.look_up()
    except StorageConfigError as error:
        raise StorageConfigError(f'{where}: {error}') from error.__cause__


def _is_parsed(_name: str, value: object) -> bool:
    return isinstance(value, Reference)
