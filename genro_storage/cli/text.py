"""Names, sizes and ages for people.

Owns what a terminal gets to see of text from elsewhere: nothing that it would take for a command. Pure.
"""

_SIZES = ('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')
_AGES = ((86400, 'd'), (3600, 'h'), (60, 'min'))


def shown(text: str) -> str:
    """Text in which characters that are not printable, and bytes that are no text, are escapes."""
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def size(size_bytes: int) -> str:
    """As '1.5 MiB'."""
    number, unit = float(size_bytes), 0
    while number >= 1024 and unit < len(_SIZES) - 1:
        number, unit = number / 1024, unit + 1
    return f'{number:.0f} {_SIZES[unit]}' if unit == 0 or number >= 100 else f'{number:.1f} {_SIZES[unit]}'


def age(seconds: float) -> str:
    """As '3 min'."""
    for length, unit in _AGES:
        if seconds >= length:
            return f'{seconds // length:.0f} {unit}'
    return f'{max(0.0, seconds):.0f} s'
