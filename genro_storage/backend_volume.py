"""A volume over one backend: joins entries, reading and writing.

Owns what the mount's definition promises (TTL), and that everybody in this process sees a file under change as it is.
When that is committed is the commits' (writing/commits.py).

Threads: safe; has no lock of its own. A staged file is kept from being committed while anything else happens to its
path (docs/concurrency.md).
"""

import logging
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend, HoldsBack, OpensDescriptors, Prepares
from genro_storage.cache.blocks import BlockCache
from genro_storage.cache.entries import EntryCache, Known
from genro_storage.config import Definition, Permissions
from genro_storage.entry import Attributes, Entry, Kind, Usage, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageUnsupportedError,
)
from genro_storage.lookups import Lookups
from genro_storage.opening import Opener
from genro_storage.reading.beginnings import Beginnings
from genro_storage.reading.fetcher import Fetcher, File
from genro_storage.reading.neighbours import Neighbours
from genro_storage.reading.reader import (
    WORTH_HANDING_OUT_BYTES,
    BlockReader,
    DescriptorReader,
    DirectReader,
    LatestReader,
    Reader,
)
from genro_storage.runtime import Clock, WorkerPool
from genro_storage.volume import Volume
from genro_storage.writing.changes import Changes
from genro_storage.writing.journal import Journal
from genro_storage.writing.origins import path_for
from genro_storage.writing.state import State
from genro_storage.writing.writer import Writer

log = logging.getLogger(__name__)

#: Requests of one mount that may wait for its backend at a time; more queue, and other mounts do not notice.
WORKERS = 16
#: What was told no longer ago is not checked at an open: who walks a tree opens what was listed a moment before.
RECENTLY_S = 1.0
#: Requests ahead of demand that are in flight at a time. Large ranges are fewer, by the bound of their bytes.
FETCHERS = 8


