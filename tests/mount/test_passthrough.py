"""Files that are handed to the kernel: it reads and writes them while the daemon is stopped, and they are right."""

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machine import lacks, need_root
from tests.mount.mounted import Mounted, await_true, mounted, run, s3_definition
from tests.mount.places import Place
from tests.mount.stepping import Program, alone, program, waits
from tests.servers import S3Server

#: More than the kernel reads ahead.
CONTENT = os.urandom(3 << 20)
OTHER_UID = 1234
TTL_S = 1.0
SOON_S = 5 * TTL_S


@pytest.fixture(autouse=True)
def _root() -> None:
    need_root('only root can hand files to the kernel')


@pytest.fixture
def folder(local: Place) -> Path:
    """What is really behind the new directory."""
    return local.tree.folder / local.name


@pytest.fixture
def stepping(local: Place) -> Iterator[Program]:
    with program(local.path) as one:
        yield one


def test_the_kernel_reads_a_local_file_by_itself(local: Place, folder: Path, stepping: Program) -> None:
    (folder / 'f').write_bytes(CONTENT)
    fd = stepping.does("os.open('f', os.O_RDONLY)")
    assert alone(stepping, local.tree.pid, f'os.pread({fd}, 5000, 2000000)') == CONTENT[2_000_000:2_005_000]
    assert alone(stepping, local.tree.pid, f'os.pread({fd}, 10, 1 << 30)') == b''


def test_the_kernel_writes_a_local_file_by_itself(local: Place, folder: Path, stepping: Program) -> None:
    fd = stepping.does("os.open('f', os.O_RDWR | os.O_CREAT)")
    # At the first write it asks for security.capability.
    assert stepping.does(f"os.pwrite({fd}, b'first', 0)") == 5
    assert alone(stepping, local.tree.pid, f"os.pwrite({fd}, b'written', 3)") == 7
    assert (folder / 'f').read_bytes() == b'firwritten'
    assert stepping.does(f'os.fstat({fd}).st_size') == 10


def test_sizes_and_times_are_right_at_once(local: Place, folder: Path, stepping: Program) -> None:
    (folder / 'f').write_bytes(b'0123456789')
    os.utime(folder / 'f', (1_000_000_000, 1_000_000_000))
    assert local.sh('stat -c "%s %Y" f') == '10 1000000000\n'
    fd = stepping.does("os.open('f', os.O_RDWR)")
    assert stepping.does(f"os.pwrite({fd}, b'x' * 10, 10)") == 10
    for size in (f'os.fstat({fd}).st_size', "os.stat('f').st_size", f'os.lseek({fd}, 0, os.SEEK_END)'):
        assert stepping.does(size) == 20
    assert stepping.does("os.stat('f').st_mtime_ns") == (folder / 'f').stat().st_mtime_ns > 1_000_000_000 * 10**9
    local.sh('printf tail >> f')
    assert stepping.does(f'os.fstat({fd}).st_size') == 24
    assert stepping.does(f'os.pread({fd}, 100, 18)') == b'xxtail'
    for change, size in (
        (f'os.ftruncate({fd}, 12)', 12),
        ("os.truncate('f', 7)", 7),
        ("os.close(os.open('f', os.O_WRONLY | os.O_TRUNC))", 0),
        (f'os.ftruncate({fd}, 5)', 5),
    ):
        assert stepping.does(change) is None
        assert (
            stepping.does(f"os.fstat({fd}).st_size, os.stat('f').st_size, len(os.pread({fd}, 100, 0))") == (size,) * 3
        )
        assert (folder / 'f').stat().st_size == size


def test_all_ways_to_open_one_file_work_beside_each_other(local: Place, folder: Path, stepping: Program) -> None:
    (folder / 'f').write_bytes(b'0123456789')
    flags = ('os.O_RDONLY', 'os.O_RDWR', 'os.O_WRONLY | os.O_APPEND', 'os.O_RDWR | os.O_CREAT', 'os.O_RDWR | os.O_SYNC')
    reading, writing, appending, creating, syncing = [stepping.does(f"os.open('f', {one})") for one in flags]
    pid = local.tree.pid
    assert stepping.does(f"os.pwrite({writing}, b'0', 0)") == 1
    assert alone(stepping, pid, f"os.pwrite({writing}, b'W', 0)") == 1
    assert alone(stepping, pid, f"os.write({appending}, b'A')") == 1
    assert alone(stepping, pid, f"os.pwrite({creating}, b'C', 1)") == 1
    assert alone(stepping, pid, f"os.pwrite({syncing}, b'S', 2)") == 1
    assert alone(stepping, pid, f"os.write({appending}, b'B')") == 1
    assert alone(stepping, pid, f'os.pread({reading}, 100, 0)') == b'WCS3456789AB'
    assert alone(stepping, pid, f"os.pwrite({reading}, b'!', 0)") == 'EBADF'
    assert alone(stepping, pid, f'os.pread({appending}, 1, 0)') == 'EBADF'
    assert (folder / 'f').read_bytes() == b'WCS3456789AB'


