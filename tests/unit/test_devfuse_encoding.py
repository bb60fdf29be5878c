"""Replies against the bytes that linux/fuse.h wants, taken apart by hand."""

import math
import struct

import msgspec
import pytest

from fusefs import ops
from fusefs.transports.devfuse import encoding
from fusefs.transports.devfuse.abi import EXPIRE_ONLY

REQUEST = ops.Statfs(77, 1, 0, 0, 0)
STATX = ops.Statx(77, 1, 0, 0, 0, None)
COPY = ops.CopyFileRange(77, 1, 0, 0, 0, 7, 0, 2, 8, 0, 1 << 40, 0)
PLUS = ops.Readdir(77, 1, 0, 0, 0, fh=1, offset=0, size_bytes=4096, plus=True)
PLAIN = ops.Readdir(77, 1, 0, 0, 0, fh=1, offset=0, size_bytes=4096, plus=False)

ATTRIBUTES = ops.Attributes(
    *(11, 0o100644, 1000, 2, 1_000_000_001, -1, 3_000_000_003),
    nlink=4,
    uid=5,
    gid=6,
    rdev=7,
    blksize=512,
)
# ino size blocks atime mtime ctime, their nsec, mode nlink uid gid rdev blksize flags
ATTR = struct.pack('=QQQqqqIIIIIIIIII', 11, 1000, 2, 1, -1, 3, 1, 999_999_999, 3, 0o100644, 4, 5, 6, 7, 512, 0)
# mask blksize attributes; nlink uid gid mode; ino size blocks attributes_mask
STATX_START = struct.pack('=IIQIIIHHQQQQ', 0x7FF, 512, 0, 4, 5, 6, 0o100644, 0, 11, 1000, 2, 0)
# seconds and nsec of ctime and mtime
STATX_CHANGED = struct.pack('=qIiqIi', 3, 3, 0, -1, 999_999_999, 0)
ENTRY = ops.EntryReply(99, ATTRIBUTES, 1.5, 2.25)
# nodeid generation entry_valid attr_valid, their nsec
ENTRY_OUT = struct.pack('=QQQQII', 99, 0, 1, 2, 500_000_000, 250_000_000) + ATTR


def body_of(request: ops.Request, reply: ops.Reply) -> bytes:
    """What follows the header, which is checked here."""
    message = b''.join(encoding.encode(request, reply))
    length, error, unique = struct.unpack_from('=IiQ', message)
    assert (length, error, unique) == (len(message), 0, 77)
    return message[16:]


CASES = {
    'nothing': (None, b''),
    'bytes': (b'data', b'data'),
    'no-bytes': (b'', b''),
    'memoryview': (memoryview(b'some data')[5:], b'data'),
    'memoryview-of-words': (memoryview(b'12345678').cast('I'), b'12345678'),
    'entry': (ENTRY, ENTRY_OUT),
    'absent-entry': (ops.EntryReply(0, None, 3, 0), struct.pack('=QQQQII', 0, 0, 3, 0, 0, 0) + bytes(88)),
    'attributes': (ops.AttributesReply(ATTRIBUTES, 1.5), struct.pack('=QII', 1, 500_000_000, 0) + ATTR),
    'opened': (ops.Opened(7), struct.pack('=QII', 7, 0, 0)),
    'opened-direct': (ops.Opened(7, direct_io=True), struct.pack('=QII', 7, 1, 0)),
    'opened-keep-cache': (ops.Opened(7, keep_cache=True), struct.pack('=QII', 7, 2, 0)),
    'opened-no-flush': (ops.Opened(7, no_flush=True), struct.pack('=QII', 7, 1 << 5, 0)),
    'opened-passthrough': (ops.Opened(7, no_flush=True, backing_id=9), struct.pack('=QIi', 7, 1 << 5 | 1 << 7, 9)),
    'created': (ops.Created(ENTRY, ops.Opened(7)), ENTRY_OUT + struct.pack('=QII', 7, 0, 0)),
    'written': (ops.Written(5), struct.pack('=II', 5, 0)),
    'position': (ops.Position(5 << 40), struct.pack('=Q', 5 << 40)),
    'xattr-size': (ops.XattrSize(5), struct.pack('=II', 5, 0)),
    'statfs': (
        ops.StatfsReply(1, 2, 3, 4, 5, block_size=512, name_max=255),
        struct.pack('=QQQQQIIII24x', 1, 2, 3, 4, 5, 512, 255, 512, 0),
    ),
}


@pytest.mark.parametrize(('reply', 'expected'), CASES.values(), ids=CASES.keys())
def test_a_reply_becomes_its_bytes(reply: ops.Reply, expected: bytes) -> None:
    assert body_of(REQUEST, reply) == expected


def test_a_copy_is_answered_in_32_bits_unless_the_kernel_asks_for_more() -> None:
    assert body_of(COPY, ops.Written(5)) == struct.pack('=II', 5, 0)
    long = msgspec.structs.replace(COPY, is_long=True)
    assert body_of(long, ops.Written(5 << 40)) == struct.pack('=Q', 5 << 40)


