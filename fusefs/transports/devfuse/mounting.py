"""Mounting and unmounting: from a directory to a descriptor of /dev/fuse and back.

Owns the two ways (mount(2) with CAP_SYS_ADMIN, fusermount3 without), and the explanation of what can be wrong with a
machine or a mountpoint. Does not serve (channel) or read options (options). A mountpoint that is mounted already is
never looked at: see mountinfo.

Threads: safe, without state. Waits for a child process; never call it from a thread that serves.
"""

import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

from fusefs.transports.options import MountError, MountOptions
from genro_storage import mountinfo
from genro_storage.mountinfo import FSTYPE, MountInfo

_DEVICE = '/dev/fuse'
_FUSE_CONF = '/etc/fuse.conf'
#: The largest READ: as large as one request can be.
_MAX_READ_BYTES = 1 << 20
#: fusermount3 makes a few system calls; if it hangs, the directory is on something that hangs.
_FUSERMOUNT_TIMEOUT_S = 30

# sys/mount.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME = 1, 2, 4, 8, 1024
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(mountpoint: str | Path, options: MountOptions) -> int:
    """Mount on an empty directory and return the descriptor to serve. Raises MountError."""
    path = _free_directory(mountpoint)
    fd = _open_device()
    try:
        if _mount_directly(path, fd, options):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return _mount_by_fusermount(path, options)


def unmount(mountpoint: str | Path, *, lazy: bool = False) -> None:
    """Unmount; lazy: also while something is still open there, once it is closed. Raises MountError."""
    path, mounted = _locate(mountpoint)
    if mounted is None:
        raise MountError(f'{path}: nothing is mounted there')
    if mounted.fstype != FSTYPE:
        raise MountError(f'{path}: not a mount of genro-storage but {_what(mounted)}; use umount')
    if _libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY:
        raise MountError(f'{path}: busy: a program has a file open or its working directory there (fuser -m {path})')
    if number != errno.EPERM:
        raise MountError(f'{path}: cannot be unmounted: {os.strerror(number)}')
    try:
        _run_fusermount('-u', *(['-z'] if lazy else []), '--', str(path))
    except MountError as error:
        # Its exit code does not tell why; busy is the usual reason, and the hint harms no other.
        raise MountError(f'{error} (fuser -m {path} lists who uses it)') from error


def _locate(mountpoint: str | Path) -> tuple[Path, MountInfo | None]:
    mounts = mountinfo.mounts()
    try:
        path = mountinfo.resolve(mountpoint, mounts)
    except OSError as error:
        raise MountError(f'{mountpoint}: {error.strerror}') from error
    return path, mountinfo.mount_at(path, mounts)


def _what(mounted: MountInfo) -> str:
    return f'{mounted.fstype} from {mounted.source}'


def _free_directory(mountpoint: str | Path) -> Path:
    """The resolved path of a directory to mount on, once everything is ruled out that would be wrong with it."""
    path, mounted = _locate(mountpoint)
    if mounted is not None:
        if mounted.fstype == FSTYPE:
            raise MountError(f'{path}: genro-storage is mounted there already; genro-umount {path} unmounts it')
        raise MountError(f'{path}: a mountpoint already, of {_what(mounted)}; unmount that or choose another directory')
    try:
        found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise MountError(f'{path}: not a directory; choose one to mount on')
        if any(os.scandir(path)):
            raise MountError(f'{path}: not empty; a mount would hide what is there, so choose an empty directory')
    except FileNotFoundError:
        raise MountError(f'{path}: does not exist; mkdir -p {path}') from None
    except OSError as error:
        raise MountError(f'{path}: {error.strerror}') from error
    return path


def _open_device() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        remedy = 'load the kernel module (modprobe fuse) or, in a container, pass the device in (--device /dev/fuse)'
        raise MountError(f'{_DEVICE} is missing: {remedy}') from None
    except OSError as error:
        raise MountError(f'{_DEVICE} cannot be opened: {_device_trouble(error)}') from error


def _device_trouble(error: OSError) -> str:
    if error.errno in {errno.ENODEV, errno.ENXIO}:
        return 'the kernel module is not loaded (modprobe fuse)'
    if error.errno == errno.EACCES:
        found = os.stat(_DEVICE)
        mode = f'mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}:{found.st_gid}'
        return f'it has {mode}, and user {os.geteuid()} needs to read and write it (usual is mode 0666)'
    if error.errno == errno.EPERM:
        return 'not permitted; in a container, pass the device in (--device /dev/fuse)'
    return str(error.strerror)


