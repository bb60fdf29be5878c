"""The disk cache: blocks come back as they were put or not at all, whatever became of the files."""

import itertools
import logging
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genro_storage.cache.blocks import BLOCK_BYTES, BlockKey
from genro_storage.cache.cached_file import CachedFile
from genro_storage.cache.directory import FileKey, name_of, packed
from genro_storage.cache.disk import DiskBlockCache

LIMIT_BYTES = 1 << 30
KEY = FileKey('s3://host/bucket', 'a/b.bin', '"etag"')
CONTENT = random.Random(1).randbytes(2 * BLOCK_BYTES + 1000)
BLOCKS = [CONTENT[start : start + BLOCK_BYTES] for start in range(0, len(CONTENT), BLOCK_BYTES)]


def key(number: int, file: FileKey = KEY) -> BlockKey:
    return BlockKey(*file, number)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / 'cache' / 'blocks'


@pytest.fixture
def new(root: Path) -> Iterator[Callable[[], DiskBlockCache]]:
    """Caches over one directory; each is a process as far as the others can tell."""
    caches: list[DiskBlockCache] = []

    def make() -> DiskBlockCache:
        caches.append(DiskBlockCache(root, LIMIT_BYTES))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


New = Callable[[], DiskBlockCache]


def fill(cache: DiskBlockCache, file: FileKey = KEY) -> None:
    for number, block in enumerate(BLOCKS):
        cache.put(key(number, file), block)


def files_of(root: Path, file: FileKey = KEY) -> tuple[Path, Path]:
    name = name_of(packed(file))
    return root / f'{name}.data', root / f'{name}.sums'


def flip(path: Path, offset: int) -> None:
    with path.open('r+b') as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


def test_blocks_come_back_in_this_process_and_in_the_next(new: New) -> None:
    cache = new()
    assert cache.get(key(0)) is None
    fill(cache)
    for reader in (cache, cache, new()):
        assert [reader.get(key(number)) for number in range(4)] == [*BLOCKS, None]


def test_blocks_lie_at_their_own_offsets(new: New, root: Path) -> None:
    cache = new()
    for number in (2, 0, 1):
        cache.put(key(number), BLOCKS[number])
    assert files_of(root)[0].read_bytes() == CONTENT


def test_a_file_of_which_one_block_is_known_takes_the_room_of_one(new: New, root: Path) -> None:
    new().put(key(4000), BLOCKS[0])
    found = files_of(root)[0].stat()
    assert found.st_size == 4001 * BLOCK_BYTES
    assert found.st_blocks * 512 < 2 * BLOCK_BYTES


@pytest.mark.parametrize('size_bytes', [1, 2, 4095, 4096, 4097, BLOCK_BYTES - 1, BLOCK_BYTES])
def test_a_block_may_have_any_length_up_to_a_whole_one(new: New, size_bytes: int) -> None:
    new().put(key(0), CONTENT[:size_bytes])
    assert new().get(key(0)) == CONTENT[:size_bytes]


def test_nothing_is_no_block(new: New, root: Path) -> None:
    cache = new()
    cache.put(key(0), b'')
    assert cache.get(key(0)) is None
    assert not root.exists()


def test_blocks_in_a_row_are_put_at_once_beside_those_that_are_there(new: New) -> None:
    blocks = [bytes([number]) * BLOCK_BYTES for number in range(5)]
    cache = new()
    cache.put(key(2), blocks[2])
    cache.put(key(1), memoryview(b''.join(blocks[1:5])))
    assert cache.absent(key(0), 7) == [0, 5, 6]
    assert [cache.get(key(number)) for number in range(6)] == [None, *blocks[1:5], None]
    assert [new().get(key(number)) for number in range(6)] == [None, *blocks[1:5], None]


def test_one_other_block_among_those_in_a_row_begins_the_file_anew(new: New) -> None:
    blocks = [bytes([number]) * BLOCK_BYTES for number in range(4)]
    cache = new()
    cache.put(key(0), blocks[0])
    cache.put(key(2), blocks[0])
    cache.put(key(1), b''.join(blocks[1:4]))
    assert [cache.get(key(number)) for number in range(5)] == [None, *blocks[1:4], None]