def test_a_mapping_is_the_file(local: Place, folder: Path, stepping: Program) -> None:
    (folder / 'f').write_bytes(CONTENT)
    fd = stepping.does("os.open('f', os.O_RDWR)")
    stepping.does(f'globals().update(map=mmap.mmap({fd}, 0))')
    assert alone(stepping, local.tree.pid, 'map[2000000:2000100]') == CONTENT[2_000_000:2_000_100]
    assert alone(stepping, local.tree.pid, "map.__setitem__(slice(0, 5), b'hello')") is None
    assert stepping.does('map.flush()') is None
    assert (folder / 'f').read_bytes() == b'hello' + CONTENT[5:]
    with (folder / 'f').open('r+b') as file:
        file.write(b'HELLO')
    assert stepping.does(f'map[:6], os.pread({fd}, 6, 0)') == (b'HELLO' + CONTENT[5:6],) * 2
    assert stepping.does(f'os.close({fd})') is None
    assert stepping.does("map.__setitem__(slice(0, 5), b'later')") is None
    assert local.sh('head -c 5 f') == 'later'


def test_fsync_reaches_the_file_and_close_says_nothing_wrong(local: Place, folder: Path, stepping: Program) -> None:
    fd = stepping.does("os.open('f', os.O_WRONLY | os.O_CREAT)")
    assert stepping.does(f"os.write({fd}, b'x'), os.fsync({fd}), os.fdatasync({fd})") == (1, None, None)
    assert stepping.does(f'os.close({fd})') is None
    local.sh('dd if=/dev/zero of=g bs=4096 count=10 conv=fsync 2>/dev/null; sync g')
    assert (folder / 'g').read_bytes() == bytes(40_960)


def test_a_file_that_is_replaced_or_removed_stays_what_it_was_to_who_has_it_open(
    local: Place, folder: Path, stepping: Program
) -> None:
    (folder / 'f').write_bytes(b'old')
    reading, writing = [stepping.does(f"os.open('f', {flags})") for flags in ('os.O_RDONLY', 'os.O_RDWR')]
    local.sh('echo new > other; mv other f')
    assert stepping.does(f"os.pwrite({writing}, b'OLD', 0)") == 3
    assert stepping.does(f'os.pread({reading}, 100, 0)') == b'OLD'
    assert local.sh('cat f') == 'new\n'
    again = stepping.does("os.open('f', os.O_RDWR)")
    local.sh('rm f')
    assert stepping.does(f"os.pwrite({again}, b'NEW', 0), os.pread({again}, 100, 0)") == (3, b'NEW\n')
    assert stepping.does(f'os.fstat({again}).st_size, os.fstat({again}).st_nlink') == (4, 0)
    assert stepping.does(f'os.ftruncate({again}, 2), os.pread({again}, 100, 0)') == (None, b'NE')


def test_o_direct_is_that_of_the_disk(local: Place, folder: Path, stepping: Program) -> None:
    (folder / 'f').write_bytes(CONTENT)
    for before in ('', "globals().update(fd=os.open('f', os.O_RDONLY))"):
        stepping.does(before or 'None')
        fd = stepping.does("os.open('f', os.O_RDWR | os.O_DIRECT)")
        stepping.does('globals().update(buffer=mmap.mmap(-1, 4096))')
        assert alone(stepping, local.tree.pid, f'os.preadv({fd}, [buffer], 8192), buffer[:]') == (
            4096,
            CONTENT[8192:12288],
        )
        assert stepping.does(f'os.pwritev({fd}, [buffer], 0), os.close({fd})') == (4096, None)
    assert (folder / 'f').read_bytes() == CONTENT[8192:12288] + CONTENT[4096:]


def test_a_program_that_was_just_written_can_be_executed(local: Place) -> None:
    assert local.sh('exec 3< /bin/echo; cat <&3 > program; chmod +x program; exec 4< program; ./program ran') == 'ran\n'


