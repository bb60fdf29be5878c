"""Sources: every kind of them, their shape, and that nothing but the promised errors comes out."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import genro_storage.config
from genro_storage.config import (
    CacheSettings,
    Configuration,
    LocalDefinition,
    MemoryDefinition,
    Permissions,
    S3Definition,
    load,
)
from genro_storage.errors import StorageConfigError, StorageNotFoundError

YAML = """
defaults: {ttl: 1m, permissions: readonly}
cache: {memory: 64MiB, disk: 1GB, path: blocks}
mounts:
  - &up {name: uploads, type: s3, bucket: b, secret: '${SECRET}', key: k}
  - {<<: *up, name: more, ttl: 2s, prefix: 2024-01-31}
  - name: here
    type: local
    path: data
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding='utf-8')
    return path


def test_a_yaml_file_is_read_with_its_defaults_and_cache(tmp_path: Path) -> None:
    path = write(tmp_path, 'storage.yaml', YAML)
    configuration = load(path, environ={'SECRET': 's'})
    uploads = S3Definition(
        name='uploads', bucket='b', key='k', secret='s', ttl_s=60.0, permissions=Permissions.READONLY
    )
    here = LocalDefinition(name='here', path=str(tmp_path / 'data'), ttl_s=60.0, permissions=Permissions.READONLY)
    assert configuration.mounts[0] == uploads
    assert [(m.name, m.ttl_s) for m in configuration.mounts] == [('uploads', 60.0), ('more', 2.0), ('here', 60.0)]
    assert configuration.mounts[1].prefix == '2024-01-31'  # type: ignore[attr-defined]
    assert configuration.mounts[2] == here
    assert configuration.cache == CacheSettings(path=tmp_path / 'blocks', memory_bytes=64 * 2**20, disk_bytes=10**9)
    assert configuration.raw == str(path)
    assert configuration.origin == str(path)
    assert configuration.literal_secrets() == []


@pytest.mark.parametrize('name', ['a.json', 'a.JSON', 'a.yaml', 'a.yml'])
def test_json_is_read_under_every_ending(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, json.dumps([{'name': 'm', 'type': 'memory'}]))
    assert load(str(path)).mounts == (MemoryDefinition(name='m'),)


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    path.write_bytes(b'\xef\xbb\xbf[]')
    assert load(path).mounts == ()


def test_relative_file_names_are_kept_in_messages_and_absolute_in_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 'storage.yaml', '[{name: a, type: local, path: x}]')
    configuration = load('storage.yaml')
    assert configuration.origin == 'storage.yaml'
    assert configuration.raw == str(tmp_path / 'storage.yaml')
    assert configuration.mounts == (LocalDefinition(name='a', path=str(tmp_path / 'x')),)


def test_a_list_is_copied_and_its_relative_paths_start_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = [{'name': 'a', 'type': 'local', 'path': '${X:-x}'}, MemoryDefinition(name='b')]
    configuration = load(source, environ={})
    assert configuration.mounts == (LocalDefinition(name='a', path=str(tmp_path / 'x')), MemoryDefinition(name='b'))
    assert configuration.raw == source
    assert configuration.raw is not source
    assert configuration.raw[0] is not source[0]
    assert configuration.origin == 'a list'
    assert configuration.cache is None


def test_a_function_is_called_and_stays_the_reference(tmp_path: Path) -> None:
    def mounts() -> Any:
        return {'mounts': ({'name': 'a', 'type': 'memory'},)}

    def file() -> Any:
        return write(tmp_path, 'a.yaml', '[]')

    configuration = load(mounts)
    assert [mount.name for mount in configuration.mounts] == ['a']
    assert configuration.raw is mounts
    assert load(file).raw is file
    with pytest.raises(TypeError, match=r'function dict\.__len__|function .*: expected it to return a path'):
        load(lambda: 7)  # type: ignore[arg-type, return-value]


def test_any_mapping_will_do() -> None:
    source = collections.ChainMap({'mounts': []}, {'cache': {}})
    assert load(source).cache == CacheSettings()


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', '/cache')
    assert CacheSettings().path == Path('/cache/genro-storage')
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
    monkeypatch.setenv('HOME', '/home/somebody')
    assert CacheSettings().path == Path('/home/somebody/.cache/genro-storage')


def test_literal_secrets_of_a_source_are_placed() -> None:
    raw = {'name': 'u', 'type': 's3', 'bucket': 'b', 'key': '${K}', 'secret': 'literal'}
    configuration = load({'mounts': [raw], 'defaults': {'options': {'password': 'x'}}}, environ={'K': 'k'})
    assert configuration.literal_secrets() == ["mount 'u': options.password", "mount 'u': secret"]
    assert 'literal' not in repr(configuration)
    assert 'literal' not in repr(configuration.__rich_repr__())


