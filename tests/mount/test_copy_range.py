"""cp within a bucket and between two mounts of one: contents are copied where they lie, and are right there."""

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.fault_proxy import FaultProxy, fault_proxy
from tests.mount.mounted import Mounted, mounted, s3_definition
from tests.servers import S3Server

MIB = 1 << 20
#: Requests and answers, and where somebody was told of a source a second ago its first block, to see whether it is
#: still there.
NO_CONTENT_BYTES = 600 << 10
DRIVERS = ('obstore', 'fsspec')

# In pieces, as programs copy that show how far they are.
COPY = """
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
piece, copied = int(sys.argv[3]), 0
while moved := os.copy_file_range(source, target, piece):
    copied += moved
os.close(target)
print(copied)
"""

# Closes when it is told to, and says why it could not.
COPY_AND_WAIT = """
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
assert os.copy_file_range(source, target, 1 << 30)
print('copied', flush=True)
sys.stdin.readline()
try:
    os.close(target)
except OSError as error:
    print(error.errno)
"""


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Copied:
    """A tree behind a proxy: 'one' is a bucket, 'part' the same below a prefix, 'other' another bucket, 'memory'."""

    def __init__(self, tree: Mounted, proxy: FaultProxy, server: S3Server, bucket: str, other: str) -> None:
        self.tree = tree
        self.proxy = proxy
        self.bucket = bucket
        self.other = other
        self._server = server
        self.sample = tree.mountpoint.parent / 'sample'

    def make(self, name: str, size_bytes: int) -> str:
        """A file of random bytes in 'one', written through the mount, which so knows of it at once; its digest."""
        data = os.urandom(size_bytes)
        self.sample.write_bytes(data)
        self.tree.run('cp', self.sample, self.tree.path('one', name))
        return digest_of(data)

    def put(self, key: str, data: bytes) -> None:
        """Store an object as somebody else would."""
        self._server.put(self.bucket, key, data)

    def stored(self, key: str, bucket: str = '') -> str:
        """The digest of what is stored, asked of the server."""
        body = self._server.request('get_object', Bucket=bucket or self.bucket, Key=key)['Body']
        digest = hashlib.sha256()
        for piece in iter(lambda: body.read(MIB), b''):
            digest.update(piece)
        return digest.hexdigest()

    def uploads(self) -> list[str]:
        return self._server.uploads(self.bucket)

    @contextmanager
    def moving_nothing(self) -> Iterator[None]:
        """What is done inside moves no contents to the server or from it."""
        before = self.proxy.moved_bytes()
        yield
        assert self.proxy.moved_bytes() - before < NO_CONTENT_BYTES


@pytest.fixture(scope='module', params=DRIVERS)
def copied(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, request: pytest.FixtureRequest
) -> Iterator[Copied]:
    folder = tmp_path_factory.mktemp('copied')
    bucket, other = s3_server.new_bucket(), s3_server.new_bucket()
    with fault_proxy(s3_server.endpoint_url) as proxy:
        own = {'driver': request.param, 'endpoint_url': proxy.url}
        definitions = [
            s3_definition(s3_server, bucket, 'one', **own),
            s3_definition(s3_server, bucket, 'part', prefix='inside/it', **own),
            s3_definition(s3_server, bucket, 'late', durability='writeback', writeback_delay='1h', **own),
            s3_definition(s3_server, other, 'other', **own),
            {'name': 'memory', 'type': 'memory'},
        ]
        with mounted(folder, definitions) as tree:
            yield Copied(tree, proxy, s3_server, bucket, other)


@pytest.mark.parametrize('size_bytes', [2 * MIB, 5 * MIB + 1, 40 * MIB + 12_345])
def test_cp_moves_no_bytes(copied: Copied, size_bytes: int) -> None:
    name, new = f'cp-{size_bytes}', f'new-{size_bytes}'
    digest = copied.make(name, size_bytes)
    with copied.moving_nothing():
        copied.tree.sh(f'cp one/{name} one/{new}; cp one/{name} one/{new}; cp one/{new} part/{new}')
    assert copied.stored(new) == copied.stored(f'inside/it/{new}') == digest
    copied.tree.sh(f'cmp one/{name} one/{new} && cmp one/{name} part/{new}')


def test_a_copy_in_pieces_moves_none_either(copied: Copied) -> None:
    digest = copied.make('pieces', 20 * MIB + 7)
    paths = (copied.tree.path('one', name) for name in ('pieces', 'pieces.new'))
    with copied.moving_nothing():
        done = copied.tree.run(sys.executable, '-c', COPY, *paths, str(3 * MIB))
    assert done.strip() == str(20 * MIB + 7)
    assert copied.stored('pieces.new') == digest


def test_cp_that_preserves_and_mv_between_mounts_move_none(copied: Copied) -> None:
    digest = copied.make('kept', 2 * MIB)
    with copied.moving_nothing():
        copied.tree.sh('cp -a one/kept one/kept.new; mv one/kept.new part/kept.moved')
    assert copied.stored('inside/it/kept.moved') == digest
    assert 'kept.new' not in copied._server.keys(copied.bucket)


def test_only_the_parts_that_are_changed_in_a_copy_are_sent(copied: Copied) -> None:
    copied.make('appended', 40 * MIB)
    before = copied.proxy.moved_bytes()
    program = COPY.replace('os.close(target)', 'os.pwrite(target, b"more", copied); os.close(target)')
    paths = (copied.tree.path('one', name) for name in ('appended', 'appended.new'))
    copied.tree.run(sys.executable, '-c', program, *paths, str(1 << 30))
    assert copied.stored('appended.new') == digest_of(copied.sample.read_bytes() + b'more')
    assert copied.proxy.moved_bytes() - before < 17 * MIB
    assert copied.uploads() == []


def test_a_copy_is_there_when_its_close_returns_whatever_waits_otherwise(copied: Copied) -> None:
    digest = copied.make('now', 3 * MIB)
    with copied.moving_nothing():
        copied.tree.sh('cp late/now late/now.new; rm late/now')
    assert copied.stored('now.new') == digest


def test_between_other_mounts_it_is_read_and_written(copied: Copied) -> None:
    digest = copied.make('far', 3 * MIB)
    copied.tree.sh('cp one/far other/far; cp one/far memory/far; cp memory/far memory/again; cp memory/again one/back')
    assert copied.stored('far', copied.other) == copied.stored('back') == digest


def test_a_source_that_somebody_replaces_is_never_a_mixture(copied: Copied) -> None:
    copied.make('replaced', 20 * MIB)
    paths = [str(copied.tree.path('one', name)) for name in ('replaced', 'replaced.new')]
    with subprocess.Popen(
        [sys.executable, '-c', COPY_AND_WAIT, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == 'copied\n'
        copied.put('replaced', os.urandom(20 * MIB))
        out, _ = process.communicate('\n', timeout=30)
    assert out.split() == [str(errno.ESTALE)]
    assert 'replaced.new' not in copied._server.keys(copied.bucket)
