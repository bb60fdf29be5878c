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

from genro_storage.cache import eviction, small_file
from genro_storage.cache.blocks import Block, BlockKey
from genro_storage.cache.cached_file import CachedFile, Identity, Records, identity_of
from genro_storage.cache.descriptors import OpenFiles
from genro_storage.cache.directory import DATA, OPEN_FLAGS, SUMS, FileKey, name_of, packed
from genro_storage.cache.space import Space
from genro_storage.errors import StorageError
from genro_storage.runtime import Clock, SystemClock

log = logging.getLogger(__name__)

#: Files known to be complete and right: 5 MB of Python objects at most.
LIMIT_VERIFIED = 16_384
#: File systems allocate by the page; a record may be the first in a page of its own.
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
            block = self._get(FileKey(*key[:3]), key.number)
            if block is None and not key.number:
                block = small_file.read(self._root, FileKey(*key[:3]), self._clock.time_ns())
        except (OSError, StorageError) as error:
            self._note(error)
            return None
        return block

    def absent(self, first: BlockKey, count: int) -> list[int]:
        """See BlockCache. What is damaged does not count as absent before it is read."""
        every = list(range(first.number, first.number + count))
        try:
            file_key = FileKey(*first[:3])
            with self._files.borrow(file_key) as file:
                if file is not None:
                    return file.absent(first.number, count)
            return every[1:] if not first.number and small_file.is_there(self._root, file_key) else every
        except (OSError, StorageError) as error:
            self._note(error)
            return every

    def put(self, key: BlockKey, data: Block, *, through_pages: bool = False) -> None:
        """See BlockCache. A block that is there already is not written again.

        ``through_pages``: for whoever cannot wait for the disk; otherwise long runs are written past the page cache.
        """
        if not data:
            return
        file_key = FileKey(*key[:3])
        try:
            if small_file.fits(key.number, data):
                self._put_small(file_key, data)
            else:
                self._put(file_key, Records(file_key, key.number, memoryview(data)), through_pages=through_pages)
        except (OSError, StorageError) as error:
            self._note(error)
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                self._ran_out(name_of(packed(file_key)))

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

    @property
    def ahead_bytes(self) -> int:
        """See BlockCache."""
        return self._limit_bytes // 2

    def passed(self, key: BlockKey) -> None:
        """See BlockCache. It takes no memory."""

    def pace(self) -> None:
        """See BlockCache. What was put is stored."""

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
        """Read the whole file and compare it, once, if all of it is there; whether it is, and is right.

        Takes 0.1 s for 256 MiB in memory, and 30 µs for a file of which something is missing.
        """
        key = FileKey(destination, path, version)
        with self._lock:
            known = self._verified.get(key)
        try:
            with self._files.borrow(key) as file:
                if file is None or size_bytes <= 0:
                    identity = None
                elif known is not None and known.size_bytes == size_bytes and known == file.identity():
                    return True
                else:
                    identity = file.verify(size_bytes)
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

    def _get(self, key: FileKey, number: int) -> bytes | None:
        file = self._files.acquire(key)
        if file is None:
            return None
        try:
            block = file.read(number)
            if block is not None:
                self._stamp(file)
            return block
        finally:
            self._files.release(file)

    def _put(self, key: FileKey, run: Records, *, through_pages: bool) -> None:
        with self._files.borrow(key) as file:
            if file is not None and file.is_linked() and file.holds(run):
                return
        name = name_of(packed(key))
        if not self._space.reserve(_in_pages(run.size_bytes) + _PAGE_BYTES, name):
            return
        # Evicted by another process since it was opened, or of another content: the second is a new file.
        for _ in range(2):
            with self._files.borrow(key, create=True) as file:
                if file is None:
                    return
                if file.is_linked():
                    if not file.contradicts(run):
                        file.add(run, through_pages=through_pages)
                        file.stamp(self._clock.time_ns())
                        return
                    # One version with two contents, which only a weak version can have (or a damaged record): the
                    # file begins anew rather than becoming a mixture.
                    eviction.remove(self._root, name)
                self._files.drop(file)

    def _put_small(self, key: FileKey, data: Block) -> None:
        if self._space.reserve(_in_pages(small_file.size_on_disk(key, data)), name_of(packed(key))):
            small_file.write(self._root, key, data, self._clock.time_ns())

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


def _in_pages(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES
