"""Where mounts are tried: as root, and as a plain user who has fusermount3 only.

Nothing in a test process touches a mount: a FUSE file system whose server hangs would hang the tests with it, for
good. So everything runs in child processes with a deadline. When the tests run as root, the plain user lives in a
mount namespace of his own, where /dev/fuse has the usual mode 0666 and /etc/fuse.conf the usual content, whatever this
machine has. When they do not, he is whoever runs them.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from genro_storage import mountinfo
from tests.machine import lacks, need_root

PROJECT = Path(__file__).parents[2]
TIMEOUT_S = 20
IS_ROOT = os.geteuid() == 0
#: 'nobody' of Debian; any user without privileges would do.
PLAIN_UID = 65534

#: program → Debian package
_NEEDED = {'fusermount3': 'fuse3', 'unshare': 'util-linux', 'nsenter': 'util-linux', 'setpriv': 'util-linux'}

#: Copies of mounts that other tests serve just now: they would outlive their unmounting, and with them their servers.
_WITHOUT_MOUNTS_OF_OTHERS = """
awk '$0 ~ / - fuse/ { print $5 }' /proc/self/mountinfo |
while read -r copied; do umount --lazy --no-canonicalize "$(printf '%b' "$copied")"; done
"""
_USER_WORLD = """
mount -t tmpfs -o mode=755 world "$1"
mknod -m "$2" "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
: > "$1/fuse.conf"
mount --bind "$1/fuse.conf" /etc/fuse.conf
"""
_WITHOUT_DEVICE = 'mount -t tmpfs world /dev\n'


class World:
    """A place where a server can be started and its mount be used. Its directory belongs to the user of the world."""

    def __init__(self, directory: Path, *, plain: bool, setup: str | None) -> None:
        self.directory = directory
        self.mountpoint = directory / 'mountpoint'
        self._plain = plain
        self._keeper: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[str]] = []
        self.mountpoint.mkdir()
        if setup is not None:
            self._keeper = self._make_namespace(setup)
        if plain and IS_ROOT:
            for path in (directory, self.mountpoint):
                os.chown(path, PLAIN_UID, PLAIN_UID)

    def _make_namespace(self, setup: str) -> 'subprocess.Popen[bytes]':
        scratch = self.directory / 'world'
        scratch.mkdir()
        script = f'set -e\n{_WITHOUT_MOUNTS_OF_OTHERS}\n{setup}\necho made\nexec sleep infinity'
        command = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', str(scratch), '666']
        keeper = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert keeper.stdout is not None
        made = keeper.stdout.readline()
        keeper.stdout.close()
        if made != b'made\n':
            keeper.wait(TIMEOUT_S)
            shutil.rmtree(self.directory)
            pytest.fail('no mount namespace could be made for the plain user; this container may lack CAP_SYS_ADMIN')
        return keeper

    def _command(self, arguments: Sequence[str], environment: dict[str, str], uid: int | None = None) -> list[str]:
        if uid is None and self._plain and IS_ROOT:
            uid = PLAIN_UID
        # By env(1) and with whole paths, so that a program's own PATH hides neither nsenter nor setpriv. setpriv comes
        # last: it still has root's rights when it executes an interpreter that the plain user could not reach.
        values = {'PYTHONPATH': str(PROJECT), 'PYTHONDONTWRITEBYTECODE': '1', 'LC_ALL': 'C.UTF-8'} | environment
        command = ['env', *(f'{name}={value}' for name, value in values.items())]
        if self._keeper:
            command = [_where('nsenter'), f'--target={self._keeper.pid}', '--mount', '--', *command]
        if uid is not None:
            command += [_where('setpriv'), f'--reuid={uid}', f'--regid={uid}', '--clear-groups']
        return [*command, *arguments]

    def start(self, *arguments: str, **environment: str) -> 'subprocess.Popen[str]':
        """A process of this world, with pipes; it ends with the world at the latest."""
        process = subprocess.Popen(
            self._command(arguments, environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd='/',
        )
        self._processes.append(process)
        return process

    def run(self, *arguments: str, uid: int | None = None, **environment: str) -> 'subprocess.CompletedProcess[str]':
        """Run a program to its end, within the deadline. Only root can choose another uid."""
        return subprocess.run(
            self._command(arguments, environment, uid),
            check=False,
            capture_output=True,
            text=True,
            cwd='/',
            timeout=TIMEOUT_S,
        )

    def python(self, code: str, *arguments: str, **environment: str) -> 'subprocess.CompletedProcess[str]':
        """Run Python code; sys.argv[1] is the mountpoint."""
        return self.run(sys.executable, '-c', code, str(self.mountpoint), *arguments, **environment)

    def output(self, *arguments: str) -> str:
        """What a program prints that must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def mounted(self) -> mountinfo.MountInfo | None:
        """What this world sees mounted on its mountpoint, without touching it."""
        return mountinfo.mount_at(self.mountpoint.parent.resolve() / 'mountpoint', mountinfo.parse(self.mount_table()))

    def mount_table(self) -> str:
        """/proc/self/mountinfo of this world."""
        return self.output('cat', '/proc/self/mountinfo')

    def end(self) -> None:
        """Unmount and end everything that was started here."""
        while self.mounted() is not None:
            command = ['umount', '-l'] if IS_ROOT and not self._plain else ['fusermount3', '-u', '-z', '--']
            self.output(*command, str(self.mountpoint))
        for process in self._processes:
            _end(process)
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait(TIMEOUT_S)
        shutil.rmtree(self.directory)


def _where(program: str) -> str:
    return shutil.which(program) or program


def _end(process: 'subprocess.Popen[str]') -> None:
    if process.stdin is not None:
        # What is left in the pipe of a process that has ended already, nobody reads.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(TIMEOUT_S)
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def world(*, plain: bool, setup: str | None = None) -> Iterator[World]:
    """A fresh world. Fails the test if the machine cannot make one, and says what is missing."""
    _check_machine()
    if setup is not None or not plain:
        need_root('a mount namespace of its own, or mount(2)')
    if plain and IS_ROOT and setup is None:
        setup = _USER_WORLD
    place = World(Path(tempfile.mkdtemp(prefix='fuse-world-')), plain=plain, setup=setup)
    try:
        yield place
    finally:
        place.end()


def without_device() -> contextlib.AbstractContextManager[World]:
    """A world of root's that has no /dev/fuse."""
    return world(plain=False, setup=_WITHOUT_DEVICE)


def with_private_device() -> contextlib.AbstractContextManager[World]:
    """A plain user's world where /dev/fuse is root's alone."""
    return world(plain=True, setup=_USER_WORLD.replace('"$2"', '600'))


def _check_machine() -> None:
    for program, package in _NEEDED.items():
        if shutil.which(program) is None:
            lacks(f'{program} is missing: install the Debian package {package}')
    if not Path('/dev/fuse').exists():
        lacks('/dev/fuse is missing: modprobe fuse, or --device /dev/fuse in a container')
