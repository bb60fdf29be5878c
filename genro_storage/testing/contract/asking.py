"""What the tests ask a backend for, in fewer words. Pure calls; threads: as safe as the backend."""

# ruff: noqa: S101 - asserting is what it does

import threading
from collections.abc import Callable

import msgspec

from genro_storage.backends.base import Backend, TellsBeginnings
from genro_storage.entry import Entry
from genro_storage.errors import StorageError
from genro_storage.runtime import WouldBlock, serve_without_blocking
from genro_storage.testing.sources import BytesSource


def write(backend: Backend, path: str, data: bytes) -> Entry:
    """Put bytes at a path."""
    return backend.put(path, BytesSource(data))


def read(backend: Backend, path: str) -> bytes:
    """All bytes of a file."""
    return backend.read_range(path, 0, backend.stat(path).size_bytes, None)


def stat_and_read(backend: Backend, path: str, size_bytes: int) -> tuple[Entry, bytes | None]:
    """What is at a path and how it begins: in one where the backend is a TellsBeginnings, else without the bytes."""
    if isinstance(backend, TellsBeginnings):
        return backend.stat_and_read(path, size_bytes)
    return backend.stat(path), None


def names(backend: Backend, path: str = '') -> set[str]:
    """The names in a directory, each once."""
    listed = [entry.name for entry in backend.list_directory(path)]
    assert len(listed) == len(set(listed))
    return set(listed)


def agree(backend: Backend, stored: Entry, seen: Entry) -> bool:
    """Whether what a put returned is what is seen afterwards; the time only where it tells one."""
    if not backend.capabilities.tells_mtime:
        assert stored.mtime_ns == 0
        stored = msgspec.structs.replace(stored, mtime_ns=seen.mtime_ns)
    return as_listed(stored) == seen if seen.metadata is None else stored == seen


def as_listed(entry: Entry) -> Entry:
    """What any listing tells of an entry."""
    return msgspec.structs.replace(entry, attributes=None, metadata=None)


def blocks_a_serving_thread(*operations: Callable[[], object]) -> list[bool]:
    """Which of these operations refuse a thread that must not wait; whatever else they answer does not count."""
    outcomes: list[object] = []

    def serve() -> None:
        serve_without_blocking()
        for operation in operations:
            try:
                outcomes.append(operation())
            except (WouldBlock, StorageError) as error:
                outcomes.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    return [isinstance(outcome, WouldBlock) for outcome in outcomes]
