"""What is kept with an inode of a volume for the life of it, because no backend holds it.

Owns its form. Threads: it is replaced as a whole.
"""

import stat

import msgspec

from fusefs.inodes import Inode
from genro_storage.entry import Attributes, Entry, Version


class Kept(msgspec.Struct, frozen=True):
    """Attributes that were set on an inode and that the backend cannot hold; None where it was not set."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    #: The version that mtime_ns belongs to; None while it is under change.
    version: Version | None = None
    #: When it was last renamed or lost its name, or names in it came and went.
    changed_ns: int | None = None
    #: When names in a directory last came and went.
    entries_ns: int | None = None
    #: The next lookup of the name is to find a new inode.
    superseded: bool = False
    #: Of what has been removed: the seed of its number (InodeNumbers), and what was there, if that is known.
    seed: str | None = None
    removed: Entry | None = None


def kept_of(inode: Inode) -> Kept:
    """What is kept with an inode."""
    return inode.state if isinstance(inode.state, Kept) else Kept()


def keep_modes(inode: Inode, attributes: Attributes) -> None:
    """Keep with an inode what may be lost on its way: it is shown where nothing is stored."""
    kept = kept_of(inode)
    inode.state = msgspec.structs.replace(
        kept,
        mode=kept.mode if attributes.mode is None else stat.S_IMODE(attributes.mode),
        uid=kept.uid if attributes.uid is None else attributes.uid,
        gid=kept.gid if attributes.gid is None else attributes.gid,
        atime_ns=kept.atime_ns if attributes.atime_ns is None else attributes.atime_ns,
        mtime_ns=kept.mtime_ns if attributes.mtime_ns is None else attributes.mtime_ns,
    )


def forget_mtime(inode: Inode) -> None:
    """New content has a new time."""
    if inode.state is not None:
        inode.state = msgspec.structs.replace(kept_of(inode), mtime_ns=None, version=None)
