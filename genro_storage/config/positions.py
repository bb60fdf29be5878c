"""Where in a file a value stands: line and column, by the way to it through the value.

Owns the second look at a text that has been parsed already, taken only when there is something to tell. Threads: one
look by one thread.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

_MERGE = 'tag:yaml.org,2002:merge'


class Position(msgspec.Struct, frozen=True):
    """Both count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f'line {self.line}, column {self.column}'


class Positions:
    """The positions in the text of a YAML or JSON file."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root: Any = None

    def __repr__(self) -> str:
        return 'Positions(…)'  # the text may hold secrets

    def of(self, way: Sequence[str | int], *, key: bool = False) -> Position | None:
        """Of the value at the end of a way of keys and indexes, or of its key; of what is nearest where it ends early.

        None where nobody knows.
        """
        node = self._compose()
        if node is None:
            return None
        mark = node.start_mark
        for depth, part in enumerate(way):
            found = _inside(node, part)
            if found is None:
                break
            holder, node = found
            mark = (holder if key and depth == len(way) - 1 else node).start_mark
        return Position(mark.line + 1, mark.column + 1)

    def _compose(self) -> Any:
        if self._root is None:
            import yaml

            try:
                # JSON is YAML but for tabs, which stand only between values: inside a string they are escaped.
                self._root = yaml.compose(self._text.replace('\t', ' '), yaml.SafeLoader)
            except (yaml.YAMLError, RecursionError):
                return None
        return self._root


def _inside(node: Any, part: str | int) -> tuple[Any, Any] | None:
    """What a mapping has under a key, or a list at an index, and what to point at for the key."""
    if isinstance(part, int):
        items = node.value if node.id == 'sequence' else []
        return (items[part], items[part]) if part < len(items) else None
    if node.id != 'mapping':
        return None
    for key, value in node.value:
        if key.id == 'scalar' and key.value == part:
            return key, value
    for key, value in node.value:
        if key.tag == _MERGE:
            for merged in value.value if value.id == 'sequence' else [value]:
                found = _inside(merged, part)
                if found is not None:
                    return found
    return None
