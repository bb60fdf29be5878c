"""An open local file: system calls on a descriptor, on behalf of whoever has it open through the mount.

Owns what a daemon must do that the kernel would do for the program itself: set-id bits that go with a write. Threads:
safe, as descriptors are.
"""

import os
import stat
from collections.abc import Callable

from fusefs.inodes import Inode
from genro_storage.runtime import about_to_block

SET_ID_BITS = stat.S_ISUID | stat.S_ISGID


class LocalFile:
    """An open local file. await_network is called before what could wait for a network file system."""

    def __init__(self, inode: Inode, descriptor: int, await_network: Callable[[], None] = lambda: None) -> None:
        self.inode = inode
        self.descriptor = descriptor
        self._await_network = await_network

    def fileno(self) -> int | None:
        return self.descriptor

    def read(self, offset: int, size_bytes: int) -> bytes:
        self._await_network()
        return os.pread(self.descriptor, size_bytes, offset)

    def write(self, offset: int, data: memoryview | bytes, *, kill_suidgid: bool) -> int:
        self._await_network()
        written = os.pwrite(self.descriptor, data, offset)
        if kill_suidgid:
            self.drop_set_id_bits()
        return written

    def truncate(self, size_bytes: int) -> None:
        """Cut off, or lengthen with a hole."""
        os.ftruncate(self.descriptor, size_bytes)

    def drop_set_id_bits(self) -> None:
        """What the kernel does at a write of anybody but root, and cannot see that somebody else is behind this one."""
        mode = os.fstat(self.descriptor).st_mode
        if mode & SET_ID_BITS:
            os.fchmod(self.descriptor, stat.S_IMODE(mode) & ~SET_ID_BITS)

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
