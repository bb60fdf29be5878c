"""What is at the paths of a mount, as all who share it in this process see it.

Owns that a file under change is seen as it is, that of all else the backend is asked once within the TTL, and what is
shown of its answers. Does not open anything.

Threads: safe; has no lock of its own.
"""

from collections.abc import Callable

from genro_storage import paths
from genro_storage.backends.base import Backend
from genro_storage.cache.entries import EntryCache, Known
from genro_storage.config import Definition
from genro_storage.entry import Entry, Kind
from genro_storage.errors import (
    StorageIsADirectoryError,
    StorageNameTooLongError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.reading.beginnings import Beginnings
from genro_storage.reading.listings import HEADS_AT_ONCE, Listings
from genro_storage.reading.neighbours import Neighbours
from genro_storage.runtime import WorkerPool
from genro_storage.writing.descriptions import Descriptions
from genro_storage.writing.shared import SharedFiles


class Lookups:
    """Those of one mount."""

    def __init__(
        self,
        definition: Definition,
        backend: Backend,
        files: SharedFiles,
        entries: EntryCache,
        descriptions: Descriptions,
        fetchers: WorkerPool,
        neighbours: Neighbours,
        beginnings: Beginnings,
        adopt: Callable[[], None],
    ) -> None:
        """fetchers: for listings ahead of demand. adopt: takes over what other processes have left, once."""
        self.definition = definition
        self.name = definition.name
        self.backend = backend
        self.adopt = adopt
        self._path_limit = backend.capabilities.path_limit
        self._files = files
        self._entries = entries
        self._descriptions = descriptions
        self._neighbours = neighbours
        self._beginnings = beginnings
        self._heads = WorkerPool(f'{self.name}-heads', HEADS_AT_ONCE)
        self._listings = Listings(
            backend,
            entries,
            fetchers,
            definition.ttl_s,
            definition.timeout_s,
            self._heads if descriptions.are_complete else None,
        )

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._heads.after_fork()
        self._listings.after_fork()

    def close(self, timeout_s: float) -> bool:
        """Let what is under way end, for at most this long; whether it did."""
        return self._heads.close(timeout_s)

    def find(self, path: str, *, timed: bool = True) -> Known:
        """What is at a path, or that nothing is, and for how long to believe it. Raises what the backend raises.

        Not ``timed``: for whoever asks again where the answer says that the time is not known. A path that is longer
        than the backend keeps is no absence: raises StorageNameTooLongError.
        """
        self.adopt()
        staged = self._files.find(path)
        if staged is not None:
            return Known(self._descriptions.of_staged(staged), 0.0)
        if self.backend.capabilities.instant:
            return self._shown(Known(_or_none(self.backend.stat, path), self.definition.ttl_s))
        self.refuse_long(path)
        known = self._entries.find(path, timed=timed)
        if known is None or (known.entry is None and not paths.is_text(path)):
            known = self._asked(path, self._beginnings.stat)  # a name that is no text may be one that cannot be there
        if known.entry is None and self._files.are_below(path):
            return Known(Entry(paths.basename(path), Kind.DIRECTORY), 0.0)  # it comes with what is to be in it
        if known.entry is not None:
            known = known._replace(entry=self._descriptions.complete(path, known.entry))
        return self._shown(known)

    def recall(self, path: str) -> Known | None:
        """What is known of a path without asking a backend that may be far; None if nothing is. At once."""
        staged = self._files.find(path)
        if staged is not None:
            return Known(self._descriptions.of_staged(staged), 0.0)
        if self.backend.capabilities.instant:
            return self._shown(Known(_or_none(self.backend.stat, path), self.definition.ttl_s))
        known = self._entries.find(path, timed=False)
        if known is None or known.entry is None:
            return known
        if self._descriptions.are_complete and known.entry.attributes is None:
            return None  # to complete it would be to ask
        return self._shown(known)

    def stat(self, path: str) -> Entry:
        """What is at a path. Raises StorageNotFoundError."""
        entry = self.find(path).entry
        if entry is None:
            raise StorageNotFoundError(f'{paths.shown(self.name, path)}: nothing is there')
        return entry

    def list_directory(self, path: str) -> tuple[list[Entry], float]:
        """The entries of a directory and how long they may be believed.

        Raises StorageNotFoundError, StorageNotADirectoryError.
        """
        self.adopt()
        # Before the backend is asked: one that is committed and closed meanwhile might be in neither.
        staged, implied = self._files.inside(path)
        try:
            listed = self._list(path)
        except StorageNotFoundError:
            if not path or not (staged or implied):
                raise
            listed = [], 0.0  # it comes with what is to be in it
        staged = [file for file in staged if not file.orphaned and paths.parent(file.path) == path]
        if not staged and not implied:
            return listed
        merged = {name: Entry(name, Kind.DIRECTORY) for name in implied} | {entry.name: entry for entry in listed[0]}
        shown = {paths.basename(file.path): self._descriptions.of_staged(file) for file in staged}
        return list((merged | shown).values()), 0.0

    def ask_anew(self, path: str) -> Known:
        """What the backend says, whatever is remembered."""
        self.refuse_long(path)
        return self._asked(path, self.backend.stat)

    def file_or_nothing(self, path: str) -> Entry | None:
        """What is at a path, if anything is. Raises StorageIsADirectoryError."""
        return self._file_or_nothing(path, self.find(path))

    def file(self, path: str) -> Entry:
        """The regular file at a path.

        Raises StorageNotFoundError, StorageIsADirectoryError, StorageUnsupportedError for what is neither.
        """
        return self.file_told(path)[0]

    def file_told(self, path: str) -> tuple[Entry, float]:
        """Likewise, and for how many seconds more that may be believed."""
        known = self.find(path)
        entry = self._file_or_nothing(path, known)
        if entry is None:
            raise StorageNotFoundError(f'{paths.shown(self.name, path)}: nothing is there')
        self.refuse_other(path, entry)
        return entry, known.remaining_s

    def refuse_long(self, path: str, end: str = '') -> None:
        """Raise StorageNameTooLongError for a path that the backend does not keep; ``end``: '/' of a directory."""
        limit = self._path_limit
        if limit is not None and not limit.allows(path + end):
            raise StorageNameTooLongError(f'{self.name}:{path[:40]}…: {limit} are all that a path may have there')

    def refuse_other(self, path: str, entry: Entry | None) -> None:
        """Of a link, a FIFO, a socket or a device nothing is read or written, and no link is followed."""
        if entry is not None and entry.kind is Kind.OTHER:
            raise StorageUnsupportedError(f'{paths.shown(self.name, path)} is no regular file')

    # Inside

    def _file_or_nothing(self, path: str, known: Known) -> Entry | None:
        if known.entry is not None and known.entry.is_directory:
            raise StorageIsADirectoryError(f'{paths.shown(self.name, path)} is a directory')
        return known.entry

    def _asked(self, path: str, stat: Callable[[str], Entry]) -> Known:
        asked = self._entries.asking()
        entry = _or_none(stat, path)
        return self._shown(Known(entry, self._entries.learn(path, entry, asked)))

    def _list(self, path: str) -> tuple[list[Entry], float]:
        if self.backend.capabilities.instant:
            listed = self.backend.list_directory(path)
            return [self._descriptions.shown(entry) for entry in listed], self.definition.ttl_s
        entries, remaining_s = self._listings.of(path)
        self._neighbours.listed(path, entries)
        return [self._descriptions.shown(entry) for entry in entries], remaining_s

    def _shown(self, known: Known) -> Known:
        return known if known.entry is None else known._replace(entry=self._descriptions.shown(known.entry))


def _or_none(stat: Callable[[str], Entry], path: str) -> Entry | None:
    try:
        return stat(path)
    except (StorageNotFoundError, StorageNotADirectoryError):
        return None
