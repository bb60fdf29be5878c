"""What is kept of a file beside its bytes, and what of it a mount shows: modes, owners, times, the types of files.

Owns what ``posix`` of a definition means: what is believed of the metadata that are stored, what of a change is stored,
and that it goes with the commit of a file under change, or at once. Their form is posix_format's.

Threads: safe; has no lock of its own. A file under change is kept from being committed meanwhile (docs/concurrency.md).
"""

import logging
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
from cachetools import LRUCache

from genro_storage import paths, posix_format
from genro_storage.backends.base import Backend, StoresMetadata
from genro_storage.cache.entries import EntryCache
from genro_storage.config import Definition, Posix
from genro_storage.entry import Attributes, Entry, Kind, Version
from genro_storage.errors import StorageConflictError, StorageNotFoundError, StorageUnsupportedError
from genro_storage.runtime import Clock
from genro_storage.writing.acknowledgements import Acknowledgements
from genro_storage.writing.commits import Commits
from genro_storage.writing.shared import SharedFiles
from genro_storage.writing.staging import StagedFile

log = logging.getLogger(__name__)

#: Whoever replaces a file all the time meets us once; of three in a row something else is wrong.
TRIES = 3
#: Versions whose successors have the same bytes, and whose readers may still be open.
SUCCESSORS_MAX = 1024

Change = Callable[[Mapping[str, str]], Mapping[str, str]]

_FILE = {0, stat.S_IFREG, stat.S_IFDIR}


