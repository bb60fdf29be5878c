"""A git repository of this machine, through libgit2.

Owns how objects are read and its errors translated. Nothing of the repository is run: libgit2 knows neither hooks nor
programs, and one that belongs to another user is refused as git does (safe.directory).
Threads: safe; libgit2's database of objects is. Each process has its own.
"""

from typing import Any

from genro_storage import paths
from genro_storage.backends.git_trees import Node, ObjectKind, Snapshot, Tree
from genro_storage.backends.per_process import PerProcess
from genro_storage.errors import StorageConfigError, StorageIOError, StorageNotFoundError, StorageUnsupportedError

_TREE_MODE = 0o040000
_LINK_MODE = 0o120000
_MODULE_MODE = 0o160000
#: It has to be in memory as a whole.
_BLOB_MOST_BYTES = 2 << 30


class GitRepository:
    """See Repository. ``path`` is a working tree or a bare repository; ``ref`` whatever git resolves."""

    def __init__(self, path: str, ref: str) -> None:
        self._path = path
        self._ref = ref
        self._process = PerProcess(self._open)

    def snapshot(self) -> Snapshot:
        """See Repository."""
        pygit2 = library()
        repository = self._process.get()
        try:
            commit = repository.revparse_single(self._ref).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise StorageConfigError(
                f'the git repository {self._path!r} has no commit {self._ref!r}; git log {self._ref} should show it'
            ) from error
        return Snapshot(str(commit.tree_id), commit.commit_time * 1_000_000_000)

    def tree(self, tree_id: str) -> Tree:
        """See Repository."""
        pygit2 = library()
        repository = self._process.get()
        try:
            return {paths.decode(each.raw_name): self._node(repository, each) for each in repository[tree_id]}
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise StorageIOError(f'the git repository {self._path!r} is damaged: {error}') from error

    def blob(self, blob_id: str) -> bytes:
        """See Repository."""
        pygit2 = library()
        repository = self._process.get()
        try:
            _, size_bytes = repository.odb.read_header(blob_id)
            if size_bytes > _BLOB_MOST_BYTES:
                raise StorageUnsupportedError(f'a file of {size_bytes} bytes in a git repository is too large to read')
            return bytes(repository[blob_id].data)
        except (KeyError, ValueError) as error:
            raise StorageNotFoundError(f'the git repository {self._path!r} has no object {blob_id}') from error
        except pygit2.GitError as error:
            raise StorageIOError(f'the git repository {self._path!r} is damaged: {error}') from error

    def close(self) -> None:
        """See Repository."""
        repository = self._process.take()
        if repository is not None:
            repository.free()

    def _open(self) -> Any:
        pygit2 = library()
        try:
            return pygit2.Repository(self._path)
        except pygit2.GitError as error:
            raise StorageConfigError(f'no git repository can be opened at {self._path!r}: {error}') from error

    @staticmethod
    def _node(repository: Any, each: Any) -> Node:
        if each.filemode == _TREE_MODE:
            return Node(ObjectKind.TREE, str(each.id))
        if each.filemode == _MODULE_MODE:
            return Node(ObjectKind.MODULE, str(each.id))
        kind = ObjectKind.LINK if each.filemode == _LINK_MODE else ObjectKind.BLOB
        return Node(kind, str(each.id), repository.odb.read_header(each.id)[1])


def library() -> Any:
    """The package pygit2. Raises StorageConfigError that says what to install."""
    try:
        import pygit2
    except ImportError as error:
        raise StorageConfigError(
            "type 'git' needs a package that is not installed: pip install 'genro-storage[git]'"
        ) from error
    return pygit2
