"""A staged file: what is being written, on the local disk, until it is committed.

Owns what it is based on and what of it was committed, as snapshots, which are stored while writing goes on. Its bytes
are StagedBytes'.

Threads: safe. ``lock`` is not held while a snapshot is stored, which ``committing`` is for (docs/concurrency.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from genro_storage import posix_format
from genro_storage.backends.base import Expected
from genro_storage.entry import Attributes, Extent, Version
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock, HandleLock
from genro_storage.writing.content import Content
from genro_storage.writing.extents import Extents
from genro_storage.writing.origins import Origin
from genro_storage.writing.progress import Progress
from genro_storage.writing.snapshot import Base, Snapshot
from genro_storage.writing.staged_bytes import StagedBytes


class Freezes(Protocol):
    """A handle that reads a file while it is written."""

    def freeze(self) -> None:
        """Show what is there now from now on. Idempotent."""


class StagedFile(StagedBytes):
    """One file under change, shared by all its write handles."""

    def __init__(
        self,
        path: str,
        directory: Path,
        clock: Clock,
        expected: Expected,
        base: Reader | None,
        mtime_ns: int | None = None,
        *,
        content: Content | None = None,
        origin: Origin | None = None,
    ) -> None:
        """``mtime_ns``: of the base, until something is written; now, where there is none. content: empty by default.

        ``origin``: what the base is a version of, if that is another file.

        Raises StorageNoSpaceError, StorageIOError, StoragePermissionError.
        """
        super().__init__(path, directory, clock, base, mtime_ns, content, origin)
        #: One commit, rename or removal of this file at a time: may be held across I/O, and is taken before ``lock``.
        self.committing = HandleLock()
        # Changed only under lock; read without.
        self.expected = expected
        #: User metadata of what it is based on, with what was set since; None where the backend stores none.
        self.metadata: Mapping[str, str] | None = None
        self.stored_times: Sequence[str] = ()  # attributes of what is written that go into the metadata, set or not
        self._committed = 0
        #: How far it is on its way to being an object, for whoever sees to that.
        self.progress = Progress()
        # Guarded by the lock of SharedFiles.
        self.handles = 0
        self.writers = 0  # those of them that write
        self.readers: tuple[Freezes, ...] = ()  # those that read what is being written; replaced as a whole
        self.waiting = False
        self.orphaned = False

    @classmethod
    def recovered(
        cls,
        path: str,
        directory: Path,
        clock: Clock,
        descriptor: int,
        *,
        size_bytes: int,
        mtime_ns: int,
        keeps_mtime: bool,
        expected: Expected,
        missing: Iterable[Extent],
        base: Reader | None,
        origin: Origin | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> 'StagedFile':
        """One that begins with what another process has acknowledged, and is dirty.

        The descriptor becomes its own and is only read from: the file that it leads to may still be needed as it is.
        Without a base, what is missing cannot be read.
        """
        content = Content.adopted(descriptor, directory)
        staged = cls(path, directory, clock, expected, base, mtime_ns, content=content, origin=origin)
        staged.size_bytes = size_bytes
        staged.keeps_mtime = keeps_mtime
        staged.metadata = metadata
        staged.stored_times = posix_format.times_in(metadata or {})
        staged.changes = 1
        staged._missing = Extents(missing)
        staged._unchanged = staged._missing.copy()
        staged._let_go_of_base()
        return staged

    @property
    def dirty(self) -> bool:
        """Whether anything has changed since the last snapshot that was committed."""
        return self.changes != self._committed

    @property
    def ctime_ns(self) -> int | None:
        """When it was last written or described, where that is stored."""
        stored_ns = posix_format.attributes_of(self.metadata or {}).ctime_ns
        if not self.changes or self.keeps_mtime:
            return stored_ns
        return max(stored_ns or self.mtime_ns, self.mtime_ns)

    def touch(self) -> None:
        """Have it committed even if nothing is written to it: a new, empty file."""
        with self.lock:
            self._touch()

    def set_mtime(self, mtime_ns: int) -> None:
        """Have the commit keep this modification time, unless something is written after it."""
        with self.lock:
            self.mtime_ns = mtime_ns
            self.keeps_mtime = True

    def describe(self, changes: Attributes) -> None:
        """Have the commit keep these attributes; a modification time unless something is written after it."""
        with self.lock:
            self.metadata = posix_format.changed(self.metadata or {}, changes)
            if changes.mtime_ns is not None:
                self.set_mtime(changes.mtime_ns)

    def snapshot(self) -> Snapshot:
        """The file as it is now, for a commit or the journal; to be closed, and as soon as it is not needed."""
        with self.lock:
            content = self._open_content()
            snapshot = Snapshot(
                content,
                self._base.hold() if self._base else None,
                self._missing.copy(),
                self._unchanged.copy(),
                path=self.path,
                size_bytes=self.size_bytes,
                mtime_ns=self.mtime_ns,
                keeps_mtime=self.keeps_mtime,
                expected=self.expected,
                sequence=self.changes,
                metadata=self._description(),
            )
            self._snapshots = [*self._open_snapshots(), snapshot]
            return snapshot

    def committed(self, snapshot: Snapshot, version: Version | None, base: Callable[[], Reader] | None) -> None:
        """A snapshot, which is still open, is what is stored now, as this version; base() opens a reader of it.

        Snapshots that were taken later are based on it too. Without base: the snapshot was stored under another name,
        so that it needs no commit any more, and the file is still based on what it was. Raises what base() raises,
        when all else is done.
        """
        with self.lock:
            self._committed = snapshot.sequence
            borrowed_since = _is_borrowed_apart(self._base, snapshot)
            if not borrowed_since and snapshot.content is self._content is not None:
                self._missing = self._missing.common(snapshot.missing)  # what was fetched for it is here
                self._let_go_of_base()
            if base is None:
                return
            self.expected = version
            if not borrowed_since:
                self._unchanged = self._unchanged_since(snapshot)
            self._rebase_since(snapshot, version, base, keep_own=borrowed_since)

    def rebase(self, expected: Expected, base: Reader) -> None:
        """What this is based on has another version, and perhaps another name, with the same content. Under lock."""
        fresh = Base(base)
        try:
            borrows = self.origin is not None
            if self._base is not None and not borrows and fresh.size_bytes != self._base.size_bytes:
                return  # somebody was faster; the commit will say so
            for snapshot in self._open_snapshots():
                if snapshot.expected == self.expected and snapshot.origin is not None:
                    snapshot.expect(expected)
                elif snapshot.expected == self.expected:
                    snapshot.rebase(expected, fresh.hold() if snapshot.missing else None)
            if not borrows:
                self._exchange_base(fresh.hold() if self._missing else None)
            self.expected = expected
        finally:
            fresh.release()

    # Inside

    def _description(self) -> Mapping[str, str] | None:
        if self.metadata is None:
            return None
        if self.keeps_mtime:
            return posix_format.changed(self.metadata, Attributes(mtime_ns=self.mtime_ns))
        times = {attribute: getattr(self, attribute) for attribute in self.stored_times}
        kept = self.metadata if 'ctime_ns' in times else posix_format.without_times(self.metadata)
        return posix_format.changed(kept, Attributes(**times))

    def _rebase_since(
        self, snapshot: Snapshot, version: Version | None, base: Callable[[], Reader], *, keep_own: bool
    ) -> None:
        """What is based on what a snapshot was based on is based on what that became now. Raises what base() raises."""
        later = [other for other in self._open_snapshots() if other.sequence > snapshot.sequence]
        kept = [other for other in later if _is_borrowed_apart(other.base, snapshot)]
        for other in kept:
            other.expect(version)
        later = [other for other in later if other not in kept]
        is_missing = bool(self._missing) and not keep_own
        fresh = None
        try:
            if is_missing or any(other.missing for other in later):
                fresh = Base(base())
                if not keep_own:
                    self._exchange_base(fresh.hold() if is_missing else None)
        finally:
            for other in later:
                other.rebase(version, fresh.hold() if fresh and other.missing else None)
            if fresh:
                fresh.release()

    def _unchanged_since(self, snapshot: Snapshot) -> Extents:
        unchanged = Extents()
        if snapshot.content is not None:  # otherwise nobody noted what was written
            unchanged.add(0, snapshot.size_bytes)
            for extent in snapshot.written:
                unchanged.remove(extent.offset, extent.size_bytes)
        for extent in self._missing:
            unchanged.add(extent.offset, extent.size_bytes)
        return unchanged


def _is_borrowed_apart(base: Base | None, snapshot: Snapshot) -> bool:
    """Whether a base is of another file, and not the one of a snapshot."""
    return base is not None and base.origin is not None and base is not snapshot.base
