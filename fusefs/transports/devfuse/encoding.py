"""Replies and notifications to bytes of the kernel's protocol: the second half of the codec.

Does no I/O; INIT's reply is handshake's. Pure functions without state: safe from every thread. Hot, as decoding is.
"""

import os
from collections.abc import Callable
from typing import Any

from fusefs import ops
from fusefs.transports.devfuse import abi

#: What one reply is made of, for writev.
Buffers = list[bytes | bytearray | memoryview]

#: The kernel turns a timeout into jiffies and caps it; ten years are "for ever" and fit everywhere.
LONGEST_TTL_S = 10 * 365 * 86400

_HEADER_BYTES = abi.OUT_HEADER.size
_SECOND_NS = 1_000_000_000
_pack_header = abi.OUT_HEADER.pack
_pack_attr = abi.ATTR.pack


def encode(request: ops.Request, reply: ops.Reply) -> Buffers:
    """The buffers that answer a request, for one writev; a payload is passed on as it is.

    Raises struct.error and the like for values that do not fit the protocol: a mistake of whoever made the reply.
    """
    return _ENCODERS[type(reply)](request, reply)


def encode_failure(unique: int, errno: int) -> bytes:
    """The answer to a request that never became a value."""
    return _pack_header(_HEADER_BYTES, -errno, unique)


def encode_inval_inode(nodeid: int, offset: int, size_bytes: int) -> bytes:
    """A notification: attributes and pages of an inode are no longer right; with offset -1 only attributes."""
    body = abi.NOTIFY_INVAL_INODE_OUT.pack(nodeid, offset, size_bytes)
    return _pack_header(_HEADER_BYTES + len(body), abi.NOTIFY_INVAL_INODE, 0) + body


def encode_inval_entry(parent: int, name: str) -> bytes:
    """A notification: a name may no longer be right."""
    raw = name.encode('utf-8', 'surrogateescape')
    # Only expired: to drop a directory would take it from under whoever works in it, though it may be the same still.
    body = abi.NOTIFY_INVAL_ENTRY_OUT.pack(parent, len(raw), abi.EXPIRE_ONLY) + raw + b'\0'
    return _pack_header(_HEADER_BYTES + len(body), abi.NOTIFY_INVAL_ENTRY, 0) + body


def _small(request: ops.Request, body: bytes) -> Buffers:
    return [_pack_header(_HEADER_BYTES + len(body), 0, request.unique) + body]


def _payload(request: ops.Request, data: bytes) -> Buffers:
    return [_pack_header(_HEADER_BYTES + len(data), 0, request.unique), data]


def _view(request: ops.Request, data: memoryview) -> Buffers:
    return [_pack_header(_HEADER_BYTES + data.nbytes, 0, request.unique), data]


def _pieces(request: ops.Request, pieces: list[memoryview]) -> Buffers:
    header = _pack_header(_HEADER_BYTES + sum(piece.nbytes for piece in pieces), 0, request.unique)
    return [header, *pieces]


def _nothing(request: ops.Request, _reply: None) -> Buffers:
    return [_pack_header(_HEADER_BYTES, 0, request.unique)]


def _failure(request: ops.Request, reply: ops.Failure) -> Buffers:
    return [_pack_header(_HEADER_BYTES, -reply.errno, request.unique)]


def _ttl(ttl_s: float) -> tuple[int, int]:
    """Whole seconds and nanoseconds, within what the kernel takes."""
    if ttl_s <= 0:
        return 0, 0
    if ttl_s >= LONGEST_TTL_S:
        return LONGEST_TTL_S, 0
    seconds = int(ttl_s)
    return seconds, int((ttl_s - seconds) * _SECOND_NS)


def _attributes(of: ops.Attributes) -> bytes:
    atime, atime_nsec = divmod(of.atime_ns, _SECOND_NS)
    mtime, mtime_nsec = divmod(of.mtime_ns, _SECOND_NS)
    ctime, ctime_nsec = divmod(of.ctime_ns, _SECOND_NS)
    # fmt: off
    return _pack_attr(
        of.ino, of.size_bytes, of.blocks,
        atime, mtime, ctime, atime_nsec, mtime_nsec, ctime_nsec,
        of.mode, of.nlink, of.uid, of.gid, of.rdev, of.blksize, 0,
    )
    # fmt: on


def _statx(of: ops.Attributes) -> bytes:
    mask = abi.STATX_BASIC_STATS | (0 if of.btime_ns is None else abi.STATX_BTIME)
    return abi.STATX.pack(
        *(mask, of.blksize, 0),
        *(of.nlink, of.uid, of.gid, of.mode),
        *(of.ino, of.size_bytes, of.blocks, 0),
        *divmod(of.atime_ns, _SECOND_NS),
        *divmod(of.btime_ns or 0, _SECOND_NS),
        *divmod(of.ctime_ns, _SECOND_NS),
        *divmod(of.mtime_ns, _SECOND_NS),
        *(os.major(of.rdev), os.minor(of.rdev), 0, 0),
    )