class Descriptions:
    """Those of one mount."""

    def __init__(
        self,
        definition: Definition,
        backend: Backend,
        files: SharedFiles,
        entries: EntryCache,
        commits: Commits,
        acknowledgements: Acknowledgements,
        clock: Clock,
    ) -> None:
        self._backend = backend
        self._files = files
        self._entries = entries
        self._commits = commits
        self._acknowledgements = acknowledgements
        self._clock = clock
        self._name = definition.name
        storer = backend if isinstance(backend, StoresMetadata) and backend.capabilities.stores_metadata else None
        self._storer = storer
        #: Whether modes, owners, times and types are stored and shown; otherwise times of files alone.
        self.are_complete = definition.posix is Posix.STORE and storer is not None
        if definition.posix is Posix.STORE and storer is None:
            log.warning('%s: posix: store, but there is no place for it in what keeps no metadata', self._name)
        self._has_own_times = backend.capabilities.stores_mtime
        #: Of what is written, set by somebody or not. A server's own time is in whole seconds on S3, and of the upload.
        self.stored_times: Sequence[str] = ()
        if self.are_complete:
            self.stored_times = 'mtime_ns', 'ctime_ns'
        elif storer is not None and not self._has_own_times:
            self.stored_times = ('mtime_ns',)
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._lock = threading.Lock()
        self._successors: LRUCache[tuple[str, Version], Version] = LRUCache(SUCCESSORS_MAX)  # guarded by _lock

    # Looking

    def shown(self, entry: Entry) -> Entry:
        """An entry of the backend, with what this mount believes of its attributes."""
        attributes = entry.attributes
        if attributes is None:
            return entry
        if not self.are_complete:
            # What a file system has a place for, no metadata say better.
            mtime_ns = None if self._has_own_times else attributes.mtime_ns
            believed = None if mtime_ns is None or entry.is_directory else Attributes(mtime_ns=mtime_ns)
            return msgspec.structs.replace(entry, attributes=believed)
        if entry.is_file and stat.S_IFMT(attributes.mode or 0) not in _FILE:
            return msgspec.structs.replace(entry, kind=Kind.OTHER)
        return entry

    def of_staged(self, staged: StagedFile) -> Entry:
        """A file under change, as everybody here sees it."""
        entry = Entry(paths.basename(staged.path), Kind.FILE, staged.size_bytes, staged.mtime_ns)
        if not self.are_complete:
            return entry
        stored = posix_format.attributes_of(staged.metadata or {})
        times = Attributes(mtime_ns=staged.mtime_ns, ctime_ns=staged.ctime_ns)
        return msgspec.structs.replace(entry, attributes=stored.changed(times))

    def complete(self, path: str, entry: Entry) -> Entry | None:
        """An entry with its attributes, if they are to be shown; None if it has gone."""
        if not self.are_complete or entry.attributes is not None or not path:
            return entry
        assert self._storer is not None  # noqa: S101 - they are complete
        asked = self._entries.asking()
        told = self._storer.tell_attributes(paths.parent(path), [entry])
        found = told[0] if told else None
        self._entries.learn(path, found, asked)
        return found

    # Changing

    def of_new(self, attributes: Attributes | None, there: Entry | None) -> Mapping[str, str] | None:
        """The metadata of a file that is about to be made, or rewritten; None where none is stored."""
        if self._storer is None:
            return None
        if there is not None and there.metadata is not None:
            return there.metadata
        if not self.are_complete:
            return {}
        if there is not None and there.attributes is not None:
            return posix_format.metadata_of(there.attributes)
        return posix_format.metadata_of(attributes or posix_format.NOTHING)

    def change(self, path: str, changes: Attributes) -> bool:
        """Keep attributes of a file or directory; whether this mount does. Raises what the backend raises.

        Those of a file under change go with its commit.
        """
        if not self.are_complete:
            return changes.mtime_ns is not None and self._keep_mtime(path, changes.mtime_ns)
        self._keep(path, changes.changed(Attributes(ctime_ns=self._clock.time_ns())))
        return True

    def metadata(self, path: str, entry: Entry) -> Mapping[str, str]:
        """The user metadata of what is at a path, of a file under change as its commit will store them.

        Raises StorageUnsupportedError where the backend stores none, and what it raises.
        """
        storer = self._require_storer(path)
        staged = self._files.find(path)
        if staged is not None:
            return staged.metadata or {}
        if entry.metadata is not None:
            return entry.metadata
        if not path:
            return storer.metadata(path)
        told = storer.tell_attributes(paths.parent(path), [entry])  # one request, where metadata() would look first
        if not told:
            self._entries.doubt(path)
            raise StorageNotFoundError(f'{paths.shown(self._name, path)} has gone')
        return told[0].metadata or {}

    def change_metadata(self, path: str, change: Change) -> None:
        """Store what a function makes of the user metadata; of a file under change that goes with its commit.

        Raises StorageUnsupportedError as metadata(), and what the function and the backend raise. The function may be
        called again, with what somebody else has made of them meanwhile.
        """
        self._require_storer(path)
        stored: Mapping[str, str] = {}

        def noted(metadata: Mapping[str, str]) -> Mapping[str, str]:
            nonlocal stored
            stored = change(metadata)
            return stored

        with self._files.holding(path) as staged:
            if staged is not None and staged.dirty:
                with staged.lock:
                    staged.metadata = change(staged.metadata or {})
                    self._acknowledgements.relabel(staged)
                return
            self._rewrite(path, noted, staged, files_only=False)
            if staged is not None:
                with staged.lock:
                    staged.metadata = stored

    def successor(self, path: str, version: Version) -> Version | None:
        """The last version with the same bytes that came by changes of metadata, if there is one."""
        found = None
        with self._lock:
            passed = {version}  # one that was stored again has been a successor before
            while (after := self._successors.get((path, found or version))) is not None and after not in passed:
                passed.add(after)
                found = after
        return found

    # Inside

    def _keep_mtime(self, path: str, mtime_ns: int) -> bool:
        if self._has_own_times:
            self._set_mtime(path, mtime_ns)
            return True
        if self._storer is None or self._entries.is_directory(path):
            return False
        return self._keep(path, Attributes(mtime_ns=mtime_ns), files_only=True)

    def _set_mtime(self, path: str, mtime_ns: int) -> None:
        with self._files.holding(path) as staged:
            if staged is not None:
                staged.set_mtime(mtime_ns)
            if staged is None or not staged.dirty:
                current = staged is not None and self._commits.is_current(staged)
                try:
                    self._backend.set_mtime(path, mtime_ns)
                finally:
                    self._entries.doubt(path)
                if staged is not None and current:
                    self._commits.rebase(staged)  # a weak version is made of the time

    def _keep(self, path: str, changes: Attributes, *, files_only: bool = False) -> bool:
        with self._files.holding(path) as staged:
            if staged is not None and staged.dirty:
                with staged.lock:
                    staged.describe(changes)
                    self._acknowledgements.describe(staged, changes)
                self._entries.tell(path)
                return True
            change = partial(posix_format.changed, changes=changes)
            is_kept = self._rewrite(path, change, staged, files_only=files_only)
            if is_kept and staged is not None:
                staged.describe(changes)
            return is_kept

    def _require_storer(self, path: str) -> StoresMetadata:
        if self._storer is None:
            raise StorageUnsupportedError(f'{paths.shown(self._name, path)}: no metadata are stored there')
        return self._storer

    def _rewrite(self, path: str, change: Change, staged: StagedFile | None, *, files_only: bool) -> bool:
        """Change the metadata of what is there."""
        assert self._storer is not None  # noqa: S101 - who calls has seen it
        tries = 0
        while True:
            tries += 1
            asked = self._entries.asking()
            there = self._backend.stat(path)
            if files_only and there.is_directory:
                return False
            metadata = self._storer.metadata(path) if there.metadata is None else there.metadata
            if there.is_file and there.mtime_ns and not self._has_own_times:
                # The server's own time is that of this rewrite from now on, and the bytes are older.
                metadata = {**posix_format.metadata_of(Attributes(mtime_ns=there.mtime_ns)), **metadata}
            try:
                entry = self._storer.set_metadata(path, change(metadata), expected=there.version)
            except StorageConflictError:
                if tries == TRIES:
                    raise
            except BaseException:
                self._entries.doubt(path)
                raise
            else:
                break
        timed = entry.is_directory or self._backend.capabilities.is_timed(entry)
        self._entries.changed(path, entry, asked, timed=timed)
        if there.version is not None and entry.version is not None and there.version != entry.version:
            with self._lock:
                self._successors[path, there.version] = entry.version
        if staged is not None and staged.expected == there.version:
            self._commits.rebase(staged)
        return True