class BackendVolume(Volume):
    """See Volume."""

    def __init__(
        self,
        definition: Definition,
        backend: Backend,
        cache: BlockCache,
        staging: Path,
        clock: Clock,
        journal: Journal | None = None,
    ) -> None:
        """journal: of the backend's destination; None where nothing is to outlive this process."""
        self.definition = definition
        self.name = definition.name
        self.backend = backend
        # Asked of the class once: a protocol is checked anew each time, in 20 µs.
        self._descriptors = backend if isinstance(backend, OpensDescriptors) else None
        #: For requests that wait for the backend.
        self.workers = WorkerPool(f'{self.name}', WORKERS)
        self._fetchers = WorkerPool(f'{self.name}-fetch', FETCHERS)
        self._fetcher = Fetcher(backend, cache, self._fetchers, definition.timeout_s)
        self._entries = EntryCache(definition.ttl_s, clock)
        self._neighbours = Neighbours(self._fetcher, self._entries)
        self._beginnings = Beginnings(backend, self._fetcher, self._entries)
        self.clock = clock
        self._changes = Changes(
            definition,
            backend,
            self._entries,
            staging,
            clock,
            journal,
            self._reader,
            lambda path: self.find(path, timed=False),
        )
        self._descriptions = self._changes.descriptions
        self._fetcher.successor = self._descriptions.successor
        self._files = self._changes.files
        self._commits = self._changes.commits
        self._lookups = Lookups(
            definition,
            backend,
            self._files,
            self._entries,
            self._descriptions,
            self._fetchers,
            self._neighbours,
            self._beginnings,
            self.adopt,
        )
        self._opener = Opener(definition.name, backend, self._lookups, self._changes, staging, clock, self._reader)

    def __repr__(self) -> str:
        return f'BackendVolume({self.name!r}, {self.backend.destination!r})'

    def after_fork(self) -> None:
        """See Volume."""
        parts = (
            self.workers,
            self._fetchers,
            self._fetcher,
            self._entries,
            self._lookups,
            self._neighbours,
            self._beginnings,
            self._changes,
        )
        for part in parts:
            part.after_fork()

    def prepare(self) -> None:
        """See Volume."""
        if isinstance(self.backend, Prepares):
            try:
                self.backend.prepare()
            except StorageError as error:
                log.info('%s: %s', self.name, error)

    def adopt(self) -> None:
        """See Volume."""
        self._changes.adopt()

    # Looking

    def find(self, path: str, *, timed: bool = True) -> Known:
        """See Volume."""
        return self._lookups.find(path, timed=timed)

    def recall(self, path: str) -> Known | None:
        """See Volume."""
        return self._lookups.recall(path)

    def stat(self, path: str) -> Entry:
        """See Volume."""
        return self._lookups.stat(path)

    def list_directory(self, path: str) -> tuple[list[Entry], float]:
        """See Volume."""
        return self._lookups.list_directory(path)

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """See Volume."""
        return self._entries.subscribe(callback)

    def usage(self) -> Usage | None:
        """See Volume."""
        return self.backend.usage()

    def state(self, path: str) -> State:
        """See Volume."""
        self.adopt()
        return self._changes.state(path)

    def cached_bytes(self, path: str) -> int:
        """See Volume."""
        staged = self._files.find(path)
        if staged is not None:
            return staged.local_bytes
        entry = self._lookups.file(path)
        return entry.size_bytes if self.backend.capabilities.instant else self._fetcher.cached_bytes(File(path, entry))

    # Reading and writing

    def open_read(self, path: str) -> Reader:
        """See Volume."""
        return self._open_known(path)[1]

    def open_told(self, path: str) -> tuple[Entry, Reader]:
        """See Volume."""
        entry, reader, remaining_s = self._open_known(path)
        if isinstance(reader, BlockReader) and self.definition.ttl_s - remaining_s > RECENTLY_S:
            try:
                reader.begin()
            except BaseException:
                reader.close()
                raise
        return entry, reader

    def open_latest(self, path: str) -> Reader:
        """See Volume."""
        return LatestReader(lambda: self.open_read(path))

    def complete_file(self, path: str, entry: Entry) -> int | None:
        """See Volume."""
        if entry.size_bytes < WORTH_HANDING_OUT_BYTES or entry.version is None or not entry.version.strong:
            return None
        return self._fetcher.complete_file(File(path, entry))

    def open_write(
        self,
        path: str,
        *,
        create: bool,
        exclusive: bool = False,
        truncate: bool = False,
        append: bool = False,
        attributes: Attributes | None = None,
    ) -> Writer:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        return self._opener.open_shared(
            path, create=create, exclusive=exclusive, truncate=truncate, append=append, attributes=attributes
        )

    def replace(self, path: str, *, exclusive: bool = False, attributes: Attributes | None = None) -> Writer:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        return self._opener.open_anew(path, exclusive=exclusive, attributes=attributes)

    def change(self, path: str, *, create: bool) -> Writer:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        return self._opener.open_to_change(path, create=create)

    def sync(self, path: str) -> None:
        """See Volume."""
        self.adopt()
        if self._files.below(path):
            self._ask_again()
        self._changes.sync(path)

    def retry_parked(self, path: str) -> None:
        """See Volume."""
        self._ask_again()
        self._changes.retry_parked(path)

    # Changing names

    def read_link(self, path: str) -> bytes:
        """See Volume."""
        entry = self.stat(path)
        if entry.attributes is None or not stat.S_ISLNK(entry.attributes.mode or 0):
            raise StorageUnsupportedError(f'{paths.shown(self.name, path)} is no symbolic link')
        reader = self._reader(path, entry)
        try:
            return bytes(reader.read(0, entry.size_bytes))
        finally:
            reader.close()

    def make_directory(self, path: str, attributes: Attributes | None = None) -> None:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        if self.find(path).entry is not None:
            raise StorageExistsError(f'{paths.shown(self.name, path)} exists')
        self._lookups.refuse_long(path, '/')
        if not self.stat(paths.parent(path)).is_directory:
            raise StorageNotADirectoryError(f'{self.name}:{paths.parent(path)} is not a directory')
        # Of a store without directories of its own they have no time either.
        mtime_ns = self.clock.time_ns() if self.backend.capabilities.real_directories else 0
        asked = self._entries.asking()
        with self._doubting(path):
            self.backend.make_directory(path, metadata=self._descriptions.of_new(attributes, None))
        kept = attributes if self._descriptions.are_complete else None
        self._entries.changed(path, Entry(paths.basename(path), Kind.DIRECTORY, 0, mtime_ns, None, kept), asked)
        # Who makes a directory fills it: that nothing is in it yet need not be asked for each new name.
        self._entries.learn_listing(path, (), self._entries.asking())

    def remove_file(self, path: str, *, expected: Version | None = None) -> None:
        """See Volume."""
        self.require(Permissions.DELETE, path)
        self.adopt()
        self._commits.commit_copies_of(path)
        with self._files.holding(path) as staged:
            if staged is not None and staged.handles:
                staged.complete()  # who has it open reads on
            asked = self._entries.asking()
            with self._doubting(path), self._changes.acknowledgements.removing(staged) if staged else nullcontext():
                if expected is not None and staged is None and self.backend.stat(path).version != expected:
                    raise StorageConflictError(f'{paths.shown(self.name, path)} has changed meanwhile, and stays')
                if staged is None or staged.expected is not ABSENT or staged.progress.may_have_arrived:
                    # Of a file under change there need be nothing any more.
                    with suppress(*[StorageNotFoundError] if staged else []):
                        known = self._entries.has_file(path), self._entries.has_others(path)
                        self.backend.remove_file(path, seen=known[0], beside=known[1])
                if staged is not None:
                    self._commits.forget(staged)
            self._entries.changed(path, None, asked)

    def remove_directory(self, path: str) -> None:
        """See Volume."""
        self.require_removable(path)
        self.adopt()
        self._changes.moves.refuse_files_below(path)
        asked = self._entries.asking()
        with self._doubting(path):
            self.backend.remove_directory(path, beside=self._entries.has_others(path))
        self._entries.changed(path, None, asked)

    def rename(self, source: str, target: str) -> None:
        """See Volume."""
        self.require_removable(source)
        self.require_removable(target)
        if source == target:
            return
        if paths.is_within(target, source):
            raise StoragePathError(f'{self.name}:{source} cannot move into itself, to {target!r}')
        self._lookups.refuse_long(target)
        self.adopt()
        self._commits.commit_copies_of(source)
        self._commits.commit_copies_of(target)
        self._changes.moves.rename(source, target)

    def commit(self, path: str) -> None:
        """See Volume."""
        self.adopt()
        staged = self._files.find(path)
        if staged is not None:
            self._commits.commit(staged)

    def copy(self, source: str, target: str, *, lender: Volume | None = None) -> None:
        """See Volume."""
        self.require(Permissions.READWRITE, target)
        self._lookups.refuse_long(target)
        self.adopt()
        lender = lender or self
        path = path_for(self.backend, lender.backend, source)
        if path is None:
            raise StorageUnsupportedError(f'{self.name} cannot see what is in {lender.name}')
        lender.commit(source)
        asked = self._entries.asking()
        with self._doubting(target):
            try:
                entry = self.backend.copy(path, target)
            except StoragePermissionError as error:
                if lender is self:
                    raise
                raise StorageUnsupportedError(str(error)) from error
        self._files.detach(target)
        self._entries.changed(target, entry, asked, timed=self.backend.capabilities.is_timed(entry))

    # Attributes

    @property
    def keeps_attributes(self) -> bool:
        """See Volume."""
        return self._descriptions.are_complete

    def set_attributes(self, path: str, changes: Attributes) -> bool:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        self.adopt()
        return self._descriptions.change(path, changes)

    def metadata(self, path: str) -> Mapping[str, str]:
        """See Volume."""
        return self._descriptions.metadata(path, self.stat(path))

    def change_metadata(self, path: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        self.adopt()
        self._descriptions.change_metadata(path, change)

    def close(self, timeout_s: float) -> bool:
        """See Volume."""
        ended = self.workers.close(timeout_s)
        ended = self._changes.close(timeout_s) and ended
        ended = self._fetchers.close(timeout_s) and ended
        ended = self._lookups.close(timeout_s) and ended
        self.backend.close()
        return ended

    # Inside

    def _ask_again(self) -> None:
        if isinstance(self.backend, HoldsBack):
            self.backend.ask_again()

    def _reader(self, path: str, entry: Entry) -> Reader:
        if self._descriptors is not None:
            return DescriptorReader(self._descriptors.open_descriptor(path))
        if self.backend.capabilities.instant:
            return DirectReader(path, entry, self.backend)
        self._beginnings.opened(path)
        self._neighbours.opened(path, entry)
        return BlockReader(path, entry, self._fetcher, lambda: self._entries.doubt(path))

    def _open_known(self, path: str) -> tuple[Entry, Reader, float]:
        """With for how many seconds more the entry may be believed."""
        self.adopt()
        if (reader := self._commits.open_reader(path)) is not None:
            return self._descriptions.of_staged(reader.staged), reader, 0.0
        entry, remaining_s = self._lookups.file_told(path)
        return entry, self._reader(path, entry), remaining_s

    @contextmanager
    def _doubting(self, path: str) -> Iterator[None]:
        """What fails on the way to a change may have changed something, or shows that what we believed was wrong."""
        try:
            yield
        except StorageError:
            self._entries.doubt(path)
            raise
