"""Bytes of the kernel's protocol to requests: the first half of the codec.

Owns what makes a request malformed. Does no I/O and attaches no meaning; INIT, whose meaning is the connection
itself, is handshake's.

Pure functions without state: safe from every thread. This is the hot path: a stat(2) passes through here twice
within some 10 µs of Python, so every opcode has its own function, found in a table, and data are never copied.
"""

from collections.abc import Callable

from fusefs import ops
from fusefs.transports.devfuse import abi
from fusefs.transports.devfuse.abi import Opcode

#: unique, nodeid, uid, gid, pid: how every request begins.
Head = tuple[int, int, int, int, int]

_BODY = abi.IN_HEADER.size
_SECOND_NS = 1_000_000_000
_unpack_header = abi.IN_HEADER.unpack_from


class RequestError(Exception):
    """A request that never becomes a value; unique is the number to answer, None if nothing may be answered."""

    def __init__(self, message: str, opcode: int, unique: int | None) -> None:
        super().__init__(message)
        self.opcode = opcode
        self.unique = unique


class ProtocolError(RequestError):
    """A request that is not what linux/fuse.h says: too short, or a name without its end."""


class UnknownOpcodeError(RequestError):
    """A request that nothing here decodes; the kernel copes with ENOSYS, and for most does not ask again."""


def decode(buffer: memoryview, length: int) -> ops.Request:
    """The request in the first length bytes. Raises ProtocolError, UnknownOpcodeError.

    Write.data is a view into the buffer.
    """
    if length < _BODY:
        raise ProtocolError(f'a request of {length} bytes has no whole header', 0, None)
    size_bytes, opcode, unique, nodeid, uid, gid, pid, _ = _unpack_header(buffer)
    found = _DECODERS.get(opcode)
    if found is None:
        raise UnknownOpcodeError(f'opcode {opcode} is not served', opcode, _waiting(opcode, unique))
    shortest, decoder = found
    try:
        if length < shortest or length != size_bytes:
            raise _Malformed(f'{length} bytes received, {size_bytes} announced, {shortest} or more expected')
        return decoder(buffer[_BODY:length], (unique, nodeid, uid, gid, pid))
    except _Malformed as error:
        message = f'malformed {Opcode(opcode).name} request: {error}'
        raise ProtocolError(message, opcode, _waiting(opcode, unique)) from None


def _waiting(opcode: int, unique: int) -> int | None:
    return None if opcode in abi.WITHOUT_REPLY else unique


class _Malformed(Exception):  # noqa: N818 - becomes a ProtocolError once the opcode is known
    pass


def _name(body: memoryview, start: int = 0) -> str:
    if len(body) < start + 2 or body[-1]:
        raise _Malformed('no name, or no NUL behind it')
    name = str(body[start:-1], 'utf-8', 'surrogateescape')
    if '\0' in name:
        raise _Malformed('a NUL inside the name')
    return name


def _two_names(body: memoryview, start: int = 0) -> tuple[str, str]:
    first, nul, second = bytes(body[start:]).partition(b'\0')
    if not first or not nul or second.find(b'\0') != len(second) - 1 or len(second) < 2:
        raise _Malformed('two names, each with a NUL behind it, expected')
    return first.decode('utf-8', 'surrogateescape'), second[:-1].decode('utf-8', 'surrogateescape')


# One function per opcode, in the order of the header. decode has checked that the fixed part is there.


def _lookup(body: memoryview, head: Head) -> ops.Request:
    return ops.Lookup(*head, _name(body))


def _forget(body: memoryview, head: Head) -> ops.Request:
    return ops.Forget(*head, [(head[1], *abi.FORGET_IN.unpack_from(body))])


def _batch_forget(body: memoryview, head: Head) -> ops.Request:
    count, _ = abi.BATCH_FORGET_IN.unpack_from(body)
    start = abi.BATCH_FORGET_IN.size
    end = start + count * abi.FORGET_ONE.size
    if len(body) < end:
        raise _Malformed(f'{count} inodes announced, fewer there')
    return ops.Forget(*head, list(abi.FORGET_ONE.iter_unpack(body[start:end])))


