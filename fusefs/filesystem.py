"""The file system: one method per operation, from requests to trees and handles.

Owns the tables of inodes and handles and what is the same for every tree. Does not know transports, and raises errors
rather than answering them. Threads: safe, as the tables and trees are.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from fusefs import ops
from fusefs.handles import HandleTable, OpenFile
from fusefs.inodes import Inode, InodeTable
from fusefs.passthrough import Backings, OtherContentError
from fusefs.trees.base import Tree, refuse
from fusefs.trees.descriptors import default_limit
from fusefs.trees.local import LocalTree
from fusefs.trees.local_file import is_read_only
from fusefs.trees.synthetic import RootTree, status_of
from fusefs.trees.volume import VolumeTree
from genro_storage.config import LocalDefinition
from genro_storage.manager import StorageManager
from genro_storage.runtime import WouldBlock
from genro_storage.volume import Volume

log = logging.getLogger(__name__)

#: What changes something that others can see: the kernel, which asked for it, knows of the change.
CHANGING = (
    ops.Setattr,
    ops.Symlink,
    ops.Mknod,
    ops.Mkdir,
    ops.Unlink,
    ops.Rmdir,
    ops.Rename,
    ops.Link,
    ops.Create,
    ops.Tmpfile,
    ops.Flush,
    ops.Fsync,
    ops.Release,
)


class _Thread(threading.local):
    changing = False


class FileSystem:
    """All mounts of a manager as one tree."""

    def __init__(self, manager: StorageManager) -> None:
        started_ns = manager.clock.time_ns()
        root = RootTree(started_ns, lambda: status_of(manager))
        self.inodes = InodeTable(root)
        self.handles = HandleTable()
        self.backings = Backings()
        volumes = [manager.volume(name) for name in manager.get_mount_names()]
        limit = default_limit() // max(1, len(volumes))
        self._trees = {volume.name: self._tree(volume, limit, started_ns) for volume in volumes}
        root.fill(self.inodes, self._trees)
        #: The top directory of each mount.
        self.roots: dict[str, Inode] = dict(self.inodes.root.children)
        self._thread = _Thread()
        self.operations: dict[type[ops.Request], Callable[[Any], ops.Reply]] = {
            ops.Lookup: self.lookup,
            ops.Forget: self.forget,
            ops.Getattr: self.getattr,
            ops.Statx: self.getattr,
            ops.Setattr: self.setattr,
            ops.Readlink: self.readlink,
            ops.Symlink: self.symlink,
            ops.Mknod: self.mknod,
            ops.Mkdir: self.mkdir,
            ops.Unlink: self.unlink,
            ops.Rmdir: self.rmdir,
            ops.Rename: self.rename,
            ops.Link: self.link,
            ops.Open: self.open,
            ops.Create: self.create,
            ops.Tmpfile: self.tmpfile,
            ops.Read: self.read,
            ops.Write: self.write,
            ops.CopyFileRange: self.copy_file_range,
            ops.Fallocate: self.fallocate,
            ops.Lseek: self.lseek,
            ops.Flush: self.flush,
            ops.Fsync: self.fsync,
            ops.Release: self.release,
            ops.Opendir: self.opendir,
            ops.Readdir: self.readdir,
            ops.Statfs: self.statfs,
            ops.Access: self.access,
            ops.Getxattr: self.getxattr,
            ops.Listxattr: self.listxattr,
            ops.Setxattr: self.setxattr,
            ops.Removexattr: self.removexattr,
        }
        for kind in CHANGING:
            self.operations[kind] = self._changing(self.operations[kind])

    def is_changing(self) -> bool:
        """Whether this thread is in a request that changes something, so that the kernel knows of it."""
        return self._thread.changing

    def tree_of(self, nodeid: int) -> Tree:
        """The tree that a request about this inode goes to."""
        return self.inodes.get(nodeid).tree

    def take_back(self, reply: ops.Reply) -> None:
        """Undo what a reply would have told the kernel that it did not take: lookups and handles."""
        if isinstance(reply, ops.EntryReply) and reply.nodeid:
            self._forget([(reply.nodeid, 1)])
        elif isinstance(reply, ops.Listing):
            self._forget([(entry.entry.nodeid, 1) for entry in reply.entries if entry.entry is not None])
        elif isinstance(reply, ops.Opened):
            self._release(reply.fh)
        elif isinstance(reply, ops.Created):
            try:
                self._release(reply.opened.fh)
            finally:
                self._forget([(reply.entry.nodeid, 1)])

    def close(self) -> None:
        """Release what is still open and close the trees. What cannot be committed is logged and stops nothing."""
        for opened in self.handles.all():
            try:
                opened.release()
            except Exception as error:  # noqa: BLE001 - there is nobody left to tell, and others still to be committed
                log.error('at the end: %s: %s', type(error).__name__, error)
        self.backings.close()
        for tree in self._trees.values():
            tree.close()

    # Inodes

    def lookup(self, request: ops.Lookup) -> ops.EntryReply:
        """See ops.Lookup."""
        parent = self.inodes.get(request.nodeid)
        return parent.tree.lookup(parent, request.name)

    def forget(self, request: ops.Forget) -> None:
        """See ops.Forget."""
        self._forget(request.forgotten)

    def getattr(self, request: ops.Getattr | ops.Statx) -> ops.AttributesReply:
        """See ops.Getattr and ops.Statx."""
        inode = self.inodes.get(request.nodeid)
        return inode.tree.attributes(inode, self._file(request.fh))

    def setattr(self, request: ops.Setattr) -> ops.AttributesReply:
        """See ops.Setattr."""
        inode = self.inodes.get(request.nodeid)
        return inode.tree.set_attributes(inode, self._file(request.fh), request)

    def readlink(self, request: ops.Readlink) -> bytes:
        """See ops.Readlink."""
        inode = self.inodes.get(request.nodeid)
        return inode.tree.read_link(inode)

    # Names

    def symlink(self, request: ops.Symlink) -> ops.EntryReply:
        """See ops.Symlink."""
        parent = self.inodes.get(request.nodeid)
        return parent.tree.symlink(parent, request)

    def mknod(self, request: ops.Mknod) -> ops.EntryReply:
        """See ops.Mknod."""
        parent = self.inodes.get(request.nodeid)
        return parent.tree.make_node(parent, request)

    def mkdir(self, request: ops.Mkdir) -> ops.EntryReply:
        """See ops.Mkdir."""
        parent = self.inodes.get(request.nodeid)
        return parent.tree.make_directory(parent, request)

    def unlink(self, request: ops.Unlink) -> None:
        """See ops.Unlink."""
        parent = self.inodes.get(request.nodeid)
        parent.tree.unlink(parent, request.name)

    def rmdir(self, request: ops.Rmdir) -> None:
        """See ops.Rmdir."""
        parent = self.inodes.get(request.nodeid)
        parent.tree.remove_directory(parent, request.name)

    def rename(self, request: ops.Rename) -> None:
        """See ops.Rename. Across mounts it is EXDEV, and mv copies."""
        parent = self.inodes.get(request.nodeid)
        new_parent = self.inodes.get(request.new_parent)
        if parent.tree is not new_parent.tree:
            refuse(errno.EXDEV)
        parent.tree.rename(parent, request.name, new_parent, request.new_name, request.flags)

    def link(self, request: ops.Link) -> ops.EntryReply:
        """See ops.Link."""
        inode = self.inodes.get(request.source)
        parent = self.inodes.get(request.nodeid)
        if inode.tree is not parent.tree:
            refuse(errno.EXDEV)
        return parent.tree.link(inode, parent, request)

    # Files

    def open(self, request: ops.Open) -> ops.Opened:
        """See ops.Open."""
        inode = self.inodes.get(request.nodeid)
        tree = inode.tree
        if tree.writes_in_place or is_read_only(request.flags):
            return self._opened(tree.open(inode, request), request.flags)
        try:
            with self.backings.served_here(inode.nodeid):
                return self._opened(tree.open(inode, request), request.flags)
        except OtherContentError:
            self._supersede(inode)

    def create(self, request: ops.Create) -> ops.Created:
        """See ops.Create."""
        parent = self.inodes.get(request.nodeid)
        entry, file = parent.tree.create(parent, request)
        return ops.Created(entry, self._opened(file, request.flags))

    def tmpfile(self, request: ops.Tmpfile) -> ops.Created:
        """See ops.Tmpfile."""
        parent = self.inodes.get(request.nodeid)
        entry, file = parent.tree.create_nameless(parent, request)
        return ops.Created(entry, self._opened(file, request.flags))

    def read(self, request: ops.Read) -> ops.Data:
        """See ops.Read."""
        return self.handles.file(request.fh).read(request.offset, request.size_bytes)

    def write(self, request: ops.Write) -> ops.Written:
        """See ops.Write."""
        file = self.handles.file(request.fh)
        if request.kill_suidgid:
            file.inode.tree.lose_set_id(file, request)
        return ops.Written(file.write(request.offset, request.data))

    def copy_file_range(self, request: ops.CopyFileRange) -> ops.Written:
        """See ops.CopyFileRange. Whether it can be done is for the target to say, whichever mounts the two are of."""
        source, target = self.handles.file(request.fh), self.handles.file(request.out_fh)
        with target.inode.tree.acting_for(request):
            copied = target.copy_from(source, request.offset, request.out_offset, request.size_bytes)
        return ops.Written(copied)

    def fallocate(self, request: ops.Fallocate) -> None:
        """See ops.Fallocate."""
        file = self.handles.file(request.fh)
        with file.inode.tree.acting_for(request):
            file.allocate(request.offset, request.size_bytes, request.mode)

    def lseek(self, request: ops.Lseek) -> ops.Position:
        """See ops.Lseek."""
        return ops.Position(self.handles.file(request.fh).seek(request.offset, request.whence))

    def flush(self, request: ops.Flush) -> None:
        """See ops.Flush."""
        self.handles.file(request.fh).flush()

    def fsync(self, request: ops.Fsync) -> None:
        """See ops.Fsync."""
        if request.is_directory:
            inode = self.inodes.get(request.nodeid)
            inode.tree.sync_directory(inode)
        else:
            self.handles.file(request.fh).fsync(data_only=request.data_only)

    def release(self, request: ops.Release) -> None:
        """See ops.Release."""
        self._release(request.fh)

    # Directories

    def opendir(self, request: ops.Opendir) -> ops.Opened:
        """See ops.Opendir."""
        inode = self.inodes.get(request.nodeid)
        inode.tree.admit(request.pid)
        return ops.Opened(self.handles.add_directory(inode.tree.open_directory(inode)))

    def readdir(self, request: ops.Readdir) -> ops.Listing:
        """See ops.Readdir."""
        return self.handles.directory(request.fh).read(request)

    # The rest

    def statfs(self, request: ops.Statfs) -> ops.StatfsReply:
        """See ops.Statfs."""
        inode = self.inodes.get(request.nodeid)
        return inode.tree.statfs(inode)

    def access(self, request: ops.Access) -> None:
        """See ops.Access."""
        inode = self.inodes.get(request.nodeid)
        inode.tree.access(inode, request)

    def getxattr(self, request: ops.Getxattr) -> bytes | ops.XattrSize:
        """See ops.Getxattr."""
        inode = self.inodes.get(request.nodeid)
        return _sized(inode.tree.get_xattr(inode, request.name), request.size_bytes)

    def listxattr(self, request: ops.Listxattr) -> bytes | ops.XattrSize:
        """See ops.Listxattr."""
        inode = self.inodes.get(request.nodeid)
        return _sized(inode.tree.list_xattrs(inode), request.size_bytes)

    def setxattr(self, request: ops.Setxattr) -> None:
        """See ops.Setxattr."""
        inode = self.inodes.get(request.nodeid)
        inode.tree.set_xattr(inode, request)

    def removexattr(self, request: ops.Removexattr) -> None:
        """See ops.Removexattr."""
        inode = self.inodes.get(request.nodeid)
        inode.tree.remove_xattr(inode, request.name)

    # Inside

    def _changing(self, operation: Callable[[Any], ops.Reply]) -> Callable[[Any], ops.Reply]:
        def change(request: ops.Request) -> ops.Reply:
            self._thread.changing = True
            try:
                return operation(request)
            finally:
                self._thread.changing = False

        return change

    def _tree(self, volume: Volume, descriptors_limit: int, started_ns: int) -> LocalTree | VolumeTree:
        if isinstance(volume.definition, LocalDefinition):
            return LocalTree(volume, volume.definition.path, self.inodes, descriptors_limit, started_ns)
        return VolumeTree(volume, self.inodes, started_ns)

    def _file(self, fh: int | None) -> OpenFile | None:
        return None if fh is None else self.handles.file(fh)

    def _opened(self, file: OpenFile, flags: int) -> ops.Opened:
        inode = file.inode
        fh = self.handles.add(file)
        try:
            backing_id = self.backings.join(fh, inode.nodeid, file.content, file.open_backing)
        except OtherContentError:
            self._abandon(fh, inode.tree)
            self._supersede(inode)
        except BaseException:
            self._abandon(fh, inode.tree)
            raise
        opened = ops.Opened(fh, no_flush=file.is_read_only, backing_id=backing_id)
        # The kernel opens a backing file with the program's flags, and the disk has its own say in O_DIRECT. But dd
        # takes the flag off for its last block, and the backing file keeps it: what only writes comes here.
        opened.direct_io = bool(flags & os.O_DIRECT) and (not backing_id or flags & os.O_ACCMODE == os.O_WRONLY)
        if not backing_id and not opened.direct_io:
            # Two that were opened at once may show two contents, and then the pages are of both.
            is_one = all(other.content == file.content for other in list(inode.files))
            stamp = file.stamp if is_one else None
            opened.keep_cache = stamp is not None and stamp == inode.pages
            inode.pages = stamp
        return opened

    def _forget(self, forgotten: list[tuple[int, int]]) -> None:
        for inode in self.inodes.forget(forgotten):
            inode.tree.forgotten(inode)

    @staticmethod
    def _supersede(inode: Inode) -> NoReturn:
        """ESTALE makes the kernel look up the name again, and it finds a new inode there."""
        inode.tree.supersede(inode)
        refuse(errno.ESTALE)

    def _abandon(self, fh: int, tree: Tree) -> None:
        """Release a file of which the kernel was never told."""
        try:
            self._release(fh)
        except WouldBlock:
            if tree.workers is not None:
                tree.workers.submit(lambda: self._release(fh))

    def _release(self, fh: int) -> None:
        opened = self.handles.remove(fh)
        if opened is None:
            return
        # First: what a writer leaves behind it may be opened anew before it has ended.
        self.backings.leave(fh)
        try:
            opened.release()
        except WouldBlock:
            self.handles.put_back(fh, opened)  # a worker begins again
            raise


def _sized(value: bytes, room_bytes: int) -> bytes | ops.XattrSize:
    """An attribute as getxattr(2) returns it: its size if there is no room at all, ERANGE if there is too little."""
    if not room_bytes:
        return ops.XattrSize(len(value))
    if len(value) > room_bytes:
        refuse(errno.ERANGE)
    return value
