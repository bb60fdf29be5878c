"""Blocks in memory, least recently used out first.

Owns its bound in bytes. Threads: safe; one lock, never held across I/O.
"""

import threading

from cachetools import LRUCache

from genro_storage.cache.blocks import BlockKey


class MemoryBlockCache:
    """A BlockCache of at most limit_bytes; a block larger than that is not kept."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.after_fork()

    def after_fork(self) -> None:
        """See BlockCache. Empty: the lock may have been held amid a change."""
        self._lock = threading.Lock()
        self._blocks: LRUCache[BlockKey, bytes] = LRUCache(self.limit_bytes, getsizeof=len)  # guarded by _lock

    def get(self, key: BlockKey) -> bytes | None:
        """See BlockCache."""
        with self._lock:
            return self._blocks.get(key)

    def put(self, key: BlockKey, block: bytes) -> None:
        """See BlockCache."""
        with self._lock:
            if len(block) <= self.limit_bytes:
                self._blocks[key] = block

    @property
    def size_bytes(self) -> int:
        """What is held now."""
        with self._lock:
            return int(self._blocks.currsize)
