"""A volume: one live mount. Joins entries, reading and writing over one backend.

Owns what the mount's definition promises (permissions, TTL) and which write handles share a staged file, so that
everybody in this process sees a file under change as it is. Does not know inodes, nor nodes.

Threads: safe. ``_lock`` guards the table of files under change and is never held across I/O; a staged file's own lock
may be, and is taken before it (docs/concurrency.md).
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend, Expected
from genro_storage.cache.blocks import BlockCache
from genro_storage.cache.entries import EntryCache, Known
from genro_storage.config import Definition, Permissions
from genro_storage.entry import Entry, Kind, Usage
from genro_storage.errors import (
    StorageError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageReadOnlyError,
)
from genro_storage.reading.fetcher import Fetcher
from genro_storage.reading.reader import BlockReader, DirectReader, Reader
from genro_storage.runtime import Clock, WorkerPool, about_to_block
from genro_storage.writing.staging import StagedFile
from genro_storage.writing.uploader import Uploader
from genro_storage.writing.writer import Writer

log = logging.getLogger(__name__)

#: Requests of one mount that may wait for its backend at a time; more queue, and other mounts do not notice.
WORKERS = 16
#: Ranges in flight: four of 8 MiB keep the memory of a sequential read under 64 MiB and one core busy.
FETCHERS = 4


class Volume:
    """One configured mount, connected when it is first used."""

    def __init__(
        self, definition: Definition, backend: Backend, cache: BlockCache, staging: Path, clock: Clock
    ) -> None:
        self.definition = definition
        self.name = definition.name
        self.backend = backend
        #: For requests that wait for the backend.
        self.workers = WorkerPool(f'{self.name}', WORKERS)
        self._fetchers = WorkerPool(f'{self.name}-fetch', FETCHERS)
        self._fetcher = Fetcher(backend, cache, self._fetchers, definition.timeout_s)
        self._uploader = Uploader(backend, clock)
        self._entries = EntryCache(definition.ttl_s, clock)
        self._staging = staging
        self.clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, StagedFile] = {}  # files under change, by path; guarded by _lock

    def __repr__(self) -> str:
        return f'Volume({self.name!r}, {self.backend.destination!r})'

    # Looking

    def find(self, path: str) -> Known:
        """What is at a path, or that nothing is, and for how long to believe it. Raises what the backend raises."""
        staged = self._under_change(path)
        if staged is not None:
            return Known(_entry_of(staged), 0.0)
        if self.backend.capabilities.instant:
            return Known(self._ask(path), self.definition.ttl_s)
        known = self._entries.find(path)
        if known is None:
            asked = self._entries.asking()
            entry = self._ask(path)
            known = Known(entry, self._entries.learn(path, entry, asked))
        return known

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
        listed = self._entries.list_directory(path)
        if listed is None:
            asked = self._entries.asking()
            entries = list(self.backend.list_directory(path))
            instant = self.backend.capabilities.instant
            listed = entries, self.definition.ttl_s if instant else self._entries.learn_listing(path, entries, asked)
        with self._lock:
            staged = [file for file in self._files.values() if paths.parent(file.path) == path and file.path]
        if not staged:
            return listed
        merged = {entry.name: entry for entry in listed[0]} | {paths.basename(f.path): _entry_of(f) for f in staged}
        return list(merged.values()), 0.0

    def usage(self) -> Usage | None:
        """Room left, where anybody knows."""
        return self.backend.usage()

    # Reading and writing

    def open_read(self, path: str) -> Reader:
        """Open a file to read. Raises StorageNotFoundError, StorageIsADirectoryError."""
        if (writer := self._join_writers(path, append=False)) is not None:
            return writer
        return self._reader(path, self._file(path))

    def open_write(
        self, path: str, *, create: bool, exclusive: bool = False, truncate: bool = False, append: bool = False
    ) -> Writer:
        """Open a file to change in place; all who do so share what is staged, and see it at once.

        Raises StorageNotFoundError (not create), StorageExistsError (exclusive), StorageIsADirectoryError.
        """
        self.require(Permissions.READWRITE, path)
        writer = self._join_writers(path, append=append)
        if writer is not None and exclusive:
            writer.abort()
            raise StorageExistsError(f'{self.name}:{path} exists')
        if writer is None:
            staged = self._stage(path, create=create, exclusive=exclusive, truncate=truncate)
            with self._lock:
                shared = self._files.setdefault(path, staged)
                shared.handles += 1
            if shared is not staged:
                staged.close()
            writer = self._writer(shared, append=append)
        if truncate and writer.size_bytes:
            try:
                writer.truncate(0)
            except BaseException:
                writer.abort()
                raise
        return writer

    def replace(self, path: str, *, expected: Expected, based_on: Entry | None = None) -> Writer:
        """Open a file to write anew (or, based_on, to change) in private: nobody sees anything before close()."""
        self.require(Permissions.READWRITE, path)
        base = self._reader(path, based_on) if based_on is not None else None
        staged = StagedFile(path, self._staging, self.clock, expected, base)
        staged.touch()
        return Writer(
            staged,
            append=False,
            commit=lambda staged: self._commit(staged, keep_conflict=False),
            release=lambda staged, _: staged.close(),
        )

    # Changing names

    def make_directory(self, path: str) -> None:
        """Make one empty directory. Raises StorageExistsError, StorageNotFoundError (no parent)."""
        self.require(Permissions.READWRITE, path)
        if self.find(path).entry is not None:
            raise StorageExistsError(f'{self.name}:{path} exists')
        if not self.stat(paths.parent(path)).is_directory:
            raise StorageNotADirectoryError(f'{self.name}:{paths.parent(path)} is not a directory')
        self.backend.make_directory(path)
        self._entries.changed(path, Entry(paths.basename(path), Kind.DIRECTORY, mtime_ns=self.clock.time_ns()))

    def remove_file(self, path: str) -> None:
        """Remove a file; handles that have it open go on. Raises StorageNotFoundError, StorageIsADirectoryError."""
        self.require(Permissions.DELETE, path)
        staged = self._under_change(path)
        with ExitStack() as stack:
            if staged is not None:
                stack.enter_context(staged.lock)
            if staged is None or staged.expected is not ABSENT:
                self.backend.remove_file(path)
            self._orphan(path)
        self._entries.changed(path, None)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory.

        Raises StorageNotEmptyError, StorageNotFoundError, StorageNotADirectoryError.
        """
        self.require_removable(path)
        self.backend.remove_directory(path)
        self._entries.changed(path, None)

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
        with self._holding_files_below(source) as moving:
            for staged in moving:
                self._commit(staged, keep_conflict=True)
            self.backend.rename(source, target)
            self._orphan(target)
            self._entries.forget(source)
            self._entries.forget(target)
            for staged in moving:
                self._rekey(staged, target + staged.path.removeprefix(source))

    def copy(self, source: str, target: str) -> None:
        """Copy a file inside the backend. Raises StorageUnsupportedError where it cannot."""
        self.require(Permissions.READWRITE, target)
        staged = self._under_change(source)
        if staged is not None:
            self._commit(staged, keep_conflict=True)
        self._entries.changed(target, self.backend.copy(source, target))

    def set_mtime(self, path: str, mtime_ns: int) -> bool:
        """Keep a modification time, of a file under change with its commit; False where the backend cannot."""
        self.require(Permissions.READWRITE, path)
        if not self.backend.capabilities.stores_mtime:
            return False
        staged = self._under_change(path)
        if staged is not None and staged.dirty:
            staged.set_mtime(mtime_ns)
        else:
            self.backend.set_mtime(path, mtime_ns)
            self._entries.forget(path)
        return True

    def close(self, timeout_s: float) -> bool:
        """Let work under way end, commit what is still open, and give back connections; whether all of it ended."""
        ended = self.workers.close(timeout_s)
        with self._lock:
            files = list(self._files.values())
        for staged in files:
            try:
                self._commit(staged, keep_conflict=True)
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

    def _file(self, path: str) -> Entry:
        entry = self.stat(path)
        if entry.is_directory:
            raise StorageIsADirectoryError(f'{self.name}:{path} is a directory')
        return entry

    def _reader(self, path: str, entry: Entry) -> Reader:
        if self.backend.capabilities.instant:
            return DirectReader(path, entry, self.backend)
        return BlockReader(path, entry, self._fetcher)

    def _stage(self, path: str, *, create: bool, exclusive: bool, truncate: bool) -> StagedFile:
        entry = self.find(path).entry
        if entry is None and not create:
            raise StorageNotFoundError(f'{self.name}:{path}: nothing is there')
        if entry is not None and exclusive:
            raise StorageExistsError(f'{self.name}:{path} exists')
        if entry is not None and entry.is_directory:
            raise StorageIsADirectoryError(f'{self.name}:{path} is a directory')
        base = self._reader(path, entry) if entry is not None and not truncate else None
        expected: Expected = ABSENT if entry is None else entry.version
        staged = StagedFile(path, self._staging, self.clock, expected, base)
        if entry is None or truncate:
            staged.touch()
        if exclusive:
            self._commit(staged, keep_conflict=False)
        return staged

    def _under_change(self, path: str) -> StagedFile | None:
        with self._lock:
            return self._files.get(path)

    def _join_writers(self, path: str, *, append: bool) -> Writer | None:
        """A further handle on a file that is under change, if it is."""
        with self._lock:
            staged = self._files.get(path)
            if staged is None:
                return None
            staged.handles += 1
        return self._writer(staged, append=append)

    def _writer(self, staged: StagedFile, *, append: bool) -> Writer:
        return Writer(
            staged,
            append=append,
            commit=lambda staged: self._commit(staged, keep_conflict=True),
            release=self._release,
        )

    def _commit(self, staged: StagedFile, *, keep_conflict: bool) -> None:
        try:
            entry = self._uploader.commit(staged, keep_conflict=keep_conflict)
        except StorageError:
            self._entries.forget(staged.path)
            raise
        if entry is None:
            return
        if staged.keeps_mtime and self.backend.capabilities.stores_mtime:
            self.backend.set_mtime(staged.path, staged.mtime_ns)
            entry = msgspec.structs.replace(entry, mtime_ns=staged.mtime_ns)
        self._entries.changed(staged.path, entry)

    def _release(self, staged: StagedFile, committed: bool) -> None:
        with self._lock:
            staged.handles -= 1
            last = staged.handles == 0
            if last and self._files.get(staged.path) is staged:
                del self._files[staged.path]
        if last:
            if staged.dirty and not committed:
                self._keep(staged)
            staged.close()

    def _keep(self, staged: StagedFile) -> None:
        """Save bytes whose commit failed, under a name of their own, and say where."""
        kept = self._staging / f'uncommitted-{self.clock.time_ns()}'
        staged.keep_as(kept)
        log.error('%s:%s is not committed; what was written is kept in %s', self.name, staged.path, kept)

    def _orphan(self, path: str) -> None:
        with self._lock:
            if (staged := self._files.pop(path, None)) is not None:
                staged.orphaned = True

    def _rekey(self, staged: StagedFile, path: str) -> None:
        """A file under change has moved; its base is what the move made of it."""
        entry = self.backend.stat(path)
        with self._lock:
            self._files.pop(staged.path, None)
            staged.path = path
            staged.expected = entry.version
            self._files[path] = staged

    @contextmanager
    def _holding_files_below(self, directory: str) -> Iterator[list[StagedFile]]:
        with self._lock:
            files = [file for path, file in self._files.items() if paths.is_within(path, directory)]
        files.sort(key=lambda file: file.path)
        if files:
            about_to_block()
        with ExitStack() as stack:
            for file in files:
                stack.enter_context(file.lock)
            yield files


def _entry_of(staged: StagedFile) -> Entry:
    return Entry(paths.basename(staged.path), Kind.FILE, staged.size_bytes, staged.mtime_ns)
