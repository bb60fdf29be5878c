"""The same through a real mount: what programs see of a server that breaks off, stalls, throttles, changes or dies.

Beside tests/mount/test_isolation.py, which has the server that accepts and never answers, thirty programs that wait
for it, and their signals.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.fault_proxy import SLOW_DOWN, Close, Fault, Reset, Stall, fault_proxy
from tests.faults.sick import MIB, PATIENT_S, TIMEOUT_S, Sick
from tests.mount.mounted import Mounted, await_true, mounted, run, s3_definition
from tests.servers import S3Server

SIZE = 6 * MIB
#: A failed readahead is tried once more by the kernel, for the page that is really wanted: two timeouts, and more where
#: two processors are shared with others.
FAILS_WITHIN_S = 2 * TIMEOUT_S + 4.0
#: What memory and the local disk may take.
SOON_S = 1.0
BACK_WITHIN_S = 10.0


class SickMount:
    """A mounted tree: 'sick' and, with a long timeout, 'patient' behind a proxy, 'well' past it, and 'local'."""

    def __init__(self, tree: Mounted, sick: Sick) -> None:
        self.tree = tree
        self.sick = sick
        self.proxy = sick.proxy

    def new(self, folder: Path, size_bytes: int = SIZE) -> tuple[str, Path]:
        """A new object, and a local file with the same content."""
        key, data = self.sick.new(size_bytes)
        same = folder / key
        same.write_bytes(data)
        return key, same

    def reads_right(self, key: str, same: Path, mount: str = 'sick') -> bool:
        """Whether a file can be read; if it can, as what it is."""
        done = run('cmp', self.tree.path(mount, key), same)
        assert done.returncode != 1, done.stdout
        return done.returncode == 0

    def fails(self, *command: str, within_s: float = FAILS_WITHIN_S) -> str:
        started = time.monotonic()
        said = self.tree.fails(*command)
        assert time.monotonic() - started < within_s, said
        return said


@contextmanager
def sick_mount(folder: Path, server: S3Server, bucket: str, driver: str) -> Iterator[SickMount]:
    with ExitStack() as stack:
        proxy = stack.enter_context(fault_proxy(server.endpoint_url))
        sick = Sick(server, proxy, bucket, stack)
        (folder / 'local').mkdir()
        (folder / 'local' / 'file').write_text('local')
        definitions = [
            sick.definition(driver=driver, ttl=0),
            sick.definition('patient', PATIENT_S, driver=driver, ttl=0),
            s3_definition(server, bucket, name='well'),
            {'name': 'local', 'type': 'local', 'path': str(folder / 'local')},
        ]
        tree = stack.enter_context(mounted(folder, definitions))
        # Whatever a test has left behind, unmounting does not wait for it.
        stack.callback(proxy.heal)
        yield SickMount(tree, sick)


@pytest.fixture(scope='module', params=['obstore', 'fsspec'])
def shared(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, faults_bucket: str, request: pytest.FixtureRequest
) -> Iterator[SickMount]:
    folder = tmp_path_factory.mktemp('sick')
    with sick_mount(folder, s3_server, faults_bucket, request.param) as mount:
        yield mount


@pytest.fixture
def mount(shared: SickMount) -> Iterator[SickMount]:
    yield shared
    shared.proxy.heal()
    shared.proxy.accept()
    # The breaker may be open still, and the next test is about something else.
    await_true(lambda: run('ls', shared.tree.path('sick')).returncode == 0, BACK_WITHIN_S, 'a listing of the mount')


@pytest.mark.parametrize(
    'faults',
    [
        pytest.param([Reset(200_000), Reset(1), Reset(250_000)], id='reset'),
        pytest.param([Close(200_000), Close(0), Close(250_000)], id='closed early'),
        pytest.param([SLOW_DOWN, SLOW_DOWN], id='503'),
    ],
)
def test_programs_read_right_through_faults_that_pass(mount: SickMount, tmp_path: Path, faults: list[Fault]) -> None:
    key, same = mount.new(tmp_path)
    for fault in faults:
        mount.proxy.plan(fault, key=key)
    assert mount.reads_right(key, same, 'patient')
    assert len([asked for asked in mount.proxy.reads(key) if asked.fault is not None]) == len(faults)


def test_a_server_that_falls_silent_in_a_body_is_etimedout_and_right_when_it_is_back(
    mount: SickMount, tmp_path: Path
) -> None:
    key, same = mount.new(tmp_path)
    mount.proxy.plan(Stall(100_000), key=key, times=None)
    assert 'Connection timed out' in mount.fails('cat', f'sick/{key}')
    mount.proxy.heal()
    await_true(lambda: mount.reads_right(key, same), BACK_WITHIN_S, 'the right content')


def test_a_storm_of_slow_down_that_does_not_end_is_eio_and_no_harm_to_other_files(
    mount: SickMount, tmp_path: Path
) -> None:
    key, same = mount.new(tmp_path, MIB)
    other, same_other = mount.new(tmp_path, MIB)
    mount.proxy.plan(SLOW_DOWN, key=key, times=None)
    assert 'Input/output error' in mount.fails('cat', f'sick/{key}')
    assert mount.reads_right(other, same_other)
    mount.proxy.heal()
    assert mount.reads_right(key, same)


# Holds the file open, reads its beginning, and its end when it is told to.
READER = """
import errno, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(file).st_size
os.write(1, os.pread(file, 4096, 0))
sys.stdin.read()
try:
    os.write(1, os.pread(file, 1 << 20, size - (1 << 20)))
