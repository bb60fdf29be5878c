"""Options of a mount, as mount(8) and fstab spell them.

Owns which options exist, which are harmless here and which are refused. Pure.
"""

import difflib
from enum import StrEnum

import msgspec


class MountError(Exception):
    """Mounting or unmounting failed; the text is one line that says what to do."""


class TransportKind(StrEnum):
    """Over what the kernel is spoken to."""

    AUTO = 'auto'  # devfuse on Linux, libfuse elsewhere
    DEVFUSE = 'devfuse'
    LIBFUSE = 'libfuse'


class MountOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to mount. nosuid and nodev always hold: files of other machines must not carry privileges into this one."""

    read_only: bool = False
    #: Other users get in. It implies default_permissions: the modes of the files decide what they may do.
    allow_other: bool = False
    default_permissions: bool = False
    noexec: bool = False
    noatime: bool = False
    #: The source in the mount table, what df shows first.
    fsname: str = 'genro-storage'
    transport: TransportKind = TransportKind.AUTO


_CHANGES: dict[str, dict[str, bool]] = {
    'ro': {'read_only': True},
    'rw': {'read_only': False},
    'allow_other': {'allow_other': True, 'default_permissions': True},
    'default_permissions': {'default_permissions': True},
    'noexec': {'noexec': True},
    'exec': {'noexec': False},
    'noatime': {'noatime': True},
}

# Harmless: what holds anyway, and what an access time that nobody keeps cannot change.
_HARMLESS = frozenset(
    {'defaults', 'nosuid', 'nodev', 'atime', 'relatime', 'norelatime', 'strictatime', 'nodiratime', 'lazytime'}
)

# For mount(8), systemd and friends, which pass the whole column of fstab on.
_FOR_OTHERS = frozenset({'_netdev', 'nofail', 'auto', 'noauto', 'user', 'users', 'nouser', 'owner', 'group'})

_REFUSED = {
    'suid': 'set-user-ID bits of remote files never count (nosuid)',
    'dev': 'device files of remote places never work (nodev)',
    'allow_root': 'use allow_other',
    'nonempty': 'mount on an empty directory; what is in it would be hidden',
}


def parse_options(text: str) -> MountOptions:
    """Read ``'ro,allow_other'``; the last of contradicting options counts. Raises MountError for an unknown one."""
    changes: dict[str, bool | str | TransportKind] = {}
    for option in filter(None, (part.strip() for part in text.split(','))):
        name, has_value, value = option.partition('=')
        if name == 'fsname' and value:
            changes['fsname'] = value
        elif name == 'transport' and value in set(TransportKind):
            changes['transport'] = TransportKind(value)
        elif name.startswith('x-') or name == 'comment' or (name in _HARMLESS | _FOR_OTHERS and not has_value):
            continue
        elif name in _CHANGES and not has_value:
            changes.update(_CHANGES[name])
        else:
            raise MountError(_complaint(option, name))
    return MountOptions(**changes)  # type: ignore[arg-type]


def _complaint(option: str, name: str) -> str:
    if name in _REFUSED:
        return f'mount option {option!r}: {_REFUSED[name]}'
    if name == 'fsname':
        return 'mount option fsname needs a value: fsname=NAME'
    if name == 'transport':
        return f'mount option {option!r}: transport is one of {", ".join(TransportKind)}'
    if name in _CHANGES or name in _HARMLESS | _FOR_OTHERS:
        return f'mount option {name!r} takes no value, but {option!r} has one'
    known = sorted([*_CHANGES, *_HARMLESS, *_FOR_OTHERS, 'fsname', 'transport'])
    near = difflib.get_close_matches(name, known, n=1)
    hint = (
        f'did you mean {near[0]!r}?' if near else f'known are {", ".join([*_CHANGES, "fsname=NAME", "transport=KIND"])}'
    )
    return f'unknown mount option {option!r}: {hint}'
