"""A staged file as it was at one moment, for whoever stores it while writing goes on; and the base that both share.

Owns what a snapshot reads and how it becomes complete. Does not keep its bytes from being written: the staged file
does, by writing elsewhere (see staging).

Threads: safe. A snapshot's lock is a leaf, held while bytes reach the local disk but never while any are fetched;
completing is serialised by a lock of its own, which is held across I/O and taken before the other.
"""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from genro_storage.backends.base import Expected
from genro_storage.entry import Extent
from genro_storage.errors import StorageConflictError, StorageIOError
from genro_storage.reading.reader import Reader
from genro_storage.runtime import HandleLock
from genro_storage.writing.content import Content
from genro_storage.writing.extents import Extents
from genro_storage.writing.origins import Origin

#: One step of fetching a base: long enough for the reader's window to open, small enough to keep memory flat.
STEP_BYTES = 4 << 20
#: Ranges that are kept apart in one set. Each costs 16 bytes in memory, and in a journal's record.
EXTENTS_MAX = 10_000


class Base:
    """The version that staged bytes are based on: a Reader, counted, so that the last who holds it closes it.

    With an origin it is one of another file, whose bytes at the same offsets are borrowed.
    """

    def __init__(self, reader: Reader, origin: Origin | None = None) -> None:
        self.origin = origin
        self._reader = reader
        self._lock = threading.Lock()
        self._holders = 1  # guarded by _lock

    @property
    def size_bytes(self) -> int:
        """The length of that version."""
        return self._reader.size_bytes

    def hold(self) -> 'Base':
        """This, for one holder more. Raises StorageIOError if the last one has gone."""
        with self._lock:
            if not self._holders:
                raise StorageIOError('the file is closed')
            self._holders += 1
        return self

    def release(self) -> None:
        """To be called once by each who holds it."""
        with self._lock:
            self._holders -= 1
            last = not self._holders
        if last:
            self._reader.close()

    def read(self, path: str, extent: Extent) -> bytes | memoryview:
        """Exactly these bytes. Raises StorageConflictError if there are fewer, and what the reader raises."""
        data = self._reader.read(extent.offset, extent.size_bytes)
        while len(data) < extent.size_bytes:
            found = extent.offset + len(data)
            more = self._reader.read(found, extent.end - found)
            if not more:
                raise StorageConflictError(f'{path!r} ends at {found}, not {extent.end}: it has changed')
            data = b''.join((data, more))
        return data


def base_gone(path: str) -> StorageConflictError:
    """The refusal to read what was never fetched of a version that nobody has any more."""
    return StorageConflictError(f'{path!r}: what was not written of it is in a version that has gone')


def pieced(path: str, base: Base, local: bytes, wanted: Extent, missing: list[Extent]) -> bytes:
    """Bytes from the local disk, with those that are missing there from the base. Raises what Base.read raises."""
    if missing == [wanted]:
        return bytes(base.read(path, wanted))
    data = bytearray(local.ljust(wanted.size_bytes, b'\0'))
    for extent in missing:
        start = extent.offset - wanted.offset
        data[start : start + extent.size_bytes] = base.read(path, extent)
    return bytes(data)


def steps(extent: Extent) -> Iterator[Extent]:
    """A range in pieces that are fetched at a time."""
    for offset in range(extent.offset, extent.end, STEP_BYTES):
        yield Extent(offset, min(STEP_BYTES, extent.end - offset))