except OSError as error:
    sys.exit(errno.errorcode[error.errno])
"""


def test_an_object_that_changes_while_it_is_read_is_estale_and_never_a_mixture(
    mount: SickMount, tmp_path: Path
) -> None:
    key, same = mount.new(tmp_path, 16 * MIB)
    program = subprocess.Popen(
        [sys.executable, '-c', READER, f'patient/{key}'],
        cwd=mount.tree.mountpoint,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.read(4096) == same.read_bytes()[:4096]
        newer = bytes(16 * MIB)
        mount.sick.put(newer, key)
        output, said = program.communicate(timeout=20)
    finally:
        program.kill()
    assert (output, said) == (b'', b'ESTALE\n')
    same.write_bytes(newer)
    assert mount.reads_right(key, same, 'patient')


def soon(mount: SickMount, script: str) -> str:
    started = time.monotonic()
    output = mount.tree.sh(script)
    took_s = time.monotonic() - started
    assert took_s < SOON_S, f'{script!r} took {took_s:.1f} s'
    return output


def test_a_dead_server_harms_its_own_directory_only_and_needs_no_remount(mount: SickMount, tmp_path: Path) -> None:
    key, same = mount.new(tmp_path, MIB)
    well, same_well = mount.new(tmp_path, MIB)
    soon(mount, f'cmp well/{well} {same_well}')
    mount.proxy.refuse()
    for command in (['cat', f'sick/{key}'], ['ls', 'sick'], ['stat', f'sick/{key}'], ['touch', 'sick/new']):
        said = mount.fails(*command)
        assert 'Input/output error' in said or 'Connection timed out' in said
    assert soon(mount, 'ls') == 'local\npatient\nsick\nwell\n'
    assert soon(mount, 'cat local/file') == 'local'
    other, same_other = mount.new(tmp_path, MIB)
    # A directory entry of the mount that is well is asked for and a body fetched meanwhile.
    mount.tree.sh(f'cmp well/{other} {same_other}', timeout_s=5)
    mount.proxy.accept()
    await_true(lambda: mount.reads_right(key, same), BACK_WITHIN_S, 'the right content')
    assert mount.tree.process.poll() is None


def test_a_server_that_dies_while_a_file_is_read_is_an_error_in_time(mount: SickMount, tmp_path: Path) -> None:
    key, same = mount.new(tmp_path)
    half_way = mount.proxy.plan(Stall(100_000), key=key, times=None)
    program = subprocess.Popen(['cat', f'sick/{key}'], cwd=mount.tree.mountpoint, stdout=subprocess.DEVNULL, stderr=-1)
    try:
        assert half_way.wait(10)
        started = time.monotonic()
        mount.proxy.refuse()
        said = program.communicate(timeout=20)[1]
        assert time.monotonic() - started < FAILS_WITHIN_S
    finally:
        program.kill()
    assert program.returncode == 1
    assert b'Input/output error' in said or b'Connection timed out' in said
    mount.proxy.heal()
    mount.proxy.accept()
    await_true(lambda: mount.reads_right(key, same), BACK_WITHIN_S, 'the right content')
