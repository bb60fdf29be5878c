"""From a path to the place that it leads to, by looking up what is not known of it.

Owns the order of lookups and their repetition after ESTALE, which devfuse leaves to the kernel. Threads: safe; what is
found is used, and kept, as long as the context is open.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fusefs import ops
from fusefs.transports.libfuse.places import Place, Places
from fusefs.transports.libfuse.requests import Requests

T = TypeVar('T')


def names_of(path: str) -> list[str]:
    """The names of a path as libfuse has it: '/a/b', '/' for the root."""
    return path.split('/')[1:] if path != '/' else []


class Walker:
    """Walks the tree of one file system."""

    def __init__(self, places: Places, requests: Requests) -> None:
        self._places = places
        self._requests = requests

    @contextmanager
    def at(self, path: str) -> Iterator[Place]:
        """The place of a path. Raises OSError, ENOENT where nothing is."""
        place = self._walk(names_of(path))
        try:
            yield place
        finally:
            self.leave(place)

    @contextmanager
    def above(self, path: str) -> Iterator[tuple[Place, str]]:
        """The place of the directory that a path is in, and its last name. Raises OSError."""
        *names, name = names_of(path)
        place = self._walk(names)
        try:
            yield place, name
        finally:
            self.leave(place)

    def look(self, parent: Place, name: str) -> tuple[Place, ops.EntryReply]:
        """Look a name up, whatever is believed of it; the place is for the caller to leave. Raises OSError."""
        changes = self._places.changes
        entry = self._requests.ask(ops.Lookup(*self._requests.head(parent.nodeid), name), ops.EntryReply)
        if not entry.nodeid:
            self._places.absent(parent, name)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._places.enter(parent, name, entry, changes), entry

    def enter(self, parent: Place, name: str, entry: ops.EntryReply, changes: int) -> None:
        """Note what a request has made."""
        self.leave(self._places.enter(parent, name, entry, changes))

    def leave(self, place: Place) -> None:
        """Use a place no more, and give back what nobody uses."""
        self._places.leave(place)
        self.give_back()

    def give_back(self) -> None:
        """Give back the lookups of places that are gone."""
        self._requests.forget(self._places.take_gone())

    def again_if_stale(self, path: str, ask: Callable[[], T]) -> T:
        """Ask, and once more with every name of a path looked up again if the inode is no longer what it leads to."""
        try:
            return ask()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        self._places.doubt(names_of(path))
        return ask()

    def _walk(self, names: list[str]) -> Place:
        place = self._places.root
        self._places.hold(place)
        for name in names:
            try:
                below = self._places.find(place, name) or self.look(place, name)[0]
            finally:
                self._places.leave(place)
            place = below
        return place