def test_the_attributes_of_statx_have_a_mask_and_the_time_of_birth_where_it_is_known() -> None:
    body = body_of(STATX, ops.AttributesReply(ATTRIBUTES, 1.5))
    head, attributes = body[:32], body[32:]
    assert head == struct.pack('=QIIQQ', 1, 500_000_000, 0, 0, 0)
    assert attributes[:64] == STATX_START
    assert attributes[64:96] == struct.pack('=qIiqIi', 1, 1, 0, 0, 0, 0)
    assert attributes[96:128] == STATX_CHANGED
    assert attributes[128:] == struct.pack('=IIII112x', 0, 7, 0, 0)
    born = msgspec.structs.replace(ATTRIBUTES, btime_ns=9_000_000_007)
    body = body_of(STATX, ops.AttributesReply(born, 1.5))
    assert struct.unpack_from('=I', body, 32) == (0xFFF,)
    assert struct.unpack_from('=qI', body, 32 + 80) == (9, 7)


def test_a_failure_is_a_header_with_a_negative_errno() -> None:
    assert encoding.encode(REQUEST, ops.Failure(2)) == [struct.pack('=IiQ', 16, -2, 77)]


def test_the_data_of_a_read_are_passed_on_without_a_copy() -> None:
    data = bytes(4096)
    assert encoding.encode(REQUEST, data)[1] is data


@pytest.mark.parametrize(
    ('ttl_s', 'expected'),
    [
        (0, (0, 0)),
        (-1, (0, 0)),
        (10, (10, 0)),
        (0.1, (0, 100_000_000)),
        (math.inf, (encoding.LONGEST_TTL_S, 0)),
        (1e30, (encoding.LONGEST_TTL_S, 0)),
    ],
)
def test_a_ttl_fits_the_kernel_whatever_it_is(ttl_s: float, expected: tuple[int, int]) -> None:
    assert struct.unpack_from('=QI', body_of(REQUEST, ops.AttributesReply(ATTRIBUTES, ttl_s))) == expected


def dirent(ino: int, next_offset: int, kind: int, name: bytes) -> bytes:
    raw = struct.pack('=QQII', ino, next_offset, len(name), kind) + name
    return raw + bytes(-len(raw) % 8)


LISTING = ops.Listing(
    [
        ops.DirectoryEntry('.', 1, 0o040000, 1, None),
        ops.DirectoryEntry('grün', 11, 0o100644, 2, ENTRY),
        ops.DirectoryEntry('eightchr', 12, 0o120777, 3, ENTRY),
    ]
)


def test_a_plain_listing_has_padded_names_and_no_entries() -> None:
    expected = dirent(1, 1, 4, b'.') + dirent(11, 2, 8, 'grün'.encode()) + dirent(12, 3, 10, b'eightchr')
    assert body_of(PLAIN, LISTING) == expected


def test_a_listing_with_plus_has_an_entry_before_each_name_and_zeros_where_there_is_none() -> None:
    expected = (
        *(bytes(128) + dirent(1, 1, 4, b'.'), ENTRY_OUT + dirent(11, 2, 8, 'grün'.encode())),
        ENTRY_OUT + dirent(12, 3, 10, b'eightchr'),
    )
    assert body_of(PLUS, LISTING) == b''.join(expected)


@pytest.mark.parametrize('request_', [PLUS, PLAIN], ids=['plus', 'plain'])
@pytest.mark.parametrize('length', [1, 7, 8, 9, 255])
def test_an_entry_of_a_listing_takes_the_room_that_ops_says(request_: ops.Readdir, length: int) -> None:
    listing = ops.Listing([ops.DirectoryEntry('n' * length, 11, 0o100644, 1, ENTRY)])
    assert len(body_of(request_, listing)) == ops.direntry_bytes(length, plus=request_.plus)


def test_a_name_that_is_not_utf8_comes_back_as_the_bytes_it_was() -> None:
    listing = ops.Listing([ops.DirectoryEntry('\udcff', 11, 0o100644, 1, None)])
    assert body_of(PLAIN, listing) == dirent(11, 1, 8, b'\xff')


def test_the_end_of_a_directory_is_an_empty_reply() -> None:
    assert body_of(PLUS, ops.Listing([])) == b''


def test_an_inode_is_invalidated_by_notification_two() -> None:
    expected = struct.pack('=IiQ', 40, 2, 0) + struct.pack('=Qqq', 42, 4096, 0)
    assert encoding.encode_inval_inode(42, 4096, 0) == expected


def test_attributes_alone_are_invalidated_with_a_negative_offset() -> None:
    expected = struct.pack('=IiQ', 40, 2, 0) + struct.pack('=Qqq', 42, -1, 0)
    assert encoding.encode_inval_inode(42, -1, 0) == expected


def test_an_entry_is_invalidated_by_notification_three_with_its_name() -> None:
    expected = struct.pack('=IiQ', 16 + 16 + 5, 3, 0) + struct.pack('=QII', 42, 4, EXPIRE_ONLY) + b'name\0'
    assert encoding.encode_inval_entry(42, 'name') == expected
