"""The mounted tree over libfuse: the POSIX cases, and what is special about its threads, its paths and its end."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fusefs.transports.libfuse.transport import LibfuseTransport
from tests.mount.mounted import (
    CHECKOUT,
    END_TIMEOUT_S,
    MOUNT,
    Mounted,
    all_kinds,
    await_true,
    environment,
    mounted,
    mounted_below,
    run,
    s3_definition,
    write_config,
)
from tests.mount.places import Place
from tests.mount.posix import KINDS
from tests.mount.posix_table import TABLES
from tests.mount.test_isolation import SOON_S, Stalled, assert_others_are_served
from tests.mount.test_posix import Outcomes
from tests.servers import S3Server

#: Several times as long as over devfuse where many others use the machine: each step is two requests or more.
RUN_TIMEOUT_S = 150
pytestmark = pytest.mark.timeout(180)

LIBFUSE = ('-o', 'transport=libfuse')

#: Cases that need what libfuse does not have: name → the capability, and on which mounts it is needed.
NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    'what_is_open_for_direct_io_can_be_mapped': ('direct_io_mappings', KINDS),
    'the_time_of_birth_is_told': ('birth_times', ('local',)),
    'a_file_without_a_name_gets_one_when_it_is_linked': ('unnamed_files', ('local',)),
    'a_file_that_is_to_have_no_name_gets_none': ('unnamed_files', ('local',)),
    'a_directory_that_is_removed_while_it_is_open_has_no_links_and_no_entries': ('inodes', KINDS),
    'a_descriptor_that_only_stands_for_a_file_shows_that_it_is_removed': ('inodes', KINDS),
}

CASES = [
    pytest.param(table, kind, case.name, id=f'{case.name}-{kind}')
    for table, cases in TABLES.items()
    for case in cases
    for kind in case.on
]


@pytest.fixture(scope='module')
def everything(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Mounted]:
    """The tree of conftest, over libfuse."""
    with all_kinds(tmp_path_factory.mktemp('everything'), s3_server, *LIBFUSE) as tree:
        yield tree


@pytest.fixture(scope='module')
def outcomes(everything: Mounted) -> Outcomes:
    return Outcomes(everything, RUN_TIMEOUT_S)


@pytest.mark.parametrize(('table', 'kind', 'name'), CASES)
def test_the_posix_cases_hold_but_for_those_that_need_what_libfuse_lacks(
    outcomes: Outcomes, table: str, kind: str, name: str
) -> None:
    capability, kinds = NEEDS.get(name, ('', ()))
    outcome = outcomes.get(table, kind, name)
    if kind in kinds:
        assert not getattr(LibfuseTransport.capabilities, capability)
        assert outcome != '', 'it holds after all: take it out of NEEDS'
    else:
        assert outcome == ''


def test_every_case_that_is_left_out_is_there() -> None:
    assert set(NEEDS) <= {case.name for cases in TABLES.values() for case in cases}


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('kind', KINDS)
def test_random_operations_do_what_they_do_in_a_plain_folder(
    everything: Mounted, tmp_path: Path, kind: str, seed: int
) -> None:
    directory = everything.path(kind, f'random-{seed}')
    everything.run('mkdir', directory)
    program = [sys.executable, '-m', 'tests.mount.random_operations', str(directory), str(tmp_path), str(seed), '250']
    done = run(*program, cwd=CHECKOUT, timeout_s=RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr


# Removed and replaced while it is open


def test_a_file_that_is_removed_while_it_is_open_has_no_other_name_and_no_link(place: Place) -> None:
    program = """
import os
fd = os.open('d/f', os.O_RDWR | os.O_CREAT)
os.write(fd, b'content')
os.unlink('d/f')
assert os.listdir('d') == []
found = os.fstat(fd)
assert (found.st_size, found.st_nlink) == (7, 0), found
os.fchmod(fd, 0o600)
os.utime(fd, ns=(1, 1))
os.ftruncate(fd, 3)
assert os.pread(fd, 10, 0) == b'con'
os.rmdir('d')
os.close(fd)
"""
    place.sh('mkdir d')
    place.tree.run(sys.executable, '-c', program, cwd=place.path)
    assert place.names() == set()


def test_a_file_that_a_program_gives_one_of_libfuses_names_stays_what_it_was(place: Place) -> None:
    place.sh('echo content > f')
    rename = 'import os; file = open("f"); os.rename("f", ".fuse_hidden0000000300000001")'
    assert 'PermissionError' in place.tree.fails(sys.executable, '-c', rename, cwd=place.path)
    assert place.sh('cat f') == 'content\n'
    assert place.stored('f') == b'content\n'


def test_many_threads_that_replace_what_others_read_leave_the_last_one(place: Place) -> None:
    program = """
import os, threading
def replace(number):
    for step in range(20):
        with open(f'new-{number}', 'wb') as file:
            file.write(b'%d' % number * 1000)
        os.rename(f'new-{number}', 'f')
def read():
    while not done.is_set():
        try:
            with open('f', 'rb') as file:
                data = file.read()
        except OSError as error:  # gone between two steps, or a version that nobody has any more
            assert error.errno in {2, 116}, error
        else:
            assert len(data) == 1000 and len(set(data)) == 1, (len(data), set(data))
