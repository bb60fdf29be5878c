"""The JSON Schema of a file: what is right validates, and what the checker refuses it refuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from genro_storage.config import TYPES, check, descriptions, keys
from genro_storage.config.schema import schema
from genro_storage.config.sources import CacheSettings

VALIDATOR = Draft7Validator(schema())
MEMORY = {'name': 'm', 'type': 'memory'}
LOCAL = {'name': 'm', 'type': 'local', 'path': '/x'}
S3 = {'name': 'm', 'type': 's3', 'bucket': 'b'}

GOOD: list[Any] = [
    [],
    {'mounts': []},
    {'include': ['conf.d/*.yaml']},
    {'mounts': [MEMORY], 'cache': {'disk': '10GiB', 'memory': 1000, 'path': '~/c'}, 'defaults': {'ttl': '1m'}},
    {'mounts': [], 'cache': None, 'defaults': None, 'include': None},
    [{**MEMORY, 'ttl': ttl} for ttl in ('10s', '250ms', ' 2 h ', 5, 0.5, 'forever', 'Forever', '${TTL:-5s}')][:1],
    *([{**MEMORY, 'ttl': ttl}] for ttl in ('250ms', ' 2 h ', 5, 0.5, 'forever', 'Forever', '${TTL:-5s}', '5')),
    *([{**MEMORY, 'umask': umask}] for umask in ('022', 18, '0o77', '${U:-022}', None, '')),
    *([{**S3, 'anon': anon}] for anon in (True, False, 'yes', 'Off', '${A:-no}', 1, 0)),
    *([{**MEMORY, 'uid': uid}] for uid in (0, 1000, '1000', '${U:-1}', None)),
    *([{**MEMORY, 'cache': cache}] for cache in ('off', False, 'memory', 'disk', '${C:-off}')),
    *([{**MEMORY, 'name': name}] for name in ('a', 'a-b_c.d', 'é', '1', '${N:-n}')),
    [{**S3, 'region': None, 'key': 'env:K', 'secret': 'file:~/s', 'token': ''}],
    [{**S3, 'prefix': 'a/b'}, {**S3, 'name': 'n', 'base_path': 'a'}],
    [{'name': 'm', 'protocol': 'local', 'base_path': '/x'}],
    [{'name': 'm', 'type': 'local', 'protocol': 'local', 'path': 'x'}],
    [{'name': 'm', 'type': 'fsspec', 'protocol': 'sftp', 'path': '/x', 'options': {'host': 'h', 'port': 22}}],
    [{'name': 'm', 'type': 'gcs', 'bucket': 'b', 'token': '/key.json', 'project': 'p'}],
    *(
        [{'name': 'm', 'type': 'zip', 'file': file}]
        for file in ('a.zip', '/x/a.zip', '~/a.zip', 'home:x/a.zip', './a:b')
    ),
    [{'name': 'm', 'type': 'tar', 'file': 'other:a.tar', 'permissions': 'readonly'}, {**MEMORY, 'name': 'other'}],
    [{'name': 'm', 'type': 'libarchive', 'file': '${F:-a.7z}'}],
    [{'name': 'm', 'type': 'git', 'base_path': '.'}, {'name': 'n', 'type': 'git', 'path': '/x', 'ref': 'v1.0'}],
    [{'name': 'm', 'type': 'github', 'org': 'o', 'repo': 'r', 'ref': None, 'token': 'env:TOKEN', 'ttl': '1m'}],
    *([{'name': 'm', 'type': 'relative', 'path': path}] for path in ('a:', 'a:b/c', '${P:-a:b}')),
    [{'name': 'm', 'type': 'base64'}],
    [{'name': 'm', 'type': 'azure', 'container': 'abc', 'account_name': 'acc', 'endpoint_url': 'http://h'}],
]

BAD: list[Any] = [
    7,
    'mounts',
    {},
    MEMORY,
    {'mounts': {}},
    {'mount': []},
    {'mounts': [], 'chache': {}},
    {'mounts': [], 'include': 7},
    {'mounts': [], 'include': [7]},
    {'mounts': [], 'cache': {'dsk': 1}},
    {'mounts': [], 'cache': {'disk': '10G'}},
    {'mounts': [], 'cache': {'disk': -1}},
    {'mounts': [], 'defaults': {'bucket': 'b'}},
    {'mounts': [], 'defaults': {'name': 'b'}},
    {'mounts': [], 'defaults': []},
    [7],
    [{'type': 'memory'}],
    [{'name': 'm'}],
    [{'name': 'm', 'type': 's33'}],
    [{'name': 'm', 'type': 7}],
    [{'name': 'm', 'type': 'fsspec'}],
    [{'name': 'm', 'protocol': 'sftp'}],
    [{'name': 'm', 'type': 's3'}],
    [{'name': 'm', 'type': 'local'}],
    [{**S3, 'buket': 'b'}],
    [{**S3, 'bucket': 7}],
    [{**S3, 'bucket': ''}],
    [{**S3, 'prefix': '../x'}],
    [{**S3, 'anon': 'perhaps'}],
    [{**S3, 'protocol': 'local'}],
    [{**LOCAL, 'path': 'a/../b'}],
    *([{'name': 'm', 'type': 'zip', 'file': file}] for file in (None, 7, '', 'a/../b.zip', 'home:../x.zip')),
    *([{'name': 'm', 'type': 'relative', 'path': path}] for path in ('a', ':b', 'a:../b', '/a:b', 7)),
    [{'name': 'm', 'type': 'zip'}],
    [{'name': 'm', 'type': 'git'}],
    [{'name': 'm', 'type': 'github', 'org': 'o'}],
    [{**LOCAL, 'path': None}],
    [{**MEMORY, 'bucket': 'b'}],
    *([{**MEMORY, 'ttl': ttl}] for ttl in ('soon', -1, '5 weeks', None, [], '')),
    *([{**MEMORY, 'timeout': timeout}] for timeout in ('forever', 0, 'x')),
    *([{**MEMORY, 'umask': umask}] for umask in ('088', 512, 'x', 1.5)),
    *([{**MEMORY, 'uid': uid}] for uid in (-1, 2**32 - 1, 'root', 1.5)),
    *([{**MEMORY, 'permissions': given}] for given in ('write', None, True)),
    *([{**MEMORY, 'name': name}] for name in ('', '.a', 'a/b', 'a b', 'a:b', 7)),
    [{**MEMORY, 'options': []}],
]


@pytest.mark.parametrize('value', GOOD, ids=str)
def test_what_is_right_validates(value: Any) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(value)] == []
    assert found(value) == []


@pytest.mark.parametrize('value', BAD, ids=str)
def test_what_is_wrong_fails_as_it_does_when_it_is_checked(value: Any) -> None:
    assert found(value)
    assert not VALIDATOR.is_valid(value)


def found(value: Any) -> list[Any]:
    return check(lambda: value, environ={})[1] if isinstance(value, list | dict) else [value]


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(schema())


def test_every_key_of_every_type_has_a_description() -> None:
    """A new key needs a sentence in descriptions."""
    missing = [
        f'{name}.{key}'
        for name, struct in TYPES.items()
        for key in keys.fields_of(struct)
        if descriptions.of_key(name, key) is None
    ]
    assert missing == []
    assert set(keys.fields_of(CacheSettings)) == set(descriptions.CACHE)


def test_yaml_as_it_is_written_validates(tmp_path: Path) -> None:
    text = 'mounts:\n- name: up\n  type: s3\n  bucket: b\n  cache: off\n  umask: 022\n  prefix: 2024-01-31\n'
    path = tmp_path / 'storage.yaml'
    path.write_text(text)
    assert check(path)[1] == []
    VALIDATOR.validate(yaml.load(text, yaml.BaseLoader))
