"""How a commit is cut into the parts of a multipart upload.

Owns the sizes, within the limits of the S3 user guide ("Amazon S3 multipart upload limits"), which are the narrowest
of the stores that know parts. Pure: no I/O.

A file that is whole is planned by ``plan``: slots of one size (R2 demands that), as large as its length needs. A file
that still grows is cut by ``part_of``, by which the size of a part depends on its number alone, so that parts can be
sent before the length is known; ``plan_streamed`` is what it comes to. The two agree up to 31.25 GiB.
"""

import errno
from itertools import pairwise

import msgspec

from genro_storage.entry import Extent
from genro_storage.errors import StorageIOError
from genro_storage.writing.extents import Extents

_MIB = 1 << 20

PARTS_MAX = 10_000
#: Of every part but the last one.
PART_MIN_BYTES = 5 * _MIB
PART_MAX_BYTES = 5 << 30
FILE_MAX_BYTES = 5 << 40

# A failed one is sent again as a whole, so no larger than needed; below, the round trips show.
_PART_BYTES = 8 * _MIB
# A server says nothing until it has copied a part: see s3_multipart for how long that may be.
_COPY_MAX_BYTES = 32 * _MIB
# Of a growing file: 4,000 parts of 8 MiB, then 650 of each doubled size up to 4 GiB. The 10,000 reach 5.68 TiB.
_EQUAL_PARTS = 4_000
_PARTS_PER_SIZE = 650
_GROWN_MAX_BYTES = 4 << 30


class Part(msgspec.Struct, frozen=True, gc=False):
    """One part: its number, from 1, its bytes, and whether they are copied from the version that is there."""

    number: int
    extent: Extent
    copied: bool


def plan(size_bytes: int, unchanged: Extents, *, copies: bool) -> list[Part]:
    """The parts of a file of this length; of an empty one there are none. Raises StorageIOError (EFBIG).

    ``copies``: runs of slots that are wholly unchanged become parts that the server copies, of 5 MiB to 32 MiB each
    (or one slot, where those are larger).
    """
    slot_bytes = _slot_bytes(size_bytes)
    parts: list[Part] = []
    offset = 0
    while offset < size_bytes:
        slot = Extent(offset, min(slot_bytes, size_bytes - offset))
        run = _unchanged_run(slot, slot_bytes, size_bytes, unchanged) if copies else 0
        pieces = _cut(Extent(offset, run), slot_bytes) if run >= PART_MIN_BYTES else [slot]
        for piece in pieces:
            copied = run >= PART_MIN_BYTES and piece.size_bytes >= PART_MIN_BYTES
            parts.append(Part(len(parts) + 1, piece, copied))
        offset = pieces[-1].end
    return parts


def part_of(number: int) -> Extent:
    """Where the part of this number, from 1, is in a file that still grows; its last part ends with the file."""
    left = number - 1
    offset, part_bytes, parts = 0, _PART_BYTES, _EQUAL_PARTS
    while left >= parts and part_bytes < _GROWN_MAX_BYTES:
        offset += parts * part_bytes
        left -= parts
        part_bytes, parts = part_bytes * 2, _PARTS_PER_SIZE
    return Extent(offset + left * part_bytes, part_bytes)


def plan_streamed(size_bytes: int) -> list[Part]:
    """The parts of a file that was cut while it grew, now that its length is known. Raises StorageIOError (EFBIG)."""
    _require_possible(size_bytes)
    parts: list[Part] = []
    while (extent := part_of(len(parts) + 1)).offset < size_bytes:
        clipped = Extent(extent.offset, min(extent.size_bytes, size_bytes - extent.offset))
        parts.append(Part(len(parts) + 1, clipped, copied=False))
    return parts


def _slot_bytes(size_bytes: int) -> int:
    _require_possible(size_bytes)
    least = -(-size_bytes // PARTS_MAX)
    return max(_PART_BYTES, -(-least // _MIB) * _MIB)


def _require_possible(size_bytes: int) -> None:
    if size_bytes > FILE_MAX_BYTES:
        refusal = StorageIOError(f'a file of {size_bytes} bytes cannot be stored in parts, which reach 5 TiB')
        refusal.errno = errno.EFBIG
        raise refusal


def _unchanged_run(slot: Extent, slot_bytes: int, size_bytes: int, unchanged: Extents) -> int:
    """How many bytes from the beginning of a slot are whole slots of what is unchanged."""
    found = unchanged.at(slot.offset)
    run = min(found.end, size_bytes) - slot.offset if found else 0
    if run < slot.size_bytes:
        return 0
    return run if slot.offset + run == size_bytes else run // slot_bytes * slot_bytes


def _cut(run: Extent, slot_bytes: int) -> list[Extent]:
    """A run in pieces of whole slots, as equal as can be, none larger than one copy may be."""
    slots = -(-run.size_bytes // slot_bytes)
    pieces = -(-slots // max(1, _COPY_MAX_BYTES // slot_bytes))
    bounds = [run.offset + slots * index // pieces * slot_bytes for index in range(pieces)] + [run.end]
    return [Extent(start, end - start) for start, end in pairwise(bounds)]
