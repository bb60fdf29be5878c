"""What is mounted where, from the kernel's own table and without touching what is mounted.

Owns the reading of /proc/self/mountinfo and the resolution of a path to a mountpoint. A FUSE mount whose server died
answers ENOTCONN to whoever looks at it, and one whose server hangs does not answer at all; so nothing here ever looks
at (stats, opens, reads the link of) a path that the table lists. Pure but for reading the table and symbolic links.
"""

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

#: The kernel's name for the kind of file system that genro-mount mounts.
FSTYPE = 'fuse.genro-storage'

#: How many symbolic links a path may lead through, as in the kernel (linux/namei.h, MAXSYMLINKS).
_MAX_LINKS = 40

_OCTAL = re.compile(r'\\([0-7]{3})')


class MountInfo(msgspec.Struct, frozen=True):
    """One line of mountinfo; see proc_pid_mountinfo(5). device is 'major:minor'."""

    mount_id: int
    device: str
    mountpoint: str
    fstype: str
    source: str

    @property
    def is_ours(self) -> bool:
        """Whether genro-storage is mounted there, by this process or another."""
        return self.fstype == FSTYPE

    @property
    def is_fuse(self) -> bool:
        """Whether a server, which may be gone, answers for it."""
        return self.fstype in {'fuse', 'fuseblk'} or self.fstype.startswith(('fuse.', 'fuseblk.'))


def mounts() -> list[MountInfo]:
    """What this process sees mounted, in the order of mounting."""
    with open('/proc/self/mountinfo', encoding='utf-8', errors='surrogateescape') as table:
        return parse(table.read())


def parse(text: str) -> list[MountInfo]:
    """The lines of a mountinfo file."""
    return [_parse_line(line) for line in text.split('\n') if line]


def _parse_line(line: str) -> MountInfo:
    # '36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw': any number of optional fields before the dash.
    before, _, after = line.partition(' - ')
    mount_id, _, device, _, mountpoint, *_ = before.split(' ')
    fstype, source, *_ = after.split(' ')
    return MountInfo(int(mount_id), device, _unescape(mountpoint), _unescape(fstype), _unescape(source))


def _unescape(field: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline, backslash and hash, which stand for bytes."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def mount_at(path: str | Path, among: Sequence[MountInfo]) -> MountInfo | None:
    """The mount whose root a resolved path is; the topmost where several are stacked."""
    return next((mount for mount in reversed(among) if mount.mountpoint == str(path)), None)


def mount_of(path: str | Path, among: Sequence[MountInfo]) -> MountInfo | None:
    """The mount that a resolved path is in."""
    above = [mount for mount in among if f'{path}/'.startswith(f'{mount.mountpoint.rstrip("/")}/')]
    return max(reversed(above), key=lambda mount: len(mount.mountpoint), default=None)


def resolve(path: str | Path, among: Sequence[MountInfo]) -> Path:
    """An absolute path without symbolic links, as realpath(3), but never looking at a mountpoint itself.

    What does not exist is kept as it is. Raises OSError: too many links, or a directory that may not be searched.
    """
    listed = {mount.mountpoint for mount in among}
    todo = os.path.join(os.getcwd(), path).split('/')[::-1]
    resolved = ''
    links = 0
    while todo:
        name = todo.pop()
        if name in {'', '.'}:
            continue
        if name == '..':
            resolved = os.path.dirname(resolved).rstrip('/')
            continue
        candidate = f'{resolved}/{name}'
        target = None if candidate in listed else _link_target(candidate)
        if target is None:
            resolved = candidate
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        if target.startswith('/'):
            resolved = ''
        todo.extend(target.split('/')[::-1])
    return Path(resolved or '/')


def _link_target(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError as error:
        # EINVAL: no symbolic link. Not there, or below a file: whoever needs it finds out.
        if error.errno in {errno.EINVAL, errno.ENOENT, errno.ENOTDIR}:
            return None
        raise