class Snapshot:
    """A Source: what a staged file held when it was taken, whatever is written to that later. To be closed."""

    def __init__(
        self,
        content: Content,
        base: Base | None,
        missing: Extents,
        unchanged: Extents,
        *,
        path: str,
        size_bytes: int,
        mtime_ns: int,
        keeps_mtime: bool,
        expected: Expected,
        sequence: int,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Takes over a hold on the base, and the sets."""
        self.path = path
        self.size_bytes = size_bytes
        self.mtime_ns = mtime_ns
        self.keeps_mtime = keeps_mtime
        self.expected = expected
        #: What it is to be described by; None where the backend stores no metadata.
        self.metadata = metadata
        #: The staged file's ``changes`` at that moment.
        self.sequence = sequence
        #: Equal to the origin, or else to the version ``expected``, at the same offsets, whether it is here or not. It
        #: need not be sent.
        self.unchanged = unchanged
        #: Of these, what is only there. Replaced, never changed in place: who has taken it may go through it.
        self.missing = missing
        #: What the staged file has changed since, below the snapshot's size. Guarded by the staged file's lock.
        self.written = Extents()
        self._lock = threading.Lock()
        #: None once it is closed. Guarded by _lock, and the base with it.
        self.content: Content | None = content
        self._base = base
        self._completing = HandleLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def base(self) -> Base | None:
        """What is missing is in it."""
        with self._lock:
            return self._base

    @property
    def origin(self) -> Origin | None:
        """Whose bytes the unchanged ones are, if they are another file's."""
        base = self.base
        return base.origin if base is not None else None

    @property
    def is_copy(self) -> bool:
        """Whether it is the origin, all of it and nothing else."""
        origin = self.origin
        return (
            origin is not None
            and origin.size_bytes == self.size_bytes
            and self.unchanged.covers(Extent(0, self.size_bytes))
        )

    def read(self, offset: int, size_bytes: int) -> bytes:
        """See Source. Raises StorageConflictError if what is missing has gone."""
        wanted = Extent(offset, max(0, min(size_bytes, self.size_bytes - offset)))
        with self._lock:
            content = self._open_content()
            missing = self.missing.within(wanted)
            base = self._hold_base() if missing else None
        if base is None:
            data = content.read(offset, wanted.size_bytes)
            if len(data) < wanted.size_bytes:
                raise StorageIOError(f'{self.path!r}: what is staged ends at {offset + len(data)}, not {wanted.end}')
            return data
        try:
            local = b'' if missing == [wanted] else content.read(offset, wanted.size_bytes)
            return pieced(self.path, base, local, wanted, missing)
        finally:
            base.release()

    def read_here(self, wanted: Extent) -> list[tuple[Extent, bytes]]:
        """Of these bytes, those that are not missing."""
        with self._lock:
            content = self._open_content()
            here = Extents([wanted])
            for extent in self.missing.within(wanted):
                here.remove(extent.offset, extent.size_bytes)
        return [(extent, content.read(extent.offset, extent.size_bytes)) for extent in here]

    def fileno(self) -> int:
        """See Source: the descriptor of a file that begins with the whole snapshot, and may go on behind its end.

        Completes it first.
        """
        self.complete()
        with self._lock:
            return self._open_content().descriptor

    def complete(self) -> None:
        """Fetch what is missing. Raises StorageConflictError if it has gone, and what reading raises."""
        if not self.missing:
            return
        with self._completing:
            with self._lock:
                content = self._open_content()
                base = self._hold_base()
            try:
                if not content.writable:
                    content = self._move_to_copy(content)
                for extent in self.missing:
                    for step in steps(extent):
                        self._store(content, step, base.read(self.path, step))
            finally:
                base.release()

    def whole(self, limit_bytes: int) -> bytes | None:
        """All of it, if that is no more and all here."""
        return None if self.size_bytes > limit_bytes or self.missing else self.read(0, self.size_bytes)

    def link(self, path: Path) -> None:
        """Give its bytes a name on the local disk; what is missing is missing there. See Content.link."""
        self._content_now().link(path)

    def fsync(self) -> None:
        """Make its bytes, and so the file that was linked, outlast a loss of power."""
        self._content_now().fsync()

    def rebase(self, expected: Expected, base: Base | None) -> None:
        """The version it is based on is another one now, with the same bytes where any are missing or unchanged.

        Takes over a hold on the base. Under the staged file's lock.
        """
        with self._lock:
            if self.content is not None:
                self.expected = expected
                base, self._base = self._base, base
        if base is not None:
            base.release()

    def expect(self, expected: Expected) -> None:
        """It is to replace another version; what is missing is in its origin still. Under the staged file's lock."""
        with self._lock:
            if self.content is not None:
                self.expected = expected

    def note(self, start: int, end: int) -> None:
        """The staged file has changed bytes since. Under its lock."""
        self.written.add(start, min(end, self.size_bytes) - start)
        if len(self.written) > EXTENTS_MAX:
            # Too much is only sent again.
            first = next(iter(self.written)).offset
            self.written.add(first, self.written.end - first)

    def close(self) -> None:
        """Let go of the bytes and the base. Idempotent."""
        with self._lock:
            self.content = None
            base, self._base = self._base, None
        if base is not None:
            base.release()

    def _store(self, content: Content, step: Extent, data: bytes | memoryview) -> None:
        # Under the lock, so that nothing is written once close() has given the bytes back to the staged file.
        with self._lock:
            if self.content is not content:
                raise StorageIOError(f'{self.path!r}: the snapshot was closed')
            content.write(step.offset, data)
            missing = self.missing.copy()
            missing.remove(step.offset, step.size_bytes)
            self.missing = missing

    def _move_to_copy(self, content: Content) -> Content:
        copied = content.copy([Extent(0, self.size_bytes)], self.size_bytes)
        with self._lock:
            self._open_content()
            self.content = copied
        return copied

    def _content_now(self) -> Content:
        with self._lock:
            return self._open_content()

    def _open_content(self) -> Content:
        """Under the lock."""
        if self.content is None:
            raise StorageIOError(f'{self.path!r}: the snapshot is closed')
        return self.content

    def _hold_base(self) -> Base:
        """Under the lock."""
        if self._base is None:
            raise base_gone(self.path)
        return self._base.hold()
