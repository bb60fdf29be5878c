"""Streams of decompressed bytes, and one that holds another to what was said of it.

Owns how the decompressors of the standard library are fed, in pieces and with a bound on what they return at a time, so
that a few bytes that say to be terabytes cost time and no memory. Threads: one at a time for each stream.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from genro_storage.backends.seekable import Stream
from genro_storage.errors import StorageIOError

#: What is fed to a decompressor at a time; a mark keeps as much.
_INPUT_BYTES = 16 << 10
# zlib's windowBits: no header at all, and gzip's.
_RAW_DEFLATE = -15
_GZIP = 31

#: What the decompressors raise for damaged input.
DAMAGE = (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


class Input(Protocol):
    """The compressed bytes: whoever reads says where."""

    def __call__(self, offset: int, size_bytes: int) -> bytes:
        """These bytes, fewer only at the end."""


class Decompressed:
    """What the bytes from ``start`` to ``end`` of an input are when they are decompressed.

    ``make`` makes a decompressor. ``several``: where one has ended, another may begin, as in gzip, bzip2 and xz.
    """

    def __init__(self, source: Input, start: int, end: int, make: Callable[[], Any], *, several: bool) -> None:
        self._source = source
        self._at = start
        self._end = end
        self._make = make
        self._several = several
        self._decompressor = make()
        self._has_begun = False

    def read(self, most_bytes: int) -> bytes:
        """See Stream. Raises StorageIOError for damaged input, and what the input raises."""
        while True:
            if self._decompressor.eof and not self._begin_another():
                return b''
            data = self._step(most_bytes)
            if data:
                return data

    def fork(self) -> Stream | None:
        """See Stream. Only zlib's decompressors can be copied."""
        if not hasattr(self._decompressor, 'copy'):
            return None
        other = Decompressed.__new__(Decompressed)
        other.__dict__.update(self.__dict__)
        other._decompressor = self._decompressor.copy()
        return other

    def _step(self, most_bytes: int) -> bytes:
        decompressor = self._decompressor
        waiting = getattr(decompressor, 'unconsumed_tail', b'')
        fed = waiting or (b'' if not getattr(decompressor, 'needs_input', True) else self._more())
        try:
            data = bytes(decompressor.decompress(fed, most_bytes))
        except DAMAGE as error:
            raise StorageIOError(f'the compressed bytes are damaged: {error}') from error
        self._has_begun = True
        if not data and not fed and not decompressor.eof and getattr(decompressor, 'needs_input', True):
            raise StorageIOError('the compressed bytes end early')
        return data

    def _more(self) -> bytes:
        fed = self._source(self._at, min(_INPUT_BYTES, self._end - self._at))
        self._at += len(fed)
        return fed

    def _begin_another(self) -> bool:
        """Begin with what follows; False if nothing does, or only padding."""
        if not self._several:
            return False
        self._at -= len(self._decompressor.unused_data)
        while padding := self._more():
            rest = padding.lstrip(b'\0')
            if rest:
                self._at -= len(rest)
                self._decompressor = self._make()
                return True
        return False


class Verified:
    """A stream that has a size and a CRC-32 to keep to: more it does not return, less or other bytes it refuses."""

    def __init__(self, inner: Stream, size_bytes: int, crc: int) -> None:
        self._inner = inner
        self._missing_bytes = size_bytes
        self._expected = crc
        self._crc = 0

    def read(self, most_bytes: int) -> bytes:
        """See Stream. Raises StorageIOError."""
        if not self._missing_bytes:
            return b''
        data = self._inner.read(min(most_bytes, self._missing_bytes))
        if not data:
            raise StorageIOError(f'it ends {self._missing_bytes} bytes before the end that its header says')
        self._missing_bytes -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        if not self._missing_bytes and self._crc != self._expected:
            raise StorageIOError('its bytes are not those that its checksum was made of')
        return data

    def fork(self) -> Stream | None:
        """See Stream."""
        forked = self._inner.fork()
        if forked is None:
            return None
        other = Verified(forked, self._missing_bytes, self._expected)
        other._crc = self._crc
        return other


def deflated(source: Input, start: int, end: int) -> Stream:
    """Bytes compressed by deflate, without a header."""
    return Decompressed(source, start, end, lambda: zlib.decompressobj(_RAW_DEFLATE), several=False)


def gzipped(source: Input, start: int, end: int) -> Stream:
    """Bytes compressed by gzip."""
    return Decompressed(source, start, end, lambda: zlib.decompressobj(_GZIP), several=True)


def bzipped(source: Input, start: int, end: int, *, several: bool = True) -> Stream:
    """Bytes compressed by bzip2."""
    return Decompressed(source, start, end, bz2.BZ2Decompressor, several=several)


def xzipped(source: Input, start: int, end: int) -> Stream:
    """Bytes compressed by xz, or by lzma alone."""
    return Decompressed(source, start, end, lambda: lzma.LZMADecompressor(memlimit=_XZ_MOST_BYTES), several=True)


#: xz -9 needs 65 MiB; a header may ask for 4 GiB.
_XZ_MOST_BYTES = 256 << 20


def lzma_of_zip(source: Input, start: int, end: int) -> Stream:
    """Bytes compressed by LZMA as zip has it: version, length of the properties, properties, bytes (APPNOTE 5.8.8)."""
    header = source(start, 4)
    size_bytes = int.from_bytes(header[2:4], 'little')
    properties = source(start + 4, min(size_bytes, 5))
    if len(header) < 4 or size_bytes != 5 or len(properties) < 5:
        raise StorageIOError('the header of its LZMA stream is damaged')
    rest, lc = divmod(properties[0], 9)
    pb, lp = divmod(rest, 5)
    dictionary_bytes = int.from_bytes(properties[1:], 'little')
    if dictionary_bytes > _XZ_MOST_BYTES:
        raise StorageIOError(f'its LZMA stream wants {dictionary_bytes} bytes of memory')
    filters = [{'id': lzma.FILTER_LZMA1, 'dict_size': max(dictionary_bytes, 4096), 'lc': lc, 'lp': lp, 'pb': pb}]

    def make() -> lzma.LZMADecompressor:
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        except DAMAGE as error:
            raise StorageIOError(f'the header of its LZMA stream is damaged: {error}') from error

    return Decompressed(source, start + 9, end, make, several=False)
