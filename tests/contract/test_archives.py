"""The contract of what can only be read, kept by archives and repositories, on real ones."""

import zipfile
from collections.abc import Iterator

import pytest

from genro_storage import StorageManager
from genro_storage.backends.base import Backend
from genro_storage.backends.registry import create
from genro_storage.config import definition_from_mapping
from genro_storage.runtime import SystemClock
from genro_storage.testing.contract import TREE, ReadOnlyContract
from tests.archives import GitFolder, tar_of, zip_of
from tests.github_stub import GithubStub
from tests.mount.mounted import s3_definition
from tests.servers import S3Server


def backend_of(type_name: str, **keys: str) -> Backend:
    return create(definition_from_mapping({'name': 'm', 'type': type_name, **keys}), SystemClock())


@pytest.fixture(scope='module')
def git_folder(tmp_path_factory: pytest.TempPathFactory) -> GitFolder:
    """A repository of TREE on a branch that is not checked out."""
    repository = GitFolder(tmp_path_factory.mktemp('git') / 'repository')
    repository.write(TREE)
    repository.commit()
    repository.git('branch', 'tree')
    repository.git('rm', '--quiet', '-r', '.')
    repository.write({'other': b'another commit'})
    repository.commit()
    return repository


class TestZip(ReadOnlyContract):
    @pytest.fixture(
        scope='class',
        params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
        ids=['stored', 'deflated', 'bzip2', 'lzma'],
    )
    @classmethod
    def backend(cls, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Backend]:
        path = tmp_path_factory.mktemp('zip') / 'tree.zip'
        path.write_bytes(zip_of(TREE, request.param))
        backend = backend_of('zip', file=str(path))
        yield backend
        backend.close()


class TestTar(ReadOnlyContract):
    @pytest.fixture(scope='class', params=['w', 'w:gz', 'w:bz2', 'w:xz'])
    @classmethod
    def backend(cls, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Backend]:
        path = tmp_path_factory.mktemp('tar') / 'tree.tar'
        path.write_bytes(tar_of(TREE, request.param))
        backend = backend_of('tar', file=str(path))
        yield backend
        backend.close()


class TestLibarchive(ReadOnlyContract):
    """Real archives of two kinds that the standard library does not know, written by libarchive itself."""

    composes_names = True

    @pytest.fixture(scope='class', params=[('7zip', None), ('pax', 'zstd')], ids=['7zip', 'tar.zst'])
    @classmethod
    def backend(cls, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Backend]:
        import libarchive

        path = tmp_path_factory.mktemp('libarchive') / 'tree'
        with libarchive.file_writer(str(path), *request.param) as archive:
            for name, data in TREE.items():
                archive.add_file_from_memory(name, len(data), data, mtime=1_700_000_000)
        backend = backend_of('libarchive', file=str(path))
        yield backend
        backend.close()


class TestZipInAnotherMount(ReadOnlyContract):
    """Inside a tar archive, which is in a memory mount."""

    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls) -> Iterator[Backend]:
        with StorageManager() as storage:
            storage.configure(
                [
                    {'name': 'inner', 'type': 'zip', 'file': 'outer:a/tree.zip'},
                    {'name': 'outer', 'type': 'tar', 'file': 'shelf:outer.tar.gz', 'cache': 'memory'},
                    {'name': 'shelf', 'type': 'memory'},
                ]
            )
            storage.node('shelf:outer.tar.gz').write_bytes(tar_of({'a/tree.zip': zip_of(TREE)}, 'w:gz'))
            yield storage.volume('inner').backend


class TestTarInABucket(ReadOnlyContract):
    """Through the block cache of the mount of the bucket."""

    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
        bucket = s3_server.new_bucket()
        s3_server.put(bucket, 'in/tree.tar.gz', tar_of(TREE, 'w:gz'))
        with StorageManager() as storage:
            storage.configure(
                {
                    'cache': {'path': str(tmp_path_factory.mktemp('cache'))},
                    'mounts': [
                        s3_definition(s3_server, bucket),
                        {'name': 'tar', 'type': 'tar', 'file': 'bucket:in/tree.tar.gz'},
                    ],
                }
            )
            yield storage.volume('tar').backend


class TestGit(ReadOnlyContract):
    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, git_folder: GitFolder) -> Iterator[Backend]:
        backend = backend_of('git', path=str(git_folder.folder), ref='tree')
        yield backend
        backend.close()


class TestGithubStub(ReadOnlyContract):
    """A stub of GitHub's API over a real repository: GitHub itself is nowhere near the tests."""

    @pytest.fixture(scope='class')
    @classmethod
    def backend(cls, git_folder: GitFolder) -> Iterator[Backend]:
        with GithubStub(git_folder, 'someone', 'something').running() as stub:
            backend = backend_of('github', org='someone', repo='something', ref='tree', endpoint_url=stub.url)
            yield backend
            backend.close()
