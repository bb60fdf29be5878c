"""The null file system over mfusepy: ctypes and libfuse's high-level API.

Run as: python -m tests.bench.servers.mfusepy_null MOUNTPOINT TTL_S [nothreads]
"""

import errno
import sys
from typing import Any

import mfusepy

from tests.bench.servers import null_tree as tree


def _attributes(mode: int, size_bytes: int) -> dict[str, int]:
    times = dict.fromkeys(('st_atime', 'st_mtime', 'st_ctime'), tree.TIME_NS)
    return {'st_mode': mode, 'st_nlink': 1, 'st_size': size_bytes, 'st_blocks': (size_bytes + 511) // 512, **times}


LARGE = _attributes(tree.FILE_MODE, tree.LARGE_BYTES)
SMALL = _attributes(tree.FILE_MODE, tree.SMALL_BYTES)
DIRECTORY = _attributes(tree.DIRECTORY_MODE, 0)

ATTRIBUTES = {
    '/': DIRECTORY,
    f'/{tree.DIRECTORY}': DIRECTORY,
    f'/{tree.DIRECT}': LARGE,
    f'/{tree.SEQUENTIAL}': LARGE,
    **{f'/{tree.DIRECTORY}/{name}': SMALL for name in tree.NAMES},
}
LISTINGS = {
    '/': [tree.DIRECT, tree.SEQUENTIAL, tree.DIRECTORY],
    f'/{tree.DIRECTORY}': tree.NAMES,
}


class NullOperations(mfusepy.Operations):
    """Only what the load calls; libfuse answers ENOSYS for the rest, once each."""

    use_ns = True

    def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
        try:
            return ATTRIBUTES[path]
        except KeyError:
            raise OSError(errno.ENOENT, path) from None

    def open(self, path: str, fi: Any) -> int:
        fi.direct_io = int(path == f'/{tree.DIRECT}')
        return 0

    def read(self, path: str, size: int, offset: int, fh: Any) -> bytes:
        return tree.zeros(size)

    def readdir(self, path: str, fh: int) -> list[str]:
        return LISTINGS[path]


if __name__ == '__main__':
    ttl_s = float(sys.argv[2])
    # raw_fi, because direct_io is a matter of the open file.
    mfusepy.FUSE(
        NullOperations(),
        sys.argv[1],
        raw_fi=True,
        foreground=True,
        nothreads='nothreads' in sys.argv[3:],
        attr_timeout=ttl_s,
        entry_timeout=ttl_s,
        negative_timeout=0,
        fsname='null-mfusepy',
    )
