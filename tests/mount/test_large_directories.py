"""Directories of many entries: each is listed once whatever comes and goes, in bounded time and memory."""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mount.mounted import Mounted, mounted, run, s3_definition
from tests.mount.places import Place
from tests.mount.stepping import Program, program
from tests.servers import S3Server

MANY = 100_000
#: In the ordinary run: to make them through the mount or on the server takes minutes.
FEWER = {'local': MANY, 'memory': 10_000, 'bucket': 3_000}
FILL_TIMEOUT_S = 900
LIST_TIMEOUT_S = 300
PUTS_AT_ONCE = 64

#: What the server holds of an entry that the kernel knows: the inode and its names, what the backend said of it, and
#: where it is in a listing that is open. Measured: 1 KB of a local file, 2 KB of others.
KEPT_BYTES = 3_000
#: A listing against one of a plain folder of as many. Measured on a busy machine: 3 local, 20 others.
SLOWER = 40
#: Besides: a thread may have to wait for its turn, and the first listing of a bucket asks the server a hundred times.
SLACK_S = {'local': 3.0, 'memory': 3.0, 'bucket': 30.0}

# Lists a directory some times, and looks at some of what is in it.
LIST = """
import json, os, sys, time
directory, rounds = sys.argv[1], int(sys.argv[2])
seconds = []
for _ in range(rounds):
    started = time.perf_counter()
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries]
    seconds.append(time.perf_counter() - started)
for name in names[:: max(1, len(names) // 500)]:
    os.lstat(os.path.join(directory, name))
print(json.dumps({'names': len(names), 'different': len(set(names)), 'last': max(names), 'seconds': seconds}))
"""
# Directory streams of the C library: what POSIX says of them it says of these functions.
STREAMS = """
import ctypes
libc = ctypes.CDLL(None)
for name in ('opendir', 'readdir', 'telldir', 'seekdir', 'rewinddir', 'closedir'):
    getattr(libc, name).argtypes = [ctypes.c_void_p]
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
stream = libc.opendir(b'.')

def read(count):
    names = []
    while len(names) < count and (entry := libc.readdir(stream)):
        names.append(os.fsdecode(ctypes.string_at(entry + 19)))  # d_name of struct dirent64 (bits/dirent.h)
    return names
"""


class Listed(NamedTuple):
    """What LIST has found."""

    names: int
    different: int
    last: str
    seconds: list[float]


