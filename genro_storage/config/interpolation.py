"""``${NAME}`` and ``${NAME:-default}`` in the strings of a definition.

Owns the syntax. As in a shell, a default serves where the variable is unset or empty; ``$$`` is one ``$``, and a ``$``
before anything else is itself. A default ends at the first ``}`` and holds no further reference. Values of variables
are taken as they are, never interpolated again. A string stays a string; the key that it belongs to converts it.

Not every source may use it: whoever reads one that may not hands in no environment, and a reference is an error; the
escape stays one, so that a text means the same in both. Pure.
"""

import re
from collections.abc import Callable, Mapping

from genro_storage.config import trust

_REFERENCE = re.compile(
    r'\$\$|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:[^}$]|\$\$|\$(?!\{))*+))?\})?'
)

# Far deeper than any driver's options; a list that contains itself ends here too.
MAX_DEPTH = 24


class InterpolationError(ValueError):
    """A reference that cannot be resolved. The text names the variable and never shows the string around it."""


def interpolate(text: str, environ: Mapping[str, str] | None) -> str:
    """Resolve the references of a string; without an environment there may be none. Raises InterpolationError."""

    def resolve(match: re.Match[str]) -> str:
        if match[0] == '$$':
            return '$'
        name, default = match['name'], match['default']
        if name is None:
            raise InterpolationError("a '${' without '}' or without the name of a variable; '$$' stands for one '$'")
        if environ is None:
            raise InterpolationError(trust.refusal(trust.Privilege.INTERPOLATION))
        if value := environ.get(name):
            return value
        if default is not None:
            return default.replace('$$', '$')
        if value is None:
            raise InterpolationError(
                f'the environment variable {name!r} is not set; set it, or give a default: ${{{name}:-…}}'
            )
        return value

    return _REFERENCE.sub(resolve, text) if '$' in text else text


def interpolate_value(value: object, environ: Mapping[str, str] | None) -> object:
    """The same value with each string in it resolved; containers are new, so nothing is shared with the source.

    Raises InterpolationError, also for keys that are no text and for nesting deeper than MAX_DEPTH.
    """
    return _walk(value, lambda text: interpolate(text, environ), MAX_DEPTH)


def copied(value: object) -> object:
    """The same value in new containers, its strings as they are; for whole sources, hence deeper than one value."""
    return _walk(value, lambda text: text, MAX_DEPTH + 4)


def _walk(value: object, of_text: Callable[[str], str], depth: int) -> object:
    if isinstance(value, str):
        return of_text(value)
    if isinstance(value, Mapping | list | tuple) and not depth:
        raise InterpolationError(f'nested more than {MAX_DEPTH} levels deep')
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InterpolationError('a key inside it is no text; put it in quotes')
        return {key: _walk(inner, of_text, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(inner, of_text, depth - 1) for inner in value]
    return value


def is_literal(text: str) -> bool:
    """Whether a string holds content of its own instead of only naming variables.

    A default is content: where a secret is kept out of a pickle, its default must be too.
    """
    references = [match for match in _REFERENCE.finditer(text) if match['name'] is not None]
    return bool(text) and (not references or any(match['default'] for match in references))
