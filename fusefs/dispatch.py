"""Operation → method: on the thread that received it, or on a worker of the mount when it must wait.

Owns the one error boundary, the requests under way, and interrupts. Threads: safe; one lock over the table of requests
under way, held for dictionary operations only.
"""

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from fusefs import ops
from fusefs.errnos import errno_of
from fusefs.filesystem import FileSystem
from fusefs.transports.base import Transport
from genro_storage.runtime import WorkerPool, WouldBlock

log = logging.getLogger(__name__)

#: Answered from memory in most cases, and free of effects until they wait: a serving thread tries them first, and a
#: worker begins them again if they would block.
TRIED_FIRST = (
    ops.Lookup,
    ops.Getattr,
    ops.Read,
    ops.Write,
    ops.Release,
    ops.Opendir,
    ops.Readdir,
    ops.Access,
    ops.Getxattr,
    ops.Listxattr,
    ops.Statfs,
)
#: Whoever waits for these may go at once when a signal comes: nothing has changed, and the result is dropped.
INTERRUPTIBLE = (
    ops.Lookup,
    ops.Getattr,
    ops.Read,
    ops.Opendir,
    ops.Readdir,
    ops.Open,
    ops.Access,
    ops.Getxattr,
    ops.Listxattr,
    ops.Statfs,
)
#: A failure of these is about data that somebody wrote; an errno alone does not say what became of them.
COMMITTING = (ops.Flush, ops.Fsync, ops.Release)

#: How many interrupts to remember that came before their request was on the table; that takes milliseconds.
EARLY_INTERRUPTS = 256


class Dispatcher:
    """Takes requests from a transport and has each answered exactly once."""

    def __init__(self, filesystem: FileSystem, transport: Transport) -> None:
        self._filesystem = filesystem
        self._operations = filesystem.operations
        self._transport = transport
        filesystem.backings.connect(transport)
        self._lock = threading.Condition()
        self._waiting: dict[int, ops.Request] = {}  # on workers, by unique; guarded by _lock
        # Numbers of interrupts that found no request to end: it was answered, or another thread has read it and not
        # put it on the table yet. Guarded by _lock.
        self._early: deque[int] = deque(maxlen=EARLY_INTERRUPTS)
        self._working = 0  # jobs of workers, answered early or not; guarded by _lock

    def __call__(self, request: ops.Request) -> None:
        """Dispatch. Never raises."""
        if isinstance(request, ops.Interrupt):
            self._interrupt(request.target)
            return
        try:
            tree = self._filesystem.tree_of(request.nodeid) if not isinstance(request, ops.Forget) else None
            if tree is None or tree.instant or isinstance(request, TRIED_FIRST) or _only_reads(request):
                reply = self._operations[type(request)](request)
            else:
                raise WouldBlock
        except WouldBlock:
            self._defer(request)
            return
        except Exception as error:  # noqa: BLE001 - the error boundary: whatever happens, the daemon survives it
            reply = self._failure(request, error)
        if not isinstance(request, ops.Forget):
            self._answer(request, reply)

    def drain(self, timeout_s: float) -> bool:
        """Wait until no worker is busy; whether that came in time."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while self._working:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return False
                self._lock.wait(remaining_s)
        return True

    def _defer(self, request: ops.Request) -> None:
        if isinstance(request, ops.Write):
            request.data = bytes(request.data)  # the buffer is the transport's, and used again at once
        with self._lock:
            interrupted = request.unique in self._early and isinstance(request, INTERRUPTIBLE)
            if not interrupted:
                self._waiting[request.unique] = request
        if interrupted:
            self._answer(request, ops.Failure(errno.EINTR))
            return
        try:
            self._start(request, lambda: self._work(request))
        except Exception as error:  # noqa: BLE001 - see __call__
            if self._claim(request):
                self._answer(request, self._failure(request, error))

    def _start(self, request: ops.Request, job: Callable[[], None]) -> None:
        """Run a job of a request on a worker of its mount; drain() waits for it."""

        def run() -> None:
            try:
                job()
            finally:
                self._ended()

        with self._lock:
            self._working += 1
        try:
            self._pool(request).start(run)
        except BaseException:
            self._ended()
            raise

    def _ended(self) -> None:
        with self._lock:
            self._working -= 1
            self._lock.notify_all()

    def _pool(self, request: ops.Request) -> WorkerPool:
        pool = self._filesystem.tree_of(request.nodeid).workers
        if pool is None:
            raise RuntimeError(f'{type(request).__name__} would block in a tree that has no workers')
        return pool

    def _work(self, request: ops.Request) -> None:
        try:
            reply = self._operations[type(request)](request)
        except Exception as error:  # noqa: BLE001 - see __call__
            reply = self._failure(request, error)
        if self._claim(request):
            self._answer(request, reply)
        else:
            self._take_back(request, reply)

    def _claim(self, request: ops.Request) -> bool:
        """Take a request off the table, to answer it; False if an interrupt has answered it already."""
        with self._lock:
            return self._waiting.pop(request.unique, None) is not None

    def _interrupt(self, unique: int) -> None:
        with self._lock:
            request = self._waiting.get(unique)
            if request is None:
                self._early.append(unique)
                return
            if not isinstance(request, INTERRUPTIBLE):
                return  # changing something: then the answer is worth waiting for
            del self._waiting[unique]
        self._answer(request, ops.Failure(errno.EINTR))

    def _answer(self, request: ops.Request, reply: ops.Reply) -> None:
        if not self._transport.answer(request, reply):
            self._take_back(request, reply)

    def _take_back(self, request: ops.Request, reply: ops.Reply) -> None:
        try:
            self._filesystem.take_back(reply)
        except WouldBlock:
            self._start(request, lambda: self._take_back(request, reply))
        except Exception as error:  # noqa: BLE001 - nobody waits for this reply any more; what it opened is closed
            self._failure(request, error)

    @staticmethod
    def _failure(request: ops.Request, error: Exception) -> ops.Failure:
        number = errno_of(error)
        if number is None:
            log.error('%s failed in a way that nobody foresaw', type(request).__name__, exc_info=error)
            return ops.Failure(errno.EIO)
        if number in {errno.EIO, errno.ETIMEDOUT} or isinstance(request, COMMITTING):
            log.warning('%s: %s', type(request).__name__, error)
        return ops.Failure(number)


def _only_reads(request: ops.Request) -> bool:
    """Whether it is an open that changes nothing, which is tried first too."""
    return isinstance(request, ops.Open) and not request.flags & (os.O_ACCMODE | os.O_TRUNC)
