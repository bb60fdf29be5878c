"""Room for the disk cache: how much may be kept, and who must go for it.

Owns the two bounds: ``limit_bytes`` for all processes together, and a tenth of the disk that stays free. Room is
claimed from the shared count in pieces before anything is written, so that a process that is killed leaves the count
too high, never too low; the next walk corrects it. Beyond the limit there can be one piece for each process that wrote
during a walk, and for a few seconds what other processes have open of evicted files (see descriptors).

Threads: safe; one lock, never held across I/O.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from genro_storage.cache import eviction
from genro_storage.cache.usage import Usage
from genro_storage.runtime import Clock

#: Of 16 blocks, one asks the other processes.
PIECE_BYTES = 4 << 20
#: What one eviction frees beyond need: each walks the directory twice (0.3 s for 20,000 files).
SLACK = 10
#: How long to leave it at that when an eviction could not make enough room.
RETRY_S = 10.0


class Space:
    """The room that one process has in a directory which it shares.

    ``let_go`` is called after an eviction, to close what this process has open of evicted files: only then is their
    room free.
    """

    def __init__(self, root: Path, limit_bytes: int, clock: Clock, let_go: Callable[[], None]) -> None:
        self._root = root
        self._let_go = let_go
        self._limit_bytes = limit_bytes
        # A small limit, in small pieces: 1.6 % of it for each process.
        self._piece_bytes = min(PIECE_BYTES, limit_bytes // 64)
        self._clock = clock
        self.usage = Usage(root, clock)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._claimed_bytes = 0  # and not yet reserved; guarded by _lock
        self._full_until_s = 0.0  # guarded by _lock
        self._full_for: str | None = None  # the name of a file, or None for all; guarded by _lock

    def reserve(self, size_bytes: int, keep: str) -> bool:
        """Whether there is room for so much more, which is taken at once. Others may be evicted, never ``keep``.

        A file that alone is larger than the limit thus keeps its beginning, rather than only the end of it.
        Raises OSError, StoragePermissionError.
        """
        now_s = self._clock.monotonic()
        with self._lock:
            if now_s < self._full_until_s and self._full_for in {None, keep}:
                return False
            if self._claimed_bytes >= size_bytes:
                self._claimed_bytes -= size_bytes
                return True
        piece = max(size_bytes, self._piece_bytes)
        if piece > self._limit_bytes or not self._claim(piece, keep):
            return False
        with self._lock:
            self._claimed_bytes += piece - size_bytes
        return True

    def ran_out(self, keep: str) -> None:
        """The disk, or a quota that statvfs(3) does not show, was full: use a tenth less. Raises OSError."""
        with eviction.exclusively(self._root) as mine:
            if not mine:
                return
            before = self.usage.read()
            total = self._walked()
            evicted = self._evict(max(1, total // SLACK), keep)
            self.usage.settle(total - evicted.size_bytes, before)
        if not evicted.size_bytes:
            self._pause(keep, evicted)

    def give_back(self) -> None:
        """Return what was claimed and not used. Raises OSError."""
        with self._lock:
            claimed, self._claimed_bytes = self._claimed_bytes, 0
        if claimed:
            self.usage.give_back(claimed)

    def after_fork(self) -> None:
        """In the child: what was claimed is the parent's."""
        self._begin()

    def _claim(self, piece: int, keep: str) -> bool:
        if self.usage.claim(piece, self._limit_bytes) and self._shortage(piece) <= 0:
            return True
        with eviction.exclusively(self._root) as mine:
            # If not, somebody else makes room now, and this block is not worth waiting for it.
            return mine and self._make_room(piece, keep)

    def _make_room(self, piece: int, keep: str) -> bool:
        """Walk, evict what is too much and settle the count, with the piece if there is room for it now."""
        before = self.usage.read()
        total = self._walked()
        excess = max(total + piece - self._limit_bytes, self._shortage(piece))
        evicted = eviction.Evicted(0, held=False)
        if excess > 0:
            evicted = self._evict(excess + self._limit_bytes // SLACK, keep)
        enough = evicted.size_bytes >= excess
        self.usage.settle(total - evicted.size_bytes + (piece if enough else 0), before)
        if not enough:
            self._pause(keep, evicted)
        return enough

    def _evict(self, size_bytes: int, keep: str) -> eviction.Evicted:
        evicted = eviction.evict(self._root, size_bytes, keep)
        self._let_go()
        return evicted

    def _pause(self, keep: str, evicted: eviction.Evicted) -> None:
        """Ask for no more room for this file for a while; for none, if more room is held than this file's own."""
        with self._lock:
            self._full_until_s = self._clock.monotonic() + RETRY_S
            self._full_for = None if evicted.held else keep

    def _walked(self) -> int:
        return sum(file.size_bytes for file in eviction.walk(self._root))

    def _shortage(self, piece: int) -> int:
        """By how much the disk is too full to take so much and keep a tenth free."""
        disk = os.statvfs(self._root)
        return (disk.f_blocks // 10 - disk.f_bavail) * disk.f_frsize + piece
