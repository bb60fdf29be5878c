"""What SeaweedFS cannot show of S3, by both drivers against moto's server: names as they are, pages of a few keys,
metadata of directories, versioned buckets, tags of objects, storage classes, archives, policies.

Not the contract: moto takes a minute for it and is no judge of it, for it ignores conditions on the source of a copy
and on parts, checks others before it writes and not with it, and finds no key with a line feed.
"""

import json
import os
import traceback
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from genro_storage import StorageManager
from genro_storage.backends.base import ABSENT
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.backends.object_store import ObjectStoreBackend
from genro_storage.backends.s3 import S3Backend
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageError,
    StorageNotFoundError,
    StoragePermissionError,
)
from genro_storage.testing import BytesSource
from genro_storage.testing.contract import names, read, write
from tests.contract.test_object_store import answering, heard_by
from tests.moto_server import PAGE_KEYS, MotoServer, running_moto_server

_MIB = 1 << 20
DRIVERS: dict[str, type[ObjectDirectories]] = {'obstore': ObjectStoreBackend, 'fsspec': S3Backend}


@pytest.fixture(scope='module')
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    with running_moto_server(tmp_path_factory.mktemp('moto')) as server:
        yield server


@pytest.fixture(scope='module')
def session() -> Any:
    """One for all backends here: a new one spends 300 ms on reading botocore's definitions."""
    from aiobotocore.session import AioSession

    return AioSession()


@pytest.fixture(scope='module', params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope='module')
def connect(moto: MotoServer, session: Any, driver: str) -> Callable[..., ObjectDirectories]:
    """A backend of a bucket, and perhaps a prefix, by the driver under test."""
    given = {'endpoint_url': moto.endpoint_url, 'region': moto.region, 'key': moto.key, 'secret': moto.secret}
    if driver == 'fsspec':
        given['options'] = {'session': session}
    return lambda *place, **changed: DRIVERS[driver](*place, **given | changed)


@pytest.fixture
def bucket(moto: MotoServer) -> str:
    return moto.new_bucket()


@pytest.fixture
def backend(connect: Callable[..., ObjectDirectories], bucket: str) -> Iterator[ObjectDirectories]:
    with closing(connect(bucket)) as backend:
        yield backend


class TestNames:
    def test_a_backslash_and_a_slash_are_two_names(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str
    ) -> None:
        write(backend, 'd\\e', b'a file')
        write(backend, 'd/e', b'in a directory')
        assert moto.keys(bucket) == ['d/e', 'd\\e']
        assert names(backend) == {'d\\e', 'd'}
        assert read(backend, 'd\\e') == b'a file'
        backend.copy('d\\e', 'd/\\')
        backend.rename('d\\e', '\\d\\')
        backend.rename('d', 'moved\\here')
        assert moto.keys(bucket) == ['\\d\\', 'moved\\here/\\', 'moved\\here/e']
        backend.remove_file('\\d\\')
        assert names(backend, 'moved\\here') == {'\\', 'e'}

    @pytest.mark.parametrize(
        'name',
        [
            # Not the line feed, which moto finds no key with.
            ''.join(chr(code) for code in range(1, 32) if code != 10) + '\x7f',
            '\x80\x85\x9f\xa0\xad',  # controls, a next line, blanks
            '\u200b\u202e\u2028\ufeff',  # what is not seen, turns round, or ends lines
            '\ufffd\ufffe\uffff\U0010ffff',  # no characters, which XML lacks
            'e\u0301\u1e9b\u0323 \u1100\u1161',  # of several forms
        ],
        ids=ascii,
    )
    def test_what_hardly_is_a_name_goes_everywhere(self, backend: ObjectDirectories, name: str) -> None:
        entry = write(backend, f'{name}/{name}', b'content')
        assert names(backend) == names(backend, name) == {name}
        assert backend.read_range(f'{name}/{name}', 1, 3, entry.version) == b'ont'
        backend.copy(f'{name}/{name}', f'{name}/copy')
        backend.rename(name, 'd')
        assert names(backend, 'd') == {name, 'copy'}
        assert read(backend, f'd/{name}') == b'content'
        backend.remove_file(f'd/{name}')
        assert names(backend, 'd') == {'copy'}


