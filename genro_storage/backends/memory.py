"""A private store in this process: a Backend that forgets, and the verified fake of the tests.

Owns the tree of names; contents are immutable and live in memory_content. Versions come from a counter and are strong.

Threads: safe; one lock for the tree, never held while bytes move: contents are made before and read after.
"""

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from genro_storage import paths, posix_format
from genro_storage.backends.base import ABSENT, Capabilities, Expected, Source
from genro_storage.backends.expectations import source_of
from genro_storage.backends.memory_content import Content, machine_memory, store
from genro_storage.backends.oserrors import refuse_removing_root, refuse_rename, translating
from genro_storage.entry import Entry, Kind, Usage, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
)
from genro_storage.runtime import Clock, SystemClock, fork_safe_lock


@dataclass(slots=True)
class _File:
    content: Content
    version: Version
    mtime_ns: int
    metadata: Mapping[str, str]


@dataclass(slots=True)
class _Directory:
    mtime_ns: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    nodes: 'dict[str, _File | _Directory]' = field(default_factory=dict)


class MemoryBackend:
    """A store of its own per instance: nothing is shared, and nothing is left when it goes."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._destination = f'memory:{uuid.uuid4()}'
        self._numbers = itertools.count(1)
        self._lock = fork_safe_lock()
        self._root = _Directory(self._clock.time_ns())  # guarded by _lock, with all below

    def __repr__(self) -> str:
        return f'MemoryBackend({self._destination!r})'

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return Capabilities(
            instant=True,
            strong_versions=True,
            conditional_put=True,
            real_directories=True,
            atomic_rename=True,
            stores_mtime=True,
            stores_metadata=True,
        )

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._destination

    def stat(self, path: str) -> Entry:
        """See Backend."""
        with self._lock:
            return _entry(paths.basename(path), self._node(path))

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        with self._lock:
            return [_entry(name, node) for name, node in self._directory(path).nodes.items()]

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend."""
        with self._lock:
            try:
                file = self._file(path)
            except StorageNotFoundError as error:
                if version is None:
                    raise
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened') from error
            if version is not None and file.version != version:
                raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')
            content = file.content
        return content.read(offset, size_bytes)

    def put(
        self,
        path: str,
        source: Source,
        *,
        expected: Expected = None,
        placed: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend."""
        with translating(lambda: self._shown(path)):
            content = store(source)
        return self._publish(path, content, expected, metadata or {})

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend. Looks in any case: that costs nothing."""
        with self._lock:
            self._file(path)
            self._drop(path)

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend."""
        with self._lock:
            parent = self._directory(paths.parent(path))
            name = paths.basename(path)
            if not path or name in parent.nodes:
                raise StorageExistsError(f'{self._shown(path)} exists')
            self._set(parent, name, _Directory(self._clock.time_ns(), metadata or {}))

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend."""
        refuse_removing_root(path, self._shown(path))
        with self._lock:
            if self._directory(path).nodes:
                raise StorageNotEmptyError(f'{self._shown(path)} is not empty')
            self._drop(path)

    def rename(self, source: str, target: str) -> None:
        """See Backend."""
        refuse_rename(source, target, self._shown(source))
        with self._lock:
            moving = self._node(source)
            parent = self._directory(paths.parent(target))
            name = paths.basename(target)
            self._refuse_replacing(target, moving, parent.nodes.get(name))
            if source != target:
                self._drop(source)
                self._set(parent, name, moving)

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. The copy shares the content, which never changes."""
        with self._lock:
            copied = self._source(source, version)
            content, source_metadata = copied.content, copied.metadata
        return self._publish(target, content, expected, source_metadata if metadata is None else metadata)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend."""
        with self._lock:
            self._node(path).mtime_ns = mtime_ns

    def metadata(self, path: str) -> Mapping[str, str]:
        """See StoresMetadata."""
        with self._lock:
            return self._node(path).metadata

    def set_metadata(self, path: str, metadata: Mapping[str, str], *, expected: Version | None) -> Entry:
        """See StoresMetadata. The version stays what it was."""
        with self._lock:
            try:
                node = self._node(path)
            except StorageNotFoundError as error:
                if expected is None:
                    raise
                raise StorageConflictError(f'{self._shown(path)} is gone; a version of it was expected') from error
            if expected is not None and (isinstance(node, _Directory) or node.version != expected):
                raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')
            node.metadata = dict(metadata)
            return _entry(paths.basename(path), node)

    def tell_attributes(self, directory: str, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See StoresMetadata."""
        with self._lock:
            nodes = self._directory(directory).nodes
            return [_entry(entry.name, nodes[entry.name]) for entry in entries if entry.name in nodes]

    def usage(self) -> Usage | None:
        """See Backend: what the machine could hold, shared with all else that needs memory."""
        return machine_memory()

    def close(self) -> None:
        """See Backend. The contents go now, not when the last reference to the backend does."""
        with self._lock:
            self._root = _Directory(0)

    def _publish(self, path: str, content: Content, expected: Expected, metadata: Mapping[str, str]) -> Entry:
        with self._lock:
            name = paths.basename(path)
            self._check_target(path, expected)
            version = Version(str(next(self._numbers)), strong=True)
            file = _File(content, version, self._clock.time_ns(), metadata)
            self._set(self._make_parents(path), name, file)
            return _entry(name, file)

    def _check_target(self, path: str, expected: Expected) -> None:
        try:
            there = self._node(path)
        except StorageNotFoundError as error:
            if isinstance(expected, Version):
                raise StorageConflictError(f'{self._shown(path)} is gone; a version of it was expected') from error
            return
        if expected is ABSENT:
            raise StorageExistsError(f'{self._shown(path)} exists')
        if isinstance(there, _Directory):
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        if expected is not None and there.version != expected:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')

    def _refuse_replacing(self, target: str, moving: '_File | _Directory', there: '_File | _Directory | None') -> None:
        if there is None or there is moving:
            return
        if isinstance(there, _File):
            if isinstance(moving, _Directory):
                raise StorageNotADirectoryError(f'{self._shown(target)} is a file and a directory cannot replace it')
        elif isinstance(moving, _File):
            raise StorageIsADirectoryError(f'{self._shown(target)} is a directory and a file cannot replace it')
        elif there.nodes:
            raise StorageNotEmptyError(f'{self._shown(target)} is not empty')

    def _node(self, path: str) -> '_File | _Directory':
        node: _File | _Directory = self._root
        for name in path.split('/') if path else []:
            if isinstance(node, _File):
                raise StorageNotADirectoryError(f'{self._shown(path)}: what comes before {name!r} is a file')
            if name not in node.nodes:
                raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
            node = node.nodes[name]
        return node

    def _file(self, path: str) -> _File:
        node = self._node(path)
        if isinstance(node, _Directory):
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        return node

    def _source(self, path: str, version: Version | None) -> _File:
        return source_of(lambda: self._file(path), version, self._shown(path))

    def _directory(self, path: str) -> _Directory:
        node = self._node(path)
        if isinstance(node, _File):
            raise StorageNotADirectoryError(f'{self._shown(path)} is a file')
        return node

    def _make_parents(self, path: str) -> _Directory:
        node = self._root
        for name in path.split('/')[:-1]:
            # _check_target has seen to it that no file is on the way.
            inner = node.nodes.get(name)
            if not isinstance(inner, _Directory):
                inner = _Directory(self._clock.time_ns())
                self._set(node, name, inner)
            node = inner
        return node

    def _set(self, parent: _Directory, name: str, node: '_File | _Directory') -> None:
        parent.nodes[name] = node
        parent.mtime_ns = self._clock.time_ns()

    def _drop(self, path: str) -> None:
        parent = self._directory(paths.parent(path))
        del parent.nodes[paths.basename(path)]
        parent.mtime_ns = self._clock.time_ns()

    def _shown(self, path: str) -> str:
        return repr(f'{self._destination}/{path}')


def _entry(name: str, node: '_File | _Directory') -> Entry:
    attributes = posix_format.attributes_of(node.metadata)
    if isinstance(node, _Directory):
        return Entry(name, Kind.DIRECTORY, 0, node.mtime_ns, None, attributes, node.metadata)
    return Entry(name, Kind.FILE, node.content.size_bytes, node.mtime_ns, node.version, attributes, node.metadata)