def _mount_directly(path: Path, fd: int, options: MountOptions) -> bool:
    """mount(2); False if this process may not. Raises MountError."""
    flags = _MS_NOSUID | _MS_NODEV
    flags |= _MS_RDONLY if options.read_only else 0
    flags |= _MS_NOEXEC if options.noexec else 0
    flags |= _MS_NOATIME if options.noatime else 0
    data = [
        f'fd={fd}',
        f'rootmode={stat.S_IFDIR:o}',
        f'user_id={os.getuid()}',
        f'group_id={os.getgid()}',
        f'max_read={_MAX_READ_BYTES}',
        *_access(options),
    ]
    arguments = (os.fsencode(options.fsname), os.fsencode(path), FSTYPE.encode(), flags, ','.join(data).encode())
    if _libc.mount(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EPERM:
        return False
    if number == errno.ENODEV:
        raise MountError(f'{path}: the kernel has no FUSE; load the module (modprobe fuse)')
    raise MountError(f'{path}: mount(2) failed: {os.strerror(number)}')


def _access(options: MountOptions) -> list[str]:
    if options.allow_other:
        return ['allow_other', 'default_permissions']
    return ['default_permissions'] if options.default_permissions else []


def _mount_by_fusermount(path: Path, options: MountOptions) -> int:
    if options.allow_other and not _others_allowed():
        raise MountError(
            f'allow_other: {_FUSE_CONF} does not allow it to users; root can add a line "user_allow_other"'
        )
    if not os.access(path, os.W_OK):
        raise MountError(f'{path}: not writable by user {os.geteuid()}; users mount on their own directories only')
    words = [
        # A comma or backslash inside a value is escaped for fusermount3's own parser.
        f'fsname={options.fsname}'.replace('\\', '\\\\').replace(',', '\\,'),
        f'subtype={FSTYPE.removeprefix("fuse.")}',
        f'max_read={_MAX_READ_BYTES}',
        'nosuid',
        'nodev',
        *_access(options),
        *(['ro'] if options.read_only else []),
        *(['noexec'] if options.noexec else []),
        *(['noatime'] if options.noatime else []),
    ]
    # fusermount3 sends the descriptor over the socket whose number is in _FUSE_COMMFD, before it ends.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _run_fusermount('-o', ','.join(words), '--', str(path), socket_fd=theirs.fileno())
        theirs.close()
        return _receive_descriptor(ours, path)


def _receive_descriptor(ours: socket.socket, path: Path) -> int:
    _, descriptors, *_ = socket.recv_fds(ours, 1, 1)
    for fd in descriptors:
        os.set_inheritable(fd, False)
        return fd
    raise MountError(f'{path}: fusermount3 mounted it but sent no descriptor; unmount it with fusermount3 -u {path}')


def _others_allowed() -> bool:
    try:
        with open(_FUSE_CONF, encoding='utf-8', errors='replace') as conf:
            return any(line.strip() == 'user_allow_other' for line in conf)
    except FileNotFoundError:
        return False
    except PermissionError:
        # For root's helper to read only; it decides, and says so.
        return True


def _run_fusermount(*arguments: str, socket_fd: int | None = None) -> None:
    """Run fusermount3. Raises MountError with what it printed."""
    program = shutil.which('fusermount3')
    if program is None:
        raise MountError('fusermount3, which mounts for plain users, is missing: install it (Debian package: fuse3)')
    environment, inherited = dict(os.environ), []
    if socket_fd is not None:
        environment['_FUSE_COMMFD'] = str(socket_fd)
        inherited.append(socket_fd)
    try:
        done = subprocess.run(  # noqa: S603 - a list, no shell
            [program, *arguments],
            check=False,
            env=environment,
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_FUSERMOUNT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise MountError(
            f'{program} did not end within {_FUSERMOUNT_TIMEOUT_S} s; is {arguments[-1]} reachable?'
        ) from error
    if done.returncode:
        said = ' '.join(done.stderr.decode('utf-8', 'replace').split()) or f'exit status {done.returncode}'
        raise MountError(f'{arguments[-1]}: {said}')