class TestDirectories:
    def test_they_keep_what_is_told_of_them(self, backend: ObjectDirectories) -> None:
        told, other = {'mode': '16877', 'colour': 'blue'}, {'mode': '16832'}
        backend.make_directory('d', metadata=told)
        backend.make_directory('d/e')
        backend.set_metadata('d/e', other, expected=None)
        write(backend, 'd/e/file', b'1')
        backend.remove_file('d/e/file')
        backend.rename('d', 'moved')
        assert backend.metadata('moved') == told
        assert backend.metadata('moved/e') == other
        (listed,) = backend.tell_attributes('moved', backend.list_directory('moved'))
        assert listed.metadata == other


class TestPages:
    def test_pages_of_a_few_keys_are_one_listing(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str
    ) -> None:
        expected = {f'{number}' for number in range(3 * PAGE_KEYS)}
        for name in expected:
            write(backend, f'd/{name}', b'')
        write(backend, 'd/e/below', b'1')
        assert moto.request('list_objects_v2', Bucket=bucket)['IsTruncated']
        assert names(backend, 'd') == expected | {'e'}
        backend.rename('d', 'moved')
        assert names(backend, 'moved') == expected | {'e'}
        assert names(backend) == {'moved'}


class TestVersionedBuckets:
    @pytest.fixture
    def bucket(self, moto: MotoServer) -> str:
        bucket = moto.new_bucket()
        moto.request('put_bucket_versioning', Bucket=bucket, VersioningConfiguration={'Status': 'Enabled'})
        return bucket

    def test_what_has_a_delete_marker_is_not_there(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str
    ) -> None:
        version = write(backend, 'd/file', b'1').version
        write(backend, 'd/other', b'2')
        backend.remove_file('d/file')
        markers = moto.request('list_object_versions', Bucket=bucket)['DeleteMarkers']
        assert [marker['Key'] for marker in markers] == ['d/file']
        for operation in (
            lambda: backend.stat('d/file'),
            lambda: backend.read_range('d/file', 0, 1, None),
            lambda: backend.copy('d/file', 'd/copy'),
            lambda: backend.metadata('d/file'),
        ):
            with pytest.raises(StorageNotFoundError):
                operation()
        with pytest.raises(StorageConflictError):
            backend.put('d/file', BytesSource(b'3'), expected=version)
        assert names(backend, 'd') == {'other'}
        backend.put('d/file', BytesSource(b'3'), expected=ABSENT)
        assert read(backend, 'd/file') == b'3'

    def test_versions_before_are_kept_and_not_seen(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str
    ) -> None:
        first = write(backend, 'd/file', b'first').version
        second = backend.put('d/file', BytesSource(b'second'), expected=first)
        assert backend.stat('d/file').version == second.version
        with pytest.raises(StorageConflictError):
            backend.read_range('d/file', 0, 5, first)
        backend.rename('d', 'e')
        # A listing of moto's goes on showing 'd/', for the sake of delete markers; SeaweedFS's and Amazon's do not.
        with pytest.raises(StorageNotFoundError):
            backend.stat('d')
        assert [entry.size_bytes for entry in backend.list_directory('e')] == [6]
        kept = moto.request('list_object_versions', Bucket=bucket, Prefix='d/file')['Versions']
        assert len(kept) == 2


class TestTagsOfVersions:
    """ETags that are no MD5 of the content."""

    def test_an_object_that_came_in_parts_has_a_version_like_others(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str
    ) -> None:
        data = os.urandom(6 * _MIB)
        tag = moto.put_in_parts(bucket, 'd/file', data, 5 * _MIB)
        assert tag.endswith('-2')
        entry = backend.stat('d/file')
        assert entry.version is not None
        assert entry.version.tag == tag
        assert backend.read_range('d/file', 5 * _MIB - 1, 2, entry.version) == data[5 * _MIB - 1 : 5 * _MIB + 1]
        backend.rename('d', 'e')
        assert read(backend, 'e/file') == data
        assert backend.put('e/file', BytesSource(b'1'), expected=backend.stat('e/file').version).size_bytes == 1

    def test_an_encrypted_object_has_a_version_like_others(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str
    ) -> None:
        moto.request('put_object', Bucket=bucket, Key='d/file', Body=b'content', ServerSideEncryption='aws:kms')
        entry = backend.stat('d/file')
        assert backend.read_range('d/file', 0, 7, entry.version) == b'content'
        backend.rename('d', 'e')
        assert read(backend, 'e/file') == b'content'
        assert backend.put('e/file', BytesSource(b'1'), expected=backend.stat('e/file').version).size_bytes == 1


