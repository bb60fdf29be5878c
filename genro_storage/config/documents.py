"""Documents: the file or value of a source, and the files that it includes.

Owns the shape of one (``include``, ``mounts``, ``cache``, ``defaults``) and the order, the cycles and the trust of what
is included. What the mounts in it mean, see parsing. Threads: no state beyond one reading.
"""

import glob
import os
from collections.abc import Collection, Mapping

import msgspec

from genro_storage.config import files, interpolation, masking, trust
from genro_storage.config.parsing import Problems, Way, nearest, text_keys
from genro_storage.config.trust import Privilege
from genro_storage.errors import StorageConfigError, StorageNotFoundError, StoragePermissionError

SHAPE = "a list of mounts or a mapping with 'mounts:'"
SECTIONS = ('mounts', 'cache', 'defaults', 'include')


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the right shape. ``way`` leads to its mounts; ``path`` is None for what was in no file.

    ``folder``: what its relative paths start from.
    """

    sections: Mapping[str, object]
    way: Way
    folder: str
    problems: Problems
    path: str | None = None


class Documents:
    """Reads a document and all that it includes; what is wrong goes to the problems of each."""

    def __init__(self, environ: Mapping[str, str], allowed: Collection[Privilege]) -> None:
        self._environ = environ if Privilege.INTERPOLATION in allowed else None
        self._allowed = allowed
        self._found: list[Document] = []
        self._origins: dict[str, str] = {}  # real path → what messages call it

    def all_of(self, value: object, folder: str, problems: Problems, path: str | None = None) -> list[Document]:
        """The documents of a value, those included before the one that includes them."""
        self._read(value, folder, problems, path, ())
        return self._found

    def _read(self, value: object, folder: str, problems: Problems, path: str | None, within: tuple[str, ...]) -> None:
        if path is not None:
            real = os.path.realpath(path)
            self._origins[real] = problems.origin
            within = (*within, real)
        sections = _sections(value, problems)
        document = Document(
            sections=sections,
            way=('mounts',) if isinstance(value, Mapping) else (),
            folder=folder,
            problems=problems,
            path=path,
        )
        for number, include in enumerate(self._includes(document)):
            for origin, included in self._matches(include, document, number):
                self._include(included, origin, document, number, within)
        self._found.append(document)

    def _includes(self, document: Document) -> list[str]:
        given = document.sections.get('include')
        if given is None:
            return []
        if Privilege.INCLUDE not in self._allowed:
            document.problems.add('', f"key 'include': {trust.refusal(Privilege.INCLUDE)}", ('include',))
            return []
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
            document.problems.add('', "key 'include': expected a list of files", ('include',))
            return []
        return list(names)

    def _matches(self, include: str, document: Document, number: int) -> list[tuple[str, str]]:
        """(what messages call it, its path) of each file that is meant."""
        try:
            name = os.path.expanduser(interpolation.interpolate(include, self._environ))
        except interpolation.InterpolationError as error:
            self._tell(document, number, include, str(error))
            return []
        near = os.path.dirname(document.problems.origin) if document.path is not None else ''
        if not glob.has_magic(name):
            return [(os.path.join(near, name), os.path.join(document.folder, name))]
        # None may match: such a folder is there to be filled.
        found = sorted(glob.glob(name, root_dir=document.folder))
        return [(os.path.join(near, each), os.path.join(document.folder, each)) for each in found]

    def _include(self, path: str, origin: str, document: Document, number: int, within: tuple[str, ...]) -> None:
        real = os.path.realpath(path)
        if real in within:
            circle = [self._origins[each] for each in within[within.index(real) :]]
            self._tell(document, number, origin, f'includes itself: {" → ".join([*circle, origin])}')
            return
        if real in self._origins:
            self._tell(document, number, origin, 'is included already; include it once')
            return
        self._origins[real] = origin
        try:
            if document.path is not None and files.is_kept(document.path) and not files.is_kept(path):
                advice = f'chown and chmod go-w {path}'
                self._tell(document, number, origin, f'others could have written it, so it is not trusted; {advice}')
                return
            parsed = files.read(path, origin)
        except (FileNotFoundError, StorageNotFoundError):
            self._tell(document, number, origin, 'no such file')
        except StoragePermissionError:
            self._tell(document, number, origin, 'not allowed to read it')
        except StorageConfigError as error:
            document.problems.beside(origin, None).add('', str(error).removeprefix(f'{origin}: '))
        except (OSError, ValueError) as error:
            self._tell(document, number, origin, f'cannot be read: {error}')
        else:
            beside = document.problems.beside(origin, parsed.positions)
            self._read(parsed.value, os.path.dirname(os.path.abspath(path)), beside, path, within)

    @staticmethod
    def _tell(document: Document, number: int, origin: str, text: str) -> None:
        document.problems.add('', f"key 'include': {masking.shown(origin)}: {text}", ('include', number))


def _sections(value: object, problems: Problems) -> Mapping[str, object]:
    """The value as a mapping, its ``mounts`` a list."""
    if isinstance(value, list | tuple):
        return {'mounts': value}
    if not isinstance(value, Mapping):
        problems.add('', f'expected {SHAPE}, got {masking.kind(value)}')
        return {'mounts': []}
    if text_keys(value, '', problems) and 'mounts' not in value and 'name' in value:
        problems.add('', "expected a list of mounts, got a single one; begin it with '- ', or put it in brackets")
        return {'mounts': []}
    for key in value:
        if isinstance(key, str) and key not in SECTIONS:
            problems.add('', f'unknown key {masking.shown(key)}; {nearest(key, SECTIONS)}', (key,), key=True)
    if 'mounts' not in value:
        if 'include' not in value:
            problems.add('', "key 'mounts' is missing; expected a list of mounts in it")
        return {**value, 'mounts': []}
    if not isinstance(value['mounts'], list | tuple):
        problems.add('', f"key 'mounts': expected a list, got {masking.kind(value['mounts'])}", ('mounts',))
        return {**value, 'mounts': []}
    return value


def section(document: Document, name: str) -> Mapping[str, object] | None:
    """One of its mappings; None where there is none, empty where it is wrong."""
    found = document.sections.get(name)
    if found is None:
        return None
    if isinstance(found, Mapping):
        return found if text_keys(found, name, document.problems, (name,)) else {}
    document.problems.add('', f'key {name!r}: expected a mapping, got {masking.kind(found)}', (name,))
    return {}
