"""What the kernel keeps between opens and requests, and when it must not: the daemon is stopped to see it."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.transports.devfuse.readahead import READAHEAD_KIB
from fusefs.trees.local_file import SETTLED_NS
from genro_storage import mountinfo
from tests.machine import need_root
from tests.mount.mounted import MOUNT, Mounted, await_true, mounted, s3_definition, write_config
from tests.mount.places import Place
from tests.mount.stepping import ALONE_TIMEOUT_S, LOOP, WAITING_S, Program, alone, program, waits
from tests.mount.worlds import IS_ROOT, PLAIN_UID, World, world
from tests.servers import S3Server

#: Longer than any test: what is seen is seen for another reason.
LONG_TTL_S = 3600
#: So much that nobody reads all of it, and the file is never complete on the disk.
LARGE = os.urandom(1 << 20) * 24


@pytest.fixture
def stepping(store: Place) -> Iterator[Program]:
    with program(store.path) as one:
        yield one


def reopened(one: Program, name: str, pid: int, offset: int = 0, timeout_s: float = ALONE_TIMEOUT_S) -> bytes | None:
    """What the kernel reads by itself of a file that is opened anew; None if it has to ask."""
    fd = one.does(f'os.open({name!r}, os.O_RDONLY)')
    data = alone(one, pid, f'os.pread({fd}, 10, {offset})', timeout_s)
    one.does(f'os.close({fd})')
    assert data is None or isinstance(data, bytes)
    return data


def test_pages_of_the_same_version_are_kept(store: Place, stepping: Program, tmp_path: Path) -> None:
    (tmp_path / 'large').write_bytes(LARGE)
    store.sh(f'cp {tmp_path}/large f')
    for _ in range(2):
        assert stepping.does("open('f', 'rb').read(10)") == LARGE[:10]
        assert reopened(stepping, 'f', store.tree.pid, 5) == LARGE[5:15]


def test_pages_that_were_written_over_are_not(store: Place, stepping: Program) -> None:
    pid = store.tree.pid
    for change, expected in (
        ('printf first > f', b'first'),
        ('printf other > f', b'other'),
        ('printf x | dd of=f bs=1 seek=1 conv=notrunc 2>/dev/null', b'oxher'),
        ('truncate -s 3 f; truncate -s 5 f', b'oxh\0\0'),
        ('printf third > new; mv new f', b'third'),
        ('rm f; printf again > f', b'again'),
    ):
        store.sh(change)
        assert stepping.does("open('f', 'rb').read()") == expected
        assert stepping.does("open('f', 'rb').read()") == expected
        assert reopened(stepping, 'f', pid, timeout_s=WAITING_S) in {expected, None}


def test_closing_what_was_read_asks_nobody(everything: Mounted) -> None:
    for mount in ('memory', 'local', 'bucket'):
        everything.sh(f'echo x > {mount}/to-close')
        with program(everything.path(mount)) as one:
            fd = one.does("os.open('to-close', os.O_RDONLY)")
            assert alone(one, everything.pid, f'[os.close(os.dup({fd})), os.close({fd})]') == [None, None], mount


def test_closing_what_was_written_does(everything: Mounted) -> None:
    with program(everything.path('memory')) as one:
        fd = one.does("os.open('to-write', os.O_WRONLY | os.O_CREAT)")
        assert waits(one, everything.pid, f'os.close({fd})')
        fd = one.does("os.open('to-write', os.O_RDONLY | os.O_TRUNC)")
        assert waits(one, everything.pid, f'os.close({fd})')


def test_the_kernel_reads_further_ahead_where_it_may_be_told_to(everything: Mounted) -> None:
    need_root('only root can raise the readahead')
    mount = mountinfo.mount_at(everything.mountpoint, mountinfo.mounts())
    assert mount is not None
    told = Path(f'/sys/class/bdi/{mount.device}/read_ahead_kb')
    if not os.access(told, os.W_OK):
        pytest.fail(f'{told} is not writable')
    assert told.read_text() == f'{READAHEAD_KIB}\n'


# Somebody else


@pytest.fixture(scope='module')
def patient(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Mounted]:
    """A bucket whose entries are believed for long."""
    bucket = s3_server.new_bucket()
    with mounted(tmp_path_factory.mktemp('patient'), [s3_definition(s3_server, bucket, ttl=LONG_TTL_S)]) as tree:
        tree.bucket = bucket
        yield tree


def test_what_is_and_what_is_not_there_is_known_without_asking(patient: Mounted, s3_server: S3Server) -> None:
    s3_server.put(patient.bucket, 'there', b'12345')
    with program(patient.path('bucket')) as one:
        for _ in range(2):
            assert one.does("os.stat('there').st_size") == 5
            assert one.does("os.stat('absent').st_size") == 'ENOENT'
        assert alone(one, patient.pid, "os.stat('there').st_size") == 5
        assert alone(one, patient.pid, "os.stat('absent').st_size") == 'ENOENT'


def test_a_listing_tells_the_kernel_of_each_entry(patient: Mounted, s3_server: S3Server) -> None:
    for number in range(5):
        s3_server.put(patient.bucket, f'listed/{number}', b'x' * number)
    with program(patient.path('bucket')) as one:
        assert one.does("sorted(entry.stat().st_size for entry in os.scandir('listed'))") == [0, 1, 2, 3, 4]
        assert alone(one, patient.pid, "[os.stat(f'listed/{n}').st_size for n in range(5)]") == [0, 1, 2, 3, 4]


def test_pages_of_a_version_that_somebody_else_replaced_are_not_kept(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    s3_server.put(bucket, 'f', LARGE)
    with (
        mounted(tmp_path, [s3_definition(s3_server, bucket, ttl=0.5)]) as tree,
        program(tree.path('bucket')) as one,
    ):
        for content in (LARGE, LARGE[::-1], LARGE, LARGE[: len(LARGE) // 2], LARGE):
            s3_server.put(bucket, 'f', content)
            seen = "os.stat('f').st_size, open('f', 'rb').read(10)"
            await_true(lambda: one.does(seen) == (len(content), content[:10]), 5)  # noqa: B023
            fd = one.does("os.open('f', os.O_RDONLY)")
            assert one.does(f'os.pread({fd}, 100, {len(content) - 10})') == content[-10:]
            one.does(f'os.close({fd})')
            assert reopened(one, 'f', tree.pid) == content[:10]


def test_without_a_ttl_no_pages_are_kept(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    s3_server.put(bucket, 'f', LARGE)
    with (
        mounted(tmp_path, [s3_definition(s3_server, bucket, ttl=0)]) as tree,
        program(tree.path('bucket')) as one,
    ):
        for _ in range(2):
            assert one.does("open('f', 'rb').read(10)") == LARGE[:10]
            assert reopened(one, 'f', tree.pid, timeout_s=WAITING_S) is None


# Local files of a plain user, to whom the kernel does not give passthrough


@pytest.fixture
def plain() -> Iterator[World]:
    with world(plain=True) as place:
        yield place


@contextmanager
def mounted_by(place: World, folder: Path) -> Iterator[int]:
    """Mount a folder as the plain user; the daemon's process."""
    config = write_config(place.directory, [{'name': 'local', 'type': 'local', 'path': str(folder)}])
    os.chown(config, PLAIN_UID if IS_ROOT else os.geteuid(), -1)
    process = place.start(*MOUNT, '-f', '-c', str(config), str(place.mountpoint), HOME=str(place.directory))
    await_true(lambda: place.mounted() is not None, 30)
    try:
        yield pid_of(place)
    finally:
        place.output('fusermount3', '-u', '-z', str(place.mountpoint))
        process.wait(20)


