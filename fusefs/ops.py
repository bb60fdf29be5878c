"""One value per FUSE request, one per reply: what the kernel asks and what it is told, without the bytes.

Owns the vocabulary between transports and the file system; knows neither. The comments say when the *kernel* sends
each request (linux/fs/fuse, kernel 6.18), because that is where file systems go wrong.

Names and link targets are str with surrogateescape. Times are nanoseconds since 1970.
"""

import msgspec

ROOT_NODEID = 1

# Sizes on the wire (linux/fuse.h): a directory reply must fit the size that the kernel asked for, and only the
# file system knows which entries it counts as looked up.
DIRENT_BYTES = 24
DIRENTPLUS_BYTES = 128 + DIRENT_BYTES


def direntry_bytes(name_bytes: int, *, plus: bool) -> int:
    """The room that an entry takes in a directory reply: header and name, padded to 8 bytes."""
    return ((DIRENTPLUS_BYTES if plus else DIRENT_BYTES) + name_bytes + 7) & ~7


class Request(msgspec.Struct, gc=False):
    """What every request carries: its number, the inode it is about, and who asks."""

    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int


class Lookup(Request, gc=False):
    """A name below a directory inode; raises the lookup count of what it finds by one."""

    name: str


class Forget(Request, gc=False):
    """The kernel dropped inodes: (nodeid, count) pairs to take from lookup counts. Has no reply."""

    forgotten: list[tuple[int, int]]


class Getattr(Request, gc=False):
    """stat(2), when the cached attributes are older than their TTL. fh only for fstat on some paths."""

    fh: int | None


class Statx(Request, gc=False):
    """statx(2) that asks for the time of birth; otherwise as Getattr, and the reply is the same."""

    fh: int | None


class Setattr(Request, gc=False):
    """chmod, chown, truncate, utimensat, and open with O_TRUNC where atomic truncation is off. None: leave as it is.

    For the times, NOW means the time of the server.
    """

    fh: int | None
    mode: int | None
    new_uid: int | None
    new_gid: int | None
    size_bytes: int | None
    atime_ns: int | None
    mtime_ns: int | None
    #: HANDLE_KILLPRIV_V2: drop set-id bits with this truncation.
    kill_suidgid: bool

    @property
    def names_nothing(self) -> bool:
        """chown(2) to nobody, or what comes before a write to a file with set-id bits; both may be by anybody."""
        values = (self.mode, self.new_uid, self.new_gid, self.size_bytes, self.atime_ns, self.mtime_ns)
        return all(value is None for value in values)


NOW = -1  # a time of Setattr; no file is that precise about 1969


class Readlink(Request, gc=False):
    """The target of a symbolic link. The reply is bytes."""


class Symlink(Request, gc=False):
    """Make a symbolic link; nodeid is the parent."""

    name: str
    target: str


class Mknod(Request, gc=False):
    """Make a FIFO, socket or device; a regular file only where CREATE is refused."""

    name: str
    mode: int
    rdev: int
    umask: int


class Mkdir(Request, gc=False):
    """Make a directory; nodeid is the parent. The mode has the umask applied already."""

    name: str
    mode: int
    umask: int


class Unlink(Request, gc=False):
    """Remove a name that is no directory. The inode lives on while it is open."""

    name: str


class Rmdir(Request, gc=False):
    """Remove a directory that should be empty."""

    name: str


class Rename(Request, gc=False):
    """rename(2) and renameat2(2). Across directories the kernel holds a lock of the whole file system meanwhile."""

    name: str
    new_parent: int
    new_name: str
    flags: int


class Link(Request, gc=False):
    """A further name (in directory nodeid) for the inode source."""

    source: int
    name: str


class Open(Request, gc=False):
    """One per open(2) of an existing file. flags are open's without O_CREAT, O_EXCL, O_NOCTTY."""

    flags: int


class Create(Request, gc=False):
    """open(2) with O_CREAT where nothing is known to be there: lookup, creation and open in one."""

    name: str
    flags: int
    mode: int
    umask: int


class Tmpfile(Request, gc=False):
    """open(2) with O_TMPFILE: a file in directory nodeid that has no name, until a Link gives it one.

    The reply is Created, with an entry that nobody can look up. Without O_EXCL in flags it may be linked later.
    """

    flags: int
    mode: int
    umask: int


class Read(Request, gc=False):
    """A page-cache miss or direct read; a short reply is the end of file. Readahead sends several, in any order."""

    fh: int
    offset: int
    size_bytes: int
    flags: int


class Write(Request, gc=False):
    """Write-through. data is only valid until the dispatch of the request returns."""

    fh: int
    offset: int
    data: memoryview | bytes
    flags: int
    #: HANDLE_KILLPRIV_V2: drop set-id bits with this write.
    kill_suidgid: bool


class CopyFileRange(Request, gc=False):
    """copy_file_range(2) between two open files of the mounted tree; nodeid, fh and offset are the source's.

    Fewer bytes than asked for is no error: programs go on behind them. On EOPNOTSUPP and EXDEV the kernel reads and
    writes instead, so that a program never sees either. It has cut the range off at the source's size, and drops
    cached pages of what was copied.
    """

    fh: int
    offset: int
    out_nodeid: int
    out_fh: int
    out_offset: int
    size_bytes: int
    flags: int
    #: FUSE_COPY_FILE_RANGE_64: the range, and so the answer, may be longer than 4 GiB.
    is_long: bool = False