def test_copies_and_moves_of_large_trees_are_right(local: Place, sample: Path) -> None:
    local.sh(f'cp -a "{sample}" one; cp -r one two; diff -r "{sample}" two')
    local.sh('tar cf t.tar one; tar xf t.tar -C two; diff -r one two/one')


# Set-id bits


@pytest.fixture
def shared() -> Iterator[Mounted]:
    """A local mount that others may use."""
    with tempfile.TemporaryDirectory(prefix='shared-') as name:
        base = Path(name)
        base.chmod(0o755)
        (base / 'folder').mkdir()
        (base / 'folder').chmod(0o777)
        with mounted(base, [{'name': 'local', 'type': 'local', 'path': f'{base}/folder'}], '-o', 'allow_other') as tree:
            tree.folder = base / 'folder'
            yield tree


@pytest.mark.parametrize('when', ['before', 'while open'])
def test_a_write_by_another_user_takes_set_id_bits_away(shared: Mounted, when: str) -> None:
    path = shared.folder / 'program'
    path.write_bytes(b'x')
    path.chmod(0o6777 if when == 'before' else 0o777)
    with program(shared.path('local'), 'setpriv', f'--reuid={OTHER_UID}', '--clear-groups') as other:
        fd = other.does("os.open('program', os.O_RDWR)")
        if when == 'while open':
            shared.sh('chmod 6777 local/program')
            assert stat.S_IMODE(path.stat().st_mode) == 0o6777
        assert other.does(f"os.pwrite({fd}, b'y', 0)") == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o777
        assert other.does(f'os.fstat({fd}).st_mode') == stat.S_IFREG | 0o777


def test_a_file_with_set_id_bits_is_not_handed_over_before_it_is_closed(shared: Mounted) -> None:
    path = shared.folder / 'program'
    path.write_bytes(CONTENT)
    path.chmod(0o4755)
    with program(shared.path('local')) as one:
        fd = one.does("os.open('program', os.O_RDWR)")
        shared.sh('chmod 755 local/program')
        beside = one.does("os.open('program', os.O_RDONLY)")
        direct = one.does("os.open('program', os.O_RDONLY | os.O_DIRECT)")
        assert one.does(f"os.pwrite({fd}, b'hello', 0), os.pread({beside}, 5, 0), os.pread({direct}, 5, 0)") == (
            5,
            b'hello',
            b'hello',
        )
        for number in (fd, beside, direct):
            one.does(f'os.close({number})')
        fd = one.does("os.open('program', os.O_RDONLY)")
        assert alone(one, shared.pid, f'os.pread({fd}, 10, 2000000)') == CONTENT[2_000_000:2_000_010]


#: Threads that open a file in all ways at once, for so many seconds; prints the errors they met.
RACE = """
import errno, os, random, sys, threading, time
path, seconds, *ways = sys.argv[1:]
ends, failures, done = time.monotonic() + float(seconds), set(), []

def work(way):
    while time.monotonic() < ends:
        try:
            if way == 'mode':
                os.chmod(path, random.choice([0o755, 0o4755]))
            else:
                fd = os.open(path, getattr(os, way))
                os.pread(fd, 10, 0) if way == 'O_RDONLY' else os.write(fd, b'x' * 100)
                os.close(fd)
        except OSError as error:
            failures.add(errno.errorcode[error.errno])
    done.append(way)

threads = [threading.Thread(target=work, args=(way,)) for way in ways]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(done) == len(ways)
print(*failures)
"""


def test_opens_of_one_file_in_all_ways_at_once_all_succeed(local: Place, folder: Path) -> None:
    (folder / 'f').write_bytes(CONTENT)
    ways = ['O_RDONLY', 'O_RDONLY', 'O_WRONLY', 'O_RDWR', 'mode']
    assert local.tree.run(sys.executable, '-I', '-c', RACE, local.path / 'f', '2', *ways) == '\n'


# Files that the kernel does not take


@contextmanager
def overlay(base: Path) -> Iterator[Path]:
    for name in ('lower', 'upper', 'work', 'merged'):
        (base / name).mkdir()
    layers = f'lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work'
    done = run('mount', '-t', 'overlay', 'overlay', '-o', layers, base / 'merged')
    if done.returncode:
        lacks(f'an overlayfs cannot be mounted here: {done.stderr}')
    try:
        yield base / 'merged'
    finally:
        assert run('umount', '-l', base / 'merged').returncode == 0


