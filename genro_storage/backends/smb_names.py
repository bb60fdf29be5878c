"""Names that Windows refuses, as letters that it takes.

Owns the mapping: that of Services for Mac, which Linux's cifs writes too (mount.cifs(8), mapposix), so that both show
the same names. Pure.
"""

# Control characters and what Windows reserves, to the private use area.
_TO_SERVER = {number: 0xF000 + number for number in range(1, 0x20)} | {
    ord(letter): 0xF020 + number for number, letter in enumerate('"*:<>?\\|')
}
_FROM_SERVER = {there: here for here, there in _TO_SERVER.items()} | {0xF028: ord(' '), 0xF029: ord('.')}

# Only at the end of a name does Windows drop them.
_AT_THE_END = {' ': '\uf028', '.': '\uf029'}


def to_server(path: str) -> str:
    r"""A path as the server has it, with ``\`` between its names."""
    return '\\'.join(_name(name) for name in path.split('/'))


def from_server(name: str) -> str:
    """The name of an entry as it is here."""
    return name.translate(_FROM_SERVER)


def _name(name: str) -> str:
    mapped = name.translate(_TO_SERVER)
    return mapped[:-1] + _AT_THE_END.get(mapped[-1:], mapped[-1:])
