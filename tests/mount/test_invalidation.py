"""A mounted tree and the Python API in one process agree, whatever the kernel was told to believe before.

All entries are believed for ten minutes, so nothing is seen because a time is over.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import CHECKOUT, await_true, environment, mounted_below, run, s3_definition, write_config
from tests.mount.stepping import Program, program
from tests.servers import S3Server

TTL_S = 600
API_SERVER = str(Path(__file__).with_name('api_server.py'))
READY_TIMEOUT_S = 30.0
#: A thread has to come to its turn, on a machine that others use too.
SOON_S = 5.0
_numbers = itertools.count(1)


class Both:
    """A mounted tree, and the API of the process that serves it."""

    def __init__(self, process: 'subprocess.Popen[str]', mountpoint: Path, bucket: str) -> None:
        self.process = process
        self.mountpoint = mountpoint
        self.bucket = bucket

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def api(self, expression: str) -> str:
        """Evaluate an expression there, in which 'storage' is the manager; its repr."""
        assert self.process.stdin is not None
        self.process.stdin.write(expression + '\n')
        self.process.stdin.flush()
        answer = self.line()
        assert answer
        assert not answer.startswith('failed'), answer
        return answer


@pytest.fixture(scope='module')
def both(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp('both')
    mountpoint, local = folder / 'mnt', folder / 'local'
    mountpoint.mkdir()
    local.mkdir()
    bucket = s3_server.new_bucket()
    definitions = [
        s3_definition(s3_server, bucket, ttl=TTL_S),
        {'name': 'memory', 'type': 'memory', 'ttl': TTL_S},
        {'name': 'local', 'type': 'local', 'path': str(local), 'ttl': TTL_S},
    ]
    config = write_config(folder, definitions)
    process = subprocess.Popen(
        ['setpriv', '--pdeathsig', 'TERM', sys.executable, API_SERVER, str(config), str(mountpoint)],
        env=environment(folder),
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    served = Both(process, mountpoint, bucket)
    try:
        assert served.line() == 'ready'
        yield served
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(READY_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            if mounted_below(mountpoint):
                run('umount', '-l', mountpoint)
    assert process.returncode == 0


class Corner:
    """A directory of a test's own in one of the mounts, in which a program works."""

    def __init__(self, both: Both, mount: str, name: str = '') -> None:
        """name: of one that is there already."""
        self.both = both
        self.mount = mount
        self.name = name or f'corner-{next(_numbers)}'
        if not name:
            assert run('mkdir', self.path).returncode == 0

    @property
    def path(self) -> Path:
        return self.both.mountpoint / self.mount / self.name

    def api(self, path: str, call: str) -> str:
        """Evaluate an attribute of a node, as 'write_text("x")'; its repr."""
        return self.both.api(f'storage.node({f"{self.mount}:{self.name}/{path}".rstrip("/")!r}).{call}')


@pytest.fixture(params=['bucket', 'memory', 'local'])
def corner(both: Both, request: pytest.FixtureRequest) -> Corner:
    return Corner(both, request.param)


@pytest.fixture
def one(corner: Corner) -> Iterator[Program]:
    with program(corner.path) as stepping:
        yield stepping


def soon(one: Program, expression: str, expected: object) -> None:
    await_true(lambda: one.does(expression) == expected, SOON_S, f'{expression} → {expected!r}')


def test_a_file_that_python_makes_is_there(corner: Corner, one: Program) -> None:
    assert one.does("os.stat('f').st_size") == 'ENOENT'
    assert one.does('os.listdir()') == []
    corner.api('f', "write_text('hello')")
    soon(one, "os.stat('f').st_size", 5)
    assert one.does("open('f').read()") == 'hello'
    assert one.does('os.listdir()') == ['f']


def test_a_file_that_python_writes_over_has_its_new_size_and_content(corner: Corner, one: Program) -> None:
    assert one.does("open('f', 'w').write('hello')") == 5
    for text in ('longer than that', 'other text here!', 's'):
        assert one.does("os.stat('f').st_size, open('f').read() != ''") != 'ENOENT'
        corner.api('f', f'write_text({text!r})')
        soon(one, "os.stat('f').st_size, open('f').read()", (len(text), text))