def _getattr(body: memoryview, head: Head) -> ops.Request:
    flags, _, fh = abi.GETATTR_IN.unpack_from(body)
    return ops.Getattr(*head, fh if flags & abi.GETATTR_FH else None)


def _setattr(body: memoryview, head: Head) -> ops.Request:
    valid, _, fh, size, _, atime, mtime, _, *rest = abi.SETATTR_IN.unpack_from(body)
    atime_nsec, mtime_nsec, _, mode, _, uid, gid, _ = rest
    return ops.Setattr(
        *head,
        fh=fh if valid & abi.FATTR_FH else None,
        mode=mode if valid & abi.FATTR_MODE else None,
        new_uid=uid if valid & abi.FATTR_UID else None,
        new_gid=gid if valid & abi.FATTR_GID else None,
        size_bytes=size if valid & abi.FATTR_SIZE else None,
        atime_ns=_time(valid, abi.FATTR_ATIME, abi.FATTR_ATIME_NOW, atime, atime_nsec),
        mtime_ns=_time(valid, abi.FATTR_MTIME, abi.FATTR_MTIME_NOW, mtime, mtime_nsec),
        kill_suidgid=bool(valid & abi.FATTR_KILL_SUIDGID),
    )


def _time(valid: int, given: int, now: int, seconds: int, nsec: int) -> int | None:
    if valid & now:
        return ops.NOW
    return seconds * _SECOND_NS + nsec if valid & given else None


def _readlink(_body: memoryview, head: Head) -> ops.Request:
    return ops.Readlink(*head)


def _symlink(body: memoryview, head: Head) -> ops.Request:
    return ops.Symlink(*head, *_two_names(body))


def _mknod(body: memoryview, head: Head) -> ops.Request:
    mode, rdev, umask, _ = abi.MKNOD_IN.unpack_from(body)
    return ops.Mknod(*head, _name(body, abi.MKNOD_IN.size), mode, rdev, umask)


def _mkdir(body: memoryview, head: Head) -> ops.Request:
    mode, umask = abi.MKDIR_IN.unpack_from(body)
    return ops.Mkdir(*head, _name(body, abi.MKDIR_IN.size), mode, umask)


def _unlink(body: memoryview, head: Head) -> ops.Request:
    return ops.Unlink(*head, _name(body))


def _rmdir(body: memoryview, head: Head) -> ops.Request:
    return ops.Rmdir(*head, _name(body))


def _rename(body: memoryview, head: Head) -> ops.Request:
    (new_parent,) = abi.RENAME_IN.unpack_from(body)
    name, new_name = _two_names(body, abi.RENAME_IN.size)
    return ops.Rename(*head, name, new_parent, new_name, 0)


def _rename2(body: memoryview, head: Head) -> ops.Request:
    new_parent, flags, _ = abi.RENAME2_IN.unpack_from(body)
    name, new_name = _two_names(body, abi.RENAME2_IN.size)
    return ops.Rename(*head, name, new_parent, new_name, flags)


def _link(body: memoryview, head: Head) -> ops.Request:
    (source,) = abi.LINK_IN.unpack_from(body)
    return ops.Link(*head, source, _name(body, abi.LINK_IN.size))


def _open(body: memoryview, head: Head) -> ops.Request:
    flags, _ = abi.OPEN_IN.unpack_from(body)
    return ops.Open(*head, flags)


def _read(body: memoryview, head: Head) -> ops.Request:
    fh, offset, size_bytes, _, _, flags, _ = abi.READ_IN.unpack_from(body)
    return ops.Read(*head, fh, offset, size_bytes, flags)


def _write(body: memoryview, head: Head) -> ops.Request:
    fh, offset, size_bytes, write_flags, _, flags, _ = abi.WRITE_IN.unpack_from(body)
    data = body[abi.WRITE_IN.size : abi.WRITE_IN.size + size_bytes]
    if len(data) < size_bytes:
        raise _Malformed(f'{size_bytes} bytes of data announced, {len(data)} there')
    return ops.Write(*head, fh, offset, data, flags, bool(write_flags & abi.WRITE_KILL_SUIDGID))


