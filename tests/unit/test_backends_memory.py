"""MemoryBackend beside the contract: time, contents outside the heap, and that stores are private."""

import gc
import os
import resource
from pathlib import Path

import pytest

from genro_storage.backends.memory import MemoryBackend
from genro_storage.backends.memory_content import HEAP_LIMIT_BYTES
from genro_storage.errors import StorageNotFoundError
from genro_storage.testing import BytesSource, ManualClock
from genro_storage.testing.contract import read, write


def test_times_are_those_of_the_clock() -> None:
    clock = ManualClock()
    backend = MemoryBackend(clock)
    first = write(backend, 'd/file', b'1')
    clock.advance(1.5)
    second = write(backend, 'd/file', b'2')
    assert second.mtime_ns - first.mtime_ns == 1_500_000_000
    assert backend.stat('d').mtime_ns == second.mtime_ns


def test_equal_bytes_written_again_are_another_version() -> None:
    backend = MemoryBackend(ManualClock())
    assert write(backend, 'file', b'same').version != write(backend, 'file', b'same').version


def test_stores_are_private() -> None:
    one, other = MemoryBackend(), MemoryBackend()
    write(one, 'file', b'1')
    with pytest.raises(StorageNotFoundError):
        other.stat('file')
    assert one.destination != other.destination


def test_large_contents_are_outside_the_heap_and_go_with_their_last_reference() -> None:
    backend = MemoryBackend()
    size_bytes = 256 << 20
    source = BytesSource(b'', size_bytes=size_bytes)
    os.truncate(source.fileno(), size_bytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    backend.put('large', source)
    assert backend.read_range('large', size_bytes - 3, 10, None) == b'\0\0\0'
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown_bytes < 64 << 20
    assert _memfds(size_bytes) == 1
    write(backend, 'large', b'small')
    gc.collect()
    assert _memfds(size_bytes) == 0


def _is_memfd(descriptor: Path) -> bool:
    try:
        return 'memfd:genro-storage' in os.readlink(descriptor)
    except FileNotFoundError:
        return False  # the one that lists them


def _memfds(size_bytes: int) -> int:
    held = [entry for entry in Path('/proc/self/fd').iterdir() if _is_memfd(entry)]
    return sum(entry.stat().st_size == size_bytes for entry in held)


@pytest.mark.parametrize('size_bytes', [HEAP_LIMIT_BYTES, HEAP_LIMIT_BYTES + 1])
def test_contents_at_the_limit_read_alike(size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    backend = MemoryBackend()
    write(backend, 'file', data)
    assert read(backend, 'file') == data
    assert backend.read_range('file', size_bytes - 2, 10, None) == data[-2:]
    assert backend.copy('file', 'copy').size_bytes == size_bytes
    assert read(backend, 'copy') == data