def test_files_on_an_overlay_are_served_by_the_daemon(tmp_path: Path) -> None:
    with overlay(tmp_path) as merged:
        (merged / 'f').write_bytes(CONTENT)
        with mounted(tmp_path, [{'name': 'local', 'type': 'local', 'path': str(merged)}]) as tree:
            with program(tree.path('local')) as one:
                fd = one.does("os.open('f', os.O_RDWR)")
                assert one.does(f'os.pread({fd}, 10, 2000000)') == CONTENT[2_000_000:2_000_010]
                assert waits(one, tree.pid, f"os.pwrite({fd}, b'hello', 0)")
            assert (merged / 'f').read_bytes() == b'hello' + CONTENT[5:]
            tree.sh('cat local/f local/f > local/g; cmp local/f local/g || true')
            assert tree.log_text.count('such files are served by this process') == 1


# Remote files


class Remote:
    """A mounted bucket, and what is really in it and in the cache."""

    def __init__(self, tree: Mounted, server: S3Server, bucket: str) -> None:
        self.tree = tree
        self.server = server
        self.bucket = bucket
        self.directory = tree.path('bucket')

    def put(self, name: str, content: bytes) -> None:
        """Make a file that has not been there, as somebody else does."""
        self.server.put(self.bucket, name, content)
        await_true(lambda: run('test', '-e', self.directory / name).returncode == 0, SOON_S, f'{name} seen')

    def hand_over(self, name: str, one: Program) -> int:
        """Read a file until its opens are handed over; one that is."""
        opened: list[int] = []

        def try_to_open() -> bool:
            if opened:
                one.does(f'os.close({opened.pop()})')
            self.tree.run('cat', self.directory / name, stdout=subprocess.DEVNULL, capture_output=False)
            opened.append(one.does(f'os.open({name!r}, os.O_RDONLY)'))
            return is_handed_over(one, opened[0], self.tree.pid)

        await_true(try_to_open, 40, f'{name} handed over')
        return opened[0]

    def held(self) -> int:
        """How many cached files may not be evicted now."""
        held = 0
        for path in Path(self.tree.env['XDG_CACHE_HOME']).rglob('*.data'):
            with path.open('rb') as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held += 1
        return held


def is_handed_over(one: Program, fd: int, pid: int) -> bool:
    """Whether the kernel reads a file by itself, with its page cache for the mounted tree dropped."""
    one.does(f'os.posix_fadvise({fd}, 0, 0, os.POSIX_FADV_DONTNEED)')
    return not waits(one, pid, f'os.pread({fd}, 1000, 100000)')


@pytest.fixture(scope='module')
def remote(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Remote]:
    bucket = s3_server.new_bucket()
    with mounted(tmp_path_factory.mktemp('remote'), [s3_definition(s3_server, bucket, ttl=TTL_S)]) as tree:
        yield Remote(tree, s3_server, bucket)


@pytest.fixture
def reader(remote: Remote) -> Iterator[Program]:
    with program(remote.directory) as one:
        yield one


def test_the_kernel_reads_a_remote_file_by_itself_once_it_is_complete(remote: Remote, reader: Program) -> None:
    remote.put('complete', CONTENT)
    fd = remote.hand_over('complete', reader)
    assert alone(reader, remote.tree.pid, f'os.pread({fd}, 1 << 30, 0)') == CONTENT
    reader.does(f'globals().update(map=mmap.mmap({fd}, 0, prot=mmap.PROT_READ))')
    assert alone(reader, remote.tree.pid, 'map[:]') == CONTENT
    assert reader.does(f'os.fstat({fd}).st_size') == len(CONTENT)


def test_who_has_a_file_keeps_its_bytes_when_somebody_else_replaces_it(remote: Remote, reader: Program) -> None:
    remote.put('replaced', CONTENT)
    fd = remote.hand_over('replaced', reader)
    remote.server.put(remote.bucket, 'replaced', CONTENT[::-1])
    await_true(lambda: reader.does("open('replaced', 'rb').read()") == CONTENT[::-1], SOON_S)
    assert reader.does(f'os.pread({fd}, 1 << 30, 0)') == CONTENT
    assert reader.does(f"os.fstat({fd}).st_ino == os.stat('replaced').st_ino")
    again = remote.hand_over('replaced', reader)
    assert reader.does(f'os.pread({again}, 1 << 30, 0)') == CONTENT[::-1]
    assert reader.does(f'os.pread({fd}, 1 << 30, 0)') == CONTENT


