"""A second server that speaks S3, for what SeaweedFS lacks: moto's, from PyPI.

Owns its process: on a loopback port that was free, awaited by asking it, ended by its own process id. Its data are in
memory and go with it. It is an imitation for tests, and where it is wrong itself a test says so.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.machine import lacks
from tests.servers import S3Server, free_ports

# It is ready 1.5 s after its start on idle cores.
_START_TIMEOUT_S = 60.0
_POLL_S = 0.05

#: Of a page of a listing, where Amazon has a thousand.
PAGE_KEYS = 7


class MotoServer(S3Server):
    """A running server, which asks nobody who he is, except while it is told to."""

    @contextmanager
    def authorising(self) -> Iterator[None]:
        """Check signatures and policies meanwhile; only users that were made before have keys."""
        self._ask_for_authority(0)
        try:
            yield
        finally:
            self._ask_for_authority(1 << 30)

    def keys(self, bucket: str, prefix: str = '') -> list[str]:
        """All keys of a bucket, up to a thousand."""
        answer = self.request('list_objects_v2', Bucket=bucket, Prefix=prefix, MaxKeys=1000)
        return [item['Key'] for item in answer.get('Contents', [])]

    def put_in_parts(self, bucket: str, key: str, data: bytes, part_bytes: int) -> str:
        """Store an object as somebody else would, in parts; its ETag."""
        place = {'Bucket': bucket, 'Key': key}
        upload = place | {'UploadId': self.request('create_multipart_upload', **place)['UploadId']}
        parts = []
        for number, offset in enumerate(range(0, len(data), part_bytes), start=1):
            body = data[offset : offset + part_bytes]
            tag = self.request('upload_part', **upload, PartNumber=number, Body=body)['ETag']
            parts.append({'PartNumber': number, 'ETag': tag})
        answer = self.request('complete_multipart_upload', **upload, MultipartUpload={'Parts': parts})
        return str(answer['ETag']).strip('"')

    def client(self, service: str, **credentials: str) -> Any:
        """botocore's client of another service, or as another user."""
        import botocore.session

        credentials = credentials or {'aws_access_key_id': self.key, 'aws_secret_access_key': self.secret}
        return botocore.session.get_session().create_client(
            service, endpoint_url=self.endpoint_url, region_name=self.region, **credentials
        )

    def _ask_for_authority(self, after: int) -> None:
        """From so many requests on."""
        url, headers = f'{self.endpoint_url}/moto-api/reset-auth', {'Content-Type': 'text/plain'}
        with urllib.request.urlopen(urllib.request.Request(url, str(after).encode(), headers), timeout=10):
            pass


@contextmanager
def running_moto_server(folder: Path) -> Iterator[MotoServer]:
    """moto's server with an empty memory. ``folder`` takes its log."""
    if find_spec('moto') is None:
        lacks("the tests of S3 need moto's server beside SeaweedFS: pip install 'moto[s3,server]'")
    (port,) = free_ports(1)
    server = MotoServer(f'http://127.0.0.1:{port}')
    log = folder / 'moto.log'
    with log.open('wb') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=os.environ | {'MOTO_S3_DEFAULT_MAX_KEYS': str(PAGE_KEYS)},
            # Ctrl-C ends the tests first, which then end it.
            start_new_session=True,
        )
    try:
        _await(server, process, log)
        yield server
    finally:
        server.close()
        process.kill()
        process.wait()


def _await(server: MotoServer, process: 'subprocess.Popen[bytes]', log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            with urllib.request.urlopen(f'{server.endpoint_url}/moto-api/data.json', timeout=10):
                pass
            return
        time.sleep(_POLL_S)
    pytest.fail(f"moto's server is not ready ({process.poll()}):\n{log.read_text(errors='replace')[-4000:]}")
