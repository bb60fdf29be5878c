"""What the API promises of open files: modes, text, and that a failure publishes nothing."""

import gc
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from genro_storage import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageManager,
    StorageNode,
    StorageNotADirectoryError,
    StorageNotFoundError,
)
from tests.contract.mounts import LARGE, LARGE_BYTES, Mounts, names


class TestOpening:
    def test_reading(self, root: StorageNode) -> None:
        node = root / 'f'
        node.write_bytes(b'0123456789')
        with node.open() as file:
            assert file.read(3) == b'012'
            assert file.seek(-2, os.SEEK_END) == 8
            assert file.read() == b'89'
            assert file.seek(1) == 1
            assert file.read(1) == b'1'
            assert file.seek(1, os.SEEK_CUR) == 3
            assert file.read(-1) == b'3456789'
            assert file.read() == b''
            with pytest.raises(OSError, match='write'):
                file.write(b'')
        assert file.closed

    def test_writing_replaces(self, root: StorageNode) -> None:
        node = root / 'f'
        for content in (b'long content', b'short', b''):
            with node.open('wb') as file:
                file.write(content)
                with pytest.raises(OSError, match='read'):
                    file.read()
            assert node.read_bytes() == content

    def test_writing_makes_parents(self, root: StorageNode) -> None:
        node = root / 'a' / 'b' / 'c'
        assert [(root / path).exists for path in ('a', 'a/b', 'a/b/c')] == [False] * 3
        assert names(root) == []
        node.write_bytes(b'1')
        assert [(root / path).exists for path in ('a', 'a/b', 'a/b/c')] == [True] * 3
        assert (root / 'a' / 'b').isdir
        assert names(root) == ['a']

    def test_nothing_is_visible_before_close(self, root: StorageNode) -> None:
        node = root / 'f'
        with node.open('wb') as file:
            file.write(b'new')
            file.flush()
            assert not node.exists
        assert node.read_bytes() == b'new'
        with node.open('wb') as file:
            file.write(b'newer')
            file.flush()
            assert node.read_bytes() == b'new'
        assert node.read_bytes() == b'newer'

    def test_appending(self, root: StorageNode) -> None:
        node = root / 'f'
        with node.open('ab') as file:
            assert file.tell() == 0
            file.write(b'1')
        with node.open('ab') as file:
            assert file.tell() == 1
            file.seek(0)
            file.write(b'2')
        with node.open('a') as text:
            text.write('3')
        assert node.read_bytes() == b'123'

    def test_appending_nothing_changes_nothing_but_makes_the_file(self, mounts: Mounts, root: StorageNode) -> None:
        node = root / 'f'
        node.open('ab').close()
        assert node.size == 0
        backend = mounts.storage.volume(root.mount).backend
        version = backend.stat(node.path).version
        for mode in ('ab', 'a', 'r+', 'r+b'):
            node.open(mode).close()
        assert backend.stat(node.path).version == version

    def test_exclusive_creation(self, root: StorageNode) -> None:
        node = root / 'f'
        with node.open('xb') as file:
            file.write(b'1')
        for mode in ('x', 'xb'):
            with pytest.raises(StorageExistsError):
                node.open(mode)
        with pytest.raises(FileExistsError):
            root.open('xb')
        assert node.read_bytes() == b'1'

    def test_of_two_exclusive_creations_at_once_one_fails_and_nothing_is_lost(self, root: StorageNode) -> None:
        node = root / 'f'
        one, two = node.open('xb'), node.open('xb')
        one.write(b'1')
        two.write(b'2')
        one.close()
        with pytest.raises(FileExistsError):
            two.close()
        assert node.read_bytes() == b'1'

    @pytest.mark.parametrize('mode', ['r+', 'r+b', 'rb+'])
    def test_changing_in_place(self, root: StorageNode, mode: str) -> None:
        node = root / 'f'
        node.write_bytes(b'0123456789')
        with node.open(mode) as file:
            assert file.read(2) in (b'01', '01')
            file.seek(4)
            file.write(b'XY' if 'b' in mode else 'XY')
            file.flush()
            file.seek(3)
            assert file.read(4) in (b'3XY6', '3XY6')
            file.seek(8)
            file.truncate()
        assert node.read_bytes() == b'0123XY67'

    def test_a_hole_reads_as_zeros(self, root: StorageNode) -> None:
        with (root / 'f').open('wb') as file:
            file.seek(5)
            file.write(b'1')
            file.truncate(8)
        assert (root / 'f').read_bytes() == b'\0\0\0\0\x001\0\0'

    def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(
        self, mounts: Mounts, root: StorageNode, kind: str
    ) -> None:
        other = mounts.again(kind) / 'f'
        for mode in ('ab', 'r+b'):
            (root / 'f').write_bytes(b'old')
            with pytest.raises(StorageConflictError), (root / 'f').open(mode) as file:  # noqa: PT012 - all of it is what fails
                file.write(b'!')
                file.flush()
                other.write_bytes(b'theirs')
            assert (mounts.again(kind) / 'f').read_bytes() == b'theirs'

    def test_such_a_change_is_a_conflict_also_where_a_write_finds_it_while_the_file_is_closed(
        self, mounts: Mounts, root: StorageNode, kind: str
    ) -> None:
        for mode in ('a', 'r+'):
            (root / 'f').write_bytes(b'old')
            with pytest.raises(StorageConflictError), (root / 'f').open(mode) as file:  # noqa: PT012 - all of it is what fails
                file.write('!')
                (mounts.again(kind) / 'f').write_bytes(b'theirs')
            assert (mounts.again(kind) / 'f').read_bytes() == b'theirs'

    def test_a_file_that_appears_meanwhile_is_not_appended_over(
        self, mounts: Mounts, root: StorageNode, kind: str
    ) -> None:
        with pytest.raises(StorageError) as caught, (root / 'f').open('ab') as file:  # noqa: PT012 - all of it is what fails
            file.write(b'!')
            (mounts.again(kind) / 'f').write_bytes(b'theirs')
        assert isinstance(caught.value, StorageConflictError | StorageExistsError)
        assert (root / 'f').read_bytes() == b'theirs'

    @pytest.mark.parametrize('mode', ['', 'q', 'rw', 'w+', 'rt', 'br', 'ra', 'U'])
    def test_a_mode_that_there_is_not_is_refused(self, root: StorageNode, mode: str) -> None:
        with pytest.raises(ValueError, match='r\\+'):
            root.child('f').open(mode)

    @pytest.mark.parametrize('mode', ['r', 'rb', 'r+', 'r+b'])
    def test_modes_that_need_a_file(self, root: StorageNode, mode: str) -> None:
        for node in (root / 'nothing', root / 'no' / 'thing'):
            with pytest.raises(StorageNotFoundError):
                node.open(mode)

    @pytest.mark.parametrize('mode', ['r', 'rb', 'w', 'wb', 'a', 'ab', 'r+'])
    def test_a_directory_cannot_be_opened(self, root: StorageNode, mode: str) -> None:
        (root / 'dir').mkdir()
        for node in (root, root / 'dir'):
            with pytest.raises(StorageIsADirectoryError):
                node.open(mode)

    def test_a_file_cannot_be_a_parent(self, root: StorageNode) -> None:
        (root / 'f').write_bytes(b'1')
        with pytest.raises(StorageNotADirectoryError):
            (root / 'f' / 'x').write_bytes(b'2')
        assert (root / 'f').read_bytes() == b'1'

    def test_an_encoding_that_there_is_not_leaves_nothing_behind(self, mounts: Mounts, root: StorageNode) -> None:
        (root / 'f').write_bytes(b'1')
        for mode in ('r', 'w', 'a', 'r+'):
            with pytest.raises(LookupError, match='klingon'):
                (root / 'f').open(mode, encoding='klingon')
        gc.collect()
        assert (root / 'f').read_bytes() == b'1'

    def test_whole_contents(self, root: StorageNode) -> None:
        node = root / 'f'
        assert node.write_bytes(b'\0\xff') is None  # type: ignore[func-returns-value]
        assert node.read_bytes() == b'\0\xff'
        assert node.write_text('grüße') is None  # type: ignore[func-returns-value]
        assert node.read_text() == 'grüße'
        node.write_text('grüße', encoding='latin-1')
        assert node.read_bytes() == 'grüße'.encode('latin-1')
        assert node.read_text(encoding='latin-1') == 'grüße'
        with pytest.raises(UnicodeDecodeError):
            node.read_text()
        with pytest.raises(UnicodeEncodeError):
            node.write_text('日本', encoding='latin-1')
        assert node.read_text(encoding='latin-1') == 'grüße'

    @pytest.mark.parametrize('data', [bytearray(b'12'), memoryview(b'12'), memoryview(b'1x2x')[::2].tobytes()])
    def test_all_kinds_of_bytes_are_written(self, root: StorageNode, data: Any) -> None:
        (root / 'f').write_bytes(data)
        assert (root / 'f').read_bytes() == b'12'

    def test_text_keeps_its_newlines(self, root: StorageNode) -> None:
        text = 'unix\nwindows\r\nmac\rend'
        node = root / 'f'
        node.write_text(text)
        assert node.read_bytes() == text.encode()
        assert node.read_text() == text
        with node.open('w') as file:
            file.write(text)
        assert node.read_bytes() == text.encode()
        with node.open('r') as file:
            assert file.read() == text
        with node.open('r') as file:
            assert list(file) == ['unix\n', 'windows\r\n', 'mac\r', 'end']
        with node.open('r+') as file:
            file.seek(0, os.SEEK_END)
            file.write('\r\n')
        assert node.read_bytes() == text.encode() + b'\r\n'

    def test_a_large_file_whole_and_in_pieces(self, root: StorageNode) -> None:
        node = root / 'large'
        with node.open('wb') as file:
            for start in range(0, LARGE_BYTES, 3_000_001):
                file.write(LARGE[start : start + 3_000_001])
        assert node.size == LARGE_BYTES
        assert node.read_bytes() == LARGE
        with node.open('rb') as file:
            for offset in (LARGE_BYTES - 10, 8 << 20, 0, 262_144 - 1):
                file.seek(offset)
                assert file.read(20) == LARGE[offset : offset + 20]


