"""What every null file system of the benchmark serves: the same names, constant attributes and zeros.

The root holds two large files, DIRECT (read without the page cache) and SEQUENTIAL, and a directory of many files.
"""

import stat

DIRECT = 'direct'
SEQUENTIAL = 'sequential'
DIRECTORY = 'many'
FILE_COUNT = 10_000
LARGE_BYTES = 1 << 30
SMALL_BYTES = 4096

NAMES = [f'file{number:05}' for number in range(FILE_COUNT)]

FILE_MODE = stat.S_IFREG | 0o644
DIRECTORY_MODE = stat.S_IFDIR | 0o755
TIME_NS = 1_700_000_000_123_456_789

_zeros: dict[int, bytes] = {}


def zeros(size_bytes: int) -> bytes:
    """The same object each time, so that no server pays for making it."""
    if size_bytes not in _zeros:
        _zeros[size_bytes] = bytes(size_bytes)
    return _zeros[size_bytes]
