"""Sources of configuration: a file, a list, a mapping, or a function that returns one of these.

Owns the shape of a whole source (``mounts``, ``cache``, ``defaults``) and that it counts wholly or not at all. Which
file is meant where none was named, see search. Threads: no state.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from genro_storage.config import files, interpolation, keys, masking, units
from genro_storage.config.definitions import Definition, LocalDefinition, literal_secrets
from genro_storage.config.keys import Key
from genro_storage.config.parsing import PATH_ALIAS, Parser, Problems, nearest, text_keys
from genro_storage.errors import StorageConfigError

#: What ``load`` takes.
Source = (
    str | os.PathLike[str] | Sequence[Mapping[str, object] | Definition] | Mapping[str, object] | Callable[[], 'Source']
)

_PATHS = (str, os.PathLike)
_VALUES = (Mapping, list, tuple)
_SHAPE = "a list of mounts or a mapping with 'mounts:'"
_SECTIONS = ('mounts', 'cache', 'defaults')


def default_cache_path() -> Path:
    """The user's cache folder of this program (XDG Base Directory Specification: relative values are ignored)."""
    given = os.environ.get('XDG_CACHE_HOME', '')
    return (Path(given) if os.path.isabs(given) else Path.home() / '.cache') / 'genro-storage'


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much may be kept, and where. ``disk_bytes`` is not the only bound: the cache leaves room on the disk too."""

    path: Annotated[Path, Key(lambda given: Path(keys.folder(given)))] = msgspec.field(
        default_factory=default_cache_path
    )
    memory_bytes: Annotated[int, Key(keys.plain(units.size_bytes))] = msgspec.field(name='memory', default=128 * 2**20)
    disk_bytes: Annotated[int, Key(keys.plain(units.size_bytes))] = msgspec.field(name='disk', default=10 * 2**30)


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What a source holds.

    ``raw``: what to load again in another process, references unresolved: the absolute path of a file, a copy of a list
    or mapping, the function itself. ``origin``: what messages call the source. ``cache``: None where nothing is said.
    ``references``: the same as ``raw`` for each mount by itself, see reference.
    """

    mounts: tuple[Definition, ...]
    cache: CacheSettings | None
    raw: Any
    origin: str
    references: Mapping[str, Any]

    def __rich_repr__(self) -> Any:
        yield 'origin', self.origin
        yield 'mounts', self.mounts
        yield 'cache', self.cache

    def __repr__(self) -> str:
        return f'Configuration(origin={self.origin!r}, mounts={self.mounts!r}, cache={self.cache!r})'

    def reference(self, name: str) -> Any:
        """A source of this mount for another process: the file or function, or its own mapping with the defaults in it.

        A mapping still has its ``${NAME}``, and a relative path in it is anchored to where it was relative to here. (A
        mount given as a Definition is a list of that.)
        """
        return self.references[name]

    def only(self, name: str) -> 'Configuration':
        """The same with this mount alone. Raises StorageConfigError if the source has none of this name."""
        mounts = tuple(mount for mount in self.mounts if mount.name == name)
        if not mounts:
            raise StorageConfigError(f'{self.origin}: defines no mount {name!r}')
        return msgspec.structs.replace(self, mounts=mounts)

    def literal_secrets(self) -> list[str]:
        """Where references hold a secret itself: "mount 'uploads': secret". Empty for files and functions."""
        own = [(name, raw) for name, raw in self.references.items() if isinstance(raw, Mapping)]
        return [f'mount {name!r}: {key}' for name, raw in own for key in literal_secrets(raw)]


def load(source: Source, *, environ: Mapping[str, str] | None = None) -> Configuration:
    """Read a source, all or nothing.

    Raises StorageNotFoundError (a FileNotFoundError) for a missing file, StoragePermissionError for an unreadable one,
    TypeError for a source of a wrong kind, StorageConfigError for everything inside, one problem per line.
    """
    environ = os.environ if environ is None else environ
    if isinstance(source, _PATHS + _VALUES):
        return _load(source, None, '', environ)
    if not callable(source):
        raise TypeError(f'expected a path, {_SHAPE}, or a function that returns one; got {masking.kind(source)}')
    name = f'function {getattr(source, "__qualname__", type(source).__name__)}'
    returned = source()
    if not isinstance(returned, _PATHS + _VALUES):
        raise TypeError(f'{name}: expected it to return a path, {_SHAPE}; got {masking.kind(returned)}')
    return _load(returned, source, name, environ)