def test_a_mount_by_itself_is_referred_to_by_a_source_that_means_the_same_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'a$b'
    folder.mkdir()
    monkeypatch.chdir(folder)
    scratch = MemoryDefinition(name='scratch')
    source = {
        'mounts': [
            {'name': 'here', 'type': 'local', 'path': 'data'},
            {'name': 'up', 'type': 's3', 'bucket': '${B}'},
            {'name': 'old', 'protocol': 'local', 'base_path': Path('x')},
            {'name': 'var', 'type': 'local', 'path': '${D}'},
            scratch,
        ],
        'defaults': {'ttl': '7s'},
    }
    environ = {'B': 'bucket', 'D': '/d'}
    configuration = load(source, environ=environ)
    assert configuration.reference('up') == {'ttl': '7s', 'name': 'up', 'type': 's3', 'bucket': '${B}'}
    assert configuration.reference('scratch') == [scratch]
    monkeypatch.chdir('/')
    for mount in configuration.mounts:
        reference = configuration.only(mount.name).reference(mount.name)
        again = load([reference] if isinstance(reference, dict) else reference, environ=environ)
        assert again.mounts == (mount,)


def test_mounts_of_a_file_are_referred_to_by_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'a.yaml', '[{name: a, type: memory}, {name: b, type: memory}]')
    configuration = load(path)
    assert configuration.reference('b') == str(path)
    assert [mount.name for mount in configuration.only('b').mounts] == ['b']
    with pytest.raises(StorageConfigError, match=r"a\.yaml: defines no mount 'c'"):
        configuration.only('c')


@pytest.mark.parametrize('source', [None, 7, 1.5, b'storage.yaml', {1, 2}, object(), iter([])])
def test_a_source_of_a_wrong_kind_is_a_type_error(source: Any) -> None:
    with pytest.raises(TypeError, match="expected a path, a list of mounts or a mapping with 'mounts:'"):
        load(source)


@pytest.mark.parametrize('name', ['missing.yaml', 'missing', 'missing.txt'])
def test_a_missing_file_is_not_found_and_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(StorageNotFoundError, match=name) as caught:
        load(path)
    assert isinstance(caught.value, FileNotFoundError)


