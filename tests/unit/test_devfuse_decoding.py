"""Requests as bytes, written by hand after linux/fuse.h, against the values that they become."""

import struct

import pytest

from fusefs import ops
from fusefs.transports.devfuse.decoding import ProtocolError, UnknownOpcodeError, decode

UNIQUE, NODEID, UID, GID, PID = 0x1122334455667788, 42, 1000, 100, 4711
HEAD = (UNIQUE, NODEID, UID, GID, PID)


def request_bytes(opcode: int, body: bytes) -> bytes:
    # len opcode unique nodeid uid gid pid total_extlen padding
    return struct.pack('=IIQQIIIHH', 40 + len(body), opcode, *HEAD, 0, 0) + body


def decoded(opcode: int, body: bytes) -> ops.Request:
    raw = request_bytes(opcode, body)
    # What an earlier request left behind must not be taken for part of this one.
    buffer = bytearray(raw + b'\xff' * 200)
    return decode(memoryview(buffer), len(raw))


def u32(*values: int) -> bytes:
    return struct.pack(f'={len(values)}I', *values)


def u64(*values: int) -> bytes:
    return struct.pack(f'={len(values)}Q', *values)


READ_IN = u64(7, 8192) + u32(4096, 0) + u64(99) + u32(0o100000, 0)
WRITE_IN = u64(7, 8192) + u32(5, 0b100) + u64(99) + u32(0o100001, 0) + b'hello'
RELEASE_IN = u64(7) + u32(0o100000, 1) + u64(99)

