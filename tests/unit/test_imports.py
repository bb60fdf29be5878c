"""Imports go downwards: who may import whom, in one table, read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Open to every module of the library.
OPEN = {'errors', 'paths', 'entry', 'posix_format', 'runtime', 'config', 'local_disk'}

#: What each part of genro_storage may import of it, besides itself and what is open. A part is a module or a package.
LIBRARY: dict[str, set[str]] = {
    '__init__': {'manager', 'node'},
    'errors': set(),
    'paths': set(),
    'entry': set(),
    'posix_format': set(),
    'runtime': set(),
    'config': set(),
    'backends': set(),
    'local_disk': set(),
    'mountinfo': set(),
    'mounted': set(),
    'cache': {'local_disk'},
    'reading': {'cache', 'backends.base'},
    'writing': {'reading', 'cache.entries', 'backends.base'},
    'lookups': {'cache.entries', 'reading', 'writing', 'backends.base'},
    'opening': {'lookups', 'reading', 'writing', 'backends.base'},
    'volume': {'cache.entries', 'reading', 'writing', 'backends.base'},
    'backend_volume': {'volume', 'opening', 'lookups', 'cache', 'reading', 'writing', 'backends.base'},
    'files': {'reading', 'writing'},
    'copying': {'volume'},
    'node': {'copying', 'files', 'volume'},
    'places': {'volume'},
    'references': {'volume', 'backends.mounts'},
    'relative': {'references', 'volume', 'cache.entries', 'reading', 'writing', 'backends.base'},
    'manager': {
        'node',
        'volume',
        'backend_volume',
        'places',
        'references',
        'relative',
        'backends.registry',
        'cache',
        'writing',
    },
    'testing': {'backends.base'},
    'cli': {'manager', 'mounted', 'mountinfo', 'writing', 'backends.registry'},
}

#: The same for the parts of fusefs, with the library as one more part.
_CORE = {'ops', 'inodes', 'handles', 'errnos', 'attrs', 'passthrough'}
_EVERYTHING = {'*'}
MOUNT: dict[str, set[str]] = {
    '__init__': set(),
    'ops': set(),
    'inodes': {'ops'},
    'handles': {'ops', 'inodes'},
    'passthrough': set(),
    'invalidation': {'inodes', 'genro_storage.volume'},
    'errnos': {'genro_storage.errors'},
    'attrs': {'ops'} | {f'genro_storage.{name}' for name in OPEN},
    'trees': _CORE | {'genro_storage'},
    'filesystem': _CORE | {'trees', 'genro_storage'},
    'dispatch': {'ops', 'errnos', 'filesystem', 'transports.base', 'genro_storage.runtime'},
    'transports.__init__': set(),
    'transports.base': {'ops'},
    'transports.options': set(),
    'transports.readers': set(),
    'transports.devfuse': {
        'ops',
        'transports.base',
        'transports.options',
        'transports.readers',
        'genro_storage.runtime',
        'genro_storage.mountinfo',
    },
    'transports.libfuse': {
        'ops',
        'transports.base',
        'transports.options',
        'transports.devfuse.mounting',
        'genro_storage.runtime',
    },
    'transports.choice': {'transports'},
    'transports.inprocess': {'ops', 'transports.base', 'transports.readers', 'genro_storage.runtime'},
    'session': _EVERYTHING,
    'daemon': _EVERYTHING,
    'main': _EVERYTHING,
}


def modules(package: str) -> dict[str, Path]:
    """All modules of a package by their full names; a package itself ends in ``.__init__``."""
    return {
        '.'.join(path.relative_to(ROOT).with_suffix('').parts): path for path in sorted((ROOT / package).rglob('*.py'))
    }


ALL = modules('genro_storage') | modules('fusefs')


def imports_of(path: Path) -> Iterator[str]:
    """Our modules that a module imports, wherever in it; not those for types only."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            for alias in node.names:
                whole = f'{node.module}.{alias.name}'
                yield whole if whole in ALL or f'{whole}.__init__' in ALL else str(node.module)
        pending.extend(ast.iter_child_nodes(node))


def part_of(name: str, parts: dict[str, set[str]]) -> str:
    """The part that a module of a package belongs to: the longest one in the table."""
    inner = name.partition('.')[2] or '__init__'
    fitting = [part for part in parts if inner == part or inner.startswith(part + '.')]
    assert fitting, f'{name} is in no table'
    return max(fitting, key=len)


