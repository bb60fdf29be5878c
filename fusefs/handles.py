"""File handles: fh → what is open, from OPEN to RELEASE.

Owns the numbers and what every open file and directory can do; trees bring their own kinds. Threads: safe.
"""

import errno
import itertools
import logging
import os
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from fusefs.inodes import Inode
from fusefs.ops import Data, DirectoryEntry, EntryReply, Listing, Readdir, direntry_bytes

log = logging.getLogger(__name__)


class OpenFile(Protocol):
    """A file handle of the kernel, over a reader, a writer or a descriptor."""

    @property
    def inode(self) -> Inode:
        """What is open."""

    def read(self, offset: int, size_bytes: int) -> Data:
        """Bytes from offset on, fewer only at the end of the file."""

    def write(self, offset: int, data: memoryview | bytes) -> int:
        """Write, and say how much was taken."""

    def allocate(self, offset: int, size_bytes: int, mode: int) -> None:
        """fallocate(2), with its FALLOC_FL_* bits. Raises OSError(EOPNOTSUPP) for what the file cannot."""

    def seek(self, offset: int, whence: int) -> int:
        """Where data or a hole begins from offset on (os.SEEK_DATA, os.SEEK_HOLE); the end counts as a hole.

        Raises OSError(ENXIO) for an offset at or behind the end, and where no data follow.
        """

    def copy_from(self, source: 'OpenFile', source_offset: int, offset: int, size_bytes: int) -> int:
        """Copy without the bytes passing through here, and say how many; fewer where more would take long.

        Raises OSError(EOPNOTSUPP or EXDEV) with nothing copied: the kernel then reads and writes.
        """

    def flush(self) -> None:
        """A descriptor was closed; others may be open still, and writing may follow. Raises what the close is told."""

    def fsync(self, *, data_only: bool) -> None:
        """Make what was written last."""

    def release(self) -> None:
        """The last descriptor is gone."""

    def fileno(self) -> int | None:
        """The descriptor of a local file, None of others."""

    @property
    def content(self) -> Hashable:
        """What it shows: files of different contents that are open at one time cannot be handed over by one inode."""

    @property
    def stamp(self) -> Hashable:
        """What identifies the bytes that it will show, so that pages cached under an equal one are right; or None."""

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written through it, so that flush() has nothing to do."""

    def open_backing(self) -> int | None:
        """A descriptor of a local file for the kernel to read and write in place of this one; the caller closes it.

        None where there is none, or it must not.
        """


class Item(NamedTuple):
    """A name in a snapshot of a directory: its inode number and type for READDIR, and how to look it up."""

    name: str
    ino: int
    mode: int
    enter: Callable[[str], EntryReply | None]


class OpenDirectory:
    """A directory handle: a snapshot, so that offsets stay right while entries come and go.

    Taken at the first READDIR and again when a program rewinds. enter() of an item counts a lookup; None there means
    that the name is gone.
    """

    def __init__(
        self,
        own_ino: int,
        parent_ino: int,
        scan: Callable[[], Sequence[Item]],
        release: Callable[[], None] | None = None,
    ) -> None:
        self._own_ino = own_ino
        self._parent_ino = parent_ino
        self._scan = scan
        self._release = release
        self._items: Sequence[Item] | None = None

    def read(self, request: Readdir) -> Listing:
        """As many entries behind request.offset as fit."""
        if self._items is None or request.offset == 0:
            self._items = self._scan()
        room = request.size_bytes
        entries: list[DirectoryEntry] = []
        for position in range(request.offset, len(self._items) + 2):
            if position < 2:
                name, ino = ('.', self._own_ino) if position == 0 else ('..', self._parent_ino)
                item = None
                mode = 0o040000
            else:
                item = self._items[position - 2]
                name, ino, mode = item.name, item.ino, item.mode
            name_bytes = len(name) if name.isascii() else len(name.encode('utf-8', 'surrogateescape'))
            room -= direntry_bytes(name_bytes, plus=request.plus)
            if room < 0:
                break
            entry = None
            if item is not None and request.plus:
                try:
                    entry = item.enter(item.name)
                except OSError as error:
                    # It costs nobody the rest of the listing; who looks at this name meets the error.
                    log.debug('%s: listed, but %s', name, error)
                else:
                    if entry is None:
                        continue
                    if entry.attributes is not None:
                        ino, mode = entry.attributes.ino, entry.attributes.mode
            entries.append(DirectoryEntry(name, ino, mode, position + 1, entry))
        return Listing(entries)

    def release(self) -> None:
        """The last descriptor is gone."""
        if self._release is not None:
            self._release()


class HandleTable:
    """What is open, by fh."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._opened: dict[int, OpenFile | OpenDirectory] = {}

    def add(self, file: OpenFile) -> int:
        """Give a file a number."""
        fh = next(self._numbers)
        self._opened[fh] = file
        file.inode.files.append(file)
        return fh

    def add_directory(self, directory: OpenDirectory) -> int:
        """Give a directory a number."""
        fh = next(self._numbers)
        self._opened[fh] = directory
        return fh

    def file(self, fh: int) -> OpenFile:
        """An open file. Raises OSError(EBADF)."""
        opened = self._opened.get(fh)
        if opened is None or isinstance(opened, OpenDirectory):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return opened

    def directory(self, fh: int) -> OpenDirectory:
        """An open directory. Raises OSError(EBADF)."""
        opened = self._opened.get(fh)
        if not isinstance(opened, OpenDirectory):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return opened

    def remove(self, fh: int) -> OpenFile | OpenDirectory | None:
        """Take a number back; what was open under it."""
        opened = self._opened.pop(fh, None)
        if opened is not None and not isinstance(opened, OpenDirectory):
            opened.inode.files.remove(opened)
        return opened

    def put_back(self, fh: int, opened: OpenFile | OpenDirectory) -> None:
        """Undo a remove."""
        self._opened[fh] = opened
        if not isinstance(opened, OpenDirectory):
            opened.inode.files.append(opened)

    def all(self) -> list[OpenFile | OpenDirectory]:
        """All that is open."""
        return list(self._opened.values())
