"""A real server that speaks Azure's Blob API, for the tests: Azurite, Microsoft's own emulator, from npm.

Owns its process: on a loopback port that was free, awaited by asking it, ended by its own process id. Its data are in
memory and go with it, unless they are wanted on the disk.
"""

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.machine import lacks
from tests.servers import free_ports

# node takes 1.5 s to begin on idle cores.
_START_TIMEOUT_S = 60.0
_POLL_S = 0.05

_ROOT = Path(__file__).resolve().parents[1]


class AzureServer:
    """A running server with one account."""

    account_name = 'devstoreaccount1'
    #: Azurite's own, which everybody knows.
    account_key = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='

    def __init__(self, port: int) -> None:
        from azure.storage.blob import BlobServiceClient

        self.endpoint_url = f'http://127.0.0.1:{port}/{self.account_name}'
        #: Past the library under test: Azure's own client, synchronously.
        self.client: Any = BlobServiceClient(self.endpoint_url, credential=self.account_key, retry_total=0)

    def new_container(self) -> str:
        """Make an empty container; its name."""
        container = f'container-{uuid.uuid4().hex[:20]}'
        self.client.create_container(container)
        return container

    def put(self, container: str, key: str, data: bytes, **more: Any) -> str:
        """Store a blob as somebody else would; its ETag."""
        answer = self.client.get_blob_client(container, key).upload_blob(data, overwrite=True, **more)
        return str(answer['etag']).strip('"')

    def get(self, container: str, key: str) -> bytes:
        """The content of a blob."""
        return bytes(self.client.get_blob_client(container, key).download_blob().readall())

    def keys(self, container: str, prefix: str = '') -> list[str]:
        """All keys of a container."""
        listed = self.client.get_container_client(container).list_blob_names(name_starts_with=prefix)
        return [str(name) for name in listed]

    def sas_token(self, container: str, permission: str = 'racwdl') -> str:
        """A token for one container, for an hour."""
        from datetime import UTC, datetime, timedelta

        from azure.storage.blob import generate_container_sas

        expiry = datetime.now(UTC) + timedelta(hours=1)
        return str(
            generate_container_sas(
                self.account_name, container, account_key=self.account_key, permission=permission, expiry=expiry
            )
        )


@contextmanager
def running_azure_server(folder: Path, *, on_disk: bool = False) -> Iterator[AzureServer]:
    """Azurite with an empty memory, or an empty part of ``folder``, which takes its log."""
    if find_spec('adlfs') is None:
        lacks("the tests of Azure need its client: pip install 'genro-storage[azure]'")
    (port,) = free_ports(1)
    log = folder / 'azurite.log'
    store = ['--location', str(folder / 'azurite')] if on_disk else ['--inMemoryPersistence']
    arguments = [*store, '--blobHost', '127.0.0.1', '--blobPort', str(port)]
    # Clients are newer than any emulator; nothing here needs what it does not know yet.
    told = ['--skipApiVersionCheck', '--disableTelemetry', '--silent']
    with log.open('wb') as output:
        process = subprocess.Popen(
            [*_find_program(), *arguments, *told],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            # Ctrl-C ends the tests first, which then end it.
            start_new_session=True,
        )
    server = AzureServer(port)
    try:
        _await(server, process, log)
        yield server
    finally:
        server.client.close()
        process.kill()
        process.wait()


def _find_program() -> list[str]:
    """node and the program: run directly, so that the process that is ended is the one that serves."""
    node = shutil.which('node')
    environment = Path(sys.executable).parents[1]
    modules = [place / 'node' / 'node_modules' for place in (environment, _ROOT / '.venv')]
    programs = [place / 'azurite' / 'dist' / 'src' / 'blob' / 'main.js' for place in modules]
    program = next((path for path in programs if path.exists()), None)
    if node is None or program is None:
        lacks('the tests of Azure need Azurite: apt-get install nodejs npm, then make test installs it')
    return [node, str(program)]


def _await(server: AzureServer, process: 'subprocess.Popen[bytes]', log: Path) -> None:
    from azure.core.exceptions import AzureError

    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            server.new_container()
        except AzureError:
            time.sleep(_POLL_S)
        else:
            return
    pytest.fail(f'Azurite is not ready ({process.poll()}):\n{log.read_text(errors="replace")[-4000:]}')
