"""The load of the null benchmark: one client that uses a mounted null file system and measures it.

Run as: python -m tests.bench.null_load MOUNTPOINT OPERATION…. Prints one JSON object, operation to figure. A process of
its own, because a client that shared the server's interpreter would wait for its lock.
"""
# ruff: noqa: T201 - a program that prints

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.servers import null_tree as tree

_SECONDS_EACH = 1.5
_SEQUENTIAL_BYTES = 512 << 20
_CHUNK_BYTES = 1 << 20


def _rate(operation: Callable[[], object]) -> float:
    """How often a second; counted in batches so that the clock costs nothing."""
    for _ in range(200):
        operation()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SECONDS_EACH:
        for _ in range(200):
            operation()
        count += 200
    return count / elapsed


def measure_stat(root: Path) -> float:
    path = str(root / tree.DIRECT)
    return _rate(lambda: os.stat(path))


def measure_random_read(root: Path) -> float:
    chance = random.Random(1)
    blocks = tree.LARGE_BYTES // 4096
    fd = os.open(root / tree.DIRECT, os.O_RDONLY)
    try:
        return _rate(lambda: os.pread(fd, 4096, 4096 * chance.randrange(blocks)))
    finally:
        os.close(fd)


def measure_sequential_read(root: Path) -> float:
    """MB/s. The open drops what the page cache held, because no server asks to keep it."""
    buffer = bytearray(_CHUNK_BYTES)
    fd = os.open(root / tree.SEQUENTIAL, os.O_RDONLY)
    try:
        start = time.perf_counter()
        for _ in range(_SEQUENTIAL_BYTES // _CHUNK_BYTES):
            if os.readv(fd, [buffer]) != _CHUNK_BYTES:
                raise RuntimeError('the server gave less than was asked for')
        return _SEQUENTIAL_BYTES / 1e6 / (time.perf_counter() - start)
    finally:
        os.close(fd)


def measure_listing(root: Path) -> float:
    """Seconds of ls -l of all the files."""
    start = time.perf_counter()
    listed = subprocess.run(['ls', '-l', str(root / tree.DIRECTORY)], stdout=subprocess.PIPE, check=True).stdout
    seconds = time.perf_counter() - start
    if listed.count(b'\n') != tree.FILE_COUNT + 1:
        raise RuntimeError(f'ls -l printed {listed.count(bytes([10]))} lines')
    return seconds


MEASUREMENTS: dict[str, Callable[[Path], float]] = {
    'stat': measure_stat,
    'random_read': measure_random_read,
    'sequential_read': measure_sequential_read,
    'listing': measure_listing,
}


if __name__ == '__main__':
    mountpoint = Path(sys.argv[1])
    print(json.dumps({name: MEASUREMENTS[name](mountpoint) for name in sys.argv[2:]}))