_NO_ATTRIBUTES = bytes(abi.ATTR.size)
_NO_ENTRY = bytes(abi.ENTRY_OUT.size + abi.ATTR.size)


def _entry_out(entry: ops.EntryReply) -> bytes:
    entry_s, entry_nsec = _ttl(entry.entry_ttl_s)
    attr_s, attr_nsec = _ttl(entry.attributes_ttl_s)
    attributes = _attributes(entry.attributes) if entry.attributes is not None else _NO_ATTRIBUTES
    # Generation 0: a nodeid is never given to another inode within a connection.
    return abi.ENTRY_OUT.pack(entry.nodeid, 0, entry_s, attr_s, entry_nsec, attr_nsec) + attributes


def _open_out(opened: ops.Opened) -> bytes:
    flags = (
        (abi.FOPEN_DIRECT_IO if opened.direct_io else 0)
        | (abi.FOPEN_KEEP_CACHE if opened.keep_cache else 0)
        | (abi.FOPEN_NOFLUSH if opened.no_flush else 0)
        | (abi.FOPEN_PASSTHROUGH if opened.backing_id else 0)
    )
    return abi.OPEN_OUT.pack(opened.fh, flags, opened.backing_id)


def _entry_reply(request: ops.Request, reply: ops.EntryReply) -> Buffers:
    return _small(request, _entry_out(reply))


def _attributes_reply(request: ops.Request, reply: ops.AttributesReply) -> Buffers:
    if type(request) is ops.Statx:
        return _small(request, abi.STATX_OUT.pack(*_ttl(reply.ttl_s), 0) + _statx(reply.attributes))
    return _small(request, abi.ATTR_OUT.pack(*_ttl(reply.ttl_s), 0) + _attributes(reply.attributes))


def _opened(request: ops.Request, reply: ops.Opened) -> Buffers:
    return _small(request, _open_out(reply))


def _created(request: ops.Request, reply: ops.Created) -> Buffers:
    return _small(request, _entry_out(reply.entry) + _open_out(reply.opened))


def _written(request: ops.Request, reply: ops.Written) -> Buffers:
    if type(request) is ops.CopyFileRange and request.is_long:
        return _small(request, abi.COPY_FILE_RANGE_OUT.pack(reply.size_bytes))
    return _small(request, abi.WRITE_OUT.pack(reply.size_bytes, 0))


def _position(request: ops.Request, reply: ops.Position) -> Buffers:
    return _small(request, abi.LSEEK_OUT.pack(reply.offset))


def _xattr_size(request: ops.Request, reply: ops.XattrSize) -> Buffers:
    return _small(request, abi.GETXATTR_OUT.pack(reply.size_bytes, 0))


def _statfs_reply(request: ops.Request, of: ops.StatfsReply) -> Buffers:
    body = abi.STATFS_OUT.pack(
        *(of.blocks, of.blocks_free, of.blocks_available, of.files, of.files_free),
        *(of.block_size, of.name_max, of.block_size, 0),
    )
    return _small(request, body)


# A name is padded with NULs to 8 bytes: _PADDING[n % 8].
_PADDING = [b'\0' * (-n % 8) for n in range(8)]


def _listing(request: ops.Request, reply: ops.Listing) -> Buffers:
    plus = isinstance(request, ops.Readdir) and request.plus
    parts: list[bytes] = []
    add = parts.append
    for entry in reply.entries:
        if plus:
            # Nodeid 0 in a listing means "name only" and not "absent" (fs/fuse/readdir.c, fuse_direntplus_link).
            add(_NO_ENTRY if entry.entry is None else _entry_out(entry.entry))
        name = entry.name.encode('utf-8', 'surrogateescape')
        add(abi.DIRENT.pack(entry.ino, entry.next_offset, len(name), entry.mode >> 12))
        add(name)
        add(_PADDING[len(name) % 8])
    return _payload(request, b''.join(parts))


# Found by the exact type: a chain of isinstance costs as much as the packing. Any: each takes its own type of reply.
_ENCODERS: dict[type, Callable[[ops.Request, Any], Buffers]] = {
    ops.EntryReply: _entry_reply,
    ops.AttributesReply: _attributes_reply,
    ops.Opened: _opened,
    ops.Created: _created,
    ops.Written: _written,
    ops.Position: _position,
    ops.XattrSize: _xattr_size,
    ops.StatfsReply: _statfs_reply,
    ops.Listing: _listing,
    ops.Failure: _failure,
    bytes: _payload,
    bytearray: _payload,
    memoryview: _view,
    list: _pieces,
    type(None): _nothing,
}
