"""When a file under change is committed, acknowledged or parked, and what everybody is told of it.

Owns what close and fsync mean under each durability, the conflict that a commit meets, and what becomes of data whose
close failed. How bytes get there is the uploader's, when to try again is the writeback's, and that a promise outlives
this process is the journal's.

Threads: safe; has no lock of its own. The order: StagedFile.committing, held across I/O by whoever commits, renames or
removes a file; StagedFile.lock; then the tables (docs/concurrency.md).
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Literal

import msgspec

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend, Expected
from genro_storage.cache.entries import Asked, EntryCache
from genro_storage.config import Definition
from genro_storage.config.definitions import Durability
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
from genro_storage.runtime import Clock, WorkerPool, WouldBlock, about_to_block
from genro_storage.writing.journal import Held, Journal
from genro_storage.writing.journal_records import Intent, new_id
from genro_storage.writing.progress import Acknowledged
from genro_storage.writing.shared import SharedFiles
from genro_storage.writing.snapshot import Snapshot
from genro_storage.writing.staging import StagedFile
from genro_storage.writing.stream import PARTS_AT_ONCE, Stream
from genro_storage.writing.uploader import Uploader, Uploads
from genro_storage.writing.writeback import Writeback
from genro_storage.writing.writer import StagedReader

log = logging.getLogger(__name__)

#: Files of one mount whose parts are sent ahead of their commits at a time; more wait for room.
STREAMS = 4
#: Uploads of one file that may have arrived without our knowing; of more than so many the oldest is forgotten.
EVIDENCE_MAX = 4
#: A commit whose connection breaks is tried so often, after pauses of half of this on average, and then twice as long.
TRIES = 4
FIRST_PAUSE_S = 0.2
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


class Commits:
    """How files under change of one mount become objects."""

    def __init__(
        self,
        definition: Definition,
        backend: Backend,
        files: SharedFiles,
        entries: EntryCache,
        journal: Journal | None,
        clock: Clock,
        open_base: Callable[[str, Entry], Reader],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """journal: None where nothing outlives this process anyway. open_base: a reader of a version that is there."""
        self._name = definition.name
        self._backend = backend
        self._files = files
        self._entries = entries
        self._journal = journal
        self._clock = clock
        self._open_base = open_base
        self._pause = pause
        #: Told of each file that is parked. Until somebody is to be told, nobody is.
        self.on_parked: Callable[[Held], None] = lambda held: None
        self._timeout_s = definition.timeout_s
        self._is_writeback = definition.durability is Durability.WRITEBACK and journal is not None
        self._workers = WorkerPool(f'{self._name}-parts', PARTS_AT_ONCE * STREAMS)
        self._uploads = Uploads(self._name, backend, journal, clock)
        self._uploader = Uploader(backend, clock, self._uploads, self._workers)
        self.writeback: Writeback[StagedFile] = Writeback(self._name, self.upload, clock, definition.writeback_delay_s)

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._workers.after_fork()
        self.writeback.after_fork()

    def watch(self, staged: StagedFile) -> None:
        """Send a new file while it is written, if it is written front to back and its close is to wait for that."""
        if self._uploads.are_possible and not self._is_writeback:
            staged.progress.stream = Stream(staged.path, self._uploads, staged.snapshot, self._workers)
            staged.watch = staged.progress.stream

    # What programs ask for

    def flush(self, staged: StagedFile, *, keep_conflict: bool = True) -> None:
        """What close() promises: that a file is committed or, with writeback, durable here. Raises what prevents it."""
        if self._is_writeback:
            self.acknowledge(staged)
        else:
            self.commit(staged, keep_conflict=keep_conflict)

    def commit(self, staged: StagedFile, *, keep_conflict: bool = True) -> None:
        """What fsync() promises: that a file is committed as it is now. Raises what prevents it.

        StorageConflictError or StorageExistsError if something else has appeared at the path meanwhile; with
        keep_conflict what was written is then stored beside it first, and the error says where.
        """
        if not staged.dirty and staged.progress.untold is None:
            return
        if not self._backend.capabilities.instant:
            about_to_block()
        with staged.committing:
            with staged.lock:
                staged.progress.untold = None  # what comes now says it anew
                if not staged.dirty or staged.orphaned:
                    return
                latest = staged.progress.latest
                is_noted = latest is not None and latest.snapshot.sequence == staged.changes
                snapshot = latest.snapshot if latest is not None and is_noted else staged.snapshot()
            try:
                self._commit(staged, snapshot, keep_conflict=keep_conflict)
            finally:
                if not is_noted:
                    snapshot.close()

    def acknowledge(self, staged: StagedFile) -> None:
        """Make what was written durable here, to be uploaded later.

        Raises StorageNoSpaceError, StorageIOError; and what the last upload has met, once: the data are safe then too.
        """
        if not staged.dirty and staged.progress.untold is None:
            return
        about_to_block()
        with staged.lock:
            if staged.orphaned:
                return
            progress = staged.progress
            if staged.dirty and (progress.latest is None or progress.latest.snapshot.sequence != staged.changes):
                self._acknowledge(staged)
                self._enqueue(staged)
            untold, progress.untold = progress.untold, None
        if untold is not None:
            raise untold

    def open_reader(self, path: str) -> StagedReader | None:
        """A handle that reads the file under change at a path, if there is one."""
        joined = self._files.join_reading(path)
        if joined is None:
            return None
        staged, is_written = joined
        reader = StagedReader(staged, sync=self.commit, release=self._release_reader)
        if is_written:
            self._files.add_reader(staged, reader)
        else:
            reader.freeze()
        return reader

    def _release_reader(self, reader: StagedReader) -> None:
        self._files.remove_reader(reader.staged, reader)
        self._leave(reader.staged)

    def release(self, staged: StagedFile) -> None:
        """A handle that writes is given back."""
        if self._files.are_left_by(staged):
            # Who has it open to read keeps what it is now, should somebody open it to write again.
            for reader in staged.readers:
                reader.freeze()
        self._files.stop_writing(staged)
        self._leave(staged)

    def _leave(self, staged: StagedFile) -> None:
        """A handle is given back. What a failed commit has left behind the last one is parked."""
        if self._files.leave(staged):
            if staged.dirty and staged.progress.failure is not None and not staged.orphaned:
                self.park(staged)
            self._close(staged)

    def flush_private(self, staged: StagedFile) -> None:
        """What close() of a file that was written in private promises: all of it is seen at its path, or nothing.

        Raises what prevents that: StorageConflictError, StorageExistsError, and what flush raises.
        """
        # That something is made by us alone only the backend can say.
        if self._is_writeback and staged.expected is not ABSENT:
            self._publish(staged)
        else:
            self.commit(staged, keep_conflict=False)

    def release_private(self, staged: StagedFile) -> None:
        """Its one handle is given back."""
        if staged.waiting:
            return  # it is shown at its path, and closed when it is uploaded
        if staged.dirty and staged.progress.failure is not None and is_worth_parking(staged.progress.failure):
            self.park(staged)
        self._close(staged)

    def upload(self, staged: StagedFile) -> None:
        """Upload what was acknowledged of a file. For the writeback: raises what is worth another try."""
        with staged.committing:
            with staged.lock:
                latest = staged.progress.latest
            if latest is None or staged.orphaned:
                return
            try:
                self._commit(staged, latest.snapshot, keep_conflict=True)
            except StorageConflictError as error:
                if staged.progress.latest is latest:  # it could not even be kept beside
                    self._note_failure(staged, latest.held, error)
                    raise
                log.error('%s:%s: %s', self._name, staged.path, error)
                staged.progress.untold = error
            except StorageError as error:
                self._note_failure(staged, latest.held, error)
                raise
        self._close_if_settled(staged)

    # What the volume asks for

    def forget(self, staged: StagedFile) -> None:
        """Nothing of a file is to be uploaded any more: it was removed or replaced. Its handles go on."""
        self._files.orphan(staged)
        with staged.lock:
            progress = staged.progress
            done = [*progress.evidence, *([progress.latest] if progress.latest is not None else [])]
            progress.latest, progress.evidence = None, []
            stream, progress.stream, staged.watch = progress.stream, None, None
        self._drop(done)
        if stream is not None:
            stream.abort()
        if self._files.is_unused(staged):
            self._close(staged)

    @contextmanager
    def removing(self, staged: StagedFile) -> Iterator[None]:
        """Note that a file goes while it does: a crash leaves what was acknowledged of it, or nothing.

        The caller keeps it from being committed, and removes it from the backend inside. Raises what the journal does.
        """
        with staged.lock:
            latest = staged.progress.latest
            intent = None
            is_stored = staged.expected is not ABSENT or staged.progress.may_have_arrived
            if latest is not None and self._journal is not None and is_stored:
                names = (latest.held.intent.id, *(earlier.held.intent.id for earlier in staged.progress.evidence))
                intent = self._intent(latest.snapshot, kind='remove', after=names)
        held = self._journal.add(intent) if intent is not None and self._journal is not None else None
        try:
            yield
            self.forget(staged)
        finally:
            if held is not None and self._journal is not None:
                self._journal.drop(held)

    def park(self, staged: StagedFile) -> None:
        """Save bytes whose commit failed in the journal, and say so. Never raises."""
        try:
            with staged.lock:
                latest = staged.progress.latest
                if latest is not None and latest.snapshot.sequence == staged.changes:
                    return  # it is in the journal, and goes on from there
                if self._journal is None:
                    log.error('%s:%s is not committed, and lost with this mount', self._name, staged.path)
                    return
                with closing(staged.snapshot()) as snapshot:
                    held = self._journal.add(self._intent(snapshot, parked=True), snapshot)
            if staged.progress.failure is not None:
                self._journal.failed(held, staged.progress.failure)
            self.on_parked(held)
        except StorageError:
            log.exception('%s:%s is not committed, and what was written could not be kept', self._name, staged.path)
        else:
            log.error(
                '%s:%s is not committed; what was written is kept as %s in %s (genro-storage status; genro-storage '
                'sync --retry tries again)',
                self._name,
                staged.path,
                held.intent.id,
                held.folder.path,
            )

    def commit_all(self, files: Iterable[StagedFile]) -> None:
        """Commit files, several at a time; raises the first failure once all were tried."""
        failures: list[StorageError] = []

        def commit(staged: StagedFile) -> None:
            try:
                self.commit(staged)
            except StorageError as error:
                failures.append(error)
                with staged.lock:
                    latest = staged.progress.latest
                if latest is not None:
                    self._note_failure(staged, latest.held, error)
            else:
                self._close_if_settled(staged)

        about_to_block()
        pool = WorkerPool(f'{self._name}-sync', PARTS_AT_ONCE)
        try:
            pool.each(commit, files, PARTS_AT_ONCE)
        finally:
            pool.close(0)
        if failures:
            raise failures[0]

    def moved(self, staged: StagedFile, path: str) -> None:
        """A file that is nowhere yet but here is to become an object at another path. The caller holds both locks."""
        stream, staged.progress.stream, staged.watch = staged.progress.stream, None, None
        if stream is not None:
            stream.abort()  # it is on its way to the old name
        latest = staged.progress.latest
        if latest is not None and self._journal is not None:
            latest.snapshot.path = path
            latest.snapshot.expected = staged.expected
            intent = self._intent(latest.snapshot, name=latest.held.intent.id)
            latest.held = self._journal.rewrite(latest.held, intent)

    def has_arrived(self, staged: StagedFile) -> bool:
        """Whether what is at the path of a file is this very content."""
        with closing(staged.snapshot()) as snapshot:
            return self._uploader.recognise(staged.path, [snapshot]) is not None

    def rebase(self, staged: StagedFile) -> None:
        """What a file under change is based on has another version, or another name, with the same content."""
        entry = self._backend.stat(staged.path)
        with staged.lock:
            staged.rebase(entry.version, self._open_base(staged.path, entry))

    def is_current(self, staged: StagedFile) -> bool:
        """Whether a file under change is based on what is there; if not, its next commit must find that out."""
        return self._backend.stat(staged.path).version == staged.expected

    def drain(self) -> int:
        """Upload all that waits, until nothing has succeeded for the mount's timeout; how many files are left."""
        self.writeback.hurry()
        return self.writeback.wait(self._timeout_s)

    def close(self, timeout_s: float) -> bool:
        """End; whether all uploads under way did. What waits still is found in the journal by the next process."""
        ended = self.writeback.close(timeout_s)
        ended = self._workers.close(timeout_s) and ended
        for staged in self._files.all():
            self._close(staged)
        return ended

    # Inside

    def _commit(self, staged: StagedFile, snapshot: Snapshot, *, keep_conflict: bool) -> None:
        """Store a snapshot of a file and tell everybody. The caller holds ``committing``."""
        progress = staged.progress
        if progress.after is not None:
            with progress.after:
                progress.after = None
        if progress.latest is not None and progress.latest.snapshot is snapshot:
            progress.latest.begun = True
        asked = self._entries.asking()
        placed = self._is_placed(staged.path, snapshot.expected)
        stream, progress.stream = progress.stream, None
        with staged.lock:
            staged.watch = None
        try:
            entry = self._store_patiently(staged, snapshot, placed=placed, stream=stream)
            entry = self._with_mtime(snapshot, entry)
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
                pause_s = random.uniform(0, FIRST_PAUSE_S * 2**tries)  # noqa: S311 - not a secret
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
        kept = self._uploader.store_beside(snapshot)
        with staged.lock:
            done = self._taken_off(staged)
            staged.committed(snapshot, None, None)
            staged.progress.failure = None
            # What won is what everybody else sees from now on.
            self._files.withdraw(staged)
        self._drop(done)
        self._entries.doubt(kept)
        return StorageConflictError(f'{error}; what was written here is kept as {kept!r}')

    def _settle(self, staged: StagedFile, snapshot: Snapshot, entry: Entry, asked: Asked) -> None:
        told = self._backend.capabilities.tells_mtime or entry.mtime_ns
        self._files.detach(staged.path, unless=staged)
        self._learn_parent(staged.path, asked)
        with staged.lock:
            staged.committed(snapshot, entry.version, lambda: self._open_base(staged.path, entry))
            if not staged.dirty and told:
                staged.mtime_ns = entry.mtime_ns  # what everybody sees once the last handle is gone, they see now
            # Before the file goes from the table, so that everybody always sees it in the one or the other.
            self._entries.changed(staged.path, entry, asked, timed=bool(told))
            progress = staged.progress
            progress.failure, progress.doubtful = None, False
            progress.untold = None
            latest = progress.latest
            if latest is None or latest.snapshot.sequence <= snapshot.sequence:
                done = self._taken_off(staged)
                self._files.settle(staged)
            else:
                # Acknowledged meanwhile: it is based on what was stored now, and durably so.
                done = self._rebase_latest(staged)
        self._drop(done)

    def _rebase_latest(self, staged: StagedFile) -> list[Acknowledged]:
        """Note that what waits is based on what was stored now; what need not be kept any more. Under the lock."""
        progress = staged.progress
        assert progress.latest is not None and self._journal is not None  # noqa: S101, PT018 - or it would not wait
        intent = self._intent(progress.latest.snapshot, name=progress.latest.held.intent.id)
        try:
            progress.latest.held = self._journal.rewrite(progress.latest.held, intent)
        except StorageError:  # after a crash what was stored is recognised, as long as that is there
            log.exception('%s:%s: its journal is behind', self._name, staged.path)
            return []
        done, progress.evidence = progress.evidence, []
        return done

    def _publish(self, staged: StagedFile) -> None:
        """Acknowledge a file, and show it at its path in place of what is under change there."""
        about_to_block()
        with staged.lock:
            self._acknowledge(staged)
            replaced = self._files.put(staged)
            if replaced is not None:
                staged.progress.after = replaced.committing
                self.forget(replaced)
            self._enqueue(staged)

    def _acknowledge(self, staged: StagedFile) -> None:
        """The caller holds the lock."""
        assert self._journal is not None  # noqa: S101 - only with writeback, which needs one
        progress = staged.progress
        latest = progress.latest
        evidence = [*progress.evidence, *([latest] if latest is not None and latest.begun else [])]
        forgotten, evidence = evidence[:-EVIDENCE_MAX], evidence[-EVIDENCE_MAX:]
        snapshot = staged.snapshot()
        try:
            intent = self._intent(snapshot, after=tuple(earlier.held.intent.id for earlier in evidence))
            replaced = latest.held if latest is not None and not latest.begun else None
            held = self._journal.replace(replaced, intent, snapshot)
        except BaseException:
            snapshot.close()
            raise
        if replaced is not None and latest is not None:
            latest.snapshot.close()
        self._drop(forgotten)
        progress.latest, progress.evidence = Acknowledged(snapshot, held), evidence

    def _enqueue(self, staged: StagedFile) -> None:
        """Have what was acknowledged seen until it is uploaded, and uploaded. The caller holds the lock."""
        self._files.wait(staged)
        self._entries.tell(staged.path)
        self.writeback.add(staged)

    def _intent(
        self,
        snapshot: Snapshot,
        *,
        name: str = '',
        kind: Literal['put', 'remove'] = 'put',
        after: tuple[str, ...] = (),
        parked: bool = False,
    ) -> Intent:
        now_ns = self._clock.time_ns()
        version = snapshot.expected
        return Intent(
            id=name or new_id(now_ns),
            kind=kind,
            mount=self._name,
            path=snapshot.path,
            created_ns=now_ns,
            size_bytes=snapshot.size_bytes,
            mtime_ns=snapshot.mtime_ns if snapshot.keeps_mtime else None,
            expected=version.tag if isinstance(version, Version) else None,
            expected_strong=not isinstance(version, Version) or version.strong,
            absent=version is ABSENT,
            missing=tuple((extent.offset, extent.size_bytes) for extent in snapshot.missing),
            after=after,
            parked=parked,
        )

    def _taken_off(self, staged: StagedFile) -> list[Acknowledged]:
        """Nothing that was acknowledged waits any more. The caller holds the lock."""
        progress = staged.progress
        done = [*progress.evidence, *([progress.latest] if progress.latest is not None else [])]
        progress.latest, progress.evidence = None, []
        return done

    def _drop(self, done: Iterable[Acknowledged]) -> None:
        for acknowledged in done:
            acknowledged.snapshot.close()
            path = acknowledged.snapshot.path
            try:
                if self._journal is not None:
                    self._journal.drop(acknowledged.held)
            except StorageError:  # the next recovery finds out that it is uploaded
                log.exception('%s:%s is uploaded, but the journal could not be cleared', self._name, path)

    def _failed(self, staged: StagedFile, error: BaseException) -> None:
        staged.progress.failure = error
        self._entries.doubt(staged.path)

    def _note_failure(self, staged: StagedFile, held: Held, error: StorageError) -> None:
        if staged.progress.untold is None:
            log.warning('%s:%s waits: %s', self._name, staged.path, error)
        staged.progress.untold = error
        if self._journal is not None:
            self._journal.failed(held, error)

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
            self._entries.learn(parent, Entry(paths.basename(parent), Kind.DIRECTORY), asked)

    def _close_if_settled(self, staged: StagedFile) -> None:
        if self._files.is_unused(staged):
            self._close(staged)

    def _close(self, staged: StagedFile) -> None:
        """Let go of a file that nobody has open and nothing of which waits."""
        stream, staged.progress.stream, staged.watch = staged.progress.stream, None, None
        for acknowledged in self._taken_off(staged):  # at the end of the mount: the journal keeps them
            acknowledged.snapshot.close()
        if stream is not None:
            stream.abort()
        staged.close()


def is_worth_parking(error: BaseException) -> bool:
    """Whether data whose close failed so may get there later. What a program did wrong is its own to mend."""
    wrong = (StorageConflictError, StorageExistsError, StorageIsADirectoryError, StorageNotADirectoryError)
    return isinstance(error, StorageError) and not isinstance(error, wrong)
