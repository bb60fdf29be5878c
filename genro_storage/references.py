"""Mounts that are made of another mount: what they see of it, and that none is made of itself.

Owns the looking up, at each use, by which a mount may be configured before the one that it refers to, and tells that it
is gone. Threads: safe; no state.
"""

from collections.abc import Callable, Mapping

from genro_storage import config
from genro_storage.backends.mounts import OpenedFile
from genro_storage.entry import Entry
from genro_storage.errors import StorageConfigError, UnknownMountError
from genro_storage.volume import Volume

#: The live mount of a name. Raises UnknownMountError.
Find = Callable[[str], Volume]


class References:
    """See Mounts: those of a manager, as the mount ``name`` sees them."""

    def __init__(self, name: str, find: Find) -> None:
        self._name = name
        self._find = find

    def volume(self, mount: str) -> Volume:
        """The live mount of a name. Raises StorageConfigError."""
        try:
            return self._find(mount)
        except UnknownMountError as error:
            raise StorageConfigError(f'mount {self._name!r} refers to another one: {error}') from error

    def destination(self, mount: str) -> str:
        """See Mounts."""
        return self.volume(mount).backend.destination

    def stat(self, mount: str, path: str) -> Entry:
        """See Mounts."""
        return self.volume(mount).stat(path)

    def open_read(self, mount: str, path: str) -> tuple[Entry, OpenedFile]:
        """See Mounts."""
        return self.volume(mount).open_told(path)


def refuse_circles(parents: Mapping[str, str | None]) -> None:
    """``parents``: by mount, what it refers to. Raises StorageConfigError if one refers to itself in the end."""
    circle = config.circle_of(parents)
    if circle is not None:
        raise StorageConfigError(config.told_circle(circle))
