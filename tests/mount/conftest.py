"""Mounted trees that the tests of this folder share.

``everything`` has a bucket, a memory mount and a local folder, and serves all tests of one module: a start takes half a
second. Each test works in a place of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Mounted, all_kinds
from tests.mount.places import Place
from tests.servers import S3Server


@pytest.fixture(scope='module')
def everything(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Mounted]:
    """See all_kinds."""
    with all_kinds(tmp_path_factory.mktemp('everything'), s3_server) as tree:
        yield tree


@pytest.fixture(params=['bucket', 'memory', 'local'])
def place(everything: Mounted, s3_server: S3Server, request: pytest.FixtureRequest) -> Place:
    """A new directory in each of the mounts."""
    return Place(everything, s3_server, request.param)


@pytest.fixture(params=['bucket', 'memory'])
def store(everything: Mounted, s3_server: S3Server, request: pytest.FixtureRequest) -> Place:
    """A new directory where there are no links."""
    return Place(everything, s3_server, request.param)


@pytest.fixture
def local(everything: Mounted, s3_server: S3Server) -> Place:
    """A new directory in the local mount."""
    return Place(everything, s3_server, 'local')


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A tree of files of several sizes outside of all mounts."""
    root = tmp_path / 'sample'
    for number in range(9):
        folder = root / f'dir {number % 4}' / f'sub{number % 3}'
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'file-{number}.txt').write_bytes(b'line %d\n' % number * (number**4))
    (root / 'empty').touch()
    (root / 'empty dir').mkdir()
    (root / 'program').write_text('#!/bin/sh\necho ran\n')
    (root / 'program').chmod(0o755)
    return root
