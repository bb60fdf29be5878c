"""A mount that is a directory of another mount.

Owns that every path goes below that directory, and that what may be done is what both mounts allow. All else is the
other volume's: what is cached, staged and waiting is one for both, so that they agree at once.
Threads: safe; one lock over which volume is meant.
"""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from genro_storage import paths
from genro_storage.backends.base import (
    Backend,
    Capabilities,
    Headers,
    MakesUrls,
    SharesStore,
    StoresMetadata,
    TellsHeaders,
)
from genro_storage.cache.entries import Known
from genro_storage.config import Definition, LocalDefinition, Permissions, RelativeDefinition
from genro_storage.entry import Attributes, Entry, Usage, Version
from genro_storage.errors import (
    StorageConfigError,
    StorageNotADirectoryError,
    StorageUnsupportedError,
)
from genro_storage.reading.reader import Reader
from genro_storage.references import References
from genro_storage.volume import Volume
from genro_storage.writing.state import State
from genro_storage.writing.writer import Writer

# From the least that is allowed to the most.
_ORDER = (Permissions.READONLY, Permissions.READWRITE, Permissions.DELETE)


class Relative:
    """The volume of a relative mount: of whatever volume the other mount is now."""

    def __init__(self, definition: RelativeDefinition, references: References) -> None:
        self._definition = definition
        self._references = references
        self._lock = threading.Lock()
        self._made: RelativeVolume | None = None  # guarded by _lock

    def current(self) -> 'RelativeVolume':
        """The volume. Raises StorageConfigError if the other mount is not there."""
        parent = self._references.volume(self._definition.refers_to)
        with self._lock:
            made = self._made
        if made is None or made.parent is not parent:
            made = RelativeVolume(self._definition, parent)
            with self._lock:
                self._made = made
        return made

    def close(self, timeout_s: float) -> bool:
        """See Volume. What is open, and waits, is the other mount's."""
        return True

    def after_fork(self) -> None:
        """See Volume."""
        self._lock = threading.Lock()


