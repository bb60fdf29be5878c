"""One nursery and one bucket for all tests of this folder; each works below a prefix of its own."""

from collections.abc import Iterator

import pytest

from tests.crash.nursery import Nursery, nursery
from tests.servers import S3Server

# Not test modules by their names, and yet asserting.
pytest.register_assert_rewrite('tests.crash.stage', 'tests.crash.killing')


@pytest.fixture(scope='session')
def crash_nursery() -> Iterator[Nursery]:
    """Where daemons and writers come from."""
    with nursery() as made:
        yield made


@pytest.fixture(scope='session')
def crash_bucket(s3_server: S3Server) -> str:
    """A bucket that these tests share."""
    return s3_server.new_bucket()
