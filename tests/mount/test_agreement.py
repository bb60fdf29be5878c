"""The mounted tree and the Python API, in another process, agree about a bucket."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genro_storage import StorageManager, StorageNode
from genro_storage.backend_volume import RECENTLY_S
from tests.mount.mounted import Mounted, await_true, mounted, s3_definition
from tests.servers import S3Server

TTL_S = 1.0
#: The TTL, and as much again for a machine that others use too.
SOON_S = 5 * TTL_S


class Both:
    """A bucket, mounted, through the API of this process, and directly."""

    def __init__(self, tree: Mounted, storage: StorageManager, server: S3Server, bucket: str) -> None:
        self.tree = tree
        self.server = server
        self.bucket = bucket
        self._storage = storage

    def node(self, path: str = '') -> StorageNode:
        return self._storage.node('bucket', path)

    def sh(self, script: str) -> str:
        return self.tree.sh(script, cwd=self.tree.path('bucket'))

    def stored(self, key: str) -> bytes:
        return bytes(self.server.request('get_object', Bucket=self.bucket, Key=key)['Body'].read())


@pytest.fixture(scope='module')
def shared(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Both]:
    bucket = s3_server.new_bucket()
    definition = s3_definition(s3_server, bucket, ttl=TTL_S)
    with mounted(tmp_path_factory.mktemp('agreement'), [definition]) as tree, StorageManager() as storage:
        storage.configure([definition])
        yield Both(tree, storage, s3_server, bucket)


@pytest.fixture
def both(shared: Both) -> Both:
    for node in shared.node().children():
        node.delete()
    time.sleep(TTL_S)  # what either side remembers of the test before
    return shared


def eventually(both: Both, script: str, expected: str) -> None:
    """What a script prints becomes this within the TTL."""
    await_true(lambda: both.sh(f'{script} 2>&1 || true') == expected, SOON_S, f'{script!r} → {expected!r}')


def test_each_sees_what_the_other_wrote(both: Both) -> None:
    both.node('from/the/api').write_text('by the API')
    eventually(both, 'cat from/the/api', 'by the API')
    both.sh('mkdir -p by/the; echo "by the mount" > by/the/mount')
    await_true(lambda: both.node('by/the/mount').exists, SOON_S)
    assert both.node('by/the/mount').read_text() == 'by the mount\n'
    await_true(lambda: [node.basename for node in both.node().children()] == ['by', 'from'], SOON_S)
    assert both.sh('ls').split() == ['by', 'from']


def test_each_sees_what_the_other_removed_and_renamed(both: Both) -> None:
    both.sh('mkdir d; echo 1 > d/one; echo 2 > d/two')
    assert both.sh('ls d').split() == ['one', 'two']
    await_true(lambda: both.node('d/one').exists, SOON_S)
    both.node('d/one').delete()
    both.node('d/two').move('bucket:d/zwei')
    eventually(both, 'ls d; cat d/zwei', 'zwei\n2\n')
    both.sh('rm -r d')
    await_true(lambda: not both.node('d').exists, SOON_S)


def test_a_whole_tree_written_by_one_is_read_by_the_other(both: Both) -> None:
    contents = {f'd{n % 3}/e{n % 2}/f{n}': b'%d' % n * (n * 5000) for n in range(12)}
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda item: both.node(item[0]).write_bytes(item[1]), contents.items()))
    # tree.path('bucket') was listed before, so that is believed for a while.
    await_true(lambda: both.sh('find . -type f').count('\n') == len(contents), SOON_S)
    for path, content in contents.items():
        assert both.tree.run('cat', both.tree.path('bucket', path), encoding='latin-1').encode('latin-1') == content
    both.sh('cp -r d0 copy')
    await_true(lambda: both.node('copy').isdir, SOON_S)
    for path, content in contents.items():
        if path.startswith('d0'):
            assert both.node('copy' + path[2:]).read_bytes() == content


def test_close_returns_only_when_the_object_is_on_the_server(both: Both) -> None:
    program = """
import sys
with open('f', 'wb') as file:
    file.write(b'x' * 3_000_000)