def test_a_file_that_python_removes_has_gone(corner: Corner, one: Program) -> None:
    assert one.does("open('f', 'w').write('hello')") == 5
    assert one.does("os.stat('f').st_size, os.listdir()") == (5, ['f'])
    corner.api('f', 'delete()')
    soon(one, "os.stat('f').st_size", 'ENOENT')
    assert one.does('os.listdir()') == []


def test_directories_that_python_makes_moves_and_removes_are_followed(corner: Corner, one: Program) -> None:
    for name in ('a', 'a/b', 'a/b/f', 'z'):
        assert one.does(f'os.stat({name!r}).st_size') == 'ENOENT'
    corner.api('a/b', 'mkdir(parents=True)')
    corner.api('a/b/f', "write_text('deep')")
    soon(one, "open('a/b/f').read()", 'deep')
    corner.api('a', f"move('{corner.mount}:{corner.name}/z')")
    soon(one, "os.stat('a').st_size", 'ENOENT')
    soon(one, "open('z/b/f').read()", 'deep')
    corner.api('z/b/f', 'delete()')
    corner.api('z/b', 'delete()')
    soon(one, "os.listdir('z')", [])
    soon(one, "os.stat('z/b').st_size", 'ENOENT')


def test_who_works_in_a_directory_stays_in_it(corner: Corner, one: Program) -> None:
    before = one.does('os.getcwd()')
    corner.api('f', "write_text('hello')")
    soon(one, "os.stat('f').st_size", 5)
    assert one.does('os.getcwd()') == before
    assert one.does("open('../' + os.path.basename(os.getcwd()) + '/f').read()") == 'hello'


def test_what_is_open_stays_what_it_was(corner: Corner, one: Program) -> None:
    assert one.does("open('f', 'w').write('hello')") == 5
    fd = one.does("os.open('f', os.O_RDONLY)")
    assert one.does(f'os.pread({fd}, 100, 0)') == b'hello'
    corner.api('f', "write_text('something else')")
    soon(one, "open('f').read()", 'something else')
    assert one.does(f'os.pread({fd}, 100, 0)') == b'hello'


def test_what_the_mount_changes_python_sees_at_once(corner: Corner, one: Program) -> None:
    corner.api('f', "write_text('python')")
    soon(one, "open('f').read()", 'python')
    assert one.does("open('f', 'w').write('mounted')") == 7
    assert corner.api('f', 'read_text()') == "'mounted'"
    assert one.does("os.rename('f', 'g')") is None
    assert corner.api('f', 'exists') == 'False'
    assert corner.api('g', 'read_text()') == "'mounted'"


# Somebody else


@pytest.fixture
def others(both: Both, s3_server: S3Server) -> Corner:
    """A directory that somebody else has made, so that nobody here knows what is in it."""
    name = f'corner-{next(_numbers)}'
    s3_server.put(both.bucket, f'{name}/', b'')
    return Corner(both, 'bucket', name)


def test_a_listing_that_shows_another_version_ends_what_the_kernel_believed(
    others: Corner, s3_server: S3Server
) -> None:
    names = ('changed', 'gone', 'new', 'same')
    for name in names:
        if name != 'new':
            s3_server.put(others.both.bucket, f'{others.name}/{name}', b'first')
    with program(others.path) as one:
        sizes = f'[os.path.exists(name) and os.stat(name).st_size for name in {names!r}]'
        assert one.does(sizes) == [5, 5, False, 5]
        s3_server.put(others.both.bucket, f'{others.name}/changed', b'another size')
        s3_server.put(others.both.bucket, f'{others.name}/new', b'new')
        s3_server.request('delete_object', Bucket=others.both.bucket, Key=f'{others.name}/gone')
        assert one.does(sizes) == [5, 5, False, 5]
        others.api('', 'children()')
        soon(one, sizes, [12, False, 3, 5])
        assert one.does("open('changed').read()") == 'another size'


def test_a_read_that_finds_the_version_gone_ends_what_the_kernel_believed(others: Corner, s3_server: S3Server) -> None:
    s3_server.put(others.both.bucket, f'{others.name}/f', os.urandom(3 << 20))
    with program(others.path) as one:
        fd = one.does("os.open('f', os.O_RDONLY)")
        assert one.does("os.stat('f').st_size") == 3 << 20
        s3_server.put(others.both.bucket, f'{others.name}/f', b'small')
        assert one.does(f'os.pread({fd}, 10, 2 << 20)') == 'ESTALE'
        soon(one, "os.stat('f').st_size", 5)
