"""Names that desktops leave, kept out of a volume: files here, in memory and within bounds, or not at all.

Owns what stands in a volume's tree for its litter and bins (see noise). An operation on a name comes from the volume's
tree, one on the inode of a file that is kept here comes by itself. Such files belong to paths of the volume and follow
their directories; they last as long as the mounted tree, and the oldest go when there are too many.

Threads: safe; one lock, a leaf, for the table and for all bytes, which are few.
"""

import errno
import itertools
import logging
import os
import stat
import threading
from contextlib import suppress

from fusefs import attrs, ops
from fusefs.handles import Item, OpenFile
from fusefs.inodes import Inode, InodeTable
from fusefs.trees.base import Tree, refuse, seek_in_data
from fusefs.trees.noise import NameKind, kind_of, reader_of_everything
from genro_storage import paths
from genro_storage.config import Noise, Permissions
from genro_storage.errors import StorageNotEmptyError, StorageNotFoundError
from genro_storage.volume import Volume

log = logging.getLogger(__name__)

#: What one mount keeps. The Finder writes 4 KiB beside each file that it copies and 6 KiB for each directory.
LIMIT_BYTES = 16 << 20
LIMIT_FILES = 4096
#: Of one file: a Thumbs.db of a large directory has 1 MB.
FILE_LIMIT_BYTES = 4 << 20
#: Nobody but the kernel can make such a name appear, so it may believe for long that none is there.
ABSENT_TTL_S = 3600.0
#: One that is here may go, if there are too many.
KEPT_TTL_S = 1.0

RENAME_NOREPLACE = 1  # linux/fs.h

_INOS = itertools.count(1 << 62)  # apart from stable_ino's, as good as surely


class LitterFile:
    """One file that is kept here. Guarded by the lock of its Litter."""

    __slots__ = ('data', 'gid', 'ino', 'is_kept', 'mode', 'mtime_ns', 'opened', 'uid')

    def __init__(self, mode: int, owner: attrs.Ownership, now_ns: int) -> None:
        self.ino = next(_INOS)
        self.mode = stat.S_IMODE(mode)
        self.uid, self.gid = owner.uid, owner.gid
        self.mtime_ns = now_ns
        self.is_kept = True  # under a name; others only have it open
        self.opened = 0
        self.data = bytearray()


