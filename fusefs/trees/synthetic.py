"""Directories that exist nowhere but here: the root with a directory for each mount, and empty ones.

Answers from memory alone, so that ``ls`` of the root is instant whatever state the backends are in. Threads: safe;
nothing changes after the start.
"""

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence

from fusefs import ops
from fusefs.handles import Item, OpenDirectory, OpenFile
from fusefs.inodes import Inode, InodeTable
from fusefs.trees.base import Tree, refuse
from genro_storage import paths
from genro_storage.manager import StorageManager
from genro_storage.mounted import ATTRIBUTE_BYTES, PID_ATTRIBUTE, STATUS_ATTRIBUTE


def directory_attributes(ino: int, now_ns: int) -> ops.Attributes:
    """A directory of the mounting user that nobody can change."""
    return ops.Attributes(
        ino=ino,
        mode=stat.S_IFDIR | 0o555,
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        nlink=2,
        uid=os.getuid(),
        gid=os.getgid(),
    )


def status_of(manager: StorageManager) -> dict[str, object]:
    """What the root says of what is mounted: a genro_storage.mounted.TreeStatus without the process, as JSON has it."""
    settings, used_bytes = manager.cache_usage()
    volumes = [manager.volume(name) for name in manager.get_mount_names()]
    return {
        'mounts': [
            {'name': volume.name, 'type': volume.definition.type, 'destination': volume.backend.destination}
            for volume in volumes
        ],
        'cache': {'path': str(settings.path), 'limit_bytes': settings.disk_bytes, 'used_bytes': used_bytes},
    }


class EmptyTree(Tree):
    """An empty directory that stands for one that must not be entered: a mountpoint of ours inside a local mount."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def attributes(self, inode: Inode, file: OpenFile | None) -> ops.AttributesReply:
        return ops.AttributesReply(directory_attributes(inode.nodeid, self._now_ns), 0.0)

    def open_directory(self, inode: Inode) -> OpenDirectory:
        return OpenDirectory(inode.nodeid, inode.nodeid, list)


class RootTree(Tree):
    """The root of the mounted tree: one directory for each mount."""

    def __init__(self, now_ns: int, status: Callable[[], Mapping[str, object]] = dict) -> None:
        """``status``: what TreeStatus has besides the process, as JSON has it; it must not wait for anything."""
        self._now_ns = now_ns
        self._status = status
        self._inodes: InodeTable | None = None
        self._mounts: dict[str, Inode] = {}

    def fill(self, inodes: InodeTable, mounts: Mapping[str, Tree]) -> None:
        """Put the root of each mount's tree in place, for the life of the mounted tree."""
        self._inodes = inodes
        for name, tree in mounts.items():
            self._mounts[name] = inodes.enter(inodes.root, name, tree, ('root', name))
            tree.prepare(self._mounts[name])

    def lookup(self, parent: Inode, name: str) -> ops.EntryReply:
        if len(paths.encode(name)) > paths.NAME_MAX_BYTES:
            refuse(errno.ENAMETOOLONG)
        return self._enter(name)

    def attributes(self, inode: Inode, file: OpenFile | None) -> ops.AttributesReply:
        attributes = directory_attributes(inode.nodeid, self._now_ns)
        attributes.nlink += len(self._mounts)
        return ops.AttributesReply(attributes, 60.0)

    def open_directory(self, inode: Inode) -> OpenDirectory:
        return OpenDirectory(inode.nodeid, inode.nodeid, self._items)

    def statfs(self, inode: Inode) -> ops.StatfsReply:
        return ops.StatfsReply(0, 0, 0, len(self._mounts) + 1, 0)

    def get_xattr(self, inode: Inode, name: str) -> bytes:
        if name == PID_ATTRIBUTE:
            return str(os.getpid()).encode()
        if name == STATUS_ATTRIBUTE:
            status = json.dumps({'pid': os.getpid(), **self._status()}).encode()
            if len(status) > ATTRIBUTE_BYTES:
                refuse(errno.E2BIG)
            return status
        refuse(errno.ENODATA)

    def _items(self) -> Sequence[Item]:
        return [Item(name, inode.nodeid, stat.S_IFDIR, self._enter) for name, inode in self._mounts.items()]

    def _enter(self, name: str) -> ops.EntryReply:
        inode = self._mounts.get(name)
        if inode is None or self._inodes is None:
            refuse(errno.ENOENT)
        self._inodes.enter(self._inodes.root, name, inode.tree, inode.key)
        # The attributes are the mount's own, but asking it is for whoever wants them: they are stale at once.
        return ops.EntryReply(inode.nodeid, directory_attributes(inode.nodeid, self._now_ns), 60.0, 0.0)
