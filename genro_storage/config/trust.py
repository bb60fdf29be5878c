"""What a source that is not trusted may do: nothing that reaches beyond the servers whose credentials it brings along.

Owns the privileges by name. What a definition needs is said by the definitions; who has what, by sources. Pure.
"""

import enum
from collections.abc import Iterable


class Privilege(enum.Enum):
    """Something that only a trusted source may do, or one that is allowed to; the value is its name."""

    INTERPOLATION = 'interpolation'
    SECRETS = 'secrets'
    LOCAL = 'local'
    INCLUDE = 'include'
    FSSPEC = 'fsspec'
    CREDENTIALS = 'credentials'
    REPLACE = 'replace'
    MOUNTS = 'mounts'
    PLUGINS = 'plugins'


#: What a trusted source has.
ALL = frozenset(Privilege)

_WHAT = {
    Privilege.INTERPOLATION: "use '${…}'",
    Privilege.SECRETS: 'refer to a secret of this machine',
    Privilege.LOCAL: 'name a path of this machine',
    Privilege.INCLUDE: 'include files',
    Privilege.FSSPEC: 'choose a protocol of fsspec, or options of a driver',
    Privilege.CREDENTIALS: 'use the credentials of this machine',
    Privilege.REPLACE: 'replace a mount of another source',
    Privilege.MOUNTS: 'name another mount',
    Privilege.PLUGINS: 'use a type that a plugin brings along',
}


def privileges(words: Iterable[Privilege | str]) -> frozenset[Privilege]:
    """The privileges of these names. Raises ValueError for an unknown one, TypeError for a single text."""
    if isinstance(words, str):
        raise TypeError(f'expected a list of privileges, got a text; [{words!r}]?')
    try:
        return frozenset(Privilege(word) for word in words)
    except ValueError as error:
        raise ValueError(f'{error}; expected some of {", ".join(each.value for each in Privilege)}') from None


def refusal(privilege: Privilege, hint: str = '') -> str:
    """The sentence for who needs a privilege and has it not."""
    text = f'an untrusted source may not {_WHAT[privilege]} (privilege {privilege.value!r})'
    return f'{text}; {hint}' if hint else text
