"""An archive as a Backend that can only be read.

Owns that everybody sees the archive as it is now and each file as one version of it, and what a damaged one is told.
What is in it, an index says; see zip_archive, tar_archive, libarchive_archive. Nothing is ever unpacked to a disk.
Threads: safe. The index is read under a lock, once for all who wait; each process reads its own.
"""

import lzma
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from genro_storage.backends.archive_files import ArchivePlace, OpenArchive
from genro_storage.backends.archive_tree import Member, Tree
from genro_storage.backends.base import Capabilities
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.per_process import PerProcess
from genro_storage.backends.read_only import ReadOnlyBackend
from genro_storage.backends.seekable import SeekableStream
from genro_storage.entry import Entry, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.runtime import HandleLock, about_to_block

#: What libraries raise for bytes that make no sense to them, beside errors of their own.
NONSENSE: tuple[type[Exception], ...] = (
    struct.error,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,  # UnicodeDecodeError too
    LookupError,
    ArithmeticError,
    NotImplementedError,
)
#: Of members that are read at a time; each takes up to 16 MiB.
_STREAMS = 4


class Index(Protocol):
    """What is in one version of an archive."""

    tree: Tree

    def read(self, member: Member, offset: int, size_bytes: int) -> bytes:
        """Bytes of a member. Raises StorageIOError, StorageUnsupportedError."""


Load = Callable[[OpenArchive, HiddenNames], Index]


class _Opened:
    """What one process has of an archive."""

    def __init__(self) -> None:
        self.lock = HandleLock()
        self.version: Version | None = None  # guarded by lock
        self.index: Index | None = None  # guarded by lock


class ArchiveBackend(ReadOnlyBackend):
    """``load`` reads the index of an archive; ``nonsense`` is what its library raises for what is none."""

    def __init__(
        self, destination: str, place: ArchivePlace, load: Load, nonsense: tuple[type[Exception], ...] = ()
    ) -> None:
        super().__init__(destination)
        self._place = place
        self._load = load
        self._nonsense: tuple[type[Exception], ...] = (*NONSENSE, *nonsense)
        self._process = PerProcess(_Opened)
        self.hidden = HiddenNames(destination)

    @property
    def capabilities(self) -> Capabilities:
        """See Backend. Versions are as strong as those of the archive itself, which is not asked for that."""
        return Capabilities(writable=False, always_reachable=True)

    def stat(self, path: str) -> Entry:
        """See Backend."""
        return self._entry(self._index().tree, path)

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        tree = self._index().tree
        if not self._entry(tree, path).is_directory:
            raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')
        with self._explaining(path):
            return list(tree.entries(path))

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend. Raises StorageIOError for damaged bytes, where that can be told."""
        index = self._index()
        try:
            entry = self._entry(index.tree, path)
        except StorageNotFoundError as error:
            if version is None:
                raise
            raise StorageConflictError(f'{self._shown(path)} is gone since it was opened') from error
        if entry.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        if version is not None and entry.version != version:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')
        if not entry.is_file:
            raise StorageUnsupportedError(f'{self._shown(path)} is neither a file nor a directory')
        wanted = min(size_bytes, entry.size_bytes - offset)
        if wanted <= 0:
            return b''
        with self._explaining(path):
            data = index.read(index.tree.file(path), offset, wanted)
        if len(data) != wanted:
            raise StorageIOError(f'{self._shown(path)}: it ends before the end that its header says')
        return data

    def close(self) -> None:
        """See Backend."""
        self._process.take()

    def _index(self) -> Index:
        about_to_block()
        opened = self._process.get()
        version = self._place.look()
        with opened.lock:
            if opened.index is None or opened.version != version:
                archive = self._place.open()
                with self._explaining(''):
                    index = self._load(archive, self.hidden)
                # Of what was opened, which may be newer than what was looked at.
                opened.index, opened.version = index, archive.version
            return opened.index

    def _entry(self, tree: Tree, path: str) -> Entry:
        with self._explaining(path):
            return tree.entry(path)

    @contextmanager
    def _explaining(self, path: str) -> Iterator[None]:
        try:
            yield
        except StorageNotFoundError as error:
            raise StorageNotFoundError(f'{self._shown(path)}: nothing is there') from error
        except StorageIOError as error:
            raise StorageIOError(f'{self._shown(path)}: {error}') from error
        except StorageUnsupportedError as error:
            raise StorageUnsupportedError(f'{self._shown(path)}: {error}') from error
        except StorageError:
            raise
        except self._nonsense as error:
            said = str(error) or type(error).__name__
            raise StorageIOError(f'{self._shown(path)}: no archive of this kind, or a damaged one: {said}') from error


class Streams:
    """The streams of the members that were read last, by their numbers."""

    def __init__(self) -> None:
        self._lock = HandleLock()
        self._streams: OrderedDict[int, SeekableStream] = OrderedDict()  # guarded by _lock

    def of(self, number: int, begin: Callable[[], SeekableStream]) -> SeekableStream:
        """That of a member, which is begun if it is not there."""
        with self._lock:
            stream = self._streams.get(number)
            if stream is None:
                stream = self._streams[number] = begin()
            self._streams.move_to_end(number)
            if len(self._streams) > _STREAMS:
                self._streams.popitem(last=False)
            return stream