def test_a_block_of_zeros_is_a_block(new: New) -> None:
    new().put(key(3), bytes(BLOCK_BYTES))
    assert new().get(key(3)) == bytes(BLOCK_BYTES)
    assert new().get(key(2)) is None


def test_keys_that_look_alike_are_different_files(new: New) -> None:
    keys = [
        FileKey('a', 'bc', 'd'),
        FileKey('ab', 'c', 'd'),
        FileKey('a', 'b', 'cd'),
        FileKey('a', 'bc', ''),
        FileKey('', 'abc', 'd'),
        FileKey('a', 'b\0c', 'd'),
        FileKey('a', 'b\udcffc', 'd'),
        FileKey('a', 'b\ud800c', 'd'),
        FileKey('a', 'é' * 2000, 'd'),
    ]
    cache = new()
    for count, file in enumerate(keys):
        cache.put(key(0, file), bytes([count + 1]))
    assert [new().get(key(0, file)) for file in keys] == [bytes([count + 1]) for count in range(len(keys))]


def test_nobody_else_may_look(new: New, root: Path) -> None:
    before = os.umask(0)
    try:
        fill(new())
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob('*')]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_a_directory_that_was_too_open_is_closed(new: New, root: Path) -> None:
    root.mkdir(parents=True)
    root.chmod(0o777)
    fill(new())
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ('which', 'offset', 'harmed'),
    [
        (0, 0, [0]),
        (0, BLOCK_BYTES - 1, [0]),
        (0, BLOCK_BYTES, [1]),
        (0, len(CONTENT) - 1, [2]),
        (1, 0, [0, 1, 2]),  # the magic
        (1, 8, [0, 1, 2]),  # the format
        (1, 12, [0, 1, 2]),  # the block size
        (1, 24, [0, 1, 2]),  # the key
        (1, -24, [0]),  # a checksum
        (1, -20, [0]),  # a length
        (1, -12, [1]),
        (1, -1, [2]),
    ],
)
def test_a_flipped_bit_is_a_miss_and_the_next_put_repairs_it(
    new: New, root: Path, which: int, offset: int, harmed: list[int]
) -> None:
    cache = new()
    fill(cache)
    cache.close()
    path = files_of(root)[which]
    flip(path, offset % path.stat().st_size)
    for cache in (new(), new()):
        assert [cache.get(key(number)) for number in range(3)] == [
            None if number in harmed else block for number, block in enumerate(BLOCKS)
        ]
    fill(new())
    assert [new().get(key(number)) for number in range(3)] == BLOCKS


@pytest.mark.parametrize('which', [0, 1], ids=['data', 'sums'])
@pytest.mark.parametrize('left', [None, 0, 1, 20, 24, 70, 80, 90, 4096, BLOCK_BYTES + 1])
def test_files_cut_short_or_gone_are_misses_and_the_next_put_repairs_them(
    new: New, root: Path, which: int, left: int | None
) -> None:
    cache = new()
    fill(cache)
    cache.close()
    path = files_of(root)[which]
    if left is None:
        path.unlink()
    else:
        os.truncate(path, min(left, path.stat().st_size))
    cache = new()
    assert all(cache.get(key(number)) in {None, block} for number, block in enumerate(BLOCKS))
    fill(cache)
    cache.close()
    assert [new().get(key(number)) for number in range(3)] == BLOCKS


def test_a_file_under_the_name_of_another_is_not_served(new: New, root: Path) -> None:
    other = FileKey('s3://host/bucket', 'other', '"etag"')
    cache = new()
    fill(cache)
    cache.put(key(0, other), BLOCKS[1])
    cache.close()
    for source, target in zip(files_of(root), files_of(root, other), strict=True):
        shutil.copyfile(source, target)
    cache = new()
    assert cache.get(key(0, other)) is None
    cache.put(key(0, other), BLOCKS[1])
    assert new().get(key(0, other)) == BLOCKS[1]
    assert new().get(key(1, other)) is None


