"""Who gets in: the user who mounts, and others only with allow_other."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.machine import need_root
from tests.mount.mounted import MOUNT, UMOUNT, Mounted, await_true, mounted, run, write_config
from tests.mount.worlds import IS_ROOT, PLAIN_UID, World, world

OTHER_UID, OTHER_GID, OTHER_GROUP = 1234, 1235, 1236
ASK_PID = 'import os, sys; print(int(os.getxattr(sys.argv[1], "user.genro.pid")))'
TOUR = """
set -eu
cd "$1"
for mount in memory local; do
    cd "$1/$mount"
    mkdir -p a/b
    echo one > a/b/one
    cp -r a copy
    test "$(cat copy/b/one)" = one
    ls -laR . > /dev/null
    mv copy/b/one copy/two
    echo more >> copy/two
    test "$(wc -l < copy/two)" = 2
    chmod 600 copy/two
    touch -d 2001-01-01 copy/two
    rm -r a copy
    test -z "$(ls -A)"
done
cd "$1/local"
ln -s target link
ln link hard
df . > /dev/null
rm link hard
"""


@pytest.fixture
def plain() -> Iterator[World]:
    """A plain user's world with /dev/fuse as it usually is."""
    with world(plain=True) as place:
        yield place


@contextmanager
def mounted_by(place: World, *options: str) -> Iterator[Path]:
    """A tree that the user of a world has mounted, in the background, and unmounts."""
    folder = place.directory / 'folder'
    folder.mkdir()
    config = write_config(
        place.directory,
        [{'name': 'memory', 'type': 'memory'}, {'name': 'local', 'type': 'local', 'path': str(folder)}],
    )
    uid = PLAIN_UID if IS_ROOT else os.geteuid()
    for path in (folder, config):
        os.chown(path, uid, -1)
    done = place.run(*MOUNT, '-c', str(config), *options, str(place.mountpoint), HOME=str(place.directory))
    assert done.returncode == 0, done.stderr
    try:
        yield folder
    finally:
        if place.mounted() is not None:
            done = place.run(*UMOUNT, str(place.mountpoint), HOME=str(place.directory))
            assert done.returncode == 0, done.stderr
            assert place.mounted() is None
        log = place.directory / '.local' / 'state' / 'genro-storage' / 'mount.log'
        assert 'Traceback' not in log.read_text()
        assert log.stat().st_uid == uid


def test_a_plain_user_mounts_through_fusermount3_and_has_everything(plain: World) -> None:
    with mounted_by(plain) as folder:
        mount = plain.mounted()
        assert mount is not None
        assert mount.fstype == 'fuse.genro-storage'
        done = plain.run('sh', '-c', TOUR, 'sh', str(plain.mountpoint))
        assert done.returncode == 0, done.stderr
        plain.output('sh', '-c', f'echo mine > {plain.mountpoint}/local/f')
        assert (folder / 'f').stat().st_uid == (PLAIN_UID if IS_ROOT else os.geteuid())
        assert 'default_permissions' not in plain.mount_table().split('genro-storage')[-1]


def test_fusermount3_unmounts_for_a_plain_user(plain: World) -> None:
    with mounted_by(plain):
        pid = int(plain.output(sys.executable, '-c', ASK_PID, str(plain.mountpoint)))
        plain.output('fusermount3', '-u', str(plain.mountpoint))
        assert plain.mounted() is None
        await_true(lambda: not Path(f'/proc/{pid}').exists(), what='the end of the daemon')


def test_nobody_else_gets_in_not_even_root(plain: World) -> None:
    need_root('only root can be somebody else')
    with mounted_by(plain):
        for uid in (0, OTHER_UID):
            for command in (['ls', str(plain.mountpoint)], ['stat', f'{plain.mountpoint}/local']):
                done = plain.run(*command, uid=uid)
                assert done.returncode != 0
                assert 'Permission denied' in done.stderr


def test_allow_other_is_refused_to_a_plain_user_unless_the_machine_allows_it(plain: World) -> None:
    config = write_config(plain.directory, [{'name': 'memory', 'type': 'memory'}])
    config.chmod(0o644)
    arguments = ['-c', str(config), '-o', 'allow_other', str(plain.mountpoint)]
    done = plain.run(*MOUNT, *arguments, HOME=str(plain.directory))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'user_allow_other' in line
    assert plain.mounted() is None


# Root, serving others


@pytest.fixture
def for_others() -> Iterator[Mounted]:
    need_root('serving others needs root')
    # Below pytest's own folder, which is root's alone, nobody else would get this far.
    with tempfile.TemporaryDirectory(prefix='for-others-') as name:
        Path(name).chmod(0o755)
        yield from serve_others(Path(name))