class Litter(Tree):
    """What of a volume's names is noise."""

    def __init__(self, volume: Volume, inodes: InodeTable) -> None:
        self._volume = volume
        self._inodes = inodes
        self._noise = volume.definition.noise
        self._owner = attrs.Ownership.of(volume.definition)
        self._lock = threading.Lock()
        # Guarded by _lock, with all in it.
        self._files: dict[str, LitterFile] = {}  # by path, the oldest first
        self._size_bytes = 0
        self._told: set[str] = set()  # programs that were refused

    # What the volume's tree asks

    def is_noise(self, name: str) -> bool:
        """Whether a name is kept out of the volume."""
        return self._noise is not Noise.ALLOW and kind_of(name) in {NameKind.LITTER, NameKind.BIN}

    def is_probe(self, name: str) -> bool:
        """Whether a name is looked for everywhere, so that looking for it should cost little."""
        return self._noise is not Noise.ALLOW and kind_of(name) is NameKind.PROBE

    def expect(self, directory: str) -> None:
        """A probe is about to be looked up: by the listing, which whoever looks for it asks for next.

        Raises what the listing raises, but for StorageNotFoundError.
        """
        if not self._volume.backend.capabilities.instant:
            with suppress(StorageNotFoundError):  # the lookup says so
                self._volume.list_directory(directory)

    def admit(self, pid: int) -> None:
        """Refuse programs that would read all there is."""
        if self._noise is Noise.ALLOW or not (program := reader_of_everything(pid)):
            return
        with self._lock:
            is_new = program not in self._told
            self._told.add(program)
        if is_new:
            log.info('%s: %s is not let read, which would fetch everything (noise: allow)', self._volume.name, program)
        refuse(errno.EACCES)

    def find(self, parent: Inode, path: str) -> ops.EntryReply:
        """Look up a name that is noise."""
        with self._lock:
            file = self._files.get(path)
        return ops.EntryReply(0, None, ABSENT_TTL_S, 0.0) if file is None else self._enter(parent, path, file)

    def items(self, parent: Inode, directory: str) -> list[Item]:
        """What is kept here of a directory, for its listing."""

        def enter(name: str) -> ops.EntryReply | None:
            found = self.find(parent, paths.child(directory, name))
            return found if found.nodeid else None

        with self._lock:
            kept = [(path, file.ino) for path, file in self._files.items() if paths.parent(path) == directory]
        return [Item(paths.basename(path), ino, stat.S_IFREG, enter) for path, ino in kept]

    def create_at(self, parent: Inode, path: str, request: ops.Create) -> tuple[ops.EntryReply, OpenFile]:
        """Make a file with a name that is noise, or open the one that is kept under it."""
        if self._noise is not Noise.LOCAL or kind_of(request.name) is not NameKind.LITTER:
            refuse(errno.EACCES)
        self._volume.require(Permissions.READWRITE, path)
        with self._lock:
            file = self._files.get(path)
            if file is not None and request.flags & os.O_EXCL:
                refuse(errno.EEXIST)
            if file is None:
                file = self._files[path] = LitterFile(request.mode, self._owner, self._volume.clock.time_ns())
                self._make_room()
            if request.flags & os.O_TRUNC:
                self._resize(file, 0)
        entry = self._enter(parent, path, file)
        return entry, OpenLitter(self._inodes.get(entry.nodeid), file, self, request.flags)

    def unlink_at(self, parent: Inode, path: str) -> None:
        """Remove a name that is noise."""
        self._volume.require(Permissions.DELETE, path)
        with self._lock:
            if path not in self._files:
                refuse(errno.ENOENT)
            self._drop(path)
        self._inodes.remove(parent, paths.basename(path))

    def move(self, source: str, target: str, flags: int) -> None:
        """Rename from or to a name that is noise. From one to the other is EXDEV, as between two disks."""
        if not (self.is_noise(paths.basename(source)) and self.is_noise(paths.basename(target))):
            refuse(errno.EXDEV)
        self._volume.require(Permissions.DELETE, source)
        if self._noise is not Noise.LOCAL or kind_of(paths.basename(target)) is not NameKind.LITTER:
            refuse(errno.EACCES)
        with self._lock:
            if source not in self._files:
                refuse(errno.ENOENT)
            if flags & ~RENAME_NOREPLACE:
                refuse(errno.EINVAL)
            if flags and target in self._files:
                refuse(errno.EEXIST)
            if source != target:
                if target in self._files:
                    self._drop(target)
                self._files[target] = self._files.pop(source)

    def follow(self, source: str, target: str) -> None:
        """A directory has another path now, and what is kept of it with it."""
        with self._lock:
            self._drop_below(target)
            for path in [path for path in self._files if path.startswith(source + '/')]:
                self._files[target + path.removeprefix(source)] = self._files.pop(path)

    def remove_around(self, directory: str) -> None:
        """Remove a directory in which nobody sees anything: litter goes with it, and bins do not.

        Raises what Volume.remove_directory raises.
        """
        try:
            self._volume.remove_directory(directory)
        except StorageNotEmptyError:
            if self._noise is Noise.ALLOW or not self._clear(directory):
                raise
            self._volume.remove_directory(directory)
        with self._lock:
            self._drop_below(directory)

    # What the kernel asks of a file that is kept here

    def attributes(self, inode: Inode, file: OpenFile | None) -> ops.AttributesReply:
        return ops.AttributesReply(_attributes(_file_of(inode)), KEPT_TTL_S)

    def set_attributes(self, inode: Inode, file: OpenFile | None, request: ops.Setattr) -> ops.AttributesReply:
        self._volume.require(Permissions.READWRITE)
        litter = _file_of(inode)
        with self._lock:
            if request.size_bytes is not None:
                self._resize(litter, request.size_bytes)
            if request.mtime_ns is not None:
                now_ns = self._volume.clock.time_ns()
                litter.mtime_ns = now_ns if request.mtime_ns == ops.NOW else request.mtime_ns
            litter.mode = litter.mode if request.mode is None else stat.S_IMODE(request.mode)
            litter.uid = litter.uid if request.new_uid is None else request.new_uid
            litter.gid = litter.gid if request.new_gid is None else request.new_gid
        return self.attributes(inode, file)

    def open(self, inode: Inode, request: ops.Open) -> OpenFile:
        file = _file_of(inode)
        if request.flags & (os.O_ACCMODE | os.O_TRUNC):
            self._volume.require(Permissions.READWRITE)
        if request.flags & os.O_TRUNC:
            with self._lock:
                self._resize(file, 0)
        return OpenLitter(inode, file, self, request.flags)

    def access(self, inode: Inode, request: ops.Access) -> None:
        if request.mask & os.W_OK:
            self._volume.require(Permissions.READWRITE)

    # What its open files ask

    def read(self, file: LitterFile, offset: int, size_bytes: int) -> bytes:
        """Bytes, fewer only at the end."""
        with self._lock:
            return bytes(file.data[offset : offset + size_bytes])

    def write(self, file: LitterFile, offset: int, data: memoryview | bytes) -> int:
        """All of them, at an offset. Raises OSError(EFBIG)."""
        with self._lock:
            end = offset + len(data)
            if end > len(file.data):
                self._resize(file, end)
            file.data[offset:end] = data
            file.mtime_ns = self._volume.clock.time_ns()
            return len(data)

    def count_open(self, file: LitterFile, delta: int) -> None:
        """A handle of a file comes (1) or goes (-1)."""
        with self._lock:
            file.opened += delta

    # Inside

    def _enter(self, parent: Inode, path: str, file: LitterFile) -> ops.EntryReply:
        inode = self._inodes.enter(parent, paths.basename(path), self, file)
        return ops.EntryReply(inode.nodeid, _attributes(file), KEPT_TTL_S, KEPT_TTL_S)

    def _clear(self, directory: str) -> bool:
        """Remove what of a directory is litter on the backend, if there is nothing else in it."""
        entries, _ = self._volume.list_directory(directory)
        standing = [entry.name for entry in entries if entry.is_directory or kind_of(entry.name) is not NameKind.LITTER]
        if standing:
            if all(self.is_noise(name) for name in standing):
                log.warning(
                    '%s:%s is not empty: it has %r, which is not shown (noise: allow)',
                    self._volume.name,
                    directory,
                    standing[0],
                )
            return False
        for entry in entries:
            self._volume.remove_file(paths.child(directory, entry.name))
        return True

    # Called with the lock held.

    def _resize(self, file: LitterFile, size_bytes: int) -> None:
        if size_bytes > FILE_LIMIT_BYTES:
            refuse(errno.EFBIG)
        before = len(file.data)
        if size_bytes < before:
            del file.data[size_bytes:]
        else:
            file.data.extend(bytes(size_bytes - before))
        if file.is_kept:
            self._size_bytes += size_bytes - before
            self._make_room()
        file.mtime_ns = self._volume.clock.time_ns()

    def _make_room(self) -> None:
        """Let the oldest go that nobody has open."""
        unused = (path for path, file in list(self._files.items()) if not file.opened)
        while len(self._files) > LIMIT_FILES or self._size_bytes > LIMIT_BYTES:
            path = next(unused, None)
            if path is None:
                return
            self._drop(path)

    def _drop_below(self, directory: str) -> None:
        for path in [path for path in self._files if path.startswith(directory + '/')]:
            self._drop(path)

    def _drop(self, path: str) -> None:
        file = self._files.pop(path)
        file.is_kept = False
        self._size_bytes -= len(file.data)


