"""From a mapping to a Definition: aliases, references to the environment, types, and every problem at once.

Owns what a wrong definition is told: source, mount, key, what was expected and, for an unknown word, the nearest right
one. What a key accepts is said by the structs (definitions, keys); where mappings come from, by sources.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from genro_storage.config import interpolation, keys, masking, secrets, trust
from genro_storage.config.definitions import Definition, WrongDefinitionError
from genro_storage.config.mount_types import find_type, is_ours, names, refers_to_secret
from genro_storage.config.positions import Position, Positions
from genro_storage.config.trust import Privilege
from genro_storage.errors import StorageConfigError

#: Keys that later releases of the original library write, and what they are called here.
TYPE_ALIAS = 'protocol'
PATH_ALIAS = 'base_path'


#: The way to a value through its source: keys and indexes.
Way = tuple[str | int, ...]


class Problem(msgspec.Struct, frozen=True):
    """Something wrong. ``origin``: what the source is called. ``where``: which mount, ``''`` for all of the source."""

    origin: str
    position: Position | None
    where: str
    text: str

    @property
    def line(self) -> int:
        """Its line, or 0 where nobody knows."""
        return 0 if self.position is None else self.position.line

    def __str__(self) -> str:
        place = str(self.position) if self.position is not None else ''
        return ': '.join(filter(None, (self.origin, place, self.where, self.text)))


class Problems:
    """What is wrong with one document, and with those found with it, collected, so that one run tells all of it."""

    def __init__(self, origin: str, positions: Positions | None = None, found: list[Problem] | None = None) -> None:
        self.origin = origin
        self.found: list[Problem] = [] if found is None else found
        self._positions = positions

    def beside(self, origin: str, positions: Positions | None) -> 'Problems':
        """For another document, collected into the same."""
        return Problems(origin, positions, self.found)

    def add(self, where: str, text: str, way: Way = (), *, key: bool = False) -> None:
        """Note a problem at the end of a way, with its ``key`` if not with the value."""
        position = self._positions.of(way, key=key) if self._positions is not None else None
        self.found.append(Problem(self.origin, position, where, text))

    def raise_any(self) -> None:
        """Raise StorageConfigError if there are problems, one per line."""
        if self.found:
            raise StorageConfigError('\n'.join(map(str, self.found)))


class Parser:
    """Reads the mappings of one source.

    ``folder``: what relative paths start from. ``environ``: where ``${NAME}`` is looked up. ``allowed``: what the
    source is trusted with.
    """

    def __init__(
        self,
        problems: Problems,
        folder: str,
        environ: Mapping[str, str],
        allowed: Collection[Privilege] = trust.ALL,
    ) -> None:
        self._problems = problems
        self._folder = folder
        self._environ = environ if Privilege.INTERPOLATION in allowed else None
        self._allowed = allowed

    def definition(
        self, mapping: Mapping[str, object], place: str, defaults: Mapping[str, object] | None = None, way: Way = ()
    ) -> Definition | None:
        """The definition that a mapping means, or None after adding its problems.

        ``place`` stands for the name in messages while there is none. ``defaults`` are values as ``read`` returns them.
        ``way`` leads to the mapping.
        """
        where = self._label(mapping, place)
        struct, own = self._type(mapping, where, way)
        if struct is None:
            return None
        target = next((key for key in ('path', 'prefix') if key in keys.fields_of(struct)), None)
        aliases = {PATH_ALIAS: target} if target else {}
        before = len(self._problems.found)
        common = {name: value for name, value in (defaults or {}).items() if name not in struct.fixed}
        values = {**common, **self.read(struct, own, where, aliases=aliases, way=way)}
        given = {aliases.get(key, key) for key in own}
        for key, field in keys.fields_of(struct).items():
            if field.required and key not in given:
                text = f'key {key!r} is missing; a mount of type {struct_name(struct)} needs it'
                self._problems.add(where, text, way)
        # What is given and wrong is told already, and not that it is missing too.
        meant = {field.attribute: own[key] for key, field in keys.fields_of(struct).items() if key in own}
        self.refuse(struct, {**meant, **values}, where, way)
        if len(self._problems.found) > before:
            return None
        try:
            return struct(**values)
        except WrongDefinitionError as error:
            for key, text in error.problems:
                written = key if key in own else next((name for name in own if aliases.get(name) == key), key)
                self._problems.add(where, f'key {key!r}: {text}', (*way, written))
            return None

    def refuse(self, struct: type[Definition], values: Mapping[str, Any], where: str, way: Way) -> None:
        """Add a problem for each value that the source is not trusted with."""
        needed = list(struct.needs(values))
        if not is_ours(struct):
            needed.append(('type', Privilege.PLUGINS, ''))
        for key, privilege, hint in needed:
            if privilege not in self._allowed:
                self._problems.add(where, f'key {key!r}: {trust.refusal(privilege, hint)}', (*way, key))

    def read(
        self,
        struct: type[msgspec.Struct],
        mapping: Mapping[str, object],
        where: str,
        *,
        aliases: Mapping[str, str] | None = None,
        without: Collection[str] = (),
        way: Way = (),
    ) -> dict[str, Any]:
        """The values of a mapping by the attributes of a struct; what is wrong or unknown is added and left out."""
        fields = {key: field for key, field in keys.fields_of(struct).items() if key not in without}
        aliases = aliases or {}
        values: dict[str, Any] = {}
        for key, raw in mapping.items():
            field = fields.get(aliases.get(key, key))
            if field is None:
                text = f'unknown key {masking.shown(key)}; {nearest(key, [*fields, *aliases])}'
                self._problems.add(where, text, (*way, key), key=True)
                continue
            read = self._value(field, raw, where, (*way, key))
            if any(values.get(attribute, value) != value for attribute, value in read.items()):
                twins = [name for name in mapping if aliases.get(name, name) == field.key]
                self._problems.add(where, _differ(*twins), (*way, key), key=True)
            values.update(read)
        return values

    def _value(self, field: keys.Field, raw: object, where: str, way: Way) -> dict[str, Any]:
        """The value of one key by its attribute; empty, after adding the problem, if it is wrong."""
        key, value = way[-1], raw
        try:
            value = self._interpolated(self._with_references(field, raw) if field.secret else raw)
            if field.may_be_none and (value is None or value == ''):
                return {field.attribute: None}
            return {field.attribute: field.read(keys.Given(value, self._folder))}
        except (interpolation.InterpolationError, secrets.WrongReferenceError) as error:
            self._problems.add(where, f'key {key!r}: {error}', way)
        except ValueError as error:
            self._problems.add(where, f'key {key!r}: {keys.mismatch(error, value, secret=field.secret)}', way)
        return {}

    def _with_references(self, field: keys.Field, raw: object) -> object:
        """A value with the references to secrets in it as such. Told apart before interpolation: what a variable holds
        is a secret, not where one is."""

        def parse(text: str) -> object:
            if Privilege.SECRETS not in self._allowed:
                raise interpolation.InterpolationError(trust.refusal(Privilege.SECRETS))
            return secrets.parsed(str(self._interpolated(text)), self._folder)

        return secrets.replaced(raw, refers_to_secret, parse, field.key)

    def _interpolated(self, raw: object) -> object:
        return interpolation.interpolate_value(raw, self._environ)

    def _label(self, mapping: Mapping[str, object], place: str) -> str:
        try:
            name = self._interpolated(mapping.get('name'))
            return f'mount {keys.mount_name(keys.Given(name, self._folder))!r}'
        except ValueError:
            return place  # what is wrong with the name is told when the key is read

    def _type(
        self, mapping: Mapping[str, object], where: str, way: Way
    ) -> tuple[type[Definition] | None, Mapping[str, object]]:
        """The struct for a mapping, and the mapping without the keys that say so."""
        own = {key: value for key, value in mapping.items() if key != 'type'}
        key = 'type' if 'type' in mapping else TYPE_ALIAS
        if key not in mapping and (misspelt := _misspelt('type', mapping)) is not None:
            text = f"unknown key {masking.shown(misspelt)}; did you mean 'type'?"
            self._problems.add(where, text, (*way, misspelt), key=True)
            return None, own
        if key not in mapping:
            self._problems.add(where, f"key 'type' is missing; {one_of(names())}", way)
            return None, own
        try:
            value = self._interpolated(mapping[key])
        except interpolation.InterpolationError as error:
            self._problems.add(where, f'key {key!r}: {error}', (*way, key))
            return None, own
        try:
            struct = find_type(value) if isinstance(value, str) else None
        except StorageConfigError as error:
            self._problems.add(where, f'key {key!r}: {error}', (*way, key))
            return None, own
        if struct is None:
            hint = nearest(value, names()) if isinstance(value, str) else one_of(names())
            self._problems.add(where, f'unknown type {masking.shown(value)}; {hint}', (*way, key))
            return None, own
        if TYPE_ALIAS in keys.fields_of(struct) and key != TYPE_ALIAS:
            return struct, own
        if own.pop(TYPE_ALIAS, mapping[key]) != mapping[key]:
            self._problems.add(where, _differ('type', TYPE_ALIAS), (*way, TYPE_ALIAS), key=True)
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


def text_keys(mapping: Mapping[Any, object], where: str, problems: Problems, way: Way = ()) -> bool:
    """Whether all keys are text; adds a problem for each that is not."""
    wrong = [key for key in mapping if not isinstance(key, str)]
    for key in wrong:
        problems.add(where, f'key {masking.shown(key)}: expected text; put it in quotes', way)
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


def _misspelt(word: str, given: Iterable[str]) -> str | None:
    """What somebody wrote who meant a word, if anything."""
    import difflib

    matches = difflib.get_close_matches(word, [each for each in given if len(each) < 64], n=1)
    return matches[0] if matches else None


def one_of(known: Iterable[str]) -> str:
    """The advice that names all."""
    return 'expected one of ' + ', '.join(sorted(known))
