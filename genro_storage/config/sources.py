"""Sources of configuration: a file, a list, a mapping, a function that returns one of these, and what is not trusted.

Owns that a source counts wholly or not at all, what it is called, and how another process finds it again. The documents
of a source, see documents; which file is meant where none was named, see search. Threads: no state.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import msgspec

from genro_storage.config import files, interpolation, keys, masking, secrets, trust, units
from genro_storage.config.circles import circle_of, told_circle
from genro_storage.config.definitions import Definition
from genro_storage.config.documents import SHAPE, Document, Documents, section
from genro_storage.config.dynamic import UNKNOWN, DynamicPath
from genro_storage.config.keys import Key
from genro_storage.config.mount_types import LocalDefinition, literal_secrets, refers_to_secret
from genro_storage.config.parsing import PATH_ALIAS, TYPE_ALIAS, Parser, Problem, Problems, Way, text_keys
from genro_storage.config.trust import Privilege
from genro_storage.errors import StorageConfigError

_PATHS = (str, os.PathLike)
_VALUES = (Mapping, list, tuple)


class Untrusted:
    """A source that may do nothing but name servers and bring the credentials for them: see trust.

    ``allow``: the privileges that it has all the same. Pickles by reference, as the source does; refuses to where that
    would carry a literal secret.
    """

    def __init__(self, source: 'Source', allow: Iterable[Privilege | str] = ()) -> None:
        self.source = source
        self.allowed = trust.privileges(allow)

    def __repr__(self) -> str:
        shown = self.source if isinstance(self.source, _PATHS) or callable(self.source) else '…'
        return f'{type(self).__name__}({shown!r}, allow={sorted(each.value for each in self.allowed)})'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Untrusted) and (self.source, self.allowed) == (other.source, other.allowed)

    __hash__ = None  # type: ignore[assignment]  # a source may be a list

    def __reduce__(self) -> tuple[Any, ...]:
        for mount in self.source if isinstance(self.source, list | tuple) else ():
            if isinstance(mount, Mapping) and (held := literal_secrets(mount)):
                raise StorageConfigError(
                    f'mount {mount.get("name")!r}: a pickle would carry the literal {", ".join(held)} of an untrusted '
                    'list; configure it from a file or a database'
                )
        return Untrusted, (self.source, tuple(self.allowed))

    @property
    def name(self) -> str:
        """What messages call what it returns, if it is a function."""
        return _name_of(self.source)


#: What ``load`` takes.
Source = Union[
    str,
    'os.PathLike[str]',
    Sequence[Mapping[str, object] | Definition],
    Mapping[str, object],
    Callable[[], 'Source'],
    Untrusted,
]


def default_cache_path() -> Path:
    """The user's cache folder of this program (XDG Base Directory Specification: relative values are ignored)."""
    given = os.environ.get('XDG_CACHE_HOME', '')
    return (Path(given) if os.path.isabs(given) else Path.home() / '.cache') / 'genro-storage'


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much may be kept, and where. ``disk_bytes`` is not the only bound: the cache leaves room on the disk too."""

    path: Annotated[Path, Key(lambda given: Path(keys.folder(given)))] = msgspec.field(
        default_factory=default_cache_path
    )
    memory_bytes: Annotated[int, Key(keys.Plain(units.size_bytes))] = msgspec.field(name='memory', default=128 * 2**20)
    disk_bytes: Annotated[int, Key(keys.Plain(units.size_bytes))] = msgspec.field(name='disk', default=10 * 2**30)


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What a source holds.

    ``raw``: what to load again in another process, references unresolved: the absolute path of a file, a copy of a list
    or mapping, the function itself. ``origin``: what messages call the source. ``cache``: None where nothing is said.
    ``references``: the same as ``raw`` for each mount by itself, see reference. ``allowed``: the source's privileges.
    ``origins``: by mount, what the document is called that defines it. ``dynamic``: by mount, where its path is a
    function's to say; its definition holds none then.
    """

    mounts: tuple[Definition, ...]
    cache: CacheSettings | None
    raw: Any
    origin: str
    references: Mapping[str, Any]
    allowed: frozenset[Privilege] = trust.ALL
    origins: Mapping[str, str] = msgspec.field(default_factory=dict)
    dynamic: Mapping[str, DynamicPath] = msgspec.field(default_factory=dict)

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
    configuration, problems = _Reading(source, os.environ if environ is None else environ).whole()
    problems.raise_any()
    return configuration


