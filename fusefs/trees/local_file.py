"""An open local file: system calls on a descriptor, on behalf of whoever has it open through the mount.

Owns what a daemon must do that the kernel would do for the program itself: set-id bits that go with a write. Owns too
which files may be handed to the kernel and, where they are not, when cached pages are still right. Threads: safe, as
descriptors are.
"""

import errno
import os
import stat
from collections.abc import Hashable
from typing import Protocol

from fusefs import ops
from fusefs.handles import OpenFile
from fusefs.inodes import Inode
from fusefs.trees.base import refuse
from fusefs.trees.local_syscalls import fallocate
from fusefs.trees.volume_modes import without_set_id
from genro_storage.runtime import Clock, about_to_block

SET_ID_BITS = stat.S_ISUID | stat.S_ISGID
#: A file whose times are older than this has not changed since they were set. git's index asks for two seconds, the
#: grain of clocks; but a store through a mapping sets the time of a page only when that is clean, which the kernel
#: sees to every 35 s (vm.dirty_expire_centisecs and vm.dirty_writeback_centisecs).
SETTLED_NS = 60_000_000_000
#: As much as one write brings: the disk copies it in less than a millisecond, and a worker costs a tenth of one.
SOON_COPIED_BYTES = 1 << 20
#: The kernel holds a lock of the file for as long as a copy takes, and a signal that ends the program ends no system
#: call here: half a second of a slow disk. Disks that share blocks do so in pieces of this size as well.
MAX_COPIED_BYTES = 128 << 20


class Folder(Protocol):
    """What an open file asks of the tree it is in."""

    @property
    def clock(self) -> Clock:
        """Of the machine that sets the times of its files."""

    def await_network(self) -> None:
        """Call before what could wait for a network file system."""

    def is_on_network(self, inode: Inode) -> bool:
        """Whether others change the file behind the kernel's back, or its attributes may be old."""

    def has_direct_io(self, inode: Inode, descriptor: int) -> bool:
        """Whether O_DIRECT works on its file system."""


class LocalFile:
    """An open local file, with the flags of open(2)."""

    def __init__(self, inode: Inode, descriptor: int, flags: int, folder: Folder) -> None:
        self.inode = inode
        self.descriptor = descriptor
        self.is_read_only = is_read_only(flags)
        self._folder = folder
        self._await_network = folder.await_network

    def fileno(self) -> int | None:
        return self.descriptor

    @property
    def content(self) -> None:
        """All who have a local file open see the same."""

    @property
    def stamp(self) -> Hashable:
        if not self.is_read_only or self._folder.is_on_network(self.inode):
            return None
        found = os.fstat(self.descriptor)
        if self._folder.clock.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < SETTLED_NS:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def open_backing(self) -> int | None:
        # What other machines change is asked for by this process, which may wait for it. The kernel would drop set-id
        # bits at root's writes too (see devfuse.passthrough), and needs O_DIRECT of the disk where the program uses it.
        if self._folder.is_on_network(self.inode) or not self._folder.has_direct_io(self.inode, self.descriptor):
            return None
        if os.fstat(self.descriptor).st_mode & SET_ID_BITS:
            return None
        if self.is_read_only:
            return os.dup(self.descriptor)
        try:
            # Never to write: as long as it lives, nobody could execute the file.
            return os.open(f'/proc/self/fd/{self.descriptor}', os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:  # a plain user, who has nothing to hand over anyway
            return None

    def read(self, offset: int, size_bytes: int) -> bytes:
        self._await_network()
        return os.pread(self.descriptor, size_bytes, offset)

    def write(self, offset: int, data: memoryview | bytes) -> int:
        self._await_network()
        return os.pwrite(self.descriptor, data, offset)

    def truncate(self, size_bytes: int) -> None:
        """Cut off, or lengthen with a hole."""
        os.ftruncate(self.descriptor, size_bytes)

    def allocate(self, offset: int, size_bytes: int, mode: int) -> None:
        about_to_block()  # zeros are written where a disk cannot just say so
        fallocate(self.descriptor, mode, offset, size_bytes)

    def seek(self, offset: int, whence: int) -> int:
        self._await_network()
        # The position of the descriptor is nobody's: all that reads and writes here says where.
        return os.lseek(self.descriptor, offset, whence)

    def copy_from(self, source: OpenFile, source_offset: int, offset: int, size_bytes: int) -> int:
        if not isinstance(source, LocalFile):
            refuse(errno.EOPNOTSUPP)
        source._await_network()
        self._await_network()
        size_bytes = min(size_bytes, os.fstat(source.descriptor).st_size - source_offset, MAX_COPIED_BYTES)
        if size_bytes > SOON_COPIED_BYTES:
            about_to_block()
        if size_bytes <= 0:
            return 0
        return os.copy_file_range(source.descriptor, self.descriptor, size_bytes, source_offset, offset)

    def flush(self) -> None:
        self._await_network()
        # Closing a duplicate tells what a network file system held back, as the program's own close would.
        os.close(os.dup(self.descriptor))

    def fsync(self, *, data_only: bool) -> None:
        about_to_block()  # for a disk: seconds, if it is busy
        (os.fdatasync if data_only else os.fsync)(self.descriptor)

    def release(self) -> None:
        self._await_network()
        os.close(self.descriptor)


def lose_set_id(file: str | int, request: ops.Request) -> None:
    """What the kernel does at a write of anybody but root, and cannot see that somebody else is behind this one."""
    found = os.stat(file)
    mode = without_set_id(found.st_mode, found.st_gid, request)
    if mode is not None:
        os.chmod(file, stat.S_IMODE(mode))


def is_read_only(flags: int) -> bool:
    """Whether open(2) with these flags changes nothing, then or later."""
    return flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC


def has_direct_io(descriptor: int) -> bool:
    """Whether O_DIRECT works on the file system of an open file. True where nobody can say."""
    try:
        os.close(os.open(f'/proc/self/fd/{descriptor}', os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as error:
        return error.errno != errno.EINVAL  # open(2)
    return True
