"""fio writes and reads back with checksums (crc32c): in order and anywhere, by several jobs, calls and mappings."""

import itertools
import json
from pathlib import Path

import pytest

from tests.mount.mounted import Mounted, run
from tests.mount.places import Place
from tests.mount.tools import need
from tests.servers import S3Server

JOBS = 3
SHORT_BYTES = 3 << 20
LONG_BYTES = 96 << 20
SHORT_TIMEOUT_S = 100
LONG_TIMEOUT_S = 900

#: What fio does, and with which engine: sync is pread(2) and pwrite(2).
LOADS = list(itertools.product(['write', 'randwrite', 'randrw'], ['sync', 'mmap']))
KINDS = ['local', 'memory', 'bucket']


@pytest.fixture
def on(everything: Mounted, s3_server: S3Server, request: pytest.FixtureRequest) -> Place:
    return Place(everything, s3_server, request.param)


def fio(place: Place, load: str, engine: str, size_bytes: int, timeout_s: float, *more: str) -> None:
    """Run fio in a directory, so many bytes in each of some files; it must have verified all of it."""
    need('fio')
    done = run(
        'fio',
        f'--name={load}-{engine}',
        f'--directory={place.path}',
        f'--rw={load}',
        f'--ioengine={engine}',
        f'--size={size_bytes}',
        f'--numjobs={JOBS}',
        '--bsrange=4k-64k',
        '--blockalign=4k',
        '--verify=crc32c',
        '--verify_fatal=1',
        '--do_verify=1',
        '--end_fsync=1',
        '--fallocate=none',
        '--randseed=1',
        '--output-format=json',
        *more,
        env=place.tree.env,
        cwd=place.tree.mountpoint.parent,  # where fio keeps what it knows of its jobs
        timeout_s=timeout_s,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads(done.stdout[done.stdout.index('{') :])['jobs']
    assert len(jobs) == JOBS
    for job in jobs:
        assert job['error'] == 0, job
        assert job['write']['total_ios'] > 0
        assert job['read']['total_ios'] > 0, 'nothing was verified'


@pytest.mark.timeout(2 * SHORT_TIMEOUT_S)
@pytest.mark.parametrize(('load', 'engine'), LOADS)
@pytest.mark.parametrize('on', KINDS, indirect=True)
def test_what_fio_writes_it_reads_back(on: Place, load: str, engine: str) -> None:
    fio(on, load, engine, SHORT_BYTES, SHORT_TIMEOUT_S)
    assert on.sh("find . -type f -printf '%s '") == f'{SHORT_BYTES} ' * JOBS


@pytest.mark.long
@pytest.mark.timeout(2 * LONG_TIMEOUT_S)
@pytest.mark.parametrize(('load', 'engine'), LOADS)
@pytest.mark.parametrize('on', KINDS, indirect=True)
def test_what_fio_writes_for_long_it_reads_back(on: Place, load: str, engine: str) -> None:
    fio(on, load, engine, LONG_BYTES, LONG_TIMEOUT_S, '--fsync=256', '--openfiles=2', '--nrfiles=4')


def test_damage_is_found(local: Place, tmp_path: Path) -> None:
    """That the checks above check anything: a byte that changes between write and read ends fio with an error."""
    fio(local, 'write', 'sync', SHORT_BYTES, SHORT_TIMEOUT_S)
    damaged = next((local.tree.folder / local.name).iterdir())
    with damaged.open('r+b') as file:
        file.seek(SHORT_BYTES // 2 + 100)
        file.write(b'damage')
    with pytest.raises(AssertionError):
        fio(local, 'write', 'sync', SHORT_BYTES, SHORT_TIMEOUT_S, '--verify_only=1')
