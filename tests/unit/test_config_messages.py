"""What a wrong definition is told, word for word: source, mount, key, what was expected, the nearest right word."""

from typing import Any

import pytest

from genro_storage.config import TYPES, definition_from_mapping, load
from genro_storage.errors import StorageConfigError

S3 = {'name': 'uploads', 'type': 's3', 'bucket': 'b'}
LOCAL = {'name': 'home', 'type': 'local', 'path': '/x'}
MEMORY = {'name': 'm', 'type': 'memory'}

_TYPES = 'azure, base64, fsspec, gcs, git, github, libarchive, local, memory, relative, s3, tar, zip'


def told(source: Any, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(StorageConfigError) as caught:
        load(source, environ=environ or {})
    return str(caught.value).split('\n')


A_NAME = "expected letters, digits, '_', '-' and '.', not starting with a dot"
A_TIME = "expected a time such as '10s', '5m' or a number of seconds"
A_SIZE = "expected a size such as '256MiB', '1.5GB' or a number of bytes"
_TYPES = ', '.join(sorted(TYPES))
AN_UMASK = "expected an octal umask such as '022'"


@pytest.mark.parametrize(
    ('mount', 'line'),
    [
        ({**S3, 'buket': 'x'}, "a list: mount 'uploads': unknown key 'buket'; did you mean 'bucket'?"),
        ({'name': 'm', 'tpye': 'local'}, "a list: mount 'm': unknown key 'tpye'; did you mean 'type'?"),
        ({**S3, 'type': 's33'}, "a list: mount 'uploads': unknown type 's33'; did you mean 's3'?"),
        ({**S3, 'type': 'S3'}, "a list: mount 'uploads': unknown type 'S3'; did you mean 's3'?"),
        ({'name': 'm', 'type': 'loacl'}, "a list: mount 'm': unknown type 'loacl'; did you mean 'local'?"),
        (
            {'name': 'm'},
            f"a list: mount 'm': key 'type' is missing; expected one of {_TYPES}",
        ),
        (
            {'name': 'm', 'type': 7},
            f"a list: mount 'm': unknown type 7; expected one of {_TYPES}",
        ),
        ({'name': 'm', 'type': 's3'}, "a list: mount 'm': key 'bucket' is missing; a mount of type s3 needs it"),
        ({'type': 'memory'}, "a list: mount 1: key 'name' is missing; a mount of type memory needs it"),
        (
            {'name': 'a/b', 'type': 'memory'},
            f"a list: mount 1: key 'name': {A_NAME}, got 'a/b'",
        ),
        (
            {'name': '.git', 'type': 'memory'},
            f"a list: mount 1: key 'name': {A_NAME}, got '.git'",
        ),
        ({'name': True, 'type': 'memory'}, "a list: mount 1: key 'name': expected text, got true; put it in quotes"),
        (
            {**MEMORY, 'ttl': 'soon'},
            f"a list: mount 'm': key 'ttl': {A_TIME}, or 'forever', "
            "got 'soon'",
        ),
        (
            {**MEMORY, 'timeout': 'forever'},
            f"a list: mount 'm': key 'timeout': {A_TIME}, got 'forever'",
        ),
        (
            {**MEMORY, 'permissions': 'write'},
            "a list: mount 'm': key 'permissions': expected one of readonly, readwrite, delete, got 'write'",
        ),
        (
            {**MEMORY, 'permissions': None},
            "a list: mount 'm': key 'permissions': expected one of readonly, readwrite, delete, got nothing",
        ),
        ({**MEMORY, 'umask': '088'}, f"a list: mount 'm': key 'umask': {AN_UMASK}, got '088'"),
        ({**MEMORY, 'umask': 0o1000}, f"a list: mount 'm': key 'umask': {AN_UMASK}, got 512"),
        (
            {**MEMORY, 'uid': -1},
            "a list: mount 'm': key 'uid': expected a whole number from 0 to 4294967294, got -1",
        ),
        ({**MEMORY, 'options': ['a']}, "a list: mount 'm': key 'options': expected a mapping, got a list"),
        (
            {**MEMORY, 'options': {1: 'a'}},
            "a list: mount 'm': key 'options': a key inside it is no text; put it in quotes",
        ),
        ({**MEMORY, 5: 'a'}, "a list: mount 1: key 5: expected text; put it in quotes"),
        ({**S3, 'anon': 'perhaps'}, "a list: mount 'uploads': key 'anon': expected true or false, got 'perhaps'"),
        ({**S3, 'region': 7}, "a list: mount 'uploads': key 'region': expected text, got 7; put it in quotes"),
        (
            {**S3, 'prefix': 'a/../b'},
            "a list: mount 'uploads': key 'prefix': \"..\" is not allowed in 'a/../b': a path never leaves its mount",
        ),
        (
            {**S3, 'bucket': 'b/folder'},
            "a list: mount 'uploads': key 'bucket': expected the name of a bucket; "
            "a folder inside it goes into 'prefix'",
        ),
        (
            {**S3, 'endpoint_url': 'host:9000'},
            "a list: mount 'uploads': key 'endpoint_url': expected a URL that starts with http:// or https://",
        ),
        (
            {**S3, 'key': 'k'},
            "a list: mount 'uploads': key 'secret': missing; 'key' and 'secret' go together",
        ),
        (
            {**S3, 'base_path': 'a', 'prefix': 'b'},
            "a list: mount 'uploads': keys 'base_path' and 'prefix' mean the same and differ; keep one of them",
        ),
        (
            {**S3, 'protocol': 'local'},
            "a list: mount 'uploads': keys 'type' and 'protocol' mean the same and differ; keep one of them",
        ),
        ({**LOCAL, 'path': '../x'}, "a list: mount 'home': key 'path': expected a path without '..', got '../x'"),
        (
            {**LOCAL, 'path': '~nobody-of-that-name/x'},
            "a list: mount 'home': key 'path': expected a path; nobody has a home folder of that name, "
            "got '~nobody-of-that-name/x'",
        ),
        ({**LOCAL, 'path': ''}, "a list: mount 'home': key 'path': expected text, got ''"),
        (
            {**LOCAL, 'path': '${DATA}/x'},
            "a list: mount 'home': key 'path': the environment variable 'DATA' is not set; "
            'set it, or give a default: ${DATA:-…}',
        ),
        (
            {'name': 'm', 'type': 'fsspec', 'protocol': 'http', 'path': 'https://u:pw@host/../x'},
            "a list: mount 'm': key 'path': expected a path without '..', got 'https://***@host/../x'",
        ),
        ('local', 'a list: mount 1: expected a mapping, got a text'),
        (None, 'a list: mount 1: expected a mapping, got nothing'),
    ],
)  # fmt: skip
def test_a_wrong_mount_is_told_what_was_expected(mount: Any, line: str) -> None:
    assert told([mount]) == [line]


@pytest.mark.parametrize(
    ('source', 'line'),
    [
        ({}, "a mapping: key 'mounts' is missing; expected a list of mounts in it"),
        ({'mount': []}, "a mapping: unknown key 'mount'; did you mean 'mounts'?"),
        ({'mounts': None}, "a mapping: key 'mounts': expected a list, got nothing"),
        ({'mounts': {'home': LOCAL}}, "a mapping: key 'mounts': expected a list, got a mapping"),
        ({3: []}, 'a mapping: key 3: expected text; put it in quotes'),
        (MEMORY, "a mapping: expected a list of mounts, got a single one; begin it with '- ', or put it in brackets"),
        ({'mounts': [], 'cache': 'big'}, "a mapping: key 'cache': expected a mapping, got a text"),
        (
            {'mounts': [], 'cache': {'size': 1}},
            "a mapping: cache: unknown key 'size'; expected one of disk, memory, path",
        ),
        (
            {'mounts': [], 'cache': {'disk': '10 GiBi'}},
            f"a mapping: cache: key 'disk': {A_SIZE}, got '10 GiBi'",
        ),
        ({'mounts': [], 'defaults': {'tttl': 1}}, "a mapping: defaults: unknown key 'tttl'; did you mean 'ttl'?"),
        (
            {'mounts': [MEMORY], 'defaults': {'cache': 'huge'}},
            "a mapping: defaults: key 'cache': expected one of off, memory, disk, got 'huge'",
        ),
        ([MEMORY, LOCAL, MEMORY], "a list: mount 'm': defined twice, as mount 1 and mount 3"),
    ],
)
def test_a_wrong_source_is_told_its_shape(source: Any, line: str) -> None:
    assert told(source)[0] == line


def test_a_bucket_is_no_default() -> None:
    assert told({'mounts': [], 'defaults': {'bucket': 'b'}})[0].startswith(
        "a mapping: defaults: unknown key 'bucket'; expected one of cache, driver, "
    )


def test_all_problems_are_told_at_once() -> None:
    source = {
        'mounts': [{**S3, 'buket': 1, 'ttl': 'x'}, 7, {'name': 'n', 'type': 'ftpp'}, {**MEMORY, 'uid': '${UID_}'}],
        'cache': {'memory': -1},
        'defaults': {'posix': 'maybe'},
    }
    assert [line.split('; ')[0].split(', got')[0] for line in told(source)] == [
        "a mapping: defaults: key 'posix': expected one of ignore, store, strict",
        "a mapping: mount 'uploads': unknown key 'buket'",
        f"a mapping: mount 'uploads': key 'ttl': {A_TIME}, or 'forever'",
        'a mapping: mount 2: expected a mapping',
        "a mapping: mount 'n': unknown type 'ftpp'",
        "a mapping: mount 'm': key 'uid': the environment variable 'UID_' is not set",
        f"a mapping: cache: key 'memory': {A_SIZE}",
    ]


@pytest.mark.parametrize(
    ('key', 'value', 'line'),
    [
        ('secret', 90210, "key 'secret': expected text, got a number; put it in quotes"),
        ('key', ['hunter2'], "key 'key': expected text, got a list"),
        ('token', {'a': 'hunter2'}, "key 'token': expected text, got a mapping"),
        ('secret', 'hunter2\0', "key 'secret': expected text without a NUL, got a text"),
        ('secret', 'hunter2${', "key 'secret': a '${' without '}'"),
        ('options', 'hunter2', "key 'options': expected a mapping, got a text"),
        ('options', {'a': 'hunter2${X}'}, "key 'options': the environment variable 'X' is not set"),
    ],
)
def test_messages_about_secret_keys_never_show_the_value(key: str, value: object, line: str) -> None:
    (message,) = told([{**S3, 'key': 'k', 'secret': 's', key: value}])
    assert message.startswith(f"a list: mount 'uploads': {line}")
    assert 'hunter2' not in message
    assert '90210' not in message


def test_long_values_are_cut() -> None:
    (message,) = told([{**MEMORY, 'permissions': 'x' * 5000}])
    assert len(message) < 250


def test_a_single_definition_is_told_its_origin() -> None:
    with pytest.raises(
        StorageConfigError, match=r"^add_mount: mount 'm': unknown key 'x'; expected one of base_path, "
    ):
        definition_from_mapping({'name': 'm', 'type': 'local', 'path': '/x', 'x': 1}, 'add_mount')
    with pytest.raises(StorageConfigError, match=r"^key 'name' is missing; a mount of type memory needs it$"):
        definition_from_mapping({'type': 'memory'})
