"""Reading anywhere in what can only be read from its beginning, such as a compressed file, in bounded memory.

Owns where to begin: at what was read lately, at a mark (a copy of the decompressor on its way), where the stream is, or
at the beginning. Nothing is held of what a stream says of its own size.
Threads: safe; a read holds the stream's lock, across I/O, as a handle does.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from genro_storage.runtime import HandleLock

#: What a stream is read in, and remembered in.
CHUNK_BYTES = 256 << 10
#: What was read lately: ranges of a file that are fetched in parallel come in any order.
RECENT_CHUNKS = 64
#: Between marks, at first. One of zlib's takes 50 KB, and 1 MiB is decompressed in 3 ms.
MARK_BYTES = 1 << 20
#: Of one stream; when there are as many, every other one goes and further ones are twice as far apart.
MARKS = 128


class Stream(Protocol):
    """Something that is read from its beginning to its end."""

    def read(self, most_bytes: int) -> bytes:
        """The next bytes, at least one and at most so many; none at the end."""

    def fork(self) -> 'Stream | None':
        """Another one that goes on from here, independent of this; None where that is not possible."""


class SeekableStream:
    """``begin`` begins the stream anew."""

    def __init__(self, begin: Callable[[], Stream]) -> None:
        self._begin = begin
        self._lock = HandleLock()
        # All guarded by _lock. Streams stand at the beginning of the chunk of this number.
        self._stream: Stream | None = None
        self._next = 0
        self._marks: OrderedDict[int, Stream] = OrderedDict()
        self._mark_chunks = MARK_BYTES // CHUNK_BYTES
        self._recent: OrderedDict[int, bytes] = OrderedDict()

    def read(self, offset: int, size_bytes: int) -> bytes:
        """These bytes, fewer only at the end. Raises what the stream raises."""
        pieces = []
        with self._lock:
            while size_bytes > 0:
                number, skipped = divmod(offset, CHUNK_BYTES)
                piece = self._chunk(number)[skipped : skipped + size_bytes]
                if not piece:
                    break
                pieces.append(piece)
                offset, size_bytes = offset + len(piece), size_bytes - len(piece)
        return b''.join(pieces)

    def _chunk(self, number: int) -> bytes:
        known = self._recent.get(number)
        if known is not None:
            self._recent.move_to_end(number)
            return known
        stream = self._stream_before(number)
        chunk = b''
        while self._next <= number:
            try:
                chunk = _filled(stream)
            except BaseException:
                self._stream = None  # nobody knows where it stands
                raise
            self._remember(self._next, chunk)
            self._next += 1
            if len(chunk) < CHUNK_BYTES:
                self._stream = None  # it has ended
                return chunk if self._next > number else b''
            self._mark(stream)
        return chunk

    def _stream_before(self, number: int) -> Stream:
        """The stream, brought to the nearest place before a chunk."""
        marked = max((place for place in self._marks if place <= number), default=-1)
        if self._stream is not None and marked <= self._next <= number:
            return self._stream
        forked = self._marks[marked].fork() if marked >= 0 else None
        self._stream, self._next = (self._begin(), 0) if forked is None else (forked, marked)
        return self._stream

    def _mark(self, stream: Stream) -> None:
        if self._next % self._mark_chunks or self._next in self._marks:
            return
        forked = stream.fork()
        if forked is None:
            return
        self._marks[self._next] = forked
        if len(self._marks) >= MARKS:
            self._mark_chunks *= 2
            for place in [place for place in self._marks if place % self._mark_chunks]:
                del self._marks[place]

    def _remember(self, number: int, chunk: bytes) -> None:
        self._recent[number] = chunk
        self._recent.move_to_end(number)
        if len(self._recent) > RECENT_CHUNKS:
            self._recent.popitem(last=False)


def _filled(stream: Stream) -> bytes:
    pieces = []
    missing = CHUNK_BYTES
    while missing and (piece := stream.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b''.join(pieces)
