"""What a key of the configuration accepts, and how its value becomes the typed one.

Owns the readers: one per sort of value, chosen by the type of a struct's field or named by a Key in its annotation. A
reader gets the interpolated value and raises WrongValueError; who asked, and for which mount, it does not know.
Strings are accepted for numbers and booleans everywhere ('false', 'no', '0'), because interpolation yields nothing
else. Nothing (null, or an empty string) unsets a key whose field may be None, and is an error for every other.
Pure, except that ``~`` is looked up.
"""

import enum
import functools
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin

import msgspec

from genro_storage import paths
from genro_storage.config import masking
from genro_storage.config.secrets import Reference

E = TypeVar('E', bound=enum.Enum)

_FLAGS = {'true': True, 'yes': True, 'on': True, '1': True, 'false': False, 'no': False, 'off': False, '0': False}


class WrongValueError(ValueError):
    """A value does not fit; ``what`` would have. Never holds the value, which may be secret."""

    def __init__(self, what: str, hint: str = '') -> None:
        super().__init__(f'expected {what}' + (f'; {hint}' if hint else ''))
        self.what = what
        self.hint = hint


class Given(msgspec.Struct, frozen=True):
    """A value as it was given, and the folder that a relative path in it starts from."""

    value: object
    folder: str


Read = Callable[[Given], object]


