"""The load of the read benchmark: what a user does with a mounted bucket, each thing timed.

Run as: python -m tests.bench.read_load DIRECTORY WORKLOAD…, in this order. Prints one JSON object, workload to seconds.
"""
# ruff: noqa: T201 - a program that prints

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LARGE_BYTES = 512 << 20
PARALLEL_FILES = 4
_CHUNK_BYTES = 1 << 20


def drop_page_cache() -> None:
    """As after a reboot: what follows reads from whatever the daemon keeps, not from memory."""
    os.sync()
    Path('/proc/sys/vm/drop_caches').write_text('1')


def read_file(path: Path) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    fd = os.open(path, os.O_RDONLY)
    try:
        while os.readv(fd, [buffer]):
            pass
    finally:
        os.close(fd)


def random_reads(path: Path, count: int) -> None:
    chance = random.Random(7)
    blocks = path.stat().st_size // 4096
    fd = os.open(path, os.O_RDONLY)
    try:
        for _ in range(count):
            if len(os.pread(fd, 4096, 4096 * chance.randrange(blocks))) != 4096:
                raise RuntimeError(f'{path}: a read was short')
    finally:
        os.close(fd)


def parallel_files(directory: Path) -> None:
    readers = [
        threading.Thread(target=read_file, args=(directory / f'parallel{number}',)) for number in range(PARALLEL_FILES)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def cat(*directories: Path) -> None:
    """cat of all files of some directories, as a shell would."""
    files = [str(path) for directory in directories for path in sorted(directory.iterdir())]
    output = subprocess.run(['cat', *files], stdout=subprocess.PIPE, check=True).stdout
    if len(output) != 4096 * len(files):
        raise RuntimeError(f'cat gave {len(output)} bytes of {len(files)} files')


def listing(directory: Path) -> None:
    output = subprocess.run(['ls', '-lR', str(directory)], stdout=subprocess.PIPE, check=True).stdout
    if output.count(b'\n-') != 3000:
        raise RuntimeError(f'ls -lR showed {output.count(b"-rw")} files')


def first_byte(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        if len(os.pread(fd, 1, 0)) != 1:
            raise RuntimeError(f'{path} is empty')
    finally:
        os.close(fd)


def small(directory: Path) -> list[Path]:
    return [directory / 'small' / f'd{number}' for number in range(10)]


#: Seconds of each; those with a preparation that is not timed come as a pair.
Workload = tuple[Callable[[Path], None], Callable[[Path], None]]


def _nothing(_: Path) -> None:
    pass


def _drop(_: Path) -> None:
    drop_page_cache()


WORKLOADS: dict[str, Workload] = {
    'first byte of an unseen file': (_nothing, lambda d: first_byte(d / 'unseen')),
    '512 MiB file, cold': (_nothing, lambda d: read_file(d / 'large')),
    '512 MiB again, page cache dropped': (_drop, lambda d: read_file(d / 'large')),
    '5,000 random 4 KiB, page cache dropped': (_drop, lambda d: random_reads(d / 'large', 5_000)),
    '200,000 random 4 KiB, in memory': (lambda d: read_file(d / 'large'), lambda d: random_reads(d / 'large', 200_000)),
    'four 64 MiB files at once, cold': (_nothing, parallel_files),
    'ls -lR, 3,000 files, cold': (_nothing, lambda d: listing(d / 'tree')),
    'cat of 1,000 small files, cold': (_nothing, lambda d: cat(*small(d))),
    'cat of 1,000 small files again': (_nothing, lambda d: cat(*small(d))),
    'cat of 300 small files, cold': (_nothing, lambda d: cat(*small(d)[:3])),
}


def main() -> None:
    directory = Path(sys.argv[1])
    seconds = {}
    for name in sys.argv[2:]:
        prepare, run = WORKLOADS[name]
        prepare(directory)
        start = time.perf_counter()
        run(directory)
        seconds[name] = time.perf_counter() - start
    print(json.dumps(seconds))


if __name__ == '__main__':
    main()
