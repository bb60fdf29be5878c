"""What is put into pages from the code: the contents of the site, the help of the commands, the keys of definitions.

Owns three marks: ``<!-- contents -->`` becomes the tree of pages, ``<!-- help -->`` a section for each command,
``<!-- keys: TYPE -->`` a table of the keys of one type of mount (``common``: of all types; ``cache``: of that section).
Every type is to have its table: see tests/docs.
"""

import contextlib
import fnmatch
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from fusefs import main as mounting
from genro_storage.cli.commands import command
from genro_storage.config import TYPES, CacheSettings, Definition, descriptions, keys

_FOLDER = Path(__file__).parent
_MARK = re.compile(r'^<!-- (contents|help|keys: (?P<type>\w+)) -->$', re.MULTILINE)
_COLUMNS = '100'
_SOURCE = re.compile(r'str \| ~?[\w.]*PathLike\[str\] \| .*\| ~?[\w.]*Untrusted')

#: The pages by the section that they are in. What is in none is in the last.
_SECTIONS = {
    'Use': (
        *('quickstart', 'installation', 'configuration', 'python', 'mounting', 'durability', 'cookbook'),
        'troubleshooting',
    ),
    'Backends': (
        'backends',
        *(f'backends/{name}' for name in ('local', 'memory', 's3', 'gcs', 'azure')),
        'backends/*',
        'plugins',
    ),
    'Reference': ('api', 'commands', 'semantics', 'glossary'),
    'Inside': ('architecture', 'concurrency', 'decisions/README', 'benchmarks'),
}


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect('source-read', _replace)
    app.connect('autodoc-process-signature', _shorten)
    return {'parallel_read_safe': True}


def _replace(_app: object, page: str, source: list[str]) -> None:
    def made(mark: re.Match[str]) -> str:
        if mark['type']:
            return _keys(mark['type'])
        return _help() if mark[1] == 'help' else _contents()

    source[0] = _MARK.sub(made, source[0])
    if page == 'decisions/README':
        source[0] += _tree(sorted(each for each in _pages() if each.startswith('decisions/0')))


def _shorten(_app: object, _kind: str, _name: str, _object: object, _options: object, *said: str | None) -> Any:
    """Signatures with the name of a type that is a union of a dozen lines."""
    return tuple(text and _SOURCE.sub('Source', text) for text in said)


# Contents


def _pages() -> list[str]:
    return [str(path.relative_to(_FOLDER).with_suffix('')) for path in sorted(_FOLDER.rglob('*.md'))]


def _contents() -> str:
    left = [page for page in _pages() if page != 'index' and not page.startswith('decisions/0')]
    chosen: dict[str, list[str]] = {}
    for caption, patterns in _SECTIONS.items():
        found = [page for pattern in patterns for page in left if fnmatch.fnmatchcase(page, pattern)]
        chosen[caption] = list(dict.fromkeys(found))
        left = [page for page in left if page not in chosen[caption]]
    chosen[caption] += left
    return '\n'.join(_tree(pages, caption) for caption, pages in chosen.items())


def _tree(pages: list[str], caption: str = '') -> str:
    names = '\n'.join(f'/{page}' for page in pages)
    title = f':caption: {caption}\n' if caption else ''
    return f'\n```{{toctree}}\n:hidden:\n{title}\n{names}\n```\n'


# Commands


def _help() -> str:
    texts = [
        ('genro-mount', _printed(lambda: mounting.mount(['--help']))),
        ('genro-umount', _printed(lambda: mounting.umount(['--help']))),
        *_of(command),
    ]
    return '\n'.join(f'## {name}\n\n```text\n{text}\n```\n' for name, text in texts)


def _of(inner: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """The name and the help of a command, and of those in it, each asked for as people do."""
    settings = {'prog_name': 'genro-storage', 'max_content_width': int(_COLUMNS)}
    yield ' '.join(['genro-storage', *words]), _printed(lambda: command.main([*words, '--help'], **settings))
    for word, each in sorted(getattr(inner, 'commands', {}).items()):
        yield from _of(each, (*words, word))


def _printed(show_help: Callable[[], object]) -> str:
    output = io.StringIO()
    # argparse and click fold lines at the width of a terminal, which there need not be.
    os.environ.update(COLUMNS=_COLUMNS, NO_COLOR='1')
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        show_help()
    return output.getvalue().rstrip()


# Keys


def _keys(type_name: str) -> str:
    common = keys.fields_of(Definition)
    if type_name == 'cache':
        rows = [_row(key, field, descriptions.CACHE[key]) for key, field in keys.fields_of(CacheSettings).items()]
    elif type_name == 'common':
        rows = [_row(key, field, descriptions.COMMON[key]) for key, field in common.items()]
    elif type_name not in TYPES:
        return f'*This installation has no mounts of type `{type_name}`.*'
    else:
        rows = [
            _row(key, field, descriptions.of_key(type_name, key) or '')
            for key, field in keys.fields_of(TYPES[type_name]).items()
            if key not in common or field.default != common[key].default
        ]
    return '\n'.join(['| key | default | meaning |', '|---|---|---|', *rows])


def _row(key: str, field: keys.Field, meaning: str) -> str:
    return f'| `{key}` | {"*required*" if field.required else _default(key, field.default)} | {meaning} |'


def _default(key: str, default: object) -> str:
    value = getattr(default, 'value', default)
    if isinstance(value, bool):
        return f'`{str(value).lower()}`'
    if isinstance(value, float):
        return f'`{value:g}s`'
    if isinstance(value, int):
        return f'`{value >> 30}GiB`' if value >= 1 << 30 else f'`{value >> 20}MiB`'
    return f'`{value}`' if isinstance(value, str) and value else ''
