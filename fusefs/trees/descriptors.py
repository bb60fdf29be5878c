"""O_PATH descriptors of local inodes: a bounded number held, the others reopened by name when they are needed.

Owns the rule that an inode stays the file that was looked up: whatever is reopened must have the same identity, and
is ESTALE otherwise. Threads: safe; ``_lock`` is held across no I/O, a borrowed descriptor is not closed.
"""

import errno
import os
import resource
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fusefs.inodes import Inode, InodeTable
from fusefs.trees.base import refuse
from fusefs.trees.statx import statx


class Held:
    """What is kept with a local inode: its descriptor while it is held (else -1)."""

    __slots__ = ('borrowed', 'descriptor', 'used')

    def __init__(self, descriptor: int = -1) -> None:
        # Guarded by the lock of Descriptors.
        self.descriptor = descriptor
        self.borrowed = 0
        self.used = False


def default_limit() -> int:
    """Half of what the process may open: the rest is for open files and connections. The limit is raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(64, min(soft // 2, 65_536))


class Descriptors:
    """The descriptors of one local tree."""

    def __init__(
        self,
        inodes: InodeTable,
        limit: int,
        open_root: Callable[[], int],
        await_network: Callable[[], None] = lambda: None,
    ) -> None:
        """await_network is called before each use of a descriptor, which may be one of a network file system."""
        self._inodes = inodes
        self._await_network = await_network
        self._limit = limit
        self._open_root = open_root
        self._lock = threading.Lock()
        self._queue: deque[Held] = deque()  # in the order of the clock, with some that were released; guarded by _lock
        self._root = -1  # held for good once it could be opened: all others are reopened from it; guarded by _lock

    def __len__(self) -> int:
        return len(self._queue)

    def holds(self, inode: Inode) -> bool:
        """Whether borrowing costs nothing."""
        return isinstance(inode.state, Held) and inode.state.descriptor >= 0

    @contextmanager
    def borrow(self, inode: Inode) -> Iterator[int]:
        """An O_PATH descriptor of an inode. Raises OSError(ESTALE) if the name leads to another file by now."""
        self._await_network()
        if (dentry := self._inodes.dentry(inode)) is not None and dentry.parent.tree is not inode.tree:
            yield self._hold_root()
            return
        held = self._held(inode)
        with self._lock:
            held.borrowed += 1
            held.used = True
            descriptor = held.descriptor
        try:
            if descriptor < 0:
                descriptor = self._keep(held, self._reopen(inode))
            yield descriptor
        finally:
            with self._lock:
                held.borrowed -= 1

    def release(self, inode: Inode) -> None:
        """The kernel holds the inode no more."""
        held = inode.state
        if not isinstance(held, Held):
            return
        with self._lock:
            descriptor, held.descriptor = held.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def close(self) -> None:
        """Close all."""
        with self._lock:
            descriptors = [held.descriptor for held in self._queue if held.descriptor >= 0]
            descriptors += [self._root] if self._root >= 0 else []
            self._queue.clear()
            self._root = -1
        for descriptor in descriptors:
            os.close(descriptor)

    def _hold_root(self) -> int:
        if self._root < 0:
            descriptor = self._open_root()
            with self._lock:
                if self._root < 0:
                    self._root, descriptor = descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
        return self._root

    @staticmethod
    def _held(inode: Inode) -> Held:
        if inode.state is None:
            inode.state = Held()
        return inode.state  # type: ignore[no-any-return]

    def _keep(self, held: Held, descriptor: int) -> int:
        """Hold a new descriptor, unless another thread was first; push out what was not used for longest."""
        out = []
        with self._lock:
            if held.descriptor >= 0:
                out.append(descriptor)
                descriptor = held.descriptor
            else:
                held.descriptor = descriptor
                self._queue.append(held)
            for _ in range(2 * len(self._queue)):
                if len(self._queue) <= self._limit:
                    break
                oldest = self._queue.popleft()
                if oldest.descriptor < 0:
                    continue
                if oldest.borrowed or oldest.used:
                    oldest.used = False
                    self._queue.append(oldest)
                else:
                    out.append(oldest.descriptor)
                    oldest.descriptor = -1
        for number in out:
            os.close(number)
        return descriptor

    def _reopen(self, inode: Inode) -> int:
        dentries = self._inodes.dentries(inode)
        if not dentries:
            return self._reopen_unlinked(inode)
        # Renamed behind our back, a file is looked up under its new name while the old one is on record still.
        for dentry in dentries:
            with self.borrow(dentry.parent) as parent, suppress(FileNotFoundError):
                descriptor = os.open(dentry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                if statx(descriptor).identity == inode.key:
                    return descriptor
                os.close(descriptor)
        refuse(errno.ESTALE)

    @staticmethod
    def _reopen_unlinked(inode: Inode) -> int:
        """A file that has no name any more can still be reached while it is open."""
        for file in list(inode.files):
            number = file.fileno()
            if number is not None:
                return os.open(f'/proc/self/fd/{number}', os.O_PATH | os.O_CLOEXEC)
        refuse(errno.ESTALE)
