"""Renames, with the files under change that they concern.

Owns that a file which is nowhere yet but here only changes its name, that all others are committed first and stay open
under their new one, and that what moves by copies and removals arrives as a whole or not at all: a journal says how far
it is, and who finds that after a crash ends it.

Threads: safe; the files concerned are kept from being committed meanwhile (docs/concurrency.md).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend, Move, MovesInSteps
from genro_storage.cache.entries import EntryCache, Known
from genro_storage.entry import Entry, Extent
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
)
from genro_storage.runtime import Clock
from genro_storage.writing.acknowledgements import Acknowledgements
from genro_storage.writing.commits import Commits
from genro_storage.writing.journal import Held, Journal
from genro_storage.writing.journal_records import Intent, new_id
from genro_storage.writing.shared import SharedFiles
from genro_storage.writing.snapshot import steps
from genro_storage.writing.staging import StagedFile

log = logging.getLogger(__name__)

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(tuple[Move, ...]).decode


class Moves:
    """Renames within one mount."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        files: SharedFiles,
        entries: EntryCache,
        commits: Commits,
        acknowledgements: Acknowledgements,
        journal: Journal | None,
        clock: Clock,
        find: Callable[[str], Known],
    ) -> None:
        """find: what is at a path, with what is under change; its time need not be known."""
        self._name = name
        self._backend = backend
        self._files = files
        self._entries = entries
        self._commits = commits
        self._acknowledgements = acknowledgements
        self._journal = journal
        self._clock = clock
        self._find = find

    def rename(self, source: str, target: str) -> None:
        """Move a file or directory to another name, replacing a file, or an empty directory, that is there.

        Raises StorageNotEmptyError and what commits and the backend raise.
        """
        with self._files.holding_all(source, target) as files:
            self.refuse_files_below(target)
            moving = [file for file in files if paths.is_within(file.path, source)]
            replaced = [file for file in files if file.path == target]
            if len(moving) == 1 and moving[0].path == source and _is_unstored(moving[0]):
                self._rename_unstored(moving[0], target, replaced)
            else:
                self._rename_stored(source, target, moving, replaced)

    def refuse_files_below(self, directory: str) -> None:
        """Raise StorageNotEmptyError if files under change are below: the backend may find the directory empty."""
        if self._files.are_below(directory):
            raise StorageNotEmptyError(f'{self._name}:{directory} is not empty: a file in it is open')

    def recover_rename(self, held: Held) -> bool:
        """End the rename of a file that a process which is gone has left; whether it has its new name.

        What is there then is what was moved. Else nothing has happened. The caller drops the intent. Raises what makes
        that impossible now.
        """
        intent = held.intent
        here, there = self._stored(intent.path), self._stored(intent.target)
        # Of a file that was open no version is noted; then its bytes alone say what the other one is.
        is_unchanged = here is not None and (intent.expected is None or _is(here, intent.expected))
        arrived = there is not None and there.is_file and there.size_bytes == intent.size_bytes
        if arrived and here is not None:
            arrived = _is(there, intent.expected) or (is_unchanged and self._are_equal(intent))
        if arrived and is_unchanged:
            self._backend.remove_file(intent.path, seen=True)
        outcome = 'completed' if arrived else 'it had not begun'
        log.warning('%s: renaming %r to %r was interrupted; %s', self._name, intent.path, intent.target, outcome)
        self._forget(intent.path, intent.target)
        return arrived

    def recover(self, held: Held) -> None:
        """End a move that a process which is gone has left. Raises what makes that impossible now."""
        assert isinstance(self._backend, MovesInSteps) and self._journal is not None  # noqa: S101, PT018 - it began so
        intent = held.intent
        moves = _decode(held.read_data())
        if intent.phase == 'copying':
            self._backend.undo_planned(intent.path, intent.target, moves)
            outcome = 'undone'
        else:
            self._backend.remove_planned(intent.path, intent.target, moves)
            outcome = 'completed'
        log.warning('%s: moving %r to %r was interrupted; %s', self._name, intent.path, intent.target, outcome)
        self._forget(intent.path, intent.target)
        self._journal.drop(held)

    # Inside

    def _rename_unstored(self, staged: StagedFile, target: str, replaced: Sequence[StagedFile]) -> None:
        """A file that no backend has yet gets another name, and replaces there what is then."""
        parent = paths.parent(target)
        above = self._find(parent).entry if parent else None
        if parent and above is None:
            raise StorageNotFoundError(f'{self._name}:{parent}: nothing is there')
        if above is not None and not above.is_directory:
            raise StorageNotADirectoryError(f'{self._name}:{parent} is not a directory')
        if replaced:
            expected = replaced[0].expected
        else:
            there = self._find(target).entry
            if there is not None and there.is_directory:
                raise StorageIsADirectoryError(f'{self._name}:{target} is a directory and a file cannot replace it')
            expected = ABSENT if there is None else there.version
        source = staged.path
        if replaced:
            self._commits.keep_promise(staged)
        self._commits.stop_stream(staged)  # it is on its way to the old name
        with staged.lock:
            staged.expected = expected
            self._acknowledgements.move(staged, target, replaced)
            for file in replaced:
                self._commits.forget(file)
            self._files.move(staged, target)
        self._entries.tell(source)
        self._entries.tell(target)

    def _rename_stored(
        self, source: str, target: str, moving: Sequence[StagedFile], replaced: Sequence[StagedFile]
    ) -> None:
        for staged in [*moving, *replaced]:
            # What is replaced, only if it is nowhere yet: the backend is to decide whether it may be.
            if staged in moving or staged.expected is ABSENT:
                self._commits.commit(staged)
        # Who had nobody that holds it open has gone from the table with its commit.
        moving = [staged for staged in moving if self._files.find(staged.path) is staged]
        current = [self._commits.is_current(staged) for staged in moving]
        moved = self._find(source).entry if self._journal is not None and self._moves_in_steps else None
        with self._noted(source, target, moved, replaced):
            # What is open shows more than is stored.
            if moved is None or moving or not self._move_seen(source, target, moved):
                try:
                    if moved is not None and moved.is_directory:
                        self._move_directory(source, target)
                    else:
                        self._backend.rename(source, target)
                finally:
                    self._forget(source, target)
            for staged in replaced:
                self._commits.forget(staged)
        for staged, rebased in zip(moving, current, strict=True):
            self._files.move(staged, target + staged.path.removeprefix(source))
            # If nobody can say now, the next commit will find out.
            with suppress(StorageError):
                if rebased:
                    self._commits.rebase(staged)

    @contextmanager
    def _noted(self, source: str, target: str, moved: Entry | None, replaced: Sequence[StagedFile]) -> Iterator[None]:
        """Note the rename of a file that takes several steps while it happens. What it replaces is forgotten inside."""
        if self._journal is None or moved is None or moved.is_directory:
            yield
            return
        now_ns = self._clock.time_ns()
        intent = Intent(
            id=new_id(now_ns),
            kind='rename',
            mount=self._name,
            path=source,
            target=target,
            created_ns=now_ns,
            size_bytes=moved.size_bytes,
            expected=moved.version.tag if moved.version is not None else None,
            after=tuple(each.held.intent.id for file in replaced for each in file.progress.promises),
        )
        held = self._journal.add(intent)
        try:
            yield
        except StorageError:
            self._journal.drop(held)  # who asked is told, and looks
            raise
        self._journal.drop(held)

    @property
    def _moves_in_steps(self) -> bool:
        return self._backend.capabilities.moves_in_steps and isinstance(self._backend, MovesInSteps)

    def _move_seen(self, source: str, target: str, moved: Entry) -> bool:
        """Rename a file, if that is known to be possible, without asking again; whether that was done.

        Whoever saves a document makes a new one, renames it and looks at it, each time.
        """
        assert isinstance(self._backend, MovesInSteps)  # noqa: S101 - seen before
        if moved.is_directory or not self._is_free(target):
            return False
        is_beside = paths.parent(source) == paths.parent(target)
        asked = self._entries.asking()
        arrived = None
        try:
            beside = True if is_beside else self._entries.has_others(source)
            arrived = self._backend.move_seen(source, target, moved, beside=beside)
        except (StorageConflictError, StorageNotFoundError):
            return False  # it has changed since
        finally:
            if arrived is None:
                self._forget(source, target)
        self._entries.changed(source, None, asked)
        self._entries.changed(target, arrived, asked, timed=self._backend.capabilities.is_timed(arrived))
        return True

    def _is_free(self, target: str) -> bool:
        """Whether a file may take this name, as far as is known without asking."""
        parent, known = paths.parent(target), self._entries.find(target, timed=False)
        if known is None or (known.entry is not None and known.entry.is_directory) or not paths.is_text(target):
            return False
        return not parent or self._entries.is_directory(parent)

    def _move_directory(self, source: str, target: str) -> None:
        assert isinstance(self._backend, MovesInSteps) and self._journal is not None  # noqa: S101, PT018 - seen before
        moves = self._backend.plan_move(source, target)
        now_ns = self._clock.time_ns()
        intent = Intent(id=new_id(now_ns), kind='move', mount=self._name, path=source, target=target, created_ns=now_ns)
        held = self._journal.add(intent, _encode(moves))
        try:
            self._backend.copy_planned(source, target, moves)
        except StorageError:
            # Its copies are gone again, or if they could not be removed now, that is for the next recovery.
            with suppress(StorageError):
                self._backend.undo_planned(source, target, moves)
                self._journal.drop(held)
            raise
        held = self._journal.rewrite(held, msgspec.structs.replace(intent, phase='removing'))
        self._backend.remove_planned(source, target, moves)
        self._journal.drop(held)

    def _stored(self, path: str) -> Entry | None:
        try:
            return self._backend.stat(path)
        except (StorageNotFoundError, StorageNotADirectoryError):
            return None

    def _are_equal(self, intent: Intent) -> bool:
        """Whether two files of the same size have the same bytes: the tag of a copy may be another."""
        return all(
            self._backend.read_range(intent.path, step.offset, step.size_bytes, None)
            == self._backend.read_range(intent.target, step.offset, step.size_bytes, None)
            for step in steps(Extent(0, intent.size_bytes))
        )

    def _forget(self, source: str, target: str) -> None:
        self._entries.forget(source)
        self._entries.forget(target)


def _is(entry: Entry | None, tag: str | None) -> bool:
    """Whether a file is in a version that was noted."""
    return entry is not None and entry.version is not None and entry.version.tag == tag


def _is_unstored(staged: StagedFile) -> bool:
    """Whether a file is certainly nowhere yet but here, and all of it is."""
    return staged.expected is ABSENT and not staged.progress.may_have_arrived and staged.origin is None
