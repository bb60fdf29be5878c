"""A survey as text for people, and as JSON for programs.

Owns the layout of both. Pure but for the printing.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from genro_storage.cli.survey import Item, Survey, Tree
from genro_storage.cli.text import age, shown, size

#: Into a file or a pipe, nothing is folded.
_ENDLESS = 100_000
_KINDS = {'put': 'file', 'remove': 'removal', 'move': 'rename', 'rename': 'rename', 'upload': 'parts'}
_STYLES = {'waiting': '', 'failed': 'yellow', 'parked': 'red', 'damaged': 'red', 'not configured': 'red'}


def as_json(survey: Survey) -> str:
    """One object: ``mounted``, ``waiting``, ``problems`` and ``ok``."""
    return json.dumps(
        {
            'ok': not survey.is_wrong,
            'mounted': [_tree_of(tree) for tree in survey.trees],
            'waiting': [_item_of(item, survey.time_ns) for item in survey.items],
            'problems': survey.problems,
        },
        indent=2,
    )


def show(survey: Survey) -> None:
    """Print it."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _ENDLESS
    for tree in survey.trees:
        _show_tree(console, tree)
    if not survey.trees:
        console.print('Nothing is mounted.')
    console.print()
    if survey.items:
        _show_items(console, survey)
    else:
        console.print('Nothing waits to be uploaded.')
    for problem in survey.problems:
        console.print(Text(shown(problem), 'red'))


def _show_tree(console: Console, tree: Tree) -> None:
    status = tree.status
    if status is None:
        console.print(Text.assemble((shown(tree.mountpoint), 'bold'), '  ', (shown(tree.problem), 'red')))
        return
    console.print(Text.assemble((shown(tree.mountpoint), 'bold'), f'  process {status.pid}'))
    table = _table(3)
    for mount in status.mounts:
        table.add_row(*(Text(shown(each)) for each in (mount.name, mount.type, mount.destination)))
    console.print(table)
    if status.cache is not None:
        used = 'not counted yet' if status.cache.used_bytes is None else size(status.cache.used_bytes)
        console.print(Text(f'  cache: {used} of {size(status.cache.limit_bytes)} in {shown(status.cache.path)}'))


def _show_items(console: Console, survey: Survey) -> None:
    total = sum(item.waiting.size_bytes for item in survey.items)
    console.print(Text(f'Waiting: {len(survey.items)}, {size(total)}', 'bold'))
    table = _table(6)
    for item in survey.items:
        waited_s = (survey.time_ns - item.waiting.created_ns) / 1e9
        table.add_row(
            Text(shown(item.name)),
            Text(_KINDS[item.waiting.intent.kind] if item.waiting.intent else ''),
            Text(size(item.waiting.size_bytes)),
            Text(age(waited_s)),
            Text(item.state, _STYLES[item.state]),
            Text(explained(item)),
        )
    console.print(table)


def explained(item: Item) -> str:
    """What there is to say of one beside its state."""
    said = []
    if item.waiting.failure is not None:
        count = item.waiting.failure.attempts
        said.append(f'{count} attempt{"s" if count > 1 else ""}')
    if item.reason:
        said.append(shown(item.reason))
    if item.state == 'not configured':
        said.append(f'belongs to {shown(item.waiting.destination)}')
    elif not item.waiting.live and item.state != 'damaged':
        said.append('no process is at it; the next that mounts it is')
    return ': '.join(said)


def _table(columns: int) -> Table:
    # Folded rather than cut off: what is shown is often copied.
    return Table(*[Column(overflow='fold') for _ in range(columns)], box=None, show_header=False, padding=(0, 0, 0, 2))


def _tree_of(tree: Tree) -> Mapping[str, Any]:
    status = {} if tree.status is None else msgspec.to_builtins(tree.status)
    return {'mountpoint': tree.mountpoint, 'problem': tree.problem or None, **status}


def _item_of(item: Item, now_ns: int) -> Mapping[str, Any]:
    waiting = item.waiting
    intent = waiting.intent
    return {
        'mount': intent.mount if intent else None,
        'path': intent.path if intent else None,
        'target': intent.target or None if intent else None,
        'kind': intent.kind if intent else None,
        'destination': waiting.destination,
        'state': item.state,
        'live': waiting.live,
        'size_bytes': waiting.size_bytes,
        'age_s': max(0.0, (now_ns - waiting.created_ns) / 1e9),
        'attempts': waiting.failure.attempts if waiting.failure else 0,
        'error': item.reason or None,
        'record': str(waiting.record),
    }
