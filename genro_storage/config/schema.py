"""The definitions as JSON Schema, so that editors complete and check a file of them while it is written.

Owns what each reader accepts, in the words of draft 7, which editors know best. Contradictions between keys, and what
depends on the environment, are the checker's alone: whatever this refuses, that refuses too. Pure.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from genro_storage.config import descriptions, keys, units
from genro_storage.config.definitions import Definition
from genro_storage.config.documents import SECTIONS
from genro_storage.config.mount_types import TYPES, names
from genro_storage.config.parsing import PATH_ALIAS, TYPE_ALIAS
from genro_storage.config.sources import CacheSettings

Schema = dict[str, Any]

_DRAFT = 'http://json-schema.org/draft-07/schema#'
_NUMBER = r'\s*\d{1,20}(\.\d{1,20})?\s*'
_TIME = f'^{_NUMBER}([mM]?[sS]|[mMhHdD])?\\s*$'
_SIZE = f'^{_NUMBER}([bB]|[kKmMgGtTpP][iI]?[bB])?\\s*$'
# Any text of which a variable is a part may become anything.
_VARIABLE: Schema = {'type': 'string', 'pattern': r'\$\{'}
_NOTHING: Schema = {'enum': [None, '']}
_DOTS = r'(^|/)\.\.(/|$)'
_DOTS_IN_PLACE = r'(^|/|:)\.\.(/|$)'

_TEXT: Schema = {'type': 'string', 'minLength': 1}
_NAME = r'^[^\s/.:\\!-,;<=>?@\[\]^`{|}~][^\s/:\\!-,;<=>?@\[\]^`{|}~]*$'


def schema() -> Schema:
    """The schema of a file: a list of mounts, or a mapping with ``mounts:`` or ``include:``."""
    mounts = {'type': 'array', 'items': {'$ref': '#/definitions/mount'}}
    sections: dict[str, Schema] = {
        'include': {'anyOf': [_TEXT, {'type': 'array', 'items': _TEXT}, {'type': 'null'}]},
        'mounts': mounts,
        'cache': {'anyOf': [{'$ref': '#/definitions/cache'}, {'type': 'null'}]},
        'defaults': {'anyOf': [{'$ref': '#/definitions/defaults'}, {'type': 'null'}]},
    }
    for name in SECTIONS:
        sections[name] = {'description': descriptions.SECTIONS[name], **sections[name]}
    document = {
        'type': 'object',
        'properties': sections,
        'additionalProperties': False,
        'anyOf': [{'required': ['mounts']}, {'required': ['include']}],
    }
    return {
        '$schema': _DRAFT,
        'title': 'Definitions of genro-storage',
        'anyOf': [document, mounts],
        'definitions': {
            'mount': _mount(),
            'cache': _mapping(_properties(CacheSettings, descriptions.CACHE.get)),
            'defaults': _mapping(_properties(Definition, lambda key: descriptions.of_key('', key), without='name')),
            **{f'type {name}': _of_type(name, struct) for name, struct in TYPES.items()},
        },
    }


def _mount() -> Schema:
    """A mount: its type says which keys it has."""
    types = {'anyOf': [{'enum': names()}, _VARIABLE]}
    choices = [
        {'if': _is_of_type(name), 'then': {'$ref': f'#/definitions/type {name}'}}
        for name in TYPES
    ]  # fmt: skip
    return {
        'type': 'object',
        'required': ['name'],
        'properties': {'type': {'description': 'Which kind of server or place it is.', **types}},
        'anyOf': [{'required': ['type']}, {'required': [TYPE_ALIAS], 'properties': {TYPE_ALIAS: types}}],
        'allOf': choices,
    }


def _is_of_type(name: str) -> Schema:
    named = {'const': name}
    by_alias = {'required': [TYPE_ALIAS], 'properties': {TYPE_ALIAS: named}, 'not': {'required': ['type']}}
    return {'anyOf': [{'required': ['type'], 'properties': {'type': named}}, by_alias]}


def _of_type(name: str, struct: type[Definition]) -> Schema:
    properties = _properties(struct, lambda key: descriptions.of_key(name, key))
    aliased = next((key for key in ('path', 'prefix') if key in properties), None)
    properties = {'type': {}, TYPE_ALIAS: {'const': name}, **properties}
    found = _mapping(properties)
    found['description'] = (inspect.getdoc(struct) or '').partition('\n')[0]
    required = [key for key, field in keys.fields_of(struct).items() if field.required]
    if aliased is not None:
        properties[PATH_ALIAS] = properties[aliased]
        if aliased in required:
            required.remove(aliased)
            found['anyOf'] = [{'required': [aliased]}, {'required': [PATH_ALIAS]}]
    return {**found, 'required': required}


def _mapping(properties: Mapping[str, Schema]) -> Schema:
    return {'type': 'object', 'properties': properties, 'additionalProperties': False}


def _properties(
    struct: type[msgspec.Struct], describe: Callable[[str], str | None], without: str = ''
) -> dict[str, Schema]:
    return {
        key: _described(_of_field(field), describe(key), field)
        for key, field in keys.fields_of(struct).items()
        if key != without
    }


def _described(accepted: Schema, description: str | None, field: keys.Field) -> Schema:
    own: Schema = {} if description is None else {'description': description}
    if isinstance(field.read, keys.Choice) and not field.required:
        own['default'] = getattr(field.default, 'value', field.default)
    return {**own, **accepted}


def _of_field(field: keys.Field) -> Schema:
    accepted = _accepted(field)
    if field.may_be_none:
        accepted = [*accepted, _NOTHING]
    return accepted[0] if len(accepted) == 1 else {'anyOf': accepted}


def _accepted(field: keys.Field) -> list[Schema]:
    """What a key accepts, any of these."""
    read = field.read
    if isinstance(read, keys.Choice):
        names = [str(member.value) for member in read.choices]
        # YAML 1.1 reads a bare 'off' as false.
        return [{'enum': [*names, False] if 'off' in names else names}, _VARIABLE]
    if isinstance(read, keys.Plain):
        return _WORDS[read.convert]
    if read in _READERS:
        return _READERS[read]
    return [_TEXT]


_WORDS: Mapping[Callable[[object], object], list[Schema]] = {
    units.size_bytes: [{'type': 'number', 'minimum': 0}, {'type': 'string', 'pattern': _SIZE}, _VARIABLE],
    units.seconds: [{'type': 'number', 'minimum': 0}, {'type': 'string', 'pattern': _TIME}, _VARIABLE],
    units.seconds_above_zero: [
        {'type': 'number', 'exclusiveMinimum': 0},
        {'type': 'string', 'pattern': _TIME},
        _VARIABLE,
    ],
    units.seconds_or_forever: [
        {'type': 'number', 'minimum': 0},
        {'type': 'string', 'pattern': f'{_TIME}|^\\s*[fF][oO][rR][eE][vV][eE][rR]\\s*$'},
        _VARIABLE,
    ],
}

_READERS: Mapping[keys.Read, list[Schema]] = {
    keys.text: [_TEXT],
    keys.secret_text: [_TEXT],
    keys.flag: [
        {'type': 'boolean'},
        {'type': 'integer', 'minimum': 0, 'maximum': 1},
        {'type': 'string', 'pattern': r'^\s*([tT]rue|[yY]es|[oO]n|1|[fF]alse|[nN]o|[oO]ff|0)\s*$'},
        _VARIABLE,
    ],
    keys.whole: [
        {'type': 'integer', 'minimum': 0, 'maximum': 2**32 - 2},
        {'type': 'string', 'pattern': '^[0-9]{1,10}$'},
        _VARIABLE,
    ],
    keys.umask: [
        {'type': 'integer', 'minimum': 0, 'maximum': 0o777},
        {'type': 'string', 'pattern': '^(0[oO])?[0-7]{1,4}$'},
        _VARIABLE,
    ],
    keys.options: [{'type': 'object'}],
    keys.mount_name: [{'type': 'string', 'pattern': _NAME}, _VARIABLE],
    keys.prefix: [{'type': 'string', 'not': {'pattern': _DOTS}}],
    keys.remote_path: [{'type': 'string', 'not': {'pattern': _DOTS}}],
    keys.place: [{'type': 'string', 'minLength': 1, 'not': {'pattern': _DOTS_IN_PLACE}}],
    keys.mount_path: [{'type': 'string', 'pattern': '^[^/:]+:', 'not': {'pattern': _DOTS_IN_PLACE}}, _VARIABLE],
    keys.folder: [{'type': 'string', 'minLength': 1, 'not': {'pattern': _DOTS}}],
}
