"""What is evicted from a directory of cached files: whole files, the least recently used first.

Owns the walk, the choice and the removal; what is too much is decided in space. A file that a program or the kernel
holds (see DiskBlockCache.complete_file) has a shared lock on its data and is not evicted: its room could not be used
before it is let go of. Files are only ever unlinked: a reader in the kernel would see zeros in what is truncated.

Threads and processes: safe; only one evicts at a time, and the others do not wait for it.
"""

import fcntl
import heapq
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from genro_storage.cache.cached_file import unlink
from genro_storage.cache.directory import DATA, OPEN_FLAGS, SMALL, SUMS
from genro_storage.local_disk import private_directory, try_lock


class Stored(NamedTuple):
    """A cached file as the disk has it: when it was last used, its room, its name without an ending."""

    used_ns: int
    size_bytes: int
    name: str


class Evicted(NamedTuple):
    """The bytes that were removed, and whether files were met that somebody holds."""

    size_bytes: int
    held: bool


@contextmanager
def exclusively(root: Path) -> Iterator[bool]:
    """Whether this thread is now the one that evicts. Raises OSError, StoragePermissionError."""
    private_directory(root)
    descriptor = os.open(root / 'eviction', os.O_RDWR | os.O_CREAT | OPEN_FLAGS, 0o600)
    try:
        yield try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def walk(root: Path) -> Iterator[Stored]:
    """All cached files. One that appears or goes meanwhile may be missed. Raises OSError."""
    with os.scandir(root) as shards:
        names = [shard.name for shard in shards if len(shard.name) == 2]
    for shard in names:
        yield from _walk_shard(root, shard)


def _walk_shard(root: Path, shard: str) -> Iterator[Stored]:
    sizes: dict[str, int] = {}
    used: dict[str, int] = {}
    try:
        files = os.scandir(root / shard)
    except FileNotFoundError:  # somebody removes the directory
        return
    with files:
        for file in files:
            name, ending = os.path.splitext(file.name)
            if ending not in {DATA, SUMS, SMALL}:
                continue
            try:
                found = file.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            sizes[name] = sizes.get(name, 0) + found.st_blocks * 512
            if ending != DATA:
                used[name] = found.st_atime_ns
    for name, size_bytes in sizes.items():
        # Bytes without checksums were left by somebody killed while evicting: the first to go.
        yield Stored(used.get(name, 0), size_bytes, f'{shard}/{name}')


def oldest(files: Iterable[Stored], size_bytes: int) -> list[Stored]:
    """The least recently used files that together have so many bytes, the oldest first.

    In memory is only what is chosen, of perhaps a million.
    """
    newest_first: list[tuple[int, Stored]] = []
    total = 0
    for file in files:
        heapq.heappush(newest_first, (-file.used_ns, file))
        total += file.size_bytes
        while newest_first and total - newest_first[0][1].size_bytes >= size_bytes:
            total -= heapq.heappop(newest_first)[1].size_bytes
    return sorted(file for _, file in newest_first)


def evict(root: Path, size_bytes: int, keep: str) -> Evicted:
    """Remove old files of so many bytes, never the one of the name ``keep``. Raises OSError."""
    freed = 0
    spared = {keep}
    while freed < size_bytes:
        chosen = oldest((file for file in walk(root) if file.name not in spared), size_bytes - freed)
        if not chosen:
            break
        for file in chosen:
            if remove(root, file.name):
                freed += file.size_bytes
            else:
                spared.add(file.name)
    return Evicted(freed, held=len(spared) > 1)


def remove(root: Path, name: str) -> bool:
    """Remove a file unless it is held; whether it is gone. Raises OSError."""
    path = f'{root}/{name}'
    try:
        descriptor = os.open(path + DATA, os.O_RDWR | OPEN_FLAGS)
    except FileNotFoundError:
        unlink(path)
        return True
    try:
        # Held until it is unlinked, so that nobody is handed the file in between.
        if not try_lock(descriptor, fcntl.LOCK_EX):
            return False
        unlink(path)
    finally:
        os.close(descriptor)
    return True


def hold(descriptor: int) -> bool:
    """Keep a file from eviction for as long as it is open; False if it is just being evicted."""
    return try_lock(descriptor, fcntl.LOCK_SH)
