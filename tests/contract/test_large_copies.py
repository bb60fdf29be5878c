"""Copies of what is larger than memory should be, between stores of different kinds, by a process of its own."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.azure_server import running_azure_server
from tests.gcs_server import running_gcs_server
from tests.machine import need_memory
from tests.servers import S3Server

GIB = 1 << 30
SIZE_BYTES = 5 * GIB
PEAK_RSS_MIB = 300
SERVER_BYTES = 20 * GIB
TIMEOUT_S = 1500

pytestmark = [pytest.mark.long, pytest.mark.timeout(1700)]

#: definitions, source, target → what was copied and what it took.
COPY = """
import json, resource, sys
from genro_storage import StorageManager
mounts, source, target = json.load(sys.stdin)
with StorageManager() as storage:
    storage.configure({'mounts': mounts, 'cache': {'path': sys.argv[1]}})
    copied = storage.node(source).copy(target)
    size_bytes = copied.size
peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({'size_bytes': size_bytes, 'peak_mib': peak_mib}))
"""
#: definitions, what is to be read → its digest.
READ = """
import hashlib, json, sys
from genro_storage import StorageManager
mounts, source = json.load(sys.stdin)
digest = hashlib.blake2b()
with StorageManager() as storage:
    storage.configure({'mounts': mounts, 'cache': {'path': sys.argv[1], 'disk': '64MiB'}})
    with storage.node(source).open('rb') as file:
        while piece := file.read(8 << 20):
            digest.update(piece)
print(json.dumps({'digest': digest.hexdigest()}))
"""


def run(folder: Path, program: str, *told: object) -> Any:
    done = subprocess.run(
        [sys.executable, '-c', program, str(folder / 'cache')],
        check=False,
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope='module')
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A file of which no two pieces are alike, and its digest."""
    path = tmp_path_factory.mktemp('large') / 'large.bin'
    digest = hashlib.blake2b()
    block = hashlib.shake_256(b'large').digest(4 << 20)
    with path.open('wb') as file:
        for number in range(SIZE_BYTES // len(block)):
            piece = number.to_bytes(8, 'big') + block[8:]
            file.write(piece)
            digest.update(piece)
    yield path, digest.hexdigest()
    path.unlink()


def s3(server: S3Server) -> dict[str, Any]:
    place = {'bucket': server.new_bucket(), 'endpoint_url': server.endpoint_url, 'region': server.region}
    return {'name': 's3', 'type': 's3', **place, 'key': server.key, 'secret': server.secret}


def test_five_gib_go_from_s3_to_gcs_in_little_memory(
    large: tuple[Path, str], tmp_path: Path, s3_server: S3Server
) -> None:
    need_memory(
        SERVER_BYTES, 'fake-gcs-server keeps an upload in memory until all of it is there, and reads it again then'
    )
    path, digest = large
    with running_gcs_server(tmp_path, on_disk=True) as gcs_server:
        gcs = {'bucket': gcs_server.new_bucket(), 'endpoint_url': gcs_server.endpoint_url, 'anon': True}
        gcs['timeout'] = '10m'  # fake-gcs-server writes all of it, and is silent meanwhile, once the last part is there
        mounts = [
            s3(s3_server),
            {'name': 'gcs', 'type': 'gcs', **gcs},
            {'name': 'here', 'type': 'local', 'path': str(path.parent)},
        ]
        for source, target in (('here:large.bin', 's3:large.bin'), ('s3:large.bin', 'gcs:large.bin')):
            done = run(tmp_path, COPY, mounts, source, target)
            assert done['size_bytes'] == SIZE_BYTES
            assert done['peak_mib'] < PEAK_RSS_MIB
        assert run(tmp_path, READ, mounts, 'gcs:large.bin') == {'digest': digest}


def test_five_gib_go_from_a_disk_to_azure_in_little_memory(large: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = large
    with running_azure_server(tmp_path, on_disk=True) as azure_server:
        azure = {
            'container': azure_server.new_container(),
            'endpoint_url': azure_server.endpoint_url,
            'account_name': azure_server.account_name,
            'account_key': azure_server.account_key,
        }
        mounts = [
            {'name': 'azure', 'type': 'azure', **azure},
            {'name': 'here', 'type': 'local', 'path': str(path.parent)},
        ]
        done = run(tmp_path, COPY, mounts, 'here:large.bin', 'azure:large.bin')
        assert done['size_bytes'] == SIZE_BYTES
        assert done['peak_mib'] < PEAK_RSS_MIB
        assert run(tmp_path, READ, mounts, 'azure:large.bin') == {'digest': digest}