def listed(directory: Path, rounds: int = 1) -> Listed:
    done = run(sys.executable, '-I', '-c', LIST, directory, str(rounds), timeout_s=LIST_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return Listed(**json.loads(done.stdout))


def rss_bytes(tree: Mounted) -> int:
    status = Path(f'/proc/{tree.pid}/status').read_text()
    (line,) = (line for line in status.splitlines() if line.startswith('VmRSS'))
    return int(line.split()[1]) << 10


# Many


class Many:
    """Mounts of each kind, and ways to fill a directory of theirs quickly."""

    def __init__(self, tree: Mounted, server: S3Server, folder: Path) -> None:
        self.tree = tree
        self._server = server
        self._folder = folder

    def fill(self, kind: str, count: int) -> Path:
        """A new directory of so many empty files, or directories where these are quicker made."""
        name = f'many-{next(_numbers)}'
        if kind == 'local':
            fill_folder(self._folder / name, count)
        elif kind == 'bucket':
            asyncio.run(self._put(name, count))
        else:
            script = f'mkdir "$0"; cd "$0"; seq -f entry-%06g 0 {count - 1} | xargs mkdir'
            self.tree.run('sh', '-euc', script, self.tree.path(kind, name), timeout_s=FILL_TIMEOUT_S)
        return self.tree.path(kind, name)

    async def _put(self, name: str, count: int) -> None:
        from obstore.store import S3Store

        store = S3Store(
            self.tree.bucket,
            endpoint=self._server.endpoint_url,
            region=self._server.region,
            access_key_id=self._server.key,
            secret_access_key=self._server.secret,
            client_options={'allow_http': True},
        )
        numbers = iter(range(count))

        async def put() -> None:
            for number in numbers:
                await store.put_async(f'{name}/entry-{number:06}', b'')

        await asyncio.gather(*(put() for _ in range(PUTS_AT_ONCE)))


_numbers = itertools.count(1)


def fill_folder(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        os.close(os.open(folder / f'entry-{number:06}', os.O_WRONLY | os.O_CREAT))


@pytest.fixture
def many(tmp_path: Path, s3_server: S3Server) -> Iterator[Many]:
    (tmp_path / 'local').mkdir()
    bucket = s3_server.new_bucket()
    definitions = [
        s3_definition(s3_server, bucket),
        {'name': 'memory', 'type': 'memory'},
        {'name': 'local', 'type': 'local', 'path': str(tmp_path / 'local')},
    ]
    with mounted(tmp_path, definitions) as tree:
        tree.bucket = bucket
        yield Many(tree, s3_server, tmp_path / 'local')


@pytest.mark.timeout(FILL_TIMEOUT_S)
@pytest.mark.parametrize(('kind', 'count'), FEWER.items())
def test_a_large_directory_is_listed_whole_in_bounded_time_and_memory(
    many: Many, tmp_path: Path, kind: str, count: int
) -> None:
    assert_listed(many, tmp_path, kind, count)


@pytest.mark.long
@pytest.mark.timeout(2 * FILL_TIMEOUT_S)
@pytest.mark.parametrize('kind', ['local', 'memory', 'bucket'])
def test_a_directory_of_100000_is_listed_whole_in_bounded_time_and_memory(
    many: Many, tmp_path: Path, kind: str
) -> None:
    directory = assert_listed(many, tmp_path, kind, MANY)
    assert many.tree.sh('ls -l | wc -l', cwd=directory, timeout_s=LIST_TIMEOUT_S) == f'{MANY + 1}\n'


def assert_listed(many: Many, tmp_path: Path, kind: str, count: int) -> Path:
    fill_folder(tmp_path / 'plain', count)
    plain = listed(tmp_path / 'plain', rounds=3)
    directory = many.fill(kind, count)
    before = rss_bytes(many.tree)
    found = listed(directory, rounds=3)
    assert (found.names, found.different, found.last) == (count, count, f'entry-{count - 1:06}')
    assert max(found.seconds) < SLOWER * min(plain.seconds) + SLACK_S[kind], (found.seconds, plain.seconds)
    first = rss_bytes(many.tree)
    assert first - before < count * KEPT_BYTES
    # What is looked at again is not kept again.
    listed(directory, rounds=3)
    assert rss_bytes(many.tree) - first < count * KEPT_BYTES / 4
    return directory


# Coming and going


#: So long that a listing comes in several pieces, of 32 KiB each to the C library.
PADDING = '-' * 230
STAYING = [f'stays-{number:03}{PADDING}' for number in range(200)]
GOING = [f'wanes-{number:03}{PADDING}' for number in range(80)]
PIECE = 23


class Directory:
    """A directory of names that stay and names that go, and a program that reads it as a stream."""

    def __init__(self, place: Place, path: Path, reader: Program) -> None:
        self.path = path
        self.reader = reader
        self._place = place

    def read(self, count: int = 10_000) -> list[str]:
        return list(self.reader.does(f'read({count})'))

    def sh(self, script: str, *arguments: str) -> None:
        self._place.tree.run('sh', '-euc', script, *arguments, cwd=self.path)


@pytest.fixture
def directory(place: Place, s3_server: S3Server) -> Iterator[Directory]:
    path = place.path.with_name(f'{place.name}-directory')
    if place.kind == 'bucket':  # through the mount one would wait for the other
        with ThreadPoolExecutor(8) as pool:
            keys = [f'{path.name}/{name}/' for name in STAYING + GOING]
            list(pool.map(lambda key: s3_server.put(place.tree.bucket, key, b''), keys))
    else:
        place.tree.run('mkdir', path, *(path / name for name in STAYING + GOING))
    with program(path) as reader:
        reader.does(f'exec({STREAMS!r})')
        yield Directory(place, path, reader)


@pytest.mark.parametrize('looking', [False, True], ids=['names', 'names and attributes'])
def test_what_stays_is_listed_once_whatever_comes_and_goes(directory: Directory, looking: bool) -> None:
    found: list[str] = []
    ahead, gone = list(GOING), list[str]()  # the last ones come last in a listing, mostly
    while names := directory.read(PIECE):
        found += names
        if looking:  # the kernel then asks for attributes with the names
            directory.reader.does(f'[os.lstat(name).st_ino for name in {[name for name in names if name in STAYING]}]')
        going = ahead[-6:]
        del ahead[-6:]
        gone += going
        directory.sh('mkdir "come-$0"; rmdir "$@"; mv "come-$0" "moved-$0"', str(len(ahead)), *going)
    assert sorted(name for name in found if name in STAYING) == STAYING
    assert len(found) == len(set(found))
    # A listing that began before does not bring back what has gone since.
    assert directory.reader.does(f'[name for name in {gone} if os.path.exists(name)]') == []


def test_a_position_leads_back_to_what_was_behind_it_whatever_came_and_went(directory: Directory) -> None:
    found: list[str] = []
    positions: list[tuple[int, int]] = []
    while names := directory.read(PIECE):
        found += names
        positions.append((len(found), directory.reader.does('libc.telldir(stream)')))
    directory.sh('mkdir new; rmdir wanes-*')
    for count, position in reversed(positions):
        directory.reader.does(f'libc.seekdir(stream, {position})')
        behind = directory.read()
        assert [name for name in behind if name in STAYING] == [name for name in found[count:] if name in STAYING]
        assert len(behind) == len(set(behind))


def test_a_rewind_shows_what_is_new_and_not_what_has_gone(directory: Directory) -> None:
    directory.read(PIECE)
    directory.sh('mkdir new; rmdir wanes-*')
    directory.reader.does('libc.rewinddir(stream)')
    assert sorted(directory.read()) == sorted(['.', '..', 'new', *STAYING])


def test_a_listing_in_pieces_of_one_entry_is_whole(local: Place) -> None:
    """getdents64(2) with room for no two names."""
    names = [f'entry-{number}' for number in range(50)]
    local.tree.run('mkdir', *names, cwd=local.path)
    with program(local.path) as reader:
        reader.does(f'exec({ONE_BY_ONE!r})')
        assert sorted(reader.does('one_by_one()')) == sorted(['.', '..', *names])


ONE_BY_ONE = """
import ctypes
libc = ctypes.CDLL(None)

def one_by_one():
    descriptor = os.open('.', os.O_RDONLY)
    buffer = ctypes.create_string_buffer(47)
    names = []
    while (size := libc.syscall(217, descriptor, buffer, 47)) > 0:
        names.append(os.fsdecode(buffer.raw[19:size].split(bytes(1))[0]))
    assert size == 0, size
    return names
"""