EXPIRES = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
#: What is told of an object beside its bytes, in botocore's words.
DESCRIBED: dict[str, Any] = {
    'ContentType': 'text/x-odd',
    'ContentEncoding': 'gzip',
    'ContentLanguage': 'fur',
    'ContentDisposition': 'attachment; filename="a b.txt"',
    'CacheControl': 'max-age=60, immutable',
    'Expires': EXPIRES,
    'Metadata': {'colour': 'blue'},
}
TAGS = [{'Key': 'team=a', 'Value': 'a b+c/d:@e'}, {'Key': 'für', 'Value': ''}]
CLASS = 'STANDARD_IA'


def stored(moto: MotoServer, bucket: str, key: str) -> tuple[dict[str, Any], list[dict[str, str]], str]:
    """What is told of an object, its tags and its storage class."""
    head = moto.request('head_object', Bucket=bucket, Key=key)
    tags = moto.request('get_object_tagging', Bucket=bucket, Key=key)['TagSet']
    return {name: head.get(name) for name in DESCRIBED}, tags, head.get('StorageClass', 'STANDARD')


class TestWhatIsKept:
    @pytest.fixture
    def described(self, moto: MotoServer, bucket: str) -> Callable[[str, bytes], None]:
        tagging = '&'.join(f'{quote(tag["Key"])}={quote(tag["Value"])}' for tag in TAGS)
        told: dict[str, Any] = DESCRIBED | {'Tagging': tagging, 'StorageClass': CLASS}
        return lambda key, data: moto.request('put_object', Bucket=bucket, Key=key, Body=data, **told)

    @pytest.fixture
    def in_parts(self, backend: ObjectDirectories) -> None:
        """From here on, what is larger than a part is copied in parts."""
        requests: Any = backend._requests
        transfers = (
            requests._process.get().transfers if isinstance(backend, ObjectStoreBackend) else requests._transfers
        )
        transfers._single_copy_max_bytes = 5 * _MIB

    def test_a_small_object_keeps_all_that_is_told_of_it(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str, described: Callable[[str, bytes], None]
    ) -> None:
        described('d/file', b'content')
        expected = stored(moto, bucket, 'd/file')
        assert expected == (DESCRIBED, TAGS, CLASS)
        backend.copy('d/file', 'd/copy')
        assert stored(moto, bucket, 'd/copy') == expected
        backend.rename('d/file', 'd/renamed')
        assert stored(moto, bucket, 'd/renamed') == expected
        backend.rename('d', 'e')
        assert stored(moto, bucket, 'e/renamed') == expected
        described_anew = backend.set_metadata('e/copy', {'colour': 'red'}, expected=None)
        told, tags, storage_class = stored(moto, bucket, 'e/copy')
        assert (told, tags, storage_class) == (DESCRIBED | {'Metadata': {'colour': 'red'}}, TAGS, CLASS)
        backend.move_seen('e/copy', 'e/moved', described_anew)
        assert stored(moto, bucket, 'e/moved') == (told, tags, storage_class)

    def test_what_is_known_of_one_is_enough_to_move_it_as_it_is(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str, described: Callable[[str, bytes], None]
    ) -> None:
        described('d/file', b'content')
        expected = stored(moto, bucket, 'd/file')
        (seen,) = backend.list_directory('d')
        for name in ('a', 'b'):
            seen = backend.move_seen(f'd/{seen.name}', f'd/{name}', seen)
        backend.move_seen('d/c', 'd/e', backend.copy('d/b', 'd/c'))
        assert stored(moto, bucket, 'd/b') == stored(moto, bucket, 'd/e') == expected

    @pytest.mark.usefixtures('in_parts')
    def test_one_that_is_copied_in_parts_does_too(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str, described: Callable[[str, bytes], None]
    ) -> None:
        described('d/file', bytes(6 * _MIB))
        expected = stored(moto, bucket, 'd/file')
        backend.rename('d/file', 'd/renamed')
        version = backend.stat('d/renamed').version
        assert version is not None
        assert version.tag.endswith('-2')
        assert stored(moto, bucket, 'd/renamed') == expected
        backend.set_metadata('d/renamed', {'colour': 'red'}, expected=None)
        told, tags, storage_class = stored(moto, bucket, 'd/renamed')
        assert (told, tags, storage_class) == (DESCRIBED | {'Metadata': {'colour': 'red'}}, TAGS, CLASS)
        assert backend.stat('d/renamed').size_bytes == 6 * _MIB

    @pytest.mark.usefixtures('in_parts')
    @pytest.mark.parametrize('size_bytes', [1, 6 * _MIB])
    def test_a_copy_with_metadata_of_its_own_is_a_new_file(
        self,
        backend: ObjectDirectories,
        moto: MotoServer,
        bucket: str,
        described: Callable[[str, bytes], None],
        size_bytes: int,
    ) -> None:
        described('file', bytes(size_bytes))
        backend.copy('file', 'copy.txt', metadata={'shape': 'round'})
        told, tags, storage_class = stored(moto, bucket, 'copy.txt')
        assert {name: value for name, value in told.items() if value} == {
            'ContentType': 'text/plain',
            'Metadata': {'shape': 'round'},
        }
        assert (tags, storage_class) == (TAGS, 'STANDARD')

    def test_text_beyond_ascii_comes_back_as_it_was(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str
    ) -> None:
        """botocore sends no such metadata, so what is changed of them is of our driver alone."""
        disposition = 'attachment; filename="Åà grüße.txt"'
        put_raw(moto, bucket, 'file', {'x-amz-meta-name': 'Åà grüße', 'content-disposition': disposition})
        assert backend.metadata('file') == {'name': 'Åà grüße'}
        backend.rename('file', 'renamed')
        assert raw_headers(backend, 'renamed', 'content-disposition', 'x-amz-meta-name') == [
            disposition,
            'Åà grüße',
        ]
        if isinstance(backend, ObjectStoreBackend):
            backend.set_metadata('renamed', {'name': 'Åà', 'other': '日本'}, expected=None)
            assert backend.metadata('renamed') == {'name': 'Åà', 'other': '日本'}
            assert raw_headers(backend, 'renamed', 'content-disposition') == [disposition]


