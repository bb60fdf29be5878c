"""LocalBackend beside the contract: links, odd files, permissions, the file systems that lack something."""

import errno
import os
import resource
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genro_storage.backends import local_drafts
from genro_storage.backends.base import ABSENT
from genro_storage.backends.local import LocalBackend
from genro_storage.entry import Kind
from genro_storage.errors import (
    StorageError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNameTooLongError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageUnsupportedError,
)
from genro_storage.testing import BytesSource
from genro_storage.testing.contract import names, read, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / 'root'
    root.mkdir()
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside/secret').write_text('secret')
    return root


@pytest.fixture
def backend(root: Path) -> LocalBackend:
    return LocalBackend(root)


class TestLinks:
    def test_links_inside_are_followed(self, backend: LocalBackend, root: Path) -> None:
        write(backend, 'd/e/file', b'content')
        (root / 'to-file').symlink_to('d/e/file')
        (root / 'to-directory').symlink_to('d/e')
        (root / 'd/up').symlink_to('../d/./e/')
        (root / 'absolute').symlink_to(root / 'd')
        for path in ('to-file', 'to-directory/file', 'd/up/file', 'absolute/e/file', 'absolute/up/file'):
            assert read(backend, path) == b'content'
        kinds = {entry.name: entry.kind for entry in backend.list_directory('')}
        assert kinds['to-file'] is Kind.FILE
        assert kinds['to-directory'] is kinds['absolute'] is Kind.DIRECTORY
        assert backend.stat('to-file').size_bytes == 7
        assert names(backend, 'to-directory') == {'file'}

    @pytest.mark.parametrize(
        'target', ['../outside', '../outside/secret', '/etc/passwd', '/', '..', 'd/../../outside', '{root}/../outside']
    )
    def test_links_that_lead_out_are_refused(self, backend: LocalBackend, root: Path, target: str) -> None:
        (root / 'd').mkdir()
        (root / 'link').symlink_to(target.format(root=root))
        for path in ('link', 'link/secret'):
            for operation in (
                lambda path=path: backend.stat(path),
                lambda path=path: backend.list_directory(path),
                lambda path=path: backend.read_range(path, 0, 10, None),
                lambda path=path: write(backend, path, b'overwritten'),
            ):
                with pytest.raises(StoragePermissionError):
                    operation()
        assert {entry.name: entry.kind for entry in backend.list_directory('')}['link'] is Kind.OTHER
        assert (root.parent / 'outside/secret').read_text() == 'secret'

    def test_a_link_to_nowhere_is_listed_and_not_found(self, backend: LocalBackend, root: Path) -> None:
        (root / 'link').symlink_to('nowhere')
        assert [(entry.name, entry.kind) for entry in backend.list_directory('')] == [('link', Kind.OTHER)]
        with pytest.raises(StorageNotFoundError):
            backend.stat('link')

    def test_links_in_a_circle_are_refused(self, backend: LocalBackend, root: Path) -> None:
        (root / 'a').symlink_to('b')
        (root / 'b').symlink_to('a')
        with pytest.raises(StoragePathError) as caught:
            backend.stat('a')
        assert caught.value.errno == errno.ELOOP
        assert {entry.kind for entry in backend.list_directory('')} == {Kind.OTHER}

    def test_forty_links_are_followed_and_not_one_more(self, backend: LocalBackend, root: Path) -> None:
        write(backend, 'link0', b'1')
        for number in range(1, 42):
            (root / f'link{number}').symlink_to(f'link{number - 1}')
        assert read(backend, 'link40') == b'1'
        with pytest.raises(StoragePathError):
            backend.stat('link41')

    def test_a_put_writes_through_a_link(self, backend: LocalBackend, root: Path) -> None:
        write(backend, 'd/file', b'old')
        (root / 'link').symlink_to('d/file')
        (root / 'new').symlink_to('d/created')
        write(backend, 'link', b'new')
        write(backend, 'new', b'created')
        assert (root / 'link').is_symlink()
        assert read(backend, 'd/file') == b'new'
        assert read(backend, 'd/created') == b'created'

    def test_an_exclusive_put_takes_a_link_for_something(self, backend: LocalBackend, root: Path) -> None:
        (root / 'link').symlink_to('nowhere')
        with pytest.raises(StorageExistsError):
            backend.put('link', BytesSource(b'1'), expected=ABSENT)
        assert not (root / 'nowhere').exists()

    def test_removing_and_renaming_concern_the_link_itself(self, backend: LocalBackend, root: Path) -> None:
        write(backend, 'd/file', b'1')
        (root / 'link').symlink_to('d')
        with pytest.raises(StorageNotADirectoryError):
            backend.remove_directory('link')
        backend.rename('link', 'moved')
        assert (root / 'moved').is_symlink()
        backend.remove_file('moved')
        assert read(backend, 'd/file') == b'1'

    def test_a_link_that_is_swapped_while_it_is_walked_never_leads_out(self, backend: LocalBackend, root: Path) -> None:
        (root / 'inside').mkdir()
        (root / 'inside/secret').write_text('public')
        done = threading.Event()

        def swap() -> None:
            while not done.is_set():
                for target in (root.parent / 'outside', 'inside'):
                    (root / 'spare').symlink_to(target)
                    os.rename(root / 'spare', root / 'door')

        (root / 'door').symlink_to('inside')
        with ThreadPoolExecutor(1) as pool:
            swapping = pool.submit(swap)
            try:
                seen = {_try_to_read(backend, 'door/secret') for _ in range(2_000)}
            finally:
                done.set()
            swapping.result()
        assert seen <= {b'public', StoragePermissionError}

    def test_a_directory_moved_out_takes_no_parent_link_along(self, backend: LocalBackend, root: Path) -> None:
        (root / 'd').mkdir()
        (root / 'd/up').symlink_to('../file')
        write(backend, 'file', b'inside')
        assert read(backend, 'd/up') == b'inside'