done = threading.Event()
readers = [threading.Thread(target=read) for _ in range(2)]
writers = [threading.Thread(target=replace, args=[number]) for number in range(3)]
for thread in readers + writers: thread.start()
for thread in writers: thread.join()
done.set()
for thread in readers: thread.join()
print(os.listdir())
"""
    assert place.tree.run(sys.executable, '-c', program, cwd=place.path) == "['f']\n"
    assert len(place.stored('f')) == 1000


# Names


def test_what_another_name_of_a_file_has_written_is_read(local: Place) -> None:
    local.sh('echo one > a; ln a b; cat a b')
    assert local.sh('echo two >> b; cat a; stat -c %h a b') == 'one\ntwo\n2\n2\n'


def test_what_somebody_else_changes_is_seen_within_the_ttl(local: Place) -> None:
    folder = local.tree.folder / local.name
    assert local.sh('ls') == ''
    (folder / 'f').write_text('one')
    await_true(lambda: local.sh('cat f 2>/dev/null || true') == 'one', 5)
    (folder / 'new').write_text('another')
    (folder / 'new').rename(folder / 'f')
    await_true(lambda: local.sh('cat f; stat -c %s f') == 'another7\n', 5)
    (folder / 'f').unlink()
    await_true(lambda: local.sh('ls; cat f 2>/dev/null || true') == '', 5)


def test_a_directory_of_many_is_listed_whole(local: Place) -> None:
    folder = local.tree.folder / local.name
    for number in range(2_000):
        (folder / f'file-{number:05}').touch()
    assert local.sh('ls | wc -l; ls -f | sort -u | wc -l') == '2000\n2002\n'


# A sick mount, signals


@pytest.fixture
def stalled() -> Iterator[Stalled]:
    server = Stalled()
    yield server
    server.close()


@pytest.fixture
def sick(tmp_path: Path, s3_server: S3Server, stalled: Stalled) -> Iterator[Mounted]:
    """A mount that stalls, and others that are well."""
    (tmp_path / 'local').mkdir()
    (tmp_path / 'local' / 'f').write_text('f')
    definitions = [
        s3_definition(s3_server, 'any', name='sick', timeout='4s') | {'endpoint_url': stalled.url},
        {'name': 'memory', 'type': 'memory'},
        {'name': 'local', 'type': 'local', 'path': str(tmp_path / 'local')},
        s3_definition(s3_server, s3_server.new_bucket(), name='well'),
    ]
    with mounted(tmp_path, definitions, *LIBFUSE) as tree:
        yield tree


def test_many_that_wait_for_a_sick_mount_leave_the_others_served(sick: Mounted, stalled: Stalled) -> None:
    sick.sh('echo z > well/f')  # connects
    with ExitStack() as stack:
        waiting = []
        for number in range(60):
            command = ['cat', f'sick/file-{number}'] if number % 3 else ['ls', 'sick']
            process = subprocess.Popen(command, cwd=sick.mountpoint, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 60)
            stack.callback(process.kill)
            waiting.append(process)
        stalled.wait_for_a_connection()
        assert_others_are_served(sick)
        assert any(process.poll() is None for process in waiting)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize('command', [['cat', 'sick/f'], ['ls', 'sick']])
def test_a_stalled_program_dies_soon_by_a_signal(
    sick: Mounted, stalled: Stalled, number: signal.Signals, command: list[str]
) -> None:
    program = subprocess.Popen(
        ['env', '--default-signal=INT', *command], cwd=sick.mountpoint, stderr=subprocess.DEVNULL
    )
    stalled.wait_for_a_connection()
    started = time.monotonic()
    program.send_signal(number)
    assert program.wait(10) == -number
    assert time.monotonic() - started < SOON_S


# The end, and what is missing


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_commits_what_is_open_and_unmounts(
    tmp_path: Path, s3_server: S3Server, number: signal.Signals
) -> None:
    bucket = s3_server.new_bucket()
    with mounted(tmp_path, [s3_definition(s3_server, bucket)], *LIBFUSE) as tree:
        script = 'exec 3> bucket/f; echo "not closed" >&3; echo written; exec sleep 60'
        writer = subprocess.Popen(['sh', '-c', script], cwd=tree.mountpoint, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b'written\n'
        tree.process.send_signal(number)
        await_true(lambda: not mounted_below(tree.mountpoint), what='unmounted')
        writer.kill()
        writer.wait()
        writer.stdout.close()
        assert tree.process.wait(END_TIMEOUT_S) == 0
    assert s3_server.request('get_object', Bucket=bucket, Key='f')['Body'].read() == b'not closed\n'


def test_genro_umount_in_the_background_returns_when_everything_is_committed(
    tmp_path: Path, s3_server: S3Server
) -> None:
    bucket = s3_server.new_bucket()
    config = write_config(tmp_path, [s3_definition(s3_server, bucket)])
    env, mountpoint = environment(tmp_path), tmp_path / 'mnt'
    done = run(*MOUNT, '-c', config, *LIBFUSE, mountpoint, env=env)
    assert done.returncode == 0, done.stderr
    tree = Mounted(mountpoint, subprocess.Popen(['true']), tmp_path / 'no.log', env)
    try:
        tree.sh('head -c 3000000 /dev/zero > bucket/f')
    finally:
        done = tree.unmount()
    assert (done.returncode, done.stderr) == (0, '')
    assert mounted_below(mountpoint) == []
    assert s3_server.request('head_object', Bucket=bucket, Key='f')['ContentLength'] == 3_000_000
    tree.process.wait()


def test_without_libfuse_it_says_what_to_install_and_mounts_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path, [{'name': 'memory', 'type': 'memory'}])
    env = environment(tmp_path) | {'FUSE_LIBRARY_NAME': 'no-such-library'}
    done = run(*MOUNT, '-c', config, *LIBFUSE, tmp_path / 'mnt', env=env)
    assert done.returncode == 1
    assert 'libfuse3-3' in done.stderr
    assert done.stderr.count('\n') == 1
    assert not (tmp_path / 'mnt').exists()
