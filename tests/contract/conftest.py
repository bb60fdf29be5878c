"""Fixtures of the tests of nodes."""

import functools
from collections.abc import Iterator

import pytest

from genro_storage import StorageManager, StorageNode
from tests.contract import matrix
from tests.contract.mounts import KINDS, Mounts
from tests.servers import S3Server

#: The rows of the matrix that this run has found.
ROWS = pytest.StashKey[dict[str, tuple[str, ...]]]()

_committed = functools.cache(matrix.committed)


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


@pytest.fixture(autouse=True)
def declares_what_the_matrix_says(request: pytest.FixtureRequest) -> None:
    """Each case of a contract is about what docs/backends.md says of its backend."""
    label = matrix.label_of(request.module.__name__, request.cls.__name__) if request.cls is not None else None
    if label is None or 'backend' not in request.fixturenames:
        return
    row = matrix.row_of(request.getfixturevalue('backend'), parts=getattr(request.cls, 'uploads_in_parts', False))
    if matrix.is_writing():
        request.config.stash.setdefault(ROWS, {})[label] = row
    else:
        assert _committed().get(label) == row, 'docs/backends.md says something else: make matrix'


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if matrix.is_writing() and exitstatus == 0:
        matrix.PAGE.write_text(matrix.shown(session.config.stash[ROWS]))
