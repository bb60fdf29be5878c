"""What tests of staged files begin with: a base that counts what is fetched of it, and a file over it.

Owns nothing that lasts. Threads: the counts are for one thread.
"""

from pathlib import Path

from genro_storage.backends.base import Expected
from genro_storage.entry import Version
from genro_storage.errors import StorageConflictError
from genro_storage.reading.reader import Reader
from genro_storage.runtime import about_to_block
from genro_storage.testing import ManualClock
from genro_storage.writing.staging import StagedFile

BASE = Version('1', strong=True)


class BytesReader:
    """A Reader over bytes that counts, and that waits or loses its version when it is told to."""

    def __init__(self, data: bytes, *, size_bytes: int | None = None, slow: bool = False) -> None:
        self.data = data
        self.size_bytes = len(data) if size_bytes is None else size_bytes
        self.slow = slow
        self.gone = False
        self.fetched: list[tuple[int, int]] = []
        self.closed = 0

    @property
    def fetched_bytes(self) -> int:
        """How many were read."""
        return sum(size_bytes for _, size_bytes in self.fetched)

    def read(self, offset: int, size_bytes: int) -> memoryview:
        """See Reader."""
        if self.slow:
            about_to_block()
        if self.gone:
            raise StorageConflictError('the version has gone')
        data = self.data[offset : offset + size_bytes]
        self.fetched.append((offset, len(data)))
        return memoryview(data)

    def close(self) -> None:
        """See Reader."""
        self.closed += 1


def stage(
    folder: Path, clock: ManualClock, base: Reader | None = None, mtime_ns: int | None = None, expected: Expected = BASE
) -> StagedFile:
    """A staged file 'a/f' over a base."""
    return StagedFile('a/f', folder, clock, expected, base, mtime_ns)


def content(staged: StagedFile) -> bytes:
    """All of it."""
    return staged.read(0, 1 << 30)
