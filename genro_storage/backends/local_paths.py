"""Paths inside a folder to open directories, so that no symbolic link and no race leads out of it.

Owns the walk: one component at a time, each opened relative to the last one without following links (O_NOFOLLOW);
links are read and walked here. ``..`` of a link starts again at the root with one name less, so that a directory
that is moved away meanwhile takes nobody along. Does not translate OSError; refusals of its own are StorageErrors.

Threads: safe; each walk has descriptors of its own.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from genro_storage.errors import (
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
)

# MAXSYMLINKS of Linux (include/linux/namei.h).
_LINKS_MAX = 40

# O_PATH needs no permission to read a directory that is only passed through; only Linux has it.
PASSING = getattr(os, 'O_PATH', os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LISTING = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(NamedTuple):
    """A name in an open directory; ``'.'`` is the directory itself. status is None where nothing has the name."""

    directory: int
    name: str
    status: os.stat_result | None


@contextmanager
def locate(root: str, path: str, *, follow: bool, make_parents: bool = False) -> Iterator[Place]:
    """Find a path below root; with follow, also what a link at its end leads to. The directory is open meanwhile.

    Raises StorageNotFoundError (root is missing), StoragePermissionError (a link leads out), StoragePathError (links
    in a circle), and OSError of the system calls.
    """
    walk = _Walk(root)
    try:
        yield walk.run(path, follow=follow, make_parents=make_parents)
    finally:
        walk.close()


def sync_directory(directory: int) -> None:
    """Make names in a directory durable; a directory that may not be read is left to the file system's journal."""
    try:
        readable = os.open('.', LISTING, dir_fd=directory)  # fsync refuses an O_PATH descriptor
    except PermissionError:
        return
    try:
        os.fsync(readable)
    finally:
        os.close(readable)


class _Walk:
    def __init__(self, root: str) -> None:
        self._root = root
        self._trail: list[str] = []  # names from the root to the directory, none of them a link
        self._links = 0
        self._directory = self._open_root()

    def close(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)

    def run(self, path: str, *, follow: bool, make_parents: bool) -> Place:
        pending = deque(path.split('/'))
        while pending:
            name = pending.popleft()
            if name in {'', '.'}:
                continue
            if name == '..':
                self._up(pending)
            elif pending:
                self._enter(name, pending, make_parents=make_parents)
            else:
                status = self._status(name)
                if status is None or not follow or not stat.S_ISLNK(status.st_mode):
                    return Place(self._directory, name, status)
                self._expand(name, pending)
        return Place(self._directory, '.', os.fstat(self._directory))

    def _open_root(self) -> int:
        try:
            # The root itself may be a link: it is the caller's own word.
            return os.open(self._root, PASSING & ~os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise StorageNotFoundError(f'the folder {self._root!r} of this mount is missing') from error
        except NotADirectoryError as error:
            raise StorageNotADirectoryError(f'{self._root!r}, the root of this mount, is not a folder') from error

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _enter(self, name: str, pending: deque[str], *, make_parents: bool) -> None:
        try:
            inner = os.open(name, PASSING, dir_fd=self._directory)
        except FileNotFoundError:
            if not make_parents:
                raise
            inner = self._make(name)
        except OSError as error:
            # ENOTDIR on Linux, ELOOP elsewhere: a link, or a file where a directory should be.
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            self._expand(name, pending)
            return
        os.close(self._directory)
        self._directory = inner
        self._trail.append(name)

    def _make(self, name: str) -> int:
        try:
            os.mkdir(name, dir_fd=self._directory)
        except FileExistsError:
            pass  # another thread made it first
        else:
            sync_directory(self._directory)
        return os.open(name, PASSING, dir_fd=self._directory)

    def _expand(self, link: str, pending: deque[str]) -> None:
        try:
            target = os.readlink(link, dir_fd=self._directory)
        except OSError as error:
            if error.errno != errno.EINVAL:  # readlink(2): EINVAL is "not a link"
                raise
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), link) from error
        self._links += 1
        if self._links > _LINKS_MAX:
            loop = StoragePathError(f'{self._shown(link)}: more than {_LINKS_MAX} symbolic links, or a circle of them')
            loop.errno = errno.ELOOP
            raise loop
        if target.startswith('/'):
            target = self._below_root(link, target)
            self._restart()
        pending.extendleft(reversed(target.split('/')))

    def _up(self, pending: deque[str]) -> None:
        if not self._trail:
            raise StoragePermissionError(f'{self._root!r}: a symbolic link leads out of this mount')
        pending.extendleft(reversed(self._trail[:-1]))
        self._restart()

    def _below_root(self, link: str, target: str) -> str:
        for root in (self._root, os.path.realpath(self._root)):
            prefix = root.rstrip('/') + '/'
            if (target + '/').startswith(prefix):
                return target[len(prefix) :]
        raise StoragePermissionError(f'{self._shown(link)}: this symbolic link leads out of the mount, to {target!r}')

    def _restart(self) -> None:
        os.close(self._directory)
        self._directory = -1  # nothing to close if the next line fails
        self._directory = self._open_root()
        self._trail.clear()

    def _shown(self, name: str) -> str:
        return repr('/'.join([self._root, *self._trail, name]))
