"""The Backend protocol: what a place that holds files must do, and no more.

Paths are normalised (see paths); the root is ``''``. Errors are of the StorageError tree only: a backend translates
what it calls, at its own edge, by type. Unreachable is never "not found".

Threads: every method may be called from several threads at once. A method may wait for a network unless
``capabilities.instant`` is true; one that may, calls ``runtime.about_to_block()`` first.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec

from genro_storage import paths
from genro_storage.entry import Entry, Extent, Usage, Version
from genro_storage.errors import StorageConflictError, StorageUnavailableError


class _Absent(enum.Enum):
    ABSENT = 'absent'


#: "There must be nothing": the expectation of an exclusive creation.
ABSENT: Final = _Absent.ABSENT

#: What a commit is based on: a version, nothing at all (ABSENT), or None for "whatever is there".
Expected = Version | Literal[_Absent.ABSENT] | None


class LengthLimit(msgspec.Struct, frozen=True, gc=False):
    """How long a name in a store may be: so many bytes of UTF-8, or characters."""

    length: int
    in_characters: bool = False

    def __str__(self) -> str:
        return f'{self.length:,} {"characters" if self.in_characters else "bytes"}'

    def allows(self, name: str) -> bool:
        """Whether it is no longer."""
        # Encoded only when it might be too long: this is asked of each name that is looked up.
        return len(name) * 4 <= self.length or self._measure(name) <= self.length

    def behind(self, prefix: str) -> 'LengthLimit':
        """What is left for all that follows this."""
        return msgspec.structs.replace(self, length=self.length - self._measure(prefix))

    def _measure(self, name: str) -> int:
        return len(name) if self.in_characters else len(paths.encode(name))


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend can do; callers choose by these and never by its type."""

    #: Answers from memory or the local disk: a thread that reads /dev/fuse may call it.
    instant: bool = False
    #: Can be written to. Otherwise whatever would change something raises StorageReadOnlyError.
    writable: bool = True
    #: Is never out of reach itself: what it reads from is of this machine, or has patience of its own.
    always_reachable: bool = False
    #: Versions are ETags or counters: a change of the same size is seen.
    strong_versions: bool = False
    #: ``put(expected=…)`` is checked by the backend itself, atomically with the write. Otherwise right before it.
    conditional_put: bool = False
    #: Directories exist on their own. Otherwise they are what keys imply, or marker objects.
    real_directories: bool = True
    #: ``rename`` is one step: others see the old name or the new one, never both or neither.
    atomic_rename: bool = False
    #: A put over a file is one step: others see the old one or the new one. Otherwise, for an instant, perhaps none.
    atomic_replace: bool = True
    #: ``set_mtime`` is kept.
    stores_mtime: bool = False
    #: ``put`` returns the time that ``stat`` shows next. Otherwise 0: to ask for it costs a request, and few look.
    tells_mtime: bool = True
    #: ``rename`` of a directory is copies and then removals, and it is a MovesInSteps.
    moves_in_steps: bool = False
    #: Objects have user metadata, and it is a StoresMetadata.
    stores_metadata: bool = False
    #: Of a path, with a slash behind that of a directory. None: it knows none, or says so before it does anything.
    path_limit: LengthLimit | None = None

    def is_timed(self, entry: Entry) -> bool:
        """Whether the entry of what was just stored tells the time that ``stat`` shows next."""
        return bool(self.tells_mtime or entry.modified_ns)


class InterruptedReadError(StorageUnavailableError):
    """A read broke off; ``received`` is what had arrived by then, from which a further try goes on."""

    def __init__(self, message: str, received: bytes = b'') -> None:
        super().__init__(message)
        self.received = received


