"""The next files of a directory, fetched for a program that opens them one after the other.

Owns how much of a file is fetched before it is opened. Which files come next is Order's to say, what is in flight the
Fetcher's. Threads: safe; keeps nothing but what those keep.
"""

from collections.abc import Sequence

from genro_storage import paths
from genro_storage.cache.blocks import BLOCK_BYTES
from genro_storage.cache.entries import EntryCache
from genro_storage.entry import Entry
from genro_storage.reading.fetcher import Fetcher, File
from genro_storage.reading.order import Order

#: So much of each: the whole of small files, of others what hides the round trip until their own window is open.
OF_EACH_BYTES = 1 << 20


class Neighbours:
    """Looks ahead for the files of one mount."""

    def __init__(self, fetcher: Fetcher, entries: EntryCache) -> None:
        self._fetcher = fetcher
        self._entries = entries
        self._order = Order()

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._order.after_fork()

    def opened(self, path: str, entry: Entry) -> None:
        """A file is opened to read, now."""
        parent = paths.parent(path)
        late = not self._fetcher.has_begun(File(path, entry))
        names = self._order.took(parent, paths.basename(path), lambda: self._names(parent), late=late)
        self._fetch(parent, names)

    def listed(self, path: str, entries: Sequence[Entry]) -> None:
        """A directory was listed, now."""
        self._fetch(path, self._order.entered(path, lambda: _files(entries)))

    def _names(self, directory: str) -> Sequence[str] | None:
        known = self._entries.list_directory(directory)
        return None if known is None else _files(known[0])

    def _fetch(self, directory: str, names: Sequence[str]) -> None:
        room = self._fetcher.ahead_bytes
        for name in names:
            path = paths.child(directory, name)
            known = self._entries.find(path)
            if known is None or known.entry is None or known.entry.is_directory:
                continue
            size_bytes = min(known.entry.size_bytes, OF_EACH_BYTES)
            room -= size_bytes
            if room < 0:
                return
            if size_bytes:
                self._fetcher.prefetch(File(path, known.entry), 0, (size_bytes - 1) // BLOCK_BYTES)


def _files(entries: Sequence[Entry]) -> Sequence[str]:
    return sorted(entry.name for entry in entries if not entry.is_directory)
