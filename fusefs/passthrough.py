"""Which open inodes the kernel reads and writes by itself, and which through the file system.

Owns what the kernel asks of all who have one inode open at one time: that they are of one kind, with one backing file;
anything else is EIO to the program that opens. The first open of an inode decides, and that holds until its last
release. Does not know which files may be handed over: the trees do.

Threads: safe; one lock, never held across I/O.
"""

import itertools
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Connection(Protocol):
    """What registers backing files: a Transport."""

    @property
    def takes_files(self) -> bool:
        """See Transport."""

    def open_backing(self, descriptor: int) -> int | None:
        """See Transport."""

    def close_backing(self, backing_id: int) -> None:
        """See Transport."""


class OtherContentError(Exception):
    """The kernel reads another content by the inode, so this open needs an inode of its own."""


class _OpenInode:
    """What all opens of an inode share."""

    __slots__ = ('backing_id', 'content', 'opens')

    def __init__(self, content: Hashable, backing_id: int) -> None:
        self.content = content
        self.backing_id = backing_id
        self.opens = 1


class Backings:
    """The open inodes of one file system."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._inodes: dict[int, _OpenInode] = {}
        self._handles: dict[int, int] = {}  # fh → nodeid
        self._reservations = itertools.count(-1, -1)  # in place of an fh

    def connect(self, connection: Connection) -> None:
        """Say who registers backing files; without anybody, no file is handed over."""
        self._connection = connection

    def join(self, fh: int, nodeid: int, content: Hashable, open_file: Callable[[], int | None]) -> int:
        """Count an open of an inode: the backing id that it must have, 0 for none. Raises OtherContentError.

        open_file: opens the local file that is to be read and written instead, or returns None; called at the first
        open only. The descriptor is closed at once: the kernel holds the open file, and with it a lock on that.
        """
        with self._lock:
            if nodeid in self._inodes:
                return self._join(fh, nodeid, content)
        mine = _OpenInode(content, self._register(open_file))
        with self._lock:
            if nodeid not in self._inodes:
                self._inodes[nodeid] = mine
                self._handles[fh] = nodeid
                return mine.backing_id
        # Another open was first, and decided.
        self._give_back(mine)
        return self.join(fh, nodeid, content, open_file)

    @contextmanager
    def served_here(self, nodeid: int) -> Iterator[None]:
        """Meanwhile an inode that is not handed over yet is not: it is about to be opened with a content of its own,
        which takes time. Raises OtherContentError if it is.
        """
        reservation = next(self._reservations)
        if self.join(reservation, nodeid, None, lambda: None):
            self.leave(reservation)
            raise OtherContentError
        try:
            yield
        finally:
            self.leave(reservation)

    def leave(self, fh: int) -> None:
        """The kernel has the handle open no more. Idempotent."""
        with self._lock:
            nodeid = self._handles.pop(fh, None)
            if nodeid is None:
                return
            shared = self._inodes[nodeid]
            shared.opens -= 1
            if shared.opens:
                return
            del self._inodes[nodeid]
        self._give_back(shared)

    def close(self) -> None:
        """Give back everything, once the kernel has gone."""
        with self._lock:
            inodes = list(self._inodes.values())
            self._inodes.clear()
            self._handles.clear()
        for shared in inodes:
            self._give_back(shared)

    def _join(self, fh: int, nodeid: int, content: Hashable) -> int:
        """Called with the lock held."""
        shared = self._inodes[nodeid]
        if shared.backing_id and shared.content != content:
            raise OtherContentError
        shared.opens += 1
        self._handles[fh] = nodeid
        return shared.backing_id

    def _register(self, open_file: Callable[[], int | None]) -> int:
        connection = self._connection
        if connection is None or not connection.takes_files:
            return 0
        descriptor = open_file()
        if descriptor is None:
            return 0
        try:
            return connection.open_backing(descriptor) or 0
        finally:
            os.close(descriptor)

    def _give_back(self, shared: _OpenInode) -> None:
        if shared.backing_id and self._connection is not None:
            self._connection.close_backing(shared.backing_id)