class Fallocate(Request, gc=False):
    """fallocate(2); mode has FALLOC_FL_* bits: KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE. Others the kernel refuses itself.

    Sent for files too that the kernel reads and writes by itself. It waits with the inode locked.
    """

    fh: int
    offset: int
    size_bytes: int
    mode: int


class Lseek(Request, gc=False):
    """lseek(2) with SEEK_DATA or SEEK_HOLE; the others the kernel answers itself. The reply is Position.

    offset as the program gave it: it may be negative. It waits with the inode locked.
    """

    fh: int
    offset: int
    whence: int


class Flush(Request, gc=False):
    """Each close(2) of each duplicate of a descriptor: zero or more times per open, and writing may follow."""

    fh: int
    lock_owner: int


class Fsync(Request, gc=False):
    """fsync(2), or fdatasync(2) with data_only; of a directory with is_directory."""

    fh: int
    data_only: bool
    is_directory: bool


class Release(Request, gc=False):
    """The last descriptor of an open file is gone: once per Open or Create, and nobody waits for the reply."""

    fh: int
    is_directory: bool


class Opendir(Request, gc=False):
    """One per opendir(3)."""

    flags: int


class Readdir(Request, gc=False):
    """Entries behind offset (0: from the start; else the next_offset of the last one received).

    With plus, each entry returned but '.' and '..' raises a lookup count, as Lookup does.
    """

    fh: int
    offset: int
    size_bytes: int
    plus: bool


class Statfs(Request, gc=False):
    """statfs(2), and df's walk over all mounts."""


class Access(Request, gc=False):
    """access(2), only without default_permissions."""

    mask: int


class Getxattr(Request, gc=False):
    """The value of an attribute, or with size_bytes 0 its length (XattrSize)."""

    name: str
    size_bytes: int


class Listxattr(Request, gc=False):
    """NUL-terminated names, or with size_bytes 0 their total length (XattrSize)."""

    size_bytes: int


class Setxattr(Request, gc=False):
    """Set an attribute; flags are setxattr(2)'s."""

    name: str
    value: bytes
    flags: int


class Removexattr(Request, gc=False):
    """Remove an attribute."""

    name: str


class Interrupt(Request, gc=False):
    """A signal reached whoever waits for the request with number target. Has no reply of its own."""

    target: int


class Attributes(msgspec.Struct, gc=False):
    """What stat(2) returns."""

    ino: int
    mode: int
    size_bytes: int = 0
    #: In units of 512 bytes; must cover size_bytes, or cp looks for holes.
    blocks: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    blksize: int = 4096
    #: None where it is not known.
    btime_ns: int | None = None


class EntryReply(msgspec.Struct, gc=False):
    """A name that was found (its inode counts one lookup more), or with nodeid 0 one that is known to be absent."""

    nodeid: int
    attributes: Attributes | None
    entry_ttl_s: float
    attributes_ttl_s: float


class AttributesReply(msgspec.Struct, gc=False):
    """Attributes and how long they may be believed."""

    attributes: Attributes
    ttl_s: float


class Opened(msgspec.Struct, gc=False):
    """A file handle. direct_io: no page cache; keep_cache: what the page cache holds is still right.

    no_flush: nothing can be written through it, so its closes need not be told. backing_id: the kernel reads and
    writes that file itself (Transport.open_backing), 0 for none; it excludes keep_cache, and while an inode is open
    all its opens have the same.
    """

    fh: int
    direct_io: bool = False
    keep_cache: bool = False
    no_flush: bool = False
    backing_id: int = 0


class Created(msgspec.Struct, gc=False):
    """The reply to Create and Tmpfile."""

    entry: EntryReply
    opened: Opened


class Written(msgspec.Struct, gc=False):
    """How many bytes were taken, or copied."""

    size_bytes: int


class Position(msgspec.Struct, gc=False):
    """The reply to Lseek, in bytes from the start."""

    offset: int


class XattrSize(msgspec.Struct, gc=False):
    """The room that a value or a list of names needs."""

    size_bytes: int


class StatfsReply(msgspec.Struct, gc=False):
    """statfs(2), sizes in blocks of block_size."""

    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int
    block_size: int = 4096
    name_max: int = 255


class DirectoryEntry(msgspec.Struct, gc=False):
    """One entry of a Listing: mode for its type bits only; entry for Readdir with plus, None for '.' and '..'."""

    name: str
    ino: int
    mode: int
    next_offset: int
    entry: EntryReply | None


class Listing(msgspec.Struct, gc=False):
    """The reply to Readdir; empty at the end. Fits the size that was asked for (direntry_bytes)."""

    entries: list[DirectoryEntry]


class Failure(msgspec.Struct, gc=False, frozen=True):
    """The reply to any request that did not succeed."""

    errno: int


#: What was read: in one piece, or in several that follow each other.
Data = bytes | memoryview | list[memoryview]

#: Data: Read. bytes: Readlink, Getxattr, Listxattr too. None: success without a payload.
Reply = (
    EntryReply
    | AttributesReply
    | Opened
    | Created
    | Written
    | Position
    | XattrSize
    | StatfsReply
    | Listing
    | Failure
    | Data
    | None
)
