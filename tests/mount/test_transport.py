"""The transport under the real kernel: a tiny file system, mounted by root and by a plain user.

Everything that uses a mount runs in child processes with a deadline; see worlds.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount import worlds
from tests.mount.worlds import IS_ROOT, TIMEOUT_S, World

TINY_SERVER = str(Path(__file__).with_name('tiny_server.py'))

MOUNT = 'import sys; from fusefs.transports import options; from fusefs.transports.devfuse import mounting\n'
UNMOUNT = f'{MOUNT}mounting.unmount(sys.argv[1], lazy=sys.argv[2:] == ["lazy"])'
TRY_TO_MOUNT = f"""{MOUNT}
try:
    mounting.mount(sys.argv[1], options.parse_options(sys.argv[2] if len(sys.argv) > 2 else ''))
except options.MountError as error:
    print(error)
"""
TRY_TO_UNMOUNT = f"""{MOUNT}
try:
    mounting.unmount(sys.argv[1])
except options.MountError as error:
    print(error)
"""


class Tiny:
    """A tiny server and the mount it serves."""

    def __init__(self, world: World, options: str = '') -> None:
        self.world = world
        self.file = str(world.mountpoint / 'file')
        self.process = world.start(sys.executable, TINY_SERVER, str(world.mountpoint), options)
        assert self.line() == 'ready'

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + '\n')
        self.process.stdin.flush()
        assert self.line() == 'done'

    def path(self, name: str) -> str:
        return str(self.world.mountpoint / name)

    def read(self) -> str:
        return self.world.output('cat', self.file)


@pytest.fixture(params=[False, True] if IS_ROOT else [True], ids=lambda plain: 'user' if plain else 'root')
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with worlds.world(plain=request.param) as world:
        yield world


@pytest.fixture
def tiny(world: World) -> Tiny:
    return Tiny(world)


def test_attributes_arrive_to_the_nanosecond(tiny: Tiny) -> None:
    told = tiny.world.output('stat', '-c', '%i %s %a %h %b %.9Y', tiny.file)
    assert told == '2 5 644 1 1 1500000000.123456789\n'


def test_a_directory_is_listed_with_and_without_attributes(tiny: Tiny) -> None:
    for number in range(400):
        tiny.tell(f'appear {number:0100}')
    assert len(tiny.world.output('ls', '-a', str(tiny.world.mountpoint)).splitlines()) == 403
    assert len(tiny.world.output('ls', '-l', str(tiny.world.mountpoint)).splitlines()) == 402


def test_what_is_written_is_read_back(tiny: Tiny) -> None:
    code = """if True:
        import os, sys
        path = sys.argv[1] + '/file'
        data = os.urandom(3_000_000)
        with open(path, 'wb') as file:
            file.write(data)
        os.truncate(path, 2_999_999)
        with open(path, 'rb') as file:
            assert file.read() == data[:-1]
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(file.fileno(), 4096, 1_000_000) == data[1_000_000:1_004_096]
        os.utime(path, ns=(1, -1_000_000_002))
        assert os.stat(path).st_mtime_ns == -1_000_000_002, os.stat(path)
    """
    done = tiny.world.python(code)
    assert done.returncode == 0, done.stderr


def test_extended_attributes_have_sizes_and_values(tiny: Tiny) -> None:
    done = tiny.world.python("import os, sys; print(os.getxattr(sys.argv[1] + '/file', 'user.colour'))")
    assert done.stdout == "b'blue'\n", done.stderr
    done = tiny.world.python("import os, sys; os.getxattr(sys.argv[1] + '/file', 'user.other')")
    assert 'No data available' in done.stderr


def test_statfs_arrives(tiny: Tiny) -> None:
    assert tiny.world.output('stat', '-f', '-c', '%b %f %a %c %d %l %S', tiny.file) == '1000 500 400 10 5 255 4096\n'


def test_a_file_is_removed(tiny: Tiny) -> None:
    tiny.world.output('rm', tiny.file)
    assert tiny.world.output('ls', str(tiny.world.mountpoint)) == ''


def test_what_is_not_served_is_refused_and_not_waited_for(tiny: Tiny) -> None:
    refused = tiny.world.run('fallocate', '-l', '100', tiny.file)
    assert 'not supported' in refused.stderr
    assert 'not supported' in tiny.world.run('mkdir', tiny.path('directory')).stderr


@pytest.mark.parametrize('name', ['impossible', 'surprise'])
def test_a_bug_of_the_file_system_is_eio_for_its_caller_only(tiny: Tiny, name: str) -> None:
    assert 'Input/output error' in tiny.world.run('stat', tiny.path(name)).stderr
    assert tiny.read() == 'hello'


def test_a_signal_reaches_the_server_as_an_interrupt(tiny: Tiny) -> None:
    # 'slow' is answered when its caller is interrupted and not before.
    done = tiny.world.run('timeout', '--signal=INT', '0.3', 'stat', tiny.path('slow'))
    assert done.returncode == 124
    assert tiny.read() == 'hello'


def test_cached_pages_last_until_the_kernel_is_told(tiny: Tiny) -> None:
    assert tiny.read() == 'hello'
    tiny.tell('content other')
    assert tiny.read() == 'hello'
    tiny.tell('tell')
    assert tiny.read() == 'other'


def test_an_absent_name_is_remembered_until_the_kernel_is_told(tiny: Tiny) -> None:
    assert tiny.world.run('test', '-e', tiny.path('late')).returncode == 1
    tiny.tell('appear late')
    assert tiny.world.run('test', '-e', tiny.path('late')).returncode == 1
    tiny.tell('tell late')
    assert tiny.world.run('test', '-e', tiny.path('late')).returncode == 0


def test_unmounting_ends_serve_and_leaves_nothing(tiny: Tiny) -> None:
    done = tiny.world.python(UNMOUNT)
    assert done.returncode == 0, done.stderr
    assert tiny.line() == 'ended'
    assert tiny.process.wait(TIMEOUT_S) == 0
    assert tiny.world.mounted() is None


def test_a_mount_in_use_is_unmounted_lazily_or_not_at_all(tiny: Tiny) -> None:
    holding = "import sys; file = open(sys.argv[1] + '/file'); print('open', flush=True); sys.stdin.read()"
    user = tiny.world.start(sys.executable, '-c', holding, str(tiny.world.mountpoint))
    assert user.stdout is not None
    assert user.stdin is not None
    assert user.stdout.readline() == 'open\n'
    assert 'busy' in tiny.world.python(TRY_TO_UNMOUNT).stdout
    assert tiny.world.mounted() is not None
    assert tiny.world.python(UNMOUNT, 'lazy').returncode == 0
    assert tiny.world.mounted() is None
    assert tiny.process.poll() is None
    user.stdin.close()
    assert tiny.line() == 'ended'


def test_close_ends_serve_and_the_mount_that_stays_can_be_recognised_and_unmounted(tiny: Tiny) -> None:
    assert tiny.process.stdin is not None
    tiny.process.stdin.write('close\n')
    tiny.process.stdin.flush()
    assert tiny.line() == 'ended'
    assert tiny.process.wait(TIMEOUT_S) == 0
    assert 'not connected' in tiny.world.run('ls', str(tiny.world.mountpoint)).stderr
    assert 'genro-umount' in tiny.world.python(TRY_TO_MOUNT).stdout
    assert tiny.world.python(UNMOUNT).returncode == 0
    assert tiny.world.mounted() is None


def test_a_server_that_is_killed_leaves_a_mount_that_can_be_unmounted(tiny: Tiny) -> None:
    tiny.process.kill()
    tiny.process.wait(TIMEOUT_S)
    assert 'not connected' in tiny.world.run('ls', str(tiny.world.mountpoint)).stderr
    assert tiny.world.python(UNMOUNT).returncode == 0


def flags_of_mount(world: World) -> set[str]:
    lines = [line.split() for line in world.mount_table().splitlines()]
    return next(set(fields[5].split(',')) for fields in lines if fields[4] == str(world.mountpoint))


def test_the_mount_table_names_us_and_always_nosuid_and_nodev(tiny: Tiny) -> None:
    mounted = tiny.world.mounted()
    assert mounted is not None
    assert (mounted.fstype, mounted.source) == ('fuse.genro-storage', 'genro-storage')
    assert {'rw', 'nosuid', 'nodev'} <= flags_of_mount(tiny.world)


def test_options_reach_the_mount(world: World) -> None:
    tiny = Tiny(world, 'ro,noexec,noatime,fsname=a\\b c')
    assert {'ro', 'noexec', 'noatime', 'nosuid', 'nodev'} <= flags_of_mount(world)
    mounted = world.mounted()
    assert mounted is not None
    assert mounted.source == 'a\\b c'
    assert 'Read-only' in world.run('rm', '-f', tiny.file).stderr


def make_missing(world: World) -> None:
    world.mountpoint.rmdir()


def make_a_file(world: World) -> None:
    world.mountpoint.rmdir()
    world.mountpoint.touch()


def make_full(world: World) -> None:
    (world.mountpoint / 'something').touch()


@pytest.mark.parametrize(
    ('prepare', 'expected'),
    [(make_missing, 'mkdir -p'), (make_a_file, 'not a directory'), (make_full, 'not empty')],
)
def test_a_mountpoint_that_will_not_do_is_explained(
    world: World, prepare: Callable[[World], None], expected: str
) -> None:
    prepare(world)
    told = world.python(TRY_TO_MOUNT).stdout
    assert expected in told
    assert str(world.mountpoint) in told
    assert told.count('\n') == 1


def test_mounting_twice_is_refused_through_a_symbolic_link_too(tiny: Tiny) -> None:
    link = tiny.world.directory / 'link'
    link.symlink_to(tiny.world.mountpoint)
    told = tiny.world.run(sys.executable, '-c', TRY_TO_MOUNT, str(link)).stdout
    assert 'mounted there already' in told


def test_unmounting_what_is_not_ours_is_refused(world: World) -> None:
    assert 'nothing is mounted' in world.python(TRY_TO_UNMOUNT).stdout
    told = world.run(sys.executable, '-c', TRY_TO_UNMOUNT, '/proc').stdout
    assert 'not a mount of genro-storage but proc' in told


def test_mounting_on_what_something_else_mounted_is_refused(world: World) -> None:
    assert 'a mountpoint already, of proc' in world.run(sys.executable, '-c', TRY_TO_MOUNT, '/proc').stdout


@pytest.fixture
def plain() -> Iterator[World]:
    with worlds.world(plain=True) as world:
        yield world


def test_a_plain_user_without_fusermount3_is_told_the_package(plain: World) -> None:
    told = plain.python(TRY_TO_MOUNT, PATH='/nowhere').stdout
    assert 'fusermount3' in told
    assert 'Debian package: fuse3' in told


def test_a_plain_user_may_mount_on_his_own_directories_only(plain: World) -> None:
    (plain.mountpoint / 'below').mkdir()
    (plain.mountpoint / 'below').chmod(0o555)
    told = plain.run(sys.executable, '-c', TRY_TO_MOUNT, str(plain.mountpoint / 'below')).stdout
    assert 'not writable' in told


if IS_ROOT:

    def test_allow_other_needs_roots_consent_for_a_plain_user(plain: World) -> None:
        told = plain.python(TRY_TO_MOUNT, 'allow_other').stdout
        assert 'user_allow_other' in told
        assert '/etc/fuse.conf' in told

    def test_others_are_kept_out(world: World) -> None:
        world.directory.chmod(0o755)
        tiny = Tiny(world)
        assert 'denied' in world.run('cat', tiny.file, uid=4711).stderr

    def test_root_lets_others_in_by_allow_other() -> None:
        with worlds.world(plain=False) as world:
            world.directory.chmod(0o755)
            tiny = Tiny(world, 'allow_other')
            assert world.run('cat', tiny.file, uid=4711).stdout == 'hello'
            # default_permissions: the file is root's, 0644.
            assert 'denied' in world.run('sh', '-c', f'echo > {tiny.file}', uid=4711).stderr

    def test_a_missing_device_is_explained() -> None:
        with worlds.without_device() as world:
            told = world.python(TRY_TO_MOUNT).stdout
            assert '/dev/fuse is missing' in told
            assert 'modprobe fuse' in told
            assert '--device /dev/fuse' in told

    def test_a_device_that_may_not_be_opened_is_explained() -> None:
        with worlds.with_private_device() as world:
            told = world.python(TRY_TO_MOUNT).stdout
            assert 'mode 0600, owner 0:0' in told
