"""The mount table and paths to mountpoints."""

import errno
import os
from pathlib import Path

import pytest

from genro_storage.mountinfo import MountInfo, mount_at, mounts, parse, resolve

TABLE = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 35 98:0 /mnt1 /mnt\\0402/tab\\011back\\134slash rw,noatime master:1 shared:7 - ext3 /dev/root rw
50 27 0:44 / /home/me/storage rw,nosuid,nodev - fuse.genro-storage genro-storage rw,user_id=0
51 50 0:45 / /home/me/storage rw - fuse sshfs#host:/\\040dir rw
52 27 0:46 / /old rw - fuseblk /dev/sdb1 rw
"""


def test_each_line_becomes_a_mount_with_its_escapes_undone() -> None:
    assert parse(TABLE) == [
        MountInfo(27, '254:0', '/', 'ext4', '/dev/vda'),
        MountInfo(36, '98:0', '/mnt 2/tab\tback\\slash', 'ext3', '/dev/root'),
        MountInfo(50, '0:44', '/home/me/storage', 'fuse.genro-storage', 'genro-storage'),
        MountInfo(51, '0:45', '/home/me/storage', 'fuse', 'sshfs#host:/ dir'),
        MountInfo(52, '0:46', '/old', 'fuseblk', '/dev/sdb1'),
    ]


def test_fuse_is_told_from_the_rest() -> None:
    assert [mount.is_fuse for mount in parse(TABLE)] == [False, False, True, True, True]


def test_the_topmost_of_stacked_mounts_is_found() -> None:
    found = mount_at(Path('/home/me/storage'), parse(TABLE))
    assert found is not None
    assert found.mount_id == 51
    assert mount_at('/home/me', parse(TABLE)) is None


def test_the_table_of_this_machine_can_be_read() -> None:
    assert any(mount.mountpoint == '/proc' for mount in mounts())


def test_a_name_that_is_not_utf8_survives(tmp_path: Path) -> None:
    assert parse('27 1 0:1 / /\udcff rw - ext4 /dev/vda rw\n')[0].mountpoint == os.fsdecode(b'/\xff')


def test_links_and_dots_are_resolved(tmp_path: Path) -> None:
    base = tmp_path.resolve()
    (base / 'real' / 'deep').mkdir(parents=True)
    (base / 'absolute').symlink_to(base / 'real')
    (base / 'real' / 'relative').symlink_to('../real/./deep/')
    assert resolve(base / 'absolute' / 'relative', []) == base / 'real' / 'deep'
    assert resolve(base / 'absolute' / '..' / 'missing' / 'x', []) == base / 'missing' / 'x'
    assert resolve('/', []) == Path('/')


def test_a_relative_path_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve('some/where', []) == tmp_path.resolve() / 'some' / 'where'


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(OSError, match='loop') as caught:
        resolve(tmp_path / 'loop' / 'x', [])
    assert caught.value.errno == errno.ELOOP


def test_a_path_that_the_table_lists_is_not_looked_at(tmp_path: Path) -> None:
    # A link stands for the mount: were it looked at, it would be followed.
    base = tmp_path.resolve()
    (base / 'mounted').symlink_to('/elsewhere')
    table = [MountInfo(1, '0:44', str(base / 'mounted'), 'fuse.genro-storage', 'genro-storage')]
    assert resolve(base / 'mounted', table) == base / 'mounted'
    assert resolve(base / 'mounted', []) == Path('/elsewhere')
