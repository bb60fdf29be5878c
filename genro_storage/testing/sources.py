"""Bytes as a Source, for tests that put.

Owns a nameless file. Threads: safe.
"""

import os
import tempfile
import weakref


class BytesSource:
    """A Source with these bytes. ``size_bytes`` may be told otherwise, for a source that ends early."""

    def __init__(self, data: bytes, *, size_bytes: int | None = None) -> None:
        self.size_bytes = len(data) if size_bytes is None else size_bytes
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """See Source."""
        return os.pread(self._descriptor, size_bytes, offset)

    def fileno(self) -> int:
        """See Source."""
        return self._descriptor
