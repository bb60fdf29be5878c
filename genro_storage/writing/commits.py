"""When a file under change is committed or acknowledged, and the handles that ask for it.

Owns what close and fsync mean under each durability, and when a file is let go of. One commit is the committer's, when
to try again is the writeback's, and that a promise outlives this process is the acknowledgements'.

Threads: safe; has no lock of its own. The order: StagedFile.committing, held across I/O by whoever commits, renames or
removes a file; StagedFile.lock; then the tables (docs/concurrency.md).
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import closing

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend
from genro_storage.cache.entries import EntryCache
from genro_storage.config import Definition
from genro_storage.config.definitions import Durability
from genro_storage.entry import Entry, Extent, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageUnsupportedError,
)
from genro_storage.reading.loans import Loan
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock, WorkerPool, about_to_block
from genro_storage.writing.acknowledgements import Acknowledgements
from genro_storage.writing.committer import Committer
from genro_storage.writing.origins import origin_of
from genro_storage.writing.progress import Acknowledged
from genro_storage.writing.shared import SharedFiles
from genro_storage.writing.staging import StagedFile
from genro_storage.writing.stream import PARTS_AT_ONCE, Stream
from genro_storage.writing.uploader import Uploader, Uploads
from genro_storage.writing.writeback import Writeback
from genro_storage.writing.writer import StagedReader

log = logging.getLogger(__name__)

#: Files of one mount whose parts are sent ahead of their commits at a time; more wait for room.
STREAMS = 4


class Commits:
    """How files under change of one mount become objects."""

    def __init__(
        self,
        definition: Definition,
        backend: Backend,
        files: SharedFiles,
        entries: EntryCache,
        acknowledgements: Acknowledgements,
        uploads: Uploads,
        clock: Clock,
        open_base: Callable[[str, Entry], Reader],
    ) -> None:
        """open_base: a reader of a version that is there."""
        self._name = definition.name
        self._backend = backend
        self._files = files
        self._entries = entries
        self._acknowledgements = acknowledgements
        self._open_base = open_base
        self._timeout_s = definition.timeout_s
        self._is_writeback = definition.durability is Durability.WRITEBACK and acknowledgements.are_possible
        self._workers = WorkerPool(f'{self._name}-parts', PARTS_AT_ONCE * STREAMS)
        self._uploads = uploads
        self._uploader = Uploader(backend, uploads, self._workers)
        self._committer = Committer(
            backend,
            files,
            entries,
            acknowledgements,
            self._uploader,
            clock,
            definition.timeout_s,
            open_base,
        )
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
        if self._is_writeback and staged.origin is None:
            self.acknowledge(staged)
        else:
            # What is borrowed somebody may remove or replace before it is uploaded; the server copies it at once.
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
        was_waiting = staged.waiting
        with staged.committing:
            with staged.lock:
                staged.progress.untold = None  # what comes now says it anew
                if not staged.dirty or staged.orphaned:
                    return
                latest = staged.progress.latest
                is_noted = latest is not None and latest.snapshot.sequence == staged.changes
                snapshot = latest.snapshot if latest is not None and is_noted else staged.snapshot()
            try:
                self._committer.commit(staged, snapshot, keep_conflict=keep_conflict)
            finally:
                if not is_noted:
                    snapshot.close()
        if was_waiting:
            self._close_if_settled(staged)

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
                self._acknowledgements.add(staged)
                self.enqueue(staged)
            untold, progress.untold = progress.untold, None
        if untold is not None:
            raise untold

    def keep_promise(self, staged: StagedFile) -> None:
        """A file is to replace another that may have been acknowledged: then it is, too. Raises as acknowledge does."""
        if self._is_writeback:
            self.acknowledge(staged)

    def open_reader(self, path: str) -> StagedReader | None:
        """A handle that reads the file under change at a path, if there is one."""
        joined = self._files.join_reading(path)
        if joined is None:
            return None
        staged, is_written = joined
        reader = StagedReader(staged, sync=self.commit, release=self._release_reader, lend=self.lend)
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
                self._acknowledgements.park(staged)
            self._close(staged)

    def flush_private(self, staged: StagedFile) -> None:
        """What close() of a file that was written in private promises: all of it is seen at its path, or nothing.

        Raises what prevents that: StorageConflictError, StorageExistsError, and what flush raises.
        """
        # That something is made by us alone only the backend can say.
        if self._is_writeback and staged.expected is not ABSENT and staged.origin is None:
            self._publish(staged)
        else:
            self.commit(staged, keep_conflict=False)

    def release_private(self, staged: StagedFile) -> None:
        """Its one handle is given back."""
        if staged.waiting:
            return  # it is shown at its path, and closed when it is uploaded
        if staged.dirty and staged.progress.failure is not None and is_worth_parking(staged.progress.failure):
            self._acknowledgements.park(staged)
        self._close(staged)

    def upload(self, staged: StagedFile) -> None:
        """Upload what was acknowledged of a file. For the writeback: raises what is worth another try."""
        with staged.committing:
            with staged.lock:
                latest = staged.progress.latest
            if latest is None or staged.orphaned:
                return
            try:
                self._committer.commit(staged, latest.snapshot, keep_conflict=True)
            except StorageConflictError as error:
                if staged.progress.latest is latest:  # it could not even be kept beside
                    self._note_failure(staged, latest, error)
                    raise
                log.error('%s:%s: %s', self._name, staged.path, error)
                staged.progress.untold = error
            except StorageError as error:
                self._note_failure(staged, latest, error)
                raise
        self._close_if_settled(staged)

    def lend(self, staged: StagedFile) -> Loan | None:
        """What a file under change is on the backend, if it is there as it is now."""
        with staged.lock:
            version = staged.expected
            if staged.dirty or staged.orphaned or not isinstance(version, Version) or not version.strong:
                return None
            path = staged.path
            entry = Entry(paths.basename(path), Kind.FILE, staged.size_bytes, staged.mtime_ns, version)
        return Loan(self._backend, path, version, entry.size_bytes, lambda: self._open_base(path, entry))

    def borrow(self, staged: StagedFile, loan: Loan, extent: Extent) -> int:
        """Have bytes of a stored file be those of a file under change, to be copied by the backend; how many.

        Raises StorageUnsupportedError, with nothing done, where they have to be written.
        """
        origin = origin_of(loan, self._backend)
        if origin is None:
            raise StorageUnsupportedError(f'{self._name} cannot copy {loan.path!r} for {staged.path!r}')
        borrowed = Extent(extent.offset, min(extent.end, origin.size_bytes) - extent.offset)
        with staged.lock:
            if borrowed.size_bytes <= 0 or not staged.may_borrow(origin, borrowed):
                raise StorageUnsupportedError(f'{staged.path!r} is not a copy of {loan.path!r}')
            self.stop_stream(staged)  # nothing is to be sent
            staged.borrow(origin, loan.open, borrowed)
        return borrowed.size_bytes

    def commit_copies_of(self, path: str) -> None:
        """What is at or below a path is about to go: commit what borrows of it, as long as it is there to be copied."""
        for staged in self._files.all():
            origin = staged.origin
            if origin is not None and paths.is_within(origin.path, path):
                try:
                    self.commit(staged)
                except StorageError as error:  # its own close meets that again, and what has become of the origin
                    log.warning('%s:%s borrows of %r, which goes: %s', self._name, staged.path, path, error)

    # What the volume asks for

    def forget(self, staged: StagedFile) -> None:
        """Nothing of a file is to be uploaded any more: it was removed or replaced. Its handles go on."""
        self._files.orphan(staged)
        self.stop_stream(staged)
        with staged.lock:
            done = self._acknowledgements.take_off(staged)
        self._acknowledgements.drop(done)
        if self._files.is_unused(staged):
            self._close(staged)

    def enqueue(self, staged: StagedFile) -> None:
        """Have what was acknowledged seen until it is uploaded, and uploaded. The caller holds the lock."""
        self._files.wait(staged)
        self._entries.tell(staged.path)
        self.writeback.add(staged)

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
                    self._note_failure(staged, latest, error)

        about_to_block()
        pool = WorkerPool(f'{self._name}-sync', PARTS_AT_ONCE)
        try:
            pool.each(commit, files, PARTS_AT_ONCE)
        finally:
            pool.close(0)
        if failures:
            raise failures[0]

    def stop_stream(self, staged: StagedFile) -> None:
        """Send nothing of a file ahead any more, and have what was sent forgotten."""
        stream, staged.progress.stream, staged.watch = staged.progress.stream, None, None
        if stream is not None:
            stream.abort()

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

    def _publish(self, staged: StagedFile) -> None:
        """Acknowledge a file, and show it at its path in place of what is under change there."""
        about_to_block()
        with staged.lock:
            self._acknowledgements.add(staged)
            replaced = self._files.put(staged)
            if replaced is not None:
                staged.progress.after = replaced.committing
                self.forget(replaced)
            self.enqueue(staged)

    def _note_failure(self, staged: StagedFile, latest: Acknowledged, error: StorageError) -> None:
        if staged.progress.untold is None:
            log.warning('%s:%s waits: %s', self._name, staged.path, error)
        staged.progress.untold = error
        self._acknowledgements.note_failure(latest, error)

    def _close_if_settled(self, staged: StagedFile) -> None:
        if self._files.is_unused(staged):
            self._close(staged)

    def _close(self, staged: StagedFile) -> None:
        """Let go of a file that nobody has open and nothing of which waits."""
        self.stop_stream(staged)
        for acknowledged in self._acknowledgements.take_off(staged):  # at the end of the mount: the journal keeps them
            acknowledged.snapshot.close()
        staged.close()


def is_worth_parking(error: BaseException) -> bool:
    """Whether data whose close failed so may get there later. What a program did wrong is its own to mend."""
    wrong = (StorageConflictError, StorageExistsError, StorageIsADirectoryError, StorageNotADirectoryError)
    return isinstance(error, StorageError) and not isinstance(error, wrong)
