"""Definitions of mounts: what they may say, where they come from, and what is told when they are wrong.

Owns everything between the text of a configuration and typed values: ``definitions``, ``mount_types``,
``object_stores`` and ``file_servers`` (the structs), ``keys`` and ``units`` (what a key accepts), ``interpolation``
(``${NAME}``), ``secrets`` (``env:NAME``), ``trust`` (who may what), ``parsing`` (mapping to definition), ``files``,
``documents``, ``database``, ``dynamic`` and ``sources`` (where mappings come from), ``positions`` (where in a file),
``search`` (which file, where none was named), ``masking`` (what may be shown), ``schema`` and ``descriptions`` (the
same for editors).
Imports no backend and, before a YAML file is read, no PyYAML. Threads: values and functions without state.
"""

from genro_storage.config.archives import LibarchiveDefinition, TarDefinition, ZipDefinition
from genro_storage.config.circles import circle_of, told_circle
from genro_storage.config.database import DatabaseSource
from genro_storage.config.definitions import CacheMode, Definition, Driver, Durability, Noise, Permissions, Posix
from genro_storage.config.file_servers import (
    FtpDefinition,
    HttpDefinition,
    SftpDefinition,
    SmbDefinition,
    WebdavDefinition,
)
from genro_storage.config.mount_types import (
    TYPES,
    Base64Definition,
    FsspecDefinition,
    LocalDefinition,
    MemoryDefinition,
    RelativeDefinition,
    literal_secrets,
)
from genro_storage.config.object_stores import AzureDefinition, GcsDefinition, S3Definition
from genro_storage.config.parsing import definition_from_mapping
from genro_storage.config.plugins import BackendType
from genro_storage.config.repositories import GitDefinition, GithubDefinition
from genro_storage.config.search import Found, find_configuration
from genro_storage.config.sources import CacheSettings, Configuration, Source, Untrusted, check, load
from genro_storage.config.trust import Privilege

__all__ = [
    'TYPES',
    'AzureDefinition',
    'BackendType',
    'Base64Definition',
    'CacheMode',
    'CacheSettings',
    'Configuration',
    'DatabaseSource',
    'Definition',
    'Driver',
    'Durability',
    'Found',
    'FsspecDefinition',
    'FtpDefinition',
    'GcsDefinition',
    'GitDefinition',
    'GithubDefinition',
    'HttpDefinition',
    'LibarchiveDefinition',
    'LocalDefinition',
    'MemoryDefinition',
    'Noise',
    'Permissions',
    'Posix',
    'Privilege',
    'RelativeDefinition',
    'S3Definition',
    'SftpDefinition',
    'SmbDefinition',
    'Source',
    'TarDefinition',
    'Untrusted',
    'WebdavDefinition',
    'ZipDefinition',
    'check',
    'circle_of',
    'definition_from_mapping',
    'find_configuration',
    'literal_secrets',
    'load',
    'told_circle',
]
