"""The types of mounts: their names, their definitions, and which of their keys are secret.

Owns the table, and the definitions that need no module of their own. A new type is one more struct and its place in
``TYPES``; the parser, the messages, the masks and the schema follow from its fields. Threads: values, never changed.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import msgspec

from genro_storage.config import interpolation, keys, masking, plugins, secrets
from genro_storage.config.archives import LibarchiveDefinition, TarDefinition, ZipDefinition
from genro_storage.config.definitions import CacheMode, Definition, Noise, Ttl
from genro_storage.config.file_servers import (
    FtpDefinition,
    HttpDefinition,
    SftpDefinition,
    SmbDefinition,
    WebdavDefinition,
)
from genro_storage.config.keys import Key
from genro_storage.config.object_stores import AzureDefinition, GcsDefinition, S3Definition
from genro_storage.config.read_only import ReadOnlyDefinition
from genro_storage.config.repositories import GitDefinition, GithubDefinition
from genro_storage.config.trust import Privilege


class LocalDefinition(Definition, frozen=True, kw_only=True, tag='local'):
    """A folder of this machine. ``path`` is absolute."""

    path: Annotated[str, Key(keys.folder)]
    ttl_s: Ttl = msgspec.field(name='ttl', default=1.0)
    cache: CacheMode = CacheMode.OFF

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition."""
        yield from super().needs(values)
        yield 'path', Privilege.LOCAL, ''

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if not os.path.isabs(self.path) or '..' in self.path.split('/') or '\0' in self.path:
            yield 'path', "expected an absolute path without '..'"


class MemoryDefinition(Definition, frozen=True, kw_only=True, tag='memory'):
    """A store of this process alone, empty at first and gone with it."""

    cache: CacheMode = CacheMode.OFF
    noise: Noise = Noise.ALLOW


class RelativeDefinition(Definition, frozen=True, kw_only=True, tag='relative'):
    """A directory of another mount: ``path`` is 'mount:path'.

    All but its name and ``permissions`` is the other mount's to say, whose permissions hold too.
    """

    fixed: ClassVar[frozenset[str]] = frozenset(Definition.__struct_fields__) - {'name', 'permissions'}

    path: Annotated[str, Key(keys.mount_path)]

    @property
    def refers_to(self) -> str:
        """See Definition."""
        return self.path.partition(':')[0]

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition."""
        yield from super().needs(values)
        yield 'path', Privilege.MOUNTS, ''

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        try:
            normalised = keys.mount_path(keys.Given(self.path, ''))
        except ValueError:
            normalised = ''
        if normalised != self.path:
            yield 'path', "expected 'mount:path' without '..'"
        for field in self._fields():
            value = getattr(self, field.attribute)
            if field.attribute in self.fixed and value != field.default and value != {}:
                yield field.key, 'is for the other mount to say; leave it out here'


class Base64Definition(ReadOnlyDefinition, frozen=True, kw_only=True, tag='base64'):
    """Files whose content is their name, in base64."""

    cache: CacheMode = CacheMode.OFF


class FsspecDefinition(Definition, frozen=True, kw_only=True, tag='fsspec'):
    """Any file system that fsspec knows by ``protocol``; ``path`` is the root of the mount, in that one's words."""

    protocol: str
    path: Annotated[str, Key(keys.remote_path)] = ''

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition."""
        yield 'protocol', Privilege.FSSPEC, ''

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if not self.protocol:
            yield 'protocol', 'expected the name of a protocol'
        if '..' in self.path.split('/') or '\0' in self.path:
            yield 'path', "expected a path without '..'"


_ALL: tuple[type[Definition], ...] = (
    LocalDefinition,
    MemoryDefinition,
    S3Definition,
    GcsDefinition,
    AzureDefinition,
    HttpDefinition,
    WebdavDefinition,
    FtpDefinition,
    SftpDefinition,
    SmbDefinition,
    FsspecDefinition,
    ZipDefinition,
    TarDefinition,
    LibarchiveDefinition,
    GitDefinition,
    GithubDefinition,
    RelativeDefinition,
    Base64Definition,
)

#: The types of mounts by their names in the configuration.
TYPES: Mapping[str, type[Definition]] = {str(struct.__struct_config__.tag): struct for struct in _ALL}


def _secrets_of(struct: type[Definition]) -> set[str]:
    return {name for name, field in keys.fields_of(struct).items() if field.secret and field.types[0] is str}


#: The keys whose whole value is a secret; those of a plugin's type are added when it is loaded.
SECRETS = {name for struct in _ALL for name in _secrets_of(struct)}


def find_type(name: str) -> type[Definition] | None:
    """The definition of a type, ours or a plugin's; None if nobody has it. Raises StorageConfigError."""
    if name in TYPES:
        return TYPES[name]
    plugin = plugins.find(name)
    if plugin is None:
        return None
    SECRETS.update(_secrets_of(plugin.definition))
    return plugin.definition


def is_ours(struct: type[Definition]) -> bool:
    """Whether a type is not a plugin's."""
    return struct in _ALL


def names() -> list[str]:
    """The names of all types, those of plugins too."""
    return list(dict.fromkeys([*TYPES, *plugins.names()]))


def refers_to_secret(name: str, value: object) -> bool:
    """Whether a value of a mapping, not interpolated yet, is a reference to a secret.

    It is where its dotted name is that of a secret: a key declared to be one, or an option that sounds so.
    """
    return secrets.is_reference(value) and (name in SECRETS or masking.names_a_credential(name))


def literal_secrets(raw: Mapping[str, object] | Definition) -> list[str]:
    """The keys of an uninterpolated definition that hold a secret itself, not ``${NAME}``: 'secret', 'options.token'.

    Of options, and of URLs with a password in them, what looks like a credential counts. A default inside a reference
    is literal too; 'env:NAME' and its like are not. Of a Definition, where no variable is named any more, every
    secret that is set counts.
    """
    if isinstance(raw, Definition):
        return raw.secrets_held()
    found = [
        name
        for name, value in masking.credentials(raw, SECRETS)
        if not refers_to_secret(name, value) and interpolation.is_literal(str(value))
    ]
    return list(dict.fromkeys(found))
