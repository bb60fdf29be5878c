"""A commit of a git repository as a Backend that can only be read.

Owns what objects mean as files: a symbolic link to a file of the commit is shown as that file and any other link as
Kind.OTHER, a submodule as an empty directory, and everything has the time of the commit. Where the objects come from,
a Repository says. The id of a blob is its version: what a reader has begun it reads to the end, whatever becomes of the
branch. A blob is in memory while it is read; git has no way to read some of one.
Threads: safe. Trees and blobs are never changed, so two may fetch one and either is right.
"""

import enum
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import cachetools
import msgspec

from genro_storage import paths
from genro_storage.backends.archive_tree import link_target
from genro_storage.backends.base import Capabilities
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.per_process import PerProcess
from genro_storage.backends.read_only import ReadOnlyBackend
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.runtime import HandleLock, about_to_block

#: Names in trees that are remembered; each takes some 300 bytes.
_REMEMBERED_NAMES = 100_000
#: Blobs that are remembered, all together; a larger one is, alone.
_REMEMBERED_BYTES = 64 << 20
#: As many as Linux follows (path_resolution(7)).
_MOST_LINKS = 40
_LINK_MOST_BYTES = 4096
#: Of fetching blobs: who wants one that somebody is fetching waits for that.
_FETCH_LOCKS = 8


class ObjectKind(enum.Enum):
    """What a name in a tree is."""

    TREE = 'tree'
    BLOB = 'blob'
    LINK = 'link'
    MODULE = 'module'


class Node(msgspec.Struct, frozen=True, gc=False):
    """A name in a tree."""

    kind: ObjectKind
    id: str
    size_bytes: int = 0


Tree = Mapping[str, Node]


class Snapshot(msgspec.Struct, frozen=True):
    """A commit: the id of its root tree, and when it was made."""

    tree_id: str
    mtime_ns: int


class Repository(Protocol):
    """Where the objects are. All may wait, and raise what of our errors fits."""

    def snapshot(self) -> Snapshot:
        """The commit that is meant now. Raises StorageConfigError if there is none."""

    def tree(self, tree_id: str) -> Tree:
        """What is in a tree."""

    def blob(self, blob_id: str) -> bytes:
        """The bytes of a blob. Raises StorageNotFoundError if it is not there any more."""

    def close(self) -> None:
        """Give back what it holds."""


class _Remembered:
    """Trees and blobs by their ids."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._trees: cachetools.LRUCache[str, Tree] = cachetools.LRUCache(
            _REMEMBERED_NAMES, getsizeof=lambda tree: len(tree) + 1
        )
        self._blobs: cachetools.LRUCache[str, bytes] = cachetools.LRUCache(_REMEMBERED_BYTES, getsizeof=len)
        self._large: tuple[str, bytes] = ('', b'')
        self.fetching = [HandleLock() for _ in range(_FETCH_LOCKS)]

    def tree(self, tree_id: str) -> Tree | None:
        with self._lock:
            return self._trees.get(tree_id)

    def learn_tree(self, tree_id: str, tree: Tree) -> None:
        with self._lock:
            if len(tree) < _REMEMBERED_NAMES:
                self._trees[tree_id] = tree

    def blob(self, blob_id: str) -> bytes | None:
        with self._lock:
            return self._large[1] if self._large[0] == blob_id else self._blobs.get(blob_id)

    def learn_blob(self, blob_id: str, data: bytes) -> None:
        with self._lock:
            if len(data) <= _REMEMBERED_BYTES // 2:
                self._blobs[blob_id] = data
            else:
                self._large = (blob_id, data)


class GitBackend(ReadOnlyBackend):
    """The files of the commit that a repository means."""

    def __init__(self, destination: str, repository: Repository, *, always_reachable: bool) -> None:
        super().__init__(destination)
        self._repository = repository
        self._always_reachable = always_reachable
        self._remembered = PerProcess(_Remembered)
        self.hidden = HiddenNames(destination)

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return Capabilities(writable=False, always_reachable=self._always_reachable, strong_versions=True)

    def stat(self, path: str) -> Entry:
        """See Backend."""
        about_to_block()
        snapshot = self._repository.snapshot()
        node = self._node(snapshot, path)
        return self._entry(snapshot, path, node)

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        about_to_block()
        snapshot = self._repository.snapshot()
        node = self._node(snapshot, path)
        if node.kind is ObjectKind.MODULE:
            return ()
        if node.kind is not ObjectKind.TREE:
            raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')
        return [
            self._entry(snapshot, paths.child(path, name), below)
            for name, below in self._tree(node.id).items()
            if self.hidden.shows(path, name)
        ]

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend. Of a version that the branch has left behind too, as long as the repository has it."""
        about_to_block()
        if version is not None:
            try:
                return self._blob(version.tag)[offset : offset + size_bytes]
            except StorageNotFoundError as error:
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened') from error
        snapshot = self._repository.snapshot()
        node = self._node(snapshot, path)
        if node.kind in {ObjectKind.TREE, ObjectKind.MODULE}:
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        found = self._followed(snapshot, path, node)
        if found is None:
            raise StorageUnsupportedError(f'{self._shown(path)} is neither a file nor a directory')
        return self._blob(found.id)[offset : offset + size_bytes]

    def close(self) -> None:
        """See Backend."""
        self._remembered.take()
        self._repository.close()

    def _entry(self, snapshot: Snapshot, path: str, node: Node) -> Entry:
        name = paths.basename(path)
        if node.kind in {ObjectKind.TREE, ObjectKind.MODULE}:
            return Entry(name, Kind.DIRECTORY, 0, snapshot.mtime_ns)
        found = self._followed(snapshot, path, node)
        if found is None:
            return Entry(name, Kind.OTHER, 0, snapshot.mtime_ns)
        return Entry(name, Kind.FILE, found.size_bytes, snapshot.mtime_ns, Version(found.id, strong=True))

    def _node(self, snapshot: Snapshot, path: str) -> Node:
        node = Node(ObjectKind.TREE, snapshot.tree_id)
        for name in path.split('/') if path else ():
            if node.kind is not ObjectKind.TREE:
                raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
            below = self._tree(node.id).get(name)
            if below is None:
                raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
            node = below
        return node

    def _followed(self, snapshot: Snapshot, path: str, node: Node) -> Node | None:
        """The file that a link leads to, or that is there; None if it leads to none."""
        for _ in range(_MOST_LINKS):
            if node.kind is not ObjectKind.LINK:
                return node if node.kind is ObjectKind.BLOB else None
            if node.size_bytes > _LINK_MOST_BYTES:
                return None
            target = link_target(path, paths.decode(self._blob(node.id)))
            if target is None:
                return None
            try:
                path, node = target, self._node(snapshot, target)
            except StorageNotFoundError:
                return None
        return None

    def _tree(self, tree_id: str) -> Tree:
        remembered = self._remembered.get()
        tree = remembered.tree(tree_id)
        if tree is None:
            tree = self._repository.tree(tree_id)
            remembered.learn_tree(tree_id, tree)
        return tree

    def _blob(self, blob_id: str) -> bytes:
        remembered = self._remembered.get()
        data = remembered.blob(blob_id)
        if data is not None:
            return data
        with remembered.fetching[hash(blob_id) % _FETCH_LOCKS]:
            data = remembered.blob(blob_id)
            if data is None:
                data = self._repository.blob(blob_id)
                remembered.learn_blob(blob_id, data)
        return data
