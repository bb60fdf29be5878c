"""The Backend protocol: what a place that holds files must do, and no more.

Paths are normalised (see paths); the root is ``''``. Errors are of the StorageError tree only: a backend translates
what it calls, at its own edge, by type. Unreachable is never "not found".

Threads: every method may be called from several threads at once. A method may wait for a network unless
``capabilities.instant`` is true; one that may, calls ``runtime.about_to_block()`` first.
"""

import enum
from collections.abc import Sequence
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec

from genro_storage.entry import Entry, Extent, Usage, Version
from genro_storage.errors import StorageUnavailableError


class _Absent(enum.Enum):
    ABSENT = 'absent'


#: "There must be nothing": the expectation of an exclusive creation.
ABSENT: Final = _Absent.ABSENT

#: What a commit is based on: a version, nothing at all (ABSENT), or None for "whatever is there".
Expected = Version | Literal[_Absent.ABSENT] | None


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend can do; callers choose by these and never by its type."""

    #: Answers from memory or the local disk: a thread that reads /dev/fuse may call it.
    instant: bool = False
    #: Versions are ETags or counters: a change of the same size is seen.
    strong_versions: bool = False
    #: ``put(expected=…)`` is checked by the backend itself, atomically with the write. Otherwise right before it.
    conditional_put: bool = False
    #: Directories exist on their own. Otherwise they are what keys imply, or marker objects.
    real_directories: bool = True
    #: ``rename`` is one step: others see the old name or the new one, never both or neither.
    atomic_rename: bool = False
    #: ``set_mtime`` is kept.
    stores_mtime: bool = False
    #: ``put`` returns the time that ``stat`` shows next. Otherwise 0: to ask for it costs a request, and few look.
    tells_mtime: bool = True
    #: ``rename`` of a directory is copies and then removals, and it is a MovesInSteps.
    moves_in_steps: bool = False


class InterruptedReadError(StorageUnavailableError):
    """A read broke off; ``received`` is what had arrived by then, from which a further try goes on."""

    def __init__(self, message: str, received: bytes = b'') -> None:
        super().__init__(message)
        self.received = received


class Source(Protocol):
    """What ``put`` stores: random access, so that parts can go in parallel and again after a failure."""

    @property
    def size_bytes(self) -> int:
        """The length; fixed while a put runs."""

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Exactly these bytes, fewer only at the end. Safe from several threads."""

    def fileno(self) -> int:
        """A descriptor of a regular file with this content, for copies inside the kernel."""


class Backend(Protocol):
    """A place that holds files under normalised paths."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; constant for the life of the backend."""

    @property
    def destination(self) -> str:
        """Where the data really are (type, endpoint, bucket, prefix), without secrets: keys caches and journals."""

    def stat(self, path: str) -> Entry:
        """What is at a path. Raises StorageNotFoundError."""

    def list_directory(self, path: str) -> Sequence[Entry]:
        """The entries of a directory, in no particular order, names that no path can express left out.

        Raises StorageNotFoundError, StorageNotADirectoryError.
        """

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """Bytes of a file, fewer than asked for only at its end.

        With a version, only of that one: raises StorageConflictError if the file has changed since (where the
        version is weak, as far as can be told).
        """

    def put(self, path: str, source: Source, *, expected: Expected = None, placed: bool = False) -> Entry:
        """Store a whole file, seen by others wholly or not at all, and return its entry.

        Missing parents appear. Raises StorageExistsError (``expected=ABSENT``), StorageConflictError (another
        version is there), StorageIsADirectoryError, StorageNotADirectoryError (a parent is a file).

        ``placed``: the caller has seen lately that the parent is a directory and that none is at the path, which need
        not be asked again. The entry's ``mtime_ns`` is 0 where only asking would tell (``tells_mtime``).
        """

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """Remove a file. Raises StorageNotFoundError, StorageIsADirectoryError.

        ``seen``: the caller has seen lately that a file is there; ``beside``: that its directory has, or has no, other
        entries. Neither need be asked again, and who was wrong about the first hears of no error.
        """

    def make_directory(self, path: str) -> None:
        """Make an empty directory that lasts. Raises StorageExistsError, StorageNotFoundError (no parent)."""

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """Remove an empty directory; ``beside`` as for files.

        Raises StorageNotFoundError, StorageNotADirectoryError, StorageNotEmptyError.
        """

    def rename(self, source: str, target: str) -> None:
        """Move a file, replacing a file at the target, or a directory, replacing an empty directory.

        Raises StorageNotFoundError, StorageIsADirectoryError, StorageNotADirectoryError, StorageNotEmptyError.
        """

    def copy(self, source: str, target: str) -> Entry:
        """Copy a file inside the backend, without its bytes passing through here. Raises StorageUnsupportedError."""

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """Keep a modification time. Raises StorageUnsupportedError where ``stores_mtime`` is false."""

    def usage(self) -> Usage | None:
        """Room left, or None where nobody knows."""

    def close(self) -> None:
        """Give back connections. Idempotent; nothing is called after it."""


