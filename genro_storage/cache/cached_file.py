"""One cached file: a sparse file with the blocks at their own offsets, and beside it their checksums.

Owns the layout of both and what may be believed of them. A block is there only if its record says so and its bytes
match it, so nothing need be synced and nothing locked:

- The bytes are written first, then the record (8 bytes, aligned: never across a sector). Killed in between, there is no
  record; after a loss of power either may be missing, the record may even be torn, and then they do not match: a miss.
- The bytes of a block that has a record are never written again. Damage removes the record first.
- Both descriptors stay with the inodes they opened. Whoever evicts unlinks; no program ever truncates.

The checksum is 45 bits of XXH3, seeded with the key and the number of the block, so that sound bytes in the wrong place
are found too: 13 GB/s on the two-core machine, CRC-32 2.6, blake2b 0.8. It is there against damage, not against people
(the directory is 0700).

Threads: safe, without a lock: positional reads and writes, and single operations on one dictionary. The fields of
OpenFiles are guarded by its lock.
"""

import contextlib
import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple, Self

import xxhash

from genro_storage.cache.blocks import BLOCK_BYTES, Block, runs
from genro_storage.cache.direct import write_direct
from genro_storage.cache.directory import (
    DATA,
    FORMAT,
    OPEN_FLAGS,
    SMALL,
    SUMS,
    FileKey,
    make_parent,
    name_of,
    open_unstamped,
    packed,
)

#: How exact "least recently used" is: a system call for each file and minute, not for each read.
STAMP_NS = 60_000_000_000

#: Through the page cache, longer writes are slower: ext4 (kernel 6.18) takes folios as long as a write, and memory that
#: was not in use lately is dear in a virtual machine. A cold read of 512 MiB took 2.4 s with 1 MiB, 1.4 s so.
_WRITE_BYTES = 64 << 10

_HEADER = struct.Struct('<8s3I')  # magic, format, block size, length of the key that follows
_MAGIC = b'genroblk'
_RECORD = struct.Struct('<Q')  # checksum and, in the lowest bits, the length; all zeros: no block
_LENGTH_MASK = 2 * BLOCK_BYTES - 1
_ABSENT = bytes(_RECORD.size)


