"""Files whose content is their name, in base64: data where a path is expected.

Owns which names are files. Both alphabets are read, but for the slash of the older one: of slashes a path keeps no
more than it needs, so some content would silently become another. Nothing is stored, so there is nothing to list and
nothing to change.
Threads: safe; no state.
"""

import base64
import binascii
from collections.abc import Sequence

from genro_storage.backends.base import Capabilities
from genro_storage.backends.read_only import ReadOnlyBackend
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
)
from genro_storage.runtime import Clock

_URL_SAFE = str.maketrans('-_', '+/')


class Base64Backend(ReadOnlyBackend):
    """One flat directory in which every name that is base64 is a file."""

    def __init__(self, clock: Clock) -> None:
        super().__init__('base64:')
        # A name has no time. Zero would be 1970, which tools take for a mistake.
        self._made_ns = clock.time_ns()

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return Capabilities(instant=True, writable=False, always_reachable=True, strong_versions=True)

    def stat(self, path: str) -> Entry:
        """See Backend."""
        if not path:
            return Entry('', Kind.DIRECTORY, 0, self._made_ns)
        return Entry(path, Kind.FILE, len(self._content(path)), self._made_ns, Version(path, strong=True))

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend. The root is empty: what could be there is everything."""
        if path:
            self._content(path)
            raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')
        return ()

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend."""
        if not path:
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        content = self._content(path)
        if version is not None and version.tag != path:
            raise StorageConflictError(f'{self._shown(path)} is not what it was')
        return content[offset : offset + size_bytes]

    def close(self) -> None:
        """See Backend."""

    def _content(self, path: str) -> bytes:
        if '/' in path:
            raise StorageNotFoundError(
                f"{self._shown(path)}: no base64 with a slash is read; write '-' for '+' and '_' for '/', "
                'as base64.urlsafe_b64encode does'
            )
        plain = path.translate(_URL_SAFE)
        try:
            content = base64.b64decode(plain, validate=True)
        except (binascii.Error, ValueError) as error:
            raise StorageNotFoundError(f'{self._shown(path)} is no base64: {error}') from error
        # Else a content would have several names.
        if base64.b64encode(content).decode() != plain:
            raise StorageNotFoundError(f'{self._shown(path)} is no base64: bits are left over at its end')
        return content