def put_raw(moto: MotoServer, bucket: str, key: str, headers: dict[str, str]) -> None:
    """Store an object with headers in UTF-8, as browsers and other clients do."""
    with closing(HTTPConnection(urlsplit(moto.endpoint_url).netloc)) as connection:
        sent: Any = {name: value.encode() for name, value in headers.items()}
        connection.request('PUT', f'/{bucket}/{quote(key)}', b'content', sent)
        assert connection.getresponse().status == 200


def raw_headers(backend: ObjectDirectories, path: str, *wanted: str) -> list[str | None]:
    with urllib.request.urlopen(backend.url(path, 60), timeout=10) as answer:
        found = [answer.headers.get(name) for name in wanted]
    return [value and value.encode('latin-1').decode() for value in found]


class TestArchived:
    @pytest.fixture
    def archived(self, moto: MotoServer, bucket: str) -> str:
        moto.request('put_object', Bucket=bucket, Key='d/old', Body=b'content', StorageClass='GLACIER')
        return 'd/old'

    def test_it_is_looked_at_and_not_read(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str, archived: str
    ) -> None:
        entry = backend.stat(archived)
        assert (entry.size_bytes, entry.is_file) == (7, True)
        assert entry.mtime_ns > 0
        assert [listed.size_bytes for listed in backend.list_directory('d')] == [7]
        assert backend.stat_and_read(archived, 100) == (entry, None)
        for operation in (
            lambda: backend.read_range(archived, 0, 7, None),
            lambda: backend.read_range(archived, 0, 7, entry.version),
        ):
            with pytest.raises(StoragePermissionError, match=r'archived.*RestoreObject') as caught:
                operation()
            assert not isinstance(caught.value, FileNotFoundError)
        backend.remove_file(archived)
        assert names(backend, 'd') == set()

    def test_what_was_restored_is_read_and_its_copy_is_no_archive(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str, archived: str
    ) -> None:
        moto.request('restore_object', Bucket=bucket, Key=archived, RestoreRequest={'Days': 1})
        assert read(backend, archived) == b'content'
        backend.rename(archived, 'd/new')
        assert read(backend, 'd/new') == b'content'
        assert stored(moto, bucket, 'd/new')[2] == 'STANDARD'

    def test_the_mount_says_what_to_do(
        self, moto: MotoServer, bucket: str, archived: str, driver: str, tmp_path: Path
    ) -> None:
        with manager(moto, bucket, tmp_path, driver=driver) as storage:
            node = storage.node('cloud', archived)
            assert node.size == 7
            with pytest.raises(StoragePermissionError, match=rf"{bucket}: 'd/old'.*restored"):
                node.read_bytes()


