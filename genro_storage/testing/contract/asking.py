"""What the tests ask a backend for, in fewer words. Pure calls; threads: as safe as the backend."""

# ruff: noqa: S101 - asserting is what it does

from genro_storage.backends.base import Backend
from genro_storage.entry import Entry
from genro_storage.testing.sources import BytesSource


def write(backend: Backend, path: str, data: bytes) -> Entry:
    """Put bytes at a path."""
    return backend.put(path, BytesSource(data))


def read(backend: Backend, path: str) -> bytes:
    """All bytes of a file."""
    return backend.read_range(path, 0, backend.stat(path).size_bytes, None)


def names(backend: Backend, path: str = '') -> set[str]:
    """The names in a directory, each once."""
    listed = [entry.name for entry in backend.list_directory(path)]
    assert len(listed) == len(set(listed))
    return set(listed)


def agree(backend: Backend, stored: Entry, seen: Entry) -> bool:
    """Whether what a put returned is what is seen afterwards; the time only where it tells one."""
    if not backend.capabilities.tells_mtime:
        assert stored.mtime_ns == 0
        stored = Entry(stored.name, stored.kind, stored.size_bytes, seen.mtime_ns, stored.version)
    return stored == seen