def _statfs(_body: memoryview, head: Head) -> ops.Request:
    return ops.Statfs(*head)


def _release(body: memoryview, head: Head) -> ops.Request:
    return ops.Release(*head, abi.RELEASE_IN.unpack_from(body)[0], is_directory=False)


def _releasedir(body: memoryview, head: Head) -> ops.Request:
    return ops.Release(*head, abi.RELEASE_IN.unpack_from(body)[0], is_directory=True)


def _fsync(body: memoryview, head: Head) -> ops.Request:
    fh, flags, _ = abi.FSYNC_IN.unpack_from(body)
    return ops.Fsync(*head, fh, bool(flags & abi.FSYNC_FDATASYNC), is_directory=False)


def _fsyncdir(body: memoryview, head: Head) -> ops.Request:
    fh, flags, _ = abi.FSYNC_IN.unpack_from(body)
    return ops.Fsync(*head, fh, bool(flags & abi.FSYNC_FDATASYNC), is_directory=True)


def _setxattr(body: memoryview, head: Head) -> ops.Request:
    size_bytes, flags = abi.SETXATTR_IN.unpack_from(body)
    end = len(body) - size_bytes
    name = _name(body[: max(end, 0)], abi.SETXATTR_IN.size)
    return ops.Setxattr(*head, name, bytes(body[end:]), flags)


def _getxattr(body: memoryview, head: Head) -> ops.Request:
    size_bytes, _ = abi.GETXATTR_IN.unpack_from(body)
    return ops.Getxattr(*head, _name(body, abi.GETXATTR_IN.size), size_bytes)


def _listxattr(body: memoryview, head: Head) -> ops.Request:
    return ops.Listxattr(*head, abi.GETXATTR_IN.unpack_from(body)[0])


def _removexattr(body: memoryview, head: Head) -> ops.Request:
    return ops.Removexattr(*head, _name(body))


def _flush(body: memoryview, head: Head) -> ops.Request:
    fh, _, _, lock_owner = abi.FLUSH_IN.unpack_from(body)
    return ops.Flush(*head, fh, lock_owner)


def _opendir(body: memoryview, head: Head) -> ops.Request:
    flags, _ = abi.OPEN_IN.unpack_from(body)
    return ops.Opendir(*head, flags)


def _readdir(body: memoryview, head: Head) -> ops.Request:
    fh, offset, size_bytes, *_ = abi.READ_IN.unpack_from(body)
    return ops.Readdir(*head, fh, offset, size_bytes, plus=False)


def _readdirplus(body: memoryview, head: Head) -> ops.Request:
    fh, offset, size_bytes, *_ = abi.READ_IN.unpack_from(body)
    return ops.Readdir(*head, fh, offset, size_bytes, plus=True)


def _access(body: memoryview, head: Head) -> ops.Request:
    return ops.Access(*head, abi.ACCESS_IN.unpack_from(body)[0])


def _create(body: memoryview, head: Head) -> ops.Request:
    flags, mode, umask, _ = abi.CREATE_IN.unpack_from(body)
    return ops.Create(*head, _name(body, abi.CREATE_IN.size), flags, mode, umask)


def _tmpfile(body: memoryview, head: Head) -> ops.Request:
    flags, mode, umask, _ = abi.CREATE_IN.unpack_from(body)
    _name(body, abi.CREATE_IN.size)  # '/', which is nobody's name
    return ops.Tmpfile(*head, flags, mode, umask)


def _statx(body: memoryview, head: Head) -> ops.Request:
    flags, _, fh, _, _ = abi.STATX_IN.unpack_from(body)
    return ops.Statx(*head, fh if flags & abi.GETATTR_FH else None)


def _fallocate(body: memoryview, head: Head) -> ops.Request:
    fh, offset, size_bytes, mode, _ = abi.FALLOCATE_IN.unpack_from(body)
    return ops.Fallocate(*head, fh, offset, size_bytes, mode)


def _lseek(body: memoryview, head: Head) -> ops.Request:
    fh, offset, whence, _ = abi.LSEEK_IN.unpack_from(body)
    return ops.Lseek(*head, fh, offset, whence)


