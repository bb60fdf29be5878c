"""Cases that need a kernel: room that is reserved, holes, copies without the bytes, and files without a name."""

import ctypes
import errno
import mmap
import os
import subprocess
from pathlib import Path

from tests.mount.posix import STORES, Table, fails_with

CASES = Table()
case = CASES.of_path

# linux/falloc.h
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 1, 2, 8, 16, 32
#: A whole number of blocks on every disk.
PIECE = 1 << 16
DATA = os.urandom(4 * PIECE)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    """fallocate(2); os has posix_fallocate only, which writes where it is refused."""
    if _libc.fallocate(fd, mode, offset, size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# Reserving


@case('local')
def room_is_reserved_and_the_file_lengthened(directory: Path) -> None:
    with (directory / 'f').open('wb') as file:
        file.write(b'start')
        file.flush()
        fallocate(file.fileno(), 0, 0, 10 * PIECE)
        assert os.fstat(file.fileno()).st_size == 10 * PIECE
        assert os.fstat(file.fileno()).st_blocks * 512 >= 10 * PIECE
    assert (directory / 'f').read_bytes() == b'start'.ljust(10 * PIECE, b'\0')


@case('local')
def room_behind_the_end_can_be_reserved(directory: Path) -> None:
    with (directory / 'f').open('wb') as file:
        fallocate(file.fileno(), KEEP_SIZE, 0, 10 * PIECE)
        assert os.fstat(file.fileno()).st_size == 0
        assert os.fstat(file.fileno()).st_blocks * 512 >= 10 * PIECE
    assert (directory / 'f').read_bytes() == b''


@case('local')
def a_hole_is_punched_and_its_room_given_back(directory: Path) -> None:
    (directory / 'f').write_bytes(DATA)
    blocks = (directory / 'f').stat().st_blocks
    with (directory / 'f').open('r+b', buffering=0) as file:
        assert file.read(PIECE + 1) == DATA[: PIECE + 1]  # so that pages are cached
        fallocate(file.fileno(), PUNCH_HOLE | KEEP_SIZE, PIECE, 2 * PIECE)
        assert os.pread(file.fileno(), 4 * PIECE, 0) == DATA[:PIECE] + bytes(2 * PIECE) + DATA[3 * PIECE :]
        assert os.fstat(file.fileno()).st_blocks <= blocks - 2 * PIECE // 512
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == PIECE
        assert os.lseek(file.fileno(), PIECE, os.SEEK_DATA) == 3 * PIECE
    with (directory / 'f').open('r+b') as file, fails_with(errno.EOPNOTSUPP):
        fallocate(file.fileno(), PUNCH_HOLE, 0, PIECE)


@case('local')
def a_range_becomes_zeros(directory: Path) -> None:
    """Or is refused, by disks that cannot, and then nothing has changed."""
    (directory / 'f').write_bytes(DATA)
    with (directory / 'f').open('r+b', buffering=0) as file:
        expected = DATA[:1000] + bytes(PIECE) + DATA[1000 + PIECE :]
        try:
            fallocate(file.fileno(), ZERO_RANGE | KEEP_SIZE, 1000, PIECE)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            expected = DATA
        assert file.read() == expected


@case('local')
def what_would_move_the_rest_of_a_file_is_refused_by_the_kernel(directory: Path) -> None:
    (directory / 'f').write_bytes(DATA)
    with (directory / 'f').open('r+b') as file:
        for mode in (COLLAPSE_RANGE, INSERT_RANGE):
            with fails_with(errno.EOPNOTSUPP):
                fallocate(file.fileno(), mode, 0, PIECE)
    assert (directory / 'f').read_bytes() == DATA


@case('local')
def what_is_only_read_or_makes_no_sense_is_not_reserved(directory: Path) -> None:
    (directory / 'f').write_bytes(DATA)
    with (directory / 'f').open('rb') as file, fails_with(errno.EBADF):
        fallocate(file.fileno(), 0, 0, PIECE)
    with (directory / 'f').open('r+b') as file:
        with fails_with(errno.EINVAL):
            fallocate(file.fileno(), 0, 0, 0)
        with fails_with(errno.EFBIG):
            fallocate(file.fileno(), 0, 0, (1 << 63) - 1)
    assert (directory / 'f').read_bytes() == DATA


# Holes


@case('local')
def the_holes_of_a_sparse_file_are_found(directory: Path) -> None:
    with (directory / 'f').open('w+b', buffering=0) as file:
        os.pwrite(file.fileno(), DATA[:PIECE], 16 * PIECE)
        os.ftruncate(file.fileno(), 32 * PIECE)
        for offset, data, hole in ((0, 16, 0), (16, 16, 17)):
            assert os.lseek(file.fileno(), offset * PIECE, os.SEEK_DATA) == data * PIECE
            assert os.lseek(file.fileno(), offset * PIECE, os.SEEK_HOLE) == hole * PIECE
        assert os.lseek(file.fileno(), 20 * PIECE + 5, os.SEEK_HOLE) == 20 * PIECE + 5
        for offset, whence in (
            (20 * PIECE, os.SEEK_DATA),
            (32 * PIECE, os.SEEK_DATA),
            (32 * PIECE, os.SEEK_HOLE),
            (1 << 62, os.SEEK_DATA),
            (-1, os.SEEK_HOLE),
        ):
            with fails_with(errno.ENXIO):
                os.lseek(file.fileno(), offset, whence)
        assert file.tell() == 20 * PIECE + 5


@case('local')
def copies_of_sparse_files_are_sparse(directory: Path) -> None:
    with (directory / 'f').open('wb') as file:
        file.seek(512 * PIECE)
        file.write(DATA)
    subprocess.run(['cp', 'f', 'g'], cwd=directory, check=True)
    assert (directory / 'g').stat().st_size == 516 * PIECE
    assert (directory / 'g').stat().st_blocks * 512 <= 16 * PIECE
    subprocess.run(['cmp', 'f', 'g'], cwd=directory, check=True)


# Copies


@case('local')
def ranges_are_copied_from_anywhere_to_anywhere(directory: Path) -> None:
    (directory / 'f').write_bytes(DATA)
    (directory / 'g').write_bytes(b'g' * 1000)
    with (directory / 'f').open('rb') as source, (directory / 'g').open('r+b', buffering=0) as target:
        assert target.read() == b'g' * 1000  # so that pages are cached
        assert os.copy_file_range(source.fileno(), target.fileno(), PIECE, 5, 500) == PIECE
        assert os.pread(target.fileno(), 2 * PIECE, 0) == b'g' * 500 + DATA[5 : PIECE + 5]
        assert os.fstat(target.fileno()).st_size == PIECE + 500
        assert os.copy_file_range(source.fileno(), target.fileno(), PIECE, 4 * PIECE - 7, 0) == 7
        assert os.copy_file_range(source.fileno(), target.fileno(), PIECE, 4 * PIECE, 0) == 0
        assert os.copy_file_range(source.fileno(), target.fileno(), 3, 0, 8 * PIECE) == 3
    content = (directory / 'g').read_bytes()
    assert content == (DATA[-7:] + b'g' * 493 + DATA[5 : PIECE + 5]).ljust(8 * PIECE, b'\0') + DATA[:3]


@case('local')
def a_file_is_copied_into_itself_where_it_does_not_overlap(directory: Path) -> None:
    (directory / 'f').write_bytes(DATA)
    with (directory / 'f').open('r+b') as file, (directory / 'f').open('rb') as source:
        assert os.copy_file_range(source.fileno(), file.fileno(), PIECE, 0, 3 * PIECE) == PIECE
        with fails_with(errno.EINVAL):
            os.copy_file_range(source.fileno(), file.fileno(), PIECE, 0, 10)
    assert (directory / 'f').read_bytes() == DATA[: 3 * PIECE] + DATA[:PIECE]


@case('local')
def a_copy_needs_a_source_to_read_and_a_target_to_write(directory: Path) -> None:
    (directory / 'f').write_bytes(DATA)
    (directory / 'g').write_bytes(b'g')
    for modes in (('rb', 'rb'), ('ab', 'r+b'), ('rb', 'ab')):
        with (
            (directory / 'f').open(modes[0]) as source,
            (directory / 'g').open(modes[1]) as target,
            fails_with(errno.EBADF),
        ):
            os.copy_file_range(source.fileno(), target.fileno(), 10)
    assert (directory / 'g').read_bytes() == b'g'


@case('local')
def what_was_just_written_through_a_mapping_is_copied(directory: Path) -> None:
    with (directory / 'f').open('w+b') as source, (directory / 'g').open('wb') as target:
        source.truncate(PIECE)
        with mmap.mmap(source.fileno(), 0) as mapped:
            mapped[100:106] = b'mapped'
            assert os.copy_file_range(source.fileno(), target.fileno(), PIECE) == PIECE
    assert (directory / 'g').read_bytes() == bytes(100) + b'mapped' + bytes(PIECE - 106)


# Files without a name


def give_name(fd: int, directory: Path, name: str) -> None:
    """As open(2) shows under O_TMPFILE. os.link follows links only where it is told a directory."""
    above = os.open(directory, os.O_PATH)
    try:
        os.link(f'/proc/self/fd/{fd}', name, dst_dir_fd=above, follow_symlinks=True)
    finally:
        os.close(above)


@case('local')
def a_file_without_a_name_gets_one_when_it_is_linked(directory: Path) -> None:
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o640)
    try:
        os.write(fd, DATA)
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(directory) == []
        give_name(fd, directory, 'f')
        found, named = os.fstat(fd), (directory / 'f').stat()
        assert (found.st_ino, found.st_nlink) == (named.st_ino, 1) == (named.st_ino, named.st_nlink)
        os.pwrite(fd, b'later', 0)
    finally:
        os.close(fd)
    assert os.listdir(directory) == ['f']
    assert (directory / 'f').read_bytes() == b'later' + DATA[5:]


@case('local')
def a_file_that_is_to_have_no_name_gets_none(directory: Path) -> None:
    fds = [os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_EXCL) for _ in range(2)]
    for number, fd in enumerate(fds):
        os.write(fd, b'x' * number)
    assert [os.fstat(fd).st_size for fd in fds] == [0, 1]
    assert not os.path.samestat(*map(os.fstat, fds))
    with fails_with(errno.ENOENT):
        give_name(fds[0], directory, 'f')
    for fd in fds:
        os.close(fd)
    assert os.listdir(directory) == []


@case(*STORES)
def files_without_a_name_are_refused_where_they_cannot_be(directory: Path) -> None:
    for _ in range(2):
        with fails_with(errno.EOPNOTSUPP):
            os.open(directory, os.O_TMPFILE | os.O_RDWR)
    assert os.listdir(directory) == []
