"""A volume as a subtree: operations on inodes become calls with paths.

Owns what a remote backend cannot hold and harmless programs want: modes, owners and times that are set here are kept
for the life of the inode. Owns too that all open files of one inode show the same content: the kernel's page cache and
its idea of the size belong to the inode, so a name that leads to another version, or is opened to write while a version
is being read, gets a new inode. Threads: as the volume; what is kept with an inode is replaced as a whole.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from fusefs import attrs, ops
from fusefs.handles import Item, OpenDirectory, OpenFile
from fusefs.inodes import Inode, InodeTable
from fusefs.trees.base import Tree, refuse
from genro_storage import paths
from genro_storage.cache.entries import Known
from genro_storage.config import Permissions
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import StorageNotFoundError, StorageReadOnlyError, StorageUnavailableError
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock, about_to_block
from genro_storage.volume import Volume
from genro_storage.writing.writer import StagedReader, Writer

#: What statfs says of a backend that knows no bounds: 1 PiB, all free, so that programs which check go on.
UNBOUNDED_BYTES = 1 << 50
STATFS_BLOCK_BYTES = 4096
#: Copying so much into a memory mount takes 5 ms; a thread that reads /dev/fuse is away no longer than that.
SOON_COMMITTED_BYTES = 16 << 20

RENAME_NOREPLACE = 1  # linux/fs.h


class Kept(msgspec.Struct, frozen=True):
    """Attributes that were set on an inode and that the backend cannot hold; None where it was not set."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    #: The version that mtime_ns belongs to; None while it is under change.
    version: Version | None = None
    #: The next lookup of the name is to find a new inode.
    superseded: bool = False


class VolumeFile:
    """An open file over a reader or a writer."""

    def __init__(self, inode: Inode, handle: Reader | Writer, ino: int, entry: Entry | None, clock: Clock) -> None:
        self.inode = inode
        self.ino = ino
        self._handle = handle
        self._clock = clock
        #: What a reader shows; None of a file under change, which all who have it open share.
        self.version = None if isinstance(handle, Writer | StagedReader) or entry is None else entry.version
        self._mtime_ns = clock.time_ns() if entry is None else entry.mtime_ns

    def read(self, offset: int, size_bytes: int) -> bytes | memoryview:
        return self._handle.read(offset, size_bytes)

    def write(self, offset: int, data: memoryview | bytes, *, kill_suidgid: bool) -> int:
        self._changes()
        return self._writer().write(offset, data)

    def truncate(self, size_bytes: int) -> None:
        """Cut off, or lengthen with zeros."""
        self._changes()
        self._writer().truncate(size_bytes)

    def flush(self) -> None:
        if not isinstance(self._handle, Writer):
            return
        if self._handle.size_bytes > SOON_COMMITTED_BYTES:
            about_to_block()
        self._handle.flush()

    def fsync(self, *, data_only: bool) -> None:
        # sync(1) opens a file to read, and what it is asked about are the bytes of whoever writes it.
        for file in [self, *self.inode.files]:
            if isinstance(file, VolumeFile) and file.is_writer:
                file.flush()
                return

    def release(self) -> None:
        self._handle.close()

    def fileno(self) -> None:
        return None

    @property
    def entry(self) -> Entry:
        """The file as this handle sees it, whatever its name leads to by now."""
        return Entry('', Kind.FILE, self._handle.size_bytes, self._mtime_ns, self.version)

    @property
    def is_writer(self) -> bool:
        """Whether it was opened to write."""
        return isinstance(self._handle, Writer)

    def _changes(self) -> None:
        _forget_mtime(self.inode)
        self._mtime_ns = self._clock.time_ns()

    def _writer(self) -> Writer:
        if not isinstance(self._handle, Writer):
            refuse(errno.EBADF)
        return self._handle