def pid_of(place: World) -> int:
    code = 'import os, sys; print(int(os.getxattr(sys.argv[1], "user.genro.pid")))'
    return int(place.output(sys.executable, '-c', code, str(place.mountpoint)))


@contextmanager
def stepping_in(place: World) -> Iterator[Program]:
    one = Program(place.start(sys.executable, '-I', '-c', LOOP))
    one.does(f"os.chdir('{place.mountpoint}/local')")
    try:
        yield one
    finally:
        one.process.kill()


def test_pages_of_a_local_file_that_has_not_changed_for_long_are_kept(plain: World) -> None:
    # A file that everybody may read and nobody has touched since the machine was set up: ctime cannot be set back.
    original = Path('/etc/passwd')
    age_ns = time.time_ns() - max(original.stat().st_mtime_ns, original.stat().st_ctime_ns)
    assert age_ns > SETTLED_NS
    content = original.read_bytes()
    with mounted_by(plain, original.parent) as pid, stepping_in(plain) as one:
        assert one.does("open('passwd', 'rb').read(100)") == content[:100]
        assert reopened(one, 'passwd', pid) == content[:10]
        assert reopened(one, 'passwd', pid) == content[:10]


def test_pages_of_a_local_file_that_has_changed_lately_are_not(plain: World) -> None:
    folder = plain.directory / 'folder'
    folder.mkdir()
    file = folder / 'f'
    file.touch()
    for path in (folder, file):
        os.chown(path, PLAIN_UID if IS_ROOT else os.geteuid(), -1)
    with mounted_by(plain, folder) as pid, stepping_in(plain) as one:
        for content in (b'first', b'other', b'third'):
            before = file.stat()
            file.write_bytes(content)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert one.does("open('f', 'rb').read()") == content
            assert reopened(one, 'f', pid, timeout_s=WAITING_S) is None
        assert one.does("open('f', 'wb').write(b'through the mount')") == 17
        assert one.does("open('f', 'rb').read()") == b'through the mount'
