"""The file behind staged bytes: private, nameless, copied as far as needed, linked where it can be."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from genro_storage.entry import Extent
from genro_storage.errors import StorageIOError, StorageNoSpaceError, StoragePermissionError
from genro_storage.runtime import WouldBlock
from genro_storage.writing import content as content_module
from genro_storage.writing.content import Content
from tests.unit.volumes import serving_thread

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'cache' / 'staging'


@pytest.fixture(params=['unnamed', 'named'])
def content(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Content:
    if request.param == 'named':
        monkeypatch.delattr(os, 'O_TMPFILE')
    return Content.create(folder)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class TestLife:
    def test_it_has_no_name_where_the_file_system_can(self, folder: Path) -> None:
        content = Content.create(folder)
        content.write(0, b'secret')
        assert list(folder.iterdir()) == []
        assert stat.S_IMODE(os.fstat(content.fileno()).st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_where_there_are_only_names_it_goes_with_the_last_who_holds_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, 'O_TMPFILE')
        content = Content.create(folder)
        (named,) = folder.iterdir()
        assert stat.S_IMODE(named.stat().st_mode) == 0o600
        del content
        assert list(folder.iterdir()) == []

    def test_it_stays_open_for_whoever_took_it(self, folder: Path) -> None:
        held = Content.create(folder)
        held.write(0, b'data')
        descriptor, reader = held.fileno(), held
        del held
        assert reader.read(0, 10) == b'data'
        del reader
        assert not is_open(descriptor)

    def test_a_forked_child_takes_nothing_away(self, folder: Path, tmp_path: Path) -> None:
        script = tmp_path / 'forks.py'
        script.write_text(
            'import os, sys\n'
            'from pathlib import Path\n'
            'del os.O_TMPFILE\n'
            'from genro_storage.writing.content import Content\n'
            'content = Content.create(Path(sys.argv[1]))\n'
            'if (child := os.fork()) == 0:\n'
            '    del content\n'
            '    os._exit(0)\n'
            'os.waitpid(child, 0)\n'
            'assert len(os.listdir(sys.argv[1])) == 1\n'
            'del content\n'
            'assert os.listdir(sys.argv[1]) == []\n'
        )
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}
        subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=50, env=environment)

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / 'file').write_bytes(b'')
        with pytest.raises(StorageIOError, match='file/staging'):
            Content.create(tmp_path / 'file' / 'staging')

    def test_a_folder_of_somebody_else_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, 'geteuid', lambda: 12345)
        with pytest.raises(StoragePermissionError, match='cache: path:'):
            Content.create(tmp_path)


class TestCopy:
    def test_it_has_the_ranges_and_nothing_behind_the_end(self, folder: Path) -> None:
        content = Content.create(folder)
        content.write(0, b'0123456789')
        copied = content.copy([Extent(0, 3), Extent(5, 10)], 8)
        assert copied.read(0, 100)[:3] == b'012'
        assert copied.read(5, 100) == b'567'
        copied.write(0, b'X')
        assert content.read(0, 100) == b'0123456789'

    def test_holes_stay_holes_and_count_at_the_end_too(self, folder: Path) -> None:
        content = Content.create(folder)
        content.write(8 * MIB, b'x' * MIB)
        os.ftruncate(content.fileno(), 32 * MIB)
        copied = content.copy([Extent(0, 64 * MIB)], 64 * MIB)
        status = os.fstat(copied.fileno())
        assert status.st_size == 32 * MIB
        assert status.st_blocks * 512 <= 2 * MIB
        assert copied.read(8 * MIB - 2, 4) == b'\0\0xx'

    def test_only_what_is_asked_for_is_copied(self, folder: Path) -> None:
        content = Content.create(folder)
        content.write(0, b'x' * (8 * MIB))
        copied = content.copy([Extent(4 * MIB, MIB)], 8 * MIB)
        assert copied.read(4 * MIB, MIB) == b'x' * MIB
        if not content_module._clone(content.fileno(), Content.create(folder).fileno()):
            assert os.fstat(copied.fileno()).st_blocks * 512 <= 2 * MIB

    @pytest.mark.parametrize('lacking', ['copy_file_range', 'SEEK_DATA'])
    def test_where_the_system_lacks_a_call_it_is_read_and_written(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
    ) -> None:
        def lack(*_: object) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        content = Content.create(folder)
        data = bytes(range(256)) * (3 * MIB // 256)
        content.write(0, data)
        if lacking == 'SEEK_DATA':
            monkeypatch.setattr(os, 'lseek', lack)
        else:
            monkeypatch.setattr(os, 'copy_file_range', lack)
        assert content.copy([Extent(0, len(data))], len(data)).read(0, len(data)) == data

    def test_one_that_takes_long_is_left_to_a_thread_that_may_wait(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(content_module, '_clone', lambda *_: False)
        content = Content.create(folder)
        content.write(0, b'x' * (MIB // 2))
        extent = Extent(0, 64 * MIB)
        with serving_thread() as call:
            assert call(lambda: content.copy([extent], extent.end)).read(0, 1) == b'x'
            content.write(0, b'x' * (2 * MIB))
            with pytest.raises(WouldBlock):
                call(lambda: content.copy([extent], extent.end))
            assert call(lambda: content.copy([Extent(0, 10)], 10)).read(0, 20) == b'x' * 10

    def test_a_full_disk_is_said_so(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = Content.create(folder)
        content.write(0, b'data')
        monkeypatch.setattr(content_module, '_clone', lambda *_: False)
        monkeypatch.setattr(os, 'copy_file_range', failing(errno.ENOSPC))
        with pytest.raises(StorageNoSpaceError, match=str(folder)):
            content.copy([Extent(0, 4)], 4)
        assert content.read(0, 10) == b'data'

    def test_an_adopted_one_is_copied_like_others(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / 'data').write_bytes(b'0123456789')
        content = Content.adopted(os.open(tmp_path / 'data', os.O_RDONLY), folder)
        assert not content.writable
        copied = content.copy([Extent(0, 10)], 10)
        assert copied.writable
        copied.write(0, b'X')
        assert copied.read(0, 10) == b'X123456789'
        assert (tmp_path / 'data').read_bytes() == b'0123456789'


class TestLink:
    def test_a_name_outlives_the_content(self, content: Content, tmp_path: Path) -> None:
        content.write(0, b'data')
        content.link(tmp_path / 'kept')
        content.write(4, b' and more')
        assert os.path.samestat(os.fstat(content.fileno()), (tmp_path / 'kept').stat())
        del content
        assert (tmp_path / 'kept').read_bytes() == b'data and more'
        assert stat.S_IMODE((tmp_path / 'kept').stat().st_mode) == 0o600

    def test_it_may_have_several(self, content: Content, tmp_path: Path) -> None:
        content.write(0, b'data')
        content.link(tmp_path / 'one')
        content.link(tmp_path / 'two')
        assert os.path.samefile(tmp_path / 'one', tmp_path / 'two')

    def test_it_may_have_another_when_the_first_has_gone(self, content: Content, tmp_path: Path) -> None:
        """Linux links a file that began without a name only once more while it has one."""
        content.write(0, b'data')
        content.link(tmp_path / 'one')
        (tmp_path / 'one').unlink()
        content.link(tmp_path / 'two')
        assert (tmp_path / 'two').read_bytes() == b'data'
        assert stat.S_IMODE((tmp_path / 'two').stat().st_mode) == 0o600

    def test_a_name_that_is_taken_stays_what_it_is(self, content: Content, tmp_path: Path) -> None:
        (tmp_path / 'kept').write_bytes(b'other')
        with pytest.raises(StorageIOError) as caught:
            content.link(tmp_path / 'kept')
        assert caught.value.errno == errno.EEXIST
        assert (tmp_path / 'kept').read_bytes() == b'other'

    def test_where_it_cannot_be_linked_a_copy_gets_the_name(
        self, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content.write(0, b'data')
        os.ftruncate(content.fileno(), 10)
        monkeypatch.setattr(os, 'link', failing(errno.EXDEV))
        content.link(tmp_path / 'kept')
        content.write(0, b'later')
        assert (tmp_path / 'kept').read_bytes() == b'data' + bytes(6)

    def test_a_copy_that_fails_leaves_no_name(
        self, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content.write(0, b'data')
        monkeypatch.setattr(os, 'link', failing(errno.EXDEV))
        monkeypatch.setattr(os, 'fsync', failing(errno.ENOSPC))
        with pytest.raises(StorageNoSpaceError):
            content.link(tmp_path / 'kept')
        assert not (tmp_path / 'kept').exists()

    def test_a_directory_that_is_not_there_is_an_error(self, content: Content, tmp_path: Path) -> None:
        with pytest.raises(StorageIOError) as caught:
            content.link(tmp_path / 'nowhere' / 'kept')
        assert caught.value.errno == errno.ENOENT


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail
