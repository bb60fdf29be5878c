"""One open read handle, of kinds that read alike: through blocks, straight from a backend, from a descriptor.

A handle shows one version of its file from open to close. Threads: safe; the lock guards the window, never I/O.
"""

import os
import threading
from collections.abc import Callable
from typing import Protocol

from genro_storage.backends.base import Backend
from genro_storage.cache.blocks import BLOCK_BYTES, numbers
from genro_storage.entry import Entry, Extent
from genro_storage.errors import StorageConflictError
from genro_storage.reading.fetcher import Fetcher, File
from genro_storage.reading.window import Window
from genro_storage.runtime import about_to_block


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
    """Reads through the block cache and prefetches while reads are in sequence.

    ``on_gone`` is called when the version turns out to be gone, before the error is raised.
    """

    def __init__(self, path: str, entry: Entry, fetcher: Fetcher, on_gone: Callable[[], None]) -> None:
        self._file = File(path, entry)
        self._fetcher = fetcher
        self._on_gone = on_gone
        self._lock = threading.Lock()
        self._window = Window()  # guarded by _lock
        self._ahead_to = 0  # the first block not yet asked for ahead; guarded by _lock

    @property
    def size_bytes(self) -> int:
        """See Reader."""
        return self._file.size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes | memoryview:
        """See Reader."""
        wanted = Extent(offset, min(size_bytes, self._file.size_bytes - offset))
        touched = numbers(wanted)
        if not touched:
            return b''
        blocks = self._fetcher.find(self._file, touched)
        missing = [number for number, block in zip(touched, blocks, strict=True) if block is None]
        if missing:
            about_to_block()  # before the window learns of this read: a worker will start it again
        self._prefetch(wanted)
        if missing:
            try:
                fetched = iter(self._fetcher.fetch(self._file, missing))
            except StorageConflictError:
                self._on_gone()
                raise
            blocks = [next(fetched) if block is None else block for block in blocks]
        return _join(blocks, offset - touched[0] * BLOCK_BYTES, wanted.size_bytes)  # type: ignore[arg-type]

    def close(self) -> None:
        """See Reader."""

    def _prefetch(self, wanted: Extent) -> None:
        with self._lock:
            ahead_bytes = self._window.after(wanted.offset, wanted.size_bytes)
            end = min(wanted.end + ahead_bytes, self._file.size_bytes)
            last = numbers(Extent(wanted.offset, end - wanted.offset))[-1]
            if not ahead_bytes:
                self._ahead_to = last + 1
                return
            first = max(self._ahead_to, wanted.offset // BLOCK_BYTES)
            # In steps of half a window, so that ranges stay long while the reader moves in small ones.
            if (last + 1 - first) * BLOCK_BYTES < ahead_bytes // 2 and end < self._file.size_bytes:
                return
            self._ahead_to = max(self._ahead_to, last + 1)
        self._fetcher.prefetch(self._file, range(first, last + 1))


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


def _join(blocks: list[bytes], start: int, size_bytes: int) -> bytes | memoryview:
    """size_bytes of consecutive blocks, from start of the first one on; of a single block without a copy."""
    if len(blocks) == 1:
        return memoryview(blocks[0])[start : start + size_bytes]
    pieces = [memoryview(block) for block in blocks]
    pieces[0] = pieces[0][start:]
    pieces[-1] = pieces[-1][: size_bytes - sum(len(piece) for piece in pieces[:-1])]
    return b''.join(pieces)
