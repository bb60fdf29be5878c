"""From a mapping to a Definition: aliases, references to the environment, types, and every problem at once.

Owns what a wrong definition is told: source, mount, key, what was expected and, for an unknown word, the nearest right
one. What a key accepts is said by the structs (definitions, keys); where mappings come from, by sources.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from genro_storage.config import interpolation, keys, masking
from genro_storage.config.definitions import TYPES, Definition
from genro_storage.errors import StorageConfigError

#: Keys that later releases of the original library write, and what they are called here.
TYPE_ALIAS = 'protocol'
PATH_ALIAS = 'base_path'


class Problems:
    """What is wrong with one source, collected, so that one run tells all of it."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.lines: list[str] = []

    def add(self, where: str, text: str) -> None:
        """Note a problem; ``where`` is ``''`` for the source as a whole."""
        self.lines.append(': '.join(filter(None, (self.origin, where, text))))

    def raise_any(self) -> None:
        """Raise StorageConfigError if there are problems, one per line."""
        if self.lines:
            raise StorageConfigError('\n'.join(self.lines))


class Parser:
    """Reads the mappings of one source.

    ``folder``: what relative paths start from. ``environ``: where ``${NAME}`` is looked up.
    """

    def __init__(self, problems: Problems, folder: str, environ: Mapping[str, str]) -> None:
        self._problems = problems
        self._folder = folder
        self._environ = environ

    def definition(
        self, mapping: Mapping[str, object], place: str, defaults: Mapping[str, object] | None = None
    ) -> Definition | None:
        """The definition that a mapping means, or None after adding its problems.

        ``place`` stands for the name in messages while there is none. ``defaults`` are values as ``read`` returns them.
        """
        where = self._label(mapping, place)
        struct, own = self._type(mapping, where)
        if struct is None:
            return None
        target = next((key for key in ('path', 'prefix') if key in keys.fields_of(struct)), None)
        aliases = {PATH_ALIAS: target} if target else {}
        before = len(self._problems.lines)
        values = {**(defaults or {}), **self.read(struct, own, where, aliases=aliases)}
        given = {aliases.get(key, key) for key in own}
        for key, field in keys.fields_of(struct).items():
            if field.required and key not in given:
                self._problems.add(where, f'key {key!r} is missing; a mount of type {struct_name(struct)} needs it')
        if len(self._problems.lines) > before:
            return None
        try:
            return struct(**values)
        except StorageConfigError as error:
            for line in str(error).split('\n'):
                self._problems.add('', line)
            return None

    def read(
        self,
        struct: type[msgspec.Struct],
        mapping: Mapping[str, object],
        where: str,
        *,
        aliases: Mapping[str, str] | None = None,
        without: Collection[str] = (),
    ) -> dict[str, Any]:
        """The values of a mapping by the attributes of a struct; what is wrong or unknown is added and left out."""
        fields = {key: field for key, field in keys.fields_of(struct).items() if key not in without}
        aliases = aliases or {}
        values: dict[str, Any] = {}
        for key, raw in mapping.items():
            field = fields.get(aliases.get(key, key))
            if field is None:
                self._problems.add(where, f'unknown key {masking.shown(key)}; {nearest(key, [*fields, *aliases])}')
                continue
            read = self._value(field, key, raw, where)
            if any(values.get(attribute, value) != value for attribute, value in read.items()):
                twins = [name for name in mapping if aliases.get(name, name) == field.key]
                self._problems.add(where, _differ(*twins))
            values.update(read)
        return values

    def _value(self, field: keys.Field, key: str, raw: object, where: str) -> dict[str, Any]:
        """The value of one key by its attribute; empty, after adding the problem, if it is wrong."""
        value = raw
        try:
            value = interpolation.interpolate_value(raw, self._environ)
            if field.may_be_none and (value is None or value == ''):
                return {field.attribute: None}
            return {field.attribute: field.read(keys.Given(value, self._folder))}
        except interpolation.InterpolationError as error:
            self._problems.add(where, f'key {key!r}: {error}')
        except ValueError as error:
            self._problems.add(where, f'key {key!r}: {keys.mismatch(error, value, secret=field.secret)}')
        return {}

    def _label(self, mapping: Mapping[str, object], place: str) -> str:
        try:
            name = interpolation.interpolate_value(mapping.get('name'), self._environ)
            return f'mount {keys.mount_name(keys.Given(name, self._folder))!r}'
        except ValueError:
            return place  # what is wrong with the name is told when the key is read

    def _type(self, mapping: Mapping[str, object], where: str) -> tuple[type[Definition] | None, Mapping[str, object]]:
        """The struct for a mapping, and the mapping without the keys that say so."""
        own = {key: value for key, value in mapping.items() if key != 'type'}
        key = 'type' if 'type' in mapping else TYPE_ALIAS
        if key not in mapping:
            self._problems.add(where, f"key 'type' is missing; {one_of(TYPES)}")
            return None, own
        try:
            value = interpolation.interpolate_value(mapping[key], self._environ)
        except interpolation.InterpolationError as error:
            self._problems.add(where, f'key {key!r}: {error}')
            return None, own
        struct = TYPES.get(value) if isinstance(value, str) else None
        if struct is None:
            hint = nearest(value, TYPES) if isinstance(value, str) else one_of(TYPES)
            self._problems.add(where, f'unknown type {masking.shown(value)}; {hint}')
            return None, own
        if TYPE_ALIAS in keys.fields_of(struct) and key != TYPE_ALIAS:
            return struct, own
        if own.pop(TYPE_ALIAS, mapping[key]) != mapping[key]:
            self._problems.add(where, _differ('type', TYPE_ALIAS))
        return struct, own


def definition_from_mapping(
    mapping: Mapping[str, object],
    origin: str = '',
    *,
    folder: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Definition:
    """One definition from code. ``origin`` begins the messages; relative paths start from ``folder`` or the cwd.

    Raises StorageConfigError, and TypeError for what is no mapping.
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(': '.join(filter(None, (origin, f'expected a mapping, got {masking.kind(mapping)}'))))
    problems = Problems(origin)
    parser = Parser(problems, os.path.abspath(folder or os.curdir), os.environ if environ is None else environ)
    definition = parser.definition(mapping, '') if text_keys(mapping, '', problems) else None
    problems.raise_any()
    if definition is None:
        raise AssertionError('a mapping that is no definition has a problem')
    return definition


def text_keys(mapping: Mapping[Any, object], where: str, problems: Problems) -> bool:
    """Whether all keys are text; adds a problem for each that is not."""
    wrong = [key for key in mapping if not isinstance(key, str)]
    for key in wrong:
        problems.add(where, f'key {masking.shown(key)}: expected text; put it in quotes')
    return not wrong


def _differ(one: str, other: str) -> str:
    return f'keys {one!r} and {other!r} mean the same and differ; keep one of them'


def struct_name(struct: type[Definition]) -> str:
    """The name of a type, as the configuration writes it."""
    return str(struct.__struct_config__.tag)


def nearest(word: str, known: Iterable[str]) -> str:
    """The advice for an unknown word: the nearest known one, or all of them."""
    import difflib

    known = list(known)
    # A long word costs difflib seconds and is no misspelling.
    matches = difflib.get_close_matches(word.lower(), known, n=1) if len(word) < 64 else []
    return f'did you mean {matches[0]!r}?' if matches else one_of(known)


def one_of(known: Iterable[str]) -> str:
    """The advice that names all."""
    return 'expected one of ' + ', '.join(sorted(known))
