"""The kernel's FUSE protocol as linux/fuse.h has it: opcodes, flags and the layouts of its structures.

Owns numbers and struct layouts, each under the name of the header without its FUSE_ prefix. Does not know what they
mean to anybody: decoding and encoding do. Pure, without state.

Every layout is naturally aligned and padded to 8 bytes in the header, so ``=`` (native order, no padding of
Python's own) describes it. Times are unsigned there and cast to signed by the kernel, hence ``q``: a file may be
older than 1970.
"""

import enum
from struct import Struct

VERSION_MAJOR = 7
#: What this was written against; the kernel and the server then speak the lower of both minors.
VERSION_MINOR = 45
#: 5.4 to 6.0 kernels speak 7.31 and more; older ones lack flags that correctness depends on (EXPLICIT_INVAL_DATA).
VERSION_MINOR_LOWEST = 31


class Opcode(enum.IntEnum):
    """enum fuse_opcode: those that are decoded, or that need more than ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


#: Nobody waits for an answer to these, and to send one is an error.
WITHOUT_REPLY = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})


class InitFlag(enum.IntFlag):
    """FUSE_… flags of INIT."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30


class InitFlag2(enum.IntFlag):
    """FUSE_… flags of INIT from bit 32 on, as they stand in its second word (since 7.36, with INIT_EXT)."""

    DIRECT_IO_ALLOW_MMAP = 1 << 36 - 32
    PASSTHROUGH = 1 << 37 - 32


# FATTR_…: which fields of setattr_in count.
FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_FH = 1 << 6
FATTR_ATIME_NOW = 1 << 7
FATTR_MTIME_NOW = 1 << 8
FATTR_KILL_SUIDGID = 1 << 11

GETATTR_FH = 1 << 0  # of STATX too
FSYNC_FDATASYNC = 1 << 0
WRITE_KILL_SUIDGID = 1 << 2
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NOFLUSH = 1 << 5
FOPEN_PASSTHROUGH = 1 << 7

# STATX_… (linux/stat.h): what of a statx counts.
STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800

NOTIFY_INVAL_INODE = 2
NOTIFY_INVAL_ENTRY = 3
#: In notify_inval_entry_out: have the name looked up again, but drop nothing below it. Older kernels (6.1) drop.
EXPIRE_ONLY = 1 << 0

# ioctls of the descriptor, _IOW(229, nr, structure).
DEV_IOC_BACKING_OPEN = 1 << 30 | 16 << 16 | 229 << 8 | 1
DEV_IOC_BACKING_CLOSE = 1 << 30 | 4 << 16 | 229 << 8 | 2
BACKING_MAP = Struct('=iIQ')  # fd flags padding; the result of the ioctl is the backing id
BACKING_ID = Struct('=I')

# Requests: fuse_in_header, then one of these, then names (each with its NUL) or data.
IN_HEADER = Struct('=IIQQIIII')  # len opcode unique nodeid uid gid pid (total_extlen, padding)
FORGET_IN = Struct('=Q')  # nlookup
BATCH_FORGET_IN = Struct('=II')  # count dummy
FORGET_ONE = Struct('=QQ')  # nodeid nlookup
GETATTR_IN = Struct('=IIQ')  # getattr_flags dummy fh
# valid padding fh size lock_owner; atime mtime ctime; their nsec; mode unused4 uid gid unused5
SETATTR_IN = Struct('=II3Q3q3I5I')
MKNOD_IN = Struct('=4I')  # mode rdev umask padding
MKDIR_IN = Struct('=II')  # mode umask
RENAME_IN = Struct('=Q')  # newdir
RENAME2_IN = Struct('=QII')  # newdir flags padding
LINK_IN = Struct('=Q')  # oldnodeid
OPEN_IN = Struct('=II')  # flags open_flags
CREATE_IN = Struct('=4I')  # flags mode umask open_flags
RELEASE_IN = Struct('=QIIQ')  # fh flags release_flags lock_owner
FLUSH_IN = Struct('=QIIQ')  # fh unused padding lock_owner
READ_IN = Struct('=QQIIQII')  # fh offset size read_flags lock_owner flags padding
WRITE_IN = Struct('=QQIIQII')  # fh offset size write_flags lock_owner flags padding
FSYNC_IN = Struct('=QII')  # fh fsync_flags padding
SETXATTR_IN = Struct('=II')  # size flags (longer only with SETXATTR_EXT, which is not asked for)
GETXATTR_IN = Struct('=II')  # size padding; of LISTXATTR too
ACCESS_IN = Struct('=II')  # mask padding
FALLOCATE_IN = Struct('=3QII')  # fh offset length mode padding
LSEEK_IN = Struct('=QqII')  # fh offset whence padding; the kernel copies a signed offset into an unsigned field
COPY_FILE_RANGE_IN = Struct('=7Q')  # fh_in off_in; nodeid_out fh_out off_out; len flags
STATX_IN = Struct('=IIQII')  # getattr_flags reserved fh sx_flags sx_mask
INIT_IN = Struct('=4I')  # major minor max_readahead flags
INIT_IN_EXT = Struct('=I')  # flags2, behind that with INIT_EXT; spare words follow
INTERRUPT_IN = Struct('=Q')  # unique

# Replies: fuse_out_header, then one of these or data. A notification has unique 0 and its code as error.
OUT_HEADER = Struct('=IiQ')  # len error unique
ENTRY_OUT = Struct('=4QII')  # nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec; attr follows
ATTR_OUT = Struct('=QII')  # attr_valid attr_valid_nsec dummy; attr follows
# ino size blocks; atime mtime ctime; their nsec; mode nlink uid gid rdev blksize flags
ATTR = Struct('=3Q3q3I7I')
OPEN_OUT = Struct('=QIi')  # fh open_flags backing_id
WRITE_OUT = Struct('=II')  # size padding; of COPY_FILE_RANGE too
COPY_FILE_RANGE_OUT = Struct('=Q')  # bytes_copied; of COPY_FILE_RANGE_64
LSEEK_OUT = Struct('=Q')  # offset
STATX_OUT = Struct('=QII16x')  # attr_valid attr_valid_nsec flags; spare; statx follows
# mask blksize attributes; nlink uid gid mode; ino size blocks attributes_mask; seconds and nsec of atime, btime, ctime
# and mtime; major and minor of rdev and of dev; spare
STATX = Struct('=IIQIIIH2x4Q' + 'qI4x' * 4 + '4I112x')
GETXATTR_OUT = Struct('=II')  # size padding
STATFS_OUT = Struct('=5Q4I24x')  # blocks bfree bavail files ffree; bsize namelen frsize padding; spare
DIRENT = Struct('=QQII')  # ino off namelen type; the name follows, padded to 8
# major minor max_readahead flags; max_background congestion_threshold; max_write time_gran;
# max_pages map_alignment; flags2 max_stack_depth request_timeout; spare
INIT_OUT = Struct('=4IHHIIHHIIH22x')
NOTIFY_INVAL_INODE_OUT = Struct('=Qqq')  # ino off len
NOTIFY_INVAL_ENTRY_OUT = Struct('=QII')  # parent namelen flags; the name follows with its NUL
