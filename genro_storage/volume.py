"""A volume: one live mount, as nodes and the mounted tree see it.

Owns the contract of the volumes, and what a definition permits. What is behind one: ``backend_volume`` (a backend),
``relative`` (a directory of another volume). Does not know inodes, nor nodes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from genro_storage import paths
from genro_storage.backends.base import Backend
from genro_storage.cache.entries import Known
from genro_storage.config import Definition, Permissions
from genro_storage.entry import Attributes, Entry, Usage, Version
from genro_storage.errors import StoragePermissionError, StorageReadOnlyError
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock, WorkerPool
from genro_storage.writing.state import State
from genro_storage.writing.writer import Writer


class Volume(ABC):
    """One configured mount, connected when it is first used. Threads: safe."""

    name: str
    definition: Definition
    backend: Backend
    #: For requests that wait for the backend.
    workers: WorkerPool
    clock: Clock

    @abstractmethod
    def after_fork(self) -> None:
        """Begin anew in a forked child, over the same backend; what is open to read can be read on."""

    @abstractmethod
    def prepare(self) -> None:
        """Load what the first request needs, connecting nowhere; what cannot be loaded is told to that request."""

    @abstractmethod
    def adopt(self) -> None:
        """Take over what processes that are gone have promised for this destination; at once, and once.

        Everything that looks or writes here does it first. What is found is seen from then on, and uploaded.
        """

    # Looking

    @abstractmethod
    def find(self, path: str, *, timed: bool = True) -> Known:
        """What is at a path, or that nothing is, and for how long to believe it. Raises what the backend raises.

        Not ``timed``: for whoever asks again where the answer says that the time is not known.
        """

    @abstractmethod
    def recall(self, path: str) -> Known | None:
        """What is known of a path without asking a backend that may be far; None if nothing is. At once."""

    @abstractmethod
    def stat(self, path: str) -> Entry:
        """What is at a path. Raises StorageNotFoundError."""

    @abstractmethod
    def list_directory(self, path: str) -> tuple[list[Entry], float]:
        """The entries of a directory and how long they may be believed.

        Raises StorageNotFoundError, StorageNotADirectoryError.
        """

    @abstractmethod
    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Have a callback told each path at which something has changed: by us, or elsewhere as we find out.

        Call what is returned to end it. See EntryCache.subscribe for what a callback may do.
        """

    @abstractmethod
    def usage(self) -> Usage | None:
        """Room left, where anybody knows."""

    @abstractmethod
    def state(self, path: str) -> State:
        """How far what was changed at or below a path is on its way to the backend. At once."""

    @abstractmethod
    def cached_bytes(self, path: str) -> int:
        """How much of a file is here, so that it can be read without the backend.

        Raises StorageNotFoundError, StorageIsADirectoryError.
        """

    # Reading and writing

    @abstractmethod
    def open_read(self, path: str) -> Reader:
        """Open a file to read. Raises StorageNotFoundError, StorageIsADirectoryError."""

    @abstractmethod
    def open_told(self, path: str) -> tuple[Entry, Reader]:
        """Open a file to read for somebody who has been told what is there, and the entry that the reader shows.

        What was told a while ago may be another version by now: unless it is in the cache, that is found out here.
        Raises StorageConflictError then, and who asks again is told anew; and what open_read raises.
        """

    @abstractmethod
    def open_latest(self, path: str) -> Reader:
        """Likewise, for whoever was not told before what is there: a version that has gone by the first read, because
        somebody else replaced it within the TTL, is exchanged for the one that came.
        """

    @abstractmethod
    def complete_file(self, path: str, entry: Entry) -> int | None:
        """A descriptor of a whole version, complete and checked on the local disk; None if it is not, for now.

        At once, and for the caller to close. For the kernel to read from: open_read reads the same bytes.
        """

    @abstractmethod
    def open_write(
        self,
        path: str,
        *,
        create: bool,
        exclusive: bool = False,
        truncate: bool = False,
        append: bool = False,
        attributes: Attributes | None = None,
    ) -> Writer:
        """Open a file to change in place; all who do so share what is staged, and see it at once.

        attributes: of a new file, as far as this mount keeps them.
        Raises StorageNotFoundError (not create), StorageExistsError (exclusive), StorageIsADirectoryError.
        """

    @abstractmethod
    def replace(self, path: str, *, exclusive: bool = False, attributes: Attributes | None = None) -> Writer:
        """Open a file to write anew in private: nobody sees anything of it before close().

        attributes: of a new file, as far as this mount keeps them.
        Raises StorageExistsError (exclusive; at close too), StorageIsADirectoryError.
        """

    @abstractmethod
    def change(self, path: str, *, create: bool) -> Writer:
        """Likewise, beginning with what is there, which must still be so at close: else StorageConflictError.

        Raises StorageNotFoundError (not create), StorageIsADirectoryError.
        """

    @abstractmethod
    def sync(self, path: str) -> None:
        """Have everything committed that waits at or below a path. Raises the first failure once all were tried.

        If anything does, the backend is asked, whatever it did before: whoever wants that may know that it is back.
        """

    @abstractmethod
    def retry_parked(self, path: str) -> None:
        """Try again to commit what was refused to somebody at or below a path, and kept, as sync() does.

        Raises the first failure.
        """

    # Changing names

    @abstractmethod
    def read_link(self, path: str) -> bytes:
        """The target of a symbolic link, which nothing here follows. Raises StorageUnsupportedError for all else."""

    @abstractmethod
    def make_directory(self, path: str, attributes: Attributes | None = None) -> None:
        """Make one empty directory; attributes as far as this mount keeps them.

        Raises StorageExistsError, StorageNotFoundError (no parent).
        """

    @abstractmethod
    def remove_file(self, path: str, *, expected: Version | None = None) -> None:
        """Remove a file; handles that have it open go on. Raises StorageNotFoundError, StorageIsADirectoryError.

        With a version, only that one, as far as can be told: raises StorageConflictError.
        """

    @abstractmethod
    def remove_directory(self, path: str) -> None:
        """Remove an empty directory.

        Raises StorageNotEmptyError, StorageNotFoundError, StorageNotADirectoryError.
        """

    @abstractmethod
    def rename(self, source: str, target: str) -> None:
        """Move a file or directory to a name in this volume, replacing a file, or an empty directory, that is there.

        Files under change are committed first and stay open under their new name. Raises what commits and the backend
        raise.
        """

    @abstractmethod
    def commit(self, path: str) -> None:
        """Commit what is staged of a file, if anything is, for a copy inside the store to find it there."""

    @abstractmethod
    def copy(self, source: str, target: str, *, lender: 'Volume | None' = None) -> None:
        """Copy a file inside the backend, of this mount or of another one of its store.

        Raises StorageUnsupportedError where the backend cannot, or may not see the source.
        """

    # Attributes

    @property
    @abstractmethod
    def keeps_attributes(self) -> bool:
        """Whether modes, owners, times and types of files are kept; otherwise times of files, where they can be."""

    @abstractmethod
    def set_attributes(self, path: str, changes: Attributes) -> bool:
        """Keep attributes, of a file under change with its commit; False where this mount does not.

        Of a mount that keeps times alone, the modification time is what is kept, or not, whatever else there is.
        """

    @abstractmethod
    def metadata(self, path: str) -> Mapping[str, str]:
        """The user metadata of a file or directory, of a file under change as its commit will store them.

        Raises StorageNotFoundError, StorageUnsupportedError where the backend stores none.
        """

    @abstractmethod
    def change_metadata(self, path: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        """Store what a function makes of the user metadata, of a file under change with its commit.

        Raises as metadata() does, and what the function raises, which may be called again.
        """

    @abstractmethod
    def close(self, timeout_s: float) -> bool:
        """Let work under way end, commit what is still open, and give back connections; whether all of it ended.

        What cannot be committed by then stays in the journal.
        """

    # What a definition permits, and what follows from the rest

    def set_mtime(self, path: str, mtime_ns: int) -> bool:
        """Keep a modification time; see set_attributes."""
        return self.set_attributes(path, Attributes(mtime_ns=mtime_ns))

    def require(self, permission: Permissions, path: str = '') -> None:
        """Raise StorageReadOnlyError or StoragePermissionError if the mount's permissions do not include this one."""
        allowed, shown = self.definition.permissions, paths.shown(self.name, path)
        if allowed is Permissions.READONLY:
            raise StorageReadOnlyError(f'{shown}: the mount is readonly')
        if permission is Permissions.DELETE and allowed is not Permissions.DELETE:
            raise StoragePermissionError(f'{shown}: the mount allows no deletion (permissions: readwrite)')

    def require_removable(self, path: str) -> None:
        """Raise if nothing may be deleted here, or this is the root, which stays."""
        self.require(Permissions.DELETE, path)
        if not path:
            raise StoragePermissionError(f'{self.name}: the root of a mount can be neither removed nor renamed')