class SourceGoneError(StorageConflictError):
    """The version that was to be copied is not there any more; nothing came of it."""


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

    def put(
        self,
        path: str,
        source: Source,
        *,
        expected: Expected = None,
        placed: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """Store a whole file, seen by others wholly or not at all, and return its entry.

        Missing parents appear. Raises StorageExistsError (``expected=ABSENT``), StorageConflictError (another
        version is there), StorageIsADirectoryError, StorageNotADirectoryError (a parent is a file).

        ``placed``: the caller has seen lately that the parent is a directory and that none is at the path, which need
        not be asked again. The entry's ``mtime_ns`` is 0 where only asking would tell (``tells_mtime``).

        ``metadata``: user metadata of the new object, in the place of all there was; of use where it is a
        StoresMetadata.
        """

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """Remove a file. Raises StorageNotFoundError, StorageIsADirectoryError.

        ``seen``: the caller has seen lately that a file is there; ``beside``: that its directory has, or has no, other
        entries. Neither need be asked again, and who was wrong about the first hears of no error.
        """

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """Make an empty directory that lasts; ``metadata`` as for ``put``.

        Raises StorageExistsError, StorageNotFoundError (no parent).
        """

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """Remove an empty directory; ``beside`` as for files.

        Raises StorageNotFoundError, StorageNotADirectoryError, StorageNotEmptyError.
        """

    def rename(self, source: str, target: str) -> None:
        """Move a file, replacing a file at the target, or a directory, replacing an empty directory.

        Raises StorageNotFoundError, StorageIsADirectoryError, StorageNotADirectoryError, StorageNotEmptyError.
        """

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """Copy a file inside the backend, without its bytes passing through here; the entry of the copy, as of ``put``.

        With a version only that one of the source: raises SourceGoneError. ``expected`` is of the target, and
        ``metadata`` of the copy; None: that of the source. The source may be a path in the store (SharesStore).
        Raises StorageUnsupportedError, StorageNotFoundError, StorageIsADirectoryError, and what ``put`` raises.
        """

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
class TellsBeginnings(Protocol):
    """A backend that can tell what is at a path and how it begins in the time of one question."""

    def stat_and_read(self, path: str, size_bytes: int) -> tuple[Entry, bytes | None]:
        """What ``stat`` tells, and of a file the first bytes of that very version: all, if it is no larger.

        None for the bytes of whatever cannot be read now. Raises StorageNotFoundError.
        """


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

    def copy(self, number: int, extent: Extent, version: Version, source: str | None = None) -> None:
        """Make a part of bytes of this very file, of that version, without their passing through here.

        Or of another file of this backend, or of its store (SharesStore). Raises StorageConflictError if that version
        is not there any more (of another file SourceGoneError), StorageUnsupportedError.
        """

    def complete(self, count: int, expected: Expected) -> Entry:
        """Make the parts 1 to ``count`` the file. Raises what ``put`` raises; then it can be aborted."""

    def abort(self) -> None:
        """Have the server forget it. Idempotent. Raises what makes that impossible now."""


@runtime_checkable
class UploadsInParts(Protocol):
    """A backend that takes a large file in parts: while it is being written, or with parts of the version before."""

    def begin_upload(self, path: str, metadata: Mapping[str, str] | None = None) -> PartUpload | None:
        """Begin one, of an object with this user metadata; None where this backend cannot.

        Parts of 5 MiB at least, but the last; of one size, where sent.
        """

    def abort_upload(self, path: str, token: str) -> None:
        """Have the server forget one that a process which is gone had begun; no error where there is none."""


@runtime_checkable
class StoresMetadata(Protocol):
    """A backend whose objects have user metadata: names in lower case, without the prefix of the protocol.

    Directories have it where they have a marker. Entries tell it where it costs no further request.
    """

    def metadata(self, path: str) -> Mapping[str, str]:
        """That of a file or directory. Raises StorageNotFoundError, StorageUnsupportedError."""

    def set_metadata(self, path: str, metadata: Mapping[str, str], *, expected: Version | None) -> Entry:
        """Replace all of it and keep all else; the entry, whose version may be another now, of the same bytes.

        With a version, only if that is there: raises StorageConflictError. A directory gets a marker.
        Raises StorageNotFoundError, StorageUnsupportedError.
        """

    def tell_attributes(self, directory: str, entries: Sequence[Entry]) -> Sequence[Entry]:
        """These entries of a directory with their attributes, several asked for at a time; what has gone left out."""


@runtime_checkable
class SharesStore(Protocol):
    """A backend that shows a part of something larger, as a mount does that begins at a prefix of a bucket."""

    @property
    def store(self) -> str:
        """Names the whole: where it is equal, one can copy what another shows. '' where that is never so."""

    def path_in_store(self, path: str) -> str:
        """A path with a slash before it that all backends of the store take for this file, to copy from and to read."""


class Headers(msgspec.Struct, frozen=True, gc=False):
    """What a server says of an object beside its bytes and user metadata; None: nothing."""

    etag: str | None = None
    content_type: str | None = None


@runtime_checkable
class TellsHeaders(Protocol):
    """A backend that asks a server which describes its objects."""

    def headers(self, path: str) -> Headers:
        """Of a file. Raises StorageNotFoundError."""


@runtime_checkable
class MakesUrls(Protocol):
    """A backend whose files have URLs. Whoever has one can read the file for as long as it is valid."""

    def url(self, path: str, valid_s: float) -> str:
        """From which to GET a file without credentials, for so long; of what is public, for ever.

        Whether the file is there is not asked. Raises StorageUnsupportedError, also for credentials that cannot sign.
        """


class Move(msgspec.Struct, frozen=True, gc=False):
    """One object of a directory that moves, by its paths relative to the two directories; '' tag: a marker.

    ``storage_class``: what its copy has to be told to lie as it does; '' for nothing.
    """

    name: str
    size_bytes: int
    tag: str
    storage_class: str = ''


@runtime_checkable
class MovesInSteps(Protocol):
    """A backend whose rename is copies and then removals: it can be told what need not be asked, and be noted."""

    def move_seen(self, source: str, target: str, seen: Entry, *, beside: bool | None = None) -> Entry:
        """Rename a file of which the caller has seen this version lately, and the entry that it becomes.

        At the target he has seen a file or nothing, in a directory. None of that is asked again; ``beside`` as for
        ``remove_file``. The time is 0 where only asking would tell, and attributes are those that were seen. Raises
        StorageConflictError or StorageNotFoundError if it is another file by now, or none, and nothing has happened.
        """

    def plan_move(self, source: str, target: str) -> Sequence[Move]:
        """What a rename of a directory has to move. Raises what ``rename`` raises before it does anything."""

    def copy_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """Copy all, several at a time. What was copied before a failure is removed again."""

    def remove_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """Remove the old ones that are still what was copied and whose copy is there. May be done again."""

    def undo_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """Remove the copies whose original is still there, and nothing else. May be done again."""
