"""All mounts of one server under mixed load at once: what is read is right, and at the end nothing has grown.

Each writer owns a directory and knows what is in it; readers and walkers look at what all write. A file appears whole
under its name, and is one block again and again, so a reader can tell it from a mixture.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import CHECKOUT, Mounted, all_kinds, run
from tests.servers import S3Server

SOAK_S = 240
#: In which everything is started, caches fill, and threads and connections come to their numbers.
WARM_UP_S = 60
SETTLE_S = 15
#: So little that it is full long before the warm-up ends. With the usual 128 MiB it grew for three minutes.
SETTINGS = {'cache': {'memory': '16MiB'}}
#: Of the resident memory at the end of the warm-up: what fragments grow to besides.
GROWTH = 1.25
GROWTH_BYTES = 24 << 20
#: Threads and descriptors that may come besides: a pool that grows by its last ones.
MORE = 16
KINDS = ('local', 'memory', 'bucket')
END_TIMEOUT_S = 120

WORK = """
import errno, hashlib, json, os, random, sys, time
role, directory, seed, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
chance = random.Random(seed)
end = time.monotonic() + seconds
done = 0

def content(name, turn):
    block = hashlib.blake2b(f'{name}:{turn}'.encode()).digest()
    return block * chance.choice([1, 10, 700, 5_000])

def check(path, data):
    pieces = [data[at : at + 64] for at in range(0, len(data), 64)]
    odd = next((number for number, piece in enumerate(pieces) if piece != pieces[0]), None)
    assert odd is None, f'{path}, {len(data)} bytes: {pieces[0][:4]!r}…, but from {64 * odd} on {pieces[odd][:4]!r}…'

def passing(error):
    # Between a listing and a look at it things go, and a version that was replaced and is not cached is ESTALE.
    return error.errno in (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)

def write():
    global done
    known = {}
    own = os.path.join(directory, f'writer-{seed}')
    os.mkdir(own)
    while time.monotonic() < end:
        name = f'f{chance.randrange(12)}'
        path = os.path.join(own, name)
        what = chance.random()
        if what < 0.4:
            data = content(path, done)
            temporary = path + '.new'
            with open(temporary, 'wb') as file:
                file.write(data)
                if chance.random() < 0.2:
                    os.fsync(file.fileno())
            if chance.random() < 0.2:
                data = data[:64]
                with open(temporary, 'r+b') as file:
                    file.truncate(64)
            os.rename(temporary, path)
            known[name] = data
        elif what < 0.6:
            if name in known:
                with open(path, 'rb') as file:
                    assert file.read() == known[name], f'{path} is not what was written'
            else:
                assert not os.path.exists(path)
        elif what < 0.7 and name in known:
            os.unlink(path)
            del known[name]
        elif what < 0.8 and name in known:
            other = f'f{chance.randrange(12)}'
            os.rename(path, os.path.join(own, other))
            known[other] = known.pop(name)
        elif what < 0.9:
            assert sorted(os.listdir(own)) == sorted(known)
        else:
            os.makedirs(own + '/d/e')
            os.rmdir(own + '/d/e')
            os.rmdir(own + '/d')
        done += 1
    for name, data in known.items():
        with open(os.path.join(own, name), 'rb') as file:
            assert file.read() == data

def look():
    global done
    while time.monotonic() < end:
        try:
            for folder, _, names in os.walk(directory):
                for name in names:
                    path = os.path.join(folder, name)
                    try:
                        if role == 'read' and not name.endswith('.new'):
                            with open(path, 'rb') as file:
                                check(path, file.read())
                        else:
                            os.lstat(path)
                    except OSError as error:
                        if not passing(error):
                            raise
                    done += 1
        except OSError as error:
            if not passing(error):
                raise

write() if role == 'write' else look()
print(json.dumps({'done': done}))
"""


class State:
    """What a server holds."""

    def __init__(self, pid: int) -> None:
        status = Path(f'/proc/{pid}/status').read_text().splitlines()
        (line,) = (line for line in status if line.startswith('VmRSS'))
        self.rss_bytes = int(line.split()[1]) << 10
        self.threads = len(list(Path(f'/proc/{pid}/task').iterdir()))
        self.descriptors = len(list(Path(f'/proc/{pid}/fd').iterdir()))

    def __repr__(self) -> str:
        return f'{self.rss_bytes >> 20} MiB, {self.threads} threads, {self.descriptors} descriptors'


def load(tree: Mounted, seconds: float) -> dict[str, int]:
    """Put all mounts under load for a while, in directories that are new; how much each role has done."""
    seeds = iter(random.sample(range(1_000_000), 100))
    programs = []
    for kind in KINDS:
        directory = tree.path(kind, f'load-{next(seeds)}')
        tree.run('mkdir', directory)
        for role in ('write', 'write', 'read', 'walk'):
            command = [sys.executable, '-I', '-c', WORK, role, str(directory), str(next(seeds)), str(seconds)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT)
            programs.append((f'{role} on {kind}', process))
    deadline = time.monotonic() + seconds + END_TIMEOUT_S
    done: dict[str, int] = {}
    try:
        for what, process in programs:
            output, errors = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            assert process.returncode == 0, f'{what}: {errors}'
            done[what] = done.get(what, 0) + json.loads(output)['done']
    finally:
        for _, process in programs:
            process.kill()
            process.communicate()
    for kind in KINDS:
        tree.sh('rm -r load-*', cwd=tree.path(kind), timeout_s=END_TIMEOUT_S)
    return done


def settled(tree: Mounted) -> State:
    """What the server holds once the kernel has forgotten what nobody uses, where the tests may ask it to."""
    run('sh', '-c', 'echo 2 > /proc/sys/vm/drop_caches')
    deadline = time.monotonic() + SETTLE_S
    state = State(tree.pid)
    while time.monotonic() < deadline:
        time.sleep(1)
        state = State(tree.pid)
    return state


@pytest.fixture(scope='module')
def everything(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Mounted]:
    with all_kinds(tmp_path_factory.mktemp('everything'), s3_server, settings=SETTINGS) as tree:
        yield tree


def soak(tree: Mounted, warm_up_s: float, soak_s: float) -> None:
    load(tree, warm_up_s)
    before = settled(tree)
    done = load(tree, soak_s)
    after = settled(tree)
    assert all(done.values()), done
    assert after.rss_bytes < GROWTH * before.rss_bytes + GROWTH_BYTES, (before, after)
    assert after.threads <= before.threads + MORE, (before, after)
    assert after.descriptors <= before.descriptors + MORE, (before, after)


@pytest.mark.timeout(300)
def test_mixed_load_for_seconds_reads_right(everything: Mounted) -> None:
    assert all(load(everything, 6).values())


@pytest.mark.long
@pytest.mark.timeout(SOAK_S + WARM_UP_S + 4 * END_TIMEOUT_S)
def test_mixed_load_for_minutes_reads_right_and_leaves_the_server_as_it_was(everything: Mounted) -> None:
    soak(everything, WARM_UP_S, SOAK_S)
