"""What is in a tar archive, as it is or compressed as a whole.

Owns which members are shown and where their bytes are. A compressed one is decompressed once to find them; marks on the
way make later reads short where it is gzip, and the others are read from the beginning, or from where the last read
ended.
Threads: safe.
"""

import tarfile
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from genro_storage.backends import decompressing
from genro_storage.backends.archive_files import ArchiveStream, OpenArchive
from genro_storage.backends.archive_tree import Member, Tree
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.seekable import SeekableStream, Stream
from genro_storage.entry import Kind
from genro_storage.errors import StorageIOError, StorageUnsupportedError

#: What tarfile raises for what is no tar archive.
NONSENSE = (tarfile.TarError,)

#: Longer names and lists of attributes are nobody's, and what is compressed can say to have them.
_HEADER_MOST_BYTES = 4 << 20
#: Where a compressed archive ends, only its last byte tells.
_UNKNOWN_BYTES = 1 << 62

_MAGIC: tuple[tuple[bytes, Callable[[decompressing.Input, int, int], Stream]], ...] = (
    (b'\x1f\x8b', decompressing.gzipped),
    (b'BZh', decompressing.bzipped),
    (b'\xfd7zXZ\0', decompressing.xzipped),
    (b'\x5d\0\0', decompressing.xzipped),  # lzma alone, as old tools write it
)
_MAGIC_OF_OTHERS = {b'\x28\xb5\x2f\xfd': 'zstd', b'\x1f\x9d': 'compress', b'\x04\x22\x4d\x18': 'lz4'}


class _Data(msgspec.Struct, frozen=True, gc=False):
    """Where the bytes of a member are; ``pieces`` of a sparse one, by (offset in the file, length), else None."""

    offset: int
    pieces: tuple[tuple[int, int], ...] | None


class TarIndex:
    """Of one version of an archive."""

    def __init__(self, archive: OpenArchive, hidden: HiddenNames) -> None:
        self._data: list[_Data] = []
        self._links: dict[int, str] = {}
        self._read, size_bytes = _unpacked(archive)
        self.tree = Tree(
            archive.tag,
            archive.mtime_ns,
            strong=archive.version.strong,
            hidden=hidden,
            link_of=lambda member: self._links[member.number],
        )
        stream = ArchiveStream(self._read, size_bytes, _HEADER_MOST_BYTES)
        with tarfile.TarFile(fileobj=stream, encoding='utf-8', errors='surrogateescape') as found:
            self._add_all(found)

    def read(self, member: Member, offset: int, size_bytes: int) -> bytes:
        """See Index."""
        data = self._data[member.number]
        if data.pieces is None:
            return self._read(data.offset + offset, size_bytes)
        return self._read_sparse(data.offset, data.pieces, offset, size_bytes)

    def _add_all(self, found: tarfile.TarFile) -> None:
        before = -1
        while (info := found.next()) is not None:
            # A header may say that its member has a negative length: it would be read again and again.
            if found.offset <= before or info.size < 0:
                raise StorageIOError('a header leads backwards')
            before = found.offset
            self._add(info)
            found.members.clear()  # type: ignore[attr-defined]  # they would stay in memory, 2 KB each

    def _add(self, info: tarfile.TarInfo) -> None:
        mtime_ns = int(info.mtime * 1_000_000_000)
        if info.isdir():
            self.tree.add_directory(info.name, mtime_ns)
        elif info.islnk():
            # A hard link is one more name; that of what is not in the archive is nothing.
            member = self.tree.member(info.linkname)
            if member is not None:
                self.tree.add(info.name, member)
        elif info.issym():
            number = len(self._data)
            self._links[number] = info.linkname
            self._data.append(_Data(0, None))
            self.tree.add(info.name, Member(number, 0, mtime_ns, is_link=True))
        elif info.isreg():
            sparse: Any = info.sparse
            pieces = None if sparse is None else tuple((start, length) for start, length in sparse)
            member = Member(len(self._data), info.size, mtime_ns)
            self._data.append(_Data(info.offset_data, pieces))
            self.tree.add(info.name, member)
        else:
            self.tree.add(info.name, Member(0, 0, mtime_ns, Kind.OTHER))

    def _read_sparse(self, start: int, pieces: tuple[tuple[int, int], ...], offset: int, size_bytes: int) -> bytes:
        found = bytearray(size_bytes)
        for place, length in pieces:
            first, last = max(place, offset), min(place + length, offset + size_bytes)
            if first < last:
                data = self._read(start + first - place, last - first)
                if len(data) < last - first:
                    return b''
                found[first - offset : last - offset] = data
            start += length
        return bytes(found)


def _unpacked(archive: OpenArchive) -> tuple[Callable[[int, int], bytes], int]:
    """A function that reads the archive without its compression, and how many bytes it has at most."""
    magic = archive.read(0, 6)
    for beginning, begin in _MAGIC:
        if magic.startswith(beginning):
            stream = SeekableStream(partial(begin, archive.read, 0, archive.size_bytes))
            return stream.read, _UNKNOWN_BYTES
    for beginning, name in _MAGIC_OF_OTHERS.items():
        if magic.startswith(beginning):
            raise StorageUnsupportedError(f'it is compressed by {name}; a mount of type libarchive can read it')
    return archive.read, archive.size_bytes
