"""One client per process: made on first use, never handed to a forked child.

Owns only that. A client of a remote store has sockets and an event loop, and a child that used its parent's would mix
up both their answers. Neither may the child destroy it: to close a connection takes it out of the event loop's epoll
set, which parent and child share, and the parent would wait for its answers for ever. So the child keeps what it
inherited, even beyond the end of the interpreter.

Threads: safe without a lock, which a fork could leave held for ever: two threads may make two, and one of them is
dropped unused.
"""

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar('T')


class PerProcess(Generic[T]):
    """What a factory makes, once in each process."""

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._made: dict[int, T] = {}
        _all.add(self)

    def get(self) -> T:
        """This process's own. Raises what the factory raises."""
        pid = os.getpid()
        made = self._made.get(pid)
        if made is None:
            made = self._made.setdefault(pid, self._factory())
        return made

    def take(self) -> T | None:
        """This process's own if it was made, to be closed: the next get makes another."""
        return self._made.pop(os.getpid(), None)

    def __reduce__(self) -> NoReturn:
        raise TypeError('a client of a store is not pickled: it may hold secrets, and sockets')


_all: 'weakref.WeakSet[PerProcess[Any]]' = weakref.WeakSet()


def _keep_inherited() -> None:
    for process in _all:
        for made in process._made.values():
            # A reference that nobody gives back; one from Python would be dropped at the interpreter's end.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


os.register_at_fork(after_in_child=_keep_inherited)
