"""The parts of large objects, and bodies that aiobotocore sends of them.

Owns the sizes of parts, for both drivers of S3, that a failure leaves no upload behind to be paid for, and what is
held of a body. The limits are those of the S3 user guide
("Amazon S3 multipart upload limits").

Threads: safe; a body belongs to one request. Sources are read by their descriptors, from other threads too.
"""

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from genro_storage.backends.base import Source
from genro_storage.backends.copying import read_exactly, read_part
from genro_storage.entry import Extent
from genro_storage.errors import StorageError, StorageIOError

log = logging.getLogger(__name__)

PARTS_MAX = 10_000
_MIB = 1 << 20

# S3 wants 5 MiB at least; a failed one is sent again as a whole.
_PART_BYTES = 8 * _MIB

# Of one transfer.
PARTS_IN_FLIGHT = 4

# Up to here one request, which costs one round trip where parts cost three.
SINGLE_PUT_MAX_BYTES = 16 * _MIB

# Up to here bytes, which need no thread to be read. Larger bodies are read while they are sent: four parts of 8 MiB as
# bytes, which aiohttp copies, took 79 MiB for an upload; read along, 12 MiB in the same time.
_HEAP_BODY_MAX_BYTES = 1 * _MIB

# One CopyObject can copy 5 GiB, but a server says nothing until it has: on two busy cores SeaweedFS copied 20 MB/s, and
# 1 GiB took longer than any mount's timeout. Of parts there are PARTS_IN_FLIGHT under way, and none takes longer than
# the 64 MiB of one request; Amazon copies as quickly so.
SINGLE_COPY_MAX_BYTES = 64 * _MIB
COPY_PART_BYTES = 32 * _MIB
PART_MIN_BYTES = 5 * _MIB

# A part that is held while it is sent; the usual ones are half of that, and four are under way.
_HELD_PART_MAX_BYTES = 16 * _MIB


class Completable(Protocol):
    """An upload that was begun."""

    token: str
    completed: bool

    def abort(self) -> None:
        """Have the server forget it."""


T = TypeVar('T', bound=Completable)


@contextmanager
def unless_completed(upload: T) -> Iterator[T]:
    """Abort an upload at the end, unless it is completed by then."""
    try:
        yield upload
    finally:
        if not upload.completed:
            try:
                upload.abort()
            except StorageError as error:
                # The error that led here is the one to raise.
                log.warning('upload %s was not aborted and its parts remain: %s', upload.token, error)


def part_extents(size_bytes: int, smallest_bytes: int = _PART_BYTES) -> Iterator[Extent]:
    """The parts of an object: all of one size but the last (R2 demands that), in whole MiB, at most PARTS_MAX."""
    least = -(-size_bytes // PARTS_MAX)
    part_bytes = max(smallest_bytes, -(-least // _MIB) * _MIB)
    for offset in range(0, size_bytes, part_bytes):
        yield Extent(offset, min(part_bytes, size_bytes - offset))


def body_of(source: Source, extent: Extent) -> 'bytes | _Body':
    """Some of a source as the body of a request."""
    if extent.size_bytes <= _HEAP_BODY_MAX_BYTES:
        return read_exactly(source, extent.offset, extent.size_bytes)
    return _Body(source.fileno(), extent)


def part_of(source: Source, extent: Extent) -> 'bytes | _Body':
    """A part of a source as the body of a request; by read(), which fetches no more than this of what is missing."""
    if extent.size_bytes <= _HELD_PART_MAX_BYTES:
        return read_part(source, extent.offset, extent.size_bytes)
    return _Body(source.fileno(), extent)


def completed_part(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    """How CompleteMultipartUpload wants to be told of a part: its ETag, and the checksum that was sent along."""
    told = {name: value for name, value in answer.items() if name == 'ETag' or name.startswith('Checksum')}
    return {'PartNumber': number, **told}


class _Body(io.RawIOBase):
    """Some of a file, read while it is sent; checksums read it once before. Raises StorageIOError if it ends early."""

    def __init__(self, descriptor: int, extent: Extent) -> None:
        self._descriptor = descriptor
        self._extent = extent
        self._position = 0

    def __len__(self) -> int:
        return self._extent.size_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._extent.size_bytes - self._position)
        data = os.pread(self._descriptor, wanted, self._extent.offset + self._position)
        if wanted and not data:
            raise StorageIOError(f'what is to be stored ends at {self._extent.offset + self._position} bytes')
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._extent.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position
