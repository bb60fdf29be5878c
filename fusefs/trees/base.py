"""What a subtree must do: one method per operation, on inodes of its own.

Methods raise errors, which the dispatcher turns into errnos; what a tree does not override, it does not support. They
are called from several threads at once.
"""

import errno
import os
from contextlib import AbstractContextManager, nullcontext
from typing import NoReturn

from fusefs import ops
from fusefs.handles import OpenDirectory, OpenFile
from fusefs.inodes import Inode
from genro_storage.runtime import WorkerPool


def refuse(number: int) -> NoReturn:
    """Raise the OSError of an errno."""
    raise OSError(number, os.strerror(number))


def seek_in_data(offset: int, whence: int, size_bytes: int) -> int:
    """OpenFile.seek in a file without holes."""
    if not 0 <= offset < size_bytes:
        refuse(errno.ENXIO)
    return offset if whence == os.SEEK_DATA else size_bytes


class Tree:
    """A subtree that supports nothing: the base of all."""

    #: Where requests go that wait for a backend; None if none of this tree ever does.
    workers: WorkerPool | None = None
    #: Every operation is answered from memory or the local disk, so a serving thread tries all of them itself.
    instant = True
    #: What is written to an open file is in it at once, so that readers and writers can be handed the same one.
    writes_in_place = False

    def lookup(self, parent: Inode, name: str) -> ops.EntryReply:
        """Find a name; the inode of the reply is counted once more. nodeid 0: it is known that nothing is there."""
        refuse(errno.ENOENT)

    def prepare(self, root: Inode) -> None:
        """Called once, with the inode of the tree's root, before anything is mounted."""

    def close(self) -> None:
        """Give back what is held. Nothing is called after it."""

    def forgotten(self, inode: Inode) -> None:
        """The kernel holds an inode no more."""

    def attributes(self, inode: Inode, file: OpenFile | None) -> ops.AttributesReply:
        """stat, or fstat of an open file."""
        refuse(errno.ENOSYS)

    def set_attributes(self, inode: Inode, file: OpenFile | None, request: ops.Setattr) -> ops.AttributesReply:
        """Change what the request names."""
        refuse(errno.EROFS)

    def read_link(self, inode: Inode) -> bytes:
        """The target of a symbolic link."""
        refuse(errno.EINVAL)

    def symlink(self, parent: Inode, request: ops.Symlink) -> ops.EntryReply:
        """Make a symbolic link."""
        refuse(errno.EPERM)  # symlink(2): the file system does not support them

    def make_node(self, parent: Inode, request: ops.Mknod) -> ops.EntryReply:
        """Make a FIFO, socket, device or file."""
        refuse(errno.EPERM)  # mknod(2): likewise

    def make_directory(self, parent: Inode, request: ops.Mkdir) -> ops.EntryReply:
        """Make a directory."""
        refuse(errno.EROFS)

    def unlink(self, parent: Inode, name: str) -> None:
        """Remove a name of a file."""
        refuse(errno.EROFS)

    def remove_directory(self, parent: Inode, name: str) -> None:
        """Remove an empty directory."""
        refuse(errno.EROFS)

    def rename(self, parent: Inode, name: str, new_parent: Inode, new_name: str, flags: int) -> None:
        """Move a name within this tree."""
        refuse(errno.EROFS)

    def link(self, inode: Inode, parent: Inode, request: ops.Link) -> ops.EntryReply:
        """Give a file a further name."""
        refuse(errno.EPERM)  # link(2): the file system does not support them

    def open(self, inode: Inode, request: ops.Open) -> OpenFile:
        """Open a file."""
        refuse(errno.EISDIR)

    def create(self, parent: Inode, request: ops.Create) -> tuple[ops.EntryReply, OpenFile]:
        """Make a file and open it, or open one that turns out to be there."""
        refuse(errno.EROFS)

    def create_nameless(self, parent: Inode, request: ops.Tmpfile) -> tuple[ops.EntryReply, OpenFile]:
        """Make a file that has no name and open it."""
        refuse(errno.EOPNOTSUPP)  # open(2): O_TMPFILE is not supported there

    def acting_for(self, request: ops.Request) -> AbstractContextManager[None]:
        """What an open file is changed in other than by writing, so that a disk sees who does it."""
        return nullcontext()

    def lose_set_id(self, file: OpenFile, request: ops.Request) -> None:
        """Who asks is about to write, and has no right to keep set-id bits where there are any."""

    def supersede(self, inode: Inode) -> None:
        """The next lookup of its name is to find a new inode: by this one another content is open."""

    def admit(self, pid: int) -> None:
        """Raise if a program is not to go through what is here."""

    def open_directory(self, inode: Inode) -> OpenDirectory:
        """Open a directory."""
        refuse(errno.ENOTDIR)

    def sync_directory(self, inode: Inode) -> None:
        """Make names last."""

    def statfs(self, inode: Inode) -> ops.StatfsReply:
        """Room and limits."""
        return ops.StatfsReply(0, 0, 0, 0, 0)

    def access(self, inode: Inode, request: ops.Access) -> None:
        """Raise if the caller may not."""
        if request.mask & os.W_OK:
            refuse(errno.EROFS)

    def get_xattr(self, inode: Inode, name: str) -> bytes:
        """The value of an extended attribute."""
        refuse(errno.ENODATA)

    def list_xattrs(self, inode: Inode) -> bytes:
        """The names of extended attributes, each with a NUL behind it."""
        return b''

    def set_xattr(self, inode: Inode, request: ops.Setxattr) -> None:
        """Set an extended attribute."""
        refuse(errno.ENOTSUP)

    def remove_xattr(self, inode: Inode, name: str) -> None:
        """Remove an extended attribute."""
        refuse(errno.ENOTSUP)
