"""The bytes of a file that is being written, on the local disk: what is here, and what is read where it was.

Owns which bytes are here, which are only in the version it is based on (*missing*) and which equal that version
(*unchanged*, the missing ones among them). A write fetches nothing: it takes its range out of both. What is missing is
read through the base and not stored, except for a small base, which the first write brings here as a whole, so that a
conflict can keep a copy of everything. Does not know about backends: the base comes as a Reader.

The base may be another file, the *origin*, of which this one is a copy so far: its bytes are *borrowed*.

Threads: safe. ``lock`` is held while bytes change, not while a base is read for a reader. Where nothing is missing,
reads take no lock; plain attributes never do.

Snapshots share the content with the file. A write below the size of one that is open goes to a copy of the content,
which is the file's from then on; behind all of them it goes to the same content, so that appending copies nothing.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from genro_storage.entry import Extent
from genro_storage.errors import StorageIOError, StorageUnsupportedError
from genro_storage.local_disk import local_disk_errors
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock, HandleLock
from genro_storage.writing.content import Content
from genro_storage.writing.extents import Extents
from genro_storage.writing.origins import Origin
from genro_storage.writing.snapshot import EXTENTS_MAX, Base, Snapshot, base_gone, pieced, steps

#: A base up to here is fetched by the first write that leaves some of it: one request, which most commits would make.
SMALL_BASE_BYTES = 1 << 20


class Watch(Protocol):
    """Who is told of each change, under the file's lock."""

    def wrote(self, start: int, end: int) -> None:
        """Bytes were written."""

    def cut(self, size_bytes: int) -> None:
        """The file was cut off or lengthened to this length."""


