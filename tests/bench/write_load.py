"""The load of the write benchmark: what a user does with a mounted bucket, each thing timed.

Run as: python -m tests.bench.write_load (prepare | run) WORKLOAD DIRECTORY SOURCE [--fsync]. DIRECTORY is the
workload's own, SOURCE what make_source() made on the local disk. ``run`` prints one JSON object: when it began
(CLOCK_MONOTONIC, which all processes share) and its seconds. Between the two, and after, whoever drives this looks into
the bucket for what the workload says must be there.
"""
# ruff: noqa: T201 - a program that prints

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

FILES = 300
SMALL_BYTES = 8 << 10
LARGE_BYTES = 256 << 20
APPENDED_BYTES = 1 << 10
SAVES = 50
WRITERS = 4
DIRECTORIES = 3


class Place(NamedTuple):
    """Where a workload works; fsync: it says so for each file, as whoever wants the same of a local disk must."""

    directory: Path
    source: Path
    fsync: bool = False


class Stored(NamedTuple):
    """What must be in the bucket under a name; md5 where the object is one that a server tells it of."""

    size_bytes: int
    md5: str | None = None


class Workload(NamedTuple):
    """prepare is not timed. Both say what they leave in the bucket, by names relative to the directory.

    seed: what is there before anybody mounts the bucket, unknown to its caches.
    """

    run: Callable[[Place], None]
    after: dict[str, Stored]
    prepare: Callable[[Place], None] | None = None
    before: dict[str, Stored] | None = None
    seed: dict[str, int] | None = None


def content(number: int) -> bytes:
    """The bytes of a small file: each another."""
    return random.Random(number).randbytes(SMALL_BYTES)


def make_source(source: Path) -> None:
    """The local tree that is copied and unpacked."""
    for number in range(FILES):
        path = source / 'tree' / _in_tree(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(number))
    with tarfile.open(source / 'tree.tar', 'w') as archive:
        archive.add(source / 'tree', 'tree')


# What a program does


def write_file(path: Path, pieces: Iterable[bytes], *, fsync: bool, flags: int = os.O_CREAT | os.O_TRUNC) -> None:
    fd = os.open(path, os.O_WRONLY | flags, 0o666)
    try:
        for piece in pieces:
            if os.write(fd, piece) != len(piece):
                raise RuntimeError(f'{path}: a write was short')
        if fsync:
            os.fsync(fd)
    finally:
        os.close(fd)


def command(*arguments: str | Path) -> None:
    done = subprocess.run([str(argument) for argument in arguments], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{arguments[0]}: {done.stderr.partition(chr(10))[0]} ({done.stderr.count(chr(10))} lines)')


def small_files(place: Place) -> None:
    for number, data in enumerate(_CONTENTS):
        write_file(place.directory / f'f{number}', [data], fsync=place.fsync)


def four_writers(place: Place) -> None:
    processes = multiprocessing.get_context('fork')

    def write(writer: int) -> None:
        for number in range(writer, FILES, WRITERS):
            write_file(place.directory / f'w{writer}' / f'f{number}', [_CONTENTS[number]], fsync=place.fsync)

    writers = [processes.Process(target=write, args=(writer,)) for writer in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    failed = sum(writer.exitcode != 0 for writer in writers)
    if failed:
        raise RuntimeError(f'{failed} of {WRITERS} writers failed')


def directories_of_writers(place: Place) -> None:
    for writer in range(WRITERS):
        (place.directory / f'w{writer}').mkdir()


def large_file(place: Place, *, fsync: bool) -> None:
    write_file(place.directory / 'large', repeat(_PIECE, LARGE_BYTES // len(_PIECE)), fsync=fsync)


def tree(place: Place) -> None:
    for number, data in enumerate(_CONTENTS):
        path = place.directory / 'tree' / _in_tree(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, [data], fsync=False)


def remove_tree(place: Place) -> None:
    command('rm', '-r', place.directory / 'tree')


def append(place: Place) -> None:
    write_file(place.directory / 'large', [bytes(APPENDED_BYTES)], fsync=place.fsync, flags=os.O_APPEND)


def first_save(place: Place) -> None:
    write_file(place.directory / 'document', [content(-1)], fsync=False)


def saves(place: Place) -> None:
    """As editors do it: what is at the name is the old text or the new one, never half of it."""
    for number in range(SAVES):
        write_file(place.directory / '.document.tmp', [_CONTENTS[number]], fsync=True)
        (place.directory / '.document.tmp').rename(place.directory / 'document')


def files_to_rename(place: Place) -> None:
    (place.directory / 'old').mkdir()
    small_files(place._replace(directory=place.directory / 'old'))


def rename_directory(place: Place) -> None:
    (place.directory / 'old').rename(place.directory / 'new')


def unpack(place: Place) -> None:
    command('tar', '-C', place.directory, '-xf', place.source / 'tree.tar')


def copy_tree(place: Place) -> None:
    command('cp', '-r', place.source / 'tree', place.directory)


# What that leaves in the bucket


def _in_tree(number: int) -> str:
    return f'd{number * DIRECTORIES // FILES}/f{number}'


def _small(data: bytes) -> Stored:
    return Stored(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())


_CONTENTS = [content(number) for number in range(FILES)]
_PIECE = random.Random(FILES).randbytes(1 << 20)
_SMALL = [_small(data) for data in _CONTENTS]
_LARGE = {'large': Stored(LARGE_BYTES)}
_TREE = {f'tree/{_in_tree(number)}': stored for number, stored in enumerate(_SMALL)}

WORKLOADS: dict[str, Workload] = {
    'small': Workload(small_files, {f'f{number}': stored for number, stored in enumerate(_SMALL)}),
    'four': Workload(
        four_writers,
        {f'w{number % WRITERS}/f{number}': stored for number, stored in enumerate(_SMALL)},
        prepare=directories_of_writers,
    ),
    'large': Workload(lambda place: large_file(place, fsync=True), _LARGE),
    'stream': Workload(lambda place: large_file(place, fsync=False), _LARGE),
    'remove': Workload(remove_tree, {}, prepare=tree, before=_TREE),
    'append': Workload(
        append, {'large': Stored(LARGE_BYTES + APPENDED_BYTES)}, before=_LARGE, seed={'large': LARGE_BYTES}
    ),
    'save': Workload(saves, {'document': _SMALL[SAVES - 1]}, first_save, {'document': _small(content(-1))}),
    'rename': Workload(
        rename_directory,
        {f'new/f{number}': stored for number, stored in enumerate(_SMALL)},
        prepare=files_to_rename,
        before={f'old/f{number}': stored for number, stored in enumerate(_SMALL)},
    ),
    'unpack': Workload(unpack, _TREE),
    'copy': Workload(copy_tree, _TREE),
}


def prepare(workload: Workload, place: Place) -> None:
    place.directory.mkdir(parents=True, exist_ok=True)
    if workload.prepare is not None:
        workload.prepare(place)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('step', choices=['prepare', 'run'])
    parser.add_argument('workload', choices=list(WORKLOADS))
    parser.add_argument('directory', type=Path)
    parser.add_argument('source', type=Path)
    parser.add_argument('--fsync', action='store_true')
    arguments = parser.parse_args()
    workload = WORKLOADS[arguments.workload]
    place = Place(arguments.directory, arguments.source, arguments.fsync)
    try:
        if arguments.step == 'prepare':
            prepare(workload, place)
            return
        started = time.monotonic()
        workload.run(place)
        print(json.dumps({'started': started, 'seconds': time.monotonic() - started}))
    except (OSError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