def test_an_unreadable_file_is_a_permission_error(tmp_path: Path) -> None:
    path = write(tmp_path, 'a.yaml', '[]')
    path.chmod(0)
    script = (
        'import os, sys\n'
        'from genro_storage.config import load\n'
        'os.geteuid() or os.setuid(65534)\n'
        'try: load(sys.argv[1])\n'
        'except PermissionError as error: print(type(error).__name__, error)\n'
    )
    done = subprocess.run([sys.executable, '-c', script, path], capture_output=True, text=True, timeout=30, check=False)
    expected = f'StoragePermissionError {path}: not allowed to read this configuration file'
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('a.toml', '', 'expected a file whose name ends in .yaml, .yml, .json'),
        ('a.yaml', '', 'the file is empty; expected a list of mounts'),
        ('a.json', ' \n', 'the file is empty; expected a list of mounts'),
        ('a.yaml', '# only this\n', 'expected a list of mounts or a mapping'),
        ('a.yaml', 'hello', "expected a list of mounts or a mapping with 'mounts:', got a text"),
        ('a.json', '7', 'got a number'),
        ('a.yaml', 'mounts: [\n', 'line 2, column 1: '),
        ('a.yaml', 'mounts:\n  - {name: a, name: b}\n', 'line 2, column 15: key "name" comes twice in one mapping'),
        ('a.yaml', 'mounts:\n- yes: 1\n', 'line 2, column 3: a key is no text; put it in quotes'),
        ('a.yaml', '? [a]\n: 1\n', 'line 1, column 3: a key is no text'),
        ('a.yaml', '--- []\n--- []\n', 'expected a single document'),
        ('a.yaml', 'a: !!int x', 'line 1, column 4: a value does not fit its type'),
        ('a.yaml', 'a: !!bool x', 'line 1, column 4: a value does not fit its type'),
        ('a.yaml', 'a: !!python/object:os.x {}', 'line 1, column 4: could not determine a constructor'),
        ('a.yaml', 'a: \x00', 'character 4: special characters are not allowed'),
        ('a.json', '{"mounts": [}', 'line 1, column 13: '),
        ('a.json', '{"mounts": [{"a": 1, "a": 2}]}', "key 'a' comes twice in one mapping"),
        ('a.json', '[' * 100_000, 'nested too deeply'),
        ('a.yaml', '[' * 5_000, 'nested too deeply'),
        ('a.json', '[' + '9' * 5000 + ']', 'a number that is too long'),
        ('a.yaml', 'mounts: &a [*a]', "mount 1: expected a mapping, got a list"),
        ('a.yaml', 'mounts: [{name: a, type: memory, options: &o {o: *o}}]', "key 'options': nested more than"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_told_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(StorageConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert message in str(caught.value)


def test_files_that_cannot_be_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / 'folder.yaml').mkdir()
    (tmp_path / 'latin.yaml').write_bytes(b'mounts: \xe9')
    for source, message in {
        str(tmp_path / 'folder.yaml'): 'this is a directory',
        str(tmp_path / 'latin.yaml'): 'byte 9 is not UTF-8',
        'a\0.yaml': 'cannot be read',
        'a' * 5000 + '.yaml': 'cannot be read',
    }.items():
        with pytest.raises(StorageConfigError, match=message):
            load(source)


@pytest.mark.parametrize(
    'text',
    [
        'mounts:\n- {secret: *hunter2}\n',
        'mounts:\n- {secret: !hunter2 x}\n',
        'mounts:\n- {secret: "hunter2}\n',
        'mounts:\n- {secret: "hunter2 \\q"}\n',
        'secret: hunter2: x\n',
        'secret: @hunter2\n',
        '- secret: hunter2\n key: x\n',
    ],
)
def test_syntax_errors_show_nothing_of_the_file(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, 'a.yaml', text)
    with pytest.raises(StorageConfigError, match='line ') as caught:
        load(path)
    assert 'hunter2' not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


_KEYS = st.sampled_from(
    ['mounts', 'cache', 'defaults', 'name', 'type', 'protocol', 'path', 'base_path', 'bucket', 'options', 'ttl', 'uid']
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(['local', 's3', 'memory', 'fsspec', '${X}', '${', '..', 'a/../b', '~nobody-here/x', '10s', 'a'])
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_KEYS | st.text(max_size=3) | st.integers(), inner, max_size=5)
        | st.dictionaries(_KEYS, inner, max_size=5)
    ),
    max_leaves=20,
)
_MOUNTS = st.lists(st.dictionaries(_KEYS, _VALUES, max_size=5) | _VALUES, max_size=3)


@settings(max_examples=300, deadline=None)
@given(_MOUNTS | _VALUES | st.fixed_dictionaries({'mounts': _MOUNTS}, optional={'cache': _VALUES}))
@example([{'name': 'a', 'type': 'memory', 'uid': 10**5000}])
@example({'mounts': [{'name': ['x'], 'type': {}, 'protocol': []}], 'cache': {'disk': float('nan')}, 'defaults': 1})
def test_any_value_is_a_configuration_or_one_of_the_promised_errors(value: Any) -> None:
    try:
        assert isinstance(load(value, environ={}), Configuration)
    except StorageConfigError:
        assert isinstance(value, str | list | dict)
    except TypeError:
        assert not isinstance(value, str | list | dict)
    except StorageNotFoundError:
        assert isinstance(value, str)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet='mounts:-[]{}&*!?|>\'"%@` \n,#ab01\x00é', max_size=40),
    ending=st.sampled_from(['yaml', 'json']),
)
def test_any_text_in_a_file_is_a_configuration_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, ending: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f'fuzz-{os.getpid()}.{ending}'
    path.write_text(text)
    try:
        load(path)
    except StorageConfigError as error:
        told = str(error)
    else:
        return
    assert all(line.startswith(f'{path}: ') for line in told.split('\n'))


_IMPORT = """
import sys, types
package = types.ModuleType('genro_storage')
package.__path__ = [sys.argv[1]]
sys.modules['genro_storage'] = package
import genro_storage.config
print(*sys.modules)
"""


def test_the_import_takes_no_yaml_fsspec_or_backend() -> None:
    library = Path(genro_storage.config.__file__).parent.parent
    loaded = subprocess.run(
        [sys.executable, '-c', _IMPORT, library], capture_output=True, text=True, timeout=30, check=True
    ).stdout.split()
    assert 'genro_storage.config.sources' in loaded
    unwanted = {'yaml', 'fsspec', 'json', 'difflib', 'genro_storage.backends', 'genro_storage.volume'}
    assert not unwanted & set(loaded)
