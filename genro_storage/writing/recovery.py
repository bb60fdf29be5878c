"""What processes that are gone have promised and not kept: adopted by whichever process comes first.

Owns what becomes of each kind of intent: acknowledged files are shown at once and uploaded, uploads in parts that
nobody will complete are aborted, directories that were moving end as a whole, and what was parked waits until somebody
asks for it.

Threads: safe; adopting is done once, by the first who looks at the mount, and asks no backend.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from genro_storage import paths, posix_format
from genro_storage.backends.base import Backend, UploadsInParts
from genro_storage.entry import Entry, Extent, Kind, Version
from genro_storage.errors import StorageConflictError, StorageError, StorageNotFoundError
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock
from genro_storage.writing.acknowledgements import Acknowledgements
from genro_storage.writing.commits import Commits
from genro_storage.writing.extents import Extents
from genro_storage.writing.journal import Held, Journal
from genro_storage.writing.moves import Moves
from genro_storage.writing.progress import Acknowledged
from genro_storage.writing.shared import SharedFiles
from genro_storage.writing.staging import StagedFile
from genro_storage.writing.writeback import Writeback

log = logging.getLogger(__name__)


class Recovery:
    """What is adopted for one mount."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        files: SharedFiles,
        commits: Commits,
        acknowledgements: Acknowledgements,
        moves: Moves,
        journal: Journal,
        staging: Path,
        clock: Clock,
        open_base: Callable[[str, Entry], Reader],
    ) -> None:
        self._name = name
        self._backend = backend
        self._files = files
        self._commits = commits
        self._moves = moves
        self._journal = journal
        self._staging = staging
        self._clock = clock
        self._open_base = open_base
        acknowledgements.on_parked = self._remember_parked
        self._lock = threading.Lock()  # held while records are read from the local disk; no other is taken before it
        self._adopted = False
        self._parked: list[Held] = []  # guarded by _lock
        self._superseded: dict[str, Held] = {}  # by id
        #: Everything but files: tried until it succeeds.
        self._errands: Writeback[Held] = Writeback(f'{name}-errands', self._run_errand, clock, 0.0)

    def after_fork(self) -> None:
        """Begin anew in a forked child, which adopts nothing that is its parent's."""
        self._lock = threading.Lock()
        self._errands.after_fork()

    def adopt(self) -> None:
        """Take over what is left of processes that are gone. At once; what it leads to happens on other threads."""
        if not self._adopted:
            with self._lock:
                if not self._adopted:
                    self._adopted = True
                    self._take_over()

    def adopt_again(self) -> None:
        """Take over what has been left since, too."""
        with self._lock:
            self._adopted = True
            self._take_over()

    def are_parked(self, path: str) -> bool:
        """Whether anything at or below a path waits until somebody asks for it."""
        return any(paths.is_within(held.intent.path, path) for held in list(self._parked))

    def retry_parked(self, path: str) -> None:
        """Commit what was parked at or below a path. Raises the first failure once all were tried."""
        self.adopt()
        with self._lock:
            chosen = [held for held in self._parked if paths.is_within(held.intent.path, path)]
            self._parked = [held for held in self._parked if held not in chosen]
        failures = []
        for held in chosen:
            try:
                self._commit_parked(held)
            except StorageError as error:
                failures.append(error)
                self._journal.failed(held, error)
                with self._lock:
                    self._parked.append(held)
        if failures:
            raise failures[0]

    def drain(self, patience_s: float) -> None:
        """Wait for errands, as long as they succeed."""
        self._errands.hurry()
        self._errands.wait(patience_s)

    def close(self, timeout_s: float) -> bool:
        """End; whether what was under way did."""
        return self._errands.close(timeout_s)

    # Inside

    def _take_over(self) -> None:
        """Under the lock."""
        try:
            found = self._journal.adopt()
        except (StorageError, OSError):
            log.exception('%s: the journal cannot be read, and what waits in it goes on waiting', self._name)
            return
        self._parked += [held for held in found if held.intent.parked]
        superseded = {name for held in found for name in held.intent.after}
        puts = {held.intent.id: held for held in found if held.intent.kind == 'put' and not held.intent.parked}
        self._superseded |= {name: puts[name] for name in superseded if name in puts}
        # Only now: an errand begins at once, and forgets with its own record those that it supersedes.
        for held in found:
            if held.intent.kind != 'put':
                self._errands.add(held)
        for name, held in sorted(puts.items()):
            if name not in superseded:
                self._show(held)

    def _remember_parked(self, held: Held) -> None:
        with self._lock:
            self._parked.append(held)

    def _show(self, held: Held) -> None:
        """Have an acknowledged file seen, and uploaded."""
        path = held.intent.path
        try:
            staged = self._staged(held)
        except (StorageError, OSError) as error:
            log.error('%s:%s waits in the journal: %s', self._name, path, error)
            self._journal.failed(held, error)
            return
        log.info('%s:%s was left by a process that is gone, and is uploaded soon', self._name, path)
        # The first of several is shown; the others meet it when they are uploaded, as any conflict.
        if self._files.find(path) is None:
            self._files.put(staged)
        with staged.lock:
            self._commits.enqueue(staged)

    def _staged(self, held: Held) -> StagedFile:
        staged = self._recovered(held)
        snapshot = staged.snapshot()
        staged.progress.latest = Acknowledged(snapshot, held, begun=True)
        staged.progress.doubtful = True  # it may have been on its way when its process ended
        for earlier in self._superseded_by(held):
            with closing(self._recovered(earlier)) as other:
                staged.progress.evidence.append(Acknowledged(other.snapshot(), earlier, begun=True))
        return staged

    def _superseded_by(self, held: Held) -> list[Held]:
        return [self._superseded[name] for name in held.intent.after if name in self._superseded]

    def _recovered(self, held: Held) -> StagedFile:
        intent = held.intent
        missing = Extents(Extent(offset, size_bytes) for offset, size_bytes in intent.missing)
        base = None
        if missing and intent.origin is not None:
            origin = intent.origin
            entry = Entry(paths.basename(origin.path), Kind.FILE, origin.size_bytes, intent.created_ns, origin.version)
            base = self._open_base(origin.path, entry)
        elif missing:
            version = intent.based_on if isinstance(intent.based_on, Version) else None
            entry = Entry(paths.basename(intent.path), Kind.FILE, missing.end, intent.created_ns, version)
            base = self._open_base(intent.path, entry)
        stored = posix_format.attributes_of(intent.metadata or {})
        mtime_ns = stored.mtime_ns if intent.mtime_ns is None else intent.mtime_ns
        return StagedFile.recovered(
            intent.path,
            self._staging,
            self._clock,
            held.open_data(),
            size_bytes=intent.size_bytes,
            mtime_ns=intent.created_ns if mtime_ns is None else mtime_ns,
            keeps_mtime=mtime_ns is not None,
            expected=intent.based_on,
            missing=missing,
            base=base,
            origin=intent.origin,
            metadata=intent.metadata,
        )

    def _commit_parked(self, held: Held) -> None:
        with closing(self._recovered(held)) as staged:
            staged.progress.doubtful = True
            try:
                self._commits.commit(staged)
            except StorageConflictError:
                if staged.dirty:
                    raise
        self._journal.drop(held)

    def _run_errand(self, held: Held) -> None:
        intent = held.intent
        try:
            if intent.kind == 'move':
                self._moves.recover(held)
                return
            if intent.kind == 'rename':
                self._end_rename(held)
            elif intent.kind == 'remove':
                self._remove(held)
            elif isinstance(self._backend, UploadsInParts):
                self._backend.abort_upload(intent.path, intent.token)
            self._journal.drop(held)
        except StorageError as error:
            self._journal.failed(held, error)
            raise

    def _remove(self, held: Held) -> None:
        """A removal that may not have arrived: of what was acknowledged before it nothing is to be left."""
        path = held.intent.path
        superseded = self._superseded_by(held)
        with suppress(StorageNotFoundError):
            if self._backend.stat(path).version == held.intent.based_on or any(map(self._has_arrived, superseded)):
                self._backend.remove_file(path)
        for earlier in superseded:
            self._journal.drop(earlier)

    def _end_rename(self, held: Held) -> None:
        """What was acknowledged of the file in whose place another came is gone with it, or waits as before."""
        superseded = self._superseded_by(held)
        if self._moves.recover_rename(held):
            for earlier in superseded:
                self._journal.drop(earlier)
            return
        hidden = {name for earlier in superseded for name in earlier.intent.after}
        for earlier in superseded:
            if earlier.intent.id not in hidden:
                self._show(earlier)

    def _has_arrived(self, held: Held) -> bool:
        with closing(self._recovered(held)) as staged:
            return self._commits.has_arrived(staged)
