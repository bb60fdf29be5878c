"""A volume over a remote that tests can fail and stall, and what lies behind it.

Owns nothing that lasts. Threads: as what it hands out.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genro_storage.backend_volume import BackendVolume
from genro_storage.backends.base import Backend, Capabilities
from genro_storage.backends.memory import MemoryBackend
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.config import MemoryDefinition
from genro_storage.testing import BytesSource, FaultyBackend, ManualClock
from genro_storage.volume import Volume
from genro_storage.writing.journal import Journal
from genro_storage.writing.journal_records import inline_data
from genro_storage.writing.writer import Writer

WAIT_S = 10.0
REMOTE = Capabilities(strong_versions=True, conditional_put=True, stores_mtime=True)


class Remote:
    """A volume over a backend that waits, and the store itself, where somebody else may change things."""

    def __init__(self, folder: Path, capabilities: Capabilities = REMOTE, **definition: Any) -> None:
        self.clock = ManualClock()
        self.store = MemoryBackend(self.clock)
        self.backend = FaultyBackend(self.store, capabilities)
        self.folder = folder
        self.definition = MemoryDefinition(name='m', **definition)
        self.root = folder / 'journal'
        self.staging = self.root / 'staging'
        self.cache = MemoryBlockCache(64 << 20)
        self.volume = self.another_volume()

    def another_volume(self, backend: Backend | None = None) -> Volume:
        """The same mount, as another process has it, or the next one; over this backend if not over its own."""
        journal = Journal(self.root, self.backend.destination, self.clock, self.folder / 'state')
        return BackendVolume(self.definition, backend or self.backend, self.cache, self.staging, self.clock, journal)

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
        """The contents that the journal holds; nothing else is left on the local disk."""
        assert not self.staging.exists() or not list(self.staging.iterdir())
        contents = {path.stem: path.read_bytes() for path in self.root.glob('*/*/*.data')}
        for path in self.root.glob('*/*/*.intent'):
            inline = inline_data(path.read_bytes())
            if inline is not None:
                contents[path.stem] = inline
        return [content for _, content in sorted(contents.items())]

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