class StagedBytes:
    """What all who write a file share of it."""

    def __init__(
        self,
        path: str,
        directory: Path,
        clock: Clock,
        base: Reader | None,
        mtime_ns: int | None,
        content: Content | None,
        origin: Origin | None,
    ) -> None:
        """See StagedFile."""
        self.path = path
        self.lock = HandleLock()
        self._directory = directory
        self._clock = clock
        # Changed only under lock; read without.
        self.size_bytes = base.size_bytes if base else 0
        self.mtime_ns = clock.time_ns() if mtime_ns is None else mtime_ns
        self.keeps_mtime = False  # mtime_ns was set by somebody, and is not just when it was written
        self.changes = 0
        self._content: Content | None = content or Content.create(directory)
        self._base = Base(base, origin) if base else None
        # Guarded by lock. ``_missing`` grows behind the end only (borrow), and what is taken out of it is in
        # ``_content`` by then.
        self._missing = Extents([Extent(0, self.size_bytes)])
        self._unchanged = self._missing.copy()
        self._snapshots: list[Snapshot] = []  # those that may be open
        self.watch: Watch | None = None

    @property
    def local_bytes(self) -> int:
        """How much of it is here."""
        return self.size_bytes - self._missing.size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes as they are now, fewer only at the end. Raises StorageConflictError if what is missing has gone."""
        if self._missing:
            return self._read_pieced(offset, size_bytes)
        content = self._open_content()  # by a name, which keeps its descriptor open if a write goes on with a copy
        try:
            # Bounded by the file, because the buffer is allocated before anything is read.
            return os.pread(content.descriptor, max(0, min(size_bytes, self.size_bytes - offset)), offset)
        except OSError:
            with local_disk_errors(self._directory):  # a context only now: it would cost a read half its time
                raise

    def write(self, offset: int | None, data: bytes | memoryview) -> int:
        """Write at an offset, or with None at the end; returns how many bytes were taken."""
        if not data:
            return 0
        with self.lock:
            start = self.size_bytes if offset is None else offset
            content = self._open_content()
            if self._missing or self._snapshots or not content.writable:
                content = self._prepare_change(Extent(start, len(data)), self.size_bytes)
            try:
                written = os.pwrite(content.descriptor, data, start)
            except OSError:
                with local_disk_errors(self._directory):
                    raise
            end = start + written
            if end > self.size_bytes:
                self.size_bytes = end
            if self._unchanged or self._snapshots:
                self._forget(start, end)
            self._touch()
            if self.watch is not None:
                self.watch.wrote(start, end)
            return written

    def truncate(self, size_bytes: int) -> None:
        """Cut off, or lengthen with zeros."""
        with self.lock, local_disk_errors(self._directory):
            if size_bytes < 0:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            cut = Extent(size_bytes, max(0, self.size_bytes - size_bytes))
            content = self._prepare_change(cut, size_bytes)
            os.ftruncate(content.descriptor, size_bytes)
            self.size_bytes = size_bytes
            self._forget(cut.offset, cut.end)
            self._touch()
            if self.watch is not None:
                self.watch.cut(size_bytes)

    def zero(self, offset: int, size_bytes: int) -> None:
        """Make a range zeros, as far as the file goes; on the local disk it is a hole."""
        with self.lock:
            change = Extent(offset, max(0, min(offset + size_bytes, self.size_bytes) - offset))
            if not change.size_bytes:
                return
            self._prepare_change(change, self.size_bytes).zero(change)
            self._forget(change.offset, change.end)
            self._touch()
            if self.watch is not None:
                self.watch.wrote(change.offset, change.end)

    def reserve(self, offset: int, size_bytes: int) -> None:
        """Have room on the local disk for a range that is to be written."""
        with self.lock:
            self._open_content().reserve(Extent(offset, size_bytes))

    def seek(self, offset: int, whence: int) -> int:
        """Where data or a hole begins from an offset inside the file on; its length where nothing does.

        What is missing is data: whether there are holes in the base nobody knows.
        """
        with self.lock:
            content, end = self._open_content(), self.size_bytes
            if whence == os.SEEK_DATA:
                missing = self._missing.within(Extent(offset, end - offset))[:1]
                return min([content.seek(offset, whence, end), *(extent.offset for extent in missing)])
            while offset < end:
                missing_here = self._missing.at(offset)
                hole = missing_here.end if missing_here else content.seek(offset, whence, end)
                if hole == offset:
                    break
                offset = hole
            return min(offset, end)

    @property
    def origin(self) -> Origin | None:
        """The other file that what is missing is in, if it is in one."""
        base = self._base
        return base.origin if base is not None else None

    def borrow(self, origin: Origin, open_base: Callable[[], Reader], extent: Extent) -> None:
        """Have bytes of another file at the same offsets be those behind the end of this one: fetched only if need be.

        A file borrows from its beginning on, and from one file. Raises StorageUnsupportedError otherwise, with nothing
        done, and what open_base() raises.
        """
        with self.lock:
            if not self.may_borrow(origin, extent):
                raise StorageUnsupportedError(f'{self.path!r} cannot have these bytes of {origin.path!r} as its own')
            if self.origin is None:
                self._exchange_base(Base(open_base(), origin))
            self._missing.add(extent.offset, extent.size_bytes)
            self._unchanged.add(extent.offset, extent.size_bytes)
            self.size_bytes = extent.end  # last: who reads without the lock finds what is missing by then
            self._touch()

    def may_borrow(self, origin: Origin, extent: Extent) -> bool:
        """Whether borrow() would do it. Under lock, which keeps it so."""
        base = self._base
        if origin.path == self.path or extent.offset != self.size_bytes or not self._open_content().writable:
            return False
        if base is None or base.origin is None:
            return not self.size_bytes
        if base.origin != origin or len(self._missing) >= EXTENTS_MAX:
            return False
        # What a snapshot is stored as ends where that did: it cannot be the base of more.
        return not any(snapshot.base is base for snapshot in self._open_snapshots())

    def complete(self) -> None:
        """Fetch all that is missing: its base is about to go. Raises what reading the base raises."""
        with self.lock:
            for extent in list(self._missing):
                self._fetch(extent)

    def close(self) -> None:
        """Drop the bytes, but for snapshots that are open. Idempotent."""
        # Without the lock: a thread that serves must not have to start a release again.
        self._content = None
        self._missing = Extents()
        self._let_go_of_base()

    # Inside

    def _read_pieced(self, offset: int, size_bytes: int) -> bytes:
        # The local bytes and what is missing of one moment; what is missing stays the same while it is fetched.
        with self.lock:
            wanted = Extent(offset, max(0, min(size_bytes, self.size_bytes - offset)))
            content = self._open_content()
            missing = self._missing.within(wanted)
            local = b'' if missing == [wanted] else content.read(offset, wanted.size_bytes)
            if not missing:
                return local
            path, base = self.path, self._base_to_read().hold()
        try:
            return pieced(path, base, local, wanted, missing)
        finally:
            base.release()

    def _prepare_change(self, change: Extent, kept_bytes: int) -> Content:
        """The content to change a range of, where what is below kept_bytes stays as it is. Nobody sees any of it."""
        if self._missing and self._base is not None:
            if self._base.size_bytes <= SMALL_BASE_BYTES:
                self._fetch_around(change, kept_bytes)
            elif len(self._missing) >= EXTENTS_MAX:
                self._fetch_beside(change)
        content = self._open_content()
        if not content.writable or change.offset < self._frozen_to(content):
            content = self._exchange_content(kept_bytes)
        return content

    def _fetch_around(self, change: Extent, kept_bytes: int) -> None:
        """Fetch all that is missing, but for what is about to change or to be cut off."""
        wanted = self._missing.copy()
        wanted.clip(kept_bytes)
        wanted.remove(change.offset, change.size_bytes)
        for extent in wanted:
            self._fetch(extent)

    def _fetch_beside(self, change: Extent) -> None:
        """Fetch the smaller side of what a change would split, so that there are no more ranges than before."""
        split = self._missing.at(change.offset)
        if split is not None and split.offset < change.offset and change.end < split.end:
            before = Extent(split.offset, change.offset - split.offset)
            behind = Extent(change.end, split.end - change.end)
            self._fetch(min(before, behind, key=lambda extent: extent.size_bytes))

    def _fetch(self, extent: Extent) -> None:
        """Bring some of the base here. May be started again after WouldBlock."""
        base = self._base_to_read()
        for step in steps(extent):
            data = base.read(self.path, step)
            content = self._open_content()
            if not content.writable:
                content = self._exchange_content(self.size_bytes)
            # Into a content that snapshots share, too: missing there or here, these are the bytes.
            content.write(step.offset, data)
            self._missing.remove(step.offset, step.size_bytes)
        self._let_go_of_base()

    def _exchange_content(self, kept_bytes: int) -> Content:
        """Go on with a copy; snapshots keep the old content."""
        kept_bytes = min(kept_bytes, self.size_bytes)  # one that was adopted may go on behind the end
        local = Extents([Extent(0, kept_bytes)])
        for extent in self._missing:
            local.remove(extent.offset, extent.size_bytes)
        self._content = copied = self._open_content().copy(local, kept_bytes)
        return copied

    def _frozen_to(self, content: Content) -> int:
        """Up to where snapshots that are open need the content as it is."""
        self._snapshots = self._open_snapshots()
        return max((other.size_bytes for other in self._snapshots if other.content is content), default=0)

    def _open_snapshots(self) -> list[Snapshot]:
        return [snapshot for snapshot in self._snapshots if snapshot.content is not None]

    def _forget(self, start: int, end: int) -> None:
        """Bytes have changed: they are in no base any more, and not what a snapshot holds."""
        for snapshot in self._snapshots:
            snapshot.note(start, end)
        if self._missing:
            self._missing.remove(start, end - start)
            self._let_go_of_base()
        self._unchanged.remove(start, end - start)
        if len(self._unchanged) > 2 * EXTENTS_MAX:
            # Less is only more to send, and small ones are of no use to a commit. Those that are missing must stay, so
            # the bound is far enough above theirs that this happens once in thousands of writes: it takes 25 ms.
            self._unchanged = Extents([*self._unchanged.largest(EXTENTS_MAX // 2), *self._missing])

    def _exchange_base(self, base: Base | None) -> None:
        base, self._base = self._base, base
        if base is not None:
            base.release()

    def _let_go_of_base(self) -> None:
        if not self._missing and self._base is not None:
            if self.origin is not None:
                self._unchanged = Extents()  # of the origin, that is, which nobody knows of any more
            self._exchange_base(None)

    def _base_to_read(self) -> Base:
        if self._base is None:
            raise base_gone(self.path)
        return self._base

    def _open_content(self) -> Content:
        content = self._content
        if content is None:
            raise StorageIOError(f'{self.path!r} is closed')
        return content

    def _touch(self) -> None:
        self.mtime_ns = self._clock.time_ns()
        self.keeps_mtime = False
        self.changes += 1
