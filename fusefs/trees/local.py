"""A local folder as a subtree: real descriptors, by inode, never by a path that could lead elsewhere.

Owns identity (device, inode, birth), the veil over mountpoints of ours, and the translation of operations to system
calls relative to descriptors. No symbolic link is ever followed here: the kernel does that. Threads: safe.
"""

import errno
import logging
import os
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from fusefs import ops
from fusefs.handles import Item, OpenDirectory, OpenFile
from fusefs.inodes import Inode, InodeTable
from fusefs.trees.base import Tree, refuse
from fusefs.trees.boundaries import is_network, is_ours, mount_of_device
from fusefs.trees.caller import as_caller
from fusefs.trees.descriptors import Descriptors
from fusefs.trees.local_file import LocalFile, has_direct_io, lose_set_id
from fusefs.trees.local_syscalls import RENAME_EXCHANGE, rename, set_times
from fusefs.trees.statx import Identity, Status, statx
from fusefs.trees.synthetic import EmptyTree
from genro_storage import paths
from genro_storage.config import Permissions
from genro_storage.runtime import about_to_block
from genro_storage.volume import Volume

log = logging.getLogger(__name__)

# Not for files opened on behalf of others: the alignment of O_DIRECT is the caller's buffer's, not ours.
_NOT_OURS = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_DIRECT
# __FMODE_EXEC of linux/fs.h: of execve(2); of no flags of open(2), where a kernel takes it off.
_EXECUTED = 0x20
# Under which nothing can be looked up: how a file is entered that has no name.
_NAMELESS = '/'


