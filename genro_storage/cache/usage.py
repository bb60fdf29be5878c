"""How many bytes all processes together keep in one directory, so that nobody need walk it to know.

Owns the count and its file. The count is believed only if it was made since this machine started (a loss of power may
have kept files and lost the count) and not longer ago than a day; otherwise somebody walks the directory and settles
it.

Threads and processes: safe; a lock on the file, for the microseconds of reading and writing 40 bytes. A process that is
stopped just there stops the writers of the cache, never its readers.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genro_storage.cache.directory import OPEN_FLAGS
from genro_storage.local_disk import private_directory
from genro_storage.runtime import Clock

#: Whatever makes the count drift (a killed process, files removed by hand) is mended after this time at the latest.
BELIEVED_NS = 24 * 3600 * 1_000_000_000

_COUNT = struct.Struct('<8s16s2q')  # magic, boot, when counted, bytes
_MAGIC = b'genrouse'


class Usage:
    """The shared count of one directory."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._path = root / 'usage'
        self._clock = clock
        self._boot = _boot_id()

    def read(self) -> int | None:
        """The count, or None if it must be made. Raises OSError."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | OPEN_FLAGS)
        except FileNotFoundError:
            return None
        try:
            return self._load(descriptor)[0]
        finally:
            os.close(descriptor)

    def claim(self, size_bytes: int, limit_bytes: int) -> bool:
        """Count so many bytes more if the count is known and stays within a limit; whether it was done.

        Raises OSError, StoragePermissionError.
        """
        with self._locked() as descriptor:
            total, counted_ns = self._load(descriptor)
            if total is None or total + size_bytes > limit_bytes:
                return False
            self._store(descriptor, total + size_bytes, counted_ns)
            return True

    def give_back(self, size_bytes: int) -> None:
        """Count so many bytes less. Raises OSError, StoragePermissionError."""
        with self._locked() as descriptor:
            total, counted_ns = self._load(descriptor)
            if total is not None:
                self._store(descriptor, max(0, total - size_bytes), counted_ns)

    def settle(self, total: int, before: int | None) -> None:
        """Replace the count by that of a walk, and what was claimed since ``before``, read when the walk began.

        What was claimed since and walked as well counts twice until the next walk. What was claimed before and written
        after the walk had passed is not in the count: a piece for each process at most. Raises OSError.
        """
        with self._locked() as descriptor:
            now = self._load(descriptor)[0]
            since = now - before if now is not None and before is not None else 0
            self._store(descriptor, total + max(0, since), self._clock.time_ns())

    @contextmanager
    def _locked(self) -> Iterator[int]:
        # Opened each time (6 µs, and only once in many blocks): it heals when somebody removes the whole directory, and
        # no lock is shared with a forked child.
        flags = os.O_RDWR | os.O_CREAT | OPEN_FLAGS
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            private_directory(self._root)
            descriptor = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _load(self, descriptor: int) -> tuple[int | None, int]:
        raw = os.pread(descriptor, _COUNT.size, 0)
        if len(raw) != _COUNT.size:
            return None, 0
        magic, boot, counted_ns, total = _COUNT.unpack(raw)
        if magic != _MAGIC or boot != self._boot or abs(self._clock.time_ns() - counted_ns) > BELIEVED_NS:
            return None, 0
        return total, counted_ns

    def _store(self, descriptor: int, total: int, counted_ns: int) -> None:
        os.pwrite(descriptor, _COUNT.pack(_MAGIC, self._boot, counted_ns, total), 0)


def _boot_id() -> bytes:
    try:
        text = Path('/proc/sys/kernel/random/boot_id').read_text()
    except OSError:  # not Linux: the day remains
        return bytes(16)
    return bytes.fromhex(text.strip().replace('-', ''))