print('closed', flush=True)
sys.stdin.read()
"""
    writer = subprocess.Popen(
        [sys.executable, '-c', program],
        cwd=both.tree.path('bucket'),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b'closed\n'
    assert both.stored('f') == b'x' * 3_000_000
    writer.communicate(timeout=10)


def test_fsync_commits_and_writing_goes_on(both: Both) -> None:
    program = """
import os, sys
fd = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
for part in (b'one ', b'two ', b'three'):
    os.write(fd, part)
    os.fsync(fd)
    print('synced', flush=True)
    sys.stdin.readline()
os.close(fd)
"""
    writer = subprocess.Popen(
        [sys.executable, '-c', program],
        cwd=both.tree.path('bucket'),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stdin is not None
    for expected in (b'one ', b'one two ', b'one two three'):
        assert writer.stdout.readline() == b'synced\n'
        assert both.stored('f') == expected
        writer.stdin.write(b'\n')
        writer.stdin.flush()
    writer.communicate(timeout=10)
    assert both.stored('f') == b'one two three'


def test_a_same_size_overwrite_is_seen_after_the_ttl(both: Both) -> None:
    both.node('f').write_bytes(b'first')
    eventually(both, 'cat f', 'first')
    for text in ('other', 'third'):
        both.node('f').write_bytes(text.encode())
        eventually(both, 'cat f', text)
    both.server.put(both.bucket, 'f', b'fifth')
    eventually(both, 'cat f', 'fifth')
    await_true(lambda: both.node('f').read_bytes() == b'fifth', SOON_S)


def test_a_file_of_another_size_is_read_whole_and_never_mixed(both: Both) -> None:
    for number, size in enumerate((10, 300_000, 5, 1_000_000, 0, 70_000)):
        content = bytes([65 + number]) * size
        both.server.put(both.bucket, 'f', content)
        deadline = time.monotonic() + SOON_S
        while True:
            done = both.sh('cat f 2>/dev/null | md5sum; true')
            allowed = both.tree.run('sh', '-c', f"head -c {size} /dev/zero | tr '\\0' '{chr(65 + number)}' | md5sum")
            if done == allowed:
                break
            assert time.monotonic() < deadline


def test_who_reads_an_old_version_gets_that_or_estale_and_who_opens_now_the_new_one(both: Both) -> None:
    both.server.put(both.bucket, 'f', b'old' * 1_000_000)
    program = """
import errno, os, sys
fd = os.open('f', os.O_RDONLY)
assert os.pread(fd, 3, 0) == b'old'
print('reading', flush=True)
sys.stdin.readline()
pieces, offset = [], 0
try:
    while piece := os.pread(fd, 1 << 20, offset):
        pieces.append(piece); offset += len(piece)
    print('all' if b''.join(pieces) == b'old' * 1_000_000 else 'MIXED')
except OSError as error:
    clean = b'new' not in b''.join(pieces) and error.errno == errno.ESTALE
    print('estale' if clean else f'MIXED {error}')
"""
    reader = subprocess.Popen(
        [sys.executable, '-c', program],
        cwd=both.tree.path('bucket'),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == 'reading\n'
    both.server.put(both.bucket, 'f', b'new' * 400_000)
    await_true(lambda: both.sh('stat -c %s f') == '1200000\n', SOON_S)
    digest = both.sh('md5sum < f')
    assert digest == both.sh("yes new | head -n 400000 | tr -d '\\n' | md5sum")
    assert reader.communicate('\n', 20)[0] in {'all\n', 'estale\n'}
    assert both.sh('md5sum < f') == digest


def test_a_file_that_was_replaced_since_it_was_told_of_is_opened_as_it_is_now(
    tmp_path: Path, s3_server: S3Server
) -> None:
    bucket = s3_server.new_bucket()
    for name in ('shorter', 'longer', 'removed'):
        s3_server.put(bucket, name, b'old' * 100_000)
    with mounted(tmp_path, [s3_definition(s3_server, bucket, ttl=3600.0)]) as tree:
        folder = tree.path('bucket')
        assert tree.sh('ls -l | wc -l', cwd=folder) == '4\n'
        s3_server.put(bucket, 'shorter', b'new')
        s3_server.put(bucket, 'longer', b'new' * 400_000)
        s3_server.request('delete_object', Bucket=bucket, Key='removed')
        time.sleep(RECENTLY_S)  # so that what was told is not taken for new
        assert tree.sh('cat shorter', cwd=folder) == 'new'
        assert tree.sh('wc -c < longer; tr -d new < longer | wc -c', cwd=folder) == '1200000\n0\n'
        assert tree.sh('cat removed 2>&1 || true', cwd=folder) == 'cat: removed: No such file or directory\n'


def test_a_write_over_what_somebody_else_has_changed_is_kept_beside_it(both: Both) -> None:
    both.server.put(both.bucket, 'f', b'base')
    program = """
