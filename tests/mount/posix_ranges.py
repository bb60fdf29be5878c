"""Cases that need a kernel: holes, room and copies of ranges where contents are staged before they are stored.

Most are those of posix_space that hold for any file system; the rest is about what differs on object stores.
"""

import errno
import os
import subprocess
from pathlib import Path

from tests.mount import posix_space
from tests.mount.posix import STORES, Table, fails_with
from tests.mount.posix_space import DATA, KEEP_SIZE, PIECE, PUNCH_HOLE, ZERO_RANGE, fallocate

CASES = Table()
case = CASES.of_path

#: Large enough that the store copies it.
LARGE = os.urandom(2 << 20) + b'the end'

for same in (
    posix_space.a_range_becomes_zeros,
    posix_space.what_would_move_the_rest_of_a_file_is_refused_by_the_kernel,
    posix_space.the_holes_of_a_sparse_file_are_found,
    posix_space.ranges_are_copied_from_anywhere_to_anywhere,
    posix_space.a_file_is_copied_into_itself_where_it_does_not_overlap,
    posix_space.a_copy_needs_a_source_to_read_and_a_target_to_write,
    posix_space.what_was_just_written_through_a_mapping_is_copied,
):
    case(*STORES)(same)


# Reserving


@case(*STORES)
def a_file_is_lengthened_with_zeros_where_room_is_reserved(directory: Path) -> None:
    (directory / 'f').write_bytes(b'start')
    with (directory / 'f').open('r+b') as file:
        fallocate(file.fileno(), KEEP_SIZE, 0, 10 * PIECE)
        assert os.fstat(file.fileno()).st_size == 5
        fallocate(file.fileno(), 0, 0, 2 * PIECE)
        assert os.fstat(file.fileno()).st_size == 2 * PIECE
        fallocate(file.fileno(), 0, 0, PIECE)
        assert os.fstat(file.fileno()).st_size == 2 * PIECE
        fallocate(file.fileno(), ZERO_RANGE, PIECE, 2 * PIECE)
        assert os.fstat(file.fileno()).st_size == 3 * PIECE
    assert (directory / 'f').read_bytes() == b'start'.ljust(3 * PIECE, b'\0')


@case(*STORES)
def what_is_stored_gets_a_hole_and_the_rest_stays(directory: Path) -> None:
    (directory / 'f').write_bytes(LARGE)
    with (directory / 'f').open('r+b', buffering=0) as file:
        assert file.read(PIECE + 1) == LARGE[: PIECE + 1]  # so that pages are cached
        fallocate(file.fileno(), PUNCH_HOLE | KEEP_SIZE, PIECE, 2 * PIECE)
        expected = LARGE[:PIECE] + bytes(2 * PIECE) + LARGE[3 * PIECE :]
        assert os.pread(file.fileno(), len(LARGE), 0) == expected
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == PIECE
        assert os.lseek(file.fileno(), PIECE, os.SEEK_DATA) == 3 * PIECE
        assert os.lseek(file.fileno(), 3 * PIECE, os.SEEK_HOLE) == len(LARGE)
        fallocate(file.fileno(), PUNCH_HOLE | KEEP_SIZE, len(LARGE) - 3, PIECE)
        assert os.fstat(file.fileno()).st_size == len(LARGE)
    assert (directory / 'f').read_bytes() == expected[:-3] + bytes(3)


# Holes


@case(*STORES)
def what_is_stored_is_all_data(directory: Path) -> None:
    with (directory / 'f').open('wb') as file:
        os.ftruncate(file.fileno(), 8 * PIECE)
    with (directory / 'f').open('rb') as file:
        assert os.lseek(file.fileno(), PIECE, os.SEEK_DATA) == PIECE
        assert os.lseek(file.fileno(), PIECE, os.SEEK_HOLE) == 8 * PIECE
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with fails_with(errno.ENXIO):
                os.lseek(file.fileno(), 8 * PIECE, whence)


