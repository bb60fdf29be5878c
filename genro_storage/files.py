"""File objects of Python over read and write handles.

Owns modes and the promise that an exception inside ``with`` publishes nothing, for binary and for text files. Buffering
and text are the standard library's. Threads: as files of the io module.
"""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, TYPE_CHECKING, Literal, Self, cast

from genro_storage.errors import StorageError, StorageIOError, StorageUnsupportedError
from genro_storage.reading.reader import Reader
from genro_storage.writing.writer import Writer

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc.Buffer is of Python 3.12

Mode = Literal['r', 'rb', 'w', 'wb', 'a', 'ab', 'x', 'xb', 'r+', 'r+b', 'rb+']
MODES = ('r', 'rb', 'w', 'wb', 'a', 'ab', 'x', 'xb', 'r+', 'r+b', 'rb+')

#: A range of the fetcher: of a remote file, the next one is on its way while this one is copied.
READ_ALL_BYTES = 8 << 20

#: One buffer is one call into a handle; the default of 8 KiB would make 128 calls of each MiB.
BUFFER_BYTES = 1 << 20


class _RawFile(io.RawIOBase):
    """A position over a handle, and what close() means."""

    def __init__(self, handle: Reader | Writer, position: int) -> None:
        self._handle = handle
        self._position = position
        self._publish = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._handle.size_bytes}.get(whence)
        if start is None:
            raise StorageUnsupportedError(f'seek from {whence}')
        if start + offset < 0:
            raise ValueError(f'negative seek position {start + offset}')
        self._position = start + offset
        return self._position

    def readall(self) -> bytes:
        """The rest, in pieces that are worth fetching at once: the standard library would ask for 8 KiB at a time."""
        pieces = []
        while data := self._handle.read(self._position, READ_ALL_BYTES):
            pieces.append(data)
            self._position += len(data)
        return b''.join(pieces)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._handle.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def abandon(self) -> None:
        """Publish nothing at close."""
        self._publish = False

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._close_handle()
        finally:
            super().close()

    def _close_handle(self) -> None:
        self._handle.close()


class _RawWriter(_RawFile):
    """The same for a handle that writes."""

    def __init__(self, handle: Writer, position: int, *, readable: bool, append: bool) -> None:
        super().__init__(handle, position)
        self._writer = handle
        self._readable = readable
        self._append = append
        self._failure: BaseException | None = None

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return True

    def write(self, data: 'Buffer', /) -> int:
        data = memoryview(data).cast('B')
        if not self._publish:
            return len(data)  # what the buffer still held when an exception ended the file
        with self._noting_failure():
            if self._append:
                self._position = self._writer.size_bytes
            written = self._writer.write(self._position, data)
        self._position += written
        return written

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        with self._noting_failure():
            self._writer.truncate(size)
        return size

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        # The io module closes this even if the flush before it has failed; what is staged then has a piece missing.
        # A step that succeeds after it was the same one, tried again.
        try:
            yield
        except BaseException as error:
            self._failure = error
            raise
        self._failure = None

    def _dealloc_warn(self, source: object) -> None:
        # The io module calls this when a file that nobody closed is collected, before it flushes and closes. Perhaps an
        # exception went past the file: publish nothing.
        self._publish = False  # first: the warning may be an error
        warnings.warn(f'unclosed file {source!r}: nothing of it is published', ResourceWarning, stacklevel=2)

    def _close_handle(self) -> None:
        # _finalizing: this object itself is collected first, in a reference cycle (set by the io module).
        if self._publish and getattr(self, '_finalizing', False):
            self._dealloc_warn(self)
        if not self._publish:
            self._writer.abort()
        elif self._failure is not None:
            self._writer.abort()
            # Of the same kind: whoever asks for a conflict at close finds it there.
            kind = type(self._failure) if isinstance(self._failure, StorageError) else StorageIOError
            raise kind(f'nothing is published, because a write before failed: {self._failure}') from self._failure
        else:
            self._writer.close()


class _PublishesOnSuccess:
    """A context manager whose exit with an exception publishes nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        file = cast('IO[bytes]', self)
        if kind is not None:
            _raw(file).abandon()
        file.close()


class _Writer(_PublishesOnSuccess, io.BufferedWriter):
    """A binary file to write."""


class _Random(_PublishesOnSuccess, io.BufferedRandom):
    """A binary file to read and write."""


class _Text(_PublishesOnSuccess, io.TextIOWrapper):
    """A text file to write."""

    def __enter__(self) -> Self:
        super().__enter__()
        return self


def _raw(file: IO[bytes]) -> _RawFile:
    buffered = cast('io.BufferedWriter', getattr(file, 'buffer', file))
    return cast('_RawFile', buffered.raw)


def open_reader(reader: Reader, mode: str, encoding: str) -> IO[bytes] | IO[str]:
    """A file object over a read handle; text keeps newlines as they are."""
    binary = io.BufferedReader(_RawFile(reader, 0), BUFFER_BYTES)
    if 'b' in mode:
        return binary
    try:
        return io.TextIOWrapper(binary, encoding=encoding, newline='')
    except LookupError:  # no such encoding
        binary.close()
        raise


def open_writer(writer: Writer, mode: str, encoding: str) -> IO[bytes] | IO[str]:
    """A file object over a write handle, which publishes at close."""
    raw = _RawWriter(writer, writer.size_bytes if 'a' in mode else 0, readable='+' in mode, append='a' in mode)
    binary = _Random(raw, BUFFER_BYTES) if '+' in mode else _Writer(raw, BUFFER_BYTES)
    if 'b' in mode:
        return binary
    try:
        return _Text(binary, encoding=encoding, newline='')
    except LookupError:  # no such encoding
        raw.abandon()
        binary.close()
        raise
