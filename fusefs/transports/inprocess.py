"""A transport without a kernel: requests are values that a test makes, replies the values that come back.

Owns numbering, waiting and what a kernel would have been told. Nothing is encoded, so it proves nothing about the
protocol. Threads: call() and start() from any thread; requests reach dispatch on threads that declare, as those of
devfuse do, that they never block.
"""

import itertools
import queue
import threading
from collections.abc import Callable

from fusefs import ops
from fusefs.transports.base import Capabilities, Dispatch
from fusefs.transports.readers import Readers
from genro_storage.runtime import serve_without_blocking


class PendingCall:
    """A request on its way."""

    def __init__(self, request: ops.Request) -> None:
        self.request = request
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False  # guarded by _lock
        self._reply: ops.Reply = None  # guarded by _lock until _done

    def result(self, timeout_s: float = 10.0) -> ops.Reply:
        """The reply; a Failure is returned and not raised. Raises TimeoutError, and then nobody wants it any more."""
        if not self._done.wait(timeout_s):
            self.abandon()
            raise TimeoutError(f'{type(self.request).__name__} was not answered within {timeout_s} s')
        return self._reply

    def abandon(self) -> None:
        """Stop waiting, as a caller that is killed does: answer() then returns False."""
        with self._lock:
            self._abandoned = True

    def take(self, reply: ops.Reply) -> bool:
        """Whether somebody waited for this reply. Raises RuntimeError at a second one."""
        with self._lock:
            if self._done.is_set():
                raise RuntimeError(f'{type(self.request).__name__} was answered twice, at last with {reply!r}')
            self._reply = reply
            self._done.set()
            return not self._abandoned


class InProcessTransport:
    """A Transport for tests of what is above it."""

    capabilities = Capabilities()

    def __init__(self, threads: int = 2, *, may_leave: bool = True) -> None:
        """may_leave: requests may wait on the threads that serve them, as with devfuse and not with libfuse."""
        self.inode_notifications: list[tuple[int, int, int]] = []
        self.entry_notifications: list[tuple[int, str]] = []
        self._numbers = itertools.count(2, 2)
        self._may_leave = may_leave
        self._readers = Readers(threads, 'inprocess')
        self._ended = threading.Event()
        self._queue: queue.SimpleQueue[ops.Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._calls: dict[int, PendingCall] = {}  # guarded by _lock

    def serve(self, dispatch: Dispatch, on_ready: Callable[[], None]) -> None:
        """See Transport. Blocks until close()."""
        self._readers.start(lambda: self._read(dispatch))
        on_ready()
        self._ended.wait()

    def call(self, request: ops.Request, timeout_s: float = 10.0) -> ops.Reply:
        """Send a request and wait for its reply; None at once for Forget and Interrupt. Raises TimeoutError."""
        call = self.start(request)
        return None if isinstance(request, ops.Forget | ops.Interrupt) else call.result(timeout_s)

    def start(self, request: ops.Request) -> PendingCall:
        """Send a request without waiting. A request with number 0 is given one."""
        if not request.unique:
            request.unique = next(self._numbers)
        call = PendingCall(request)
        if not isinstance(request, ops.Forget | ops.Interrupt):
            with self._lock:
                self._calls[request.unique] = call
        self._queue.put(request)
        return call

    def answer(self, request: ops.Request, reply: ops.Reply) -> bool:
        """See Transport. Raises KeyError for a request that was never sent or has no reply."""
        with self._lock:
            call = self._calls[request.unique]
        return call.take(reply)

    def notify_inode(self, nodeid: int, offset: int, size_bytes: int) -> None:
        """See Transport; recorded in inode_notifications."""
        with self._lock:
            self.inode_notifications.append((nodeid, offset, size_bytes))

    def notify_entry(self, parent: int, name: str) -> None:
        """See Transport; recorded in entry_notifications."""
        with self._lock:
            self.entry_notifications.append((parent, name))

    def share(self) -> None:
        """See Transport. Nobody is asked alone."""

    def leave(self) -> bool:
        """See Transport."""
        return self._may_leave and self._readers.leave()

    @property
    def takes_files(self) -> bool:
        """See Transport."""
        return False

    def open_backing(self, descriptor: int) -> None:
        """See Transport. There is no kernel to hand a file to."""

    def close_backing(self, backing_id: int) -> None:
        """See Transport."""

    def close(self) -> None:
        """See Transport."""
        self._queue.put(None)

    def _read(self, dispatch: Dispatch) -> None:
        serve_without_blocking()
        while (request := self._queue.get()) is not None:
            dispatch(request)
            if not self._readers.come_back():
                return
        # The same end is for the other readers, and for a serve() that has yet to begin.
        self._queue.put(None)
        if self._readers.end():
            self._ended.set()
