"""One commit: a snapshot of a file under change becomes the object, and everybody hears of it.

Owns the conflict that it may meet, what may have arrived although nobody said so, and the order in which tables learn
of the outcome. How bytes get there is the uploader's. Threads: safe; the caller keeps other commits of a file away.
"""

import time
from collections.abc import Callable, Mapping

import msgspec

from genro_storage import paths, posix_format
from genro_storage.backends.base import Backend, Expected, StoresMetadata
from genro_storage.cache.entries import Asked, EntryCache
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNoSpaceError,
    StorageNotADirectoryError,
    StoragePermissionError,
    StorageReadOnlyError,
    StorageThrottledError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock, WouldBlock, jitter_s
from genro_storage.writing.acknowledgements import Acknowledgements
from genro_storage.writing.shared import SharedFiles
from genro_storage.writing.snapshot import Snapshot
from genro_storage.writing.staging import StagedFile
from genro_storage.writing.stream import Stream
from genro_storage.writing.uploader import Uploader

#: A commit whose connection breaks is tried so often; the pauses are those of jitter_s.
TRIES = 4
FIRST_PAUSE_S = 0.4
#: What a backend says of a commit that has certainly not arrived.
REFUSALS = (
    StorageIsADirectoryError,
    StorageNoSpaceError,
    StorageNotADirectoryError,
    StoragePermissionError,
    StorageReadOnlyError,
    StorageThrottledError,
    StorageUnsupportedError,
)


