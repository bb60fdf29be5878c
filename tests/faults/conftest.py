"""A fault proxy before the real S3 server, for each test, and the drivers that read through it."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from genro_storage.backends import object_store_requests
from tests.faults.fault_proxy import fault_proxy
from tests.faults.sick import ENDINGS, Reading, Sick
from tests.servers import S3Server


@pytest.fixture(scope='session')
def faults_bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


@pytest.fixture
def sick(s3_server: S3Server, faults_bucket: str) -> Iterator[Sick]:
    with ExitStack() as cleanup:
        proxy = cleanup.enter_context(fault_proxy(s3_server.endpoint_url))
        yield Sick(s3_server, proxy, faults_bucket, cleanup)


@pytest.fixture(params=list(ENDINGS))
def reading(sick: Sick, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reading:
    if request.param == 'obstore':
        # As where there is a cipher, which the proxy could not look into.
        monkeypatch.setattr(object_store_requests, 'OWN_READS_FROM_BYTES', sys.maxsize)
    return Reading(sick, request.param)


@pytest.fixture(params=['obstore', 'fsspec'])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)
