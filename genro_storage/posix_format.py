"""What stat(2) tells of a file, in the user metadata of an object, as s3fs-fuse has it, and of the time rclone.

Owns names and forms: the mode in decimal with the bits of the type, uid and gid in decimal, times in decimal seconds
with a fraction (s3fs-fuse, src/metaheader.cpp; rclone, "Modification times" of its S3 backend, which on other stores
writes RFC 3339). Anybody can write metadata: what is no such value counts as not stored.

Names are lower case, without the prefix of the protocol (``x-amz-meta-``). Pure.
"""

import re
import stat
from collections.abc import Mapping
from datetime import datetime

from genro_storage.entry import Attributes

#: Nothing was stored.
NOTHING = Attributes()

_NS = 1_000_000_000
#: What 64 bits of nanoseconds hold: until the year 2262.
TIME_MAX_NS = (1 << 63) - 1
#: The one above says "leave it" to chown(2).
ID_MAX = (1 << 32) - 2
_RDEV_MAX = (1 << 32) - 1

_INTEGER = re.compile('[0-9]{1,10}')
_DECIMAL = re.compile(r'(-?)([0-9]{1,10})(?:\.([0-9]+))?')
_RFC3339 = re.compile(
    r'([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})'
)
_KINDS = frozenset(
    {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}
)

#: attribute → name
_TIMES = {'atime_ns': 'atime', 'mtime_ns': 'mtime', 'ctime_ns': 'ctime'}
_NUMBERS = {'mode': 'mode', 'uid': 'uid', 'gid': 'gid', 'rdev': 'rdev'}
NAMES = frozenset([*_TIMES.values(), *_NUMBERS.values()])


def attributes_of(metadata: Mapping[str, str]) -> Attributes:
    """What is stored of a file."""
    if NAMES.isdisjoint(metadata):
        return NOTHING
    mode = _integer(metadata.get('mode'), 0o177777)
    return Attributes(
        mode=mode if mode is not None and stat.S_IFMT(mode) in _KINDS else None,
        uid=_integer(metadata.get('uid'), ID_MAX),
        gid=_integer(metadata.get('gid'), ID_MAX),
        rdev=_integer(metadata.get('rdev'), _RDEV_MAX),
        **{attribute: _nanoseconds(metadata.get(name)) for attribute, name in _TIMES.items()},
    )


def metadata_of(attributes: Attributes) -> dict[str, str]:
    """What to store of a file: what is not None."""
    found: dict[str, str] = {}
    for attribute, name in _NUMBERS.items():
        number = getattr(attributes, attribute)
        if number is not None:
            found[name] = str(number)
    for attribute, name in _TIMES.items():
        time_ns = getattr(attributes, attribute)
        if time_ns is not None:
            found[name] = _decimal(time_ns)
    return found


def changed(metadata: Mapping[str, str], changes: Attributes) -> dict[str, str]:
    """Metadata with what was set since; all else in it stays."""
    return {**metadata, **metadata_of(changes)}


def relabelled(metadata: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """Metadata with all of others' but what stat(2) tells, which stays."""
    kept = {name: value for name, value in metadata.items() if name in NAMES}
    return kept | {name: value for name, value in others.items() if name not in NAMES}


def times_in(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The attributes that are times of what was written last and are stored."""
    return tuple(attribute for attribute in ('mtime_ns', 'ctime_ns') if _TIMES[attribute] in metadata)


def without_times(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata of content that is about to have times of its own."""
    return {name: value for name, value in metadata.items() if name not in _TIMES.values()}


def _integer(text: str | None, largest: int) -> int | None:
    if text is None or not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if number <= largest else None


def _nanoseconds(text: str | None) -> int | None:
    if text is None:
        return None
    if match := _DECIMAL.fullmatch(text):
        sign, seconds, fraction = match.groups()
        time_ns = int(seconds) * _NS + _fraction_ns(fraction)
        time_ns = -time_ns if sign else time_ns
    elif match := _RFC3339.fullmatch(text):
        moment, fraction, zone = match.groups()
        try:
            time_ns = int(datetime.fromisoformat(moment.replace(' ', 'T') + zone).timestamp()) * _NS
        except ValueError:
            return None
        time_ns += _fraction_ns(fraction)
    else:
        return None
    return time_ns if abs(time_ns) <= TIME_MAX_NS else None


def _fraction_ns(digits: str | None) -> int:
    return int((digits or '0')[:9].ljust(9, '0'))


def _decimal(time_ns: int) -> str:
    seconds, fraction = divmod(abs(time_ns), _NS)
    # All nine digits: s3fs-fuse takes what is behind the point for a number of nanoseconds.
    return f'{"-" if time_ns < 0 else ""}{seconds}' + (f'.{fraction:09}' if fraction else '')