class VolumeTree(Tree):
    """One volume, shown as a directory."""

    def __init__(self, volume: Volume, inodes: InodeTable, started_ns: int) -> None:
        self.workers = volume.workers
        self.instant = volume.backend.capabilities.instant
        self._volume = volume
        self._inodes = inodes
        self._owner = attrs.Ownership.of(volume.definition)
        self._started_ns = started_ns
        self._root = Entry('', Kind.DIRECTORY)

    # Looking

    def lookup(self, parent: Inode, name: str) -> ops.EntryReply:
        known = self._volume.find(self._path_below(parent, name))
        if known.entry is None:
            return ops.EntryReply(0, None, known.remaining_s, 0.0)
        return self._enter(parent, name, known.entry, known.remaining_s)

    def attributes(self, inode: Inode, file: OpenFile | None) -> ops.AttributesReply:
        names = self._inodes.names(inode)
        path = '/'.join(names or ())
        if not path and names is not None:
            # The mount's own directory is there whatever the backend says: asking would make ls wait for it.
            return ops.AttributesReply(self._attributes(inode, path, self._root), 0.0)
        known = self._volume.find(path) if names is not None else Known(None, 0.0)
        if known.entry is None or _shows_another(inode, known.entry):
            return ops.AttributesReply(self._attributes_of_open(inode, path), 0.0)
        return ops.AttributesReply(self._attributes(inode, path, known.entry), known.remaining_s)

    def open_directory(self, inode: Inode) -> OpenDirectory:
        path = self._path(inode)
        parent_ino = self._ino(paths.parent(path))
        own_ino = self._ino(path)
        return OpenDirectory(own_ino, parent_ino, lambda: self._items(inode))

    def statfs(self, inode: Inode) -> ops.StatfsReply:
        usage = self._volume.usage()
        if usage is None:
            blocks = UNBOUNDED_BYTES // STATFS_BLOCK_BYTES
            return ops.StatfsReply(blocks, blocks, blocks, 0, 0)
        return ops.StatfsReply(
            usage.total_bytes // STATFS_BLOCK_BYTES,
            usage.free_bytes // STATFS_BLOCK_BYTES,
            usage.available_bytes // STATFS_BLOCK_BYTES,
            0,
            0,
        )

    def access(self, inode: Inode, request: ops.Access) -> None:
        mode = self.attributes(inode, None).attributes.mode
        if request.mask & os.W_OK and self._volume.definition.permissions is Permissions.READONLY:
            refuse(errno.EROFS)
        if request.mask & os.X_OK and not mode & 0o111:
            refuse(errno.EACCES)

    # Changing

    def set_attributes(self, inode: Inode, file: OpenFile | None, request: ops.Setattr) -> ops.AttributesReply:
        if self._volume.definition.permissions is Permissions.READONLY:
            raise StorageReadOnlyError(f'{self._volume.name} is readonly')
        if request.size_bytes is not None:
            self._truncate(inode, file, request.size_bytes)
            _forget_mtime(inode)
        if request.mtime_ns is not None:
            self._set_mtime(inode, request.mtime_ns)
        kept = _kept(inode)
        inode.state = msgspec.structs.replace(
            kept,
            mode=kept.mode if request.mode is None else stat.S_IMODE(request.mode),
            uid=kept.uid if request.new_uid is None else request.new_uid,
            gid=kept.gid if request.new_gid is None else request.new_gid,
        )
        return self.attributes(inode, file)

    def make_directory(self, parent: Inode, request: ops.Mkdir) -> ops.EntryReply:
        self._volume.make_directory(self._path_below(parent, request.name))
        return self.lookup(parent, request.name)

    def unlink(self, parent: Inode, name: str) -> None:
        self._volume.remove_file(self._path_below(parent, name))
        self._inodes.remove(parent, name)

    def remove_directory(self, parent: Inode, name: str) -> None:
        self._volume.remove_directory(self._path_below(parent, name))
        self._inodes.remove(parent, name)

    def rename(self, parent: Inode, name: str, new_parent: Inode, new_name: str, flags: int) -> None:
        source, target = self._path_below(parent, name), self._path_below(new_parent, new_name)
        if flags & ~RENAME_NOREPLACE:
            refuse(errno.EINVAL)
        if flags & RENAME_NOREPLACE and self._volume.find(target).entry is not None:
            refuse(errno.EEXIST)
        self._volume.rename(source, target)
        self._inodes.rename(parent, name, new_parent, new_name)

    def open(self, inode: Inode, request: ops.Open) -> OpenFile:
        path = self._path(inode)
        # Linux truncates with O_RDONLY too (open(2), NOTES), and has believed so since this was sent.
        if request.flags & os.O_ACCMODE == os.O_RDONLY and not request.flags & os.O_TRUNC:
            entry = self._volume.stat(path)
            if _shows_another(inode, entry):
                _supersede(inode)
            return VolumeFile(inode, self._volume.open_read(path), self._ino(path), entry, self._volume.clock)
        _refuse_beside_readers(inode)
        writer = self._volume.open_write(
            path,
            create=False,
            truncate=bool(request.flags & os.O_TRUNC),
            append=bool(request.flags & os.O_APPEND),
        )
        return VolumeFile(inode, writer, self._ino(path), None, self._volume.clock)

    def create(self, parent: Inode, request: ops.Create) -> tuple[ops.EntryReply, OpenFile]:
        path = self._path_below(parent, request.name)
        writer = self._volume.open_write(
            path,
            create=True,
            exclusive=bool(request.flags & os.O_EXCL),
            truncate=bool(request.flags & os.O_TRUNC),
            append=bool(request.flags & os.O_APPEND),
        )
        try:
            entry = self.lookup(parent, request.name)
            inode = self._inodes.get(entry.nodeid)
        except BaseException:
            writer.abort()
            raise
        return entry, VolumeFile(inode, writer, self._ino(path), None, self._volume.clock)

    # Inside

    def _ino(self, path: str) -> int:
        return attrs.stable_ino(self._volume.name, path)

    def _path(self, inode: Inode) -> str:
        names = self._inodes.names(inode)
        if names is None:
            refuse(errno.ENOENT)
        return '/'.join(names)

    def _path_below(self, parent: Inode, name: str) -> str:
        return paths.child(self._path(parent), paths.join(name))

    def _enter(self, parent: Inode, name: str, entry: Entry, remaining_s: float) -> ops.EntryReply:
        held = self._inodes.child(parent, name)
        if held is not None and not _kept(held).superseded and not _shows_another(held, entry):
            held = None
        inode = self._inodes.enter(parent, name, self, None, instead_of=held)
        path = self._path(inode)
        return ops.EntryReply(inode.nodeid, self._attributes(inode, path, entry), remaining_s, remaining_s)

    def _items(self, inode: Inode) -> Sequence[Item]:
        path = self._path(inode)
        try:
            entries, remaining_s = self._volume.list_directory(path)
        except StorageNotFoundError as error:
            if path:
                raise
            # ENOENT from getdents(2) is the end of a directory that was removed, to the C library: what has no bucket
            # would look empty, and a mirror of it be emptied.
            raise StorageUnavailableError(f'{self._volume.name}: cannot be listed: {error}') from error
        by_name = {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}

        def enter(name: str) -> ops.EntryReply:
            return self._enter(inode, name, by_name[name], remaining_s)

        return [
            Item(
                name,
                self._ino(paths.child(path, name)),
                stat.S_IFDIR if entry.is_directory else stat.S_IFREG,
                enter,
            )
            for name, entry in by_name.items()
        ]

    def _attributes(self, inode: Inode, path: str, entry: Entry) -> ops.Attributes:
        attributes = attrs.of_entry(entry, self._ino(path), self._owner, self._started_ns)
        if inode.state is not None:
            self._apply_kept(inode, entry, attributes)
        return attributes

    def _attributes_of_open(self, inode: Inode, path: str) -> ops.Attributes:
        """A file that has lost its name, or whose name leads to another by now, is what those see who have it open."""
        for file in list(inode.files):
            if isinstance(file, VolumeFile):
                attributes = attrs.of_entry(file.entry, file.ino, self._owner, self._started_ns)
                attributes.nlink = 0
                self._apply_kept(inode, file.entry, attributes)
                return attributes
        raise StorageNotFoundError(f'{self._volume.name}:{path} has gone')

    def _apply_kept(self, inode: Inode, entry: Entry, attributes: ops.Attributes) -> None:
        kept = _kept(inode)
        if kept.mtime_ns is not None and entry.version is not None and kept.version != entry.version:
            # Set while the file was under change: it belongs to what that became. Otherwise somebody else changed it.
            first = kept.version is None
            kept = msgspec.structs.replace(
                kept, version=entry.version if first else None, mtime_ns=kept.mtime_ns if first else None
            )
            inode.state = kept
        if kept.mode is not None:
            attributes.mode = stat.S_IFMT(attributes.mode) | kept.mode
        attributes.uid = attributes.uid if kept.uid is None else kept.uid
        attributes.gid = attributes.gid if kept.gid is None else kept.gid
        attributes.mtime_ns = attributes.mtime_ns if kept.mtime_ns is None else kept.mtime_ns

    def _truncate(self, inode: Inode, file: OpenFile | None, size_bytes: int) -> None:
        if isinstance(file, VolumeFile) and file.is_writer:
            file.truncate(size_bytes)
            return
        _refuse_beside_readers(inode)
        writer = self._volume.open_write(self._path(inode), create=False, truncate=size_bytes == 0)
        try:
            if size_bytes:
                writer.truncate(size_bytes)
            writer.close()
        except BaseException:
            writer.abort()
            raise

    def _set_mtime(self, inode: Inode, mtime_ns: int) -> None:
        mtime_ns = self._volume.clock.time_ns() if mtime_ns == ops.NOW else mtime_ns
        names = self._inodes.names(inode)
        path = '/'.join(names or ())
        if names is None or not self._volume.set_mtime(path, mtime_ns):
            entry = self._volume.find(path).entry if path else None
            version = entry.version if entry is not None else None
            inode.state = msgspec.structs.replace(_kept(inode), mtime_ns=mtime_ns, version=version)


def _kept(inode: Inode) -> Kept:
    return inode.state if isinstance(inode.state, Kept) else Kept()


def _forget_mtime(inode: Inode) -> None:
    """New content has a new time."""
    if inode.state is not None:
        inode.state = msgspec.structs.replace(_kept(inode), mtime_ns=None, version=None)


def _shows_another(inode: Inode, entry: Entry) -> bool:
    """Whether somebody has the inode open and reads another version than this."""
    return any(
        isinstance(file, VolumeFile) and file.version is not None and file.version != entry.version
        for file in list(inode.files)
    )


def _refuse_beside_readers(inode: Inode) -> None:
    """What is about to change must not be the inode of those who read a version of it."""
    if any(isinstance(file, VolumeFile) and file.version is not None for file in list(inode.files)):
        _supersede(inode)


def _supersede(inode: Inode) -> NoReturn:
    """Have the kernel look up the name again, which ESTALE makes it do, and find a new inode there."""
    inode.state = msgspec.structs.replace(_kept(inode), superseded=True)
    refuse(errno.ESTALE)
