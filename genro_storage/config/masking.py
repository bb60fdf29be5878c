"""What may be shown of a value: in messages, in reprs.

Owns the mask and the recognition of credentials that stand where no key is declared secret: inside URLs and among the
free ``options``. Which declared keys are secret is said by the definitions. Pure.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from genro_storage.config.secrets import Reference

MASK = '***'

# A message stays one readable line.
_SHOWN_CHARACTERS = 60
# user:password@ or token@ in a URL; up to the last @ before a slash, because passwords hold @ too.
_USERINFO = re.compile(r'(?<=://)[^/\s]*@')
_CREDENTIAL_NAME = re.compile(
    r'passw|passphrase|secret|token|credential|authori[sz]ation|cookie|signature|(^|[_-])(key|auth|sas|pwd|pat)($|[_-])'
    r'|(account|access|api|private)[_-]?key|connection[_-]?string',
    re.IGNORECASE,
)
# Keys that end like a secret and hold none.
_NO_CREDENTIAL_NAME = re.compile(r'file(name)?$|path$|^(use|skip|with)[_-]', re.IGNORECASE)


def without_userinfo(text: str) -> str:
    """The text with what stands before the ``@`` of a URL masked."""
    return _USERINFO.sub(MASK + '@', text)


def has_userinfo(text: str) -> bool:
    """Whether a URL in the text carries a user name or a password."""
    return _USERINFO.search(text) is not None


def names_a_credential(name: str) -> bool:
    """Whether a value of this name probably is a secret: ``options.password``, ``options.headers.Authorization``."""
    within, _, key = name.rpartition('.')
    return bool(within) and _CREDENTIAL_NAME.search(key) is not None and _NO_CREDENTIAL_NAME.search(key) is None


def credentials(
    value: object, declared: Collection[str] = (), name: str = '', depth: int = 24
) -> Iterator[tuple[str, object]]:
    """(dotted name, value) of what looks like a credential inside nested options, and of keys declared to be one."""
    if isinstance(value, Mapping):
        for key, inner in value.items() if depth else ():
            yield from credentials(inner, declared, f'{name}.{key}' if name else str(key), depth - 1)
    elif isinstance(value, list | tuple):
        for inner in value if depth else ():
            yield from credentials(inner, declared, name, depth - 1)
    elif isinstance(value, str):
        if value and (name in declared or names_a_credential(name) or has_userinfo(value)):
            yield name, value
    elif value is not None and not isinstance(value, bool | Reference) and names_a_credential(name):
        yield name, value


def shown(value: object) -> str:
    """A short text for a value of a key that is not secret."""
    if isinstance(value, str):
        text = without_userinfo(value)
        return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + '…')
    if isinstance(value, bool):
        return 'true' if value else 'false'
    # Python refuses to print integers of more than 4,300 digits.
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 128):
        return repr(value)
    return kind(value)


def kind(value: object) -> str:
    """What sort of value it is, in the words of the configuration, without the value."""
    if value is None:
        return 'nothing'
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (str, 'a text'),
        (bool, 'true or false'),
        ((int, float), 'a number'),
        (bytes, 'bytes'),
        (Mapping, 'a mapping'),
        (Sequence, 'a list'),
    )
    found = next((word for types, word in kinds if isinstance(value, types)), None)
    return found or f'an object of type {type(value).__name__}'


def masked(value: object) -> object:
    """The same containers and keys, each leaf masked but references: for values of which nothing is known."""
    if isinstance(value, Mapping):
        return {key: masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return str(value) if isinstance(value, Reference) else MASK
