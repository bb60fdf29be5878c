"""Tar archives as others make them, and those that only libarchive reads: links, holes, bombs, damage."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from genro_storage import StorageManager
from genro_storage.errors import (
    StorageConfigError,
    StorageError,
    StorageIOError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from tests.archives import MTIME_S, PRINT_PEAK, add_to_tar, tar_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'some.tar'


@pytest.fixture(params=['tar', 'libarchive'])
def storage(path: Path, request: pytest.FixtureRequest) -> StorageManager:
    manager = StorageManager()
    manager.configure([{'name': 'tar', 'type': request.param, 'file': str(path), 'ttl': 0, 'cache': 'memory'}])
    return manager


def names(storage: StorageManager, path: str = '') -> list[str]:
    return [node.basename for node in storage.node(f'tar:{path}').children()]


def made(path: Path, fill: Callable[[tarfile.TarFile], None]) -> None:
    with tarfile.open(path, 'w') as archive:
        fill(archive)


class TestMembers:
    def test_what_leads_out_is_hidden_and_the_rest_is_as_tar_has_it(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(tar_of({'../evil': b'1', './a/./b': b'2', '/etc/passwd': b'3', 'a/../../x': b'4'}))
        assert names(storage) == ['a', 'etc']
        assert storage.node('tar:a/b').read_bytes() == b'2'
        assert storage.volume('tar').backend.hidden.count == 2  # type: ignore[attr-defined]

    def test_links_are_followed_to_files_of_the_archive_and_nowhere_else(
        self, storage: StorageManager, path: Path
    ) -> None:
        def fill(archive: tarfile.TarFile) -> None:
            add_to_tar(archive, 'd/file', b'content')
            add_to_tar(archive, 'hard', type=tarfile.LNKTYPE, linkname='d/file')
            add_to_tar(archive, 'astray', type=tarfile.LNKTYPE, linkname='../../etc/passwd')
            for name, target in {
                'd/up': '../hard',
                'chain': 'd/up',
                'folder': 'd',
                'out': '../../etc/passwd',
                'absolute': '/etc/passwd',
                'circle': 'circle',
            }.items():
                add_to_tar(archive, name, type=tarfile.SYMTYPE, linkname=target)
            add_to_tar(archive, 'pipe', type=tarfile.FIFOTYPE)

        made(path, fill)
        assert names(storage) == ['absolute', 'chain', 'circle', 'd', 'folder', 'hard', 'out', 'pipe']
        for name in ('d/file', 'hard', 'd/up', 'chain'):
            assert storage.node(f'tar:{name}').read_bytes() == b'content'
        for name in ('absolute', 'circle', 'folder', 'out', 'pipe'):
            node = storage.node(f'tar:{name}')
            assert not node.isfile
            assert not node.isdir
            with pytest.raises(StorageError):
                node.read_bytes()

    def test_times_and_empty_directories_are_told(self, storage: StorageManager, path: Path) -> None:
        made(path, lambda archive: add_to_tar(archive, 'd/empty', type=tarfile.DIRTYPE))
        assert storage.node('tar:d/empty').children() == []
        assert storage.node('tar:d/empty').mtime == MTIME_S

    def test_the_holes_of_a_sparse_file_are_zeros(self, storage: StorageManager, path: Path, tmp_path: Path) -> None:
        """Made by GNU tar, as it does for images of disks."""
        with (tmp_path / 'sparse').open('wb') as file:
            file.seek(1 << 20)
            file.write(b'middle')
            file.truncate(3 << 20)
        subprocess.run(['tar', '-C', tmp_path, '--sparse', '-cf', path, 'sparse'], check=True, timeout=30)
        assert path.stat().st_size < 1 << 20
        assert storage.node('tar:sparse').size == 3 << 20
        assert storage.node('tar:sparse').read_bytes() == (tmp_path / 'sparse').read_bytes()

    def test_several_streams_of_gzip_are_one_archive(self, storage: StorageManager, path: Path) -> None:
        import gzip

        data = tar_of({'a': b'1' * 100_000, 'b': b'2'})
        path.write_bytes(gzip.compress(data[:70_000]) + gzip.compress(data[70_000:]))
        assert storage.node('tar:a').read_bytes() == b'1' * 100_000
        assert storage.node('tar:b').read_bytes() == b'2'


class TestHostileBytes:
    @pytest.mark.parametrize('mode', ['w', 'w:gz', 'w:bz2', 'w:xz'])
    def test_what_is_cut_off_is_an_error(self, storage: StorageManager, path: Path, mode: str) -> None:
        data = tar_of({'a': bytes(range(256)) * 4000}, mode)
        path.write_bytes(data[: len(data) // 3])
        with pytest.raises(StorageIOError):
            storage.node('tar:a').read_bytes()

    @pytest.mark.parametrize('content', [b'', b'no archive' * 100])
    def test_what_is_no_archive_is_an_error_and_not_empty(
        self, storage: StorageManager, path: Path, content: bytes
    ) -> None:
        path.write_bytes(content)
        with pytest.raises(StorageIOError):
            storage.node('tar').children()

    def test_an_archive_that_is_not_there_is_no_absence_of_its_files(self, storage: StorageManager) -> None:
        with pytest.raises(StorageUnavailableError, match=r'some\.tar'):
            _ = storage.node('tar:a').exists

    def test_bytes_changed_at_random_are_our_errors_or_right(self, storage: StorageManager, path: Path) -> None:
        data = tar_of({f'd/{number}': b'content' for number in range(3)})
        for place in range(0, 3072, 37):
            path.write_bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
            try:
                for node in storage.node('tar').children():
                    for file in node.children() if node.isdir else [node]:
                        file.read_bytes()
            except StorageError:
                pass


def test_headers_that_say_to_be_huge_cost_no_memory(path: Path) -> None:
    """A list of attributes of 1 GiB, which 1 MB of gzip makes."""
    import gzip

    info = tarfile.TarInfo('long')
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with gzip.open(path, 'wb', compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(64):
            file.write(bytes(1 << 20))
    script = (
        'import sys\n'
        'from genro_storage import StorageManager\n'
        's = StorageManager()\n'
        's.configure([{"name": "tar", "type": "tar", "file": sys.argv[1]}])\n'
        'try:\n'
        '    s.node("tar").children()\n'
        'except OSError as error:\n'
        '    print(error)\n' + PRINT_PEAK
    )
    done = subprocess.run([sys.executable, '-c', script, path], capture_output=True, text=True, timeout=50, check=True)
    said, kibibytes = done.stdout.splitlines()
    assert 'are believed' in said
    assert int(kibibytes) < 120 << 10


def test_a_header_that_leads_backwards_has_an_end(path: Path) -> None:
    data = bytearray(tar_of({'a': b'1', 'b': b'2'}, 'w'))
    # The size in base 256, as GNU tar writes large ones, and negative.
    data[1024 + 124 : 1024 + 136] = b'\xff' * 10 + (0x10000 - 1024).to_bytes(2, 'big')
    data[1024 + 148 : 1024 + 156] = b'        '
    data[1024 + 148 : 1024 + 156] = b'%06o\0 ' % sum(data[1024:1536])
    path.write_bytes(data)
    with StorageManager() as storage:
        storage.add_mount({'name': 'tar', 'type': 'tar', 'file': str(path)})
        with pytest.raises(StorageIOError):
            storage.node('tar').children()


def test_a_compression_that_is_not_ours_names_the_type_that_reads_it(path: Path) -> None:
    path.write_bytes(b'\x28\xb5\x2f\xfd' + bytes(100))
    with StorageManager() as storage:
        storage.add_mount({'name': 'tar', 'type': 'tar', 'file': str(path)})
        with pytest.raises(StorageUnsupportedError, match=r'zstd.*libarchive'):
            storage.node('tar').children()


class TestLibarchive:
    def test_a_list_of_files_of_this_machine_is_no_archive(self, path: Path, tmp_path: Path) -> None:
        """libarchive takes an mtree(5) for one."""
        secret = tmp_path / 'secret'
        secret.write_text('hunter2')
        path.write_text(f'#mtree\n./stolen type=file size=7 contents={secret}\n')
        import libarchive

        with libarchive.file_reader(str(path)) as members:
            assert [member.pathname for member in members] == ['./stolen']
        with StorageManager() as storage:
            storage.add_mount({'name': 'list', 'type': 'libarchive', 'file': str(path)})
            with pytest.raises(StorageIOError):
                storage.node('list').children()

    def test_what_fails_while_it_reads_is_told_and_never_the_end(self) -> None:
        """libarchive calls back into Python, where an exception would be taken for the end of the file."""
        from genro_storage.backends.archive import ArchiveBackend
        from genro_storage.backends.archive_files import OpenArchive
        from genro_storage.backends.libarchive_archive import LibarchiveIndex
        from genro_storage.entry import Entry, Kind, Version

        data = tar_of({'a': b'1' * 1_000_000, 'b': b'2'})
        version = Version('1', strong=True)

        def read(offset: int, size_bytes: int) -> bytes:
            if offset > 500_000:
                raise StorageUnavailableError('the line is dead')
            return data[offset : offset + size_bytes]

        class Place:
            def look(self) -> Version:
                return version

            def open(self) -> OpenArchive:
                return OpenArchive(Entry('', Kind.FILE, len(data), 1, version), 'place', read, lambda: None)

        backend = ArchiveBackend('libarchive:test', Place(), LibarchiveIndex)
        with pytest.raises(StorageUnavailableError, match='dead'):
            backend.list_directory('')

    def test_a_missing_package_says_what_to_install(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path.write_bytes(tar_of({'a': b'1'}))
        monkeypatch.setitem(sys.modules, 'libarchive', None)
        with StorageManager() as storage:
            storage.add_mount({'name': 'm', 'type': 'libarchive', 'file': str(path)})
            with pytest.raises(StorageConfigError, match=r"pip install 'genro-storage\[libarchive\]'"):
                storage.node('m').children()


def test_what_was_read_lately_and_marks_make_jumps_short() -> None:
    import gzip

    from genro_storage.backends.decompressing import gzipped
    from genro_storage.backends.seekable import SeekableStream

    data = b''.join(b'%015d\n' % number for number in range(2_000_000))  # 32 MB
    packed = gzip.compress(data, 1)
    asked = 0

    def source(offset: int, size_bytes: int) -> bytes:
        nonlocal asked
        asked += size_bytes
        return packed[offset : offset + size_bytes]

    stream = SeekableStream(lambda: gzipped(source, 0, len(packed)))
    assert stream.read(len(data) - 16, 100) == data[-16:]
    after_one_pass = asked
    for place in range(len(data) - (1 << 20), 0, -(1 << 20)):
        assert stream.read(place, 16) == data[place : place + 16]
    assert asked - after_one_pass < 2 * len(packed)
    assert io.BytesIO(stream.read(0, 100)).read() == data[:100]
