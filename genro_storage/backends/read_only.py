"""What every backend has in common that can only be read: the refusals.

Owns their words. Threads: safe; no state.
"""

from collections.abc import Mapping
from typing import NoReturn

from genro_storage.backends.base import Expected, Source
from genro_storage.entry import Entry, Version
from genro_storage.errors import StorageReadOnlyError


class ReadOnlyBackend:
    """Refuses every change. Who inherits it looks and reads."""

    def __init__(self, destination: str) -> None:
        self._destination = destination

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self._destination!r})'

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._destination

    def put(
        self,
        path: str,
        source: Source,
        *,
        expected: Expected = None,
        placed: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. Refused."""
        self._refuse(path)

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend. Refused."""
        self._refuse(path)

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend. Refused."""
        self._refuse(path)

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend. Refused."""
        self._refuse(path)

    def rename(self, source: str, target: str) -> None:
        """See Backend. Refused."""
        self._refuse(target)

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. Refused."""
        self._refuse(target)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend. Refused."""
        self._refuse(path)

    def usage(self) -> None:
        """See Backend. There is no room to speak of."""

    def _shown(self, path: str) -> str:
        return repr(f'{self._destination}/{path}') if path else repr(self._destination)

    def _refuse(self, path: str) -> NoReturn:
        raise StorageReadOnlyError(f'{self._shown(path)}: can only be read')