def test_after_damage_no_block_is_believed_that_was_compared_before(new: New, root: Path) -> None:
    blocks = [bytes([number + 1]) * BLOCK_BYTES for number in range(8)]
    cache = new()
    cache.put(key(0), b''.join(blocks))
    assert cache.get(key(4)) == blocks[4]
    os.truncate(files_of(root)[0], 0)
    assert cache.get(key(7)) is None
    cache.put(key(7), blocks[7])  # block 4 lies in a hole now
    assert cache.get(key(4)) is None
    assert cache.get(key(7)) == blocks[7]


class TestSmallFiles:
    def path(self, root: Path, file: FileKey = KEY) -> Path:
        return root / f'{name_of(packed(file))}.small'

    def test_a_file_of_less_than_a_block_is_one_file_on_the_disk(self, new: New, root: Path) -> None:
        new().put(key(0), b'small')
        assert [path for path in root.rglob('*') if path.is_file() and '-' in path.name] == [self.path(root)]
        assert self.path(root).stat().st_mode & 0o777 == 0o600
        cache = new()
        assert cache.get(key(0)) == b'small'
        assert cache.get(key(1)) is None
        assert cache.absent(key(0), 3) == [1, 2]

    @pytest.mark.parametrize('at', [0, 10, 30, -1], ids=['magic', 'length', 'key', 'bytes'])
    def test_a_damaged_one_is_a_miss_and_makes_room_for_a_right_one(self, new: New, root: Path, at: int) -> None:
        new().put(key(0), b'small')
        flip(self.path(root), at % self.path(root).stat().st_size)
        assert new().get(key(0)) is None
        assert not self.path(root).exists()
        new().put(key(0), b'small')
        assert new().get(key(0)) == b'small'

    @pytest.mark.parametrize('left', [0, 10, 60])
    def test_one_that_ends_early_is_a_miss(self, new: New, root: Path, left: int) -> None:
        new().put(key(0), b'small' * 20)
        os.truncate(self.path(root), left)
        assert new().get(key(0)) is None

    def test_one_under_the_name_of_another_is_a_miss(self, new: New, root: Path) -> None:
        other = FileKey('s3://host/bucket', 'other', '"etag"')
        new().put(key(0), b'small')
        new().put(key(0, other), b'other')
        shutil.copyfile(self.path(root), self.path(root, other))
        assert new().get(key(0, other)) is None

    def test_of_two_contents_of_one_version_the_newer_stays(self, new: New) -> None:
        new().put(key(0), b'older')
        new().put(key(0), b'newer')
        assert new().get(key(0)) == b'newer'

    def test_a_link_is_not_followed(self, new: New, root: Path, tmp_path: Path) -> None:
        new().put(key(0), b'small')
        self.path(root).rename(tmp_path / 'elsewhere')
        self.path(root).symlink_to(tmp_path / 'elsewhere')
        assert new().get(key(0)) is None


def test_blocks_in_each_others_place_are_misses(new: New, root: Path) -> None:
    cache = new()
    fill(cache)
    cache.close()
    with files_of(root)[0].open('r+b') as file:
        file.write(BLOCKS[1] + BLOCKS[0])
    with files_of(root)[1].open('r+b') as file:
        file.seek(-24, os.SEEK_END)
        first, second = file.read(8), file.read(8)
        file.seek(-24, os.SEEK_END)
        file.write(second + first)
    assert [new().get(key(number)) for number in range(3)] == [None, None, BLOCKS[2]]


def test_one_version_with_two_contents_never_becomes_a_mixture(new: New) -> None:
    mine, other = new(), new()
    fill(mine)
    assert mine.get(key(0)) == BLOCKS[0]
    other.put(key(1), BLOCKS[0])  # the file has changed, and its weak version has not
    assert [new().get(key(number)) for number in range(3)] == [None, BLOCKS[0], None]
    # Whoever has the old content open sees all of the old one.
    assert [mine.get(key(number)) for number in range(3)] == BLOCKS


def test_a_put_after_eviction_by_another_process_is_kept(new: New, root: Path) -> None:
    cache = new()
    fill(cache)
    for path in files_of(root):
        path.unlink()
    fill(cache)
    assert [new().get(key(number)) for number in range(3)] == BLOCKS