def check(source: Source, *, environ: Mapping[str, str] | None = None) -> tuple[Configuration, list[Problem]]:
    """Everything that is wrong with a source, in the order of its lines, and what of it is right.

    Raises what load raises, but StorageConfigError.
    """
    configuration, problems = _Reading(source, os.environ if environ is None else environ).whole()
    documents = list(dict.fromkeys(problem.origin for problem in problems.found))
    return configuration, sorted(problems.found, key=lambda each: (documents.index(each.origin), each.line))


def _name_of(function: object) -> str:
    return f'function {getattr(function, "__qualname__", type(function).__name__)}'


class _Reading:
    """One reading of one source."""

    def __init__(self, source: Any, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._allowed = trust.ALL
        self._function: object = None
        self._value: Any = source
        name = ''
        while isinstance(self._value, Untrusted):
            self._allowed &= self._value.allowed
            name = self._value.name if callable(self._value.source) else name
            self._value = self._value.source
        if not isinstance(self._value, _PATHS + _VALUES):
            if not callable(self._value):
                raise TypeError(
                    f'expected a path, {SHAPE}, or a function that returns one; got {masking.kind(self._value)}'
                )
            name = name or _name_of(self._value)
            self._function = source
            self._value = self._value()
            if not isinstance(self._value, _PATHS + _VALUES):
                kind = masking.kind(self._value)
                raise TypeError(f'{name}: expected it to return a path, {SHAPE}; got {kind}')
        self._path: str | None = None
        if isinstance(self._value, _PATHS):
            self._origin = os.fsdecode(self._value)
            self._path = os.path.abspath(self._origin)
        else:
            self._origin = name or ('a mapping' if isinstance(self._value, Mapping) else 'a list')
        self._problems = Problems(self._origin)
        self._dynamic: dict[str, DynamicPath] = {}

    def whole(self) -> tuple[Configuration, Problems]:
        """All that is right of it, and what is wrong."""
        documents = self._documents()
        mounts: list[Definition] = []
        defined: dict[str, tuple[Document, int]] = {}
        cache: CacheSettings | None = None
        cached: Document | None = None
        for document in documents:
            for number, mount in self._mounts(document):
                if self._is_new(mount.name, document, number, defined):
                    mounts.append(mount)
            settings = self._cache(document)
            if settings is not None and cached is not None:
                text = f"key 'cache': {cached.problems.origin} has one already"
                document.problems.add('', text, ('cache',), key=True)
            elif settings is not None:
                cache, cached = settings, document
        circle = circle_of({mount.name: mount.refers_to for mount in mounts})
        if circle is not None:
            self._problems.add('', told_circle(circle))
        return self._configuration(mounts, cache, defined), self._problems

    def _documents(self) -> list[Document]:
        """The documents of the source; none where there is no value to be had."""
        documents = Documents(self._environ, self._allowed)
        if self._path is None:
            return documents.all_of(self._value, os.getcwd(), self._problems)
        try:
            parsed = files.read(self._path, self._origin)
        except StorageConfigError as error:
            self._problems.add('', str(error).removeprefix(f'{self._origin}: '))
            return []
        self._problems = self._problems.beside(self._origin, parsed.positions)
        return documents.all_of(parsed.value, os.path.dirname(self._path), self._problems, self._path)

    def _mounts(self, document: Document) -> list[tuple[int, Definition]]:
        """The definitions of a document with their numbers, from 1."""
        parser = Parser(document.problems, document.folder, self._environ, self._allowed)
        common: dict[str, Any] = {}
        if defaults := section(document, 'defaults'):
            common = parser.read(Definition, defaults, 'defaults', without=('name',), way=('defaults',))
        found = []
        items: Any = document.sections['mounts']
        for number, item in enumerate(items, 1):
            place, way = f'mount {number}', (*document.way, number - 1)
            definition: Definition | None = None
            if isinstance(item, Definition):
                definition = item
                values = {name: getattr(item, name) for name in item.__struct_fields__}
                parser.refuse(type(item), values, f'mount {item.name!r}', way)
            elif not isinstance(item, Mapping):
                document.problems.add(place, f'expected a mapping, got {masking.kind(item)}', way)
            elif text_keys(item, place, document.problems, way):
                static, function = _without_function(item)
                definition = parser.definition(static, place, common, way)
                if function is not None and isinstance(definition, LocalDefinition):
                    self._dynamic[definition.name] = DynamicPath(definition, function, document.folder)
            if definition is not None:
                found.append((number, definition))
        return found

    @staticmethod
    def _is_new(name: str, document: Document, number: int, defined: dict[str, tuple[Document, int]]) -> bool:
        """Whether this is the first mount of its name; adds a problem if not."""
        first, first_number = defined.setdefault(name, (document, number))
        if (first, first_number) == (document, number):
            return True
        places = f'as mount {first_number} and mount {number}'
        if first is not document:
            places = f'in {first.problems.origin} and in {document.problems.origin}'
        way: Way = (*document.way, number - 1, 'name')
        document.problems.add(f'mount {name!r}', f'defined twice, {places}', way)
        return False

    def _cache(self, document: Document) -> CacheSettings | None:
        settings = section(document, 'cache')
        if settings is None:
            return None
        if Privilege.LOCAL not in self._allowed:
            document.problems.add('', f"key 'cache': {trust.refusal(Privilege.LOCAL)}", ('cache',), key=True)
        parser = Parser(document.problems, document.folder, self._environ, self._allowed)
        return CacheSettings(**parser.read(CacheSettings, settings, 'cache', way=('cache',)))

    # How another process finds it again

    def _configuration(
        self, mounts: Sequence[Definition], cache: CacheSettings | None, defined: Mapping[str, tuple[Document, int]]
    ) -> Configuration:
        raw: Any = self._function or self._kept(self._path)
        references = {mount.name: raw for mount in mounts}
        # Nothing is copied of a value with problems: whether it has an end, only its conversion shows.
        if raw is None and not self._problems.found:
            raw = self._kept(interpolation.copied(self._value))
            references = {mount.name: self._reference(mount, *defined[mount.name]) for mount in mounts}
        return Configuration(
            mounts=tuple(mounts),
            cache=cache,
            raw=raw,
            origin=self._origin,
            references=references,
            allowed=self._allowed,
            dynamic=self._dynamic,
            origins={mount.name: defined[mount.name][0].problems.origin for mount in mounts},
        )

    def _kept(self, source: Any) -> Any:
        """A source with the trust in it."""
        return source if source is None or self._allowed == trust.ALL else Untrusted(source, self._allowed)

    def _reference(self, mount: Definition, document: Document, number: int) -> Any:
        """A source of one mount of a value."""
        if document.path is not None:
            return self._kept(document.path)
        items: Any = document.sections['mounts']
        item = interpolation.copied(items[number - 1])
        if isinstance(item, Definition):
            return self._kept([item])
        own: dict[str, Any] = {**(interpolation.copied(document.sections.get('defaults')) or {}), **item}  # type: ignore[dict-item]
        for name, field in keys.fields_of(type(mount)).items():
            key = name if name in own else PATH_ALIAS
            # 'mount:path' means the same from everywhere.
            is_path = field.read is keys.folder or (field.read is keys.place and mount.refers_to is None)
            if is_path and key in own and not callable(own[key]):
                own[key] = _anchored(os.fspath(own[key]), document.folder)

        def anchor(text: Any) -> str:
            scheme, _, name = str(text).partition(':')
            return f'{scheme}:{_anchored(name, document.folder)}' if scheme == 'file' else str(text)

        own = {key: secrets.replaced(value, refers_to_secret, anchor, key) for key, value in own.items()}
        return own if self._allowed == trust.ALL else self._kept([own])


def _without_function(item: Mapping[str, object]) -> tuple[Mapping[str, object], Callable[[], object] | None]:
    """A mapping of a local mount with a path in place of a function that says it, and that function."""
    for key in ('path', PATH_ALIAS):
        function = item.get(key)
        if callable(function) and 'local' in {item.get('type'), item.get(TYPE_ALIAS)}:
            return {**item, key: UNKNOWN}, function
    return item, None


def _anchored(path: str, folder: str) -> str:
    """A path that means the same from everywhere; one that begins with a variable is left to it."""
    return path if path.startswith(('/', '~', '${')) else os.path.join(folder.replace('$', '$$'), path)
