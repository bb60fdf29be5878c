"""Telling the kernel what has changed behind its back, so that what it caches is no older than what we know.

Owns the way from a path of a volume to notifications, and one queue and thread for each mount: a notification waits for
the kernel's lock of a directory, which a request may hold that waits for a backend, so no request may wait for it, and
no mount for another's. What the mounted tree itself changes is not told: the kernel knows. Does not decide what has
changed: volumes do.

Threads: safe; one lock over the queue, not held while the kernel is told. The thread starts with the first change.
"""

import errno
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fusefs.inodes import Inode, InodeTable
from genro_storage.volume import Volume

log = logging.getLogger(__name__)

#: What waits to be told for one mount, 2 MB of Python objects. Beyond, the timeouts with which the kernel was told of
#: an entry are all that ends its belief: the rest of the mount's TTL.
LIMIT_WAITING = 16_384
#: offset of Transport.notify_inode. Pages are dropped when a file is opened that shows others.
ATTRIBUTES_ONLY = -1


class Notified(Protocol):
    """Who is told: a Transport."""

    def notify_inode(self, nodeid: int, offset: int, size_bytes: int) -> None:
        """See Transport."""

    def notify_entry(self, parent: int, name: str) -> None:
        """See Transport."""


class Notice(NamedTuple):
    """Attributes of an inode, or with a name the entry of that name in it."""

    nodeid: int
    name: str | None = None


class Invalidations:
    """What the kernel is still to be told of one mount."""

    def __init__(
        self,
        volume: Volume,
        root: Inode,
        inodes: InodeTable,
        notified: Notified,
        is_known: Callable[[], bool] = lambda: False,
        limit: int = LIMIT_WAITING,
    ) -> None:
        """is_known: whether the kernel knows of what the calling thread is changing."""
        self._name = volume.name
        self._root = root
        self._inodes = inodes
        self._notified = notified
        self._is_known = is_known
        self._limit = limit
        self._lock = threading.Condition(threading.Lock())
        # All guarded by _lock.
        self._waiting: dict[Notice, None] = {}  # in order, each once
        self._thread: threading.Thread | None = None
        self._closed = False
        self._unsubscribe = volume.subscribe(self.changed)

    def changed(self, path: str) -> None:
        """Something else is at a path than the kernel may believe. Returns at once."""
        if self._is_known():
            return
        notices = self._notices(path)
        with self._lock:
            if self._closed or len(self._waiting) > self._limit:
                return
            if self._thread is None:
                thread = threading.Thread(target=self._tell, name=f'{self._name}-notify', daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the system has no more threads; whoever made the change is not to fail
                    log.warning('%s: the kernel is not told of a change: %s', self._name, error)
                    return
                self._thread = thread
            self._waiting.update(dict.fromkeys(notices))
            self._lock.notify()

    def close(self) -> None:
        """Tell no more. Idempotent; does not wait for what is just being told."""
        self._unsubscribe()
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._lock.notify()

    def _notices(self, path: str) -> list[Notice]:
        """What the kernel may hold of a path: nothing below the first name of it that it has not looked up.

        That name it may believe to be absent. The attributes of a directory change with its entries.
        """
        if not path:
            return [Notice(self._root.nodeid)]
        parent = self._root
        name = ''
        child: Inode | None = None
        for name in path.split('/'):
            parent = child or parent
            child = self._inodes.child(parent, name)
            if child is None:
                break
        notices = [Notice(parent.nodeid, name), Notice(parent.nodeid)]
        return notices if child is None else [*notices, Notice(child.nodeid)]

    def _tell(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._closed:
                    self._lock.wait()
                if self._closed:
                    return
                notice = next(iter(self._waiting))
                del self._waiting[notice]
            try:
                if notice.name is None:
                    self._notified.notify_inode(notice.nodeid, ATTRIBUTES_ONLY, 0)
                else:
                    self._notified.notify_entry(notice.nodeid, notice.name)
            except OSError as error:
                # A name that is too long for the kernel it cannot have cached either.
                if error.errno != errno.ENAMETOOLONG:
                    log.warning('%s: the kernel could not be told of a change: %s', self._name, error.strerror)
