"""A folder of this machine that stands for a remote store: a Backend that several processes see, and that may wait.

Owns the numbers of its versions: each put takes the next one from a file beside the folder and keeps it as the first
bytes of the stored file, so that a file and its version are opened as one. Names are LocalBackend's. It keeps the whole
contract (test_shelf), so what holds over it holds over any backend that does.

Threads and processes: safe; whoever changes something holds a lock on the file of the counter, who reads none.
"""

import fcntl
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from genro_storage import paths
from genro_storage.backends.base import Capabilities, Expected, Source, SourceGoneError
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.local import LocalBackend
from genro_storage.backends.oserrors import translating
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIsADirectoryError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.runtime import about_to_block
from genro_storage.testing import BytesSource

_NUMBER = struct.Struct('<Q')


class Shelf:
    """Files below a folder, with strong versions; not instant."""

    def __init__(self, root: Path) -> None:
        self._files = root / 'files'
        self._files.mkdir(parents=True, exist_ok=True)
        self._counter = root / 'counter'
        self._tree = LocalBackend(self._files)

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return Capabilities(strong_versions=True, conditional_put=True, atomic_rename=True)

    @property
    def destination(self) -> str:
        """See Backend."""
        return f'shelf:{self._files}'

    def stat(self, path: str) -> Entry:
        """See Backend."""
        about_to_block()
        return self._entry(path)

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        about_to_block()
        entries: list[Entry] = []
        for name in [entry.name for entry in self._tree.list_directory(path)]:
            try:
                entries.append(self._entry(paths.child(path, name)))
            except StorageNotFoundError:
                continue  # removed since the directory was read
        return entries

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend."""
        about_to_block()
        try:
            descriptor = self._tree.open_descriptor(path)
        except StorageNotFoundError as error:
            if version is None:
                raise
            raise StorageConflictError(f'{path!r} is gone since it was opened') from error
        try:
            if version is not None and _version(descriptor) != version:
                raise StorageConflictError(f'{path!r} has changed since it was opened')
            return os.pread(descriptor, size_bytes, _NUMBER.size + offset)
        finally:
            os.close(descriptor)

    def put(
        self,
        path: str,
        source: Source,
        *,
        expected: Expected = None,
        placed: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend."""
        about_to_block()
        data = read_exactly(source, 0, source.size_bytes)
        with self._changing() as number:
            if isinstance(expected, Version):
                self._check_version(path, expected)
                expected = None
            self._tree.put(path, BytesSource(_NUMBER.pack(number) + data), expected=expected)
            return self._entry(path)

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend."""
        about_to_block()
        with self._changing():
            self._tree.remove_file(path)

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend."""
        about_to_block()
        with self._changing():
            self._tree.make_directory(path)

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend."""
        about_to_block()
        with self._changing():
            self._tree.remove_directory(path)

    def rename(self, source: str, target: str) -> None:
        """See Backend. The version goes with the file."""
        about_to_block()
        with self._changing():
            self._tree.rename(source, target)

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend."""
        about_to_block()
        try:
            data = self.read_range(source, 0, self.stat(source).size_bytes, version)
        except (StorageNotFoundError, StorageConflictError) as error:
            if version is None:
                raise
            raise SourceGoneError(f'{source!r} is not what was to be copied') from error
        return self.put(target, BytesSource(data), expected=expected)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend."""
        raise StorageUnsupportedError(f'{path!r}: times are not kept here')

    def usage(self) -> None:
        """See Backend."""
        about_to_block()

    def close(self) -> None:
        """See Backend."""

    def _entry(self, path: str) -> Entry:
        try:
            descriptor = self._tree.open_descriptor(path)
        except StorageIsADirectoryError:
            return self._tree.stat(path)
        try:
            status = os.fstat(descriptor)
            size_bytes = status.st_size - _NUMBER.size
            return Entry(paths.basename(path), Kind.FILE, size_bytes, status.st_mtime_ns, _version(descriptor))
        finally:
            os.close(descriptor)

    def _check_version(self, path: str, expected: Version) -> None:
        try:
            there = self._entry(path)
        except StorageNotFoundError as error:
            raise StorageConflictError(f'{path!r} is gone; a version of it was expected') from error
        if there.is_file and there.version != expected:
            raise StorageConflictError(f'{path!r} has changed since it was opened')

    @contextmanager
    def _changing(self) -> Iterator[int]:
        """Hold the lock; the number of a new version."""
        with translating(lambda: str(self._counter)):
            descriptor = os.open(self._counter, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            number = int.from_bytes(os.pread(descriptor, 8, 0), 'little') + 1
            os.pwrite(descriptor, number.to_bytes(8, 'little'), 0)
            yield number
        finally:
            os.close(descriptor)


def _version(descriptor: int) -> Version:
    return Version(str(_NUMBER.unpack(os.pread(descriptor, _NUMBER.size, 0))[0]), strong=True)
