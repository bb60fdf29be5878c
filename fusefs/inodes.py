"""Inodes: what the kernel refers to by nodeid, how often it does, and under which names.

Owns identity and lookup counts. An inode lives from the first lookup that finds it until the kernel has forgotten all
of its lookups; names (dentries) come and go meanwhile. Does no I/O.

There is one for each name that the kernel holds, hundreds of thousands after a listing: what most of them lack takes
no room.

Threads: safe; one lock, held for dictionary operations only. Attributes of an inode that a tree adds are the tree's.
"""

import errno
import os
import threading
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from fusefs.ops import ROOT_NODEID

if TYPE_CHECKING:
    from fusefs.handles import OpenFile
    from fusefs.trees.base import Tree


class Dentry(NamedTuple):
    """A name of an inode: in which directory, and what it is called there."""

    parent: 'Inode'
    name: str


#: What all inodes without entries have; never changed.
_CHILDLESS: 'dict[str, Inode]' = {}


class Inode:
    """One file or directory as the kernel knows it."""

    __slots__ = ('children', 'dentries', 'files', 'key', 'lookups', 'nodeid', 'pages', 'state', 'told_bytes', 'tree')

    def __init__(self, nodeid: int, tree: 'Tree', key: Hashable) -> None:
        self.nodeid = nodeid
        self.tree = tree
        #: What it is to its tree: equal keys are one inode. None: its names are all that identifies it.
        self.key = key
        #: What the tree keeps with it.
        self.state: Any = None
        #: The stamp (OpenFile) of what the kernel's page cache holds of it; None where that is not known. Whoever
        #: changes what it is to show sets it to None.
        self.pages: Hashable = None
        #: The length that the kernel was told last of what has a version; None if it knows better, having written.
        self.told_bytes: int | None = None
        #: Its open files; the handle table adds and removes them.
        self.files: list[OpenFile] = []
        # Guarded by the lock of the table.
        self.lookups = 0
        self.dentries: tuple[Dentry, ...] = ()  # in order of appearance; several are hard links
        self.children = _CHILDLESS

    def __repr__(self) -> str:
        return f'Inode({self.nodeid}, {self.key!r}, lookups={self.lookups})'


class InodeTable:
    """All inodes of one mounted tree."""

    def __init__(self, root: 'Tree') -> None:
        self._lock = threading.Lock()
        self.root = Inode(ROOT_NODEID, root, None)
        self.root.lookups = 1  # the kernel never forgets the root
        # Guarded by _lock.
        self._next = ROOT_NODEID + 1
        self._inodes: dict[int, Inode] = {ROOT_NODEID: self.root}
        self._by_key: dict[Tree, dict[Hashable, Inode]] = {}

    def __len__(self) -> int:
        return len(self._inodes)

    def get(self, nodeid: int) -> Inode:
        """The inode of a nodeid. Raises OSError(ESTALE) for one that is not known: the kernel then looks up again."""
        inode = self._inodes.get(nodeid)
        if inode is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return inode

    def child(self, parent: Inode, name: str) -> Inode | None:
        """The inode last seen under a name, if the kernel still holds it."""
        return parent.children.get(name)

    def enter(self, parent: Inode, name: str, tree: 'Tree', key: Hashable, instead_of: Inode | None = None) -> Inode:
        """The inode that a lookup of a name has found, counted once more; made if it is new.

        instead_of: an inode without a key that the name no longer leads to.
        """
        with self._lock:
            named = parent.children.get(name)
            if key is None:
                inode = named if named is not None and named is not instead_of and named.tree is tree else None
            else:
                inode = self._by_key.setdefault(tree, {}).get(key)
            if inode is None:
                inode = Inode(self._next, tree, key)
                self._next += 1
                self._inodes[inode.nodeid] = inode
                if key is not None:
                    self._by_key[tree][key] = inode
            inode.lookups += 1
            if named is not inode:
                self._detach(parent, name)
                self._attach(parent, name, inode)
            return inode

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> list[Inode]:
        """Take back lookups; the inodes that are gone now, for their trees to give up what they keep."""
        gone = []
        with self._lock:
            for nodeid, count in forgotten:
                inode = self._inodes.get(nodeid)
                if inode is None:
                    continue
                inode.lookups -= count
                if inode.lookups <= 0:
                    self._drop(inode)
                    gone.append(inode)
        return gone

    def remove(self, parent: Inode, name: str) -> None:
        """A name is gone; its inode stays as long as the kernel holds it."""
        with self._lock:
            self._detach(parent, name)

    def rename(self, parent: Inode, name: str, new_parent: Inode, new_name: str) -> None:
        """A name has moved, and all below it with it."""
        with self._lock:
            inode = parent.children.get(name)
            self._detach(new_parent, new_name)
            if inode is not None:
                self._detach(parent, name)
                self._attach(new_parent, new_name, inode)

    def exchange(self, parent: Inode, name: str, other_parent: Inode, other_name: str) -> None:
        """Two names have changed places."""
        with self._lock:
            one, other = parent.children.get(name), other_parent.children.get(other_name)
            self._detach(parent, name)
            self._detach(other_parent, other_name)
            if one is not None:
                self._attach(other_parent, other_name, one)
            if other is not None:
                self._attach(parent, name, other)

    def dentry(self, inode: Inode) -> Dentry | None:
        """A name of an inode, the oldest that is left; None for the root and for what has none any more."""
        with self._lock:
            return inode.dentries[0] if inode.dentries else None

    def dentries(self, inode: Inode) -> list[Dentry]:
        """All names under which an inode was seen, the newest first: some may lead elsewhere by now."""
        with self._lock:
            return list(reversed(inode.dentries))

    def names(self, inode: Inode) -> list[str] | None:
        """The names from the root of the inode's tree down to it; None if it has been removed."""
        names: list[str] = []
        with self._lock:
            while inode is not self.root:
                if not inode.dentries:
                    return None
                dentry = inode.dentries[0]
                if dentry.parent.tree is not inode.tree:
                    break
                names.append(dentry.name)
                inode = dentry.parent
        names.reverse()
        return names

    # Called with the lock held.

    def _attach(self, parent: Inode, name: str, inode: Inode) -> None:
        if parent.children is _CHILDLESS:
            parent.children = {}
        parent.children[name] = inode
        inode.dentries += (Dentry(parent, name),)

    def _detach(self, parent: Inode, name: str) -> None:
        inode = parent.children.pop(name, None)
        if inode is not None:
            inode.dentries = tuple(dentry for dentry in inode.dentries if dentry != (parent, name))

    def _drop(self, inode: Inode) -> None:
        for parent, name in inode.dentries:
            self._detach(parent, name)
        for name in list(inode.children):
            self._detach(inode, name)
        del self._inodes[inode.nodeid]
        by_key = self._by_key.get(inode.tree, {})
        if by_key.get(inode.key) is inode:
            del by_key[inode.key]