def test_a_put_after_the_whole_directory_is_gone_is_kept(new: New, root: Path) -> None:
    cache = new()
    fill(cache)
    shutil.rmtree(root.parent)
    fill(cache)
    assert [new().get(key(number)) for number in range(3)] == BLOCKS


def test_a_block_that_is_there_is_not_written_again(new: New, root: Path) -> None:
    fill(new())
    os.utime(files_of(root)[0], ns=(0, 0))
    fill(new())
    assert files_of(root)[0].stat().st_mtime_ns == 0


def test_opening_a_large_cache_and_reading_from_it_walks_nothing(
    new: New, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(new())
    walks: list[object] = []
    for name in ('scandir', 'listdir'):
        monkeypatch.setattr(os, name, walks.append)
    cache = new()
    assert cache.get(key(0)) == BLOCKS[0]
    cache.put(key(9), BLOCKS[0])
    assert cache.get(key(9)) == BLOCKS[0]
    assert not walks


@pytest.mark.parametrize('bad', ['a file', 'a link to nowhere', 'below a file'])
def test_an_unusable_directory_costs_no_read_and_is_said_once(
    root: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    root.parent.mkdir()
    if bad == 'a link to nowhere':
        root.symlink_to(root.parent / 'loop' / 'nowhere')
        (root.parent / 'loop').touch()
    else:
        root.write_text('not a directory')
    cache = DiskBlockCache(root / 'deeper' if bad == 'below a file' else root, LIMIT_BYTES)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            fill(cache)
            assert cache.get(key(0)) is None
            assert cache.complete_file(*KEY, len(CONTENT)) is None
            assert not cache.verify_file(*KEY, len(CONTENT))
    messages = [record.getMessage() for record in caplog.records]
    assert messages
    assert all(str(root) in message for message in messages)
    assert len(messages) == len(set(messages))


def test_files_that_are_links_are_not_followed(new: New, root: Path) -> None:
    cache = new()
    fill(cache)
    cache.close()
    data = files_of(root)[0]
    data.rename(data.with_suffix('.elsewhere'))
    data.symlink_to(data.with_suffix('.elsewhere'))
    cache = new()
    assert cache.get(key(0)) is None
    cache.put(key(0), BLOCKS[0])
    assert data.with_suffix('.elsewhere').read_bytes() == CONTENT


def test_a_small_file_is_refused_room_but_never_a_read_when_the_limit_is_nothing(root: Path) -> None:
    cache = DiskBlockCache(root, 0)
    cache.put(key(0), b'block')
    assert cache.get(key(0)) is None
    assert not list(root.rglob('*.data'))


def test_a_complete_file_is_handed_out_once_it_is_verified(new: New) -> None:
    cache = new()
    fill(cache)
    assert cache.complete_file(*KEY, len(CONTENT)) is None
    assert cache.verify_file(*KEY, len(CONTENT))
    descriptor = cache.complete_file(*KEY, len(CONTENT))
    assert descriptor is not None
    try:
        assert os.pread(descriptor, len(CONTENT) + 1, 0) == CONTENT
        assert not os.get_inheritable(descriptor)
        with pytest.raises(OSError, match='Bad file descriptor'):
            os.pwrite(descriptor, b'x', 0)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize('size_bytes', [0, 1, len(CONTENT) - 1, len(CONTENT) + 1, 2 * BLOCK_BYTES, 9 * BLOCK_BYTES])
def test_a_file_of_another_size_is_not_complete(new: New, size_bytes: int) -> None:
    cache = new()
    fill(cache)
    assert cache.verify_file(*KEY, len(CONTENT))
    assert cache.complete_file(*KEY, size_bytes) is None
    assert not cache.verify_file(*KEY, size_bytes)


@pytest.mark.parametrize('missing', [0, 1, 2])
def test_a_file_with_a_block_missing_is_not_complete(new: New, missing: int) -> None:
    cache = new()
    for number, block in enumerate(BLOCKS):
        if number != missing:
            cache.put(key(number), block)
    assert not cache.verify_file(*KEY, len(CONTENT))
    cache.put(key(missing), BLOCKS[missing])
    assert cache.verify_file(*KEY, len(CONTENT))


def test_a_file_is_verified_once(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    verify = CachedFile.verify
    monkeypatch.setattr(
        CachedFile, 'verify', lambda file, size_bytes: verified.append(file) or verify(file, size_bytes)
    )
    cache = new()
    fill(cache)
    for _ in range(3):
        assert cache.verify_file(*KEY, len(CONTENT))
        cache._files.close()  # as when it is idle
    assert len(verified) == 1


def test_a_damaged_file_is_not_complete_until_it_is_repaired(new: New, root: Path) -> None:
    fill(new())
    flip(files_of(root)[0], BLOCK_BYTES + 7)
    cache = new()  # who wrote the blocks knows them
    assert not cache.verify_file(*KEY, len(CONTENT))
    cache.put(key(1), BLOCKS[1])
    assert cache.verify_file(*KEY, len(CONTENT))


@pytest.mark.parametrize('change', ['written to', 'replaced', 'gone'])
def test_a_file_that_changed_after_it_was_verified_is_not_handed_out(new: New, root: Path, change: str) -> None:
    cache = new()
    fill(cache)
    assert cache.verify_file(*KEY, len(CONTENT))
    data = files_of(root)[0]
    if change == 'written to':
        flip(data, 5)
        os.utime(data)
    elif change == 'replaced':
        shutil.copyfile(data, data.with_suffix('.new'))
        data.with_suffix('.new').rename(data)
    else:
        data.unlink()
    assert cache.complete_file(*KEY, len(CONTENT)) is None


def test_a_forked_child_and_its_parent_do_not_disturb_each_other(tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from genro_storage.cache.blocks import BlockKey
from genro_storage.cache.disk import DiskBlockCache
zero = bytes(1 << 18)
root = Path({str(tmp_path)!r}) / 'blocks'
cache = DiskBlockCache(root, 1 << 24)
cache.put(BlockKey('d', 'p', 'v', 0), zero)
assert cache.get(BlockKey('d', 'p', 'v', 0)) == zero
opened = lambda: sum('.data' in os.readlink(f.path) for f in os.scandir('/proc/self/fd') if os.path.islink(f.path))
assert opened() == 1
held = [cache._lock, cache._files._lock, cache._space._lock]
for lock in held:
    lock.acquire()  # by a thread that will not be in the child
child = os.fork()
if not child:
    cache.after_fork()
    assert opened() == 0
    assert cache.get(BlockKey('d', 'p', 'v', 0)) == zero
    cache.put(BlockKey('d', 'p', 'v', 1), b'one')
    os._exit(0)
for lock in held:
    lock.release()
assert os.waitpid(child, 0)[1] == 0
assert cache.get(BlockKey('d', 'p', 'v', 1)) == b'one'
"""
    run_python(script)


def run_python(script: str) -> None:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


_FULL_DISK = """
import logging, os, sys
from pathlib import Path
from genro_storage.cache.blocks import BLOCK_BYTES, BlockKey
from genro_storage.cache.disk import DiskBlockCache
logging.basicConfig()
blocks = [os.urandom(BLOCK_BYTES) for _ in range(40)]
cache = DiskBlockCache(root, 1 << 30)
for file in range(3):
    for number, block in enumerate(blocks):
        key = BlockKey('d', f'{file}', 'v', number)
        cache.put(key, block)
        assert cache.get(key) in (None, block)
    hits = [cache.get(BlockKey('d', f'{file}', 'v', number)) for number in range(40)]
    assert any(hits) and not all(hits), (file, [bool(hit) for hit in hits])
    assert all(hit in (None, block) for hit, block in zip(hits, blocks))
"""


def test_a_file_size_limit_costs_blocks_and_no_read(tmp_path: Path) -> None:
    run_python(
        'import resource\n'
        f'resource.setrlimit(resource.RLIMIT_FSIZE, ({4 << 20} + 1000,) * 2)\n'
        f'from pathlib import Path; root = Path({str(tmp_path)!r}) / "blocks"\n' + _FULL_DISK
    )


#: A small file system of its own, in a mount namespace that ends with the process; a plain user needs a user namespace.
_OWN_DISK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER, REC, PRIVATE = 0x20000, 0x10000000, 0x4000, 0x40000
uid, gid = os.geteuid(), os.getegid()
def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
check(libc.unshare(NEWNS | (NEWUSER if uid else 0)))
if uid:
    for name, text in ('setgroups', 'deny'), ('uid_map', f'0 {{uid}} 1'), ('gid_map', f'0 {{gid}} 1'):
        open(f'/proc/self/{{name}}', 'w').write(text)
check(libc.mount(b'none', b'/', None, REC | PRIVATE, None))
check(libc.mount(b'tmpfs', {directory!r}, b'tmpfs', 0, {options!r}))
from pathlib import Path
root = Path({directory!r}.decode()) / 'blocks'
"""


def own_disk(directory: Path, size_bytes: int) -> str:
    return _OWN_DISK.format(directory=os.fsencode(directory), options=f'size={size_bytes}'.encode())


def test_the_last_tenth_of_the_disk_stays_free(tmp_path: Path) -> None:
    run_python(
        own_disk(tmp_path, 6 << 20)
        + _FULL_DISK
        + """
    disk = os.statvfs(root)
    assert disk.f_bavail >= disk.f_blocks // 10, (disk.f_bavail, disk.f_blocks)
"""
    )


def test_a_full_disk_costs_blocks_and_no_read(tmp_path: Path) -> None:
    # The free tenth is not looked at here, as it is not with a quota: writing itself fails.
    run_python(
        own_disk(tmp_path, 4 << 20)
        + 'from genro_storage.cache.space import Space\nSpace._shortage = lambda *_: 0\n'
        + _FULL_DISK
    )


def test_when_others_fill_the_disk_the_cache_gives_way(tmp_path: Path) -> None:
    run_python(
        own_disk(tmp_path, 16 << 20)
        + """
from genro_storage.cache.blocks import BLOCK_BYTES, BlockKey
from genro_storage.cache.disk import DiskBlockCache
cache = DiskBlockCache(root, 1 << 30)
for file in range(40):
    cache.put(BlockKey('d', f'{file}', 'v', 0), os.urandom(BLOCK_BYTES))
with open(root.parent / 'others', 'wb') as others:
    others.write(bytes(5 << 20))
cache.close()
disk = os.statvfs(root)
assert disk.f_bavail < disk.f_blocks // 10
cache.put(BlockKey('d', 'one more', 'v', 0), os.urandom(BLOCK_BYTES))
disk = os.statvfs(root)
assert disk.f_bavail >= disk.f_blocks // 10
assert cache.get(BlockKey('d', 'one more', 'v', 0))
"""
    )


def test_a_directory_of_somebody_else_is_not_believed(tmp_path: Path, root: Path) -> None:
    if os.geteuid() == 0:
        cache = DiskBlockCache(root, LIMIT_BYTES)
        fill(cache)
        cache.close()
        for path in [root, *root.rglob('*')]:
            os.chown(path, 12345, 12345)
    else:
        root = Path('/')  # a plain user's stand-in for it
    cache = DiskBlockCache(root, LIMIT_BYTES)
    assert cache.get(key(0)) is None
    cache.put(key(0), b'mine')
    assert cache.get(key(0)) is None


def test_many_threads_share_a_cache(new: New) -> None:
    cache = new()
    keys = [BlockKey('d', f'{file}', 'v', number) for file, number in itertools.product(range(8), range(8))]
    contents = [(wanted, bytes([count]) * BLOCK_BYTES) for count, wanted in enumerate(keys)]

    def hammer(seed: int) -> int:
        choice = random.Random(seed)
        hits = 0
        for _ in range(300):
            wanted, block = choice.choice(contents)
            found = cache.get(wanted)
            assert found in {None, block}
            hits += found is not None
            cache.put(wanted, block)
            if choice.random() < 0.1:
                cache._files.close()
        return hits

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(hammer, range(6))) > 600