def manager(moto: MotoServer, bucket: str, folder: Path, **more: Any) -> StorageManager:
    storage = StorageManager()
    place = {'type': 's3', 'bucket': bucket, 'endpoint_url': moto.endpoint_url, 'region': moto.region}
    definition = {'name': 'cloud', 'key': moto.key, 'secret': moto.secret, **place, **more}
    storage.configure({'mounts': [definition], 'cache': {'path': str(folder / 'cache')}})
    return storage


class TestRefusals:
    def test_keys_that_a_policy_protects_are_said_to_be(
        self, backend: ObjectDirectories, moto: MotoServer, bucket: str
    ) -> None:
        for name in ('a', 'kept', 'z'):
            write(backend, f'd/{name}', b'1')
        kept = {
            'Effect': 'Deny',
            'Principal': '*',
            'Action': 's3:DeleteObject',
            'Resource': f'arn:aws:s3:::{bucket}/d/kept',
        }
        policy = {'Version': '2012-10-17', 'Statement': [kept]}
        moto.request('put_bucket_policy', Bucket=bucket, Policy=json.dumps(policy))
        with pytest.raises(StoragePermissionError, match=r"'d/kept': AccessDenied.*policy.*\(1 of 4 keys"):
            backend.rename('d', 'e')
        assert moto.keys(bucket) == ['d/kept', 'e/a', 'e/kept', 'e/z']

    def test_who_may_not_is_told_the_place_and_no_secret(
        self, connect: Callable[..., ObjectDirectories], moto: MotoServer, bucket: str, driver: str, tmp_path: Path
    ) -> None:
        for key in ('open/file', 'secret/file'):
            moto.put(bucket, key, b'content')
        user = new_user(moto, bucket)
        with moto.authorising():
            with closing(connect(bucket, **user)) as backend:
                assert read(backend, 'open/file') == b'content'
                for operation in (
                    lambda: backend.stat('secret/file'),
                    lambda: backend.read_range('secret/file', 0, 1, None),
                    lambda: backend.set_metadata('secret/file', {}, expected=backend.stat('open/file').version),
                    lambda: write(backend, 'open/new', b'1'),
                ):
                    with pytest.raises(StoragePermissionError, match=bucket) as caught:
                        operation()
                    assert user['secret'] not in ''.join(traceback.format_exception(caught.value))
            with (
                manager(moto, bucket, tmp_path, driver=driver, **user) as storage,
                pytest.raises(StoragePermissionError, match=rf"{bucket}: 'secret/file': AccessDenied.*policy"),
            ):
                storage.node('cloud:secret/file').read_bytes()
            for wrong, said in (({'key': 'AKIANOBODY'}, "is 'key' right"), ({}, "is 'secret' right")):
                with (
                    closing(connect(bucket, **user | {'secret': 'wrong'} | wrong)) as backend,
                    pytest.raises(StoragePermissionError, match=said),
                ):
                    backend.stat('open/file')

    @pytest.mark.parametrize(
        ('status', 'code', 'error', 'said'),
        [
            ('400 Bad Request', 'ExpiredToken', StoragePermissionError, 'get new credentials'),
            ('301 Moved Permanently', 'PermanentRedirect', StorageConfigError, "give 'region: mx-central-1'"),
            ('400 Bad Request', 'AuthorizationHeaderMalformed', StorageConfigError, "give 'region: mx-central-1'"),
            ('403 Forbidden', 'RequestTimeTooSkewed', StorageConfigError, 'clock'),
        ],
    )
    def test_what_moto_never_answers_says_what_to_do(
        self, connect: Callable[..., ObjectDirectories], status: str, code: str, error: type[StorageError], said: str
    ) -> None:
        """Amazon repeats a token that has expired; and the answer to a HEAD says none of this."""
        answer = refusal(status, code, '<Token-0>session-token</Token-0>')
        with answering(answer) as url, closing(connect('bucket', endpoint_url=url, token='session-token')) as backend:
            for operation in (
                lambda: backend.stat('file'),
                lambda: backend.headers('file'),
                lambda: backend.list_directory(''),
                lambda: backend.read_range('file', 0, 1, None),
                lambda: backend.put('file', BytesSource(b'1'), placed=True),
            ):
                with pytest.raises(error, match=said) as caught:
                    operation()
                assert 'session-token' not in ''.join(traceback.format_exception(caught.value))

    def test_what_fails_behind_a_200_is_what_it_says(self, connect: Callable[..., ObjectDirectories]) -> None:
        with (
            answering(refusal('200 OK', 'AccessDenied')) as url,
            closing(connect('bucket', endpoint_url=url)) as backend,
            pytest.raises(StoragePermissionError, match='AccessDenied'),
        ):
            backend._requests.copy('a', 'b', 1)

    def test_who_pays_is_told_with_every_request(self, session: Any) -> None:
        """As docs/backends/s3.md says; moto takes no notice of it."""
        with heard_by(refusal('403 Forbidden', 'AccessDenied')) as (url, heard):
            options = {'session': session, 's3_additional_kwargs': {'RequestPayer': 'requester'}}
            with closing(S3Backend('bucket', endpoint_url=url, key='k', secret='s', options=options)) as backend:
                for operation in (
                    lambda: backend.stat('file'),
                    lambda: backend.list_directory(''),
                    lambda: backend.read_range('file', 0, 1, None),
                ):
                    with pytest.raises(StoragePermissionError):
                        operation()
        assert len(heard) > 3
        assert all(b'x-amz-request-payer: requester' in request.lower() for request in heard)