class TestExceptions:
    """A failure publishes nothing."""

    @pytest.fixture(params=[b'', b'small', LARGE], ids=['empty', 'small', 'large'])
    def data(self, request: pytest.FixtureRequest) -> bytes:
        return bytes(request.param)

    @pytest.mark.parametrize('mode', ['wb', 'w', 'ab', 'a', 'r+b', 'r+'])
    def test_the_old_content_stays(self, mounts: Mounts, root: StorageNode, mode: str, data: bytes) -> None:
        node = root / 'f'
        node.write_bytes(b'old')
        with pytest.raises(ZeroDivisionError), node.open(mode) as file:  # noqa: PT012 - all of it is what fails
            file.write(data if 'b' in mode else data.decode('latin-1'))
            raise ZeroDivisionError
        assert node.read_bytes() == b'old'
        assert names(root) == ['f']
        assert mounts.uploads() == []
        assert mounts.staged() == []

    @pytest.mark.parametrize('mode', ['wb', 'w', 'ab', 'a', 'xb', 'x'])
    def test_no_new_file_appears(self, mounts: Mounts, root: StorageNode, mode: str, data: bytes) -> None:
        with pytest.raises(ZeroDivisionError), (root / 'new').open(mode) as file:  # noqa: PT012 - all of it is what fails
            file.write(data if 'b' in mode else data.decode('latin-1'))
            file.flush()
            raise ZeroDivisionError
        assert not (root / 'new').exists
        assert names(root) == []
        assert mounts.uploads() == []
        assert mounts.staged() == []

    def test_an_interrupt_is_an_exception_too(self, root: StorageNode) -> None:
        with pytest.raises(KeyboardInterrupt), (root / 'f').open('wb') as file:  # noqa: PT012 - all of it is what fails
            file.write(b'1')
            raise KeyboardInterrupt
        assert not (root / 'f').exists

    def test_what_cannot_be_encoded_publishes_nothing(self, root: StorageNode) -> None:
        with pytest.raises(UnicodeEncodeError), (root / 'f').open('w', encoding='ascii') as file:  # noqa: PT012 - all of it is what fails
            file.write('fine')
            file.write('größe')
        assert not (root / 'f').exists

    @pytest.mark.parametrize('mode', ['wb', 'w'])
    @pytest.mark.parametrize('in_a_cycle', [False, True])
    def test_a_file_that_nobody_closed_publishes_nothing_and_warns(
        self, mounts: Mounts, root: StorageNode, mode: str, in_a_cycle: bool
    ) -> None:
        node = root / 'f'
        node.write_bytes(b'old')
        gc.collect()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            file = node.open(mode)
            file.write(b'new' if 'b' in mode else 'new')
            if in_a_cycle:
                holder: list[Any] = [file]
                holder.append(holder)
                del holder
            del file
            gc.collect()
        assert [warning.category for warning in caught] == [ResourceWarning]
        assert 'unclosed' in str(caught[0].message)
        assert node.read_bytes() == b'old'
        assert mounts.staged() == []

    def test_a_file_that_nobody_closed_publishes_nothing_where_warnings_are_errors(self, root: StorageNode) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            file = (root / 'f').open('wb')
            file.write(b'new')
            with _unraisable_ignored():
                del file
                gc.collect()
        assert not (root / 'f').exists

    def test_a_file_that_is_closed_twice_is_published_once(self, mounts: Mounts, root: StorageNode) -> None:
        with (root / 'f').open('wb') as file:
            file.write(b'1')
            file.close()
            (root / 'f').write_bytes(b'2')
        file.close()
        assert (root / 'f').read_bytes() == b'2'

    def test_a_write_that_failed_at_close_publishes_nothing(
        self, root: StorageNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The io module closes a raw file even if the flush before it has failed."""
        node = root / 'f'
        node.write_bytes(b'old')
        for mode in ('wb', 'w'):
            file = node.open(mode)
            file.write(b'new' if 'b' in mode else 'new')
            with monkeypatch.context() as patched:
                patched.setattr(os, 'pwrite', _no_space)
                with pytest.raises(StorageError):
                    file.close()
            assert file.closed
            assert node.read_bytes() == b'old'

    def test_a_write_that_failed_and_was_ignored_publishes_nothing_and_says_so(
        self, root: StorageNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = (root / 'f').open('wb')
        with monkeypatch.context() as patched:
            patched.setattr(os, 'pwrite', _no_space)
            with pytest.raises(StorageError, match='staging') as caught:
                file.write(bytes(2 << 20))
            assert caught.value.errno == 28
        with pytest.raises(StorageError, match='nothing is published'):
            file.close()
        assert not (root / 'f').exists


def _no_space(*_: object) -> int:
    raise OSError(28, 'No space left on device')


class _unraisable_ignored:  # noqa: N801 - reads as a function
    """What a finalizer raises goes to sys.unraisablehook; for once it may."""

    def __enter__(self) -> None:
        import sys

        self._hook = sys.unraisablehook
        sys.unraisablehook = lambda _: None

    def __exit__(self, *exc: object) -> None:
        import sys

        sys.unraisablehook = self._hook


def test_a_local_file_that_grows_can_be_read_on(tmp_path: Path) -> None:
    with StorageManager() as storage:
        storage.configure([{'name': 'logs', 'type': 'local', 'path': str(tmp_path)}])
        log = tmp_path / 'server.log'
        log.write_bytes(b'one\n')
        with storage.node('logs:server.log').open('rb') as file:
            assert file.read() == b'one\n'
            with log.open('ab') as writer:
                writer.write(b'two\n')
            log.chmod(0o600)
            assert file.read() == b'two\n'


def test_a_local_file_that_is_replaced_is_read_as_it_was(tmp_path: Path) -> None:
    with StorageManager() as storage:
        storage.configure([{'name': 'here', 'type': 'local', 'path': str(tmp_path)}])
        node = storage.node('here:file')
        node.write_bytes(b'old')
        with node.open('rb') as file:
            node.write_bytes(b'new')
            assert file.read() == b'old'
        assert node.read_bytes() == b'new'
