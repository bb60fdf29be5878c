"""Definitions of mounts: what they may say, where they come from, and what is told when they are wrong.

Owns everything between the text of a configuration and typed values: ``definitions`` (the structs), ``keys`` and
``units`` (what a key accepts), ``interpolation`` (``${NAME}``), ``parsing`` (mapping to definition), ``files`` and
``sources`` (where mappings come from), ``search`` (which file, where none was named), ``masking`` (what may be shown).
Imports no backend and, before a YAML file is read, no PyYAML. Threads: values and functions without state.
"""

from genro_storage.config.definitions import (
    TYPES,
    AzureDefinition,
    CacheMode,
    Definition,
    Driver,
    Durability,
    FsspecDefinition,
    GcsDefinition,
    LocalDefinition,
    MemoryDefinition,
    Permissions,
    Posix,
    S3Definition,
    literal_secrets,
)
from genro_storage.config.parsing import definition_from_mapping
from genro_storage.config.search import Found, find_configuration
from genro_storage.config.sources import CacheSettings, Configuration, Source, load

__all__ = [
    'TYPES',
    'AzureDefinition',
    'CacheMode',
    'CacheSettings',
    'Configuration',
    'Definition',
    'Driver',
    'Durability',
    'Found',
    'FsspecDefinition',
    'GcsDefinition',
    'LocalDefinition',
    'MemoryDefinition',
    'Permissions',
    'Posix',
    'S3Definition',
    'Source',
    'definition_from_mapping',
    'find_configuration',
    'literal_secrets',
    'load',
]
