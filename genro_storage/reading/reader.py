"""One open read handle, of kinds that read alike: through blocks, straight from a backend, from a descriptor.

A handle shows one version of its file from open to close. Threads: safe; the lock guards the window, never I/O.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from genro_storage.backends.base import Backend
from genro_storage.cache.blocks import BLOCK_BYTES, Block, numbers
from genro_storage.entry import Entry, Extent
from genro_storage.errors import StorageConflictError
from genro_storage.reading.fetcher import RANGE_BLOCKS, Fetch, Fetcher, File
from genro_storage.reading.loans import Loan
from genro_storage.reading.window import SLACK_BYTES, Window
from genro_storage.runtime import about_to_block

RANGE_BYTES = RANGE_BLOCKS * BLOCK_BYTES
#: A smaller file is read by the kernel in one request and stays in its page cache; to hand it a descriptor costs more.
WORTH_HANDING_OUT_BYTES = 1 << 20
#: A file up to this is checked as soon as all of it is there and somebody has read in it: 2 s of the disk. A larger one
#: when somebody has read as much as all of it.
CHECKED_BYTES = 4 << 30


class Reader(Protocol):
    """An open file to read from."""

    @property
    def size_bytes(self) -> int:
        """The length of the version that is being read."""

    def read(self, offset: int, size_bytes: int) -> bytes | memoryview:
        """These bytes, fewer only at the end of the file. Raises StorageConflictError if the version is gone."""

    def close(self) -> None:
        """Give back what the handle holds. Idempotent."""


class BlockReader:
    """Reads through the block cache and has more fetched ahead while reads are in sequence.

    ``on_gone`` is called when the version turns out to be gone, before the error is raised.
    """

    def __init__(self, path: str, entry: Entry, fetcher: Fetcher, on_gone: Callable[[], None]) -> None:
        self._file = File(path, entry)
        self._entry = entry
        self._fetcher = fetcher
        self._on_gone = on_gone
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._window = Window()
        self._ahead_to = 0  # the first block not yet asked for ahead
        self._ahead: list[Fetch] = []  # what was begun and may not have arrived
        self._streaming = False
        self._passed_to = 0  # the first block that the stream has not left behind
        self._read_bytes = 0

    @property
    def size_bytes(self) -> int:
        """See Reader."""
        return self._file.size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes | memoryview:
        """See Reader."""
        pieces = self.pieces(offset, size_bytes)
        return pieces[0] if len(pieces) == 1 else b''.join(pieces)

    def pieces(self, offset: int, size_bytes: int) -> list[memoryview]:
        """What read() returns, as the cache holds it: in one piece or several, uncopied."""
        wanted = Extent(offset, min(size_bytes, self._file.size_bytes - offset))
        touched = numbers(wanted)
        if not touched:
            return []
        blocks = self._fetcher.find(self._file, touched)
        missing = [number for number, block in zip(touched, blocks, strict=True) if block is None]
        if missing:
            about_to_block()  # before the window learns of this read: a worker will start it again
        self._look_ahead(wanted)
        if missing:
            fetched = iter(self._fetch(missing))
            blocks = [next(fetched) if block is None else block for block in blocks]
        return _cut(blocks, offset - touched[0] * BLOCK_BYTES, wanted.size_bytes)

    def lend(self) -> Loan | None:
        """See Lends."""
        file = self._file
        if not file.version.strong:
            return None
        return Loan(
            self._fetcher.backend,
            file.path,
            file.version,
            file.size_bytes,
            lambda: BlockReader(file.path, self._entry, self._fetcher, self._on_gone),
        )

    def begin(self) -> None:
        """See to it that the version is still there: its beginning is in the cache, or is fetched now.

        Raises StorageConflictError if it is gone.
        """
        if self._file.size_bytes and not self._fetcher.has_begun(self._file):
            self._fetch([0])

    def close(self) -> None:
        """See Reader. What is not under way yet of what was asked for ahead is called off."""
        with self._lock:
            self._end_stream()
            worth_checking = self._is_worth_checking()
            self._read_bytes = 0
        if worth_checking:
            self._fetcher.check_file(self._file)

    def _fetch(self, missing: Sequence[int]) -> list[Block]:
        try:
            return self._fetcher.fetch(self._file, missing)
        except StorageConflictError:
            self._on_gone()
            raise

    def _look_ahead(self, wanted: Extent) -> None:
        with self._lock:
            self._read_bytes += wanted.size_bytes
            ahead_bytes = self._window.after(wanted.offset, wanted.size_bytes, self._fetcher.ahead_bytes)
            if not ahead_bytes:
                self._end_stream()
                return
            if not self._streaming:
                self._streaming = True
                self._ahead_to = 0
                self._passed_to = wanted.offset // BLOCK_BYTES
                self._fetcher.opened_stream(1)
            end = wanted.end + ahead_bytes
            if ahead_bytes >= RANGE_BYTES:
                end = -(-end // RANGE_BYTES) * RANGE_BYTES  # whole ranges
            end = min(end, self._file.size_bytes)
            first = max(self._ahead_to, wanted.offset // BLOCK_BYTES)
            last = (end - 1) // BLOCK_BYTES
            # In steps of half a window, so that ranges stay long while the reader moves in small ones.
            if (last + 1 - first) * BLOCK_BYTES < ahead_bytes // 2 and end < self._file.size_bytes:
                return
            self._ahead_to = max(self._ahead_to, last + 1)
            behind = range(self._passed_to, (wanted.offset - SLACK_BYTES) // BLOCK_BYTES)
            self._passed_to = max(self._passed_to, behind.stop)
        self._fetcher.passed(self._file, behind)
        begun = self._fetcher.prefetch(self._file, first, last) if first <= last else []
        with self._lock:
            self._ahead = [fetch for fetch in self._ahead if not fetch.run.done()] + begun

    def _is_worth_checking(self) -> bool:
        """Whether the file may be whole on the disk by now, and wanted again."""
        size_bytes = self._file.size_bytes
        return size_bytes >= WORTH_HANDING_OUT_BYTES and (
            self._read_bytes >= size_bytes or (self._read_bytes > 0 and size_bytes <= CHECKED_BYTES)
        )

    def _end_stream(self) -> None:
        """Called with the lock held."""
        if self._streaming:
            self._streaming = False
            self._fetcher.opened_stream(-1)
        ahead, self._ahead = self._ahead, []
        self._fetcher.call_off(ahead)


class LatestReader:
    """Follows a file to a newer version, until something of it was told: then it stays with that one.

    An entry is believed for its TTL, so a file may be opened as it was before somebody else replaced it. Whoever has
    seen neither bytes nor size of that version would get an error for nothing.
    """

    def __init__(self, open_reader: Callable[[], Reader]) -> None:
        self._open_reader = open_reader
        self._lock = threading.Lock()
        self._reader = open_reader()  # guarded by _lock
        self._told = False  # guarded by _lock

    @property
    def size_bytes(self) -> int:
        """See Reader."""
        return self._settle().size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes | memoryview:
        """See Reader."""
        reader = self._reader
        try:
            data = reader.read(offset, size_bytes)
        except StorageConflictError:
            if not self._follow(reader):
                raise
            return self.read(offset, size_bytes)
        # Of reads at once from two versions, only one is told of.
        return data if self._settle() is reader else self._reader.read(offset, size_bytes)

    def close(self) -> None:
        """See Reader."""
        self._reader.close()

    def _settle(self) -> Reader:
        with self._lock:
            self._told = True
            return self._reader

    def _follow(self, gone: Reader) -> bool:
        """Open the file anew, once; whether there is another reader now than the one whose version is gone."""
        with self._lock:
            if self._told or self._reader is not gone:
                return self._reader is not gone
        newer = self._open_reader()
        with self._lock:
            if not self._told:
                self._reader, newer, self._told = newer, self._reader, True
        newer.close()
        return self._reader is not gone


class DirectReader:
    """Reads straight from a backend that answers from memory."""

    def __init__(self, path: str, entry: Entry, backend: Backend) -> None:
        self._path = path
        self._entry = entry
        self._backend = backend

    @property
    def size_bytes(self) -> int:
        """See Reader."""
        return self._entry.size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        """See Reader."""
        return self._backend.read_range(self._path, offset, size_bytes, self._entry.version)

    def lend(self) -> Loan | None:
        """See Lends."""
        path, entry, backend = self._path, self._entry, self._backend
        if entry.version is None or not entry.version.strong:
            return None
        return Loan(backend, path, entry.version, entry.size_bytes, lambda: DirectReader(path, entry, backend))

    def close(self) -> None:
        """See Reader."""


class DescriptorReader:
    """Reads a local file through a descriptor, which keeps its version alive even when it is replaced."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def size_bytes(self) -> int:
        """The length now: a local file may grow while it is read."""
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, size_bytes: int) -> bytes:
        """See Reader."""
        return os.pread(self._descriptor, size_bytes, offset)

    def close(self) -> None:
        """See Reader."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _cut(blocks: Sequence[Block | None], start: int, size_bytes: int) -> list[memoryview]:
    """size_bytes of consecutive blocks, from start of the first one on."""
    pieces = [memoryview(block) for block in blocks if block is not None]
    pieces[0] = pieces[0][start:]
    pieces[-1] = pieces[-1][: size_bytes - sum(len(piece) for piece in pieces[:-1])]
    return pieces
