"""The manager: names of mounts to live volumes.

Owns the set of mounts, the block cache that they share, and how all of it is pickled: by reference to where the
configuration came from. Threads: safe; one lock over the table, never held across I/O.
"""

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from genro_storage import config, paths
from genro_storage.backend_volume import BackendVolume
from genro_storage.backends import registry
from genro_storage.cache.caches import BlockCaches
from genro_storage.config import CacheSettings, Configuration, Definition, Privilege, RelativeDefinition, Source
from genro_storage.errors import StorageConfigError, UnknownMountError
from genro_storage.node import StorageNode
from genro_storage.places import Places
from genro_storage.references import References, refuse_circles
from genro_storage.relative import Relative
from genro_storage.runtime import Clock, SystemClock
from genro_storage.volume import Volume
from genro_storage.writing.journal import Journal
from genro_storage.writing.journal_roots import default_root, root_of_cache

#: How long close() waits for work under way, for each mount.
CLOSE_TIMEOUT_S = 30.0

Mount = Volume | Places | Relative

#: Managers of this process by the token in their pickles, so that a node that comes back finds its own.
_managers: weakref.WeakValueDictionary[str, 'StorageManager'] = weakref.WeakValueDictionary()


class StorageManager:
    """Named mounts and the nodes in them. Starts empty; a context manager that closes what it opened.

    >>> storage = StorageManager()
    >>> storage.configure([{'name': 'notes', 'type': 'memory'}])
    >>> storage.node('notes:today.txt').write_text('one line')
    >>> storage.node('notes').children()
    [StorageNode('notes:today.txt')]
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self._token = os.urandom(16).hex()
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._volumes: dict[str, Mount] = {}
        self._origins: dict[str, Any] = {}  # name → what configured it, as pickles refer to it
        self._parents: dict[str, str | None] = {}  # name → the mount that it refers to
        self._settings = CacheSettings()
        self._caches = BlockCaches(self._settings, self.clock)
        self._retired: list[BlockCaches] = []  # of earlier settings, which mounts may use still
        _managers[self._token] = self

    def __repr__(self) -> str:
        return f'StorageManager({", ".join(self.get_mount_names())})'

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._token, self._references())

    def configure(self, source: Source) -> None:
        """Add the mounts of a source: a path to YAML or JSON, definitions, a mapping with ``mounts:``, or a callable.

        What comes from elsewhere is wrapped: ``config.Untrusted(source)``, ``config.DatabaseSource(url, table)``.

        A name that is configured already is replaced. All or nothing. Raises StorageNotFoundError (a
        FileNotFoundError: no such file), TypeError (no kind of source), StorageConfigError (a ValueError) for all that
        is wrong inside.
        """
        self._adopt(config.load(source))

    def add_mount(self, definition: Mapping[str, Any] | Definition) -> None:
        """Add or replace one mount. Raises StorageConfigError."""
        self._adopt(config.load([definition]))

    def delete_mount(self, name: str) -> None:
        """Forget a mount; what it shows stays where it is. Raises UnknownMountError."""
        with self._lock:
            volume = self._volumes.pop(name, None)
            self._origins.pop(name, None)
            self._parents.pop(name, None)
        if volume is None:
            raise self._unknown(name)
        _close_all([volume])

    def get_mount_names(self) -> list[str]:
        """The names of all mounts, in the order in which they were configured."""
        with self._lock:
            return list(self._volumes)

    def has_mount(self, name: str) -> bool:
        """Whether a mount of this name is configured."""
        with self._lock:
            return name in self._volumes

    def node(self, path: str, *parts: str) -> StorageNode:
        """The node of ``'mount:path'`` and further parts; nothing need be there.

        Raises UnknownMountError (a KeyError and a StorageNotFoundError), StoragePathError (a ValueError) for ``..``.
        """
        mount, inside = paths.parse(path, *parts)
        if not self.has_mount(mount):
            raise self._unknown(mount)
        return StorageNode(self, mount, inside)

    def volume(self, name: str) -> Volume:
        """The live mount of a name, for those who build on volumes; of a dynamic one, of the place that is meant now.

        Raises UnknownMountError, StorageConfigError (nobody can say the place).
        """
        with self._lock:
            volume = self._volumes.get(name)
        if volume is None:
            raise self._unknown(name)
        return volume if isinstance(volume, Volume) else volume.current()

    def cache_usage(self) -> tuple[CacheSettings, int | None]:
        """How much may be cached and where, and how many bytes are on the disk; None where nobody has counted."""
        with self._lock:
            settings, caches = self._settings, self._caches
        return settings, caches.disk_used_bytes()

    def close(self) -> None:
        """Commit what is open, end work under way and give back connections; the manager is empty then."""
        with self._lock:
            volumes = list(self._volumes.values())
            self._volumes.clear()
            self._origins.clear()
            self._parents.clear()
            caches = [*self._retired, self._caches]
            self._retired.clear()
            self._caches = BlockCaches(self._settings, self.clock)
        _close_all([*volumes, *caches])

    # Inside

    def _unknown(self, name: str) -> UnknownMountError:
        known = ', '.join(self.get_mount_names()) or 'none'
        return UnknownMountError(f'no mount is named {name!r}; configured: {known}')

    def _adopt(self, configuration: Configuration) -> None:
        with self._lock:
            settings, caches = self._settings, self._caches
        self._refuse_replacing(configuration)
        self._refuse_circles(configuration)
        if configuration.cache is not None and configuration.cache != settings:
            settings = configuration.cache
            caches = BlockCaches(settings, self.clock)
        mounts = {mount.name: self._made(mount, configuration, settings, caches) for mount in configuration.mounts}
        # Nothing can fail any more.
        with self._lock:
            if caches is not self._caches:
                self._retired.append(self._caches)
            self._settings, self._caches = settings, caches
            replaced = [self._volumes[name] for name in mounts if name in self._volumes]
            self._volumes.update(mounts)
            self._origins.update((name, configuration.reference(name)) for name in mounts)
            self._parents.update((mount.name, mount.refers_to) for mount in configuration.mounts)
        _close_all(replaced)

    def _refuse_replacing(self, configuration: Configuration) -> None:
        """Raise StorageConfigError if an untrusted source defines a mount that another source has configured."""
        if Privilege.REPLACE in configuration.allowed:
            return
        with self._lock:
            origins = dict(self._origins)
        for mount in configuration.mounts:
            if mount.name in origins and origins[mount.name] != configuration.reference(mount.name):
                raise StorageConfigError(
                    f'{configuration.origin}: mount {mount.name!r}: {config.trust.refusal(Privilege.REPLACE)}'
                )

    def _refuse_circles(self, configuration: Configuration) -> None:
        """Raise StorageConfigError if a mount would be made of itself."""
        with self._lock:
            parents = dict(self._parents)
        refuse_circles({**parents, **{mount.name: mount.refers_to for mount in configuration.mounts}})

    def _made(
        self, mount: Definition, configuration: Configuration, settings: CacheSettings, caches: BlockCaches
    ) -> Mount:
        if isinstance(mount, RelativeDefinition):
            return Relative(mount, References(mount.name, self.volume))
        dynamic = configuration.dynamic.get(mount.name)
        if dynamic is None:
            return self._build(mount, settings, caches)
        return Places(dynamic, lambda definition: self._build(definition, settings, caches))

    def _build(self, definition: Definition, settings: CacheSettings, caches: BlockCaches) -> Volume:
        backend = registry.create(definition, self.clock, References(definition.name, self.volume))
        root = journal_root(settings)
        # What is written to memory or to the local disk is as safe there as it would be in a journal.
        journal = None if backend.capabilities.instant else Journal(root, backend.destination, self.clock)
        # Beside the journal, so that a file goes into that by a link.
        return BackendVolume(definition, backend, caches.of(definition.cache), root / 'staging', self.clock, journal)

    def _references(self) -> list[tuple[str, Any]]:
        with self._lock:
            origins = dict(self._origins)
        for name, origin in origins.items():
            if isinstance(origin, Mapping) and (secrets := config.literal_secrets(origin)):
                raise StorageConfigError(
                    f'mount {name!r}: a pickle would carry the literal {", ".join(secrets)}; '
                    'configure it from a file, or write ${NAME} and set the environment variable'
                )
        return list(origins.items())

    def _after_fork(self) -> None:
        """Locks may have been held and threads are gone: begin anew over the same definitions and backends."""
        self._lock = threading.Lock()
        for caches in (*self._retired, self._caches):
            caches.after_fork()
        for volume in self._volumes.values():
            volume.after_fork()


def journal_root(settings: CacheSettings) -> Path:
    """Where what waits for its upload is kept: with the cache where that was configured, else in the state folder."""
    if settings.path == CacheSettings().path:
        return default_root()
    return root_of_cache(settings.path)


def _close_all(parts: Iterable[Mount | BlockCaches]) -> None:
    """Close each in turn, whatever happens to the others; raises what one of them raised."""
    with ExitStack() as stack:
        for part in reversed(list(parts)):
            stack.callback(part.close, CLOSE_TIMEOUT_S)


def _restore(token: str, references: list[tuple[str, Any]]) -> StorageManager:
    """The manager of a pickle: the living one of this process, or a new one over the same configuration."""
    manager = _managers.get(token)
    if manager is None:
        manager = StorageManager()
        _managers.pop(manager._token, None)
        manager._token = token
        _managers[token] = manager
        for name, origin in references:
            loaded = config.load([origin] if isinstance(origin, Mapping) else origin)
            manager._adopt(loaded.only(name))
    return manager


def _after_fork() -> None:
    for manager in list(_managers.values()):
        manager._after_fork()


os.register_at_fork(after_in_child=_after_fork)