class LocalTree(Tree):
    """One local folder, shown as a directory."""

    writes_in_place = True

    def __init__(self, volume: Volume, root: str, inodes: InodeTable, descriptors_limit: int, started_ns: int) -> None:
        self.workers = volume.workers
        self._volume = volume
        self._root = root
        self._inodes = inodes
        self._ttl_s = volume.definition.ttl_s
        self.clock = volume.clock
        self._descriptors = Descriptors(inodes, descriptors_limit, self._open_root, self.await_network)
        self._veil = EmptyTree(started_ns)
        self._root_device = (0, 0)
        self._network: set[tuple[int, int]] = set()  # devices whose cached attributes may be old
        self._direct_io: dict[tuple[int, int], bool] = {}  # by device

    def prepare(self, root: Inode) -> None:
        try:
            with self._descriptors.borrow(root):
                pass
        except OSError as error:
            log.warning(
                'mount %r: %s: %s; the mount stays empty until it is there',
                self._volume.name,
                self._root,
                error.strerror,
            )

    def close(self) -> None:
        """Close all descriptors but those of open files."""
        self._descriptors.close()

    # Looking

    def lookup(self, parent: Inode, name: str) -> ops.EntryReply:
        with self._descriptors.borrow(parent) as directory:
            try:
                status = self._status(parent, directory, name)
            except FileNotFoundError:
                return ops.EntryReply(0, None, self._ttl_s, 0.0)
        return self._enter(parent, name, status)

    def forgotten(self, inode: Inode) -> None:
        self._descriptors.release(inode)

    def attributes(self, inode: Inode, file: OpenFile | None) -> ops.AttributesReply:
        return ops.AttributesReply(_attributes(self._find(inode, file)), self._attributes_ttl_s(inode))

    def read_link(self, inode: Inode) -> bytes:
        with self._descriptors.borrow(inode) as descriptor:
            return os.fsencode(os.readlink('', dir_fd=descriptor))

    def open_directory(self, inode: Inode) -> OpenDirectory:
        with self._descriptors.borrow(inode) as descriptor:
            directory = os.open('.', os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
        own_ino = _ino(statx(directory).identity)
        dentry = self._inodes.dentry(inode)
        parent_ino = ops.ROOT_NODEID
        if dentry is not None and isinstance(dentry.parent.key, Identity):
            parent_ino = _ino(dentry.parent.key)
        return OpenDirectory(own_ino, parent_ino, lambda: self._items(inode, directory), lambda: os.close(directory))

    def statfs(self, inode: Inode) -> ops.StatfsReply:
        with self._descriptors.borrow(inode) as descriptor:
            room = os.fstatvfs(descriptor)
        return ops.StatfsReply(
            room.f_blocks, room.f_bfree, room.f_bavail, room.f_files, room.f_ffree, room.f_frsize, room.f_namemax
        )

    def access(self, inode: Inode, request: ops.Access) -> None:
        if request.mask & os.W_OK and self._volume.definition.permissions is Permissions.READONLY:
            refuse(errno.EROFS)
        with self._descriptors.borrow(inode) as descriptor:
            if request.uid == os.geteuid() and not os.access(_path(descriptor), request.mask, effective_ids=True):
                refuse(errno.EACCES)

    # Changing

    def set_attributes(self, inode: Inode, file: OpenFile | None, request: ops.Setattr) -> ops.AttributesReply:
        self._volume.require(Permissions.READWRITE)
        with self._descriptors.borrow(inode) as descriptor, as_caller(request):
            path = _path(descriptor)
            if request.size_bytes is not None:
                if isinstance(file, LocalFile):
                    file.truncate(request.size_bytes)
                else:
                    os.truncate(path, request.size_bytes)
            # The disk takes set-id bits away with these, as with the truncation above: it sees who asks.
            if request.names_nothing:
                with suppress(PermissionError):  # before a write by another than the owner, which takes them away
                    os.chown(path, -1, -1)
            if request.new_uid is not None or request.new_gid is not None:
                os.chown(path, _or_none(request.new_uid), _or_none(request.new_gid))
            if request.mode is not None:
                os.chmod(path, stat.S_IMODE(request.mode))
            elif request.kill_suidgid and request.size_bytes is not None:
                lose_set_id(path, request)
            if request.atime_ns is not None or request.mtime_ns is not None:
                set_times(path, request.atime_ns, request.mtime_ns)
        return self.attributes(inode, file)

    def make_directory(self, parent: Inode, request: ops.Mkdir) -> ops.EntryReply:
        self._volume.require(Permissions.READWRITE)
        with self._descriptors.borrow(parent) as directory, as_caller(request):
            os.mkdir(request.name, request.mode, dir_fd=directory)
        return self.lookup(parent, request.name)

    def symlink(self, parent: Inode, request: ops.Symlink) -> ops.EntryReply:
        self._volume.require(Permissions.READWRITE)
        with self._descriptors.borrow(parent) as directory, as_caller(request):
            os.symlink(request.target, request.name, dir_fd=directory)
        return self.lookup(parent, request.name)

    def make_node(self, parent: Inode, request: ops.Mknod) -> ops.EntryReply:
        self._volume.require(Permissions.READWRITE)
        with self._descriptors.borrow(parent) as directory, as_caller(request):
            os.mknod(request.name, request.mode, request.rdev, dir_fd=directory)
        return self.lookup(parent, request.name)

    def link(self, inode: Inode, parent: Inode, request: ops.Link) -> ops.EntryReply:
        self._volume.require(Permissions.READWRITE)
        with (
            self._descriptors.borrow(inode) as descriptor,
            self._descriptors.borrow(parent) as directory,
            as_caller(request),
        ):
            os.link(_path(descriptor), request.name, dst_dir_fd=directory, follow_symlinks=True)
        return self.lookup(parent, request.name)

    def unlink(self, parent: Inode, name: str) -> None:
        self._volume.require(Permissions.DELETE)
        with self._descriptors.borrow(parent) as directory:
            os.unlink(name, dir_fd=directory)
        self._inodes.remove(parent, name)

    def remove_directory(self, parent: Inode, name: str) -> None:
        self._volume.require(Permissions.DELETE)
        with self._descriptors.borrow(parent) as directory:
            os.rmdir(name, dir_fd=directory)
        self._inodes.remove(parent, name)

    def rename(self, parent: Inode, name: str, new_parent: Inode, new_name: str, flags: int) -> None:
        self._volume.require(Permissions.DELETE)
        with self._descriptors.borrow(parent) as source, self._descriptors.borrow(new_parent) as target:
            rename(source, name, target, new_name, flags)
        if flags & RENAME_EXCHANGE:
            self._inodes.exchange(parent, name, new_parent, new_name)
        else:
            self._inodes.rename(parent, name, new_parent, new_name)

    def open(self, inode: Inode, request: ops.Open) -> OpenFile:
        if request.flags & (os.O_ACCMODE | os.O_TRUNC):
            self._volume.require(Permissions.READWRITE)
        with self._descriptors.borrow(inode) as descriptor:
            if not os.fstat(descriptor).st_nlink and self._inodes.dentry(inode) is not None:
                # Removed or replaced behind the kernel's back: it looks again, and what is written is not lost.
                refuse(errno.ESTALE)
            # Who executes need not be allowed to read, and the kernel has seen to the one, which a disk cannot be told.
            with nullcontext() if request.flags & _EXECUTED else as_caller(request):
                opened = os.open(_path(descriptor), request.flags & ~_NOT_OURS | os.O_CLOEXEC)
        return LocalFile(inode, opened, request.flags, self)

    def create(self, parent: Inode, request: ops.Create) -> tuple[ops.EntryReply, OpenFile]:
        self._volume.require(Permissions.READWRITE)
        flags = request.flags & ~(_NOT_OURS & ~os.O_EXCL) | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._descriptors.borrow(parent) as directory:
            with as_caller(request):
                opened = os.open(request.name, flags, request.mode, dir_fd=directory)
            try:
                entry = self._enter(parent, request.name, statx(opened))
            except BaseException:
                os.close(opened)
                raise
        return entry, LocalFile(self._inodes.get(entry.nodeid), opened, request.flags, self)

    def create_nameless(self, parent: Inode, request: ops.Tmpfile) -> tuple[ops.EntryReply, OpenFile]:
        self._volume.require(Permissions.READWRITE)
        flags = request.flags & ~(_NOT_OURS & ~os.O_EXCL) | os.O_TMPFILE | os.O_CLOEXEC
        with self._descriptors.borrow(parent) as directory:
            with as_caller(request):
                opened = os.open('.', flags, request.mode, dir_fd=directory)
            try:
                entry = self._enter(parent, _NAMELESS, statx(opened))
            except BaseException:
                os.close(opened)
                raise
            self._inodes.remove(parent, _NAMELESS)
        return entry, LocalFile(self._inodes.get(entry.nodeid), opened, request.flags, self)

    def lose_set_id(self, file: OpenFile, request: ops.Request) -> None:
        if isinstance(file, LocalFile):
            lose_set_id(file.descriptor, request)

    def acting_for(self, request: ops.Request) -> AbstractContextManager[None]:
        return as_caller(request)

    def sync_directory(self, inode: Inode) -> None:
        about_to_block()
        with self._descriptors.borrow(inode) as descriptor:
            directory = os.open('.', os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    # Extended attributes

    def get_xattr(self, inode: Inode, name: str) -> bytes:
        _refuse_acl(name)
        with self._descriptors.borrow(inode) as descriptor:
            return os.getxattr(_path(descriptor), name)

    def list_xattrs(self, inode: Inode) -> bytes:
        with self._descriptors.borrow(inode) as descriptor:
            names = os.listxattr(_path(descriptor))
        return b''.join(os.fsencode(name) + b'\0' for name in names if not name.startswith(_ACL))

    def set_xattr(self, inode: Inode, request: ops.Setxattr) -> None:
        self._volume.require(Permissions.READWRITE)
        _refuse_acl(request.name)
        with self._descriptors.borrow(inode) as descriptor, as_caller(request):
            os.setxattr(_path(descriptor), request.name, request.value, request.flags)

    def remove_xattr(self, inode: Inode, name: str) -> None:
        self._volume.require(Permissions.READWRITE)
        _refuse_acl(name)
        with self._descriptors.borrow(inode) as descriptor:
            os.removexattr(_path(descriptor), name)

    # For open files

    def await_network(self) -> None:
        """Call before a system call on the folder: on a network file system it may wait for ever."""
        if self._network:
            about_to_block()

    def is_on_network(self, inode: Inode) -> bool:
        return self._device(inode) in self._network

    def has_direct_io(self, inode: Inode, descriptor: int) -> bool:
        device = self._device(inode)
        if device not in self._direct_io:
            self._direct_io[device] = has_direct_io(descriptor)
        return self._direct_io[device]

    # Inside

    def _attributes_ttl_s(self, inode: Inode) -> float:
        """None while somebody has the file open to write: a store through a mapping tells the kernel of no change."""
        return self._ttl_s if all(file.is_read_only for file in list(inode.files)) else 0.0

    def _open_root(self) -> int:
        """The folder itself. Never one that a mount of ours covers: that would be a way back into this process."""
        descriptor = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._root_device = statx(descriptor).identity.device
        mount = mount_of_device(self._root_device)
        if is_ours(mount):
            os.close(descriptor)
            refuse(errno.ENOENT)
        if is_network(mount):
            self._network.add(self._root_device)
        return descriptor

    def _device(self, inode: Inode) -> tuple[int, int]:
        return inode.key[0] if isinstance(inode.key, Identity) else self._root_device

    def _status(self, parent: Inode, directory: int, name: str) -> Status | None:
        """The status of a name, without asking anybody whether it is a mountpoint; None for one of ours."""
        raw = paths.encode(name)
        status = statx(directory, raw)
        if status.identity.device != self._device(parent):
            mount = mount_of_device(status.identity.device)
            if is_ours(mount):
                return None
            if is_network(mount):
                self._network.add(status.identity.device)
        return statx(directory, raw, cached=False) if status.identity.device in self._network else status

    def _find(self, inode: Inode, file: OpenFile | None) -> Status:
        """The status of an inode, by the cheapest way that is sure to be about the same file."""
        self.await_network()
        if isinstance(file, LocalFile):
            return statx(file.descriptor, cached=False)
        dentry = self._inodes.dentry(inode)
        if dentry is not None and dentry.parent.tree is self and not self._descriptors.holds(inode):
            try:
                with self._descriptors.borrow(dentry.parent) as directory:
                    status = self._status(dentry.parent, directory, dentry.name)
            except FileNotFoundError:
                status = None
            if status is not None and status.identity == inode.key:
                return status
        with self._descriptors.borrow(inode) as descriptor:
            return statx(descriptor, cached=False)

    def _enter(self, parent: Inode, name: str, status: Status | None) -> ops.EntryReply:
        if status is None:
            inode = self._inodes.enter(parent, name, self._veil, ('veil', parent.nodeid, name))
            return ops.EntryReply(inode.nodeid, self._veil.attributes(inode, None).attributes, 0.0, 0.0)
        inode = self._inodes.enter(parent, name, self, status.identity)
        return ops.EntryReply(inode.nodeid, _attributes(status), self._ttl_s, self._attributes_ttl_s(inode))

    def _items(self, inode: Inode, directory: int) -> Sequence[Item]:
        self.await_network()

        def enter(name: str) -> ops.EntryReply | None:
            try:
                return self._enter(inode, name, self._status(inode, directory, name))
            except FileNotFoundError:
                return None

        bits = _device_bits(self._device(inode))
        with os.scandir(directory) as entries:
            return [Item(entry.name, entry.inode() ^ bits, _type(entry), enter) for entry in entries]


_ACL = 'system.posix_acl_'


def _refuse_acl(name: str) -> None:
    """ACLs are not negotiated with the kernel, which would not check them: better none than one that does nothing."""
    if name.startswith(_ACL):
        refuse(errno.ENOTSUP)


def _path(descriptor: int) -> str:
    """A path that leads to what an O_PATH descriptor holds, and to nothing else (proc(5))."""
    return f'/proc/self/fd/{descriptor}'


def _or_none(number: int | None) -> int:
    return -1 if number is None else number


def _type(entry: os.DirEntry[str]) -> int:
    """The type bits of an entry as far as the directory says: 0 (unknown) is an answer too."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0


def _ino(identity: Identity) -> int:
    return identity.ino ^ _device_bits(identity.device)


def _device_bits(device: tuple[int, int]) -> int:
    """What makes inode numbers unlike those of other devices that are shown in the same tree."""
    major, minor = device
    return ((major << 8 ^ minor) & 0x7FFF) << 48


def _attributes(status: Status) -> ops.Attributes:
    return ops.Attributes(
        _ino(status.identity),
        status.mode,
        status.size_bytes,
        status.blocks,
        status.atime_ns,
        status.mtime_ns,
        status.ctime_ns,
        status.nlink,
        status.uid,
        status.gid,
        status.rdev,
        status.blksize,
        status.identity.btime_ns or None,
    )
