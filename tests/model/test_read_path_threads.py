"""Threads of one process that read one file at once while somebody else replaces it, and what the backend is asked for.

Each handle shows one version, which was there when the file was opened or came later. Of a version each block is
fetched once, however many want it at the same time.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genro_storage import StorageManager
from genro_storage.backends.base import Capabilities
from genro_storage.backends.memory import MemoryBackend
from genro_storage.cache.blocks import BLOCK_BYTES
from genro_storage.entry import Version
from genro_storage.errors import StorageConflictError
from genro_storage.reading.reader import Reader
from genro_storage.testing import BytesSource, FaultyBackend
from genro_storage.volume import Volume
from tests.model.history import Content, told_by
from tests.model.reading_process import MOUNT, remote_in_place_of_memory

REMOTE = Capabilities(strong_versions=True, conditional_put=True, atomic_rename=True, stores_mtime=True)
FILE_BYTES = 24 * BLOCK_BYTES + 1000
THREADS = 6
VERSIONS = 8
#: How often the file is opened for each version, by all threads together, and read each time.
OPENED = 24
READS = 8
WAIT_S = 30.0


class CountingBackend(FaultyBackend):
    """Knows how often each block of each version was brought."""

    def __init__(self, inner: MemoryBackend) -> None:
        super().__init__(inner, REMOTE)
        self._brought_lock = threading.Lock()
        self.brought: Counter[tuple[str, int]] = Counter()  # guarded by _brought_lock

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        data = super().read_range(path, offset, size_bytes, version)
        assert version is not None
        assert offset % BLOCK_BYTES == 0
        with self._brought_lock:
            for start in range(offset, offset + len(data), BLOCK_BYTES):
                self.brought[version.tag, start // BLOCK_BYTES] += 1
        return data

    def brought_again(self) -> dict[tuple[str, int], int]:
        """The blocks that were brought more than once, by the tag of their version and their number."""
        with self._brought_lock:
            return {block: times for block, times in self.brought.items() if times > 1}


class Remote:
    """A file that is replaced by one thread, and a volume through which others read it."""

    def __init__(self, volume: Volume, store: MemoryBackend, backend: CountingBackend) -> None:
        self.volume = volume
        self.backend = backend
        self._store = store
        self._made: list[Content] = []
        #: The number of the version that is surely there, or newer ones.
        self.settled = 0

    @property
    def newest(self) -> int:
        """The number of the version that is there, or is about to be."""
        return len(self._made)

    def put(self) -> None:
        """Replace the file."""
        content = Content(len(self._made) + 1, 'file', FILE_BYTES)
        source = BytesSource(content.data)
        self._made.append(content)
        self._store.put('file', source)
        self.settled = content.number

    def matching(self, numbers: list[int], offset: int, size_bytes: int, data: bytes) -> list[int]:
        """Those of these versions of which a read brings these bytes; there must be one."""
        right = [number for number in numbers if self._made[number - 1].read(offset, size_bytes) == data]
        assert right, f'one of versions {numbers} was expected at {offset}: {told_by(data, offset)}'
        return right


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    store = MemoryBackend()
    backend = CountingBackend(store)
    with remote_in_place_of_memory(lambda _: backend), StorageManager() as storage:
        storage.configure(
            {
                # Nothing is believed, so that whoever opens the file gets what is there.
                'mounts': [{'name': MOUNT, 'type': 'memory', 'cache': 'disk', 'ttl': 0}],
                'cache': {'path': str(tmp_path), 'memory': '512MiB', 'disk': '1GiB'},
            }
        )
        yield Remote(storage.volume(MOUNT), store, backend)


@contextmanager
def many(function: Callable[[random.Random], None]) -> Iterator[None]:
    """Have all threads do this meanwhile, each with its own choices; raises what one of them raised."""
    errors: list[BaseException] = []
    together = threading.Barrier(THREADS + 1)

    def run(seed: int) -> None:
        try:
            together.wait(WAIT_S)
            function(random.Random(seed))
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=[seed], daemon=True) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    together.wait(WAIT_S)
    try:
        yield
    finally:
        for thread in threads:
            thread.join(WAIT_S)
        stuck = [thread.name for thread in threads if thread.is_alive()]
        if errors:
            raise errors[0]
    assert not stuck


def extent(choose: random.Random) -> tuple[int, int]:
    """Any extent, or a long one, or one that begins with a block."""
    offset = choose.choice([choose.randrange(FILE_BYTES + 100), choose.randrange(24) * BLOCK_BYTES])
    return offset, choose.choice([100, 4096, BLOCK_BYTES, 5 * BLOCK_BYTES, FILE_BYTES])


def read_some(remote: Remote, reader: Reader, choose: random.Random, oldest: int) -> bool:
    """Read here and there, of one version that is not older; whether it stayed until the end."""
    possible = list(range(oldest, remote.newest + 1))
    assert reader.size_bytes == FILE_BYTES
    for _ in range(READS):
        offset, size_bytes = extent(choose)
        try:
            data = bytes(reader.read(offset, size_bytes))
        except StorageConflictError:
            assert possible[0] < remote.newest, 'the version that was opened is there'
            return False
        possible = remote.matching(possible, offset, size_bytes, data)
    return True


def test_threads_that_open_a_file_at_once_each_see_one_version(remote: Remote) -> None:
    opened = threading.Semaphore(0)
    outcomes: Counter[bool] = Counter()
    remote.put()

    def look(choose: random.Random) -> None:
        for _ in range(VERSIONS * OPENED // THREADS):
            oldest = remote.settled
            reader = remote.volume.open_read('file')
            opened.release()
            outcomes[read_some(remote, reader, choose, oldest)] += 1
            reader.close()

    with many(look):
        for _ in range(VERSIONS - 1):
            for _ in range(OPENED):
                assert opened.acquire(timeout=WAIT_S)
            remote.put()
    assert outcomes[True] > 0


def test_threads_that_share_an_open_file_are_told_of_one_version(remote: Remote) -> None:
    for _ in range(20):
        remote.put()
        oldest = remote.newest
        reader = remote.volume.open_latest('file')
        remote.put()
        brought: list[tuple[int, int, bytes]] = []

        def look(
            choose: random.Random, reader: Reader = reader, brought: list[tuple[int, int, bytes]] = brought
        ) -> None:
            for _ in range(3):
                offset, size_bytes = extent(choose)
                try:
                    brought.append((offset, size_bytes, bytes(reader.read(offset, size_bytes))))
                except StorageConflictError:
                    return

        with many(look):
            remote.put()
        reader.close()
        possible = list(range(oldest, remote.newest + 1))
        for offset, size_bytes, data in brought:
            possible = remote.matching(possible, offset, size_bytes, data)


def test_blocks_that_several_readers_want_at_once_are_fetched_once(remote: Remote) -> None:
    """In sequence with prefetch, the first range held up until all are there; each in steps of its own."""
    remote.put()
    stall = remote.backend.stall('read_range')

    def look(choose: random.Random) -> None:
        reader = remote.volume.open_read('file')
        step = choose.choice([BLOCK_BYTES // 2, 3 * BLOCK_BYTES, FILE_BYTES])
        for offset in range(0, FILE_BYTES, step):
            remote.matching([1], offset, step, bytes(reader.read(offset, step)))
        reader.close()

    with many(look):
        stall.wait_until_reached()
        stall.release()
    assert not remote.backend.brought_again()
    assert len(remote.backend.brought) == -(-FILE_BYTES // BLOCK_BYTES)


def test_blocks_that_several_readers_want_here_and_there_are_fetched_once(remote: Remote) -> None:
    for number in range(1, VERSIONS + 1):
        remote.put()

        def look(choose: random.Random, number: int = number) -> None:
            reader = remote.volume.open_read('file')
            for _ in range(READS):
                offset, size_bytes = extent(choose)
                remote.matching([number], offset, size_bytes, bytes(reader.read(offset, size_bytes)))
            reader.close()

        with many(look):
            pass
    assert not remote.backend.brought_again()
