"""The fenced blocks of a page of the documentation, and the marks that stand before them.

Owns the syntax. What is done with a block, see test_pages. Pure.

A mark is a comment in the line before the fence: ``<!-- illustration: why it is not run -->``, ``<!-- file: NAME -->``
(what a YAML block is saved as), ``<!-- output -->`` (what the Python block before it printed), ``<!-- fails -->`` (the
definitions are wrong, or a command fails).
"""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

_FENCE = re.compile(r'^( *)```(\S*)\s*$')
_MARK = re.compile(r'^ *<!-- *([a-z]+)(?:: *(.*?))? *-->\s*$')

RUN = ('python', 'sh', 'console', 'yaml')
SHOWN = ('', 'text', 'ini', 'json')
MARKS = ('illustration', 'file', 'output', 'fails')


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """``line``: of its fence, from 1. ``marks``: name → what it says, '' for nothing."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str]

    @property
    def place(self) -> str:
        """For messages: the page and the line."""
        return f'{self.page}:{self.line}'

    @property
    def is_run(self) -> bool:
        """Whether it is more than shown."""
        return self.language in RUN and 'illustration' not in self.marks


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in their order. Raises ValueError for a fence that is not closed."""
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    opened: re.Match[str] | None = None
    first = 0
    lines: list[str] = []
    marks: dict[str, str] = {}
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is not None and fence is not None:
            text = '\n'.join(lines) + '\n'
            yield Block(page=page, line=first, language=opened[2], text=text, marks=marks)
            opened, marks = None, {}
        elif opened is not None:
            lines.append(line.removeprefix(opened[1]))
        elif fence is not None:
            opened, first, lines = fence, number, []
        elif mark := _MARK.match(line):
            marks[mark[1]] = mark[2] or ''
        else:
            marks = {}
    if opened is not None:
        raise ValueError(f'{page}:{first}: this block has no end')


class Command(msgspec.Struct, frozen=True):
    """One command of a console block, and what it is said to print."""

    text: str
    output: str


def commands_of(block: Block) -> list[Command]:
    """The commands of a console block: after ``$ ``, further lines of one after ``> ``."""
    found: list[tuple[list[str], list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith('$ '):
            found.append(([line[2:]], []))
        elif not found:
            raise ValueError(f'{block.place}: a console block begins with "$ "')
        elif line.startswith('> ') and not found[-1][1]:
            found[-1][0].append(line[2:])
        else:
            found[-1][1].append(line)
    return [Command('\n'.join(text), '\n'.join(output)) for text, output in found]


def is_said(said: str, printed: str) -> bool:
    """Whether a text is what a page says; ``…`` in it stands for anything, alone in a line for any lines."""
    pattern = ''.join(
        r'(?:.*\n)*?' if line.strip() == '…' else '.*?'.join(map(re.escape, line.rstrip().split('…'))) + r'[ \t]*\n'
        for line in said.strip('\n').splitlines()
    )
    return re.fullmatch(pattern, printed.strip('\n') + '\n' if printed.strip('\n') else '') is not None