class RelativeVolume(Volume):
    """See Volume. ``parent`` is the other mount's."""

    def __init__(self, definition: RelativeDefinition, parent: Volume) -> None:
        self.parent = parent
        self._below = paths.parse(definition.path)[1]
        self.name = definition.name
        self.definition = _both(definition, parent.definition, self._below)
        self.backend = cast(Backend, _Below(parent.backend, self._below))
        self.workers = parent.workers
        self.clock = parent.clock

    def after_fork(self) -> None:
        """See Volume. The parent does it."""

    def prepare(self) -> None:
        """See Volume."""
        self.parent.prepare()

    def adopt(self) -> None:
        """See Volume."""
        self.parent.adopt()

    def find(self, path: str, *, timed: bool = True) -> Known:
        """See Volume."""
        known = self.parent.find(self._full(path), timed=timed)
        return known if path or known.entry is None else known._replace(entry=_root(known.entry))

    def recall(self, path: str) -> Known | None:
        """See Volume."""
        known = self.parent.recall(self._full(path))
        if path or known is None or known.entry is None:
            return known
        return known._replace(entry=_root(known.entry))

    def stat(self, path: str) -> Entry:
        """See Volume."""
        entry = self.parent.stat(self._full(path))
        return entry if path else _root(entry)

    def list_directory(self, path: str) -> tuple[list[Entry], float]:
        """See Volume."""
        return self.parent.list_directory(self._full(path))

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """See Volume. Of what is below the directory."""

        def tell(path: str) -> None:
            if paths.is_within(path, self._below):
                callback(path[len(self._below) :].lstrip('/'))

        return self.parent.subscribe(tell)

    def usage(self) -> Usage | None:
        """See Volume."""
        return self.parent.usage()

    def state(self, path: str) -> State:
        """See Volume."""
        return self.parent.state(self._full(path))

    def cached_bytes(self, path: str) -> int:
        """See Volume."""
        return self.parent.cached_bytes(self._full(path))

    def open_read(self, path: str) -> Reader:
        """See Volume."""
        return self.parent.open_read(self._full(path))

    def open_told(self, path: str) -> tuple[Entry, Reader]:
        """See Volume."""
        return self.parent.open_told(self._full(path))

    def open_latest(self, path: str) -> Reader:
        """See Volume."""
        return self.parent.open_latest(self._full(path))

    def complete_file(self, path: str, entry: Entry) -> int | None:
        """See Volume."""
        return self.parent.complete_file(self._full(path), entry)

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
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        return self.parent.open_write(
            self._full(path),
            create=create,
            exclusive=exclusive,
            truncate=truncate,
            append=append,
            attributes=attributes,
        )

    def replace(self, path: str, *, exclusive: bool = False, attributes: Attributes | None = None) -> Writer:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        return self.parent.replace(self._full(path), exclusive=exclusive, attributes=attributes)

    def change(self, path: str, *, create: bool) -> Writer:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        return self.parent.change(self._full(path), create=create)

    def sync(self, path: str) -> None:
        """See Volume."""
        self.parent.sync(self._full(path))

    def retry_parked(self, path: str) -> None:
        """See Volume."""
        self.parent.retry_parked(self._full(path))

    def read_link(self, path: str) -> bytes:
        """See Volume."""
        return self.parent.read_link(self._full(path))

    def make_directory(self, path: str, attributes: Attributes | None = None) -> None:
        """See Volume. The directory that the mount is appears with the first one in it."""
        self.require(Permissions.READWRITE, path)
        if path and not paths.parent(path):
            self._make_root()
        self.parent.make_directory(self._full(path), attributes)

    def remove_file(self, path: str, *, expected: Version | None = None) -> None:
        """See Volume."""
        self.require(Permissions.DELETE, path)
        self.parent.remove_file(self._full(path), expected=expected)

    def remove_directory(self, path: str) -> None:
        """See Volume."""
        self.require_removable(path)
        self.parent.remove_directory(self._full(path))

    def rename(self, source: str, target: str) -> None:
        """See Volume."""
        self.require_removable(source)
        self.require_removable(target)
        self.parent.rename(self._full(source), self._full(target))

    def commit(self, path: str) -> None:
        """See Volume."""
        self.parent.commit(self._full(path))

    def copy(self, source: str, target: str, *, lender: Volume | None = None) -> None:
        """See Volume. Within the parent it is a copy there, whichever of its directories a mount shows."""
        self.require(Permissions.READWRITE, target)
        owner, path = _unwrapped(lender or self, source)
        self.parent.copy(path, self._full(target), lender=owner)

    @property
    def keeps_attributes(self) -> bool:
        """See Volume."""
        return self.parent.keeps_attributes

    def set_attributes(self, path: str, changes: Attributes) -> bool:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        return self.parent.set_attributes(self._full(path), changes)

    def metadata(self, path: str) -> Mapping[str, str]:
        """See Volume."""
        return self.parent.metadata(self._full(path))

    def change_metadata(self, path: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        """See Volume."""
        self.require(Permissions.READWRITE, path)
        self.parent.change_metadata(self._full(path), change)

    def close(self, timeout_s: float) -> bool:
        """See Volume. The parent does it."""
        return True

    def _full(self, path: str) -> str:
        return f'{self._below}/{path}' if path and self._below else path or self._below

    def _make_root(self) -> None:
        known = self.parent.find(self._below).entry
        if known is not None or not self._below:
            return
        names = self._below.split('/')
        for number in range(1, len(names) + 1):
            above = '/'.join(names[:number])
            if self.parent.find(above).entry is None:
                self.parent.make_directory(above)


class _Below:
    """What is asked of a volume's backend by those who have a volume, for paths below a directory."""

    def __init__(self, backend: Backend, below: str) -> None:
        self._backend = backend
        self._below = below

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return self._backend.capabilities

    @property
    def destination(self) -> str:
        """See Backend."""
        destination = self._backend.destination
        return f'{destination.rstrip("/")}/{self._below}' if self._below else destination

    @property
    def store(self) -> str:
        """See SharesStore."""
        return self._backend.store if isinstance(self._backend, SharesStore) else ''

    def path_in_store(self, path: str) -> str:
        """See SharesStore."""
        assert isinstance(self._backend, SharesStore)  # noqa: S101 - who asks has seen the name of the store
        return self._backend.path_in_store(self._full(path))

    def headers(self, path: str) -> Headers:
        """See TellsHeaders."""
        return self._backend.headers(self._full(path)) if isinstance(self._backend, TellsHeaders) else Headers()

    def url(self, path: str, valid_s: float) -> str:
        """See MakesUrls."""
        if not isinstance(self._backend, MakesUrls):
            raise StorageUnsupportedError(f'{self.destination}: its files have no URLs')
        return self._backend.url(self._full(path), valid_s)

    def metadata(self, path: str) -> Mapping[str, str]:
        """See StoresMetadata."""
        return self._storer.metadata(self._full(path))

    def set_metadata(self, path: str, metadata: Mapping[str, str], *, expected: Version | None) -> Entry:
        """See StoresMetadata."""
        return self._storer.set_metadata(self._full(path), metadata, expected=expected)

    def tell_attributes(self, directory: str, entries: Any) -> Any:
        """See StoresMetadata."""
        return self._storer.tell_attributes(self._full(directory), entries)

    @property
    def _storer(self) -> StoresMetadata:
        if not isinstance(self._backend, StoresMetadata):
            raise StorageUnsupportedError(f'{self.destination}: no metadata is stored there')
        return self._backend

    def _full(self, path: str) -> str:
        return f'{self._below}/{path}' if path and self._below else path or self._below


def _both(definition: RelativeDefinition, parent: Definition, below: str) -> Definition:
    """The parent's definition with the name of this one, and with what both of them permit."""
    permissions = min(definition.permissions, parent.permissions, key=_ORDER.index)
    changes: dict[str, Any] = {'name': definition.name, 'permissions': permissions}
    if isinstance(parent, LocalDefinition):
        changes['path'] = _folder(definition, parent, below)
    return msgspec.structs.replace(parent, **changes)


def _folder(definition: RelativeDefinition, parent: LocalDefinition, below: str) -> str:
    """The folder itself, for who serves it by descriptors: links in it lead to where they do, but not out."""
    root = os.path.realpath(parent.path)
    folder = os.path.realpath(os.path.join(root, below))
    if folder != root and not folder.startswith(root.rstrip('/') + '/'):
        raise StorageConfigError(
            f'mount {definition.name!r}: {definition.path} leads out of mount {parent.name!r}, by a symbolic link'
        )
    return folder


def _unwrapped(volume: Volume, path: str) -> tuple[Volume, str]:
    while isinstance(volume, RelativeVolume):
        path = volume._full(path)
        volume = volume.parent
    return volume, path


def _root(entry: Entry) -> Entry:
    """The entry of the mount's own root. Raises StorageNotADirectoryError: a mount is no file."""
    if not entry.is_directory:
        raise StorageNotADirectoryError(f'{entry.name!r} is a file, and a mount has to be a directory')
    return msgspec.structs.replace(entry, name='')
