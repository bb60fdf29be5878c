"""Requests on their way: numbered, sent, and waited for by the thread of libfuse's that asks.

Owns the numbers and the waiting, and how a signal ends it. Knows neither paths nor libfuse, but for what the two
functions tell that it is given. Threads: safe. A thread declares for each of its requests, as those of devfuse do once,
that it never blocks, because Python forgets what it knew of libfuse's threads between two of their calls: what would
block goes to a worker of its mount, and so one sick mount keeps its own workers busy, and only who asks waits.
"""

import errno
import itertools
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from fusefs import ops
from fusefs.transports.base import Dispatch
from genro_storage.runtime import serving_without_blocking

R = TypeVar('R')

#: libfuse notes that a request was interrupted and tells who asks, but wakes nobody: so whoever waits asks so often.
INTERRUPT_POLL_S = 0.1


class _Waiting:
    __slots__ = ('answered', 'reply')

    def __init__(self) -> None:
        self.answered = threading.Lock()
        self.answered.acquire()
        self.reply: ops.Reply = None


class Requests:
    """What is being asked of one file system."""

    def __init__(self, caller: Callable[[], tuple[int, int, int]], is_interrupted: Callable[[], bool]) -> None:
        """Both are about the call of libfuse's that the calling thread is in: user, group, process; and a signal."""
        self._caller = caller
        self._is_interrupted = is_interrupted
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}  # by unique; each is put in and taken out by who waits
        self._dispatch: Dispatch | None = None

    def connect(self, dispatch: Dispatch) -> None:
        """Say who answers."""
        self._dispatch = dispatch

    def head(self, nodeid: int) -> tuple[int, int, int, int, int]:
        """How a request about an inode begins."""
        return next(self._numbers), nodeid, *self._caller()

    def ask(self, request: ops.Request, kind: type[R]) -> R:
        """Send a request and wait for its reply. Raises OSError for a Failure, EINTR after a signal among them."""
        reply = self._ask(request)
        if not isinstance(reply, kind):
            raise TypeError(f'{type(request).__name__}: {kind.__name__} expected, not {type(reply).__name__}')
        return reply

    def tell(self, request: ops.Request) -> None:
        """Send a request whose reply says nothing, and wait for that. Raises OSError."""
        self.ask(request, type(None))

    def read(self, request: ops.Read) -> list[memoryview]:
        """What was read, in pieces. Raises OSError."""
        reply = self._ask(request)
        if isinstance(reply, list):
            return reply
        if isinstance(reply, bytes | memoryview):
            return [memoryview(reply)]
        raise TypeError(f'Read: data expected, not {type(reply).__name__}')

    def forget(self, gone: list[tuple[int, int]]) -> None:
        """Give lookups back."""
        if gone and self._dispatch is not None:
            self._dispatch(ops.Forget(0, 0, 0, 0, 0, gone))

    def answer(self, request: ops.Request, reply: ops.Reply) -> bool:
        """See Transport: whoever asks waits until it is answered."""
        waiting = self._waiting[request.unique]
        waiting.reply = reply
        waiting.answered.release()
        return True

    def _ask(self, request: ops.Request) -> ops.Reply:
        """Raises OSError for a Failure."""
        if self._dispatch is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        waiting = self._waiting[request.unique] = _Waiting()
        try:
            with serving_without_blocking():
                self._dispatch(request)
            told = False
            while not waiting.answered.acquire(timeout=-1 if told else INTERRUPT_POLL_S):
                told = self._is_interrupted()
                if told:
                    self._dispatch(ops.Interrupt(0, 0, 0, 0, 0, request.unique))
        finally:
            del self._waiting[request.unique]
        if isinstance(waiting.reply, ops.Failure):
            raise OSError(waiting.reply.errno, os.strerror(waiting.reply.errno))
        return waiting.reply
