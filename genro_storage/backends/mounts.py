"""What a backend sees of the other mounts of its manager, when its files come from one of them.

Owns the protocols. Whoever has the mounts implements them, see references.
"""

from typing import Protocol

from genro_storage.entry import Entry


class OpenedFile(Protocol):
    """One version of a file of another mount, open to read. Safe from several threads."""

    def read(self, offset: int, size_bytes: int) -> bytes | memoryview:
        """These bytes, fewer only at the end of the file. Raises StorageConflictError if the version is gone."""

    def close(self) -> None:
        """Give back what it holds. Idempotent."""


class Mounts(Protocol):
    """The other mounts, each looked up when it is asked: it may come later than who asks, and go before.

    All raise StorageConfigError for one that is not there, and what that one raises.
    """

    def destination(self, mount: str) -> str:
        """Where the data of a mount really are."""

    def stat(self, mount: str, path: str) -> Entry:
        """What is at a path. Raises StorageNotFoundError."""

    def open_read(self, mount: str, path: str) -> tuple[Entry, OpenedFile]:
        """Open a file. Raises StorageNotFoundError, StorageIsADirectoryError."""
