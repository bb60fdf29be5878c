"""Files of less than a block on the disk: one file for each, written once and read whole.

Owns their layout: the key, the checksum and the bytes, in this order. Of a thousand small files, two files for each
took twice as long to make as one, and open descriptors are of no use to what is read at once.

What is torn or damaged does not match its checksum, is removed, and is a miss: so nothing is synced, and nothing is
locked. Threads and processes: safe; who meets a file amid its writing finds that it does not match.
"""

import contextlib
import os
import stat
import struct
from pathlib import Path

from genro_storage.cache.blocks import BLOCK_BYTES, Block
from genro_storage.cache.cached_file import STAMP_NS, checksum
from genro_storage.cache.directory import (
    FORMAT,
    OPEN_FLAGS,
    SMALL,
    FileKey,
    make_parent,
    name_of,
    open_unstamped,
    packed,
)

_HEADER = struct.Struct('<8s3I')  # magic, format, length of the key, length of the bytes; both follow
_MAGIC = b'genrosml'
_SUM = struct.Struct('<Q')  # between them


def fits(number: int, data: Block) -> bool:
    """Whether these blocks are a whole file that goes in here: a first block that is not full is the only one."""
    return number == 0 and len(data) < BLOCK_BYTES


def size_on_disk(key: FileKey, data: Block) -> int:
    """What a file will take, but for the rounding to pages."""
    return _HEADER.size + len(packed(key)) + _SUM.size + len(data)


def is_there(root: Path, key: FileKey) -> bool:
    """Whether there is a file of this key, right or not. Raises OSError."""
    return os.path.lexists(_path(root, packed(key)))


def read(root: Path, key: FileKey, now_ns: int) -> bytes | None:
    """The bytes of a key, or None. Notes the use, at most once a minute. Raises OSError."""
    raw = packed(key)
    path = _path(root, raw)
    try:
        descriptor = open_unstamped(path, os.O_RDONLY | OPEN_FLAGS)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
            raise PermissionError(f'{path} is not a file of this user: it is not read')
        data = _bytes_of(raw, os.pread(descriptor, _HEADER.size + len(raw) + _SUM.size + BLOCK_BYTES, 0))
        if data is None:
            Path(path).unlink(missing_ok=True)
        elif abs(now_ns - found.st_atime_ns) >= STAMP_NS:
            os.utime(descriptor, ns=(now_ns, now_ns))
        return data
    finally:
        os.close(descriptor)


def write(root: Path, key: FileKey, data: Block, now_ns: int) -> None:
    """Keep the bytes of a key, unless they are kept already. Raises OSError, StoragePermissionError."""
    for _ in range(2):
        if _create(root, key, data):
            return
        there = read(root, key, now_ns)
        if there == data:
            return
        # One version with two contents, as only a weak version can have: the newer is right.
        Path(_path(root, packed(key))).unlink(missing_ok=True)


def _create(root: Path, key: FileKey, data: Block) -> bool:
    """Whether there was no file of this key; now there is. Raises OSError, and then there is none."""
    raw = packed(key)
    path = _path(root, raw)
    try:
        descriptor = _make(root, raw, path)
    except FileExistsError:
        return False
    header = _HEADER.pack(_MAGIC, FORMAT, len(raw), len(data)) + raw
    try:
        whole = [header, _SUM.pack(_sum(raw, data)), data]
        if os.writev(descriptor, whole) < sum(len(part) for part in whole):
            os.unlink(path)  # the disk is full, and the next to write will be told
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return True


def _make(root: Path, raw_key: bytes, path: str) -> int:
    """A new file. Raises FileExistsError, OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        make_parent(root, name_of(raw_key))
        return os.open(path, flags, 0o600)


def _bytes_of(raw_key: bytes, content: bytes) -> bytes | None:
    start = _HEADER.size + len(raw_key) + _SUM.size
    if len(content) < start:
        return None
    magic, form, key_bytes, size_bytes = _HEADER.unpack_from(content)
    (total,) = _SUM.unpack_from(content, start - _SUM.size)
    data = content[start:]
    described = magic == _MAGIC and form == FORMAT and key_bytes == len(raw_key) and size_bytes == len(data)
    right = described and content[_HEADER.size : start - _SUM.size] == raw_key and total == _sum(raw_key, data)
    return data if right else None


def _sum(raw_key: bytes, data: Block) -> int:
    return checksum(data, checksum(raw_key))


def _path(root: Path, raw_key: bytes) -> str:
    return f'{root}/{name_of(raw_key)}{SMALL}'
