"""What stat(2) shows of the files and directories of a volume, and what sets it.

Owns what a remote backend cannot hold and harmless programs want: modes, owners and times that are set here are kept
for the life of the inode. Threads: as the volume; what is kept with an inode is replaced as a whole.
"""

import errno
import stat
from collections.abc import Callable

import msgspec

from fusefs import attrs, ops
from fusefs.inodes import Inode, InodeTable
from fusefs.trees import volume_modes
from fusefs.trees.base import refuse
from fusefs.trees.inode_numbers import InodeNumbers
from fusefs.trees.kept import forget_mtime, keep_modes, kept_of
from fusefs.trees.volume_file import VolumeFile, shows_another
from genro_storage.cache.entries import Known
from genro_storage.config import Posix
from genro_storage.entry import Attributes, Entry, Kind
from genro_storage.errors import StorageNotFoundError
from genro_storage.volume import Volume

_ROOT = Entry('', Kind.DIRECTORY)


class VolumeAttributes:
    """Those of one mounted volume."""

    def __init__(self, volume: Volume, inodes: InodeTable, numbers: InodeNumbers, started_ns: int) -> None:
        """started_ns: the time of directories that have none."""
        self._volume = volume
        self._inodes = inodes
        self._numbers = numbers
        self._owner = attrs.Ownership.of(volume.definition)
        self._started_ns = started_ns
        self._is_strict = volume.definition.posix is Posix.STRICT

    def of(self, inode: Inode) -> ops.AttributesReply:
        """Those of an inode as it is now, and for how long to believe them."""
        ino = self.number(inode)  # before anything is waited for: it may be renamed meanwhile
        names = self._inodes.names(inode)
        path = '/'.join(names or ())
        if not path and names is not None:
            # The mount's own directory is there whatever the backend says: asking would make ls wait for it.
            return ops.AttributesReply(self.of_entry(inode, ino, _ROOT), 0.0)
        known = self._volume.find(path) if names is not None else Known(None, 0.0)
        if known.entry is None or shows_another(inode, known.entry):
            opened = self._attributes_of_open(inode)
            if opened is not None:
                return ops.AttributesReply(opened, 0.0)
        if names is None:
            return ops.AttributesReply(self._attributes_of_removed(inode, ino), 0.0)
        if known.entry is None:
            raise StorageNotFoundError(f'{self._volume.name}:{path} has gone')
        return ops.AttributesReply(self.of_entry(inode, ino, known.entry), known.remaining_s)

    def of_entry(self, inode: Inode, ino: int, entry: Entry) -> ops.Attributes:
        """Those of an inode that a name was found to lead to, which the kernel is told of now."""
        attributes = attrs.of_entry(entry, ino, self._owner, self._started_ns)
        if inode.pages is not None and inode.pages != entry.version:
            inode.pages = None  # another size cuts them off, and what is told of next may be the old size again
        inode.told_bytes = entry.size_bytes if entry.version is not None else None
        if inode.state is not None:
            self._apply_kept(inode, entry, attributes)
        return attributes

    def set(self, inode: Inode, request: ops.Setattr, truncate: Callable[[int], None]) -> ops.AttributesReply:
        """What a request sets: kept by the backend where it can, else with the inode. truncate: gives it a size."""
        changes = Attributes()
        if self._volume.keeps_attributes or self._is_strict:
            shown = self.of(inode).attributes
            changes = volume_modes.changes_of(request, shown, self._volume.clock.time_ns())
            if self._is_strict:
                self._refuse_unkept(changes, shown)
            if request.names_nothing and request.uid not in {0, shown.uid}:
                return self.of(inode)
        if request.size_bytes is not None:
            truncate(request.size_bytes)
            forget_mtime(inode)
        if request.mtime_ns is not None and inode.state is not None:
            inode.state = msgspec.structs.replace(kept_of(inode), entries_ns=None)
        if self._volume.keeps_attributes and (
            (changes == Attributes() and not request.names_nothing) or self._keep(inode, changes)
        ):
            return self.of(inode)
        if request.mtime_ns is not None:
            self._set_mtime(inode, request.mtime_ns)
        kept = kept_of(inode)
        inode.state = msgspec.structs.replace(
            kept,
            mode=kept.mode if request.mode is None else stat.S_IMODE(request.mode),
            uid=kept.uid if request.new_uid is None else request.new_uid,
            gid=kept.gid if request.new_gid is None else request.new_gid,
            atime_ns=kept.atime_ns if request.atime_ns is None else self._told(request.atime_ns),
        )
        return self.of(inode)

    def of_new(self, parent: Inode, request: ops.Request, mode: int, rdev: int | None = None) -> Attributes | None:
        """What is kept of something new; None where nothing is."""
        if not self._volume.keeps_attributes:
            return None
        above = self.of(parent).attributes
        return volume_modes.of_new(request, mode, above, self._volume.clock.time_ns(), rdev)

    def entries_changed(self, directory: Inode) -> None:
        """A name in a directory came or went: no store notes when, so that it is kept here."""
        now_ns = self._volume.clock.time_ns()
        directory.state = msgspec.structs.replace(kept_of(directory), changed_ns=now_ns, entries_ns=now_ns)

    def moved(self, inode: Inode | None, source: str, target: str) -> None:
        """A file or directory has another name, and its number with it."""
        self._numbers.move(source, target)
        if inode is not None:
            inode.state = msgspec.structs.replace(kept_of(inode), changed_ns=self._volume.clock.time_ns())

    def before_removal(self, inode: Inode | None, path: str) -> Entry | None:
        """What is about to lose its name, as far as it is known here; who has a file open still sees mode and owner."""
        if inode is None:
            return None
        if not inode.files or not self._volume.keeps_attributes:
            known = self._volume.recall(path)
            return None if known is None else known.entry
        entry = self._volume.find(path, timed=False).entry
        if entry is not None and entry.attributes is not None:
            keep_modes(inode, entry.attributes)
        return entry

    def removed(self, inode: Inode | None, path: str, entry: Entry | None) -> None:
        """It has lost its name. The kernel holds it for as long as anybody can ask about it, open or not."""
        if inode is not None:
            inode.state = msgspec.structs.replace(
                kept_of(inode),
                changed_ns=self._volume.clock.time_ns(),
                seed=self._numbers.hold(path),
                removed=entry,
            )

    def forgotten(self, inode: Inode) -> None:
        """The kernel holds an inode no more."""
        seed = kept_of(inode).seed
        if seed is not None:
            self._numbers.let_go(seed)

    def number(self, inode: Inode) -> int:
        """The inode number of a file or directory, removed or not."""
        names = self._inodes.names(inode)
        seed = kept_of(inode).seed
        if names is None and seed is not None:
            return self._numbers.of_seed(seed)
        return self._numbers.of('/'.join(names or ()))

    def lose_set_id(self, inode: Inode, request: ops.Request) -> None:
        """Somebody writes to a file."""
        path = '/'.join(self._inodes.names(inode) or ()) if self._volume.keeps_attributes else ''
        entry = self._volume.find(path, timed=False).entry if path else None
        if entry is None or entry.attributes is None or not entry.attributes.mode:
            return
        gid = self._owner.gid if entry.attributes.gid is None else entry.attributes.gid
        mode = volume_modes.without_set_id(entry.attributes.mode, gid, request)
        if mode is not None:
            self._volume.set_attributes(path, Attributes(mode=mode))

    # Inside

    def _keep(self, inode: Inode, changes: Attributes) -> bool:
        """Have the volume keep what was set; False of what has no name any more, or is its root."""
        path = '/'.join(self._inodes.names(inode) or ())
        if not path:
            return False
        before = self._volume.stat(path)
        self._volume.set_attributes(path, changes)
        if before.is_directory:
            keep_modes(inode, changes)  # a server may forget those of a marker
            return True
        after = self._volume.find(path, timed=False).entry
        for file in list(inode.files):
            if after is not None and isinstance(file, VolumeFile):
                file.rebase(before.version, after.version)
        return True

    @staticmethod
    def _refuse_unkept(changes: Attributes, shown: ops.Attributes) -> None:
        """Only what is kept, or is so already, may be set."""
        same = changes.mode in {None, shown.mode} and changes.uid in {None, shown.uid}
        if not same or changes.gid not in {None, shown.gid}:
            refuse(errno.EOPNOTSUPP)
        if changes.atime_ns is not None and changes.mtime_ns is None:
            refuse(errno.EOPNOTSUPP)

    def _attributes_of_open(self, inode: Inode) -> ops.Attributes | None:
        """A file that has lost its name, or whose name leads to another by now, is what those see who have it open."""
        for file in list(inode.files):
            if isinstance(file, VolumeFile):
                ino = self._numbers.of_seed(file.ino_seed)
                attributes = attrs.of_entry(file.entry, ino, self._owner, self._started_ns)
                attributes.nlink = 0
                self._apply_kept(inode, file.entry, attributes)
                return attributes
        return None

    def _attributes_of_removed(self, inode: Inode, ino: int) -> ops.Attributes:
        """Of what no name leads to and nobody reads or writes: an open directory, or what is open with O_PATH."""
        entry = kept_of(inode).removed
        if entry is None:
            refuse(errno.ESTALE)  # another inode has come to its name, or nothing: the kernel looks
        attributes = attrs.of_entry(entry, ino, self._owner, self._started_ns)
        attributes.nlink = 0
        self._apply_kept(inode, entry, attributes)
        return attributes

    def _apply_kept(self, inode: Inode, entry: Entry, attributes: ops.Attributes) -> None:
        kept = kept_of(inode)
        if kept.mtime_ns is not None and entry.version is not None and kept.version != entry.version:
            # Set while the file was under change: it belongs to what that became. Otherwise somebody else changed it.
            first = kept.version is None
            kept = msgspec.structs.replace(
                kept, version=entry.version if first else None, mtime_ns=kept.mtime_ns if first else None
            )
            inode.state = kept
        stored = entry.attributes or Attributes()
        if kept.mode is not None and stored.mode is None:
            attributes.mode = stat.S_IFMT(attributes.mode) | kept.mode
        if kept.uid is not None and stored.uid is None:
            attributes.uid = kept.uid
        if kept.gid is not None and stored.gid is None:
            attributes.gid = kept.gid
        if kept.atime_ns is not None and stored.atime_ns is None:
            attributes.atime_ns = kept.atime_ns
        if kept.mtime_ns is not None and stored.mtime_ns is None:
            attributes.mtime_ns = kept.mtime_ns
        attributes.mtime_ns = max(attributes.mtime_ns, kept.entries_ns or attributes.mtime_ns)
        attributes.ctime_ns = max(attributes.ctime_ns, kept.changed_ns or attributes.ctime_ns)

    def _told(self, moment_ns: int) -> int:
        """A time as a request tells it."""
        return self._volume.clock.time_ns() if moment_ns == ops.NOW else moment_ns

    def _set_mtime(self, inode: Inode, mtime_ns: int) -> None:
        mtime_ns = self._told(mtime_ns)
        names = self._inodes.names(inode)
        path = '/'.join(names or ())
        if names is None or not path or not self._volume.set_mtime(path, mtime_ns):
            if self._is_strict:
                refuse(errno.EOPNOTSUPP)
            entry = self._volume.find(path).entry if path else None
            version = entry.version if entry is not None else None
            inode.state = msgspec.structs.replace(kept_of(inode), mtime_ns=mtime_ns, version=version)
