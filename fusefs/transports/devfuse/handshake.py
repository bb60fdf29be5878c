"""INIT: what the kernel and this server agree on before the first real request.

Owns the version, the flags and the limits that are asked for, each with its reason. Does not read or write the
descriptor (channel). Pure functions: the whole exchange happens before any thread starts.
"""

import errno
import mmap
from typing import NamedTuple

from fusefs.transports.devfuse import abi
from fusefs.transports.devfuse.abi import InitFlag, InitFlag2

#: The most that a kernel moves in one request by default (fs.fuse.max_pages_limit): 256 pages of 4 KiB. Few large
#: requests are what lets a server in Python keep up on sequential I/O.
MAX_WRITE_BYTES = 1 << 20
MAX_READAHEAD_BYTES = 1 << 20

#: Requests in flight that nobody waits for, readahead above all. One connection is shared by all mounts: with 64, the
#: stalled readahead of one file delayed another file's read by 7 s; with 4096 not at all (measured, kernel 6.18).
#: Without CAP_SYS_ADMIN the kernel lowers it to /sys/module/fuse/parameters/max_user_bgreq.
MAX_BACKGROUND = 4096

# EXPLICIT_INVAL_DATA and not AUTO: pages are dropped when the file system says so, not at each new mtime.
# HANDLE_KILLPRIV_V2 saves a GETXATTR on each write. Not WRITEBACK_CACHE: the kernel would own size and mtime, and it
# excludes passthrough. Not POSIX_ACL: ACLs that are negotiated and not enforced are worse than none.
WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.BIG_WRITES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.EXPLICIT_INVAL_DATA
    | InitFlag.HANDLE_KILLPRIV_V2
    | InitFlag.INIT_EXT
)
# DIRECT_IO_ALLOW_MMAP: what a program has opened with O_DIRECT can be mapped too, as on any disk; the kernel keeps both
# the same.
WANTED2 = InitFlag2.DIRECT_IO_ALLOW_MMAP | InitFlag2.PASSTHROUGH

#: A backing file may not be of a file system that is stacked on another (overlayfs): with 2 it might, but then nobody
#: could put an overlayfs on top of the mounted tree (FILESYSTEM_MAX_STACK_DEPTH is 2).
MAX_STACK_DEPTH = 1


class HandshakeError(Exception):
    """The kernel and this server speak no common version of the protocol."""


class InitAnswer(NamedTuple):
    """What to write back; error is None once both sides agree, or when the kernel will offer another version."""

    message: bytes
    agreed: bool
    error: HandshakeError | None = None
    #: Files can be handed to the kernel.
    passthrough: bool = False


def answer_init(buffer: memoryview, length: int) -> InitAnswer:
    """Answer the kernel's first request. Raises HandshakeError if it is no INIT at all."""
    if length < abi.IN_HEADER.size + abi.INIT_IN.size:
        raise HandshakeError(f'the first request has {length} bytes and cannot be INIT')
    _, opcode, unique, *_ = abi.IN_HEADER.unpack_from(buffer)
    if opcode != abi.Opcode.INIT:
        raise HandshakeError(f'the first request is opcode {opcode}, not INIT: is another server reading this mount?')
    major, minor, readahead_bytes, flags = abi.INIT_IN.unpack_from(buffer, abi.IN_HEADER.size)
    if major > abi.VERSION_MAJOR:
        # The kernel then offers the version that is named here ("Protocol negotiation" in linux/fuse.h).
        return InitAnswer(_message(unique, 0, abi.INIT_OUT.pack(abi.VERSION_MAJOR, *[0] * 12)), agreed=False)
    if (major, minor) < (abi.VERSION_MAJOR, abi.VERSION_MINOR_LOWEST):
        lowest = f'{abi.VERSION_MAJOR}.{abi.VERSION_MINOR_LOWEST}'
        error = HandshakeError(f'the kernel speaks FUSE {major}.{minor}; {lowest} (Linux 5.4) or newer is needed')
        return InitAnswer(_message(unique, errno.EPROTO, b''), agreed=False, error=error)
    flags2 = 0
    extended_at = abi.IN_HEADER.size + abi.INIT_IN.size
    if flags & InitFlag.INIT_EXT and length >= extended_at + abi.INIT_IN_EXT.size:
        (flags2,) = abi.INIT_IN_EXT.unpack_from(buffer, extended_at)
    terms = _terms(minor, readahead_bytes, flags, flags2)
    return InitAnswer(_message(unique, 0, terms), agreed=True, passthrough=bool(flags2 & InitFlag2.PASSTHROUGH))


def _terms(minor: int, readahead_bytes: int, flags: int, flags2: int) -> bytes:
    return abi.INIT_OUT.pack(
        abi.VERSION_MAJOR,
        min(minor, abi.VERSION_MINOR),
        min(readahead_bytes, MAX_READAHEAD_BYTES),
        flags & WANTED,
        MAX_BACKGROUND,
        # Above so many the kernel calls the device congested and reads ahead no further; its own default is 3/4 too.
        MAX_BACKGROUND * 3 // 4,
        MAX_WRITE_BYTES,
        1,  # time_gran: times are kept to the nanosecond
        MAX_WRITE_BYTES // mmap.PAGESIZE,
        0,  # map_alignment: DAX only
        flags2 & WANTED2,
        MAX_STACK_DEPTH if flags2 & InitFlag2.PASSTHROUGH else 0,
        0,  # request_timeout: a request may take as long as the mount's own timeout lets it
    )


def _message(unique: int, error: int, body: bytes) -> bytes:
    return abi.OUT_HEADER.pack(abi.OUT_HEADER.size + len(body), -error, unique) + body
