"""S3 without a server: parts, pages, errors, names of places, and what is imported when."""

import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)

from genro_storage.backends.object_entries import entries_of
from genro_storage.backends.object_store_transfers import headers_of, metadata_in
from genro_storage.backends.s3 import S3Backend
from genro_storage.backends.s3_errors import status_of, translate_s3
from genro_storage.backends.s3_multipart import PARTS_MAX, completed_part, part_extents
from genro_storage.backends.s3_requests import page_of
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageNameTooLongError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

_MIB = 1 << 20
_TIB = 1 << 40


@pytest.mark.parametrize('size_bytes', [1, 8 * _MIB, 8 * _MIB + 1, 78 << 30, 79 << 30, _TIB + 17, 5 * _TIB])
def test_parts_cover_all_of_a_file_and_are_never_too_many(size_bytes: int) -> None:
    parts = list(part_extents(size_bytes))
    assert len(parts) <= PARTS_MAX
    assert parts[0].offset == 0
    assert parts[-1].end == size_bytes
    assert all(part.end == following.offset for part, following in pairwise(parts))
    # All of one size but the last, and at least the 5 MiB that S3 demands of them.
    assert len({part.size_bytes for part in parts[:-1]}) <= 1
    assert all(part.size_bytes >= 5 * _MIB for part in parts[:-1])


def test_a_part_is_reported_with_its_checksum() -> None:
    answer = {'ETag': '"e"', 'ChecksumCRC32': 'c', 'ServerSideEncryption': 'AES256', 'ResponseMetadata': {}}
    assert completed_part(3, answer) == {'PartNumber': 3, 'ETag': '"e"', 'ChecksumCRC32': 'c'}


@pytest.mark.parametrize('text', ['plain', 'grüße Å à', '日本', 'latin-\udce9'])
def test_user_metadata_go_into_headers_and_come_back(text: str) -> None:
    headers = headers_of({'name': text})
    assert headers['x-amz-meta-name'].encode('latin-1') == text.encode('utf-8', 'surrogateescape')
    assert metadata_in({'etag': 'x', **headers}) == {'name': text}


def test_a_page_of_a_listing_becomes_entries_without_the_marker() -> None:
    moment = datetime(2024, 1, 1, microsecond=999_000, tzinfo=UTC)

    def item(key: str) -> dict[str, Any]:
        return {'Key': key, 'Size': 5, 'LastModified': moment, 'ETag': '"tag"'}

    page = {
        'CommonPrefixes': [{'Prefix': 'p/d/'}, {'Prefix': 'p//'}, {'Prefix': 'p/../'}],
        'Contents': [item('p/'), item('p/file'), item('p/new\nline')],
    }
    entries = entries_of(page_of(page), 'p/')
    assert [entry.name for entry in entries] == ['d', '', '..', 'file', 'new\nline']
    version = Version('tag', strong=True)
    assert entries[3] == Entry('file', Kind.FILE, 5, 1_704_067_200_000_000_000, version)


def _said(code: str, status: int) -> ClientError:
    response = {'Error': {'Code': code, 'Message': 'm'}, 'ResponseMetadata': {'HTTPStatusCode': status}}
    return ClientError(response, 'Operation')  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('foreign', 'ours'),
    [
        (_said('NoSuchKey', 404), StorageNotFoundError),
        (_said('404', 404), StorageNotFoundError),
        (_said('NoSuchBucket', 404), StorageNotFoundError),
        (_said('AccessDenied', 403), StoragePermissionError),
        (_said('ExpiredToken', 400), StoragePermissionError),
        (_said('SignatureDoesNotMatch', 403), StoragePermissionError),
        (_said('PreconditionFailed', 412), StorageConflictError),
        (_said('ConditionalRequestConflict', 409), StorageConflictError),
        (_said('SlowDown', 503), StorageThrottledError),
        (_said('InternalError', 500), StorageUnavailableError),
        (_said('TooManyRequests', 429), StorageThrottledError),
        (_said('RequestTimeout', 400), StorageTimeoutError),
        (_said('KeyTooLongError', 400), StorageNameTooLongError),
        (_said('NotImplemented', 501), StorageUnsupportedError),
        (_said('PermanentRedirect', 301), StorageConfigError),
        (_said('InvalidRequest', 400), StorageIOError),
        (_said('InvalidObjectState', 403), StoragePermissionError),
        # Of what had said 200 before it failed.
        (_said('AccessDenied', 500), StoragePermissionError),
        (_said('PreconditionFailed', 500), StorageConflictError),
        (_said('SlowDown', 500), StorageThrottledError),
        (EndpointConnectionError(endpoint_url='u'), StorageUnavailableError),
        (ConnectionClosedError(endpoint_url='u'), StorageUnavailableError),
        (ConnectTimeoutError(endpoint_url='u'), StorageTimeoutError),
        (ReadTimeoutError(endpoint_url='u'), StorageTimeoutError),
        (NoCredentialsError(), StoragePermissionError),
        (ProfileNotFound(profile='p'), StorageConfigError),
        (TimeoutError(), StorageTimeoutError),
        (ConnectionResetError(), StorageUnavailableError),
        (RuntimeError('x'), StorageIOError),
    ],
)
def test_each_foreign_error_has_its_own_here(foreign: Exception, ours: type[StorageError]) -> None:
    assert type(translate_s3(foreign, 'bucket', 'place')) is ours


def test_s3fs_hides_the_answer_in_a_cause() -> None:
    error = OSError(22, 'x')
    error.__cause__ = _said('PreconditionFailed', 412)
    assert type(translate_s3(error, 'bucket', 'place')) is StorageConflictError
    assert status_of(error) == 412


def test_a_missing_bucket_is_named() -> None:
    assert "'mine'" in str(translate_s3(_said('NoSuchBucket', 404), 'mine', 'place'))


@pytest.mark.parametrize(
    ('backend', 'destination'),
    [
        (S3Backend('b'), 's3:s3.amazonaws.com/b'),
        (S3Backend('b', 'p/q'), 's3:s3.amazonaws.com/b/p/q'),
        (S3Backend('b', endpoint_url='http://user:pass@host:9000/'), 's3:host:9000/b'),
        (S3Backend('b', key='k', secret='s', token='t', region='r'), 's3:s3.amazonaws.com/b'),
    ],
)
def test_the_destination_is_where_the_data_are_and_without_secrets(backend: S3Backend, destination: str) -> None:
    assert backend.destination == destination


def test_nothing_of_s3_is_imported_before_it_is_used() -> None:
    program = (
        'import sys, genro_storage.backends.s3, genro_storage.backends.fsspec_backend\n'
        'from genro_storage.backends.s3 import S3Backend\n'
        "S3Backend('bucket').close()\n"
        "print([m for m in ('fsspec', 's3fs', 'botocore', 'aiobotocore', 'aiohttp') if m in sys.modules])\n"
    )
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert ended.stdout == '[]\n'


def test_a_missing_package_is_named_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 's3fs', None)
    backend = S3Backend('bucket')
    with pytest.raises(StorageConfigError, match=r"pip install 'genro-storage\[s3\]'"):
        backend.stat('')
