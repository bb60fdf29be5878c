"""Blocks on the local disk, shared by all processes of a user and kept from one run to the next.

Owns which blocks are asked for and stored, and the rule that the disk never costs a read: whatever goes wrong with it
is a miss or a block not kept, and is logged once. The layout of a file is cached_file's, the bounds are space's.
Nothing is read before the first block is asked for, however much there is.

All bytes that cached files take count against the bound (st_blocks of both files of each). A file that was handed out
is not evicted while anybody has it open, so it goes on counting; files that caches themselves have open are closed
within seconds of their eviction, and until then are in no count. If more is handed out than the bound allows, nothing
new is kept.

Threads: safe; one lock over plain fields, never held across I/O. A serving thread may call get and complete_file: they
wait for nothing but the local disk. put and verify_file take longer and belong on a worker. After a fork the child
has no open files and no claims of its parent; only positional reads and writes are used, so neither disturbs the other.
"""

import errno
import logging
import os
import threading
from pathlib import Path

from cachetools import LRUCache

from genro_storage.cache import eviction
from genro_storage.cache.blocks import BLOCK_BYTES, BlockKey
from genro_storage.cache.cached_file import CachedFile, Identity, identity_of, record_of
from genro_storage.cache.descriptors import OpenFiles
from genro_storage.cache.directory import DATA, OPEN_FLAGS, SUMS, FileKey, name_of, packed
from genro_storage.cache.space import Space
from genro_storage.errors import StorageError
from genro_storage.runtime import Clock, SystemClock

log = logging.getLogger(__name__)

#: Files known to be complete and right: 5 MB of Python objects at most.
LIMIT_VERIFIED = 16_384
#: File systems allocate by the page; a record may be the first of a page of its own.
_PAGE_BYTES = 4096


class DiskBlockCache:
    """A BlockCache in a directory, of at most limit_bytes for all processes together."""

    def __init__(self, root: Path, limit_bytes: int, *, clock: Clock | None = None) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        self._clock = clock or SystemClock()
        self._files = OpenFiles(root, self._clock)
        self._space = Space(root, limit_bytes, self._clock, self._files.sweep)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._verified: LRUCache[FileKey, Identity] = LRUCache(LIMIT_VERIFIED)  # guarded by _lock
        self._noted: set[tuple[type, int | None]] = set()  # kinds of errors that were logged; guarded by _lock

    def __repr__(self) -> str:
        return f'DiskBlockCache({str(self._root)!r}, {self._limit_bytes})'

    def get(self, key: BlockKey) -> bytes | None:
        """See BlockCache. The bytes are those that were put, or it is a miss."""
        try:
            file = self._files.acquire(FileKey(*key[:3]))
            if file is None:
                return None
            try:
                block = file.read(key.number)
                if block is not None:
                    self._stamp(file)
                return block
            finally:
                self._files.release(file)
        except (OSError, StorageError) as error:
            self._note(error)
            return None

    def put(self, key: BlockKey, block: bytes) -> None:
        """See BlockCache. A block that is there already is not written again."""
        if not 0 < len(block) <= BLOCK_BYTES:
            return
        file_key = FileKey(*key[:3])
        raw = packed(file_key)
        try:
            self._put(file_key, name_of(raw), key.number, block, record_of(raw, key.number, block))
        except (OSError, StorageError) as error:
            self._note(error)
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                self._ran_out(name_of(raw))

    def after_fork(self) -> None:
        """See BlockCache. The child opens its own files; what is on the disk it shares like any process."""
        self._files.after_fork()
        self._space.after_fork()
        self._begin()

    @property
    def size_bytes(self) -> int | None:
        """What all processes keep, as far as it has been counted; None before anybody has, or if it cannot be read."""
        try:
            return self._space.usage.read()
        except OSError as error:
            self._note(error)
            return None

    def complete_file(self, destination: str, path: str, version: str, size_bytes: int) -> int | None:
        """A read-only descriptor of the whole file, for the kernel to read from; None if not verified here, or gone.

        The caller closes it. Until it and all its duplicates are closed, the file is not evicted. At once; on None a
        worker may call verify_file, and then this again.
        """
        key = FileKey(destination, path, version)
        with self._lock:
            identity = self._verified.get(key)
        if identity is None or identity.size_bytes != size_bytes:
            return None
        name = f'{self._root}/{name_of(packed(key))}'
        try:
            descriptor = os.open(name + DATA, os.O_RDONLY | OPEN_FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note(error)
            return None
        try:
            if eviction.hold(descriptor) and identity_of(descriptor) == identity:
                now_ns = self._clock.time_ns()
                os.utime(name + SUMS, ns=(now_ns, now_ns))
                return os.dup(descriptor)
        except OSError as error:
            self._note(error)
        finally:
            os.close(descriptor)
        return None

    def verify_file(self, destination: str, path: str, version: str, size_bytes: int) -> bool:
        """Read the whole file and compare it, once; whether it is all there. Takes 0.1 s for 256 MiB in memory."""
        key = FileKey(destination, path, version)
        try:
            with self._files.borrow(key) as file:
                identity = file.verify(size_bytes) if file is not None and size_bytes > 0 else None
        except (OSError, StorageError) as error:
            self._note(error)
            return False
        with self._lock:
            if identity is None:
                self._verified.pop(key, None)
            else:
                self._verified[key] = identity
        return identity is not None

    def close(self) -> None:
        """Close all files and give back room that was claimed. Idempotent."""
        self._files.close()
        try:
            self._space.give_back()
        except (OSError, StorageError) as error:
            self._note(error)

    # Inside

    def _put(self, key: FileKey, name: str, number: int, block: bytes, record: bytes) -> None:
        with self._files.borrow(key) as file:
            if file is not None and file.is_linked() and file.contradicts(number, record) is False:
                return
        room = -(-len(block) // _PAGE_BYTES) * _PAGE_BYTES + _PAGE_BYTES
        if not self._space.reserve(room, name):
            return
        # Evicted by another process since it was opened, or of another content: the second is a new file.
        for _ in range(2):
            with self._files.borrow(key, create=True) as file:
                if file is None:
                    return
                if file.is_linked():
                    contradicts = file.contradicts(number, record)
                    if not contradicts:
                        self._write(file, number, block, record, there=contradicts is False)
                        return
                    # One version with two contents, which only a weak version can have (or a damaged record): the
                    # file begins anew rather than becoming a mixture.
                    eviction.remove(self._root, name)
                self._files.drop(file)

    def _write(self, file: CachedFile, number: int, block: bytes, record: bytes, *, there: bool) -> None:
        if not there:
            file.write(number, block, record)
        file.stamp(self._clock.time_ns())

    def _stamp(self, file: CachedFile) -> None:
        try:
            file.stamp(self._clock.time_ns())
        except OSError as error:
            self._note(error)

    def _ran_out(self, keep: str) -> None:
        try:
            self._space.ran_out(keep)
        except (OSError, StorageError) as error:
            self._note(error)

    def _note(self, error: OSError | StorageError) -> None:
        kind = type(error), error.errno
        with self._lock:
            if kind in self._noted:
                return
            self._noted.add(kind)
        log.warning('disk cache %s: %s; reads go on without it where it fails', self._root, error)
