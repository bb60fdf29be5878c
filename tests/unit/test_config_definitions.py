"""The typed values of definitions, their defaults, and that no secret of theirs is ever shown."""

import copy
import math
import pickle
from pathlib import Path

import msgspec
import pytest

from genro_storage.config import (
    TYPES,
    CacheMode,
    Definition,
    Driver,
    Durability,
    FsspecDefinition,
    LocalDefinition,
    MemoryDefinition,
    Permissions,
    Posix,
    S3Definition,
    definition_from_mapping,
    literal_secrets,
)
from genro_storage.errors import StorageConfigError


def parse(environ: dict[str, str] | None = None, folder: str = '/base', **mapping: object) -> Definition:
    return definition_from_mapping({'name': 'm', **mapping}, folder=folder, environ=environ or {})


def test_every_common_key_becomes_its_typed_value() -> None:
    definition = parse(
        type='memory',
        permissions='readonly',
        ttl='5m',
        cache='disk',
        durability='writeback',
        writeback_delay='250ms',
        posix='store',
        timeout='2m',
        uid=1000,
        gid='100',
        umask='022',
        driver='fsspec',
        options={'a': [1, None]},
    )
    assert definition == MemoryDefinition(
        name='m',
        permissions=Permissions.READONLY,
        ttl_s=300.0,
        cache=CacheMode.DISK,
        durability=Durability.WRITEBACK,
        writeback_delay_s=0.25,
        posix=Posix.STORE,
        timeout_s=120.0,
        uid=1000,
        gid=100,
        umask=0o022,
        driver=Driver.FSSPEC,
        options={'a': [1, None]},
    )


@pytest.mark.parametrize(
    ('mapping', 'ttl_s', 'cache'),
    [
        ({'type': 'local', 'path': '/x'}, 1.0, CacheMode.OFF),
        ({'type': 'memory'}, 10.0, CacheMode.OFF),
        ({'type': 's3', 'bucket': 'b'}, 10.0, CacheMode.DISK),
        ({'type': 'fsspec', 'protocol': 'ftp'}, 10.0, CacheMode.DISK),
    ],
)
def test_defaults_depend_on_the_type(mapping: dict[str, object], ttl_s: float, cache: CacheMode) -> None:
    definition = parse(**mapping)
    assert (definition.ttl_s, definition.cache) == (ttl_s, cache)
    assert definition.type == mapping['type']
    assert definition.permissions is Permissions.DELETE
    assert definition.durability is Durability.CLOSE
    assert definition.timeout_s == 30.0


def test_ttl_may_be_forever() -> None:
    assert parse(type='memory', ttl='forever').ttl_s == math.inf


@pytest.mark.parametrize(
    ('written', 'expected'),
    [('022', 0o022), ('0o77', 0o077), ('0', 0), (18, 18), (None, None), ('', None), (0o777, 0o777)],
)
def test_umask_is_octal_text_or_a_number(written: object, expected: int | None) -> None:
    assert parse(type='memory', umask=written).umask == expected


@pytest.mark.parametrize(
    ('written', 'expected'), [('true', True), ('No', False), ('1', True), ('0', False), (True, True)]
)
def test_flags_are_booleans_or_their_words(written: object, expected: bool) -> None:
    definition = parse(type='s3', bucket='b', anon=written)
    assert isinstance(definition, S3Definition)
    assert definition.anon is expected


def test_a_cache_that_yaml_read_as_false_is_off() -> None:
    assert parse(type='fsspec', protocol='ftp', cache=False).cache is CacheMode.OFF


@pytest.mark.parametrize(
    ('written', 'expected'),
    [
        ('/srv/data/', '/srv/data'),
        ('//srv//./data', '/srv/data'),
        ('data', '/base/data'),
        ('.', '/base'),
        ('~', '/home/somebody'),
        ('~/files', '/home/somebody/files'),
        ('./~', '/base/~'),
        (Path('/srv/data'), '/srv/data'),
    ],
)
def test_local_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, written: object, expected: str) -> None:
    monkeypatch.setenv('HOME', '/home/somebody')
    definition = parse(type='local', path=written)
    assert isinstance(definition, LocalDefinition)
    assert definition.path == expected


def test_prefixes_are_normalised() -> None:
    definition = parse(type='s3', bucket='b', prefix='/a//b/./c/')
    assert isinstance(definition, S3Definition)
    assert definition.prefix == 'a/b/c'


def test_paths_of_fsspec_stay_as_they_are() -> None:
    definition = parse(type='fsspec', protocol='http', path='https://example.org/a//b/')
    assert isinstance(definition, FsspecDefinition)
    assert (definition.protocol, definition.path) == ('http', 'https://example.org/a//b/')


@pytest.mark.parametrize(
    ('written', 'plain'),
    [
        ({'protocol': 'local', 'base_path': '/x'}, {'type': 'local', 'path': '/x'}),
        ({'protocol': 's3', 'bucket': 'b', 'base_path': 'p'}, {'type': 's3', 'bucket': 'b', 'prefix': 'p'}),
        ({'type': 's3', 'protocol': 's3', 'bucket': 'b'}, {'type': 's3', 'bucket': 'b'}),
        ({'type': 'local', 'path': '/x', 'base_path': '/x/'}, {'type': 'local', 'path': '/x'}),
        (
            {'type': 'fsspec', 'protocol': 'ftp', 'base_path': '/x'},
            {'type': 'fsspec', 'protocol': 'ftp', 'path': '/x'},
        ),
        ({'protocol': 'memory'}, {'type': 'memory'}),
    ],
)
def test_other_names_of_keys_mean_the_same(written: dict[str, object], plain: dict[str, object]) -> None:
    assert parse(**written) == parse(**plain)


