"""Sizes and times as people write them.

Owns the words ('256MiB', '10s', 'forever') and their bounds. Does not know which key allows what. Pure.
"""

import math
import re

from genro_storage.config.keys import WrongValueError

_SIZE = re.compile(r'\s*(\d{1,20})(\.\d{1,20})?\s*([A-Za-z]*)\s*')
_TIME = re.compile(r'\s*(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]*)\s*')

# 'M' and 'G' alone are left out: they mean 1000 to some programs and 1024 to others.
_BYTES: dict[str, int] = {'': 1, 'b': 1} | {
    f'{prefix}{suffix}': base ** (power + 1)
    for power, prefix in enumerate('kmgtp')
    for suffix, base in (('b', 1000), ('ib', 1024))
}
_SECONDS = {'': 1.0, 'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0}

# off_t is signed (sys/types.h).
_MOST_BYTES = 2**63 - 1
# A century; threading.TIMEOUT_MAX, 292 years, is the first limit beyond it.
_MOST_SECONDS = 100 * 365.25 * 86400.0


def size_bytes(value: object) -> int:
    """Bytes of '256MiB', '1.5 GB' or a number. Raises WrongValueError, a ValueError."""
    expected = WrongValueError("a size such as '256MiB', '1.5GB' or a number of bytes")
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        whole, fraction, unit = match.groups()
        factor = _BYTES.get(unit.lower())
        if factor is None:
            raise expected
        # Exact for whole numbers; rounded, because 2.3 * 1000 is 2299.9999999999995.
        size = int(whole) * factor + (round(float(fraction) * factor) if fraction else 0)
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, float) and value.is_integer():
        size = int(value)
    else:
        raise expected
    if not 0 <= size <= _MOST_BYTES:
        raise expected
    return size


def seconds(value: object, *, forever: bool = False) -> float:
    """Seconds of '10s', '250ms', '2h' or a number; math.inf for 'forever' where that is allowed.

    Raises WrongValueError, a ValueError.
    """
    expected = WrongValueError(
        "a time such as '10s', '5m' or a number of seconds" + (", or 'forever'" if forever else '')
    )
    if forever and isinstance(value, str) and value.strip().lower() == 'forever':
        return math.inf
    if isinstance(value, str) and (match := _TIME.fullmatch(value)):
        number, unit = match.groups()
        factor = _SECONDS.get(unit.lower())
        if factor is None:
            raise expected
        time_s = float(number) * factor
    elif isinstance(value, int | float) and not isinstance(value, bool):
        # Compared before the conversion: float() of a huge integer overflows.
        if not 0 <= value <= _MOST_SECONDS:
            raise expected
        time_s = float(value)
    else:
        raise expected
    if time_s > _MOST_SECONDS:
        raise expected
    return time_s


def seconds_or_forever(value: object) -> float:
    """See seconds."""
    return seconds(value, forever=True)


def seconds_above_zero(value: object) -> float:
    """See seconds; zero is refused too."""
    time_s = seconds(value)
    if not time_s:
        raise WrongValueError("a time above zero such as '30s'")
    return time_s