@runtime_checkable
class Prepares(Protocol):
    """A backend whose first request would have to load modules and make clients."""

    def prepare(self) -> None:
        """Load and make them, connecting nowhere. May raise whatever the first request would raise."""


@runtime_checkable
class HoldsBack(Protocol):
    """A backend that is not asked for a while when it did not answer."""

    def ask_again(self) -> None:
        """Ask it from now on: somebody wants that who may know that it is back."""


@runtime_checkable
class OpensDescriptors(Protocol):
    """A backend whose files are files of this machine: who reads one holds it, whatever happens to its name."""

    def open_descriptor(self, path: str) -> int:
        """A descriptor to read a file, for the caller to close.

        Raises StorageNotFoundError, StorageIsADirectoryError, StorageUnsupportedError (no regular file).
        """


class PartUpload(Protocol):
    """A file on its way in parts, which nobody sees before complete(). Parts are numbered from 1.

    Threads: parts may be sent from several at once; complete and abort come alone.
    """

    @property
    def token(self) -> str:
        """Names it to ``abort_upload``, in another process too; '' where what is not completed vanishes by itself."""

    def send(self, number: int, source: Source, extent: Extent) -> None:
        """Store some of a source as a part, in place of an earlier one of this number. May be tried again."""

    def copy(self, number: int, extent: Extent, version: Version) -> None:
        """Make a part of bytes of this very file, of that version, without their passing through here.

        Raises StorageConflictError if that version is not there any more, StorageUnsupportedError.
        """

    def complete(self, count: int, expected: Expected) -> Entry:
        """Make the parts 1 to ``count`` the file. Raises what ``put`` raises; then it can be aborted."""

    def abort(self) -> None:
        """Have the server forget it. Idempotent. Raises what makes that impossible now."""


@runtime_checkable
class UploadsInParts(Protocol):
    """A backend that takes a large file in parts: while it is being written, or with parts of the version before."""

    def begin_upload(self, path: str) -> PartUpload | None:
        """Begin one; None where this backend cannot. Parts of 5 MiB at least, but the last; of one size, where sent."""

    def abort_upload(self, path: str, token: str) -> None:
        """Have the server forget one that a process which is gone had begun; no error where there is none."""


class Move(msgspec.Struct, frozen=True, gc=False):
    """One object of a directory that moves, by its paths relative to the two directories; '' tag: a marker."""

    name: str
    size_bytes: int
    tag: str


@runtime_checkable
class MovesInSteps(Protocol):
    """A backend whose rename of a directory is copies and then removals, so that somebody can note how far it is."""

    def plan_move(self, source: str, target: str) -> Sequence[Move]:
        """What a rename of a directory has to move. Raises what ``rename`` raises before it does anything."""

    def copy_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """Copy all, several at a time. What was copied before a failure is removed again."""

    def remove_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """Remove the old ones that are still what was copied and whose copy is there. May be done again."""

    def undo_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """Remove the copies whose original is still there, and nothing else. May be done again."""