@pytest.mark.parametrize('flags', ['os.O_RDWR', 'os.O_WRONLY | os.O_TRUNC'])
def test_a_file_that_is_read_by_the_kernel_can_be_written(remote: Remote, reader: Program, flags: str) -> None:
    name = f'written-{len(flags)}'
    remote.put(name, CONTENT)
    fd = remote.hand_over(name, reader)
    writing = reader.does(f'os.open({name!r}, {flags})')
    assert reader.does(f"os.pwrite({writing}, b'new', 0)") == 3
    expected = b'new' + (CONTENT[3:] if flags == 'os.O_RDWR' else b'')
    assert reader.does(f"open({name!r}, 'rb').read()") == expected
    assert reader.does(f'os.pread({fd}, 1 << 30, 0)') == CONTENT
    assert reader.does(f'os.close({writing})') is None
    assert remote.server.request('get_object', Bucket=remote.bucket, Key=name)['Body'].read() == expected
    assert reader.does(f"open({name!r}, 'rb').read()") == expected
    assert reader.does(f'os.pread({fd}, 1 << 30, 0)') == CONTENT


def test_a_file_that_is_read_by_the_kernel_can_be_cut_off_removed_and_made_anew(
    remote: Remote, reader: Program
) -> None:
    remote.put('cut', CONTENT)
    fd = remote.hand_over('cut', reader)
    remote.tree.sh('truncate -s 5 cut', cwd=remote.directory)
    assert reader.does("open('cut', 'rb').read()") == CONTENT[:5]
    remote.tree.sh('rm cut; echo anew > cut', cwd=remote.directory)
    assert reader.does("open('cut', 'rb').read()") == b'anew\n'
    assert reader.does(f'os.pread({fd}, 1 << 30, 0)') == CONTENT


def test_a_cached_file_is_not_evicted_while_the_kernel_reads_it(remote: Remote, reader: Program) -> None:
    remote.put('held', CONTENT)
    await_true(lambda: not remote.held(), what='nothing held')
    first = remote.hand_over('held', reader)
    second = reader.does("os.open('held', os.O_RDONLY)")
    assert remote.held() == 1
    assert reader.does(f'os.close({first})') is None
    assert remote.held() == 1
    assert reader.does(f'os.close({second})') is None
    await_true(lambda: not remote.held(), what='nothing held')


def test_a_file_that_is_open_when_it_becomes_complete_is_served_as_before(remote: Remote, reader: Program) -> None:
    remote.put('becomes', CONTENT)
    early = reader.does("os.open('becomes', os.O_RDONLY)")
    with program(remote.directory) as other:
        remote.put('other', CONTENT)
        remote.hand_over('other', other)  # as long as that takes, or longer
        for _ in range(3):
            assert reader.does("open('becomes', 'rb').read()") == CONTENT
        beside = reader.does("os.open('becomes', os.O_RDONLY)")
        assert not is_handed_over(reader, beside, remote.tree.pid)
        for number in (early, beside):
            reader.does(f'os.close({number})')
        remote.hand_over('becomes', reader)


def test_readers_and_writers_of_one_remote_file_meet_no_error_of_ours(remote: Remote, reader: Program) -> None:
    remote.put('raced', CONTENT)
    remote.hand_over('raced', reader)
    ways = ['O_RDONLY', 'O_RDONLY', 'O_RDONLY', 'O_RDWR']
    failures = remote.tree.run(sys.executable, '-I', '-c', RACE, remote.directory / 'raced', '3', *ways)
    assert set(failures.split()) <= {'ESTALE'}  # of a version that was replaced within the TTL
    stored = remote.server.request('get_object', Bucket=remote.bucket, Key='raced')['Body'].read()
    assert reader.does("open('raced', 'rb').read()") == stored == b'x' * 100 + CONTENT[100:]


def test_o_direct_reads_of_a_complete_remote_file(remote: Remote, reader: Program) -> None:
    remote.put('direct', CONTENT)
    remote.hand_over('direct', reader)
    fd = reader.does("os.open('direct', os.O_RDONLY | os.O_DIRECT)")
    reader.does('globals().update(buffer=mmap.mmap(-1, 4096))')
    assert reader.does(f'os.preadv({fd}, [buffer], 8192), buffer[:]') == (4096, CONTENT[8192:12288])


def test_empty_and_small_files_are_read_over_and_over(remote: Remote, reader: Program) -> None:
    for size in (0, 1, 5000):
        remote.put(f'small-{size}', CONTENT[:size])
        for _ in range(5):
            assert reader.does(f"open('small-{size}', 'rb').read()") == CONTENT[:size]
