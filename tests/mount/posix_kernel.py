"""Cases that need a kernel: mappings, directory streams, descriptors, and what it does with their answers.

Each gets the path of an empty directory.
"""

import ctypes
import errno
import mmap
import os
import tempfile
import threading
import time
from pathlib import Path

from tests.mount.posix import STORES, Table, fails_with

CASES = Table()
case = CASES.of_path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = _libc.readdir.restype = ctypes.c_void_p
for _function in (_libc.readdir, _libc.rewinddir, _libc.telldir, _libc.seekdir, _libc.closedir):
    _function.argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
_libc.telldir.restype = ctypes.c_long
_NAME_OFFSET = 19  # of d_name in struct dirent64 (bits/dirent.h)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
COMMIT_TIMEOUT_S = 10


# Mappings


@case()
def a_mapping_reads(directory: Path) -> None:
    content = bytes(range(256)) * 4096
    (directory / 'f').write_bytes(content)
    with (directory / 'f').open('rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == content
        assert mapped[777_777] == content[777_777]


@case()
def writes_through_a_mapping_arrive(directory: Path) -> None:
    (directory / 'f').write_bytes(bytes(10_000))
    with (directory / 'f').open('r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[5000:5003] = b'abc'
        mapped.flush()
    assert (directory / 'f').read_bytes() == bytes(5000) + b'abc' + bytes(4997)


@case()
def writes_through_a_mapping_after_close_arrive(directory: Path) -> None:
    (directory / 'f').write_bytes(bytes(10_000))
    with (directory / 'f').open('r+b') as file:
        mapped = mmap.mmap(file.fileno(), 0)
        # What mmap duplicates for itself is a descriptor too; the last close is the mapping's.
    mapped[5000:5003] = b'abc'
    mapped.close()
    # They are committed at the release, for which nobody waits.
    deadline = time.monotonic() + COMMIT_TIMEOUT_S
    while (directory / 'f').read_bytes() != bytes(5000) + b'abc' + bytes(4997):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Directory streams


def _names_from(stream: int, count: int | None = None) -> list[str]:
    names: list[str] = []
    while (count is None or len(names) < count) and (entry := _libc.readdir(stream)):
        names.append(os.fsdecode(ctypes.string_at(entry + _NAME_OFFSET)))
    return names


@case()
def a_directory_stream_seeks_and_rewinds(directory: Path) -> None:
    for number in range(80):
        (directory / f'{number:03}').mkdir()
    stream = _libc.opendir(os.fsencode(directory))
    assert stream
    try:
        _names_from(stream, 50)
        position = _libc.telldir(stream)
        rest = _names_from(stream)
        assert len(rest) == 32  # with '.' and '..'
        _libc.seekdir(stream, position)
        assert _names_from(stream) == rest
        (directory / 'later').mkdir()
        _libc.rewinddir(stream)
        again = _names_from(stream)
        assert sorted(again) == sorted(['.', '..', 'later', *(f'{number:03}' for number in range(80))])
    finally:
        _libc.closedir(stream)


@case('memory', 'local')
def a_listing_of_a_thousand_is_whole_while_others_come_and_go(directory: Path) -> None:
    stays = {f'stays-{number:04}' for number in range(1_000)}
    for name in stays:
        (directory / name).touch()
    done = threading.Event()

    def disturb() -> None:
        number = 0
        while not done.is_set():
            passing = directory / f'passes-{number % 7}'
            passing.touch()
            passing.rename(directory / f'moved-{number % 7}')
            (directory / f'moved-{number % 7}').unlink()
            number += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(5):
            with os.scandir(directory) as entries:
                names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
            found = [name for name in names if name.startswith('stays-')]
            assert len(found) == len(set(found)) == 1_000
    finally:
        done.set()
        thread.join()
    assert set(os.listdir(directory)) == stays


# Descriptors


@case()
def a_duplicate_writes_on_after_the_original_is_closed(directory: Path) -> None:
    fd = os.open(directory / 'f', os.O_WRONLY | os.O_CREAT)
    other = os.dup(fd)
    os.write(fd, b'one ')
    os.close(fd)
    assert (directory / 'f').read_bytes() == b'one '
    os.write(other, b'two')
    os.close(other)
    assert (directory / 'f').read_bytes() == b'one two'


@case()
def a_descriptor_is_for_what_it_was_opened_for(directory: Path) -> None:
    (directory / 'f').write_bytes(b'f')
    for flags, use in ((os.O_RDONLY, lambda fd: os.write(fd, b'x')), (os.O_WRONLY, lambda fd: os.read(fd, 1))):
        fd = os.open(directory / 'f', flags)
        with fails_with(errno.EBADF):
            use(fd)
        os.close(fd)


@case()
def direct_io_works(directory: Path) -> None:
    page = mmap.mmap(-1, 4096)
    page[:] = b'p' * 4096
    fd = os.open(directory / 'f', os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    os.pwrite(fd, page, 0)
    os.pwrite(fd, page, 4096)
    assert os.preadv(fd, [page], 4096) == 4096
    os.close(fd)
    assert (directory / 'f').read_bytes() == b'p' * 8192


@case()
def what_is_open_for_direct_io_can_be_mapped(directory: Path) -> None:
    (directory / 'f').write_bytes(bytes(8192))
    fd = os.open(directory / 'f', os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(fd, 0) as mapped, mmap.mmap(-1, 4096) as page:
        mapped[10:14] = b'here'
        assert os.preadv(fd, [page], 0) == 4096
        assert page[10:14] == b'here'
        page[20:25] = b'there'
        os.pwrite(fd, page, 4096)
        assert mapped[4096 + 20 : 4096 + 25] == b'there'
    os.close(fd)
    content = (directory / 'f').read_bytes()
    assert (content[10:14], content[4096 + 10 : 4096 + 14], content[4096 + 20 : 4096 + 25]) == (
        b'here',
        b'here',
        b'there',
    )


@case()
def o_directory_is_for_directories(directory: Path) -> None:
    (directory / 'f').touch()
    with fails_with(errno.ENOTDIR):
        os.open(directory / 'f', os.O_RDONLY | os.O_DIRECTORY)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    assert os.listdir(fd) == ['f']
    os.close(fd)


@case()
def temporary_files_without_a_name_work(directory: Path) -> None:
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b'temporary')
        file.flush()
        assert os.fstat(file.fileno()).st_size == 9
        file.seek(0)
        assert file.read() == b'temporary'
        assert os.listdir(directory) == []


@case()
def a_reader_of_an_unlinked_file_that_is_in_the_page_cache_reads_on(directory: Path) -> None:
    (directory / 'f').write_bytes(b'content')
    with (directory / 'f').open('rb', buffering=0) as file:
        assert file.read() == b'content'
        (directory / 'f').unlink()
        file.seek(0)
        assert file.read() == b'content'


@case()
def space_can_be_reserved(directory: Path) -> None:
    with (directory / 'f').open('wb') as file:
        os.posix_fallocate(file.fileno(), 0, 10_000)
        assert os.fstat(file.fileno()).st_size == 10_000
    assert (directory / 'f').read_bytes() == bytes(10_000)


@case()
def data_and_holes_are_found(directory: Path) -> None:
    (directory / 'f').write_bytes(b'x' * 5_000)
    with (directory / 'f').open('rb') as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 5_000


@case()
def files_are_copied_inside_the_kernel(directory: Path) -> None:
    (directory / 'f').write_bytes(b'x' * 500_000)
    with (directory / 'f').open('rb') as source, (directory / 'g').open('wb') as target:
        copied = 0
        while count := os.copy_file_range(source.fileno(), target.fileno(), 1 << 20):
            copied += count
    assert copied == 500_000
    with (directory / 'f').open('rb') as source, (directory / 'h').open('wb') as target:
        assert os.sendfile(target.fileno(), source.fileno(), 0, 500_000) == 500_000
    assert (directory / 'g').read_bytes() == (directory / 'h').read_bytes() == b'x' * 500_000


@case()
def the_blocks_of_a_file_cover_its_size(directory: Path) -> None:
    (directory / 'f').write_bytes(os.urandom(100_001))
    assert (directory / 'f').stat().st_blocks * 512 >= 100_001


@case()
def modes_survive_a_rewrite(directory: Path) -> None:
    (directory / 'f').write_bytes(b'f')
    (directory / 'f').chmod(0o755)
    (directory / 'f').write_bytes(b'another')
    assert (directory / 'f').stat().st_mode & 0o777 == 0o755


# Names


def _renameat2(source: Path, target: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@case()
def renames_can_refuse_to_replace(directory: Path) -> None:
    (directory / 'a').write_bytes(b'a')
    (directory / 'b').write_bytes(b'b')
    with fails_with(errno.EEXIST):
        _renameat2(directory / 'a', directory / 'b', RENAME_NOREPLACE)
    _renameat2(directory / 'a', directory / 'c', RENAME_NOREPLACE)
    assert sorted(os.listdir(directory)) == ['b', 'c']


@case('local')
def names_can_change_places(directory: Path) -> None:
    (directory / 'a').write_bytes(b'a')
    (directory / 'd').mkdir()
    (directory / 'd' / 'f').write_bytes(b'f')
    _renameat2(directory / 'a', directory / 'd', RENAME_EXCHANGE)
    assert (directory / 'd').read_bytes() == b'a'
    assert (directory / 'a' / 'f').read_bytes() == b'f'


@case(*STORES)
def names_cannot_change_places_in_stores(directory: Path) -> None:
    (directory / 'a').write_bytes(b'a')
    (directory / 'b').write_bytes(b'b')
    with fails_with(errno.EINVAL):
        _renameat2(directory / 'a', directory / 'b', RENAME_EXCHANGE)
    assert (directory / 'a').read_bytes() == b'a'


@case('local')
def symbolic_links_are_followed_by_the_kernel(directory: Path) -> None:
    (directory / 'd').mkdir()
    (directory / 'd' / 'f').write_bytes(b'f')
    (directory / 'to-d').symlink_to('d')
    (directory / 'loop').symlink_to('loop')
    (directory / 'outside').symlink_to('/etc/hostname')
    assert (directory / 'to-d' / 'f').read_bytes() == b'f'
    assert (directory / 'to-d' / '..' / 'd').samefile(directory / 'd')
    assert (directory / 'outside').read_bytes() == Path('/etc/hostname').read_bytes()
    with fails_with(errno.EINVAL):
        os.readlink(directory / 'd' / 'f')
    with fails_with(errno.ELOOP):
        (directory / 'loop').read_bytes()


@case('local')
def a_fifo_connects_two_programs(directory: Path) -> None:
    os.mkfifo(directory / 'p')
    child = os.fork()
    if not child:
        (directory / 'p').write_bytes(b'through')
        os._exit(0)
    assert (directory / 'p').read_bytes() == b'through'
    os.waitpid(child, 0)


@case()
def a_working_directory_can_be_moved_and_removed(directory: Path) -> None:
    (directory / 'd').mkdir()
    before = os.open('.', os.O_RDONLY)
    try:
        os.chdir(directory / 'd')
        Path('f').write_bytes(b'f')
        (directory / 'd').rename(directory / 'e')
        assert Path('f').read_bytes() == b'f'
        assert os.getcwd() == str(directory / 'e')
        Path('f').unlink()
        (directory / 'e').rmdir()
        with fails_with(errno.ENOENT):
            Path('g').write_bytes(b'')
    finally:
        os.chdir(before)
        os.close(before)


@case()
def a_directory_that_is_removed_while_it_is_open_has_no_links_and_no_entries(directory: Path) -> None:
    (directory / 'd').mkdir(0o750)
    (directory / 'replaced').mkdir()
    for name in ('d', 'replaced'):
        fd = os.open(directory / name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            before = os.fstat(fd)
            if name == 'd':
                (directory / 'd').rmdir()
            else:
                (directory / 'other').mkdir()
                (directory / 'other').rename(directory / name)
            after = os.fstat(fd)
            assert (after.st_nlink, after.st_ino, after.st_mode) == (0, before.st_ino, before.st_mode)
            os.fchmod(fd, 0o700)
            assert os.fstat(fd).st_mode & 0o777 == 0o700
            assert os.listdir(fd) == []
            with fails_with(errno.ENOENT):
                os.open('f', os.O_CREAT | os.O_WRONLY, dir_fd=fd)
            (directory / 'd').mkdir(exist_ok=True)
            assert (directory / 'd').stat().st_ino != after.st_ino
        finally:
            os.close(fd)


@case()
def a_descriptor_that_only_stands_for_a_file_shows_that_it_is_removed(directory: Path) -> None:
    (directory / 'f').write_bytes(b'content')
    fd = os.open(directory / 'f', os.O_PATH)
    try:
        before = os.fstat(fd)
        (directory / 'f').unlink()
        after = os.fstat(fd)
        assert (after.st_nlink, after.st_ino, after.st_size) == (0, before.st_ino, 7)
    finally:
        os.close(fd)


@case()
def a_time_of_access_is_shown_as_it_was_set(directory: Path) -> None:
    path = directory / 'f'
    path.write_bytes(b'content')
    os.utime(path, ns=(5_000_000_001, 7_000_000_000))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (5_000_000_001, 7_000_000_000)
    fd = os.open(path, os.O_RDWR)
    try:
        path.unlink()
        assert os.fstat(fd).st_atime_ns == 5_000_000_001
        os.utime(fd, ns=(9_000_000_000, 8_000_000_000))
        assert (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns) == (9_000_000_000, 8_000_000_000)
    finally:
        os.close(fd)


@case()
def a_listing_has_the_numbers_of_what_was_renamed(directory: Path) -> None:
    (directory / 'd').mkdir()
    for name in ('a', 'd/b', 'd/c'):
        (directory / name).write_bytes(b'x')
    (directory / 'd/b').rename(directory / 'd/e')
    (directory / 'a').rename(directory / 'd/b')
    (directory / 'd').rename(directory / 'g')
    numbers = {entry.name: entry.inode() for entry in os.scandir(directory / 'g')}
    assert numbers == {name: (directory / 'g' / name).stat().st_ino for name in ('b', 'c', 'e')}
    assert len(set(numbers.values())) == 3


@case()
def access_is_answered(directory: Path) -> None:
    (directory / 'f').touch()
    assert os.access(directory / 'f', os.R_OK | os.W_OK)
    assert not os.access(directory / 'f', os.X_OK)
    assert os.access(directory, os.R_OK | os.W_OK | os.X_OK)
    assert not os.access(directory / 'nothing', os.F_OK)


# Times


def _wait_for_another_time(directory: Path) -> None:
    """Until a file gets another time than one that was just made: clocks of disks tick in milliseconds."""
    (directory / 'a').touch()
    before = (directory / 'a').stat().st_mtime_ns
    while (directory / 'b').touch() or (directory / 'b').stat().st_mtime_ns == before:
        pass


@case()
def a_directory_has_the_time_of_what_last_came_or_went_in_it(directory: Path) -> None:
    inner, other = directory / 'd', directory / 'e'
    inner.mkdir()
    other.mkdir()
    for concerned, change in (
        ([inner], (inner / 'f').touch),
        ([inner], (inner / 'g').mkdir),
        ([inner], lambda: (inner / 'f').rename(inner / 'h')),
        ([inner, other], lambda: (inner / 'h').rename(other / 'h')),
        ([other], (other / 'h').unlink),
        ([inner], (inner / 'g').rmdir),
    ):
        before = {path: path.stat() for path in (inner, other)}
        _wait_for_another_time(directory)
        change()
        for path, then in before.items():
            now = path.stat()
            assert (now.st_mtime_ns > then.st_mtime_ns) == (now.st_ctime_ns > then.st_ctime_ns) == (path in concerned)
    os.utime(inner, ns=(1, 10**18))
    assert inner.stat().st_mtime_ns == 10**18


@case()
def the_time_of_change_goes_on_with_each_change_of_a_file(directory: Path) -> None:
    path = directory / 'f'
    with path.open('w+b', buffering=0) as file:
        for change in (
            lambda: file.write(b'content'),
            lambda: file.truncate(3),
            lambda: os.fsync(file.fileno()),
            lambda: os.posix_fallocate(file.fileno(), 0, 5),
        ):
            before = os.fstat(file.fileno())
            _wait_for_another_time(directory)
            change()
            after = os.fstat(file.fileno())
            assert (after.st_ctime_ns > before.st_ctime_ns) == (after.st_mtime_ns > before.st_mtime_ns)
            assert after.st_ctime_ns >= before.st_ctime_ns
    before = path.stat()
    _wait_for_another_time(directory)
    path.rename(directory / 'g')
    after = (directory / 'g').stat()
    assert after.st_ctime_ns > before.st_ctime_ns
