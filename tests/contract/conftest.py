"""Fixtures of the tests of nodes."""

from collections.abc import Iterator

import pytest

from genro_storage import StorageManager, StorageNode
from tests.contract.mounts import KINDS, Mounts
from tests.servers import S3Server


@pytest.fixture(scope='module')
def all_mounts(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Mounts]:
    mounts = Mounts(tmp_path_factory.mktemp('nodes'), s3_server)
    yield mounts
    mounts.storage.close()


@pytest.fixture
def mounts(all_mounts: Mounts) -> Mounts:
    all_mounts.begin()
    return all_mounts


@pytest.fixture
def storage(mounts: Mounts) -> StorageManager:
    return mounts.storage


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(mounts: Mounts, kind: str) -> StorageNode:
    return mounts.root(kind)


@pytest.fixture(params=KINDS)
def target_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(root: StorageNode) -> StorageNode:
    return root / 'from'


@pytest.fixture
def target(mounts: Mounts, target_kind: str) -> StorageNode:
    return mounts.root(target_kind) / 'to'
