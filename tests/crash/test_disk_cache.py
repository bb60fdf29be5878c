"""The disk cache when its writers die: killed at every step, killed at random, and two of them at once.

Run as a module, this is the writer: a process with one thread, which may fork.
"""

import contextlib
import fcntl
import functools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from genro_storage.cache import eviction
from genro_storage.cache.blocks import BLOCK_BYTES, BlockKey
from genro_storage.cache.direct import LEAST_BYTES
from genro_storage.cache.disk import DiskBlockCache

FILE_BYTES = BLOCK_BYTES + 4096
LIMIT_BYTES = 12 * FILE_BYTES
FILES, BLOCKS = 8, 6
#: A page for each file that the file system itself needs, for extents that became many after they were counted.
BOUND_BYTES = LIMIT_BYTES + FILES * 4096
ROOT = Path(__file__).parents[2]


def key(file: int, number: int) -> BlockKey:
    return BlockKey('destination', f'file {file}', 'version', number)


@functools.cache
def content(file: int, number: int, variant: int = 0) -> bytes:
    size_bytes = BLOCK_BYTES if number < BLOCKS - 1 else 1000
    return random.Random(f'{file} {number} {variant}').randbytes(size_bytes)


def run_of(file: int) -> bytes:
    """The beginning of a file, long enough to be written past the page cache."""
    return b''.join(content(file, number) for number in range(LEAST_BYTES // BLOCK_BYTES))


def stored_bytes(root: Path) -> int:
    return sum(file.size_bytes for file in eviction.walk(root))


def check_hits(cache: DiskBlockCache) -> int:
    """Assert that what is found is right, each file of one content; how many blocks are found."""
    hits = 0
    for file in range(FILES):
        variants = set()
        for number in range(BLOCKS):
            block = cache.get(key(file, number))
            if block is not None:
                right = [variant for variant in range(2) if block == content(file, number, variant)]
                assert right, (file, number)
                variants.update(right)
                hits += 1
        assert len(variants) <= 1, file
    return hits


def check_all(root: Path) -> None:
    """Assert that the cache is sound, holds its bound and works on."""
    cache = DiskBlockCache(root, LIMIT_BYTES)
    check_hits(cache)
    for number in range(4):
        cache.put(BlockKey('destination', 'new', 'version', number), content(0, number))
    assert cache.get(BlockKey('destination', 'new', 'version', 3)) == content(0, 3)
    assert stored_bytes(root) <= BOUND_BYTES
    check_hits(cache)
    cache.close()


# The writer that is killed at every step


def prepare(root: Path) -> None:
    """A cache that is nearly full, with a damaged block."""
    cache = DiskBlockCache(root, LIMIT_BYTES)
    for number in range(3):
        for file in range(3):
            cache.put(key(file, number), content(file, number))
    cache.close()
    damaged = sorted(root.glob('*/*.data'))[0]
    with damaged.open('r+b') as file:
        file.write(b'damage')


def write_a_little(root: Path) -> None:
    """Everything that writes: a repair, a new file, a replaced one, an eviction, and giving back."""
    cache = DiskBlockCache(root, LIMIT_BYTES)
    for file in range(3):
        if cache.get(key(file, 0)) is None:
            cache.put(key(file, 0), content(file, 0))
    cache.put(key(1, 1), content(1, 1, 1))
    cache.put(key(1, 2), content(1, 2, 1))
    for number in range(5):
        cache.put(key(3, number), content(3, number))
    cache.put(key(4, 0), run_of(4))
    cache.close()


STEPS: list[tuple[object, str]] = [
    (os, 'open'),
    (os, 'pwrite'),
    (os, 'pread'),
    (os, 'unlink'),
    (os, 'mkdir'),
    (os, 'utime'),
    (os, 'close'),
    (fcntl, 'flock'),
]


def die_at_step(last: int) -> None:
    """Have this process killed at its n-th step from here, in the middle of it where it is a write."""
    done = 0

    def stop_before(call: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            nonlocal done
            done += 1
            if done == last:
                if call is pwrite:
                    descriptor, data, offset = arguments
                    pwrite(descriptor, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return step

    pwrite = os.pwrite
    for module, name in STEPS:
        setattr(module, name, stop_before(getattr(module, name)))


def kill_at_every_step(directory: Path) -> int:
    template = directory / 'template'
    prepare(template)
    for last in range(1, 10_000):
        root = directory / f'killed-{last}'
        shutil.copytree(template, root)
        child = os.fork()
        if not child:
            die_at_step(last)
            write_a_little(root)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, (last, status)
        check_all(root)
        shutil.rmtree(root)
        if status == 0:
            return last
    raise AssertionError('the writer never came to its end')


# The writer that is killed at random


def write_for_ever(root: Path, seed: int, progress: int) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES)
    choice = random.Random(seed)
    while True:
        file, number = choice.randrange(FILES), choice.randrange(BLOCKS)
        block = cache.get(key(file, number))
        assert block in {None, content(file, number)}
        if block is None:
            if choice.random() < 0.1:
                cache.put(key(file, 0), run_of(file))
            else:
                cache.put(key(file, number), content(file, number))
        os.write(progress, b'.')


def kill_at_random(directory: Path, times: int) -> int:
    root = directory / 'blocks'
    choice = random.Random(0)
    hits = 0
    for seed in range(times):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            write_for_ever(root, seed, writer)
        os.close(writer)
        for _ in range(choice.randrange(40)):
            assert os.read(reader, 1), 'the writer failed'
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        os.close(reader)
        cache = DiskBlockCache(root, LIMIT_BYTES)
        hits += check_hits(cache)
        cache.close()
        assert not root.exists() or stored_bytes(root) <= BOUND_BYTES
    check_all(root)
    return hits


def run_alone(what: str, directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'tests.crash.test_disk_cache', what, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_writer_killed_at_any_step_leaves_right_blocks_and_a_bound_that_holds(tmp_path: Path) -> None:
    run_alone('every step', tmp_path)


def test_writers_killed_at_random_leave_right_blocks_and_a_bound_that_holds(tmp_path: Path) -> None:
    run_alone('random', tmp_path)


# Two writers at once


def hammer(root: Path, seed: int, rounds: int) -> None:
    cache = DiskBlockCache(root, LIMIT_BYTES)
    choice = random.Random(seed)
    blocks = {key(file, number): content(file, number) for file in range(FILES) for number in range(BLOCKS)}
    hits = 0
    for _ in range(rounds):
        wanted, block = choice.choice(list(blocks.items()))
        found = cache.get(wanted)
        if found is None:
            cache.put(wanted, block)
        else:
            assert found == block, wanted
            hits += 1
        if choice.random() < 0.02:
            cache.verify_file(*wanted[:3], (BLOCKS - 1) * BLOCK_BYTES + 1000)
        if choice.random() < 0.01:
            with contextlib.suppress(FileNotFoundError):
                eviction.evict(root, FILE_BYTES, keep='')
    cache.close()
    assert hits > rounds // 20, hits


def stored_meanwhile(root: Path, processes: list[multiprocessing.process.BaseProcess]) -> Iterator[int]:
    while any(process.is_alive() for process in processes):
        processes[0].join(0.02)
        if root.exists():
            # A walk during which one file goes and another comes may count both: the least of three.
            yield min(stored_bytes(root) for _ in range(3))


def test_processes_that_hammer_one_directory_find_right_blocks_and_keep_one_bound(tmp_path: Path) -> None:
    root = tmp_path / 'blocks'
    spawn = multiprocessing.get_context('spawn')
    processes = [spawn.Process(target=hammer, args=(root, seed, 2000)) for seed in range(3)]
    for process in processes:
        process.start()
    try:
        # A piece for each process, and a block that a walk finds half written while its room is claimed.
        assert max(stored_meanwhile(root, list(processes))) <= BOUND_BYTES + 3 * FILE_BYTES
    finally:
        for process in processes:
            process.join(50)
            process.kill()
            process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert stored_bytes(root) <= BOUND_BYTES + 3 * FILE_BYTES
    check_all(root)


def main() -> None:
    """The writer: ``every step`` or ``random``, and a directory."""
    what, directory = sys.argv[1:]
    if what == 'every step':
        steps = kill_at_every_step(Path(directory))
        assert steps > 100, steps
    else:
        hits = kill_at_random(Path(directory), times=100)
        assert hits > 150, hits


if __name__ == '__main__':
    main()
