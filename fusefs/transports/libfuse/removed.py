"""libfuse's names for removed files that are still open.

libfuse finds an inode by its path, so when a file is removed or replaced while it is open, libfuse renames it to
'.fuse_hidden' and 16 digits beside it, and removes that when the last descriptor is closed (fuse.c, hide_node). Here
the file is removed at once, and the other name leads to it within this transport only. So such a rename must be told
from one that a program asks for, where a removal would lose its file. libfuse first asks whether the name is free, and
takes the next number if it is not: a name like that looks taken at first, and only to whoever asks for the next at
once, in the same thread, it is free. A program that asks for a single one is refused.

Owns that rule. Threads: safe; each thread has its own place in the dictionary.
"""

import re
import stat
import threading

import msgspec

from fusefs import ops

_HIDDEN = re.compile(r'(.*/\.fuse_hidden[0-9a-f]{8})([0-9a-f]{8})')  # the inode of libfuse's, a counter

#: What a name looks like that is not to be used: no program may do anything with it.
TAKEN = ops.Attributes(ino=2, mode=stat.S_IFREG)


class _Asked(msgspec.Struct, frozen=True):
    path: str
    stem: str
    counter: int
    is_free: bool


class RemovedNames:
    """Which names libfuse is about to give to removed files."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}  # by thread

    def is_free(self, path: str) -> bool:
        """Whether a name where nothing is may be called free; any but those of libfuse's may."""
        match = _HIDDEN.fullmatch(path)
        before = self._asked.pop(threading.get_ident(), None)
        if match is None:
            return True
        stem, counter = match[1], int(match[2], 16)
        is_free = before is not None and not before.is_free and before.stem == stem and before.counter < counter
        self._asked[threading.get_ident()] = _Asked(path, stem, counter, is_free)
        return is_free

    def is_removal(self, new_path: str) -> bool:
        """Whether a rename to this name is libfuse's way to say that the file is removed."""
        asked = self._asked.pop(threading.get_ident(), None)
        return asked is not None and asked.is_free and asked.path == new_path

    @staticmethod
    def is_reserved(path: str) -> bool:
        """Whether a name is of libfuse's kind."""
        return _HIDDEN.fullmatch(path) is not None