import errno, os, sys
fd = os.open('f', os.O_RDWR)
os.pwrite(fd, b'mine', 0)
print('written', flush=True)
sys.stdin.readline()
try: os.close(fd)
except OSError as error: print(errno.errorcode[error.errno])
"""
    writer = subprocess.Popen(
        [sys.executable, '-c', program],
        cwd=both.tree.path('bucket'),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == 'written\n'
    both.server.put(both.bucket, 'f', b'theirs')
    assert writer.communicate('\n', 20)[0] == 'ESTALE\n'
    assert both.stored('f') == b'theirs'
    (kept,) = [key for key in both.server.keys(both.bucket) if 'conflict' in key]
    assert both.stored(kept) == b'mine'
    # It was made by the daemon, not by a program: it is seen within the TTL all the same.
    await_true(lambda: kept in both.sh('ls').split(), SOON_S)
    eventually(both, 'cat f', 'theirs')


def test_a_file_that_becomes_a_directory_and_back_is_what_it_is(both: Both) -> None:
    both.server.put(both.bucket, 'x', b'file')
    eventually(both, 'cat x', 'file')
    both.server.request('delete_object', Bucket=both.bucket, Key='x')
    both.server.put(both.bucket, 'x/y', b'below')
    eventually(both, 'cat x/y', 'below')
    assert both.sh('ls x') == 'y\n'
    both.server.request('delete_object', Bucket=both.bucket, Key='x/y')
    both.server.put(both.bucket, 'x', b'file again')
    eventually(both, 'cat x', 'file again')


def test_a_listing_of_a_thousand_and_more_objects_is_whole(both: Both) -> None:
    names = sorted(f'object-{number:04}' for number in range(1_010))
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: both.server.put(both.bucket, f'many/{name}', b'x'), names))
    await_true(lambda: both.sh('ls many 2>/dev/null || true').split() == names, 3 * SOON_S)
    started = time.monotonic()
    assert both.sh('ls -l many').count('-rw') == 1_010
    # From one listing: a request for each would take longer.
    assert time.monotonic() - started < 5
    assert [node.basename for node in both.node('many').children()] == names
    both.server.put(both.bucket, 'many/one-more', b'x')
    eventually(both, 'ls many | wc -l', '1011\n')


def test_without_a_ttl_everything_is_seen_at_once(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    with mounted(tmp_path, [s3_definition(s3_server, bucket, ttl=0)]) as tree:
        for number in range(5):
            s3_server.put(bucket, 'f', b'%d' % number)
            assert tree.run('cat', 'bucket/f') == f'{number}'
            s3_server.put(bucket, f'new-{number}', b'')
            assert f'new-{number}' in tree.run('ls', 'bucket').split()
            s3_server.request('delete_object', Bucket=bucket, Key='f')
            assert 'No such file' in tree.fails('cat', 'bucket/f')


def test_a_prefix_shows_what_is_below_it_and_nothing_else(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    for key in ('outside', 'pre/inside', 'prefix/other', 'pre/deep/er'):
        s3_server.put(bucket, key, key.encode())
    with mounted(tmp_path, [s3_definition(s3_server, bucket, prefix='pre')]) as tree:
        assert tree.sh('cd bucket; find . -type f | sort').split() == ['./deep/er', './inside']
        tree.sh('echo x > bucket/new; rm bucket/inside; cat bucket/../bucket/deep/er')
    assert sorted(key for key in s3_server.keys(bucket) if key[-1] != '/') == [
        'outside',
        'pre/deep/er',
        'pre/new',
        'prefix/other',
    ]
