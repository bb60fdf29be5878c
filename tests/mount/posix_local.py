"""Cases of local mounts that need a kernel: special files, set-id bits, times, links and extended attributes."""

import errno
import os
import select
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mount.calls import NS
from tests.mount.posix import STORES, Table, fails_with

CASES = Table()
case = CASES.of_path

MOMENT = 981_173_106_123_456_789
BEFORE_1970 = -154_900_494  # 1965-02-03 04:05:06 UTC, in seconds
#: More than the kernel keeps an inode's own attributes in.
LARGE_ATTRIBUTE = b'large' * 400


@contextmanager
def inside(directory: Path) -> Iterator[None]:
    """Work in a directory: the address of a socket has 108 bytes."""
    before = os.open('.', os.O_RDONLY)
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
        os.close(before)


# Special files


@case('local')
def a_socket_connects_two_programs(directory: Path) -> None:
    with inside(directory), socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind('s')
        assert stat.S_ISSOCK(os.stat('s').st_mode)
        with fails_with(errno.EADDRINUSE), socket.socket(socket.AF_UNIX) as other:
            other.bind('s')
        listener.listen()
        caller.connect('s')
        accepted, _ = listener.accept()
        with accepted:
            caller.sendall(b'through')
            assert accepted.recv(100) == b'through'
        with fails_with(errno.ENXIO):
            os.open('s', os.O_RDONLY)
        os.unlink('s')
        assert os.listdir() == []


@case('local')
def a_fifo_nobody_writes_is_known_by_its_type(directory: Path) -> None:
    os.mkfifo(directory / 'p', 0o640)
    assert stat.S_ISFIFO((directory / 'p').stat().st_mode)
    with fails_with(errno.ENXIO):
        os.open(directory / 'p', os.O_WRONLY | os.O_NONBLOCK)
    (directory / 'p').rename(directory / 'q')
    os.link(directory / 'q', directory / 'r')
    assert (directory / 'r').stat().st_nlink == 2


