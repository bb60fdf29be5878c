"""The first block of a file, fetched with the question what is at its path: who opens it then waits once, not twice.

Owns when that is likely to be of use. A path of which anything was known before is only asked about, and so are all
while what was brought was not opened, or was in the cache anyway: some of it is brought in vain, and no more.

Threads: safe; one lock, nothing waits under it.
"""

import threading
from collections import OrderedDict

from genro_storage.backends.base import Backend, TellsBeginnings
from genro_storage.cache.blocks import BLOCK_BYTES
from genro_storage.cache.entries import EntryCache
from genro_storage.entry import Entry
from genro_storage.reading.fetcher import Fetcher, File

#: After so many brought in vain, a mebibyte, no more are; each opening of what is not in the cache makes it one less.
IN_VAIN_MOST = 4
#: Paths whose opening would still tell something.
LIMIT_PATHS = 256


class Beginnings:
    """What is at the paths of one mount, as the backend says, and how files begin, for the cache."""

    def __init__(self, backend: Backend, fetcher: Fetcher, entries: EntryCache) -> None:
        self._backend = backend
        self._teller = backend if isinstance(backend, TellsBeginnings) else None
        self._fetcher = fetcher
        self._entries = entries
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child, where the lock may have been held."""
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._in_vain = 0
        self._asked: OrderedDict[str, None] = OrderedDict()  # files of which nothing was known nor cached

    def stat(self, path: str) -> Entry:
        """See Backend."""
        if self._teller is None or self._entries.was_known(path):
            return self._backend.stat(path)
        with self._lock:
            brings = self._in_vain < IN_VAIN_MOST
        entry, beginning = self._teller.stat_and_read(path, BLOCK_BYTES) if brings else (self._backend.stat(path), None)
        if not entry.is_file:
            return entry
        file = File(path, entry)
        # In the cache of another run, perhaps, where nobody could look before the version was told.
        news = not self._fetcher.has_begun(file)
        if beginning is not None and news:
            self._fetcher.keep(file, beginning)
        self._note(path, in_vain=beginning is not None, news=news)
        return entry

    def opened(self, path: str) -> None:
        """A file is opened to read, now."""
        with self._lock:
            if path in self._asked:
                del self._asked[path]
                self._in_vain = max(0, self._in_vain - 1)

    def _note(self, path: str, *, in_vain: bool, news: bool) -> None:
        with self._lock:
            self._in_vain += in_vain
            if news:
                self._asked[path] = None
            if len(self._asked) > LIMIT_PATHS:
                self._asked.popitem(last=False)