class Key(msgspec.Struct, frozen=True):
    """Annotates a field: a reader other than that of its type; ``secret`` keeps its value out of all texts."""

    read: Read | None = None
    secret: bool = False


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a struct, as the parser sees it."""

    key: str
    attribute: str
    types: tuple[type, ...]
    required: bool
    default: object
    may_be_none: bool
    secret: bool
    read: Read


@functools.cache
def fields_of(struct: type[msgspec.Struct]) -> Mapping[str, Field]:
    """The keys that a struct takes, in the order of their declaration."""
    return {info.encode_name: _field(info) for info in msgspec.structs.fields(struct)}


def _field(info: msgspec.structs.FieldInfo) -> Field:
    annotation, notes = info.type, Key()
    if get_origin(annotation) is Annotated:
        annotation, notes = get_args(annotation)
    members = get_args(annotation) if type(None) in get_args(annotation) else (annotation,)
    types = tuple(get_origin(member) or member for member in members)
    return Field(
        key=info.encode_name,
        attribute=info.name,
        types=(*types, int) if float in types else types,
        required=info.required,
        default=info.default,
        may_be_none=type(None) in types,
        secret=notes.secret,
        read=notes.read or _reader_of(types[0], secret=notes.secret),
    )


def _reader_of(type_: type, *, secret: bool) -> Read:
    if issubclass(type_, enum.Enum):
        return Choice(type_)
    return secret_text if secret and type_ is str else _READERS[type_]


class Plain(msgspec.Struct, frozen=True):
    """A reader from a function of the value alone."""

    convert: Callable[[object], object]

    def __call__(self, given: Given) -> object:
        """See Read."""
        return self.convert(given.value)


def text(given: Given) -> str:
    """Some text. Raises WrongValueError, as all readers do."""
    if isinstance(given.value, bool | int | float):
        raise WrongValueError('text', 'put it in quotes')
    if not isinstance(given.value, str) or not given.value:
        raise WrongValueError('text')
    if '\0' in given.value:
        raise WrongValueError('text without a NUL')
    return given.value


def flag(given: Given) -> bool:
    """True or false."""
    # Databases without booleans hold 0 and 1.
    if isinstance(given.value, bool | int) and given.value in {0, 1}:
        return bool(given.value)
    if isinstance(given.value, str) and given.value.strip().lower() in _FLAGS:
        return _FLAGS[given.value.strip().lower()]
    raise WrongValueError('true or false')


def whole(given: Given) -> int:
    """A whole number that fits a uid_t or a gid_t; the highest of those means "unchanged" to chown(2)."""
    value = given.value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32 - 1:
        raise WrongValueError('a whole number from 0 to 4294967294')
    return value


def umask(given: Given) -> int:
    """An octal string, as umask(1) takes it, or a number. (YAML 1.1 reads a bare 022 as octal.)"""
    value = given.value
    if isinstance(value, str):
        digits = value.lower().removeprefix('0o')
        value = int(digits, 8) if digits and len(digits) <= 4 and set(digits) <= set('01234567') else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise WrongValueError("an octal umask such as '022'")
    return value


def secret_text(given: Given) -> str | Reference:
    """Some text, or where it is."""
    return given.value if isinstance(given.value, Reference) else text(given)


def options(given: Given) -> dict[str, Any]:
    """Any mapping with text as keys, which interpolation has checked."""
    if not isinstance(given.value, dict):
        raise WrongValueError('a mapping')
    return given.value


class Choice(msgspec.Struct, Generic[E], frozen=True):
    """A reader for the values of an enum. YAML 1.1 reads a bare ``off`` as false: where it is a choice, it is meant."""

    choices: type[E]

    def __call__(self, given: Given) -> E:
        """See Read."""
        names = {str(member.value): member for member in self.choices}
        value = 'off' if given.value is False else given.value
        if isinstance(value, str) and value.strip().lower() in names:
            return names[value.strip().lower()]
        raise WrongValueError('one of ' + ', '.join(names))


def folder(given: Given) -> str:
    """The absolute path of a folder: ``~`` expanded, relative ones joined to where their definition stands.

    ``..`` is refused rather than folded, which would be wrong behind a symbolic link.
    """
    path = text(_from_pathlike(given))
    if '..' in path.split('/'):
        raise WrongValueError("a path without '..'")
    expanded = os.path.expanduser(path)
    if expanded.startswith('~'):
        raise WrongValueError('a path; nobody has a home folder of that name')
    # normpath keeps two leading slashes, which POSIX leaves open and Linux reads as one.
    return '/' + os.path.normpath(os.path.join(given.folder, expanded)).lstrip('/')


def _from_pathlike(given: Given) -> Given:
    return Given(os.fspath(given.value), given.folder) if isinstance(given.value, os.PathLike) else given


def prefix(given: Given) -> str:
    """A normalised path inside a bucket; ``''`` for all of it. Raises WrongValueError, StoragePathError."""
    return paths.join(text(given)) if given.value != '' else ''


def remote_path(given: Given) -> str:
    """A path in the words of some fsspec file system, as it is; only ``..`` is refused."""
    path = text(_from_pathlike(given)) if given.value != '' else ''
    if '..' in path.split('/'):
        raise WrongValueError("a path without '..'")
    return path


def mount_path(given: Given) -> str:
    """The normalised 'mount:path' of a place in another mount. Raises WrongValueError, StoragePathError."""
    mount, colon, inside = text(given).partition(':')
    if not colon:
        raise WrongValueError("'mount:path'")
    return f'{mount_name(Given(mount, given.folder))}:{paths.join(inside)}'


def place(given: Given) -> str:
    """The absolute path of a file of this machine, as ``folder`` reads it, or 'mount:path'.

    What begins like the name of a mount is one; a file of that name is written './na:me'.
    """
    if isinstance(given.value, os.PathLike):
        return folder(given)
    mount, colon, inside = text(given).partition(':')
    if not colon or '/' in mount:
        return folder(given)
    if inside.startswith('//'):
        raise WrongValueError("a path, or 'mount:path'", 'a URL needs a mount of its own')
    return mount_path(given)


def mount_name(given: Given) -> str:
    """A name that can be a directory, and stand before a colon in 'mount:path'."""
    name = text(given)
    if name.startswith('.') or not all(letter.isalnum() or letter in '_-.' for letter in name):
        raise WrongValueError("letters, digits, '_', '-' and '.', not starting with a dot")
    if len(paths.encode(name)) > paths.NAME_MAX_BYTES:
        raise WrongValueError(f'a name of at most {paths.NAME_MAX_BYTES} bytes')
    return name


def mismatch(error: ValueError, value: object, *, secret: bool) -> str:
    """The sentence for a value that its reader refused; of a secret one it tells only the kind."""
    if not isinstance(error, WrongValueError):
        return 'a value that is not allowed' if secret else str(error)
    got = masking.kind(value) if secret else masking.shown(value)
    return f'expected {error.what}, got {got}' + (f'; {error.hint}' if error.hint else '')


_READERS: dict[type, Read] = {str: text, bool: flag, int: whole, dict: options}
