"""What an object store is asked for, by exact keys: the protocol between ObjectDirectories and its drivers.

Owns the shape of the requests and of their answers, no meaning and no transport. Threads: values, and a protocol whose
methods several threads may call at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, runtime_checkable

import msgspec

from genro_storage.backends.base import Expected, Headers, LengthLimit, Source
from genro_storage.entry import Extent

T = TypeVar('T')

#: No user metadata.
PLAIN: Mapping[str, str] = {}

#: What a marker says it is, to s3fs-fuse among others.
MARKER_TYPE = 'application/x-directory'


class StoredObject(msgspec.Struct, frozen=True, gc=False):
    """A key and what a HEAD or a listing tells of it; ``tag`` is the ETag without quotes, times are whole seconds.

    Whole seconds, because listings may hold milliseconds and the header of a HEAD cannot. 0 where an answer to a write
    told none. ``metadata`` is user metadata, None from a listing, which does not tell it. ``storage_class`` is what a
    copy has to be told to lie as this does; '' for nothing.
    """

    key: str
    size_bytes: int
    mtime_s: int
    tag: str
    metadata: Mapping[str, str] | None = None
    storage_class: str = ''


class ListingPage(msgspec.Struct, frozen=True, gc=False):
    """Some of the keys below a prefix and, of a listing up to a delimiter, the longer prefixes that it ended at."""

    objects: Sequence[StoredObject]
    prefixes: Sequence[str] = ()


#: Makes what was brought close to a key visible there, under a condition. Raises StorageConflictError where that does
#: not hold, StorageNotFoundError where a version is expected and nothing is there, StorageUnsupportedError where the
#: server knows no conditions.
Commit = Callable[[Expected], StoredObject]


class ObjectUpload(Protocol):
    """See PartUpload; what it says of a file holds for the object of a key."""

    @property
    def token(self) -> str:
        """See PartUpload."""

    def send(self, number: int, source: Source, extent: Extent) -> None:
        """See PartUpload."""

    def copy(self, number: int, extent: Extent, tag: str, source: str | None = None) -> None:
        """See PartUpload; ``source`` is a key.

        Raises StorageConflictError, StorageNotFoundError, StorageUnsupportedError.
        """

    def complete(self, count: int, expected: Expected) -> StoredObject:
        """Make the parts 1 to ``count`` the object, as Commit does; the size need not be told (0)."""

    def abort(self) -> None:
        """See PartUpload."""


class ObjectRequests(Protocol):
    """What an object store is asked for. Keys are exact, with all their slashes and control characters.

    A missing bucket raises StorageNotFoundError that names it, from all but ``head`` and ``look``'s first half, which
    cannot tell it from a missing key.
    """

    @property
    def destination(self) -> str:
        """See Backend."""

    @property
    def tells_mtime(self) -> bool:
        """Whether the answer to a write holds the time that a HEAD shows next."""

    @property
    def key_limit(self) -> LengthLimit:
        """How long a key may be."""

    def prepare(self) -> None:
        """See Prepares."""

    def look(self, places: Sequence[tuple[str, str]]) -> list[tuple[StoredObject | None, list[str]]]:
        """For each (key, prefix) the object of that key and the first key below that prefix; all asked at once."""

    def first_keys(self, prefixes: Sequence[str], limit: int) -> list[list[str]]:
        """The first keys below each prefix; all asked at once."""

    def head(self, key: str) -> StoredObject | None:
        """The object of a key."""

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """The objects of keys, several asked at once."""

    def headers(self, key: str) -> Headers | None:
        """What else is said of the object of a key."""

    def url(self, key: str, valid_s: float) -> str:
        """See MakesUrls; of a key."""

    def pages(self, prefix: str, delimiter: str) -> Iterator[ListingPage]:
        """All keys that begin with a prefix; with a delimiter only up to the next one."""

    def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        """Bytes of an object, empty behind its end.

        Raises StorageNotFoundError; StorageConflictError if its tag is another.
        """

    def upload(self, key: str, source: Source, metadata: Mapping[str, str] = PLAIN) -> AbstractContextManager[Commit]:
        """Bring a source close to a key. Leaving the ``with`` without a commit leaves nothing behind."""

    def begin(self, key: str, metadata: Mapping[str, str] = PLAIN) -> ObjectUpload | None:
        """Begin an upload in parts, of which each is sent when the caller has it; None where that cannot be."""

    def abort(self, key: str, token: str) -> None:
        """Have the server forget one that was begun, perhaps by another process; no error where there is none."""

    def mark(self, key: str, expected: Expected = None, metadata: Mapping[str, str] = PLAIN) -> None:
        """Store a marker, an empty object. Raises as Commit does."""

    def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """Replace the user metadata of an object. With a tag only of that one: raises StorageConflictError.

        Raises StorageNotFoundError.
        """

    def remove(self, key: str) -> None:
        """Remove a key; that there is none is no error."""

    def remove_all(self, keys: Sequence[str]) -> None:
        """Remove many keys, in this order where the store removes in order. Raises StorageIOError if some stayed."""

    def copy(
        self,
        source: str,
        target: str,
        size_bytes: int,
        tag: str | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
        storage_class: str = '',
    ) -> StoredObject:
        """Copy an object to another key inside the store, with its user metadata or with other, as of a new object.

        With a tag only that one: raises StorageConflictError, and what a Commit raises for what is expected of the
        target. The time need not be told (0). ``storage_class``: the source's, as a StoredObject has it.
        """

    def each(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        """Call a function for each item, several at a time; the first failure, once all that had begun have ended."""

    def close(self) -> None:
        """Give back connections. Idempotent."""


@runtime_checkable
class ReadsBeginnings(Protocol):
    """ObjectRequests whose answer to a read tells of the object what that to a HEAD tells."""

    def look_into(self, key: str, prefix: str, size_bytes: int) -> tuple[StoredObject | None, list[str], bytes | None]:
        """What ``look`` tells, and in the same time the first bytes of the object: all of them if it is no larger.

        None for the bytes where there are none to be had, now or ever.
        """