class Identity(NamedTuple):
    """Tells a file that nobody has touched from any other: what fstat(2) says of its bytes."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


def identity_of(descriptor: int) -> Identity | None:
    """The identity of an open file, or None if it has no name any more."""
    found = os.fstat(descriptor)
    if not found.st_nlink:
        return None
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Records:
    """Consecutive blocks of a file, with what is noted of each."""

    __slots__ = ('data', 'first', 'records')

    def __init__(self, key: FileKey, first: int, data: memoryview) -> None:
        self.first = first
        self.data = data
        seed = checksum(packed(key))
        starts = enumerate(range(0, data.nbytes, BLOCK_BYTES), first)
        self.records = [_record(seed, number, data[start : start + BLOCK_BYTES]) for number, start in starts]

    @property
    def size_bytes(self) -> int:
        """What the blocks take."""
        return self.data.nbytes


def _record(seed: int, number: int, block: bytes | memoryview) -> bytes:
    return _RECORD.pack(checksum(block, seed + number) & ~_LENGTH_MASK | len(block))


def _length_in(record: bytes) -> int:
    return int(_RECORD.unpack(record)[0]) & _LENGTH_MASK


def checksum(data: Block, seed: int = 0) -> int:
    """64 bits of XXH3."""
    return xxhash.xxh3_64_intdigest(data, seed & 0xFFFF_FFFF_FFFF_FFFF)


class CachedFile:
    """The two open files of one key."""

    def __init__(self, key: FileKey, data: int, sums: int) -> None:
        self.key = key
        raw = packed(key)
        self._seed = checksum(raw)
        self._header = _HEADER.pack(_MAGIC, FORMAT, BLOCK_BYTES, len(raw)) + raw
        self._records_at = (len(self._header) + 7) & ~7
        self._data = data
        self._sums = sums
        self._verified: dict[int, int] = {}  # the length of each block whose bytes matched, through these descriptors
        self._stamped_ns = os.fstat(sums).st_atime_ns
        # Guarded by the lock of OpenFiles.
        self.users = 0
        self.used_s = 0.0
        self.dropped = False

    @classmethod
    def open(cls, root: Path, key: FileKey, *, create: bool) -> Self | None:
        """The file of a key; None where there is none, or none that is ours. Raises OSError, StoragePermissionError."""
        name = name_of(packed(key))
        path = f'{root}/{name}'
        for _ in range(2):
            if create:
                make_parent(root, name)
            opened = cls._open(path, key, create=create)
            if opened is None or opened._settle_header(create=create):
                return opened
            if not create:
                return None
            unlink(path)
        return None

    @classmethod
    def _open(cls, path: str, key: FileKey, *, create: bool) -> Self | None:
        flags = os.O_RDWR | OPEN_FLAGS | (os.O_CREAT if create else 0)
        descriptors: list[int] = []
        try:
            # The checksums first, as unlink() takes them first: bytes without checksums are no file.
            for ending in (SUMS, DATA):
                descriptors.append(open_unstamped(path + ending, flags))
                found = os.fstat(descriptors[-1])
                if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
                    raise PermissionError(f'{path}{ending} is not a file of this user: it is not read')
            return cls(key, descriptors[1], descriptors[0])
        except FileNotFoundError:
            _close(descriptors)
            return None
        except BaseException:
            _close(descriptors)
            raise

    def close(self) -> None:
        """Close both descriptors; nothing else is called after it."""
        _close([self._data, self._sums])

    def is_linked(self) -> bool:
        """Whether others would find these files: neither has been evicted."""
        return bool(os.fstat(self._sums).st_nlink and os.fstat(self._data).st_nlink)

    def read(self, number: int) -> bytes | None:
        """A block, or None. Raises OSError.

        Its checksum is compared when it is first read through these descriptors, and not again (65 of 80 µs): they
        are closed when idle, so damage that comes later is found soon after.
        """
        size = self._verified.get(number)
        if size is not None:
            block = self._read_data(number, size)
            if len(block) == size:
                return block
        record = os.pread(self._sums, _RECORD.size, self._record_at(number))
        if len(record) < _RECORD.size or record == _ABSENT:
            return None
        size = min(_length_in(record), BLOCK_BYTES)
        block = self._read_data(number, size)
        if _record(self._seed, number, block) != record:
            self._forget(number)
            return None
        self._verified[number] = size
        return block

    def absent(self, first: int, count: int) -> list[int]:
        """The numbers of the blocks that have no record. Raises OSError."""
        return [number for number, record in enumerate(self._records_of(first, count), first) if record == _ABSENT]

    def holds(self, run: Records) -> bool:
        """Whether all of these blocks are there already. Raises OSError."""
        return self._records_of(run.first, len(run.records)) == run.records

    def contradicts(self, run: Records) -> bool:
        """Whether another block than one of these is there already. Raises OSError."""
        there = self._records_of(run.first, len(run.records))
        return any(one != other for one, other in zip(there, run.records, strict=True) if one != _ABSENT)

    def add(self, run: Records, *, through_pages: bool = False) -> None:
        """Add those of the blocks that are not there. Raises OSError, and then the rest still is not.

        ``through_pages``: for whoever cannot wait for the disk, the page cache is to take them.
        """
        there = self._records_of(run.first, len(run.records))
        for first, last in runs(n for n, record in enumerate(there) if record == _ABSENT):
            data = run.data[first * BLOCK_BYTES :][: (last + 1 - first) * BLOCK_BYTES]
            self._write(run.first + first, data, through_pages=through_pages)
            records = run.records[first : last + 1]
            os.pwrite(self._sums, b''.join(records), self._record_at(run.first + first))
            for number, record in enumerate(records, run.first + first):
                self._verified[number] = _length_in(record)

    def stamp(self, now_ns: int) -> None:
        """Note that the file is in use, at most once a minute. Raises OSError."""
        if abs(now_ns - self._stamped_ns) >= STAMP_NS:
            self._stamped_ns = now_ns
            os.utime(self._sums, ns=(now_ns, now_ns))

    def identity(self) -> Identity | None:
        """What tells the bytes from any others, None if they have no name any more. Raises OSError."""
        return identity_of(self._data)

    def verify(self, size_bytes: int) -> Identity | None:
        """Compare every block: the identity of the data if all are there and right. Raises OSError."""
        before = identity_of(self._data)
        count = -(-size_bytes // BLOCK_BYTES)
        records = os.pread(self._sums, count * _RECORD.size, self._record_at(0))
        if before is None or before.size_bytes != size_bytes or len(records) != count * _RECORD.size:
            return None
        lengths = [value & _LENGTH_MASK for (value,) in _RECORD.iter_unpack(records)]
        if lengths != [min(BLOCK_BYTES, size_bytes - start) for start in range(0, size_bytes, BLOCK_BYTES)]:
            return None
        if any(self.read(number) is None for number in range(count) if number not in self._verified):
            return None
        return before if identity_of(self._data) == before else None

    # Inside

    def _settle_header(self, *, create: bool) -> bool:
        """Whether this is the file of its key; if not, it is closed. Raises OSError, and then it is closed too."""
        try:
            right = self._is_of_key(create=create)
        except OSError:
            self.close()
            raise
        if not right:
            self.close()
        return right

    def _is_of_key(self, *, create: bool) -> bool:
        """Whether the header is the one of this key; with create, a new file gets it.

        Two processes that create one file write the same header, so whatever has been written of it may be written
        over.
        """
        found = os.pread(self._sums, len(self._header), 0)
        if found == self._header:
            return not create or not self._lost_its_data()
        if not create or not self._header.startswith(found):
            return False
        return os.pwrite(self._sums, self._header, 0) == len(self._header)

    def _lost_its_data(self) -> bool:
        """Whether there are records and not a byte, which no order of our writes leaves behind."""
        return os.fstat(self._sums).st_size > self._records_at and not os.fstat(self._data).st_size

    def _records_of(self, first: int, count: int) -> list[bytes]:
        """What is noted of these blocks."""
        found = os.pread(self._sums, count * _RECORD.size, self._record_at(first))
        found = found.ljust(count * _RECORD.size, b'\0')
        return [found[start : start + _RECORD.size] for start in range(0, len(found), _RECORD.size)]

    def _write(self, number: int, data: memoryview, *, through_pages: bool) -> None:
        """Write the bytes of blocks, all of them. Raises OSError: a short write means that the next will fail."""
        offset = number * BLOCK_BYTES
        if not through_pages:
            written = write_direct(self._data, data, offset)
            data, offset = data[written:], offset + written
        while data:
            written = os.pwrite(self._data, data[:_WRITE_BYTES], offset)
            data, offset = data[written:], offset + written

    def _record_at(self, number: int) -> int:
        return self._records_at + number * _RECORD.size

    def _read_data(self, number: int, size: int) -> bytes:
        try:
            return os.pread(self._data, size, number * BLOCK_BYTES)
        except OSError:  # a bad sector, which the next write may have replaced by the disk
            self._forget(number)
            raise

    def _forget(self, number: int) -> None:
        # What damaged one block (a file that was cut off, say) may have damaged those that were compared before.
        self._verified.clear()
        os.pwrite(self._sums, _ABSENT, self._record_at(number))


def unlink(path: str) -> None:
    """Remove the files of a name; no error where they are not. Raises OSError."""
    for ending in (SUMS, DATA, SMALL):
        Path(path + ending).unlink(missing_ok=True)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        # What a network file system held back and could not write is a miss later.
        with contextlib.suppress(OSError):
            os.close(descriptor)
