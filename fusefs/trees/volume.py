"""A volume as a subtree: operations on inodes become calls with paths.

Owns that all open files of one inode show the same content: the kernel's page cache and its idea of the size belong to
the inode, so a name that leads to another version, or is opened to write while a version is being read, gets a new
inode. What stat(2) shows of them is VolumeAttributes'. Threads: as the volume.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from fusefs import ops
from fusefs.handles import Item, OpenDirectory, OpenFile
from fusefs.inodes import Inode, InodeTable
from fusefs.trees.base import Tree, refuse
from fusefs.trees.inode_numbers import InodeNumbers
from fusefs.trees.kept import keep_modes, kept_of
from fusefs.trees.litter import Litter
from fusefs.trees.local_file import has_direct_io
from fusefs.trees.volume_attributes import VolumeAttributes
from fusefs.trees.volume_file import VolumeFile, shows_another
from fusefs.trees.volume_xattrs import VolumeXattrs
from genro_storage import paths
from genro_storage.config import Permissions
from genro_storage.entry import Entry, Kind
from genro_storage.errors import StorageNotFoundError, StorageReadOnlyError, StorageUnavailableError
from genro_storage.volume import Volume
from genro_storage.writing.writer import Writer

#: What statfs says of a backend that knows no bounds: 1 PiB, all free, so that programs which check go on.
UNBOUNDED_BYTES = 1 << 50
STATFS_BLOCK_BYTES = 4096

RENAME_NOREPLACE = 1  # linux/fs.h


class VolumeTree(Tree):
    """One volume, shown as a directory."""

    def __init__(self, volume: Volume, inodes: InodeTable, started_ns: int) -> None:
        self.workers = volume.workers
        self.instant = volume.backend.capabilities.instant
        self._volume = volume
        self._inodes = inodes
        self._numbers = InodeNumbers(volume.name)
        self._attributes = VolumeAttributes(volume, inodes, self._numbers, started_ns)
        self._cache_has_direct_io: bool | None = None  # nobody has asked yet
        self._litter = Litter(volume, inodes)
        self._xattrs = VolumeXattrs(volume)

    # Looking

    def lookup(self, parent: Inode, name: str) -> ops.EntryReply:
        if self._litter.is_noise(name):
            return self._litter.find(parent, self._litter_path(parent, name))
        if self._litter.is_probe(name):
            self._litter.expect(self._path(parent))
        known = self._volume.find(self._path_below(parent, name), timed=False)
        if known.entry is None:
            return ops.EntryReply(0, None, known.remaining_s, 0.0)
        reply = self._enter(parent, name, known.entry, known.remaining_s)
        if not known.timed:
            reply.attributes_ttl_s = 0.0  # who looks at them is told then; who opens or removes need not wait for that
        return reply

    def forgotten(self, inode: Inode) -> None:
        self._attributes.forgotten(inode)

    def attributes(self, inode: Inode, file: OpenFile | None) -> ops.AttributesReply:
        return self._attributes.of(inode)

    def admit(self, pid: int) -> None:
        self._litter.admit(pid)

    def open_directory(self, inode: Inode) -> OpenDirectory:
        dentry = self._inodes.dentry(inode)
        parent = dentry.parent if dentry is not None and dentry.parent.tree is self else inode
        return OpenDirectory(
            self._attributes.number(inode), self._attributes.number(parent), lambda: self._items(inode)
        )

    def sync_directory(self, inode: Inode) -> None:
        # Who syncs a directory wants all that is in it on the backend; to wait for names alone would help nobody here.
        self._volume.sync(self._path(inode))

    def get_xattr(self, inode: Inode, name: str) -> bytes:
        return self._xattrs.get(self._path(inode), name)

    def list_xattrs(self, inode: Inode) -> bytes:
        return self._xattrs.names(self._path(inode))

    def set_xattr(self, inode: Inode, request: ops.Setxattr) -> None:
        self._xattrs.set(self._path(inode), request)

    def remove_xattr(self, inode: Inode, name: str) -> None:
        self._xattrs.remove(self._path(inode), name)

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
        return self._attributes.set(inode, request, lambda size_bytes: self._truncate(inode, file, size_bytes))

    def make_directory(self, parent: Inode, request: ops.Mkdir) -> ops.EntryReply:
        attributes = self._attributes.of_new(parent, request, stat.S_IFDIR | stat.S_IMODE(request.mode))
        self._volume.make_directory(self._path_below(parent, request.name), attributes)
        reply = self.lookup(parent, request.name)
        if attributes is not None:
            keep_modes(self._inodes.get(reply.nodeid), attributes)
        self._attributes.entries_changed(parent)
        return reply

    def symlink(self, parent: Inode, request: ops.Symlink) -> ops.EntryReply:
        return self._make_file(parent, request, request.name, stat.S_IFLNK | 0o777, paths.encode(request.target))

    def make_node(self, parent: Inode, request: ops.Mknod) -> ops.EntryReply:
        rdev = request.rdev if stat.S_IFMT(request.mode) in {stat.S_IFCHR, stat.S_IFBLK} else None
        return self._make_file(parent, request, request.name, request.mode, b'', rdev)

    def read_link(self, inode: Inode) -> bytes:
        if not self._volume.keeps_attributes:
            refuse(errno.EINVAL)
        return self._volume.read_link(self._path_of_file(inode))

    def unlink(self, parent: Inode, name: str) -> None:
        if self._litter.is_noise(name):
            self._litter.unlink_at(parent, self._litter_path(parent, name))
            return
        path = self._path_below(parent, name)
        removed = self._attributes.before_removal(self._inodes.child(parent, name), path)
        self._volume.remove_file(path)
        self._removed(parent, name, path, removed)

    def remove_directory(self, parent: Inode, name: str) -> None:
        path = self._path_below(parent, name)
        removed = self._attributes.before_removal(self._inodes.child(parent, name), path)
        self._litter.remove_around(path)
        self._removed(parent, name, path, removed or Entry(name, Kind.DIRECTORY))

    def rename(self, parent: Inode, name: str, new_parent: Inode, new_name: str, flags: int) -> None:
        if self._litter.is_noise(name) or self._litter.is_noise(new_name):
            self._litter.move(self._litter_path(parent, name), self._litter_path(new_parent, new_name), flags)
            self._inodes.rename(parent, name, new_parent, new_name)
            return
        source, target = self._path_below(parent, name), self._path_below(new_parent, new_name)
        if flags & ~RENAME_NOREPLACE:
            refuse(errno.EINVAL)
        if flags & RENAME_NOREPLACE and self._volume.find(target).entry is not None:
            refuse(errno.EEXIST)
        replaced = self._inodes.child(new_parent, new_name)
        removed = self._attributes.before_removal(replaced, target)
        self._volume.rename(source, target)
        self._litter.follow(source, target)
        if source == target:
            return
        self._attributes.removed(replaced, target, removed)
        self._attributes.moved(self._inodes.child(parent, name), source, target)
        self._inodes.rename(parent, name, new_parent, new_name)
        self._attributes.entries_changed(parent)
        self._attributes.entries_changed(new_parent)

    def open(self, inode: Inode, request: ops.Open) -> OpenFile:
        path = self._path_of_file(inode)
        # Linux truncates with O_RDONLY too (open(2), NOTES), and has believed so since this was sent.
        if request.flags & os.O_ACCMODE == os.O_RDONLY and not request.flags & os.O_TRUNC:
            self._litter.admit(request.pid)
            return self._open_to_read(inode, path)
        _refuse_beside_readers(inode)
        if request.flags & os.O_TRUNC and request.uid:
            self._attributes.lose_set_id(inode, request)
        writer = self._volume.open_write(
            path,
            create=False,
            truncate=bool(request.flags & os.O_TRUNC),
            append=bool(request.flags & os.O_APPEND),
        )
        self._show_readers(inode, path)
        return self._written(inode, writer, path)

    def create(self, parent: Inode, request: ops.Create) -> tuple[ops.EntryReply, OpenFile]:
        if self._litter.is_noise(request.name):
            return self._litter.create_at(parent, self._litter_path(parent, request.name), request)
        path = self._path_below(parent, request.name)
        writer = self._volume.open_write(
            path,
            create=True,
            exclusive=bool(request.flags & os.O_EXCL),
            truncate=bool(request.flags & os.O_TRUNC),
            append=bool(request.flags & os.O_APPEND),
            attributes=self._attributes.of_new(parent, request, stat.S_IFREG | stat.S_IMODE(request.mode)),
        )
        try:
            entry = self.lookup(parent, request.name)
            inode = self._inodes.get(entry.nodeid)
        except BaseException:
            writer.abort()
            raise
        self._attributes.entries_changed(parent)
        return entry, self._written(inode, writer, path)

    def lose_set_id(self, file: OpenFile, request: ops.Request) -> None:
        self._attributes.lose_set_id(file.inode, request)

    def supersede(self, inode: Inode) -> None:
        inode.state = msgspec.structs.replace(kept_of(inode), superseded=True)

    # Inside

    def _make_file(
        self, parent: Inode, request: ops.Request, name: str, mode: int, content: bytes, rdev: int | None = None
    ) -> ops.EntryReply:
        """Make a file of any type in one step, on the backend at once."""
        attributes = self._attributes.of_new(parent, request, mode, rdev)
        if attributes is None and not stat.S_ISREG(mode):
            refuse(errno.EPERM)  # symlink(2), mknod(2): the file system does not support them
        writer = self._volume.replace(self._path_below(parent, name), exclusive=True, attributes=attributes)
        try:
            writer.write(0, content)
            writer.close()
        except BaseException:
            writer.abort()
            raise
        self._attributes.entries_changed(parent)
        return self.lookup(parent, name)

    def _written(self, inode: Inode, writer: Writer, path: str) -> VolumeFile:
        return VolumeFile(inode, writer, self._numbers.seed_of(path), None, self._volume.clock)

    def _removed(self, parent: Inode, name: str, path: str, entry: Entry | None) -> None:
        self._attributes.removed(self._inodes.child(parent, name), path, entry)
        self._inodes.remove(parent, name)
        self._attributes.entries_changed(parent)

    def _open_to_read(self, inode: Inode, path: str) -> VolumeFile:
        entry, reader = self._volume.open_told(path)
        if shows_another(inode, entry):
            reader.close()
            _supersede(inode)
        # Without a TTL nothing is known for longer than a moment.
        is_certain = self.instant or self._volume.definition.ttl_s > 0
        if is_certain and not self.instant and inode.told_bytes not in {None, entry.size_bytes}:
            # The kernel believes another length and would cut the file off there: it looks again.
            reader.close()
            refuse(errno.ESTALE)
        return VolumeFile(
            inode,
            reader,
            self._numbers.seed_of(path),
            entry,
            self._volume.clock,
            lambda: self._open_complete(path, entry),
            is_certain=is_certain,
        )

    def _show_readers(self, inode: Inode, path: str) -> None:
        """Show those who have an empty version open what is written: of no bytes there is no mixture."""
        for file in list(inode.files):
            if isinstance(file, VolumeFile) and file.version is not None:
                file.show(self._volume.open_read(path))

    def _open_complete(self, path: str, entry: Entry) -> int | None:
        """The cached file of a version, for the kernel to read instead of asking here."""
        descriptor = self._volume.complete_file(path, entry) if entry.size_bytes else None
        if descriptor is not None and self._cache_has_direct_io is None:
            self._cache_has_direct_io = has_direct_io(descriptor)
        if descriptor is not None and not self._cache_has_direct_io:
            # It would be needed where a program opens with O_DIRECT, which works with all other remote files.
            os.close(descriptor)
            return None
        return descriptor

    def _path(self, inode: Inode) -> str:
        names = self._inodes.names(inode)
        if names is None:
            refuse(errno.ENOENT)
        return '/'.join(names)

    def _path_of_file(self, inode: Inode) -> str:
        names = self._inodes.names(inode)
        if names is None:
            refuse(errno.ESTALE)  # another inode has come to its name since the kernel looked it up: it looks again
        return '/'.join(names)

    def _path_below(self, parent: Inode, name: str) -> str:
        if self._litter.is_noise(name):
            refuse(errno.EACCES)  # what can be done with it was done before
        return paths.child(self._path(parent), paths.join(name))

    def _litter_path(self, parent: Inode, name: str) -> str:
        return paths.child(self._path(parent), paths.join(name))

    def _enter(self, parent: Inode, name: str, entry: Entry, remaining_s: float) -> ops.EntryReply:
        # By the parent: another lookup may give the name to another inode at any time, and this one is counted then.
        path = self._path_below(parent, name)
        held = self._inodes.child(parent, name)
        if held is not None and not kept_of(held).superseded and not shows_another(held, entry):
            held = None
        inode = self._inodes.enter(parent, name, self, None, instead_of=held)
        attributes = self._attributes.of_entry(inode, self._numbers.of(path), entry)
        return ops.EntryReply(inode.nodeid, attributes, remaining_s, remaining_s)

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
        entries = [entry for entry in entries if not self._litter.is_noise(entry.name)]
        by_name = {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}

        def enter(name: str) -> ops.EntryReply | None:
            # Not as it was listed: it may have gone since, or be another one, and the kernel would believe it again.
            known = self._volume.recall(paths.child(path, name))
            if known is None:
                return self._enter(inode, name, by_name[name], remaining_s)
            if known.entry is None:
                return None
            reply = self._enter(inode, name, known.entry, known.remaining_s)
            if not known.timed:
                reply.attributes_ttl_s = 0.0
            return reply

        return [
            Item(
                name,
                self._numbers.of(paths.child(path, name)),
                _type_of(entry),
                enter,
            )
            for name, entry in by_name.items()
        ] + self._litter.items(inode, path)

    def _truncate(self, inode: Inode, file: OpenFile | None, size_bytes: int) -> None:
        if isinstance(file, VolumeFile) and file.is_writer:
            file.truncate(size_bytes)
            return
        inode.pages = None
        _refuse_beside_readers(inode)
        path = self._path_of_file(inode)
        writer = self._volume.open_write(path, create=False, truncate=size_bytes == 0)
        try:
            self._show_readers(inode, path)
            if size_bytes:
                writer.truncate(size_bytes)
            writer.close()
        except BaseException:
            writer.abort()
            raise


def _type_of(entry: Entry) -> int:
    if entry.kind is Kind.OTHER and entry.attributes is not None:
        return stat.S_IFMT(entry.attributes.mode or 0)
    return stat.S_IFDIR if entry.is_directory else stat.S_IFREG


def _refuse_beside_readers(inode: Inode) -> None:
    """What is about to change must not be the inode of those who read a version of it, unless that has no bytes."""
    files = [file for file in list(inode.files) if isinstance(file, VolumeFile)]
    if any(file.version is not None and file.entry.size_bytes for file in files):
        _supersede(inode)


def _supersede(inode: Inode) -> NoReturn:
    """Have the kernel look up the name again, which ESTALE makes it do, and find a new inode there."""
    inode.state = msgspec.structs.replace(kept_of(inode), superseded=True)
    refuse(errno.ESTALE)