@case('local')
def device_nodes_are_made_by_root_alone_and_never_usable(directory: Path) -> None:
    if os.geteuid():
        with fails_with(errno.EPERM):
            os.mknod(directory / 'null', 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        return
    os.mknod(directory / 'null', 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(directory / 'disk', 0o600 | stat.S_IFBLK, os.makedev(259, 300_000))
    assert stat.S_ISCHR((directory / 'null').stat().st_mode)
    assert (directory / 'null').stat().st_rdev == os.makedev(1, 3)
    assert (directory / 'disk').stat().st_rdev == os.makedev(259, 300_000)
    for name in ('null', 'disk'):
        with fails_with(errno.EACCES):
            os.open(directory / name, os.O_RDONLY)


@case('local')
def mknod_makes_files_too(directory: Path) -> None:
    os.mknod(directory / 'f', 0o600 | stat.S_IFREG)
    with fails_with(errno.EEXIST):
        os.mknod(directory / 'f', 0o600 | stat.S_IFREG)
    (directory / 'f').write_bytes(b'f')
    assert (directory / 'f').read_bytes() == b'f'


@case()
def a_file_is_ready_at_once_and_knows_no_controls(directory: Path) -> None:
    with (directory / 'f').open('w+b') as file:
        ready = select.poll()
        ready.register(file, select.POLLIN | select.POLLOUT)
        assert ready.poll(0) == [(file.fileno(), select.POLLIN | select.POLLOUT)]
        assert not os.isatty(file.fileno())


# Modes and owners


@case('local')
def set_id_and_sticky_bits_are_kept(directory: Path) -> None:
    (directory / 'f').touch()
    (directory / 'd').mkdir()
    for mode in (0o6755, 0o4711, 0o2755, 0o1644):
        (directory / 'f').chmod(mode)
        assert stat.S_IMODE((directory / 'f').stat().st_mode) == mode
    (directory / 'd').chmod(0o3777)
    assert stat.S_IMODE((directory / 'd').stat().st_mode) == 0o3777


@case('local')
def set_id_bits_go_with_a_change_of_owner(directory: Path) -> None:
    (directory / 'f').touch()
    (directory / 'f').chmod(0o6755)
    os.chown(directory / 'f', os.geteuid(), os.getegid())
    assert stat.S_IMODE((directory / 'f').stat().st_mode) == 0o755


@case('local')
def what_is_made_in_a_set_group_id_directory_is_of_its_group(directory: Path) -> None:
    group = os.getegid() if os.geteuid() else 1236
    (directory / 'd').mkdir()
    os.chown(directory / 'd', -1, group)
    (directory / 'd').chmod(0o2777)
    (directory / 'd' / 'f').touch()
    (directory / 'd' / 'e').mkdir()
    os.symlink('f', directory / 'd' / 'l')
    for name in ('f', 'e', 'l'):
        assert (directory / 'd' / name).lstat().st_gid == group
    assert (directory / 'd' / 'e').stat().st_mode & stat.S_ISGID
    assert not (directory / 'd' / 'f').stat().st_mode & stat.S_ISGID


@case('local')
def the_umask_holds(directory: Path) -> None:
    before = os.umask(0o027)
    try:
        os.close(os.open(directory / 'f', os.O_CREAT | os.O_WRONLY, 0o777))
        (directory / 'd').mkdir()
        os.mkfifo(directory / 'p')
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((directory / name).stat().st_mode) for name in ('f', 'd', 'p')}
    assert modes == {'f': 0o750, 'd': 0o750, 'p': 0o640}


# Times


@case('local')
def each_time_is_set_by_itself_and_to_the_nanosecond(directory: Path) -> None:
    (directory / 'f').touch()
    os.utime(directory / 'f', ns=(MOMENT, MOMENT + 1))
    subprocess.run(['touch', '-a', '-d', '1965-02-03 04:05:06.000000007 UTC', 'f'], cwd=directory, check=True)
    found = (directory / 'f').stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (BEFORE_1970 * NS + 7, MOMENT + 1)
    subprocess.run(['touch', '-m', 'f'], cwd=directory, check=True)
    found = (directory / 'f').stat()
    assert found.st_atime_ns == BEFORE_1970 * NS + 7
    assert abs(found.st_mtime_ns - time.time_ns()) < 100 * NS


@case('local')
def what_was_touched_is_not_of_later_than_what_is_made_next(directory: Path) -> None:
    (directory / 'f').touch()
    for number in range(20):
        os.utime(directory / 'f')
        (directory / f'{number}').touch()
        assert (directory / 'f').stat().st_mtime_ns <= (directory / f'{number}').stat().st_mtime_ns


@case('local')
def changes_of_an_inode_show_in_its_ctime(directory: Path) -> None:
    (directory / 'f').touch()
    os.utime(directory / 'f', ns=(MOMENT, MOMENT))
    for change in (
        lambda: (directory / 'f').chmod(0o600),
        lambda: os.link(directory / 'f', directory / 'g'),
        lambda: os.setxattr(directory / 'f', 'user.colour', b'blue'),
        lambda: os.truncate(directory / 'f', 5),
    ):
        before = (directory / 'f').stat().st_ctime_ns
        time.sleep(0.01)  # the grain of the clock of files: a jiffy
        change()
        assert (directory / 'f').stat().st_ctime_ns > before


@case('local')
def the_time_of_birth_is_told(directory: Path) -> None:
    (directory / 'f').touch()
    os.utime(directory / 'f', ns=(MOMENT, MOMENT))
    told = subprocess.run(['stat', '-c', '%W %Y %a %F', 'f'], cwd=directory, check=True, capture_output=True)
    birth, rest = told.stdout.decode().split(' ', 1)
    assert abs(int(birth) - time.time()) < 100
    assert rest == f'{MOMENT // NS} {stat.S_IMODE((directory / "f").stat().st_mode):o} regular empty file\n'


@case(*STORES)
def the_time_of_birth_is_not_made_up(directory: Path) -> None:
    (directory / 'f').write_bytes(b'12345')
    told = subprocess.run(['stat', '-c', '%W %s %F', 'f'], cwd=directory, check=True, capture_output=True)
    assert told.stdout == b'0 5 regular file\n'


# Links


@case('local')
def what_is_set_on_a_symbolic_link_is_not_set_on_its_target(directory: Path) -> None:
    (directory / 'f').touch()
    before = (directory / 'f').stat()
    (directory / 'l').symlink_to('f')
    os.utime(directory / 'l', ns=(MOMENT, MOMENT), follow_symlinks=False)
    os.chown(directory / 'l', os.geteuid(), os.getegid(), follow_symlinks=False)
    assert (directory / 'l').lstat().st_mtime_ns == MOMENT
    assert (directory / 'f').stat() == before
    with fails_with(errno.EPERM):
        os.setxattr(directory / 'l', 'user.colour', b'blue', follow_symlinks=False)


@case('local')
def symbolic_links_hold_whatever_they_are_given(directory: Path) -> None:
    for target in ('../..', '/', 'ä' * 100, 'x/' * 2000, 'new\nline'):
        (directory / 'l').symlink_to(target)
        assert os.readlink(directory / 'l') == target
        (directory / 'l').unlink()


@case('local')
def links_are_made_to_links_and_not_to_directories(directory: Path) -> None:
    (directory / 'd').mkdir()
    (directory / 'l').symlink_to('nothing')
    os.link(directory / 'l', directory / 'm', follow_symlinks=False)
    assert os.readlink(directory / 'm') == 'nothing'
    assert (directory / 'l').lstat().st_nlink == 2
    with fails_with(errno.EPERM):
        os.link(directory / 'd', directory / 'e')


@case('local')
def a_file_keeps_its_last_name_whichever_that_is(directory: Path) -> None:
    (directory / 'd').mkdir()
    (directory / 'f').write_bytes(b'f')
    for number in range(50):
        os.link(directory / 'f', directory / 'd' / f'{number}')
    (directory / 'f').unlink()
    for number in range(49):
        (directory / 'd' / f'{number}').unlink()
    assert (directory / 'd' / '49').stat().st_nlink == 1
    assert (directory / 'd' / '49').read_bytes() == b'f'
    os.link(directory / 'd' / '49', directory / 'f')
    (directory / 'd' / '49').rename(directory / 'f')  # of one file: nothing is done (rename(2))
    assert sorted(os.listdir(directory)) == ['d', 'f']
    assert os.listdir(directory / 'd') == ['49']


# Extended attributes


@case('local')
def an_attribute_is_created_or_replaced_as_it_is_asked_for(directory: Path) -> None:
    path = directory / 'f'
    path.touch()
    with fails_with(errno.ENODATA):
        os.setxattr(path, 'user.colour', b'blue', os.XATTR_REPLACE)
    os.setxattr(path, 'user.colour', b'blue', os.XATTR_CREATE)
    with fails_with(errno.EEXIST):
        os.setxattr(path, 'user.colour', b'red', os.XATTR_CREATE)
    os.setxattr(path, 'user.colour', b'', os.XATTR_REPLACE)
    assert os.getxattr(path, 'user.colour') == b''
    with fails_with(errno.ENODATA):
        os.removexattr(path, 'user.size')


@case('local')
def attributes_belong_to_the_file_and_not_to_a_name(directory: Path) -> None:
    (directory / 'f').touch()
    (directory / 'd').mkdir()
    os.setxattr(directory / 'f', 'user.colour', LARGE_ATTRIBUTE)
    os.setxattr(directory / 'd', 'user.size', b'1')
    os.link(directory / 'f', directory / 'g')
    (directory / 'f').rename(directory / 'd' / 'h')
    assert os.getxattr(directory / 'g', 'user.colour') == LARGE_ATTRIBUTE
    assert os.getxattr(directory / 'd' / 'h', 'user.colour') == LARGE_ATTRIBUTE
    assert os.listxattr(directory / 'd') == ['user.size']
    with (directory / 'g').open('rb') as file:
        os.setxattr(file.fileno(), 'user.more', b'2')
        assert sorted(os.listxattr(file.fileno())) == ['user.colour', 'user.more']


@case('local')
def access_control_lists_are_refused_rather_than_not_obeyed(directory: Path) -> None:
    (directory / 'f').touch()
    with fails_with(errno.ENOTSUP):
        os.setxattr(directory / 'f', 'system.posix_acl_access', b'\2\0\0\0')
    with fails_with(errno.ENOTSUP):
        os.getxattr(directory / 'f', 'system.posix_acl_access')
