"""Which definitions the obstore driver can serve, and where a bucket is."""

from typing import Any

import pytest

from genro_storage.backends.object_store import ObjectStoreBackend, expresses, s3_address
from genro_storage.errors import StorageConfigError

_KEYS = {'bucket': 'b', 'key': 'k', 'secret': 'hidden', 'endpoint_url': 'http://127.0.0.1:9000'}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('AWS_PROFILE', 'AWS_DEFAULT_PROFILE', 'AWS_REGION', 'AWS_DEFAULT_REGION', 'AWS_CA_BUNDLE'):
        monkeypatch.delenv(name, raising=False)
    for name in ('AWS_ENDPOINT_URL', 'AWS_ENDPOINT_URL_S3'):
        monkeypatch.delenv(name, raising=False)
    for name in ('http_proxy', 'https_proxy', 'all_proxy', 'no_proxy'):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    'changed',
    [
        {},
        {'timeout_s': 5.0, 'token': 'hidden', 'prefix': 'p'},
        {'options': {'addressing_style': 'virtual'}},
        {'key': None, 'secret': None},
        {'key': None, 'secret': None, 'anon': True},
        {'endpoint_url': None, 'region': 'eu-west-1'},
    ],
)
def test_what_it_can_serve_has_no_reason_against_it(changed: dict[str, Any]) -> None:
    assert expresses(**_KEYS | changed) is None


@pytest.mark.parametrize(
    ('changed', 'environment', 'reason'),
    [
        ({'profile': 'work'}, {}, 'profile'),
        ({'options': {'client_kwargs': {'secret': 'hidden'}}}, {}, 'client_kwargs'),
        ({'options': {'addressing_style': 'odd'}}, {}, 'path, virtual'),
        ({'bucket': 'arn:aws:s3:us-east-1:1:accesspoint/x'}, {}, 'access points'),
        ({'bucket': 'name--use1-az4--x-s3'}, {}, 'directory buckets'),
        ({'endpoint_url': None}, {}, 'region'),
        ({'key': None, 'secret': None}, {'AWS_PROFILE': 'work'}, 'AWS_PROFILE'),
        ({'endpoint_url': 'https://s3.example.org'}, {'AWS_CA_BUNDLE': '/some/file'}, 'AWS_CA_BUNDLE'),
        ({'endpoint_url': 'https://s3.example.org'}, {'https_proxy': 'http://proxy:3128'}, 'proxy'),
    ],
)
def test_what_it_cannot_serve_has_a_reason_without_secrets(
    changed: dict[str, Any], environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told = expresses(**_KEYS | changed)
    assert told is not None
    assert reason in told
    assert 'hidden' not in told


def test_a_proxy_that_is_not_for_this_host_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('http_proxy', 'http://proxy:3128')
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    assert expresses(**_KEYS) is None


def test_a_backend_that_cannot_be_is_a_config_error() -> None:
    with pytest.raises(StorageConfigError, match=r'profile.*driver: fsspec'):
        ObjectStoreBackend('b', profile='work')


def test_regions_come_from_the_definition_and_then_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_address('b', None, None).region == 'us-east-1'
    monkeypatch.setenv('AWS_DEFAULT_REGION', 'eu-west-1')
    assert s3_address('b', None, None).region == 'eu-west-1'
    assert s3_address('b', 'eu-north-1', None).region == 'eu-north-1'


@pytest.mark.parametrize(
    ('bucket', 'region', 'endpoint_url', 'style', 'host', 'path'),
    [
        ('my-bucket', 'eu-west-1', None, None, 'my-bucket.s3.eu-west-1.amazonaws.com', '/'),
        ('my.bucket', 'eu-west-1', None, None, 's3.eu-west-1.amazonaws.com', '/my.bucket/'),
        ('my-bucket', 'eu-west-1', None, 'path', 's3.eu-west-1.amazonaws.com', '/my-bucket/'),
        ('my-bucket', 'cn-north-1', None, None, 'my-bucket.s3.cn-north-1.amazonaws.com.cn', '/'),
        ('b', None, 'http://127.0.0.1:9000', None, '127.0.0.1:9000', '/b/'),
        ('b', None, 'https://s3.example.org/', None, 's3.example.org', '/b/'),
        ('b', None, 'https://host/s3/', None, 'host', '/s3/b/'),
        ('b', None, 'https://s3.example.org', 'virtual', 'b.s3.example.org', '/'),
        ('b', None, 'https://user:word@s3.example.org', None, 's3.example.org', '/b/'),
    ],
)
def test_a_bucket_has_an_address(
    bucket: str, region: str | None, endpoint_url: str | None, style: str | None, host: str, path: str
) -> None:
    address = s3_address(bucket, region, endpoint_url, style)
    assert (address.host, address.path) == (host, path)