class Committer:
    """Commits of one mount, each by itself."""

    def __init__(
        self,
        backend: Backend,
        files: SharedFiles,
        entries: EntryCache,
        acknowledgements: Acknowledgements,
        uploader: Uploader,
        clock: Clock,
        timeout_s: float,
        open_base: Callable[[str, Entry], Reader],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """open_base: a reader of a version that is there."""
        self._backend = backend
        self._files = files
        self._entries = entries
        self._acknowledgements = acknowledgements
        self._uploader = uploader
        self._clock = clock
        self._timeout_s = timeout_s
        self._open_base = open_base
        self._pause = pause

    def commit(self, staged: StagedFile, snapshot: Snapshot, *, keep_conflict: bool) -> None:
        """Store a snapshot of a file and tell everybody. The caller holds ``committing``.

        Raises what the backend raises; StorageConflictError or StorageExistsError if something else has appeared at
        the path meanwhile. With keep_conflict the snapshot is then stored beside it first, and the error says where.
        """
        progress = staged.progress
        if progress.after is not None:
            with progress.after:
                progress.after = None
        if (noted := progress.noted(snapshot)) is not None:
            noted.begun = True
        asked = self._entries.asking()
        placed = self._is_placed(staged.path, snapshot.expected)
        stream, progress.stream = progress.stream, None
        with staged.lock:
            staged.watch = None
        try:
            entry = self._store_patiently(staged, snapshot, placed=placed, stream=stream)
            entry = self._with_mtime(snapshot, self._described(snapshot, entry))
        except WouldBlock:
            raise
        except (StorageConflictError, StorageExistsError) as error:
            self._failed(staged, error)
            if not keep_conflict:
                raise
            raise self._kept_beside(staged, snapshot, error) from error
        except BaseException as error:
            progress.doubtful = progress.doubtful or not isinstance(error, REFUSALS)
            self._failed(staged, error)
            raise
        self._settle(staged, snapshot, entry, asked)

    # Inside

    def _store_patiently(self, staged: StagedFile, snapshot: Snapshot, *, placed: bool, stream: Stream | None) -> Entry:
        """Store a snapshot; again if the connection broke, because what has arrived then is recognised."""
        deadline = self._clock.monotonic() + self._timeout_s
        tries = 0
        while True:
            try:
                return self._store(staged, snapshot, placed=placed, stream=stream)
            except StorageThrottledError:
                raise  # that patience the backend has
            except StorageUnavailableError:
                staged.progress.doubtful = True
                tries += 1
                pause_s = jitter_s(FIRST_PAUSE_S, tries)
                if tries >= TRIES or self._clock.monotonic() + pause_s > deadline:
                    raise
            self._pause(pause_s)

    def _store(self, staged: StagedFile, snapshot: Snapshot, *, placed: bool, stream: Stream | None) -> Entry:
        progress = staged.progress
        try:
            return self._uploader.store(snapshot, placed=placed, stream=stream)
        except (StorageConflictError, StorageExistsError):
            candidates = [snapshot] * progress.doubtful + [earlier.snapshot for earlier in progress.evidence]
            found = self._uploader.recognise(staged.path, candidates) if candidates else None
            if found is None:
                raise
        entry, arrived = found
        if arrived is snapshot:
            return entry
        # An earlier content of this very file had arrived, without our knowing.
        snapshot.expected = entry.version
        return self._uploader.store(snapshot, placed=True)

    def _kept_beside(self, staged: StagedFile, snapshot: Snapshot, error: StorageError) -> StorageConflictError:
        """Keep what lost a conflict; the error that says where. Raises what prevents that: it is still dirty then."""
        # Of the time at which it was acknowledged, so that a process which comes after this one keeps it only once.
        noted = staged.progress.noted(snapshot)
        time_ns = self._clock.time_ns() if noted is None else noted.held.intent.time_ns
        kept = self._uploader.store_beside(snapshot, time_ns)
        with staged.lock:
            done = self._acknowledgements.take_off(staged)
            staged.committed(snapshot, None, None)
            staged.progress.failure = None
            # What won is what everybody else sees from now on.
            self._files.withdraw(staged)
        self._acknowledgements.drop(done)
        self._entries.doubt(kept)
        return StorageConflictError(f'{error}; what was written here is kept as {kept!r}')

    def _settle(self, staged: StagedFile, snapshot: Snapshot, entry: Entry, asked: Asked) -> None:
        told = self._backend.capabilities.is_timed(entry)
        self._files.detach(staged.path, unless=staged)
        self._learn_parent(staged.path, asked)
        with staged.lock:
            staged.committed(snapshot, entry.version, lambda: self._open_base(staged.path, entry))
            if not staged.dirty and told:
                staged.mtime_ns = entry.modified_ns  # what everybody sees once the last handle is gone, they see now
            progress = staged.progress
            # Before the file goes from the table, so that everybody always sees it in the one or the other. What was
            # acknowledged everybody has heard of then, and a kernel that is told holds locks meanwhile.
            is_noted = progress.noted(snapshot) is not None
            self._entries.changed(staged.path, entry, asked, timed=told, told=is_noted)
            progress.failure, progress.doubtful = None, False
            progress.untold = None
            latest = progress.latest
            if latest is None or latest.snapshot.sequence <= snapshot.sequence:
                done = self._acknowledgements.take_off(staged)
                self._files.settle(staged)
            else:
                # Acknowledged meanwhile: it is based on what was stored now, and durably so.
                done = self._acknowledgements.rebase(staged)
        self._acknowledgements.drop(done)

    def _failed(self, staged: StagedFile, error: BaseException) -> None:
        staged.progress.failure = error
        self._entries.doubt(staged.path)

    def _described(self, snapshot: Snapshot, entry: Entry) -> Entry:
        """The entry of what was committed, once it has the metadata that it is to have.

        An upload in parts has those that it began with, and what has arrived earlier those of that time.
        """
        wanted, there = snapshot.metadata, entry.metadata
        if wanted is None or there is None:
            return entry
        if there == wanted or (not snapshot.keeps_mtime and _are_alike(there, wanted)):
            return entry
        assert isinstance(self._backend, StoresMetadata)  # noqa: S101 - or there would be no metadata
        return self._backend.set_metadata(snapshot.path, wanted, expected=entry.version)

    def _with_mtime(self, snapshot: Snapshot, entry: Entry) -> Entry:
        """The entry of what was committed, once it has the time that somebody set."""
        if not (snapshot.keeps_mtime and self._backend.capabilities.stores_mtime):
            return entry
        self._backend.set_mtime(snapshot.path, snapshot.mtime_ns)
        if entry.version is not None and entry.version.strong:
            return msgspec.structs.replace(entry, mtime_ns=snapshot.mtime_ns)
        return self._backend.stat(snapshot.path)  # a weak version is made of the time

    def _is_placed(self, path: str, expected: Expected) -> bool:
        """Whether it is known that no directory is at a path and that one is above it."""
        if isinstance(expected, Version) and expected.strong:
            return True  # if it is not so any more, the condition says so
        above, there = self._entries.find(paths.parent(path)), self._entries.find(path)
        if there is None or (there.entry is not None and there.entry.is_directory):
            return False
        return not paths.parent(path) or (above is not None and above.entry is not None and above.entry.is_directory)

    def _learn_parent(self, path: str, asked: Asked) -> None:
        """Where directories have no attributes of their own, what was put has shown that there is one above it."""
        parent = paths.parent(path)
        if parent and not self._backend.capabilities.real_directories:
            known = self._entries.find(parent)
            if known is None or known.entry is None or known.entry.attributes is None:
                self._entries.learn(parent, Entry(paths.basename(parent), Kind.DIRECTORY), asked)


def _are_alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """But for times that nobody has set."""
    return posix_format.without_times(one) == posix_format.without_times(other)