def _try_to_read(backend: LocalBackend, path: str) -> object:
    try:
        return backend.read_range(path, 0, 100, None)
    except StorageError as error:
        return type(error)


class TestOddFiles:
    @pytest.fixture
    def odd(self, root: Path) -> Iterator[str]:
        os.mkfifo(root / 'fifo')
        with socket.socket(socket.AF_UNIX) as listening:
            here = os.getcwd()
            os.chdir(root)  # the path of a socket has 108 bytes at most
            try:
                listening.bind('socket')
            finally:
                os.chdir(here)
            yield 'fifo'

    def test_they_are_listed_and_refused_without_waiting(self, backend: LocalBackend, odd: str) -> None:
        for name in (odd, 'socket'):
            assert backend.stat(name).kind is Kind.OTHER
            with pytest.raises(StorageUnsupportedError):
                backend.read_range(name, 0, 10, None)
            with pytest.raises(StorageUnsupportedError):
                write(backend, name, b'1')
        assert {entry.kind for entry in backend.list_directory('')} == {Kind.OTHER}

    def test_they_can_be_removed(self, backend: LocalBackend, odd: str) -> None:
        backend.remove_file(odd)
        assert names(backend) == {'socket'}


class TestRoot:
    def test_a_missing_root_is_named(self, tmp_path: Path) -> None:
        backend = LocalBackend(tmp_path / 'missing')
        for operation in (lambda: backend.stat(''), lambda: write(backend, 'a/b', b'1'), backend.usage):
            with pytest.raises(StorageNotFoundError, match='missing'):
                operation()
        assert not (tmp_path / 'missing').exists()

    def test_a_root_that_is_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / 'file').write_text('1')
        with pytest.raises(StorageNotADirectoryError, match='file'):
            LocalBackend(tmp_path / 'file').list_directory('')

    def test_the_root_may_be_a_link(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / 'link').symlink_to(root)
        backend = LocalBackend(tmp_path / 'link')
        write(backend, 'file', b'1')
        (root / 'to-file').symlink_to(tmp_path / 'link/file')
        assert read(backend, 'to-file') == b'1'
        assert backend.destination == f'local:{root}'

    def test_the_room_of_the_disk_is_told(self, backend: LocalBackend, root: Path) -> None:
        usage = backend.usage()
        disk = os.statvfs(root)
        assert usage.total_bytes == disk.f_blocks * disk.f_frsize


