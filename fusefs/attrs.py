"""Entry → attributes: what a remote file looks like to stat(2).

Owns the defaults for owner and mode (promise: nobody else gets in) and inode numbers that stay the same. Pure, but
for the user and group of the process.
"""

import hashlib
import os
import stat

import msgspec

from fusefs.ops import Attributes
from genro_storage import paths
from genro_storage.config import Definition, Permissions
from genro_storage.entry import Entry, Kind

BLOCK_BYTES = 512


class Ownership(msgspec.Struct, frozen=True):
    """Who owns the entries of a remote mount, and what others may do."""

    uid: int
    gid: int
    file_mode: int
    directory_mode: int

    @classmethod
    def of(cls, definition: Definition) -> 'Ownership':
        """As the definition says; else of the mounting user, and of nobody else."""
        umask = 0o077 if definition.umask is None else definition.umask
        writable = 0o777 if definition.permissions is not Permissions.READONLY else 0o555
        return cls(
            os.getuid() if definition.uid is None else definition.uid,
            os.getgid() if definition.gid is None else definition.gid,
            0o666 & ~umask & writable,
            0o777 & ~umask & writable,
        )


def stable_ino(mount: str, path: str) -> int:
    """An inode number that is the same in every run, as git and tar expect: 63 bits of a hash of the full path."""
    digest = hashlib.blake2b(f'{mount}:'.encode() + paths.encode(path), digest_size=8).digest()
    # 0 and 1 mean something to programs (no inode; the root), and the top bit scares 64-bit signed readers.
    return int.from_bytes(digest, 'little') >> 1 | 2


def blocks_of(size_bytes: int) -> int:
    """st_blocks of a file without holes: less would make cp look for some."""
    return (size_bytes + BLOCK_BYTES - 1) // BLOCK_BYTES


def of_entry(entry: Entry, ino: int, owner: Ownership, started_ns: int) -> Attributes:
    """The attributes of a remote entry; started_ns is the time of directories that are only implied and have none."""
    if entry.is_directory:
        mode, size_bytes, nlink = stat.S_IFDIR | owner.directory_mode, 0, 2
        mtime_ns = entry.mtime_ns or started_ns
    else:
        mode, size_bytes, nlink = stat.S_IFREG | owner.file_mode, entry.size_bytes, 1
        mtime_ns = entry.mtime_ns
    stored = entry.attributes
    if stored is None:
        return _attributes(ino, mode, size_bytes, nlink, owner, mtime_ns)
    if stored.mode is not None:
        kind = stat.S_IFMT(stored.mode) if entry.kind is Kind.OTHER else stat.S_IFMT(mode)
        mode = kind | stat.S_IMODE(stored.mode)
    mtime_ns = mtime_ns if stored.mtime_ns is None else stored.mtime_ns
    found = _attributes(ino, mode, size_bytes, nlink, owner, mtime_ns)
    found.uid = owner.uid if stored.uid is None else stored.uid
    found.gid = owner.gid if stored.gid is None else stored.gid
    found.atime_ns = found.atime_ns if stored.atime_ns is None else stored.atime_ns
    found.ctime_ns = found.ctime_ns if stored.ctime_ns is None else stored.ctime_ns
    found.rdev = stored.rdev or 0
    return found


def _attributes(ino: int, mode: int, size_bytes: int, nlink: int, owner: Ownership, mtime_ns: int) -> Attributes:
    return Attributes(
        ino=ino,
        mode=mode,
        size_bytes=size_bytes,
        blocks=blocks_of(size_bytes),
        atime_ns=mtime_ns,
        mtime_ns=mtime_ns,
        ctime_ns=mtime_ns,
        nlink=nlink,
        uid=owner.uid,
        gid=owner.gid,
    )