CASES = [
    pytest.param(1, b'name\0', ops.Lookup(*HEAD, 'name'), id='lookup'),
    pytest.param(1, b'\xff\xe4\0', ops.Lookup(*HEAD, '\udcff\udce4'), id='lookup-bytes-that-are-not-utf8'),
    pytest.param(2, u64(3), ops.Forget(*HEAD, [(NODEID, 3)]), id='forget'),
    pytest.param(3, u32(0, 0) + u64(7), ops.Getattr(*HEAD, None), id='getattr'),
    pytest.param(3, u32(1, 0) + u64(7), ops.Getattr(*HEAD, 7), id='getattr-fh'),
    pytest.param(5, b'', ops.Readlink(*HEAD), id='readlink'),
    pytest.param(6, b'name\0to/where\0', ops.Symlink(*HEAD, 'name', 'to/where'), id='symlink'),
    pytest.param(8, u32(0o10644, 5, 0o22, 0) + b'pipe\0', ops.Mknod(*HEAD, 'pipe', 0o10644, 5, 0o22), id='mknod'),
    pytest.param(9, u32(0o755, 0o22) + b'dir\0', ops.Mkdir(*HEAD, 'dir', 0o755, 0o22), id='mkdir'),
    pytest.param(10, b'name\0', ops.Unlink(*HEAD, 'name'), id='unlink'),
    pytest.param(11, b'name\0', ops.Rmdir(*HEAD, 'name'), id='rmdir'),
    pytest.param(12, u64(9) + b'old\0new\0', ops.Rename(*HEAD, 'old', 9, 'new', 0), id='rename'),
    pytest.param(13, u64(9) + b'name\0', ops.Link(*HEAD, 9, 'name'), id='link'),
    pytest.param(14, u32(0o100002, 0), ops.Open(*HEAD, 0o100002), id='open'),
    pytest.param(15, READ_IN, ops.Read(*HEAD, 7, 8192, 4096, 0o100000), id='read'),
    pytest.param(16, WRITE_IN, ops.Write(*HEAD, 7, 8192, b'hello', 0o100001, True), id='write'),
    pytest.param(17, b'', ops.Statfs(*HEAD), id='statfs'),
    pytest.param(18, RELEASE_IN, ops.Release(*HEAD, 7, False), id='release'),
    pytest.param(20, u64(7) + u32(1, 0), ops.Fsync(*HEAD, 7, True, False), id='fdatasync'),
    pytest.param(20, u64(7) + u32(0, 0), ops.Fsync(*HEAD, 7, False, False), id='fsync'),
    pytest.param(21, u32(3, 1) + b'user.a\0x\0y', ops.Setxattr(*HEAD, 'user.a', b'x\0y', 1), id='setxattr'),
    pytest.param(21, u32(0, 0) + b'user.a\0', ops.Setxattr(*HEAD, 'user.a', b'', 0), id='setxattr-empty'),
    pytest.param(22, u32(64, 0) + b'user.a\0', ops.Getxattr(*HEAD, 'user.a', 64), id='getxattr'),
    pytest.param(23, u32(64, 0), ops.Listxattr(*HEAD, 64), id='listxattr'),
    pytest.param(24, b'user.a\0', ops.Removexattr(*HEAD, 'user.a'), id='removexattr'),
    pytest.param(25, u64(7) + u32(0, 0) + u64(99), ops.Flush(*HEAD, 7, 99), id='flush'),
    pytest.param(27, u32(0o200000, 0), ops.Opendir(*HEAD, 0o200000), id='opendir'),
    pytest.param(28, READ_IN, ops.Readdir(*HEAD, 7, 8192, 4096, False), id='readdir'),
    pytest.param(29, RELEASE_IN, ops.Release(*HEAD, 7, True), id='releasedir'),
    pytest.param(30, u64(7) + u32(1, 0), ops.Fsync(*HEAD, 7, True, True), id='fsyncdir'),
    pytest.param(34, u32(4, 0), ops.Access(*HEAD, 4), id='access'),
    pytest.param(
        35, u32(0o101, 0o100644, 0o22, 0) + b'new\0', ops.Create(*HEAD, 'new', 0o101, 0o100644, 0o22), id='create'
    ),
    pytest.param(36, u64(77), ops.Interrupt(*HEAD, 77), id='interrupt'),
    pytest.param(42, u32(2, 0) + u64(5, 1, 6, 2), ops.Forget(*HEAD, [(5, 1), (6, 2)]), id='batch-forget'),
    pytest.param(43, u64(7, 4096, 100) + u32(3, 0), ops.Fallocate(*HEAD, 7, 4096, 100, 3), id='fallocate'),
    pytest.param(44, READ_IN, ops.Readdir(*HEAD, 7, 8192, 4096, True), id='readdirplus'),
    pytest.param(45, u64(9) + u32(1, 0) + b'old\0new\0', ops.Rename(*HEAD, 'old', 9, 'new', 1), id='rename2'),
    pytest.param(46, u64(7, 4096) + u32(3, 0), ops.Lseek(*HEAD, 7, 4096, 3), id='lseek'),
    pytest.param(46, u64(7, (1 << 64) - 1) + u32(4, 0), ops.Lseek(*HEAD, 7, -1, 4), id='lseek-before-the-start'),
    pytest.param(47, u64(7, 1, 9, 8, 2, 3, 0), ops.CopyFileRange(*HEAD, 7, 1, 9, 8, 2, 3, 0), id='copy-file-range'),
    pytest.param(
        51, u32(0o20200002, 0o100600, 0o22, 0) + b'/\0', ops.Tmpfile(*HEAD, 0o20200002, 0o100600, 0o22), id='tmpfile'
    ),
    pytest.param(52, u32(0, 0) + u64(7) + u32(0, 0xFFF), ops.Statx(*HEAD, None), id='statx'),
    pytest.param(52, u32(1, 0) + u64(7) + u32(0, 0xFFF), ops.Statx(*HEAD, 7), id='statx-fh'),
    pytest.param(
        *(53, u64(7, 1, 9, 8, 2, 1 << 40, 0), ops.CopyFileRange(*HEAD, 7, 1, 9, 8, 2, 1 << 40, 0, is_long=True)),
        id='copy-file-range-64',
    ),
]


@pytest.mark.parametrize(('opcode', 'body', 'expected'), CASES)
def test_a_request_becomes_its_value(opcode: int, body: bytes, expected: ops.Request) -> None:
    assert decoded(opcode, body) == expected


