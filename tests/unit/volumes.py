"""A volume over a remote that tests can fail and stall, and what lies behind it.

Owns nothing that lasts. Threads: as what it hands out.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genro_storage.backends.base import Capabilities
from genro_storage.backends.memory import MemoryBackend
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.config import MemoryDefinition
from genro_storage.testing import BytesSource, FaultyBackend, ManualClock
from genro_storage.volume import Volume
from genro_storage.writing.writer import Writer

WAIT_S = 10.0
REMOTE = Capabilities(strong_versions=True, conditional_put=True, stores_mtime=True)


class Remote:
    """A volume over a backend that waits, and the store itself, where somebody else may change things."""

    def __init__(self, folder: Path, capabilities: Capabilities = REMOTE, **definition: Any) -> None:
        self.clock = ManualClock()
        self.store = MemoryBackend(self.clock)
        self.backend = FaultyBackend(self.store, capabilities)
        self.staging = folder / 'staging'
        self.cache = MemoryBlockCache(64 << 20)
        self.volume = Volume(
            MemoryDefinition(name='m', **definition), self.backend, self.cache, self.staging, self.clock
        )

    def put(self, path: str, data: bytes) -> None:
        """Store a file as somebody else would."""
        self.store.put(path, BytesSource(data))

    def content(self, path: str) -> bytes:
        """What is stored, past everything that is remembered."""
        return self.store.read_range(path, 0, 1 << 40, None)

    def names(self, path: str = '') -> list[str]:
        """The names that are stored in a directory."""
        return sorted(entry.name for entry in self.store.list_directory(path))

    def kept(self) -> list[bytes]:
        """The contents that were kept in the staging folder, and nothing else is there."""
        found = sorted(self.staging.iterdir()) if self.staging.exists() else []
        assert all(path.name.startswith('uncommitted-') for path in found)
        return [path.read_bytes() for path in found]

    def write(self, path: str, data: bytes) -> None:
        """Write a file through the volume, in place."""
        writer = self.volume.open_write(path, create=True, truncate=True)
        writer.write(0, data)
        writer.close()

    def read(self, path: str) -> bytes:
        """Read a file through the volume."""
        reader = self.volume.open_read(path)
        data = bytes(reader.read(0, 1 << 40))
        reader.close()
        return data


def names(volume: Volume, path: str = '') -> dict[str, int]:
    """The names in a directory and their sizes, as the volume has them."""
    return {entry.name: entry.size_bytes for entry in volume.list_directory(path)[0]}


def open_new(volume: Volume, path: str = 'f', data: bytes = b'') -> Writer:
    """A file that is being written."""
    writer = volume.open_write(path, create=True)
    if data:
        writer.write(0, data)
    return writer


class Thread(threading.Thread):
    """A thread whose outcome is asked for."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again where it is asked for
            self._error = error

    def result(self) -> Any:
        """What the function returned. Raises what it raised, TimeoutError if it is stuck."""
        self.join(WAIT_S)
        if self.is_alive():
            raise TimeoutError('the thread is stuck')
        if self._error is not None:
            raise self._error
        return self._result


@contextmanager
def serving_thread() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Runs functions on a thread that must never wait."""
    from genro_storage.runtime import serve_without_blocking

    def call(function: Callable[[], Any]) -> Any:
        def run() -> Any:
            serve_without_blocking()
            return function()

        return Thread(run).result()

    yield call
