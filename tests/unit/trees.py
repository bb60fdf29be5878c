"""The tree of a volume over a remote, asked as the file system asks it. Threads: of one."""

import os
from pathlib import Path
from typing import Any

from fusefs import ops
from fusefs.handles import OpenFile
from fusefs.inodes import Inode, InodeTable
from fusefs.trees.synthetic import RootTree
from fusefs.trees.volume import VolumeTree
from genro_storage.backends.base import Capabilities
from tests.unit.volumes import REMOTE, Remote

NOBODY = 0  # a process that cannot be seen


class RemoteTree:
    """What a kernel sees of a mount whose requests are counted."""

    def __init__(self, folder: Path, capabilities: Capabilities = REMOTE, **definition: Any) -> None:
        self.remote = Remote(folder, capabilities, **definition)
        root = RootTree(0)
        self.inodes = InodeTable(root)
        self.tree = VolumeTree(self.remote.volume, self.inodes, 0)
        root.fill(self.inodes, {'m': self.tree})
        self.root: Inode = self.inodes.root.children['m']

    def requests(self) -> int:
        """How often the backend was asked anything."""
        return sum(self.remote.backend._calls.values())

    def find(self, path: str) -> Inode | None:
        """The inode of a path; None where nothing is."""
        inode = self.root
        for name in path.split('/') if path else []:
            reply = inode.tree.lookup(inode, name)
            if not reply.nodeid:
                return None
            inode = self.inodes.get(reply.nodeid)
        return inode

    def inode(self, path: str) -> Inode:
        """Likewise of one that is there."""
        inode = self.find(path)
        assert inode is not None, path
        return inode

    def names(self, path: str = '') -> list[str]:
        """A directory as it is listed."""
        directory = self.tree.open_directory(self.inode(path))
        listing = directory.read(ops.Readdir(1, 0, 0, 0, NOBODY, 0, 0, 1 << 20, True))
        return sorted(entry.name for entry in listing.entries if entry.name not in {'.', '..'})

    def create(self, path: str, flags: int = 0) -> OpenFile:
        """Make a file and open it."""
        parent, _, name = path.rpartition('/')
        directory = self.inode(parent)
        request = ops.Create(1, directory.nodeid, 0, 0, NOBODY, name, os.O_RDWR | os.O_CREAT | flags, 0o600, 0)
        entry, file = directory.tree.create(directory, request)
        file.inode.files.append(file)
        assert file.inode is self.inodes.get(entry.nodeid)
        return file

    def open(self, path: str, flags: int = os.O_RDONLY, pid: int = NOBODY) -> OpenFile:
        """Open a file that is there."""
        inode = self.inode(path)
        return inode.tree.open(inode, ops.Open(1, inode.nodeid, 0, 0, pid, flags))

    def close(self, file: OpenFile) -> None:
        """As close(2) of its last descriptor."""
        file.flush()
        file.inode.files.remove(file)
        file.release()

    def write(self, path: str, data: bytes) -> None:
        """Make a file with a content."""
        file = self.create(path)
        file.write(0, data)
        self.close(file)

    def read(self, path: str) -> bytes:
        """The content of a file."""
        data = self.open(path).read(0, 1 << 20)
        return b''.join(data) if isinstance(data, list) else bytes(data)

    def attributes(self, path: str) -> ops.Attributes:
        """As stat(2) tells them."""
        inode = self.inode(path)
        return inode.tree.attributes(inode, None).attributes

    def setattr(self, path: str, **changes: Any) -> None:
        """Change what is named."""
        inode = self.inode(path)
        values = dict.fromkeys(('mode', 'new_uid', 'new_gid', 'size_bytes', 'atime_ns', 'mtime_ns')) | changes
        inode.tree.set_attributes(
            inode, None, ops.Setattr(1, inode.nodeid, 0, 0, NOBODY, None, **values, kill_suidgid=False)
        )

    def getxattr(self, path: str, name: str) -> bytes:
        """A value. Raises OSError."""
        inode = self.inode(path)
        return inode.tree.get_xattr(inode, name)

    def listxattr(self, path: str) -> list[str]:
        """The names that are listed."""
        inode = self.inode(path)
        return [name.decode() for name in inode.tree.list_xattrs(inode).split(b'\0')[:-1]]

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        """Set a value. Raises OSError."""
        inode = self.inode(path)
        inode.tree.set_xattr(inode, ops.Setxattr(1, inode.nodeid, 0, 0, NOBODY, name, value, flags))

    def removexattr(self, path: str, name: str) -> None:
        """Remove a value. Raises OSError."""
        inode = self.inode(path)
        inode.tree.remove_xattr(inode, name)

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        parent, _, name = path.rpartition('/')
        directory = self.inode(parent)
        directory.tree.make_directory(directory, ops.Mkdir(1, directory.nodeid, 0, 0, NOBODY, name, 0o700, 0))

    def rename(self, source: str, target: str, flags: int = 0) -> None:
        """Rename within the mount."""
        (parent, _, name), (new_parent, _, new_name) = source.rpartition('/'), target.rpartition('/')
        self.tree.rename(self.inode(parent), name, self.inode(new_parent), new_name, flags)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        parent, _, name = path.rpartition('/')
        self.tree.unlink(self.inode(parent), name)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        parent, _, name = path.rpartition('/')
        self.tree.remove_directory(self.inode(parent), name)
