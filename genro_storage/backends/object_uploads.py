"""Uploads in parts to an object store, as the Backend protocol has them.

Owns how large the file will be, and what a failure means to whoever wrote it. The requests are an ObjectUpload's.

Threads: see PartUpload.
"""

from collections.abc import Callable

from genro_storage.backends.base import Expected, Source, SourceGoneError
from genro_storage.backends.object_requests import ObjectUpload
from genro_storage.entry import Entry, Extent, Version
from genro_storage.errors import StorageConflictError, StorageNotFoundError
from genro_storage.runtime import about_to_block


class ObjectPartUpload:
    """See PartUpload. ``complete`` commits so many parts of so many bytes in all; ``shown`` names the file."""

    def __init__(
        self,
        upload: ObjectUpload,
        shown: str,
        complete: Callable[[int, int, Expected], Entry],
        key: Callable[[str], str],
    ) -> None:
        """key: that of a path of the backend."""
        self._upload = upload
        self._shown = shown
        self._key = key
        self._complete = complete
        self._sizes: dict[int, int] = {}  # each number belongs to the thread that sends it

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self._shown})'

    @property
    def token(self) -> str:
        """See PartUpload."""
        return self._upload.token

    def send(self, number: int, source: Source, extent: Extent) -> None:
        """See PartUpload."""
        about_to_block()
        self._upload.send(number, source, extent)
        self._sizes[number] = extent.size_bytes

    def copy(self, number: int, extent: Extent, version: Version, source: str | None = None) -> None:
        """See PartUpload."""
        about_to_block()
        gone, shown = (StorageConflictError, self._shown) if source is None else (SourceGoneError, repr(source))
        try:
            self._upload.copy(number, extent, version.tag, None if source is None else self._key(source))
        except StorageConflictError as error:
            raise gone(f'{shown} has changed since it was opened') from error
        except StorageNotFoundError as error:
            raise gone(f'{shown} is gone since it was opened') from error
        self._sizes[number] = extent.size_bytes

    def complete(self, count: int, expected: Expected) -> Entry:
        """See PartUpload. Raises ValueError if one of the parts was neither sent nor copied."""
        about_to_block()
        missing = [number for number in range(1, count + 1) if number not in self._sizes]
        if missing:
            raise ValueError(f'{self._shown}: part {missing[0]} of {count} was not sent')
        return self._complete(count, sum(self._sizes[number] for number in range(1, count + 1)), expected)

    def abort(self) -> None:
        """See PartUpload."""
        about_to_block()
        self._upload.abort()
