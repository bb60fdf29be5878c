"""Cached files that were damaged, removed or exchanged, between runs and while somebody reads, and disks that are full:
what is read is right, always.

Beside tests/unit/test_disk_cache_*.py, which have the same cache without a server, and tests/crash/test_disk_cache.py,
which kills who writes it. What a reader has compared already is not compared again while it has the file open, so
damage to that is not among these.
"""

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager
from genro_storage.cache.blocks import BLOCK_BYTES
from tests.faults.sick import MIB, Sick
from tests.machine import need_root
from tests.mount.mounted import await_true, mounted, run

SIZE = MIB + 123
#: The block that a reader has compared before the damage, which spares it.
COMPARED = 2

Damage = Callable[[Path, Path], None]


def flip_bytes(data: Path, sums: Path) -> None:
    content = bytearray(data.read_bytes())
    for start in range(0, len(content), BLOCK_BYTES):
        if start != COMPARED * BLOCK_BYTES:
            content[start + (start // 7) % 100] ^= 0x10
    with data.open('r+b') as file:
        file.write(content)


def flip_one_bit_of_each_checksum(data: Path, sums: Path) -> None:
    content = bytearray(sums.read_bytes())
    count = -(-SIZE // BLOCK_BYTES)
    for number in range(count):
        content[-8 * (count - number)] ^= 1
    with sums.open('r+b') as file:
        file.write(content)


def truncate_data(data: Path, sums: Path) -> None:
    os.truncate(data, SIZE // 2)


def empty_data(data: Path, sums: Path) -> None:
    os.truncate(data, 0)


def lengthen_data(data: Path, sums: Path) -> None:
    with data.open('ab') as file:
        file.write(b'more')


def truncate_sums(data: Path, sums: Path) -> None:
    os.truncate(sums, sums.stat().st_size - 11)


def empty_sums(data: Path, sums: Path) -> None:
    os.truncate(sums, 0)


def delete_data(data: Path, sums: Path) -> None:
    data.unlink()


def delete_sums(data: Path, sums: Path) -> None:
    sums.unlink()


def garbage_in_sums(data: Path, sums: Path) -> None:
    with sums.open('r+b') as file:
        file.write(random.Random(1).randbytes(sums.stat().st_size))


def zeros_in_data(data: Path, sums: Path) -> None:
    with data.open('r+b') as file:
        file.write(bytes(COMPARED * BLOCK_BYTES))


def unreadable(data: Path, sums: Path) -> None:
    data.chmod(0)
    sums.chmod(0)


def directory_for_data(data: Path, sums: Path) -> None:
    data.unlink()
    data.mkdir()


def directory_for_sums(data: Path, sums: Path) -> None:
    sums.unlink()
    sums.mkdir()


def link_for_data(data: Path, sums: Path) -> None:
    elsewhere = data.with_name('elsewhere')
    elsewhere.write_bytes(bytes(SIZE))
    data.unlink()
    data.symlink_to(elsewhere)


def link_for_sums(data: Path, sums: Path) -> None:
    sums.rename(sums.with_name('elsewhere'))
    sums.symlink_to(sums.with_name('elsewhere'))


def pipe_for_data(data: Path, sums: Path) -> None:
    data.unlink()
    os.mkfifo(data)


def file_for_the_directory(data: Path, sums: Path) -> None:
    shutil.rmtree(data.parent)
    data.parent.write_text('a file')


def nothing_left(data: Path, sums: Path) -> None:
    shutil.rmtree(data.parents[1])


DAMAGES: list[Damage] = [
    flip_bytes,
    flip_one_bit_of_each_checksum,
    truncate_data,
    empty_data,
    lengthen_data,
    truncate_sums,
    empty_sums,
    delete_data,
    delete_sums,
    garbage_in_sums,
    zeros_in_data,
    unreadable,
    directory_for_data,
    directory_for_sums,
    link_for_data,
    link_for_sums,
    pipe_for_data,
    file_for_the_directory,
    nothing_left,
]


class Cached:
    """A bucket behind a proxy, which counts what is asked for, read through a disk cache and no memory."""

    def __init__(self, sick: Sick, cache: Path) -> None:
        self.sick = sick
        self.cache = cache

    @contextmanager
    def manager(self) -> Iterator[StorageManager]:
        """One run: what it has read is on the disk when it has ended."""
        with StorageManager() as manager:
            settings: dict[str, Any] = {'path': str(self.cache), 'memory': 0}
            manager.configure({'mounts': [self.sick.definition(timeout_s=30)], 'cache': settings})
            yield manager

    def read(self, key: str) -> bytes:
        with self.manager() as manager:
            # Of what is listed nothing is brought with a look.
            list(manager.node('sick').children())
            return manager.node('sick', key).read_bytes()

    def fetched(self, key: str) -> int:
        return len(self.sick.proxy.reads(key))


def files_of(cache: Path) -> tuple[Path, Path]:
    """The one cached file: its bytes and its checksums."""
    (data,) = cache.rglob('*.data')
    (sums,) = cache.rglob('*.sums')
    return data, sums


@pytest.fixture
def cached(sick: Sick, tmp_path: Path) -> Cached:
    return Cached(sick, tmp_path / 'cache')


def test_without_damage_nothing_is_asked_for_again(cached: Cached) -> None:
    key, data = cached.sick.new(SIZE)
    assert cached.read(key) == data
    fetched = cached.fetched(key)
    assert cached.read(key) == data
    assert cached.fetched(key) == fetched > 0


@pytest.mark.parametrize('damage', DAMAGES, ids=lambda damage: damage.__name__)
def test_what_was_damaged_between_two_runs_is_read_right(cached: Cached, damage: Damage) -> None:
    key, data = cached.sick.new(SIZE)
    assert cached.read(key) == data
    damage(*files_of(cached.cache))
    assert cached.read(key) == data
    # And once more, with what the run before has made of it.
    assert cached.read(key) == data


@pytest.mark.parametrize('damage', DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_damaged_while_it_is_read_is_read_right(cached: Cached, damage: Damage) -> None:
    key, data = cached.sick.new(SIZE)
    assert cached.read(key) == data
    with cached.manager() as manager:
        reader = manager.volume('sick').open_read(key)
        # Far from the beginning: nothing is read ahead.
        begun = COMPARED * BLOCK_BYTES + 1_000
        assert reader.read(begun, 100) == data[begun : begun + 100]
        damage(*files_of(cached.cache))
        for _ in range(2):
            assert b''.join(reader.read(offset, 100_000) for offset in range(0, SIZE, 100_000)) == data
        reader.close()
    assert cached.read(key) == data


def test_bytes_that_are_sound_and_of_another_file_are_not_taken(cached: Cached, tmp_path: Path) -> None:
    (key, data), (other, other_data) = cached.sick.new(SIZE), cached.sick.new(SIZE)
    assert cached.read(key) == data
    ours = files_of(cached.cache)
    aside = tmp_path / 'aside'
    aside.mkdir()
    for file in ours:
        shutil.copy(file, aside)
    for file in ours:
        file.unlink()
    assert cached.read(other) == other_data
    for file in files_of(cached.cache):
        (copy,) = aside.glob(f'*{file.suffix}')
        shutil.copyfile(copy, file)
    assert cached.read(other) == other_data


def test_a_mount_reads_right_over_a_damaged_cache(sick: Sick, tmp_path: Path) -> None:
    damages = [flip_bytes, truncate_data, garbage_in_sums, link_for_data, delete_sums, directory_for_data]
    cache = tmp_path / 'cache'
    same = tmp_path / 'same'
    same.mkdir()
    keys: dict[str, Damage] = {}
    with mounted(tmp_path, [sick.definition(timeout_s=30)]) as tree:
        known: set[Path] = set()
        for damage in damages:
            key, data = sick.new(SIZE)
            (same / key).write_bytes(data)
            tree.run('cmp', f'sick/{key}', same / key)
            await_true(lambda known=known: len(set(cache.rglob('*.sums')) - known) == 1, what='the cached file')
            (sums,) = set(cache.rglob('*.sums')) - known
            known.add(sums)
            keys[key] = damage
            await_true(lambda sums=sums: sums.with_suffix('.data').stat().st_blocks * 512 >= SIZE, what='its bytes')
            same.joinpath(f'{key}.sums').symlink_to(sums)
    for key, damage in keys.items():
        sums = (same / f'{key}.sums').readlink()
        damage(sums.with_suffix('.data'), sums)
    with mounted(tmp_path, [sick.definition(timeout_s=30)]) as tree:
        for key in keys:
            tree.run('cmp', f'sick/{key}', same / key)


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own at a folder."""
    need_root('a full disk: only root can mount a small one')
    folder.mkdir(parents=True)
    done = run('mount', '-t', 'tmpfs', '-o', f'{options},mode=700', 'tmpfs', folder)
    assert done.returncode == 0, done.stderr
    try:
        yield folder
    finally:
        run('umount', '-l', folder)


@pytest.mark.parametrize('options', ['size=2m', 'size=100m,nr_inodes=4'], ids=['no room', 'no inodes'])
def test_a_full_disk_costs_no_read(cached: Cached, options: str) -> None:
    objects = [cached.sick.new(SIZE) for _ in range(4)]
    with small_disk(cached.cache, options):
        with cached.manager() as manager:
            for key, data in objects:
                assert manager.node('sick', key).read_bytes() == data
            # Nothing is left for anybody.
            _fill(cached.cache / 'ballast')
            for key, data in objects:
                assert manager.node('sick', key).read_bytes() == data
        for key, data in objects:
            assert cached.read(key) == data


def test_a_disk_that_becomes_read_only_costs_no_read(cached: Cached) -> None:
    (old, old_data), (new, new_data) = cached.sick.new(SIZE), cached.sick.new(SIZE)
    with small_disk(cached.cache, 'size=100m'):
        assert cached.read(old) == old_data
        fetched = cached.fetched(old)
        # As long as something is being written there, the kernel refuses.
        remount = ('mount', '-o', 'remount,ro', cached.cache)
        await_true(lambda: run(*remount).returncode == 0, what='a disk that is only read')
        assert cached.read(old) == old_data
        assert cached.read(new) == new_data
        assert cached.fetched(old) >= fetched


def test_a_mount_reads_on_with_a_full_disk(sick: Sick, tmp_path: Path) -> None:
    same = tmp_path / 'same'
    same.mkdir()
    with small_disk(tmp_path / 'cache', 'size=2m'), mounted(tmp_path, [sick.definition(timeout_s=30)]) as tree:
        for round_ in range(2):
            for _ in range(3):
                key, data = sick.new(SIZE)
                (same / key).write_bytes(data)
                tree.run('cmp', f'sick/{key}', same / key)
            if not round_:
                _fill(tmp_path / 'cache' / 'ballast')


def _fill(ballast: Path) -> None:
    """Take all the room there is."""
    try:
        with ballast.open('wb', buffering=0) as file:
            while file.write(bytes(64 << 10)) == 64 << 10:
                pass
    except OSError:
        assert not ballast.exists() or stat.S_ISREG(ballast.stat().st_mode)