def serve_others(tmp_path: Path) -> Iterator[Mounted]:
    folder = tmp_path / 'folder'
    folder.mkdir()
    folder.chmod(0o777)
    definitions: list[dict[str, Any]] = [
        {'name': 'local', 'type': 'local', 'path': str(folder)},
        {'name': 'memory', 'type': 'memory'},
        {'name': 'open', 'type': 'memory', 'umask': '0o000', 'uid': OTHER_UID},
    ]
    with mounted(tmp_path, definitions, '-o', 'allow_other') as tree:
        tree.folder = folder
        yield tree


def as_other(tree: Mounted, script: str) -> 'subprocess.CompletedProcess[str]':
    identity = [f'--reuid={OTHER_UID}', f'--regid={OTHER_GID}', f'--groups={OTHER_GID},{OTHER_GROUP}']
    return run('setpriv', *identity, 'sh', '-euc', script, cwd=tree.mountpoint)


def test_files_that_another_user_makes_are_his_on_the_disk(for_others: Mounted) -> None:
    script = """
    umask 027; echo his > local/f; mkdir local/d; ln -s f local/s; mkfifo local/p; cp local/f local/d/copy
    install -d -g 1236 local/grouped; chgrp 1236 local/f; chmod 640 local/f
    """
    done = as_other(for_others, script)
    assert done.returncode == 0, done.stderr
    for name in ('f', 'd', 's', 'p', 'd/copy'):
        assert (for_others.folder / name).lstat().st_uid == OTHER_UID, name
    assert (for_others.folder / 'd').stat().st_gid == OTHER_GID
    assert (for_others.folder / 'f').stat().st_gid == OTHER_GROUP
    assert stat.S_IMODE((for_others.folder / 'f').stat().st_mode) == 0o640
    assert stat.S_IMODE((for_others.folder / 'd').stat().st_mode) == 0o750


def test_modes_hold_for_others_and_not_for_root(for_others: Mounted) -> None:
    (for_others.folder / 'private').write_text('private')
    (for_others.folder / 'private').chmod(0o600)
    (for_others.folder / 'readable').write_text('readable')
    (for_others.folder / 'readable').chmod(0o644)
    (for_others.folder / 'closed').mkdir(mode=0o700)
    for script in (
        'cat local/private',
        'echo x >> local/readable',
        'ls local/closed',
        'chmod 777 local/readable',
        'chown 1234 local/readable',
        'touch -d 2001-01-01 local/readable',
        'echo x > memory/f',
        'ls memory',
    ):
        done = as_other(for_others, script)
        assert done.returncode != 0, script
        assert 'ermi' in done.stderr, done.stderr
    assert as_other(for_others, 'cat local/readable').stdout == 'readable'
    assert for_others.run('cat', 'local/private') == 'private'


def test_the_sticky_bit_keeps_files_of_others(for_others: Mounted) -> None:
    for_others.folder.chmod(0o1777)
    (for_others.folder / 'f').write_text('of root')
    assert as_other(for_others, 'rm -f local/f').returncode != 0
    assert as_other(for_others, 'mv local/f local/g').returncode != 0
    assert as_other(for_others, 'echo x > local/mine; rm local/mine').returncode == 0


def test_remote_entries_belong_to_whom_the_definition_says(for_others: Mounted) -> None:
    done = as_other(for_others, 'echo x > open/f; mkdir open/d; stat -c "%u %a" open/f open/d; cat open/f')
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{OTHER_UID} 666\n{OTHER_UID} 777\nx\n'


def test_a_write_by_another_user_takes_set_id_bits_away(for_others: Mounted) -> None:
    path = for_others.folder / 'program'
    path.write_text('x')
    path.chmod(0o6777)
    done = as_other(for_others, 'echo y >> local/program')
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    assert path.read_text() == 'xy\n'


def test_the_daemon_is_itself_again_after_acting_as_another(for_others: Mounted) -> None:
    for number in range(20):
        assert as_other(for_others, f'echo x > local/his-{number}').returncode == 0
        for_others.sh(f'echo x > local/root-{number}')
    owners = {path.name.split('-')[0]: path.stat().st_uid for path in for_others.folder.iterdir()}
    assert owners == {'his': OTHER_UID, 'root': 0}
    status = Path(f'/proc/{for_others.pid}/status').read_text()
    for task in Path(f'/proc/{for_others.pid}/task').iterdir():
        status = (task / 'status').read_text()
        assert [line.split()[1:] for line in status.splitlines() if line.startswith('Uid:')] == [['0'] * 4]
        groups = next(line for line in status.splitlines() if line.startswith('Groups:'))
        assert str(OTHER_GROUP) not in groups
