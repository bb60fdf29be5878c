"""All that is under change in one mount: the table, commits, renames, and what earlier processes have left.

Owns how these parts are put together and the order in which they end. Threads: safe, as its parts.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from genro_storage.backends.base import Backend
from genro_storage.cache.entries import EntryCache, Known
from genro_storage.config import Definition, Permissions
from genro_storage.entry import Entry
from genro_storage.errors import StorageError
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock
from genro_storage.writing.acknowledgements import Acknowledgements
from genro_storage.writing.commits import Commits
from genro_storage.writing.descriptions import Descriptions
from genro_storage.writing.journal import Journal
from genro_storage.writing.moves import Moves
from genro_storage.writing.recovery import Recovery
from genro_storage.writing.shared import SharedFiles
from genro_storage.writing.state import State, worst_of
from genro_storage.writing.uploader import Uploads

log = logging.getLogger(__name__)


class Changes:
    """Of one mount."""

    def __init__(
        self,
        definition: Definition,
        backend: Backend,
        entries: EntryCache,
        staging: Path,
        clock: Clock,
        journal: Journal | None,
        open_base: Callable[[str, Entry], Reader],
        find: Callable[[str], Known],
    ) -> None:
        """journal: of the backend's destination, or None. open_base: a reader of a version that is there.

        find: what is at a path, with what is under change.
        """
        name = definition.name
        self._name = name
        self._timeout_s = definition.timeout_s
        self.journal = journal
        self.files = SharedFiles()
        self.acknowledgements = Acknowledgements(name, journal, clock)
        uploads = Uploads(name, backend, journal, clock)
        self.commits = Commits(
            definition, backend, self.files, entries, self.acknowledgements, uploads, clock, open_base
        )
        self.descriptions = Descriptions(
            definition, backend, self.files, entries, self.commits, self.acknowledgements, clock
        )
        self.moves = Moves(
            name, backend, self.files, entries, self.commits, self.acknowledgements, journal, clock, find
        )
        self.recovery: Recovery | None = None
        # Who may not write takes over nothing that others have promised.
        if journal is not None and definition.permissions is not Permissions.READONLY:
            self.recovery = Recovery(
                name,
                backend,
                self.files,
                self.commits,
                self.acknowledgements,
                self.moves,
                journal,
                staging,
                clock,
                open_base,
            )

    def after_fork(self) -> None:
        """Begin anew in a forked child: what is under change is the parent's."""
        for part in (self.files, self.commits, self.descriptions, self.journal, self.recovery):
            if part is not None:
                part.after_fork()

    def adopt(self) -> None:
        """Take over what processes that are gone have promised for this destination; at once, and once."""
        if self.recovery is not None:
            self.recovery.adopt()

    def sync(self, path: str) -> None:
        """Have everything committed that waits at or below a path. Raises the first failure once all were tried."""
        if self.recovery is not None:
            self.recovery.adopt_again()
        self.commits.commit_all(self.files.below(path))

    def state(self, path: str) -> State:
        """How far what was changed at or below a path is on its way to the backend."""
        if self.recovery is not None and self.recovery.are_parked(path):
            return State.ERROR
        return worst_of(self.files.below(path))

    def retry_parked(self, path: str) -> None:
        """Try again to commit what was refused to somebody at or below a path, and kept. Raises the first failure."""
        if self.recovery is not None:
            self.recovery.retry_parked(path)

    def close(self, timeout_s: float) -> bool:
        """Commit what is still open and upload what waits; whether all that was under way has ended.

        What cannot be committed by then stays in the journal.
        """
        for staged in self.files.all():
            try:
                self.commits.flush(staged)
            except StorageError as error:
                log.error('%s:%s could not be committed at the end: %s', self._name, staged.path, error)
                self.acknowledgements.park(staged)
        left = self.commits.drain()
        if left:
            log.error('%s: %d files are not uploaded and wait in the journal (genro-storage status)', self._name, left)
        ended = True
        if self.recovery is not None:
            self.recovery.drain(self._timeout_s)
            ended = self.recovery.close(timeout_s)
        ended = self.commits.close(timeout_s) and ended
        if self.journal is not None:
            self.journal.close()
        return ended