class OpenLitter:
    """An open file that is kept here. See OpenFile."""

    def __init__(self, inode: Inode, file: LitterFile, litter: Litter, flags: int) -> None:
        self.inode = inode
        self._file = file
        self._litter = litter
        self.is_read_only = flags & os.O_ACCMODE == os.O_RDONLY
        litter.count_open(file, 1)

    def read(self, offset: int, size_bytes: int) -> bytes:
        return self._litter.read(self._file, offset, size_bytes)

    def write(self, offset: int, data: memoryview | bytes) -> int:
        return self._litter.write(self._file, offset, data)

    def allocate(self, offset: int, size_bytes: int, mode: int) -> None:
        refuse(errno.EOPNOTSUPP)

    def seek(self, offset: int, whence: int) -> int:
        return seek_in_data(offset, whence, len(self._file.data))

    def copy_from(self, source: OpenFile, source_offset: int, offset: int, size_bytes: int) -> int:
        refuse(errno.EOPNOTSUPP)

    def flush(self) -> None:
        """Nothing is anywhere else."""

    def fsync(self, *, data_only: bool) -> None:
        """Nor is anything to last."""

    def release(self) -> None:
        self._litter.count_open(self._file, -1)

    def fileno(self) -> None:
        return None

    @property
    def content(self) -> None:
        """All who have it open see the same."""

    @property
    def stamp(self) -> None:
        """It may change at any time."""

    def open_backing(self) -> None:
        """It is no file of any disk."""


def _file_of(inode: Inode) -> LitterFile:
    assert isinstance(inode.key, LitterFile)  # noqa: S101 - no other inode belongs to such a tree
    return inode.key


def _attributes(file: LitterFile) -> ops.Attributes:
    return ops.Attributes(
        ino=file.ino,
        mode=stat.S_IFREG | file.mode,
        size_bytes=len(file.data),
        blocks=attrs.blocks_of(len(file.data)),
        atime_ns=file.mtime_ns,
        mtime_ns=file.mtime_ns,
        ctime_ns=file.mtime_ns,
        nlink=int(file.is_kept),
        uid=file.uid,
        gid=file.gid,
    )
