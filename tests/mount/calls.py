"""System calls on a directory, as the POSIX cases use them, and the real ones.

Another way to answer them, without a kernel, is in inprocess_calls.
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple, Protocol

NS = 1_000_000_000


class Status(NamedTuple):
    """What the cases look at of stat(2)."""

    mode: int
    size: int
    nlink: int
    ino: int
    mtime_ns: int

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Room(NamedTuple):
    """What the cases look at of statvfs(3)."""

    blocks: int
    name_max: int


class Calls(Protocol):
    """System calls on names relative to one directory; OSError as the os module raises it."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int: ...
    def close(self, fd: int) -> None: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def pwrite(self, fd: int, data: bytes, offset: int) -> int: ...
    def append(self, fd: int, data: bytes) -> int:
        """write(2) on a descriptor with O_APPEND."""

    def ftruncate(self, fd: int, size: int) -> None: ...
    def truncate(self, path: str, size: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def stat(self, path: str) -> Status: ...
    def fstat(self, fd: int) -> Status: ...
    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rename(self, path: str, target: str) -> None: ...
    def listdir(self, path: str = '') -> list[str]: ...
    def symlink(self, target: str, path: str) -> None: ...
    def readlink(self, path: str) -> str: ...
    def link(self, path: str, target: str) -> None: ...
    def mkfifo(self, path: str) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def utime(self, path: str, ns: tuple[int, int] | None) -> None: ...
    def statvfs(self) -> Room: ...
    def getxattr(self, path: str, name: str) -> bytes: ...
    def setxattr(self, path: str, name: str, value: bytes) -> None: ...
    def listxattr(self, path: str) -> list[str]: ...
    def removexattr(self, path: str, name: str) -> None: ...


class OsCalls:
    """The real system calls."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = str(directory)

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return os.open(self._at(path), flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def append(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._at(path), size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def stat(self, path: str) -> Status:
        return _status(os.lstat(self._at(path)))

    def fstat(self, fd: int) -> Status:
        return _status(os.fstat(fd))

    def mkdir(self, path: str) -> None:
        os.mkdir(self._at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def rename(self, path: str, target: str) -> None:
        os.rename(self._at(path), self._at(target))

    def listdir(self, path: str = '') -> list[str]:
        return os.listdir(self._at(path))

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._at(path))

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def link(self, path: str, target: str) -> None:
        os.link(self._at(path), self._at(target))

    def mkfifo(self, path: str) -> None:
        os.mkfifo(self._at(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def utime(self, path: str, ns: tuple[int, int] | None) -> None:
        if ns is None:
            os.utime(self._at(path))
        else:
            os.utime(self._at(path), ns=ns)

    def statvfs(self) -> Room:
        found = os.statvfs(self.directory)
        return Room(found.f_blocks, found.f_namemax)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._at(path), name)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        os.setxattr(self._at(path), name, value)

    def listxattr(self, path: str) -> list[str]:
        return os.listxattr(self._at(path))

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._at(path), name)

    def _at(self, path: str) -> str:
        return f'{self.directory}/{path}' if path else self.directory


def _status(found: os.stat_result) -> Status:
    return Status(found.st_mode, found.st_size, found.st_nlink, found.st_ino, found.st_mtime_ns)