class TestPut:
    def test_nothing_but_the_file_is_left(self, backend: LocalBackend, root: Path) -> None:
        for data in (b'1', b'2'):
            write(backend, 'd/file', data)
        assert os.listdir(root / 'd') == ['file']

    def test_a_new_file_has_the_mode_of_the_umask(self, backend: LocalBackend, root: Path) -> None:
        (root / 'by-open').write_text('')
        write(backend, 'by-put', b'')
        assert (root / 'by-put').stat().st_mode == (root / 'by-open').stat().st_mode

    def test_a_replaced_file_keeps_mode_and_owner_but_not_set_id(self, backend: LocalBackend, root: Path) -> None:
        file = root / 'file'
        file.write_text('old')
        if os.geteuid() == 0:
            os.chown(file, 1234, 4321)
        file.chmod(0o4640)
        owner = file.stat()
        write(backend, 'file', b'new')
        status = file.stat()
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert (status.st_uid, status.st_gid) == (owner.st_uid, owner.st_gid)

    def test_one_of_many_creates(self, backend: LocalBackend) -> None:
        barrier = threading.Barrier(8)

        def create(number: int) -> bool:
            barrier.wait()
            try:
                backend.put('prize', BytesSource(str(number).encode()), expected=ABSENT)
            except StorageExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(create, range(8))) == 1

    def test_without_unnamed_files_a_hidden_name_does(
        self, backend: LocalBackend, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local_drafts, '_DESCRIPTORS', '/nowhere')
        write(backend, 'd/file', b'first')
        (root / 'd/file').chmod(0o600)
        write(backend, 'd/file', b'second')
        backend.put('d/new', BytesSource(b'1'), expected=ABSENT)
        with pytest.raises(StorageExistsError):
            backend.put('d/new', BytesSource(b'2'), expected=ABSENT)
        with pytest.raises(StorageError):
            backend.put('d/file', BytesSource(b'short', size_bytes=10))
        assert read(backend, 'd/file') == b'second'
        assert stat.S_IMODE((root / 'd/file').stat().st_mode) == 0o600
        assert names(backend, 'd') == {'file', 'new'}

    def test_without_hard_links_exclusive_creation_still_holds(
        self, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, 'no links here')

        monkeypatch.setattr(local_drafts, '_DESCRIPTORS', '/nowhere')
        monkeypatch.setattr(os, 'link', refuse)
        backend.put('new', BytesSource(b'1'), expected=ABSENT)
        with pytest.raises(StorageExistsError):
            backend.put('new', BytesSource(b'2'), expected=ABSENT)
        assert read(backend, 'new') == b'1'
        assert names(backend) == {'new'}

    def test_a_name_that_is_too_long_is_refused(self, backend: LocalBackend) -> None:
        with pytest.raises(StorageNameTooLongError):
            write(backend, 'n' * 256, b'1')

    def test_characters_without_bytes_are_refused(self, backend: LocalBackend) -> None:
        with pytest.raises(StoragePathError) as caught:
            write(backend, '\ud800', b'1')
        assert caught.value.errno == errno.EILSEQ

    def test_a_tree_deeper_than_there_are_descriptors_is_walked(self, backend: LocalBackend) -> None:
        deep = '/'.join(['d'] * 100)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir('/proc/self/fd'))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, limits[1]))
        try:
            write(backend, f'{deep}/file', b'1')
            assert read(backend, f'{deep}/file') == b'1'
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_descriptors_are_given_back(self, backend: LocalBackend, root: Path) -> None:
        (root / 'out').symlink_to('/etc')
        before = len(os.listdir('/proc/self/fd'))
        write(backend, 'd/file', b'1')
        for path in ('out', 'nothing', 'd/file/x', 'd'):
            with pytest.raises(StorageError):
                backend.read_range(path, 0, 1, None)
        with pytest.raises(StorageIsADirectoryError):
            write(backend, 'd', b'1')
        backend.list_directory('d')
        assert len(os.listdir('/proc/self/fd')) == before
