"""A large file in and out of each kind of mount: every byte in its place, and memory that stays bounded."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Mounted, mounted, run, s3_definition
from tests.servers import S3Server

MIB = 1 << 20
LARGE_BYTES = 1024 * MIB
PEAK_RSS_MIB = 300
COPY_TIMEOUT_S = 120.0

# Every 4 KiB block begins with its own number, so that a block that is missing, doubled or in another's place shows;
# the rest of it differs from block to block too. Written in pieces of 1 MiB, as fast as the disk goes.
MAKE = """
import hashlib, struct, sys
size = int(sys.argv[2])
salt = (hashlib.blake2b(sys.argv[1].encode()).digest() * 8)[:504]
with open(sys.argv[1], 'wb') as file:
    for piece in range(0, size, 1 << 20):
        file.write(b''.join(
            struct.pack('<Q', block) + (salt + struct.pack('<Q', block * 0x9E3779B97F4A7C15 & (1 << 64) - 1)) * 7 + salt
            for block in range(piece, min(piece + (1 << 20), size), 4096)
        ))
"""


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Mounted]:
    folder = tmp_path_factory.mktemp('large')
    (folder / 'local').mkdir()
    definitions = [
        s3_definition(s3_server, s3_server.new_bucket()),
        {'name': 'memory', 'type': 'memory'},
        {'name': 'local', 'type': 'local', 'path': str(folder / 'local')},
    ]
    with mounted(folder, definitions) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture(scope='module')
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp('source')
    done = run(sys.executable, '-c', MAKE, folder / 'large', str(LARGE_BYTES), timeout_s=COPY_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert (folder / 'large').stat().st_size == LARGE_BYTES
    yield folder / 'large'
    shutil.rmtree(folder)


def peak_rss_mib(tree: Mounted) -> float:
    status = Path(f'/proc/{tree.pid}/status').read_text()
    (line,) = (line for line in status.splitlines() if line.startswith('VmHWM'))
    return int(line.split()[1]) / 1024


# From many places, none of them in sequence.
JUMP = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for offset in range(97, os.fstat(fd).st_size, 31 << 20):
    sys.stdout.buffer.write(os.pread(fd, 70_001, offset))
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize('kind', ['local', 'memory', 'bucket'])
def test_a_gigabyte_comes_back_as_it_went_and_memory_stays_bounded(
    tree: Mounted, large: Path, tmp_path: Path, kind: str
) -> None:
    place, back = tree.path(kind, 'large'), tmp_path / 'back'
    tree.run('cp', large, place, timeout_s=COPY_TIMEOUT_S)
    assert tree.run('stat', '-c', '%s', place).strip() == str(LARGE_BYTES)
    pieces = [run(sys.executable, '-c', JUMP, path, encoding='latin-1').stdout for path in (place, large)]
    assert pieces[0] == pieces[1]
    tree.run('cp', place, back, timeout_s=COPY_TIMEOUT_S)
    tree.run('cmp', back, large, timeout_s=COPY_TIMEOUT_S)
    back.unlink()
    tree.run('rm', place)
    assert peak_rss_mib(tree) < PEAK_RSS_MIB
