"""Contents of files in memory: immutable, small ones on the heap, larger ones outside it.

Owns where the bytes of one version are and when they go: with the last reference. Knows no paths.
Threads: safe; nothing changes after a content is made.
"""

import os
import tempfile
import weakref
from typing import Protocol

from genro_storage.backends.base import Source
from genro_storage.backends.copying import copy_source, read_exactly
from genro_storage.entry import Usage

# Up to here a bytes object: a descriptor per small file would soon meet the limit of 1,024. Above, a file without a
# name, so that 1 GiB stored neither grows the heap nor is copied through it.
HEAP_LIMIT_BYTES = 1 << 20


class Content(Protocol):
    """The bytes of one version of a file. Also a Source, for copies."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Some of them, fewer only at the end."""


def store(source: Source) -> Content:
    """A content with the bytes of a source. Raises StorageIOError if the source is shorter than it says, OSError."""
    if source.size_bytes <= HEAP_LIMIT_BYTES:
        return _OnHeap(read_exactly(source, 0, source.size_bytes))
    content = _Unnamed(source.size_bytes)
    copy_source(source, content.descriptor)
    return content


def machine_memory() -> Usage | None:
    """The memory of this machine and what programs could still have of it (proc(5)); None where nobody says."""
    try:
        with open('/proc/meminfo', encoding='ascii') as lines:
            values = {name: int(value.split()[0]) << 10 for name, _, value in (line.partition(':') for line in lines)}
        available_bytes = min(values['MemAvailable'], values['MemTotal'])
    except (OSError, KeyError, ValueError):
        return None
    return Usage(values['MemTotal'], available_bytes, available_bytes)


class _OnHeap:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def read(self, offset: int, size_bytes: int) -> bytes:
        return self._data[offset : offset + size_bytes]


class _Unnamed:
    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.descriptor = _unnamed_file()
        # Not a file object: that would warn when it is dropped unclosed, which here is the ordinary end.
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, offset: int, size_bytes: int) -> bytes:
        wanted = min(size_bytes, max(0, self.size_bytes - offset))
        data = os.pread(self.descriptor, wanted, offset) if wanted else b''
        while len(data) < wanted:  # pread(2) stops short of 2 GiB
            data += os.pread(self.descriptor, wanted - len(data), offset + len(data))
        return data


def _unnamed_file() -> int:
    if hasattr(os, 'memfd_create'):
        return os.memfd_create('genro-storage')
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
