"""What fallocate(2) means for a staged file: of which bytes are zeros now, and for which there is room.

The modes are those of linux/falloc.h; the room is on the local disk, for of a backend nobody can promise any.
Threads: as the staged file; its lock is held so that each is one step.
"""

from typing import Final

from genro_storage.errors import StorageUnsupportedError
from genro_storage.writing.staging import StagedFile

FALLOC_FL_KEEP_SIZE: Final = 0x01
FALLOC_FL_PUNCH_HOLE: Final = 0x02
FALLOC_FL_ZERO_RANGE: Final = 0x10

_MODES = frozenset(
    {
        0,
        FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
    }
)


def allocate(staged: StagedFile, offset: int, size_bytes: int, mode: int) -> None:
    """fallocate(2) on a staged file.

    Raises StorageUnsupportedError for other modes, StorageNoSpaceError where the local disk has too little room.
    """
    if mode not in _MODES:
        raise StorageUnsupportedError(f'{staged.path!r}: no bytes can be moved within a file (mode {mode:#x})')
    with staged.lock:
        if mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE):
            staged.zero(offset, size_bytes)
        if not mode & FALLOC_FL_PUNCH_HOLE:
            staged.reserve(offset, size_bytes)
        if not mode & FALLOC_FL_KEEP_SIZE and offset + size_bytes > staged.size_bytes:
            staged.truncate(offset + size_bytes)