def refusal(status: str, code: str, more: str = '') -> bytes:
    """An answer that refuses, of a bucket in Mexico."""
    body = f'<Error><Code>{code}</Code><Message>no</Message>{more}</Error>'.encode()
    head = f'HTTP/1.1 {status}\r\nx-amz-bucket-region: mx-central-1\r\nContent-Length: {len(body)}\r\n'
    return head.encode() + b'Connection: close\r\n\r\n' + body


def new_user(moto: MotoServer, bucket: str) -> dict[str, str]:
    """Who may list a bucket and read what is in open/, and nothing else."""
    iam = moto.client('iam')
    name = f'user-{uuid.uuid4().hex[:12]}'
    iam.create_user(UserName=name)
    allowed = [('s3:ListBucket', ''), ('s3:GetObject', '/open/*')]
    statements = [
        {'Effect': 'Allow', 'Action': action, 'Resource': f'arn:aws:s3:::{bucket}{below}'} for action, below in allowed
    ]
    policy = json.dumps({'Version': '2012-10-17', 'Statement': statements})
    iam.put_user_policy(UserName=name, PolicyName='some', PolicyDocument=policy)
    keys = iam.create_access_key(UserName=name)['AccessKey']
    iam.close()
    return {'key': keys['AccessKeyId'], 'secret': keys['SecretAccessKey']}