def _load(source: Any, function: object, name: str, environ: Mapping[str, str]) -> Configuration:
    """Read what is no function; ``function`` returned it, unless None."""
    path: str | None = None
    if isinstance(source, _PATHS):
        origin = os.fsdecode(source)
        path = os.path.abspath(origin)
        value, folder = files.read(path, origin), os.path.dirname(path)
    else:
        origin = name or ('a mapping' if isinstance(source, Mapping) else 'a list')
        value, folder = source, os.getcwd()
    mounts, cache = _convert(value, Problems(origin), folder, environ)
    raw: Any = path if function is None else function
    if raw is not None:
        references = {mount.name: raw for mount in mounts}
    else:
        # Copied only now: that the value has an end, its conversion has shown.
        raw = interpolation.copied(source)
        references = _references(raw, mounts, folder)
    return Configuration(mounts=mounts, cache=cache, raw=raw, origin=origin, references=references)


def _references(raw: Any, mounts: Sequence[Definition], folder: str) -> dict[str, Any]:
    sections = raw if isinstance(raw, dict) else {'mounts': raw}
    references: dict[str, Any] = {}
    for mount, item in zip(mounts, sections['mounts'], strict=True):
        if isinstance(item, Definition):
            references[mount.name] = [item]
            continue
        own = {**(sections.get('defaults') or {}), **item}
        if isinstance(mount, LocalDefinition):
            key = 'path' if 'path' in own else PATH_ALIAS
            own[key] = _anchored(os.fspath(own[key]), folder)
        references[mount.name] = own
    return references


def _anchored(path: str, folder: str) -> str:
    """A path that means the same from everywhere; one that begins with a variable is left to it."""
    return path if path.startswith(('/', '~', '${')) else os.path.join(folder.replace('$', '$$'), path)


def _convert(
    value: object, problems: Problems, folder: str, environ: Mapping[str, str]
) -> tuple[tuple[Definition, ...], CacheSettings | None]:
    sections = _sections(value, problems)
    problems.raise_any()
    parser = Parser(problems, folder, environ)
    defaults = _section(sections, 'defaults', problems)
    common = parser.read(Definition, defaults, 'defaults', without=('name',)) if defaults else {}
    mounts = _mounts(sections['mounts'], common, parser, problems)
    settings = _section(sections, 'cache', problems)
    cache: dict[str, Any] = parser.read(CacheSettings, settings, 'cache') if settings else {}
    problems.raise_any()
    return tuple(mounts), None if settings is None else CacheSettings(**cache)


def _sections(value: object, problems: Problems) -> Mapping[str, object]:
    """The value as a mapping with ``mounts``."""
    if isinstance(value, list | tuple):
        return {'mounts': value}
    if not isinstance(value, Mapping):
        problems.add('', f'expected {_SHAPE}, got {masking.kind(value)}')
        return {}
    if text_keys(value, '', problems) and 'mounts' not in value and 'name' in value:
        problems.add('', "expected a list of mounts, got a single one; begin it with '- ', or put it in brackets")
        return {}
    for key in value:
        if isinstance(key, str) and key not in _SECTIONS:
            problems.add('', f'unknown key {masking.shown(key)}; {nearest(key, _SECTIONS)}')
    if 'mounts' not in value:
        problems.add('', "key 'mounts' is missing; expected a list of mounts in it")
    elif not isinstance(value['mounts'], list | tuple):
        problems.add('', f"key 'mounts': expected a list, got {masking.kind(value['mounts'])}")
    return value


def _section(sections: Mapping[str, object], name: str, problems: Problems) -> Mapping[str, object] | None:
    section = sections.get(name)
    if section is None:
        return None
    if isinstance(section, Mapping):
        return section if text_keys(section, name, problems) else {}
    problems.add('', f'key {name!r}: expected a mapping, got {masking.kind(section)}')
    return {}


def _mounts(items: Any, defaults: Mapping[str, object], parser: Parser, problems: Problems) -> list[Definition]:
    mounts = []
    positions: dict[str, int] = {}
    for position, item in enumerate(items, 1):
        place = f'mount {position}'
        definition: Definition | None = None
        if isinstance(item, Definition):
            definition = item
        elif not isinstance(item, Mapping):
            problems.add(place, f'expected a mapping, got {masking.kind(item)}')
        elif text_keys(item, place, problems):
            definition = parser.definition(item, place, defaults)
        if definition is None:
            continue
        first = positions.setdefault(definition.name, position)
        if first != position:
            problems.add(f'mount {definition.name!r}', f'defined twice, as mount {first} and mount {position}')
        mounts.append(definition)
    return mounts