@case(*STORES)
def what_was_not_fetched_is_no_hole(directory: Path) -> None:
    (directory / 'f').write_bytes(LARGE)
    with (directory / 'f').open('r+b', buffering=0) as file:
        os.pwrite(file.fileno(), b'x', 0)
        assert os.lseek(file.fileno(), PIECE, os.SEEK_DATA) == PIECE
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == len(LARGE)
        os.ftruncate(file.fileno(), len(LARGE) + 8 * PIECE)
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) <= len(LARGE) + 4096
        with fails_with(errno.ENXIO):
            os.lseek(file.fileno(), len(LARGE) + 4 * PIECE, os.SEEK_DATA)
    subprocess.run(['cp', '--sparse=auto', 'f', 'g'], cwd=directory, check=True)
    assert (directory / 'g').read_bytes() == b'x' + LARGE[1:] + bytes(8 * PIECE)


# Copies


@case()
def a_copy_is_read_before_it_is_closed_and_after(directory: Path) -> None:
    (directory / 'f').write_bytes(LARGE)
    (directory / 'g').write_bytes(b'what was there')
    with (directory / 'f').open('rb') as source, (directory / 'g').open('w+b', buffering=0) as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 1 << 40) == len(LARGE)
        assert os.fstat(target.fileno()).st_size == (directory / 'g').stat().st_size == len(LARGE)
        assert os.pread(target.fileno(), 2 * len(LARGE), 0) == LARGE
    assert (directory / 'g').read_bytes() == LARGE


@case()
def a_copy_is_changed_like_any_file(directory: Path) -> None:
    (directory / 'f').write_bytes(LARGE)
    with (directory / 'f').open('rb') as source, (directory / 'g').open('w+b', buffering=0) as target:
        copied = 0
        while moved := os.copy_file_range(source.fileno(), target.fileno(), 5 * PIECE):
            copied += moved
        assert copied == len(LARGE)
        os.pwrite(target.fileno(), b'first', 0)
        os.pwrite(target.fileno(), b'and more', len(LARGE))
        os.ftruncate(target.fileno(), len(LARGE) + 4)
        fallocate(target.fileno(), PUNCH_HOLE | KEEP_SIZE, PIECE, PIECE)
        os.fsync(target.fileno())
        os.pwrite(target.fileno(), b'last', len(LARGE))
    expected = b'first' + LARGE[5:PIECE] + bytes(PIECE) + LARGE[2 * PIECE :] + b'last'
    assert (directory / 'g').read_bytes() == expected
    assert (directory / 'f').read_bytes() == LARGE


@case()
def a_copy_outlives_its_source(directory: Path) -> None:
    (directory / 'f').write_bytes(LARGE)
    with (directory / 'f').open('rb') as source, (directory / 'g').open('wb') as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 1 << 40) == len(LARGE)
        (directory / 'f').unlink()
        (directory / 'f').write_bytes(b'another')
    assert (directory / 'g').read_bytes() == LARGE


@case()
def a_copy_of_what_was_just_written_has_it(directory: Path) -> None:
    with (directory / 'f').open('w+b', buffering=0) as source, (directory / 'g').open('wb') as target:
        source.write(LARGE)
        assert os.copy_file_range(source.fileno(), target.fileno(), len(LARGE), 0, 0) == len(LARGE)
    assert (directory / 'g').read_bytes() == LARGE


@case()
def a_piece_of_a_file_becomes_a_file(directory: Path) -> None:
    (directory / 'f').write_bytes(LARGE)
    with (directory / 'f').open('rb') as source:
        for name, start in (('head', 0), ('tail', PIECE)):
            with (directory / name).open('wb') as target:
                assert os.copy_file_range(source.fileno(), target.fileno(), 3 * PIECE, start, 0) == 3 * PIECE
    assert (directory / 'head').read_bytes() == LARGE[: 3 * PIECE]
    assert (directory / 'tail').read_bytes() == LARGE[PIECE : 4 * PIECE]


@case(*STORES)
def programs_copy(directory: Path) -> None:
    (directory / 'f').write_bytes(LARGE)
    (directory / 'small').write_bytes(DATA[:100])
    script = 'cp f a; cp a a2; cp -p small b; mkdir d; cp -a f small d; install f c; dd if=f of=e bs=64K status=none'
    subprocess.run(['sh', '-euc', script], cwd=directory, check=True)
    for name in ('a', 'a2', 'd/f', 'c', 'e'):
        assert (directory / name).read_bytes() == LARGE, name
    for name in ('b', 'd/small'):
        assert (directory / name).read_bytes() == DATA[:100], name
