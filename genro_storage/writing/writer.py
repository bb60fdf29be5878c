"""Open handles over a staged file: to write, and to read what is being written.

Owns append mode and what close, flush and fsync mean; the volume owns which handles share a staged file. Threads:
safe; the staged file locks.
"""

from collections.abc import Callable

from genro_storage.runtime import WouldBlock
from genro_storage.writing.staging import StagedFile


class StagedReader:
    """An open file to read while others write it. A Reader; its close publishes nothing of theirs."""

    def __init__(self, staged: StagedFile, release: Callable[[StagedFile], None]) -> None:
        self._staged = staged
        self._release = release
        self._open = True

    @property
    def size_bytes(self) -> int:
        """The length now."""
        return self._staged.size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes as all handles have written them so far."""
        return self._staged.read(offset, size_bytes)

    def close(self) -> None:
        """Give the handle back. Idempotent."""
        if self._open:
            self._open = False
            self._release(self._staged)


class Writer:
    """An open file to read and write. A Reader too."""

    def __init__(
        self,
        staged: StagedFile,
        *,
        append: bool,
        commit: Callable[[StagedFile], None],
        release: Callable[[StagedFile], None],
    ) -> None:
        self._staged = staged
        self._append = append
        self._commit = commit
        self._release = release
        self._open = True

    @property
    def size_bytes(self) -> int:
        """The length now."""
        return self._staged.size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes as this handle and its siblings have written them so far."""
        return self._staged.read(offset, size_bytes)

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write at an offset, or at the end where the handle appends; how many bytes were taken."""
        return self._staged.write(None if self._append else offset, data)

    def truncate(self, size_bytes: int) -> None:
        """Cut off, or lengthen with zeros."""
        self._staged.truncate(size_bytes)

    def flush(self) -> None:
        """Commit what changed. The handle stays open: a flush is not a close. Raises what the commit raises."""
        self._commit(self._staged)

    def close(self) -> None:
        """Commit what changed and give the handle back, in this order, whatever fails. Idempotent."""
        if not self._open:
            return
        try:
            self._commit(self._staged)
        except WouldBlock:
            raise  # nothing has happened; a worker closes it
        except BaseException:
            self.abort()
            raise
        self.abort()

    def abort(self) -> None:
        """Give the handle back without a commit. Idempotent; after close() it does nothing."""
        if self._open:
            self._open = False
            self._release(self._staged)
