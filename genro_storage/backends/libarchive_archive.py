"""What is in an archive that libarchive reads.

Owns which of its formats are let in, and that errors of reading come back through its C code. A member is read from its
beginning, or from where the last read of it ended: libarchive has no other way.
Threads: safe; each of its readers is used by one at a time.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from genro_storage.backends.archive import Streams
from genro_storage.backends.archive_files import ArchiveStream, OpenArchive
from genro_storage.backends.archive_tree import Member, Tree
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.seekable import SeekableStream, Stream
from genro_storage.entry import Kind
from genro_storage.errors import StorageConfigError, StorageIOError

# Not mtree: that is a list of files of this machine, which libarchive can be told to look at.
_FORMATS = ('7zip', 'ar', 'cab', 'cpio', 'iso9660', 'lha', 'rar', 'rar5', 'tar', 'warc', 'xar', 'zip')
# Not grzip, lrzip and lzop: for those it starts programs.
_FILTERS = ('bzip2', 'compress', 'gzip', 'lz4', 'lzip', 'lzma', 'rpm', 'uu', 'xz', 'zstd')
_BLOCK_BYTES = 256 << 10
_FATAL = -30  # ARCHIVE_FATAL of archive.h


class LibarchiveIndex:
    """Of one version of an archive."""

    def __init__(self, archive: OpenArchive, hidden: HiddenNames) -> None:
        self._archive = archive
        self._streams = Streams()
        self._links: dict[int, str] = {}
        self.tree = Tree(
            archive.tag,
            archive.mtime_ns,
            strong=archive.version.strong,
            hidden=hidden,
            link_of=lambda member: self._links[member.number],
        )
        with _reading(archive) as found:
            for number, entry in enumerate(found):
                self._add(number, entry)

    def read(self, member: Member, offset: int, size_bytes: int) -> bytes:
        """See Index."""
        stream = self._streams.of(member.number, lambda: SeekableStream(lambda: _MemberStream(self._archive, member)))
        return stream.read(offset, size_bytes)

    def _add(self, number: int, entry: Any) -> None:
        name = _text(entry.pathname)
        mtime_ns = round((entry.mtime or 0) * 1_000_000_000)
        hard_link = _hard_link(entry)
        if hard_link:
            member = self.tree.member(hard_link)
            if member is not None:
                self.tree.add(name, member)
        elif entry.isdir:
            self.tree.add_directory(name, mtime_ns)
        elif entry.issym:
            self._links[number] = _text(entry.linkpath)
            self.tree.add(name, Member(number, 0, mtime_ns, is_link=True))
        elif entry.isreg:
            size_bytes = entry.size
            if size_bytes is None:
                size_bytes = sum(len(block) for block in entry.get_blocks(_BLOCK_BYTES))
            self.tree.add(name, Member(number, size_bytes, mtime_ns))
        else:
            self.tree.add(name, Member(number, 0, mtime_ns, Kind.OTHER))


class _MemberStream:
    """See Stream: the bytes of one member."""

    def __init__(self, archive: OpenArchive, member: Member) -> None:
        self._blocks = _blocks(archive, member.number)
        self._rest = b''

    def read(self, most_bytes: int) -> bytes:
        """See Stream."""
        if not self._rest:
            self._rest = next(self._blocks, b'')
        data, self._rest = self._rest[:most_bytes], self._rest[most_bytes:]
        return data

    def fork(self) -> Stream | None:
        """See Stream. There is no such thing."""
        return None


def _blocks(archive: OpenArchive, number: int) -> Iterator[bytes]:
    with _reading(archive) as found:
        for at, entry in enumerate(found):
            if at == number:
                yield from entry.get_blocks(_BLOCK_BYTES)
                return
    raise StorageIOError('it is not there any more')


@contextmanager
def _reading(archive: OpenArchive) -> Iterator[Any]:
    """libarchive's reader at the beginning. Raises StorageIOError for what is no archive."""
    libarchive = library()
    stream = _Careful(archive)
    try:
        with _reader(libarchive, stream) as found:
            yield found
    except libarchive.ArchiveError as error:
        if stream.error is not None:
            raise stream.error from error
        raise StorageIOError(f'no archive that libarchive can read, or a damaged one: {error.msg}') from error
    if stream.error is not None:
        raise stream.error


@contextmanager
def _reader(libarchive: Any, stream: '_Careful') -> Iterator[Any]:
    ffi = libarchive.ffi
    pointer = ffi.read_new()
    # They live as long as libarchive may call them.
    read = ffi.READ_CALLBACK(stream.read)
    seek = ffi.SEEK_CALLBACK(stream.seek)
    try:
        for name in _FILTERS:
            _let_in(ffi.get_read_filter_function, name, pointer)
        for name in _FORMATS:
            _let_in(ffi.get_read_format_function, name, pointer)
        ffi.read_set_seek_callback(pointer, seek)
        ffi.read_open(pointer, None, ffi.NO_OPEN_CB, read, ffi.NO_CLOSE_CB)
        yield libarchive.read.ArchiveRead(pointer)
    finally:
        ffi.read_free(pointer)


def _let_in(function_of: Callable[[str], Callable[[Any], object]], name: str, pointer: Any) -> None:
    try:
        function = function_of(name)
    except ValueError:
        return  # an older libarchive, which has not learned it yet
    function(pointer)


class _Careful:
    """What libarchive calls back. An exception cannot pass through it, and would be taken for the end of the file."""

    def __init__(self, archive: OpenArchive) -> None:
        self._stream = ArchiveStream(archive.read, archive.size_bytes)
        self._buffer = ctypes.create_string_buffer(_BLOCK_BYTES)
        self.error: Exception | None = None

    def read(self, pointer: Any, context: Any, place: Any) -> int:
        """Bring the next bytes into the buffer and say where that is; how many they are."""
        try:
            data = self._stream.read(_BLOCK_BYTES)
        except Exception as error:  # noqa: BLE001 - it is raised again when libarchive has given up
            self.error = error
            return _FATAL
        ctypes.memmove(self._buffer, data, len(data))
        ctypes.cast(place, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.cast(self._buffer, ctypes.c_void_p)
        return len(data)

    def seek(self, pointer: Any, context: Any, offset: int, whence: int) -> int:
        """Go somewhere else; where that is."""
        try:
            return self._stream.seek(offset, whence)
        except ValueError:
            return _FATAL


def library() -> Any:
    """The package libarchive-c. Raises StorageConfigError that says what to install."""
    try:
        import libarchive
    except ImportError as error:
        raise StorageConfigError(
            "type 'libarchive' needs a package that is not installed: pip install 'genro-storage[libarchive]'"
        ) from error
    except (OSError, AttributeError, TypeError) as error:
        raise StorageConfigError(
            "type 'libarchive' needs the library libarchive, which is not installed: apt-get install libarchive13"
        ) from error
    return libarchive


def _hard_link(entry: Any) -> str:
    """The name of the member whose bytes it has too; '' if it has its own."""
    return _text(entry.linkpath) if entry.islnk and not entry.issym else ''


def _text(name: str | bytes | None) -> str:
    """A name; where nobody knows its encoding, with surrogates (PEP 383)."""
    return name.decode('utf-8', 'surrogateescape') if isinstance(name, bytes) else name or ''
