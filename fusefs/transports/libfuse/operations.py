"""libfuse's operations on paths, as requests about inodes.

Owns what one is to the other: paths are walked, handles know their inode, and names that come and go are noted. The
methods and their arguments are mfusepy's (its class Operations), with fh and flags where it drops them; library brings
them. Knows no ctypes. Threads: safe; called from as many of libfuse's threads as there are calls under way.
"""

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from fusefs import ops
from fusefs.transports.libfuse.places import Place, Places
from fusefs.transports.libfuse.removed import TAKEN, RemovedNames
from fusefs.transports.libfuse.requests import Requests
from fusefs.transports.libfuse.walking import Walker

#: libfuse takes as many entries as fit what the kernel asked for, often 4 KiB, and does not say how many those are.
LISTING_BYTES = 4096
#: linux/limits.h: XATTR_SIZE_MAX. Whole values are asked for: what room there is, mfusepy compares.
ATTRIBUTE_BYTES = 65536
RENAME_EXCHANGE = 2  # linux/fs.h


class Opening(NamedTuple):
    """What libfuse is told of an open file. direct_io: no page cache; no_flush: closes need not be told."""

    fh: int
    direct_io: bool
    no_flush: bool


class Operations:
    """One file system, by paths. Every method raises OSError."""

    # What mfusepy looks at: times are nanoseconds; operations on open files come without a path (fuse.h, nullpath_ok);
    # utimens may leave a time as it is.
    use_ns = True
    flag_nopath = True
    flag_nullpath_ok = True
    flag_utime_omit_ok = True

    def __init__(self, places: Places, requests: Requests) -> None:
        self._places = places
        self._requests = requests
        self._walker = Walker(places, requests)
        self._removed = RemovedNames()
        self._handles: dict[int, Place] = {}  # what is open, by fh

    # Looking

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, int]:
        """stat and fstat, and how libfuse looks up a name."""
        if path is None or fh is not None:
            request = ops.Getattr(*self._head_of(fh), fh)
            return _as_dict(self._requests.ask(request, ops.AttributesReply).attributes)
        if path == '/':
            return _as_dict(self._attributes(self._places.root))
        return _as_dict(self._walker.again_if_stale(path, lambda: self._look(path)))

    def readlink(self, path: str) -> str:
        """The target of a symbolic link."""
        with self._walker.at(path) as place:
            target = self._requests.ask(ops.Readlink(*self._requests.head(place.nodeid)), bytes)
        return target.decode('utf-8', 'surrogateescape')

    def access(self, path: str, amode: int) -> int:
        """access(2), only without default_permissions."""
        with self._walker.at(path) as place:
            self._requests.tell(ops.Access(*self._requests.head(place.nodeid), amode))
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """statvfs(3)."""
        with self._walker.at(path) as place:
            found = self._requests.ask(ops.Statfs(*self._requests.head(place.nodeid)), ops.StatfsReply)
        return {
            'f_bsize': found.block_size,
            'f_frsize': found.block_size,
            'f_blocks': found.blocks,
            'f_bfree': found.blocks_free,
            'f_bavail': found.blocks_available,
            'f_files': found.files,
            'f_ffree': found.files_free,
            'f_favail': found.files_free,
            'f_namemax': found.name_max,
        }

    # Changing attributes. libfuse makes a call for each of them out of one request of the kernel's.

    def chmod(self, path: str | None, mode: int, fh: int | None = None) -> int:
        """chmod(2)."""
        return self._set(path, fh, mode=mode)

    def chown(self, path: str | None, uid: int, gid: int, fh: int | None = None) -> int:
        """chown(2); -1: leave it as it is."""
        return self._set(path, fh, new_uid=None if uid == -1 else uid, new_gid=None if gid == -1 else gid)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        """truncate(2), ftruncate(2)."""
        return self._set(path, fh, size_bytes=length)

    def utimens(self, path: str | None, times: tuple[int | None, int | None], fh: int | None = None) -> int:
        """utimensat(2): access and modification in ns, None as it is, or ops.NOW."""
        return self._set(path, fh, atime_ns=times[0], mtime_ns=times[1])

    # Names

    def mknod(self, path: str, mode: int, dev: int) -> int:
        """Make a FIFO, socket, device or file."""
        with self._walker.above(path) as (parent, name):
            return self._made(parent, name, ops.Mknod(*self._requests.head(parent.nodeid), name, mode, dev, 0))

    def mkdir(self, path: str, mode: int) -> int:
        """Make a directory."""
        with self._walker.above(path) as (parent, name):
            return self._made(parent, name, ops.Mkdir(*self._requests.head(parent.nodeid), name, mode, 0))

    def symlink(self, path: str, target: str) -> int:
        """Make a symbolic link at a path."""
        with self._walker.above(path) as (parent, name):
            return self._made(parent, name, ops.Symlink(*self._requests.head(parent.nodeid), name, target))

    def link(self, path: str, source: str) -> int:
        """Give the file of another path this one too."""
        with self._walker.at(source) as place, self._walker.above(path) as (parent, name):
            return self._made(parent, name, ops.Link(*self._requests.head(parent.nodeid), place.nodeid, name))

    def unlink(self, path: str) -> int:
        """Remove a file; of one that was removed while it was open, libfuse's own name."""
        with self._walker.above(path) as (parent, name):
            if not self._places.is_hidden(parent, name):
                self._requests.tell(ops.Unlink(*self._requests.head(parent.nodeid), name))
            self._places.remove(parent, name)
        return 0

    def rmdir(self, path: str) -> int:
        """Remove a directory."""
        with self._walker.above(path) as (parent, name):
            self._requests.tell(ops.Rmdir(*self._requests.head(parent.nodeid), name))
            self._places.remove(parent, name)
        return 0

    def rename(self, path: str, new_path: str, flags: int = 0) -> int:
        """renameat2(2), or the removal of a file that is open."""
        if self._removed.is_removal(new_path):
            return self._hide(path, new_path)
        with (
            self._walker.above(path) as (parent, name),
            self._walker.above(new_path) as (new_parent, new_name),
        ):
            if self._removed.is_reserved(new_path) and not self._is_there(new_parent, new_name):
                raise PermissionError(errno.EPERM, 'a name that libfuse gives to removed files')
            head = self._requests.head(parent.nodeid)
            self._requests.tell(ops.Rename(*head, name, new_parent.nodeid, new_name, flags))
            if flags & RENAME_EXCHANGE:
                self._places.exchange(parent, name, new_parent, new_name)
            else:
                self._places.rename(parent, name, new_parent, new_name)
        return 0

    # Files

    def open(self, path: str, flags: int) -> Opening:
        """open(2) of what is there."""
        return self._walker.again_if_stale(path, lambda: self._open(path, flags))

    def create(self, path: str, mode: int, flags: int) -> Opening:
        """open(2) with O_CREAT where nothing was found."""
        with self._walker.above(path) as (parent, name):
            changes = self._places.changes
            request = ops.Create(*self._requests.head(parent.nodeid), name, flags, mode, 0)
            created = self._requests.ask(request, ops.Created)
            place = self._places.enter(parent, name, created.entry, changes)
            try:
                return self._opened(place, created.opened)
            finally:
                self._walker.leave(place)

    def read(self, path: str | None, size: int, offset: int, fh: int) -> list[memoryview]:
        """Pieces that follow each other; fewer bytes only at the end of the file."""
        return self._requests.read(ops.Read(*self._head_of(fh), fh, offset, size, 0))

    def write(self, path: str | None, data: memoryview | bytes, offset: int, fh: int) -> int:
        """How many bytes were taken. data is only read until this returns."""
        return self._requests.ask(ops.Write(*self._head_of(fh), fh, offset, data, 0, False), ops.Written).size_bytes

    def flush(self, path: str | None, fh: int) -> int:
        """A descriptor was closed."""
        self._requests.tell(ops.Flush(*self._head_of(fh), fh, 0))
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        """fsync(2), fdatasync(2)."""
        self._requests.tell(ops.Fsync(*self._head_of(fh), fh, bool(datasync), False))
        return 0

    def release(self, path: str | None, fh: int) -> int:
        """The last descriptor was closed."""
        try:
            self._requests.tell(ops.Release(*self._head_of(fh), fh, False))
        finally:
            self._places.close(self._handles.pop(fh))
            self._walker.give_back()
        return 0

    def fallocate(self, path: str | None, mode: int, offset: int, size: int, fh: int) -> int:
        """fallocate(2)."""
        self._requests.tell(ops.Fallocate(*self._head_of(fh), fh, offset, size, mode))
        return 0

    def lseek(self, offset: int, whence: int, fh: int) -> int:
        """lseek(2) to data and holes."""
        return self._requests.ask(ops.Lseek(*self._head_of(fh), fh, offset, whence), ops.Position).offset

    def copy_file_range(self, fh: int, offset: int, out_fh: int, out_offset: int, size: int, flags: int) -> int:
        """How many bytes were copied."""
        out = self._place_of(out_fh)
        request = ops.CopyFileRange(*self._head_of(fh), fh, offset, out.nodeid, out_fh, out_offset, size, flags)
        return self._requests.ask(request, ops.Written).size_bytes

    # Directories

    def opendir(self, path: str) -> int:
        """The fh of a directory."""
        with self._walker.at(path) as place:
            fh = self._requests.ask(ops.Opendir(*self._requests.head(place.nodeid), 0), ops.Opened).fh
            self._places.hold(place)
            self._handles[fh] = place
        return fh

    def readdir_with_offset(self, path: str | None, offset: int, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        """Names behind an offset, each with type, inode number and the next offset; ends when nobody wants more."""
        while True:
            request = ops.Readdir(*self._head_of(fh), fh, offset, LISTING_BYTES, False)
            entries = self._requests.ask(request, ops.Listing).entries
            if not entries:
                return
            for entry in entries:
                yield entry.name, {'st_mode': entry.mode, 'st_ino': entry.ino}, entry.next_offset
            offset = entries[-1].next_offset

    def fsyncdir(self, path: str | None, datasync: int, fh: int) -> int:
        """fsync(2) of a directory."""
        self._requests.tell(ops.Fsync(*self._head_of(fh), fh, bool(datasync), True))
        return 0

    def releasedir(self, path: str | None, fh: int) -> int:
        """closedir(3)."""
        try:
            self._requests.tell(ops.Release(*self._head_of(fh), fh, True))
        finally:
            self._walker.leave(self._handles.pop(fh))
        return 0

    # Extended attributes. position is of macOS, whose resource forks nothing here has.

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """The value of an attribute."""
        with self._walker.at(path) as place:
            request = ops.Getxattr(*self._requests.head(place.nodeid), name, ATTRIBUTE_BYTES)
            return self._requests.ask(request, bytes)

    def listxattr(self, path: str) -> list[str]:
        """The names of attributes."""
        with self._walker.at(path) as place:
            listed = self._requests.ask(ops.Listxattr(*self._requests.head(place.nodeid), ATTRIBUTE_BYTES), bytes)
        return listed.decode('utf-8', 'surrogateescape').split('\0')[:-1]

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
        """setxattr(2)."""
        with self._walker.at(path) as place:
            self._requests.tell(ops.Setxattr(*self._requests.head(place.nodeid), name, value, options))
        return 0

    def removexattr(self, path: str, name: str) -> int:
        """removexattr(2)."""
        with self._walker.at(path) as place:
            self._requests.tell(ops.Removexattr(*self._requests.head(place.nodeid), name))
        return 0

    # Inside

    def _place_of(self, fh: int | None) -> Place:
        place = None if fh is None else self._handles.get(fh)
        if place is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return place

    def _head_of(self, fh: int | None) -> tuple[int, int, int, int, int]:
        return self._requests.head(self._place_of(fh).nodeid)

    def _attributes(self, place: Place) -> ops.Attributes:
        request = ops.Getattr(*self._requests.head(place.nodeid), None)
        return self._requests.ask(request, ops.AttributesReply).attributes

    def _look(self, path: str) -> ops.Attributes:
        with self._walker.above(path) as (parent, name):
            place = self._places.find(parent, name)
            try:
                if place is None:
                    place, entry = self._walker.look(parent, name)
                    if entry.attributes is not None and entry.attributes_ttl_s > 0:
                        return entry.attributes
                return self._attributes(place)
            except FileNotFoundError:
                if place is None and not self._removed.is_free(path):
                    return TAKEN
                raise
            finally:
                if place is not None:
                    self._places.leave(place)

    def _is_there(self, parent: Place, name: str) -> bool:
        try:
            place, _ = self._walker.look(parent, name)
        except FileNotFoundError:
            return False
        self._places.leave(place)
        return True

    def _set(self, path: str | None, fh: int | None, **changes: int | None) -> int:
        def setattr_of(place: Place) -> None:
            request = ops.Setattr(
                *(*self._requests.head(place.nodeid), fh),
                **{**dict.fromkeys(_CHANGES), **changes},  # type: ignore[arg-type]
                kill_suidgid=False,
            )
            self._requests.ask(request, ops.AttributesReply)

        def setattr_at(path: str) -> None:
            with self._walker.at(path) as place:
                setattr_of(place)

        if path is None or fh is not None:
            setattr_of(self._place_of(fh))
        else:
            self._walker.again_if_stale(path, lambda: setattr_at(path))
        return 0

    def _made(self, parent: Place, name: str, request: ops.Request) -> int:
        changes = self._places.changes
        self._walker.enter(parent, name, self._requests.ask(request, ops.EntryReply), changes)
        return 0

    def _hide(self, path: str, hidden_path: str) -> int:
        with self._walker.above(path) as (parent, name):
            self._requests.tell(ops.Unlink(*self._requests.head(parent.nodeid), name))
            self._places.hide(parent, name, hidden_path.rpartition('/')[2])
        return 0

    def _open(self, path: str, flags: int) -> Opening:
        with self._walker.at(path) as place:
            opened = self._requests.ask(ops.Open(*self._requests.head(place.nodeid), flags), ops.Opened)
            return self._opened(place, opened)

    def _opened(self, place: Place, opened: ops.Opened) -> Opening:
        # Two contents cannot share the page cache of the one inode that the kernel has at a name.
        is_shared = self._places.open(place)
        self._handles[opened.fh] = place
        return Opening(opened.fh, opened.direct_io or is_shared, opened.no_flush)


_CHANGES = ('mode', 'new_uid', 'new_gid', 'size_bytes', 'atime_ns', 'mtime_ns')


def _as_dict(of: ops.Attributes) -> dict[str, int]:
    return {
        'st_ino': of.ino,
        'st_mode': of.mode,
        'st_nlink': of.nlink,
        'st_uid': of.uid,
        'st_gid': of.gid,
        'st_rdev': of.rdev,
        'st_size': of.size_bytes,
        'st_blocks': of.blocks,
        'st_blksize': of.blksize,
        'st_atime': of.atime_ns,
        'st_mtime': of.mtime_ns,
        'st_ctime': of.ctime_ns,
    }
