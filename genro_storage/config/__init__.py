"""Definitions of mounts: what they may say, where they come from, and what is told when they are wrong.

Owns everything between the text of a configuration and typed values: ``definitions``, ``mount_types`` and
``object_stores`` (the structs), ``keys`` and ``units`` (what a key accepts), ``interpolation`` (``${NAME}``),
``secrets`` (``env:NAME``), ``trust`` (who may what), ``parsing`` (mapping to definition), ``files``, ``documents``,
``database``, ``dynamic`` and ``sources`` (where mappings come from), ``positions`` (where in a file), ``search`` (which
file, where none was named), ``masking`` (what may be shown), ``schema`` and ``descriptions`` (the same for editors).
Imports no backend and, before a YAML file is read, no PyYAML. Threads: values and functions without state.
"""

from genro_storage.config.database import DatabaseSource
from genro_storage.config.definitions import CacheMode, Definition, Driver, Durability, Noise, Permissions, Posix
from genro_storage.config.mount_types import TYPES, FsspecDefinition, LocalDefinition, MemoryDefinition, literal_secrets
from genro_storage.config.object_stores import AzureDefinition, GcsDefinition, S3Definition
from genro_storage.config.parsing import definition_from_mapping
from genro_storage.config.search import Found, find_configuration
from genro_storage.config.sources import CacheSettings, Configuration, Source, Untrusted, check, load
from genro_storage.config.trust import Privilege

__all__ = [
    'TYPES',
    'AzureDefinition',
    'CacheMode',
    'CacheSettings',
    'Configuration',
    'DatabaseSource',
    'Definition',
    'Driver',
    'Durability',
    'Found',
    'FsspecDefinition',
    'GcsDefinition',
    'LocalDefinition',
    'MemoryDefinition',
    'Noise',
    'Permissions',
    'Posix',
    'Privilege',
    'S3Definition',
    'Source',
    'Untrusted',
    'check',
    'definition_from_mapping',
    'find_configuration',
    'literal_secrets',
    'load',
]
