"""What is in a zip archive.

Owns which members are shown and how their bytes are read: of those that are stored, by ranges of the archive; of
compressed ones, through a stream that is held to the size and the checksum of the central directory. The local
headers are believed in nothing but their own length.
Threads: safe.
"""

import stat
import struct
import zipfile
from collections.abc import Callable
from datetime import datetime

import msgspec

from genro_storage.backends import decompressing
from genro_storage.backends.archive import Streams
from genro_storage.backends.archive_files import ArchiveStream, OpenArchive
from genro_storage.backends.archive_tree import Member, Tree
from genro_storage.backends.decompressing import Verified
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.seekable import SeekableStream, Stream
from genro_storage.errors import StorageIOError, StorageUnsupportedError

#: What zipfile raises for what is no zip archive.
NONSENSE = (zipfile.BadZipFile, RuntimeError)

_ENCRYPTED = 0x1  # of the flags, APPNOTE 4.4.4
_UNIX = 3  # of the systems that made it, APPNOTE 4.4.2
_LOCAL_HEADER = struct.Struct('<4s22xHH')
_EXTENDED_TIMESTAMP = 0x5455  # Info-ZIP's, in its extrafld.txt
#: A longer target of a link would be no path.
_LINK_MOST_BYTES = 4096

_METHODS: dict[int, Callable[[decompressing.Input, int, int], Stream]] = {
    zipfile.ZIP_DEFLATED: decompressing.deflated,
    zipfile.ZIP_BZIP2: lambda source, start, end: decompressing.bzipped(source, start, end, several=False),
    zipfile.ZIP_LZMA: decompressing.lzma_of_zip,
}


class _Place(msgspec.Struct, frozen=True, gc=False):
    """Where a member is, and how."""

    header_offset: int
    packed_bytes: int
    size_bytes: int
    crc: int
    method: int
    is_encrypted: bool


class ZipIndex:
    """Of one version of an archive."""

    def __init__(self, archive: OpenArchive, hidden: HiddenNames) -> None:
        self._archive = archive
        self._streams = Streams()
        self._places: list[_Place] = []
        self.tree = Tree(
            archive.tag, archive.mtime_ns, strong=archive.version.strong, hidden=hidden, link_of=self._link_of
        )
        stream = ArchiveStream(archive.read, archive.size_bytes)
        try:
            found = zipfile.ZipFile(stream)
        except zipfile.BadZipFile as error:
            if stream.error is not None:
                raise stream.error from error
            raise
        with found:
            for info in found.infolist():
                self._add(info)

    def read(self, member: Member, offset: int, size_bytes: int) -> bytes:
        """See Index."""
        place = self._places[member.number]
        if place.is_encrypted:
            raise StorageUnsupportedError('it is encrypted, and nobody asks for passwords here')
        if place.method == zipfile.ZIP_STORED:
            if place.packed_bytes != place.size_bytes:
                raise StorageIOError('it is stored as it is, and its two sizes differ')
            return self._archive.read(self._start(place) + offset, size_bytes)
        if place.method not in _METHODS:
            raise StorageUnsupportedError(
                f'it is compressed by method {place.method}; a mount of type libarchive may know it'
            )
        stream = self._streams.of(member.number, lambda: SeekableStream(lambda: self._begin(place)))
        return stream.read(offset, size_bytes)

    def _add(self, info: zipfile.ZipInfo) -> None:
        mtime_ns = _mtime_ns(info) or self._archive.mtime_ns
        # What zipfile cuts off at a NUL is part of the name.
        name = info.orig_filename if '\0' in info.orig_filename else info.filename
        mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
        if info.is_dir():
            self.tree.add_directory(name, mtime_ns)
            return
        member = Member(len(self._places), info.file_size, mtime_ns, is_link=stat.S_ISLNK(mode))
        self._places.append(
            _Place(
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.CRC,
                info.compress_type,
                bool(info.flag_bits & _ENCRYPTED),
            )
        )
        self.tree.add(name, member)

    def _begin(self, place: _Place) -> Stream:
        start = self._start(place)
        inner = _METHODS[place.method](self._archive.read, start, start + place.packed_bytes)
        return Verified(inner, place.size_bytes, place.crc)

    def _start(self, place: _Place) -> int:
        header = self._archive.read(place.header_offset, _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise StorageIOError('its header is not there')
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if signature != b'PK\3\4':
            raise StorageIOError('its header is not there')
        return place.header_offset + int(_LOCAL_HEADER.size) + int(name_bytes) + int(extra_bytes)

    def _link_of(self, member: Member) -> str:
        size_bytes = min(member.size_bytes, _LINK_MOST_BYTES)
        return self.read(member, 0, size_bytes).decode('utf-8', 'surrogateescape') if size_bytes else ''


def _mtime_ns(info: zipfile.ZipInfo) -> int:
    """When a member was changed, by the more exact time if there is one; 0 where nobody knows."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size_bytes = struct.unpack_from('<HH', extra)
        if kind == _EXTENDED_TIMESTAMP and size_bytes >= 5 and len(extra) >= 9 and extra[4] & 1:
            return int(struct.unpack_from('<i', extra, 5)[0]) * 1_000_000_000
        extra = extra[4 + size_bytes :]
    try:
        # It has no zone: it is the time of the clock on the wall, as unzip(1) takes it.
        return int(datetime(*info.date_time).timestamp()) * 1_000_000_000
    except (ValueError, OverflowError, OSError):
        return 0