@pytest.mark.parametrize(('opcode', 'body'), [case.values[:2] for case in CASES if case.values[1]])
def test_a_request_that_lacks_its_last_byte_is_malformed(opcode: int, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decoded(opcode, body[:-1])


def setattr_in(valid: int) -> bytes:
    times = struct.pack('=3q', 10, -20, 30) + u32(1, 2, 3)
    return u32(valid, 0) + u64(7, 12345, 99) + times + u32(0o640, 0, 501, 502, 0)


SETATTR_CASES = {
    'nothing': (0, {}),
    'mode': (1 << 0, {'mode': 0o640}),
    'uid': (1 << 1, {'new_uid': 501}),
    'gid': (1 << 2, {'new_gid': 502}),
    'size': (1 << 3, {'size_bytes': 12345}),
    'atime': (1 << 4, {'atime_ns': 10_000_000_001}),
    'mtime-before-1970': (1 << 5, {'mtime_ns': -19_999_999_998}),
    'fh': (1 << 6, {'fh': 7}),
    'atime-now': (1 << 4 | 1 << 7, {'atime_ns': ops.NOW}),
    'mtime-now': (1 << 5 | 1 << 8, {'mtime_ns': ops.NOW}),
    'kill-suidgid': (1 << 11, {'kill_suidgid': True}),
}


@pytest.mark.parametrize(('valid', 'given'), SETATTR_CASES.values(), ids=SETATTR_CASES.keys())
def test_setattr_has_only_the_fields_that_are_valid(valid: int, given: dict[str, int]) -> None:
    nothing = {'fh': None, 'mode': None, 'new_uid': None, 'new_gid': None, 'size_bytes': None}
    nothing |= {'atime_ns': None, 'mtime_ns': None, 'kill_suidgid': False}
    assert decoded(4, setattr_in(valid)) == ops.Setattr(*HEAD, **(nothing | given))


def test_write_data_are_a_view_into_the_buffer() -> None:
    raw = request_bytes(16, WRITE_IN)
    buffer = bytearray(raw)
    request = decode(memoryview(buffer), len(raw))
    assert isinstance(request, ops.Write)
    buffer[-5:] = b'HELLO'
    assert bytes(request.data) == b'HELLO'


MALFORMED = {
    'name-without-nul': (1, b'name'),
    'name-that-is-empty': (1, b'\0'),
    'no-name': (1, b''),
    'nul-inside-a-name': (1, b'na\0me\0'),
    'one-name-of-two': (12, u64(9) + b'old\0'),
    'second-name-empty': (12, u64(9) + b'old\0\0'),
    'second-name-without-nul': (12, u64(9) + b'old\0new'),
    'three-names': (12, u64(9) + b'old\0new\0more\0'),
    'write-shorter-than-announced': (16, u64(7, 0) + u32(100, 0) + u64(0) + u32(0, 0) + b'short'),
    'xattr-value-longer-than-the-request': (21, u32(1000, 0) + b'user.a\0x'),
    'fewer-forgotten-than-announced': (42, u32(3, 0) + u64(5, 1)),
}


@pytest.mark.parametrize(('opcode', 'body'), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_says_whom_to_answer(opcode: int, body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decoded(opcode, body)
    assert caught.value.unique == (None if opcode == 42 else UNIQUE)
    assert caught.value.opcode == opcode


def test_a_length_other_than_the_header_says_is_malformed() -> None:
    raw = request_bytes(1, b'name\0')
    with pytest.raises(ProtocolError, match='announced'):
        decode(memoryview(raw + b'\0'), len(raw) + 1)


def test_a_request_without_a_whole_header_cannot_be_answered() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(memoryview(bytes(100)), 39)
    assert caught.value.unique is None


@pytest.mark.parametrize('opcode', [0, 7, 31, 37, 38, 39, 40, 50, 54, 4096])
def test_an_unknown_opcode_is_told_apart_from_a_malformed_request(opcode: int) -> None:
    with pytest.raises(UnknownOpcodeError) as caught:
        decoded(opcode, b'whatever')
    assert (caught.value.opcode, caught.value.unique) == (opcode, UNIQUE)
