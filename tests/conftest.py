"""Fixtures that all tests share."""

from collections.abc import Iterator

import pytest

from tests.servers import S3Server, running_s3_server

# Not test modules by their names, and yet asserting: their failures should show values too.
pytest.register_assert_rewrite('genro_storage.testing.contract', 'tests.contract.clouds')


@pytest.fixture(scope='session')
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, one for the whole run; take a bucket of your own from ``new_bucket()``."""
    with running_s3_server(tmp_path_factory.mktemp('s3')) as server:
        yield server
