"""A volume: one live mount. Joins entries, reading and writing over one backend.

Owns what the mount's definition promises (permissions, TTL) and when a file under change is committed, so that
everybody in this process sees it as it is. Does not know inodes, nor nodes.

Threads: safe; has no lock of its own. A staged file's lock is held across its commit and whatever else happens to its
path, and is taken before those of the tables (docs/concurrency.md).
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend, Expected, OpensDescriptors, Prepares
from genro_storage.cache.blocks import BlockCache
from genro_storage.cache.entries import EntryCache, Known
from genro_storage.config import Definition, Permissions
from genro_storage.entry import Entry, Kind, Usage, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageReadOnlyError,
)
from genro_storage.reading.fetcher import Fetcher, File
from genro_storage.reading.listings import Listings
from genro_storage.reading.neighbours import Neighbours
from genro_storage.reading.reader import (
    WORTH_HANDING_OUT_BYTES,
    BlockReader,
    DescriptorReader,
    DirectReader,
    LatestReader,
    Reader,
)
from genro_storage.runtime import Clock, WorkerPool, WouldBlock
from genro_storage.writing.shared import SharedFiles
from genro_storage.writing.staging import StagedFile
from genro_storage.writing.uploader import Uploader
from genro_storage.writing.writer import StagedReader, Writer

log = logging.getLogger(__name__)

#: Requests of one mount that may wait for its backend at a time; more queue, and other mounts do not notice.
WORKERS = 16
#: What was told no longer ago is not checked at an open: who walks a tree opens what was listed a moment before.
RECENTLY_S = 1.0
#: Requests ahead of demand that are in flight at a time. Large ranges are fewer, by the bound of their bytes.
FETCHERS = 8


class Volume:
    """One configured mount, connected when it is first used."""

    def __init__(
        self, definition: Definition, backend: Backend, cache: BlockCache, staging: Path, clock: Clock
    ) -> None:
        self.definition = definition
        self.name = definition.name
        self.backend = backend
        # Asked of the class once: a protocol is checked anew each time, in 20 µs.
        self._descriptors = backend if isinstance(backend, OpensDescriptors) else None
        #: For requests that wait for the backend.
        self.workers = WorkerPool(f'{self.name}', WORKERS)
        self._fetchers = WorkerPool(f'{self.name}-fetch', FETCHERS)
        self._fetcher = Fetcher(backend, cache, self._fetchers, definition.timeout_s)
        self._uploader = Uploader(backend, clock)
        self._entries = EntryCache(definition.ttl_s, clock)
        self._listings = Listings(backend, self._entries, self._fetchers, definition.ttl_s, definition.timeout_s)
        self._neighbours = Neighbours(self._fetcher, self._entries)
        self._staging = staging
        self.clock = clock
        self._files = SharedFiles()

    def __repr__(self) -> str:
        return f'Volume({self.name!r}, {self.backend.destination!r})'

    def after_fork(self) -> None:
        """Begin anew in a forked child, over the same backend; what is open to read can be read on."""
        parts = (
            self.workers,
            self._fetchers,
            self._fetcher,
            self._entries,
            self._listings,
            self._neighbours,
            self._files,
        )
        for part in parts:
            part.after_fork()

    def prepare(self) -> None:
        """Load what the first request needs, connecting nowhere; what cannot be loaded is told to that request."""
        if isinstance(self.backend, Prepares):
            try:
                self.backend.prepare()
            except StorageError as error:
                log.info('%s: %s', self.name, error)

    # Looking

    def find(self, path: str) -> Known:
        """What is at a path, or that nothing is, and for how long to believe it. Raises what the backend raises."""
        staged = self._files.find(path)
        if staged is not None:
            return Known(_entry_of(staged), 0.0)
        if self.backend.capabilities.instant:
            return Known(self._ask(path), self.definition.ttl_s)
        return self._entries.find(path) or self._ask_anew(path)

    def stat(self, path: str) -> Entry:
        """What is at a path. Raises StorageNotFoundError."""
        entry = self.find(path).entry
        if entry is None:
            raise StorageNotFoundError(f'{self.name}:{path}: nothing is there')
        return entry

    def list_directory(self, path: str) -> tuple[list[Entry], float]:
        """The entries of a directory and how long they may be believed.

        Raises StorageNotFoundError, StorageNotADirectoryError.
        """
        # Before the backend is asked: one that is committed and closed meanwhile might be in neither.
        staged = self._files.inside(path)
        if self.backend.capabilities.instant:
            listed = list(self.backend.list_directory(path)), self.definition.ttl_s
        else:
            listed = self._listings.of(path)
            self._neighbours.listed(path, listed[0])
        staged = [file for file in staged if not file.orphaned and paths.parent(file.path) == path]
        if not staged:
            return listed
        merged = {entry.name: entry for entry in listed[0]} | {paths.basename(f.path): _entry_of(f) for f in staged}
        return list(merged.values()), 0.0

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Have a callback told each path at which something has changed: by us, or elsewhere as we find out.

        Call what is returned to end it. See EntryCache.subscribe for what a callback may do.
        """
        return self._entries.subscribe(callback)

    def usage(self) -> Usage | None:
        """Room left, where anybody knows."""
        return self.backend.usage()

    # Reading and writing

    def open_read(self, path: str) -> Reader:
        """Open a file to read. Raises StorageNotFoundError, StorageIsADirectoryError."""
        return self._open_known(path)[1]

    def open_told(self, path: str) -> tuple[Entry, Reader]:
        """Open a file to read for somebody who has been told what is there, and the entry that the reader shows.

        What was told a while ago may be another version by now: unless it is in the cache, that is found out here.
        Raises StorageConflictError then, and who asks again is told anew; and what open_read raises.
        """
        known = self.find(path)
        entry, reader = self._open_known(path)
        if isinstance(reader, BlockReader) and self.definition.ttl_s - known.remaining_s > RECENTLY_S:
            try:
                reader.begin()
            except BaseException:
                reader.close()
                raise
        return entry, reader

    def open_latest(self, path: str) -> Reader:
        """Likewise, for whoever was not told before what is there: a version that has gone by the first read, because
        somebody else replaced it within the TTL, is exchanged for the one that came.
        """
        return LatestReader(lambda: self.open_read(path))

    def complete_file(self, path: str, entry: Entry) -> int | None:
        """A descriptor of a whole version, complete and checked on the local disk; None if it is not, for now.

        At once, and for the caller to close. For the kernel to read from: open_read reads the same bytes.
        """
        if entry.size_bytes < WORTH_HANDING_OUT_BYTES or entry.version is None or not entry.version.strong:
            return None
        return self._fetcher.complete_file(File(path, entry))

    def open_write(
        self, path: str, *, create: bool, exclusive: bool = False, truncate: bool = False, append: bool = False
    ) -> Writer:
        """Open a file to change in place; all who do so share what is staged, and see it at once.

        Raises StorageNotFoundError (not create), StorageExistsError (exclusive), StorageIsADirectoryError.
        """
        self.require(Permissions.READWRITE, path)
        shared = self._files.join(path)
        if shared is None:
            staged = self._stage(path, create=create, exclusive=exclusive, truncate=truncate)
            shared = self._files.add(staged)
            if shared is not staged:
                staged.close()
        elif exclusive:
            self._release(shared)
            raise StorageExistsError(f'{self.name}:{path} exists')
        writer = Writer(shared, append=append, commit=self._commit, release=self._release)
        if truncate and writer.size_bytes:
            try:
                writer.truncate(0)
            except BaseException:
                writer.abort()
                raise
        return writer

    def replace(self, path: str, *, exclusive: bool = False) -> Writer:
        """Open a file to write anew in private: nobody sees anything of it before close().

        Raises StorageExistsError (exclusive; at close too), StorageIsADirectoryError.
        """
        self.require(Permissions.READWRITE, path)
        if exclusive and self.find(path).entry is not None:
            raise StorageExistsError(f'{self.name}:{path} exists')
        self._file_or_nothing(path)
        return self._write_privately(path, None, ABSENT if exclusive else None)

    def change(self, path: str, *, create: bool) -> Writer:
        """Likewise, beginning with what is there, which must still be so at close: else StorageConflictError.

        Raises StorageNotFoundError (not create), StorageIsADirectoryError.
        """
        self.require(Permissions.READWRITE, path)
        staged = self._files.find(path)
        if staged is not None:
            self._commit(staged)
        # Anew: to begin with what somebody else has replaced would only end in a conflict.
        entry = self._ask_anew(path).entry
        if entry is None and not create:
            raise StorageNotFoundError(f'{self.name}:{path}: nothing is there')
        if entry is not None and entry.is_directory:
            raise StorageIsADirectoryError(f'{self.name}:{path} is a directory')
        return self._write_privately(path, entry, ABSENT if entry is None else entry.version)

    # Changing names

    def make_directory(self, path: str) -> None:
        """Make one empty directory. Raises StorageExistsError, StorageNotFoundError (no parent)."""
        self.require(Permissions.READWRITE, path)
        if self.find(path).entry is not None:
            raise StorageExistsError(f'{self.name}:{path} exists')
        if not self.stat(paths.parent(path)).is_directory:
            raise StorageNotADirectoryError(f'{self.name}:{paths.parent(path)} is not a directory')
        # Of a store without directories of its own they have no time either.
        mtime_ns = self.clock.time_ns() if self.backend.capabilities.real_directories else 0
        asked = self._entries.asking()
        with self._doubting(path):
            self.backend.make_directory(path)
        self._entries.changed(path, Entry(paths.basename(path), Kind.DIRECTORY, mtime_ns=mtime_ns), asked)

    def remove_file(self, path: str, *, expected: Version | None = None) -> None:
        """Remove a file; handles that have it open go on. Raises StorageNotFoundError, StorageIsADirectoryError.

        With a version, only that one, as far as can be told: raises StorageConflictError.
        """
        self.require(Permissions.DELETE, path)
        with self._files.holding(path) as staged:
            asked = self._entries.asking()
            with self._doubting(path):
                if expected is not None and staged is None and self.backend.stat(path).version != expected:
                    raise StorageConflictError(f'{self.name}:{path} has changed meanwhile, and stays')
                # Of a file under change there need be nothing yet, or no more.
                with suppress(*[StorageNotFoundError] if staged else []):
                    self.backend.remove_file(path)
            if staged is not None:
                self._files.orphan(staged)
            self._entries.changed(path, None, asked)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory.

        Raises StorageNotEmptyError, StorageNotFoundError, StorageNotADirectoryError.
        """
        self.require_removable(path)
        self._refuse_files_below(path)
        asked = self._entries.asking()
        with self._doubting(path):
            self.backend.remove_directory(path)
        self._entries.changed(path, None, asked)

    def rename(self, source: str, target: str) -> None:
        """Move a file or directory to a name in this volume, replacing a file, or an empty directory, that is there.

        Files under change are committed first and stay open under their new name. Raises what commits and the backend
        raise.
        """
        self.require_removable(source)
        self.require_removable(target)
        if source == target:
            return
        if paths.is_within(target, source):
            raise StoragePathError(f'{self.name}:{source} cannot move into itself, to {target!r}')
        with self._files.holding_all(source, target) as files:
            self._refuse_files_below(target)
            moving = [file for file in files if paths.is_within(file.path, source)]
            replaced = [file for file in files if file.path == target]
            for staged in files:
                # What is replaced, only if it is nowhere yet: the backend is to decide whether it may be.
                if staged in moving or staged.expected is ABSENT:
                    self._commit(staged)
            current = [self._is_current(staged) for staged in moving]
            try:
                self.backend.rename(source, target)
            finally:
                self._entries.forget(source)
                self._entries.forget(target)
            for staged in replaced:
                self._files.orphan(staged)
            for staged, rebased in zip(moving, current, strict=True):
                self._follow(staged, target + staged.path.removeprefix(source), rebased=rebased)

    def copy(self, source: str, target: str) -> None:
        """Copy a file inside the backend. Raises StorageUnsupportedError where it cannot."""
        self.require(Permissions.READWRITE, target)
        staged = self._files.find(source)
        if staged is not None:
            self._commit(staged)
        asked = self._entries.asking()
        with self._doubting(target):
            entry = self.backend.copy(source, target)
        self._files.detach(target)
        self._entries.changed(target, entry, asked)

    def set_mtime(self, path: str, mtime_ns: int) -> bool:
        """Keep a modification time, of a file under change with its commit; False where the backend cannot."""
        self.require(Permissions.READWRITE, path)
        if not self.backend.capabilities.stores_mtime:
            return False
        with self._files.holding(path) as staged:
            if staged is not None:
                staged.set_mtime(mtime_ns)
            if staged is None or not staged.dirty:
                current = staged is not None and self._is_current(staged)
                try:
                    self.backend.set_mtime(path, mtime_ns)
                finally:
                    self._entries.doubt(path)
                if staged is not None and current:
                    self._rebase(staged)  # a weak version is made of the time
        return True

    def close(self, timeout_s: float) -> bool:
        """Let work under way end, commit what is still open, and give back connections; whether all of it ended."""
        ended = self.workers.close(timeout_s)
        for staged in self._files.all():
            try:
                self._commit(staged)
            except StorageError:
                log.exception('%s:%s could not be committed at the end', self.name, staged.path)
                self._keep(staged)
        ended = self._fetchers.close(timeout_s) and ended
        self.backend.close()
        return ended

    def require(self, permission: Permissions, path: str = '') -> None:
        """Raise StorageReadOnlyError or StoragePermissionError if the mount's permissions do not include this one."""
        allowed = self.definition.permissions
        if allowed is Permissions.READONLY:
            raise StorageReadOnlyError(f'{self.name}:{path}: the mount is readonly')
        if permission is Permissions.DELETE and allowed is not Permissions.DELETE:
            raise StoragePermissionError(f'{self.name}:{path}: the mount allows no deletion (permissions: readwrite)')

    def require_removable(self, path: str) -> None:
        """Raise if nothing may be deleted here, or this is the root, which stays."""
        self.require(Permissions.DELETE, path)
        if not path:
            raise StoragePermissionError(f'{self.name}: the root of a mount can be neither removed nor renamed')

    # Inside

    def _ask(self, path: str) -> Entry | None:
        try:
            return self.backend.stat(path)
        except (StorageNotFoundError, StorageNotADirectoryError):
            return None

    def _ask_anew(self, path: str) -> Known:
        """What the backend says, whatever is remembered."""
        asked = self._entries.asking()
        entry = self._ask(path)
        return Known(entry, self._entries.learn(path, entry, asked))

    def _file_or_nothing(self, path: str) -> Entry | None:
        entry = self.find(path).entry
        if entry is not None and entry.is_directory:
            raise StorageIsADirectoryError(f'{self.name}:{path} is a directory')
        return entry

    def _file(self, path: str) -> Entry:
        entry = self._file_or_nothing(path)
        if entry is None:
            raise StorageNotFoundError(f'{self.name}:{path}: nothing is there')
        return entry

    def _reader(self, path: str, entry: Entry) -> Reader:
        if self._descriptors is not None:
            return DescriptorReader(self._descriptors.open_descriptor(path))
        if self.backend.capabilities.instant:
            return DirectReader(path, entry, self.backend)
        self._neighbours.opened(path, entry)
        return BlockReader(path, entry, self._fetcher, lambda: self._entries.doubt(path))

    def _open_known(self, path: str) -> tuple[Entry, Reader]:
        if (staged := self._files.join(path)) is not None:
            return _entry_of(staged), StagedReader(staged, self._release)
        entry = self._file(path)
        return entry, self._reader(path, entry)

    def _stage(self, path: str, *, create: bool, exclusive: bool, truncate: bool) -> StagedFile:
        entry = self.find(path).entry
        if entry is not None and not self.backend.capabilities.instant:
            # What somebody else has replaced within the TTL is nothing to begin with: its commit would be refused.
            entry = self._ask_anew(path).entry
        if entry is None and not create:
            raise StorageNotFoundError(f'{self.name}:{path}: nothing is there')
        if entry is not None and exclusive:
            raise StorageExistsError(f'{self.name}:{path} exists')
        if entry is not None and entry.is_directory:
            raise StorageIsADirectoryError(f'{self.name}:{path} is a directory')
        staged = self._staged(path, None if truncate else entry, ABSENT if entry is None else entry.version)
        if exclusive:
            try:
                self._commit(staged, keep_conflict=False)
            except BaseException:
                staged.close()
                raise
        return staged

    def _staged(self, path: str, based_on: Entry | None, expected: Expected) -> StagedFile:
        if based_on is not None:
            base = self._reader(path, based_on)
            return StagedFile(path, self._staging, self.clock, expected, base, based_on.mtime_ns)
        staged = StagedFile(path, self._staging, self.clock, expected, None)
        staged.touch()
        return staged

    def _write_privately(self, path: str, based_on: Entry | None, expected: Expected) -> Writer:
        return Writer(
            self._staged(path, based_on, expected),
            append=False,
            commit=lambda staged: self._commit(staged, keep_conflict=False),
            release=lambda staged: staged.close(),
        )

    def _commit(self, staged: StagedFile, *, keep_conflict: bool = True) -> None:
        with staged.lock:
            asked = self._entries.asking()
            try:
                entry = self._uploader.commit(staged, keep_conflict=keep_conflict)
                if entry is not None:
                    entry = self._with_mtime(staged, entry)
            except WouldBlock:
                raise
            except BaseException as error:
                staged.failed = True
                self._entries.doubt(staged.path)
                if isinstance(error, StorageConflictError) and not staged.dirty:
                    # Kept beside the winner, which is what everybody else sees from now on.
                    self._files.withdraw(staged)
                raise
            staged.failed = False
            if entry is not None:
                staged.mtime_ns = entry.mtime_ns  # what everybody sees once the last handle is gone, they see now
                self._files.detach(staged.path, unless=staged)
                self._entries.changed(staged.path, entry, asked)

    def _with_mtime(self, staged: StagedFile, entry: Entry) -> Entry:
        """The entry of what was committed, once it has the time that somebody set."""
        if not (staged.keeps_mtime and self.backend.capabilities.stores_mtime):
            return entry
        self.backend.set_mtime(staged.path, staged.mtime_ns)
        if entry.version is not None and entry.version.strong:
            return msgspec.structs.replace(entry, mtime_ns=staged.mtime_ns)
        entry = self.backend.stat(staged.path)  # a weak version is made of the time
        staged.expected = entry.version
        return entry

    def _release(self, staged: StagedFile) -> None:
        if self._files.leave(staged):
            if staged.dirty and staged.failed and not staged.orphaned:
                self._keep(staged)
            staged.close()

    def _keep(self, staged: StagedFile) -> None:
        """Save bytes whose commit failed, under a name of their own, and say where. Never raises."""
        try:
            kept = staged.keep()
        except StorageError:
            log.exception('%s:%s is not committed, and what was written could not be kept', self.name, staged.path)
        else:
            log.error('%s:%s is not committed; what was written is kept in %s', self.name, staged.path, kept)

    def _is_current(self, staged: StagedFile) -> bool:
        """Whether a file under change is based on what is there; if not, its next commit must find that out."""
        return self.backend.stat(staged.path).version == staged.expected

    def _follow(self, staged: StagedFile, path: str, *, rebased: bool) -> None:
        """A file under change has moved; if it was current, its base is what the move made of that."""
        self._files.move(staged, path)
        # If nobody can say now, the next commit will find out.
        with suppress(StorageError):
            if rebased:
                self._rebase(staged)

    def _rebase(self, staged: StagedFile) -> None:
        entry = self.backend.stat(staged.path)
        staged.rebase(entry.version, self._reader(staged.path, entry))

    def _refuse_files_below(self, directory: str) -> None:
        # They may be nowhere yet but here, so that the backend finds the directory empty.
        if self._files.are_below(directory):
            raise StorageNotEmptyError(f'{self.name}:{directory} is not empty: a file in it is open')

    @contextmanager
    def _doubting(self, path: str) -> Iterator[None]:
        """What fails on the way to a change may have changed something, or shows that what we believed was wrong."""
        try:
            yield
        except StorageError:
            self._entries.doubt(path)
            raise


def _entry_of(staged: StagedFile) -> Entry:
    return Entry(paths.basename(staged.path), Kind.FILE, staged.size_bytes, staged.mtime_ns)
