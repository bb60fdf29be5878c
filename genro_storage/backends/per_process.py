"""One client per process: made on first use, never handed to a forked child.

Owns only that. A client of a remote store has sockets and an event loop, and a child that used its parent's would mix
up both their answers. The parent's stays referenced in the child, so that no finalizer of it runs there.

Threads: safe without a lock, which a fork could leave held for ever: two threads may make two, and one of them is
dropped unused.
"""

import os
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

T = TypeVar('T')


class PerProcess(Generic[T]):
    """What a factory makes, once in each process."""

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._made: dict[int, T] = {}

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