def test_the_environment_is_read_in_every_string() -> None:
    environ = {'TYPE': 's3', 'NAME': 'uploads', 'KEY': 'AK', 'SECRET': 'sk', 'DEEP': 'x', 'ANON': 'false'}
    definition = definition_from_mapping(
        {
            'name': '${NAME}',
            'type': '${TYPE}',
            'bucket': '${NAME}-bucket',
            'key': '${KEY}',
            'secret': '${SECRET}',
            'anon': '${ANON}',
            'ttl': '${TTL:-5s}',
            'uid': '${USER_ID:-12}',
            'region': '${REGION:-}',
            'options': {'list': ['${DEEP}']},
        },
        environ=environ,
    )
    assert definition == S3Definition(
        name='uploads',
        bucket='uploads-bucket',
        key='AK',
        secret='sk',
        ttl_s=5.0,
        uid=12,
        options={'list': ['x']},
    )


def test_options_are_not_shared_with_the_mapping() -> None:
    options = {'nested': {'a': 1}}
    definition = parse(type='memory', options=options)
    options['nested']['a'] = 2
    assert definition.options == {'nested': {'a': 1}}


def test_options_may_hold_objects() -> None:
    session = object()
    assert parse(type='memory', options={'session': session}).options['session'] is session


SECRETIVE = S3Definition(
    name='up',
    bucket='b',
    key='AKIAVALUE',
    secret='sk-value',
    token='tk-value',
    endpoint_url='https://user:pw-value@host',
    options={'client_kwargs': {'password': 'op-value'}, 'n': [7]},
)


@pytest.mark.parametrize('show', [repr, str, '{}'.format, '{!r}'.format, lambda d: repr(d.__rich_repr__())])
def test_secrets_are_masked_wherever_a_definition_is_shown(show: object) -> None:
    shown = show(SECRETIVE)  # type: ignore[operator]
    assert 'value' not in shown.lower()
    assert '7' not in shown
    assert "'***'" in shown
    assert 'https://***@host' in shown


def test_the_repr_tells_what_differs_from_the_defaults() -> None:
    assert repr(LocalDefinition(name='a', path='/x')) == "LocalDefinition(name='a', path='/x')"


def test_definitions_are_frozen_values() -> None:
    definition = LocalDefinition(name='a', path='/x')
    assert definition == LocalDefinition(name='a', path='/x')
    with pytest.raises(AttributeError):
        definition.path = '/y'  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(definition)) == definition
    assert msgspec.structs.replace(definition, path='/y').path == '/y'
    assert copy.copy(definition) == definition


def test_a_definition_with_a_secret_refuses_to_be_pickled() -> None:
    with pytest.raises(StorageConfigError, match=r"mount 'up': options\.client_kwargs\.password, .*key, secret, token"):
        pickle.dumps(SECRETIVE)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'name': 'a/b'}, "key 'name': expected letters"),
        ({'permissions': 'readonly'}, "key 'permissions': expected Permissions"),
        ({'ttl_s': math.nan}, "key 'ttl': expected zero or more seconds"),
        ({'ttl_s': '5s'}, "key 'ttl': expected float"),
        ({'timeout_s': 0}, "key 'timeout': expected more than zero"),
        ({'uid': True}, "key 'uid': expected int"),
        ({'umask': 0o7777}, "key 'umask': expected 0 to 0o777"),
        ({'path': 'relative'}, "key 'path': expected an absolute path"),
        ({'path': '/a/../b'}, "key 'path': expected an absolute path without '..'"),
    ],
)
def test_definitions_made_in_code_are_checked_too(values: dict[str, object], message: str) -> None:
    with pytest.raises(StorageConfigError, match=message):
        LocalDefinition(**{'name': 'a', 'path': '/x', **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('raw', 'expected'),
    [
        ({'key': 'AK', 'secret': '${S}', 'bucket': 'b'}, ['key']),
        ({'key': '${K}', 'secret': '${S:-dev}', 'token': None}, ['secret']),
        ({'options': {'use_ssl': True, 'endpoint': 'http://h', 'key_file': 'f'}}, []),
        ({'options': {'headers': {'Authorization': 'Bearer x', 'Accept': '*'}}}, ['options.headers.Authorization']),
        ({'options': {'password': '${P}', 'account_key': 'x', 'pins': [{'secret': 1}]}},
         ['options.account_key', 'options.pins.secret']),
        ({'endpoint_url': 'https://u:p@host'}, ['endpoint_url']),
        ({'endpoint_url': 'https://u:${P}@host'}, []),
        ({'endpoint_url': 'https://host/a@b'}, []),
        (SECRETIVE, ['options.client_kwargs.password', 'endpoint_url', 'key', 'secret', 'token']),
    ],
)  # fmt: skip
def test_literal_secrets_are_named(raw: dict[str, object], expected: list[str]) -> None:
    assert literal_secrets(raw) == expected


def test_a_definition_is_taken_as_it_is_by_nobody_but_mappings_are() -> None:
    with pytest.raises(TypeError, match='add_mount: expected a mapping, got a text'):
        definition_from_mapping('local', 'add_mount')  # type: ignore[arg-type]


def test_types_are_found_by_name() -> None:
    assert set(TYPES) >= {'local', 'memory', 's3', 'fsspec'}
    assert TYPES['s3'] is S3Definition