def _copy_file_range(body: memoryview, head: Head, *, is_long: bool = False) -> ops.Request:
    fh, offset, out_nodeid, out_fh, out_offset, size_bytes, flags = abi.COPY_FILE_RANGE_IN.unpack_from(body)
    return ops.CopyFileRange(*head, fh, offset, out_nodeid, out_fh, out_offset, size_bytes, flags, is_long)


def _copy_file_range_64(body: memoryview, head: Head) -> ops.Request:
    return _copy_file_range(body, head, is_long=True)


def _interrupt(body: memoryview, head: Head) -> ops.Request:
    return ops.Interrupt(*head, *abi.INTERRUPT_IN.unpack_from(body))


_Decoder = Callable[[memoryview, Head], ops.Request]

# opcode → (length of the shortest request, decoder). Keyed by plain int: hashing an IntEnum member is a Python call.
_DECODERS: dict[int, tuple[int, _Decoder]] = {
    int(opcode): (_BODY + (fixed.size if fixed else 0), decoder)
    for opcode, fixed, decoder in (
        (Opcode.LOOKUP, None, _lookup),
        (Opcode.FORGET, abi.FORGET_IN, _forget),
        (Opcode.GETATTR, abi.GETATTR_IN, _getattr),
        (Opcode.SETATTR, abi.SETATTR_IN, _setattr),
        (Opcode.READLINK, None, _readlink),
        (Opcode.SYMLINK, None, _symlink),
        (Opcode.MKNOD, abi.MKNOD_IN, _mknod),
        (Opcode.MKDIR, abi.MKDIR_IN, _mkdir),
        (Opcode.UNLINK, None, _unlink),
        (Opcode.RMDIR, None, _rmdir),
        (Opcode.RENAME, abi.RENAME_IN, _rename),
        (Opcode.LINK, abi.LINK_IN, _link),
        (Opcode.OPEN, abi.OPEN_IN, _open),
        (Opcode.READ, abi.READ_IN, _read),
        (Opcode.WRITE, abi.WRITE_IN, _write),
        (Opcode.STATFS, None, _statfs),
        (Opcode.RELEASE, abi.RELEASE_IN, _release),
        (Opcode.FSYNC, abi.FSYNC_IN, _fsync),
        (Opcode.SETXATTR, abi.SETXATTR_IN, _setxattr),
        (Opcode.GETXATTR, abi.GETXATTR_IN, _getxattr),
        (Opcode.LISTXATTR, abi.GETXATTR_IN, _listxattr),
        (Opcode.REMOVEXATTR, None, _removexattr),
        (Opcode.FLUSH, abi.FLUSH_IN, _flush),
        (Opcode.OPENDIR, abi.OPEN_IN, _opendir),
        (Opcode.READDIR, abi.READ_IN, _readdir),
        (Opcode.RELEASEDIR, abi.RELEASE_IN, _releasedir),
        (Opcode.FSYNCDIR, abi.FSYNC_IN, _fsyncdir),
        (Opcode.ACCESS, abi.ACCESS_IN, _access),
        (Opcode.CREATE, abi.CREATE_IN, _create),
        (Opcode.INTERRUPT, abi.INTERRUPT_IN, _interrupt),
        (Opcode.BATCH_FORGET, abi.BATCH_FORGET_IN, _batch_forget),
        (Opcode.FALLOCATE, abi.FALLOCATE_IN, _fallocate),
        (Opcode.READDIRPLUS, abi.READ_IN, _readdirplus),
        (Opcode.RENAME2, abi.RENAME2_IN, _rename2),
        (Opcode.LSEEK, abi.LSEEK_IN, _lseek),
        (Opcode.COPY_FILE_RANGE, abi.COPY_FILE_RANGE_IN, _copy_file_range),
        (Opcode.TMPFILE, abi.CREATE_IN, _tmpfile),
        (Opcode.STATX, abi.STATX_IN, _statx),
        (Opcode.COPY_FILE_RANGE_64, abi.COPY_FILE_RANGE_IN, _copy_file_range_64),
    )
}
