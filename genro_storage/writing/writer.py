"""Open handles over a staged file: to write, and to read what is being written.

Owns append mode and the order of ending; what flush and fsync promise is the commits', which handles share a staged
file the volume's. Threads: safe; the staged file locks.
"""

import os
from collections.abc import Callable

from genro_storage.entry import Extent, Version
from genro_storage.errors import StorageUnsupportedError
from genro_storage.reading.loans import Lends, Loan
from genro_storage.runtime import WouldBlock
from genro_storage.writing.allocation import allocate
from genro_storage.writing.snapshot import Snapshot
from genro_storage.writing.staging import StagedFile


class StagedReader:
    """An open file to read while others write it, and from when nobody does any more, as it was then. A Reader."""

    def __init__(
        self,
        staged: StagedFile,
        *,
        sync: Callable[[StagedFile], None],
        release: Callable[['StagedReader'], None],
        lend: Callable[[StagedFile], Loan | None],
    ) -> None:
        self.staged = staged
        self._sync = sync
        self._lend = lend
        self._release = release
        self._frozen: Snapshot | None = None
        self._version: Version | None = None
        self._open = True

    @property
    def size_bytes(self) -> int:
        """The length now."""
        return (self._frozen or self.staged).size_bytes

    @property
    def version(self) -> Version | None:
        """What it shows; None of what may still change. Of what is not committed, one that nothing else has."""
        return self._version

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes as all handles have written them so far."""
        return (self._frozen or self.staged).read(offset, size_bytes)

    def seek(self, offset: int, whence: int) -> int:
        """See StagedFile; of what is frozen all counts as data."""
        if self._frozen is None:
            return self.staged.seek(offset, whence)
        return offset if whence == os.SEEK_DATA else self._frozen.size_bytes

    def lend(self) -> Loan | None:
        """See Lends."""
        loan = self._lend(self.staged)
        is_shown = self._frozen is None or (loan is not None and loan.version == self._version)
        return loan if is_shown else None

    def freeze(self) -> None:
        """Nobody writes any more: who does so next is not seen here. Idempotent."""
        with self.staged.lock:
            if self._frozen is not None or not self._open:
                return
            stored = None if self.staged.dirty else self.staged.expected
            frozen = self.staged.snapshot()
            self._version = stored if isinstance(stored, Version) else Version(f'staged-{id(frozen)}', strong=False)
            self._frozen = frozen
        self._release(self)

    def sync(self) -> None:
        """Have it committed as it is now, whoever wrote it. Raises what the commit raises."""
        self._sync(self.staged)

    def close(self) -> None:
        """Give the handle back; publishes nothing. Idempotent."""
        if self._open:
            self._open = False
            if self._frozen is not None:
                self._frozen.close()
            else:
                self._release(self)


class Writer:
    """An open file to read and write. A Reader too."""

    def __init__(
        self,
        staged: StagedFile,
        *,
        append: bool,
        flush: Callable[[StagedFile], None],
        sync: Callable[[StagedFile], None],
        release: Callable[[StagedFile], None],
        lend: Callable[[StagedFile], Loan | None],
        borrow: Callable[[StagedFile, Loan, Extent], int],
    ) -> None:
        """lend: what a file is on the backend, if it is there as it is; borrow: see copy_from."""
        self._staged = staged
        self._lend = lend
        self._borrow = borrow
        self._append = append
        self._flush = flush
        self._sync = sync
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

    def allocate(self, offset: int, size_bytes: int, mode: int) -> None:
        """fallocate(2), on the local disk. Raises StorageUnsupportedError for modes other than those of allocation."""
        allocate(self._staged, offset, size_bytes, mode)

    def seek(self, offset: int, whence: int) -> int:
        """See StagedFile."""
        return self._staged.seek(offset, whence)

    def copy_from(self, source: object, source_offset: int, offset: int, size_bytes: int) -> int:
        """Take over bytes of another open file without their passing through here; how many.

        Raises StorageUnsupportedError, with nothing done: then they are to be read and written.
        """
        loan = source.lend() if isinstance(source, Lends) else None
        if loan is None or source_offset != offset:
            raise StorageUnsupportedError('these bytes are read and written')
        return self._borrow(self._staged, loan, Extent(offset, size_bytes))

    def lend(self) -> Loan | None:
        """See Lends."""
        return self._lend(self._staged)

    def flush(self) -> None:
        """Make what was written safe, as close() does; the handle stays open. Raises what prevents that."""
        self._flush(self._staged)

    def sync(self) -> None:
        """Commit what changed, whatever the mount's durability. Raises what the commit raises."""
        self._sync(self._staged)

    def close(self) -> None:
        """Make what was written safe and give the handle back, in this order, whatever fails. Idempotent."""
        if not self._open:
            return
        try:
            self._flush(self._staged)
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
