"""What close() has promised of the files of one mount, and the journal that keeps it beyond this process.

Owns the records of files that wait for their upload: made before anybody is told, changed when their files are renamed
or what they are based on is stored, kept as evidence while they may have arrived, and dropped when something newer has.
Owns what is parked. When anything is uploaded is the commits'.

Threads: safe; has no lock of its own. What is known of a file is guarded by that file's lock, which the caller holds
where it says so.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Literal

from genro_storage import posix_format
from genro_storage.backends.base import ABSENT
from genro_storage.entry import Attributes, Version
from genro_storage.errors import StorageError
from genro_storage.runtime import Clock
from genro_storage.writing.journal import Held, Journal
from genro_storage.writing.journal_records import Intent, new_id
from genro_storage.writing.progress import Acknowledged
from genro_storage.writing.snapshot import Snapshot
from genro_storage.writing.staging import StagedFile

log = logging.getLogger(__name__)

#: Uploads of one file that may have arrived without our knowing; of more than so many the oldest is forgotten.
EVIDENCE_MAX = 4


class Acknowledgements:
    """The promises of one mount."""

    def __init__(self, name: str, journal: Journal | None, clock: Clock) -> None:
        """journal: None where nothing outlives this process anyway."""
        self._name = name
        self._journal = journal
        self._clock = clock
        #: Told of each file that is parked. Until somebody is to be told, nobody is.
        self.on_parked: Callable[[Held], None] = lambda held: None

    @property
    def are_possible(self) -> bool:
        """Whether there is a journal."""
        return self._journal is not None

    def add(self, staged: StagedFile) -> None:
        """Make a file durable as it is now. The caller holds its lock. Raises StorageNoSpaceError, StorageIOError."""
        assert self._journal is not None  # noqa: S101 - who asks has seen that there is one
        progress = staged.progress
        latest = progress.latest
        evidence = [*progress.evidence, *([latest] if latest is not None and latest.begun else [])]
        forgotten, evidence = evidence[:-EVIDENCE_MAX], evidence[-EVIDENCE_MAX:]
        snapshot = staged.snapshot()
        try:
            intent = self._intent(snapshot, after=_ids(evidence))
            replaced = latest.held if latest is not None and not latest.begun else None
            held = self._journal.replace(replaced, intent, snapshot)
        except BaseException:
            snapshot.close()
            raise
        if replaced is not None and latest is not None:
            latest.snapshot.close()
        self.drop(forgotten)
        progress.latest, progress.evidence = Acknowledged(snapshot, held), evidence

    def move(self, staged: StagedFile, path: str, replaced: Sequence[StagedFile]) -> None:
        """A file that is nowhere yet but here is to become an object at another path, in the place of others there.

        The caller holds the lock, and forgets the others afterwards. Raises what the journal raises.
        """
        progress = staged.progress
        before = [each for file in replaced for each in file.progress.promises]
        if progress.latest is not None and self._journal is not None:
            progress.latest.snapshot.path = path
            progress.latest.snapshot.expected = staged.expected
            # A crash before the others are dropped must not bring them back.
            intent = self._rewritten(progress.latest, _ids(before))
            progress.latest.held = self._journal.rewrite(progress.latest.held, intent)
        for file in replaced:
            self.take_off(file)
        progress.evidence += [each for each in before if each.begun]
        self.drop(each for each in before if not each.begun)

    def relabel(self, staged: StagedFile) -> None:
        """What waits has other user metadata, those of the file as it is now. The caller holds the lock.

        Raises what the journal raises.
        """
        latest = staged.progress.latest
        if latest is None or self._journal is None:
            return
        latest.snapshot.metadata = posix_format.relabelled(latest.snapshot.metadata or {}, staged.metadata or {})
        latest.held = self._journal.rewrite(latest.held, self._rewritten(latest))

    def describe(self, staged: StagedFile, changes: Attributes) -> None:
        """What waits has other attributes: its record has them, too. The caller holds the lock.

        Raises what the journal raises.
        """
        latest = staged.progress.latest
        if latest is None or self._journal is None:
            return
        snapshot = latest.snapshot
        snapshot.metadata = posix_format.changed(snapshot.metadata or {}, changes)
        if changes.mtime_ns is not None:
            snapshot.mtime_ns, snapshot.keeps_mtime = changes.mtime_ns, True
        latest.held = self._journal.rewrite(latest.held, self._rewritten(latest))

    def rebase(self, staged: StagedFile) -> list[Acknowledged]:
        """Note that what waits is based on what was stored now; what need not be kept any more.

        The caller holds the lock.
        """
        progress = staged.progress
        assert progress.latest is not None and self._journal is not None  # noqa: S101, PT018 - or it would not wait
        try:
            progress.latest.held = self._journal.rewrite(progress.latest.held, self._rewritten(progress.latest))
        except StorageError:  # after a crash what was stored is recognised, as long as that is there
            log.exception('%s:%s: its journal is behind', self._name, staged.path)
            return []
        done, progress.evidence = progress.evidence, []
        return done

    @staticmethod
    def take_off(staged: StagedFile) -> list[Acknowledged]:
        """Nothing that was acknowledged waits any more; what is to be dropped. The caller holds the lock."""
        done = staged.progress.promises
        staged.progress.latest, staged.progress.evidence = None, []
        return done

    def drop(self, done: Iterable[Acknowledged]) -> None:
        """Forget what is done. Never raises: what stays in the journal is recognised by the next recovery."""
        for acknowledged in done:
            acknowledged.snapshot.close()
            path = acknowledged.snapshot.path
            try:
                if self._journal is not None:
                    self._journal.drop(acknowledged.held)
            except StorageError:
                log.exception('%s:%s is uploaded, but the journal could not be cleared', self._name, path)

    @contextmanager
    def removing(self, staged: StagedFile) -> Iterator[None]:
        """Note that a file goes while it does: a crash leaves what was acknowledged of it, or nothing.

        The caller keeps it from being committed, and removes it from the backend and from here inside. Raises what the
        journal raises.
        """
        with staged.lock:
            latest = staged.progress.latest
            intent = None
            is_stored = staged.expected is not ABSENT or staged.progress.may_have_arrived
            if latest is not None and self._journal is not None and is_stored:
                intent = self._intent(latest.snapshot, kind='remove', after=_ids(staged.progress.promises))
        held = self._journal.add(intent) if intent is not None and self._journal is not None else None
        try:
            yield
        finally:
            if held is not None and self._journal is not None:
                self._journal.drop(held)

    def note_failure(self, acknowledged: Acknowledged, error: StorageError) -> None:
        """An upload was in vain, for status. Never raises."""
        if self._journal is not None:
            self._journal.failed(acknowledged.held, error)

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

    # Inside

    def _rewritten(self, latest: Acknowledged, more: tuple[str, ...] = ()) -> Intent:
        """The record of what waits, as it is now; it names its evidence still, which is dropped only after it."""
        return self._intent(latest.snapshot, name=latest.held.intent.id, after=(*latest.held.intent.after, *more))

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
            metadata=dict(snapshot.metadata) if snapshot.metadata is not None else None,
            expected=version.tag if isinstance(version, Version) else None,
            expected_strong=not isinstance(version, Version) or version.strong,
            absent=version is ABSENT,
            missing=tuple((extent.offset, extent.size_bytes) for extent in snapshot.missing),
            origin=snapshot.origin if snapshot.missing else None,
            after=after,
            parked=parked,
        )


def _ids(promises: Iterable[Acknowledged]) -> tuple[str, ...]:
    return tuple(each.held.intent.id for each in promises)
