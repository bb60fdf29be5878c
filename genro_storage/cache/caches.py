"""The block caches of one manager, by what a definition may ask for: none, memory, memory over disk.

Owns which of them mounts share. Threads: safe; nothing changes after the making.
"""

from pathlib import Path

from genro_storage.cache.blocks import BlockCache
from genro_storage.cache.disk import DiskBlockCache
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.cache.tiered import TieredBlockCache
from genro_storage.config import CacheMode, CacheSettings
from genro_storage.runtime import Clock

#: ``cache: off`` keeps nothing for later, but what is read ahead must lie somewhere until it is read: one full window,
#: which is half of it.
READ_AHEAD_BYTES = 64 << 20


class BlockCaches:
    """One memory and one disk for all mounts that ask for them."""

    def __init__(self, settings: CacheSettings, clock: Clock) -> None:
        self._memory = MemoryBlockCache(settings.memory_bytes)
        self._disk = DiskBlockCache(Path(settings.path) / 'blocks', settings.disk_bytes, clock=clock)
        self._tiered = TieredBlockCache(self._memory, self._disk)

    def of(self, mode: CacheMode) -> BlockCache:
        """The cache of a mount."""
        if mode is CacheMode.DISK:
            return self._tiered
        return self._memory if mode is CacheMode.MEMORY else MemoryBlockCache(READ_AHEAD_BYTES)

    def disk_used_bytes(self) -> int | None:
        """What all processes together have on the disk; None where nobody has counted since the machine started."""
        return self._disk.size_bytes

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._tiered.after_fork()

    def close(self, timeout_s: float) -> bool:
        """Write what waits for the disk, for at most this long; whether all was."""
        return self._tiered.close(timeout_s)
