"""Zip archives as others make them: hostile, damaged, changed while they are read, or no archives at all."""

import io
import os
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from genro_storage import StorageManager
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageReadOnlyError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from tests.archives import PRINT_PEAK, zip_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'some.zip'


@pytest.fixture
def storage(path: Path) -> StorageManager:
    manager = StorageManager()
    manager.configure([{'name': 'zip', 'type': 'zip', 'file': str(path), 'ttl': 0, 'cache': 'memory'}])
    return manager


def names(storage: StorageManager, path: str = '') -> list[str]:
    return [node.basename for node in storage.node(f'zip:{path}').children()]


def linked(target: str) -> tuple[zipfile.ZipInfo, str]:
    info = zipfile.ZipInfo('link')
    info.create_system = 3
    info.external_attr = 0o120777 << 16
    return info, target


class TestHostileNames:
    def test_what_leads_out_is_hidden_and_counted(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(zip_of({'../evil': b'1', 'a/../../evil': b'2', 'a/ok': b'3', 'n' * 256: b'4'}))
        assert names(storage) == ['a']
        assert names(storage, 'a') == ['ok']
        assert storage.volume('zip').backend.hidden.count == 3  # type: ignore[attr-defined]

    def test_slashes_too_many_and_dots_go_as_tools_that_unpack_have_it(
        self, storage: StorageManager, path: Path
    ) -> None:
        path.write_bytes(zip_of({'/etc/passwd': b'1', './b': b'2', 'c//d': b'3'}))
        assert names(storage) == ['b', 'c', 'etc']
        assert storage.node('zip:c/d').read_bytes() == b'3'

    def test_a_name_with_a_nul_is_hidden(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(zip_of({'a_b': b'1', 'c': b'2'}).replace(b'a_b', b'a\0b'))
        assert names(storage) == ['c']

    def test_of_two_of_one_name_the_later_counts(self, storage: StorageManager, path: Path) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, 'w') as archive:
            archive.writestr('a', 'earlier')
            with pytest.warns(UserWarning, match='Duplicate name'):
                archive.writestr('a', 'later')
        path.write_bytes(stream.getvalue())
        assert names(storage) == ['a']
        assert storage.node('zip:a').read_text() == 'later'

    @pytest.mark.parametrize('order', [('a', 'a/b'), ('a/b', 'a')])
    def test_of_a_file_beside_a_directory_the_directory_is_shown(
        self, storage: StorageManager, path: Path, order: tuple[str, str]
    ) -> None:
        path.write_bytes(zip_of(dict.fromkeys(order, b'1')))
        assert names(storage) == ['a']
        assert names(storage, 'a') == ['b']

    @pytest.mark.parametrize(
        ('target', 'shown'),
        [('d/file', b'1'), ('./d//file', b'1'), ('d', None), ('../x', None), ('/d/file', None), ('link', None)],
    )
    def test_a_link_is_followed_to_a_file_of_the_archive_and_nowhere_else(
        self, storage: StorageManager, path: Path, target: str, shown: bytes | None
    ) -> None:
        stream = io.BytesIO(zip_of({'d/file': b'1'}))
        with zipfile.ZipFile(stream, 'a') as archive:
            archive.writestr(*linked(target))
        path.write_bytes(stream.getvalue())
        node = storage.node('zip:link')
        assert names(storage) == ['d', 'link']
        assert node.isfile == (shown is not None)
        if shown is None:
            with pytest.raises(StorageError):
                node.read_bytes()
        else:
            assert node.read_bytes() == shown


class TestHostileBytes:
    def test_a_bomb_costs_no_memory(self, path: Path) -> None:
        """Half a GiB of zeros in half a MB, of which somebody reads the end."""
        with (
            zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open('bomb', 'w') as member,
        ):
            for _ in range(512):
                member.write(bytes(1 << 20))
        script = (
            'import sys\n'
            'from genro_storage import StorageManager\n'
            's = StorageManager()\n'
            's.configure([{"name": "zip", "type": "zip", "file": sys.argv[1], "cache": "memory"}])\n'
            'with s.node("zip:bomb").open("rb") as file:\n'
            '    file.seek(-10, 2)\n'
            '    assert file.read() == bytes(10)\n' + PRINT_PEAK
        )
        done = subprocess.run([sys.executable, '-c', script, path], capture_output=True, timeout=50, check=True)
        assert int(done.stdout) < 120 << 10  # KiB

    def test_more_than_the_size_that_it_says_is_not_shown(self, storage: StorageManager, path: Path) -> None:
        data = zip_of({'a': b'x' * 1000})
        path.write_bytes(changed(data, 24, struct.pack('<I', 10)))
        assert storage.node('zip:a').size == 10
        with pytest.raises(StorageIOError, match='checksum'):
            storage.node('zip:a').read_bytes()

    def test_less_than_the_size_that_it_says_is_an_error(self, storage: StorageManager, path: Path) -> None:
        data = zip_of({'a': b'x' * 1000})
        path.write_bytes(changed(data, 24, struct.pack('<I', 1 << 30)))
        with storage.node('zip:a').open('rb') as file:
            file.seek(5000)
            with pytest.raises(StorageIOError, match='end'):
                file.read(1)

    def test_other_bytes_than_the_checksum_says_are_an_error(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(changed(zip_of({'a': b'content'}), 16, b'\1\2\3\4'))
        with pytest.raises(StorageIOError, match='checksum'):
            storage.node('zip:a').read_bytes()

    def test_an_encrypted_member_is_listed_and_not_read(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(changed(zip_of({'a': b'content'}), 8, struct.pack('<H', 1)))
        assert names(storage) == ['a']
        with pytest.raises(StorageUnsupportedError, match='encrypted'):
            storage.node('zip:a').read_bytes()

    def test_a_method_that_nobody_knows_is_said(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(changed(zip_of({'a': b'content'}), 10, struct.pack('<H', 9)))
        with pytest.raises(StorageUnsupportedError, match='method 9'):
            storage.node('zip:a').read_bytes()

    @pytest.mark.parametrize(
        'damage',
        [
            lambda data: b'',
            lambda data: b'no archive at all',
            lambda data: data[:-30],
            lambda data: data[40:],
            lambda data: data[:30] + bytes(len(data) - 60) + data[-30:],
        ],
        ids=['empty', 'text', 'cut', 'headless', 'hollow'],
    )
    def test_what_is_no_archive_is_an_error_and_not_empty(
        self, storage: StorageManager, path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        path.write_bytes(damage(zip_of({'a': b'content' * 10, 'b': b'2'}, zipfile.ZIP_STORED)))
        with pytest.raises(StorageIOError):
            storage.node('zip:a').read_bytes()

    def test_bytes_changed_at_random_are_our_errors_or_right(self, storage: StorageManager, path: Path) -> None:
        data = zip_of({f'd/{number}': os.urandom(20) * 20 for number in range(5)})
        for place in range(0, len(data), 31):
            path.write_bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
            try:
                for node in storage.node('zip').children():
                    for file in node.children() if node.isdir else [node]:
                        file.read_bytes()
            except StorageError:
                pass


class TestChanges:
    def test_an_archive_that_is_replaced_is_seen(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(zip_of({'a': b'old'}))
        assert storage.node('zip:a').read_bytes() == b'old'
        other = path.with_suffix('.new')
        other.write_bytes(zip_of({'a': b'new', 'b': b'2'}))
        other.replace(path)
        assert names(storage) == ['a', 'b']
        assert storage.node('zip:a').read_bytes() == b'new'

    def test_who_has_a_member_open_sees_one_version(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(zip_of({'a': b'old' * 10_000_000}, zipfile.ZIP_STORED))
        with storage.node('zip:a').open('rb') as file:
            assert file.read(3) == b'old'
            path.write_bytes(zip_of({'a': b'new' * 10_000_000}, zipfile.ZIP_STORED))
            file.seek(20_000_000)
            with pytest.raises(StorageConflictError):
                file.read(3)

    def test_an_archive_that_is_not_there_is_no_absence_of_its_files(self, storage: StorageManager, path: Path) -> None:
        with pytest.raises(StorageUnavailableError, match=r'some\.zip'):
            _ = storage.node('zip:a').exists
        path.write_bytes(zip_of({'a': b'1'}))
        assert storage.node('zip:a').exists

    def test_nothing_can_be_written_and_the_mount_says_so_before(self, storage: StorageManager, path: Path) -> None:
        path.write_bytes(zip_of({'a': b'1'}))
        before = path.read_bytes()
        for change in (
            storage.node('zip:a').delete,
            storage.node('zip:b').mkdir,
            lambda: storage.node('zip:b').write_text('x'),
            lambda: storage.node('zip:a').move('zip:b'),
        ):
            with pytest.raises(StorageReadOnlyError):
                change()
        assert path.read_bytes() == before

    @pytest.mark.parametrize('permissions', ['readwrite', 'delete'])
    def test_permissions_that_nobody_can_keep_are_refused(self, path: Path, permissions: str) -> None:
        with pytest.raises(StorageConfigError, match='can only be read'):
            StorageManager().add_mount({'name': 'z', 'type': 'zip', 'file': str(path), 'permissions': permissions})

    def test_permissions_for_all_mounts_leave_it_as_it_is(self, path: Path) -> None:
        storage = StorageManager()
        mount = {'name': 'z', 'type': 'zip', 'file': str(path)}
        storage.configure({'defaults': {'permissions': 'delete'}, 'mounts': [mount]})
        assert storage.volume('z').definition.permissions.value == 'readonly'

    def test_a_copy_out_of_it_is_whole(self, storage: StorageManager, path: Path, tmp_path: Path) -> None:
        path.write_bytes(zip_of({'d/a': b'1' * 5_000_000, 'd/e/b': b'2'}))
        (tmp_path / 'out').mkdir()
        storage.add_mount({'name': 'out', 'type': 'local', 'path': str(tmp_path / 'out')})
        storage.node('zip:d').copy('out:')
        assert (tmp_path / 'out/d/a').read_bytes() == b'1' * 5_000_000
        assert (tmp_path / 'out/d/e/b').read_bytes() == b'2'


def test_many_members_are_listed_quickly(storage: StorageManager, path: Path) -> None:
    path.write_bytes(zip_of({f'd{number % 100}/{number}': b'' for number in range(10_000)}, zipfile.ZIP_STORED))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert len(names(storage)) == 100
    assert len(names(storage, 'd7')) == 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    """An archive with other bytes in the first header of its central directory."""
    place = data.index(b'PK\1\2') + offset
    return data[:place] + new + data[place + len(new) :]