def may(importer: str, imported: str) -> bool:
    package = importer.partition('.')[0]
    parts = LIBRARY if package == 'genro_storage' else MOUNT
    part = part_of(importer, parts)
    allowed = parts[part]
    if '*' in allowed:
        return True
    if imported.partition('.')[0] == package:
        inner = imported.partition('.')[2]
        if part not in {'__init__'} and (inner == part or inner.startswith(part + '.')):
            return True
        allowed = allowed | (OPEN if package == 'genro_storage' else set())
        return any(inner == other or inner.startswith(other + '.') for other in allowed)
    return any(imported == other or imported.startswith(other + '.') for other in allowed)


@pytest.mark.parametrize('name', ALL)
def test_a_module_imports_only_what_is_below_it(name: str) -> None:
    ours = {other for other in imports_of(ALL[name]) if other.partition('.')[0] in {'genro_storage', 'fusefs'}}
    upwards = sorted(other for other in ours if not may(name, other))
    assert upwards == [], f'{name} must not import {upwards}'


@pytest.mark.parametrize('name', ['genro_storage.errors', 'genro_storage.entry', 'fusefs.ops'])
def test_what_everybody_speaks_of_speaks_of_nobody(name: str) -> None:
    assert [other for other in imports_of(ALL[name]) if other.partition('.')[0] in {'genro_storage', 'fusefs'}] == []


@pytest.mark.parametrize('name', modules('genro_storage'))
def test_the_library_knows_nothing_of_the_mount(name: str) -> None:
    assert [other for other in imports_of(ALL[name]) if other.partition('.')[0] == 'fusefs'] == []


def test_only_the_registry_knows_concrete_backends() -> None:
    """And it imports each only when a mount of its type is made."""
    for name, path in ALL.items():
        if not name.startswith(('genro_storage.backends', 'fusefs')):
            concrete = {other for other in imports_of(path) if other.startswith('genro_storage.backends.')}
            protocols = {'genro_storage.backends.base', 'genro_storage.backends.mounts'}
            assert concrete <= {*protocols, 'genro_storage.backends.registry'}, name
    registry = ast.parse(ALL['genro_storage.backends.registry'].read_text())
    at_import = {node.module for node in registry.body if isinstance(node, ast.ImportFrom)}
    own = {name for name in at_import if name is not None and name.startswith('genro_storage.backends')}
    assert own == {f'genro_storage.backends.{name}' for name in ('base', 'guarded', 'mounts')}


@pytest.mark.parametrize('name', [name for name in ALL if not name.startswith('genro_storage.cli.')])
def test_nothing_needs_the_command(name: str) -> None:
    assert [other for other in imports_of(ALL[name]) if other.startswith('genro_storage.cli')] == []


@pytest.mark.parametrize('name', ALL)
def test_no_module_is_a_drawer_for_everything(name: str) -> None:
    assert not {'utils', 'util', 'common', 'helpers', 'helper', 'misc'} & set(name.split('.'))


def loaded_by(statement: str) -> set[str]:
    """What is in sys.modules of a fresh interpreter after a statement."""
    code = f'import sys\n{statement}\nprint("\\n".join(sys.modules))'
    # What the environment itself imports at start (site, .pth files) is taken off.
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=50, check=True)
    bare = subprocess.run(
        [sys.executable, '-c', code.replace(statement, '')],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return set(run.stdout.split()) - set(bare.stdout.split())


HEAVY = (
    'fsspec',
    's3fs',
    'aiobotocore',
    'botocore',
    'aiohttp',
    'obstore',
    'yaml',
    'asyncio',
    'pytest',
    'fusefs',
    'click',
    'rich',
)


@pytest.mark.parametrize(
    'statement',
    [
        'import genro_storage',
        'import genro_storage; genro_storage.StorageManager()',
        'import genro_storage; s = genro_storage.StorageManager(); s.add_mount({"name": "m", "type": "memory"});'
        ' s.node("m:f").write_bytes(b"1"); s.close()',
    ],
)
def test_the_core_starts_light(statement: str) -> None:
    heavy = {name for name in loaded_by(statement) if name.split('.')[0] in HEAVY}
    assert heavy == set()


def test_a_mount_that_is_not_used_imports_no_driver() -> None:
    loaded = loaded_by(
        'import genro_storage; s = genro_storage.StorageManager(); '
        's.add_mount({"name": "m", "type": "s3", "bucket": "b"}); s.node("m:f"); s.close()'
    )
    assert {name for name in loaded if name.split('.')[0] in {'s3fs', 'aiobotocore', 'botocore'}} == set()
