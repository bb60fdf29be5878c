"""File objects of Python over handles."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.errors import StorageIOError, StorageUnsupportedError
from genro_storage.files import BUFFER_BYTES, MODES, open_reader, open_writer
from tests.unit.volumes import WAIT_S, Remote

DATA = bytes(range(256)) * 20_000  # more than one buffer


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    remote = Remote(tmp_path)
    yield remote
    remote.backend.heal()
    assert remote.volume.close(WAIT_S)


def test_the_kinds_of_files(remote: Remote) -> None:
    remote.put('f', b'1')
    kinds = {
        'r': io.TextIOWrapper,
        'rb': io.BufferedReader,
        'w': io.TextIOWrapper,
        'wb': io.BufferedWriter,
        'r+': io.TextIOWrapper,
        'r+b': io.BufferedRandom,
    }
    assert set(kinds) < set(MODES)
    for mode, kind in kinds.items():
        if mode in {'r', 'rb'}:
            file = open_reader(remote.volume.open_read('f'), mode, 'utf-8')
        else:
            file = open_writer(remote.volume.change('f', create=False), mode, 'utf-8')
        with file:
            assert isinstance(file, kind)
            assert file.seekable()
            assert file.readable() is ('r' in mode)
            assert file.writable() is (mode not in {'r', 'rb'})


def test_seeking(remote: Remote) -> None:
    remote.put('f', DATA)
    with open_reader(remote.volume.open_read('f'), 'rb', '') as file:
        assert file.seek(0, os.SEEK_END) == len(DATA)
        assert file.read() == b''
        assert file.seek(-10, os.SEEK_CUR) == len(DATA) - 10
        assert file.read() == DATA[-10:]
        assert file.seek(BUFFER_BYTES + 5) == BUFFER_BYTES + 5
        assert file.read(5) == DATA[BUFFER_BYTES + 5 : BUFFER_BYTES + 10]
        assert file.seek(len(DATA) + 100) == len(DATA) + 100
        assert file.read() == b''
        with pytest.raises(ValueError, match='negative'):
            file.seek(-1)
        with pytest.raises((ValueError, StorageUnsupportedError)):
            file.seek(0, 17)


def test_one_buffer_is_one_call(remote: Remote) -> None:
    writer = remote.volume.replace('f')
    calls: list[int] = []
    real = writer.write
    writer.write = lambda offset, data: (calls.append(len(data)), real(offset, data))[1]  # type: ignore[method-assign,func-returns-value]
    with open_writer(writer, 'wb', '') as file:
        for start in range(0, len(DATA), 1000):
            file.write(DATA[start : start + 1000])
    assert remote.content('f') == DATA
    assert len(calls) <= len(DATA) // (BUFFER_BYTES - 1000) + 1


def test_shutil_and_friends_can_use_them(remote: Remote) -> None:
    import shutil
    import zipfile

    with open_writer(remote.volume.replace('z'), 'wb', '') as file, zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('inside', DATA)
    with open_reader(remote.volume.open_latest('z'), 'rb', '') as file, zipfile.ZipFile(file) as archive:
        assert archive.read('inside') == DATA
        out = io.BytesIO()
        file.seek(0)
        shutil.copyfileobj(file, out)
    assert out.getvalue() == remote.content('z')


def test_utf16_has_one_mark_however_often_it_is_appended_to(remote: Remote) -> None:
    for word in ('one', 'two'):
        with open_writer(remote.volume.change('f', create=True), 'a', 'utf-16') as file:
            file.write(word)
    assert remote.content('f').decode('utf-16') == 'onetwo'


def test_a_handle_that_takes_less_than_it_is_given_is_given_the_rest(remote: Remote) -> None:
    writer = remote.volume.replace('f')
    real = writer.write
    writer.write = lambda offset, data: real(offset, data[: max(1, len(data) // 2)])  # type: ignore[method-assign]
    with open_writer(writer, 'wb', '') as file:
        file.write(DATA)
    assert remote.content('f') == DATA


def test_a_step_that_succeeds_when_tried_again_is_published(remote: Remote) -> None:
    writer = remote.volume.replace('f')
    real = writer.write
    failing = [True]

    def write(offset: int, data: memoryview) -> int:
        if failing:
            failing.pop()
            raise StorageIOError('broken')
        return real(offset, data)

    writer.write = write  # type: ignore[method-assign,assignment]
    file = open_writer(writer, 'wb', '')
    file.write(b'precious')
    with pytest.raises(StorageIOError):
        file.flush()
    file.close()
    assert remote.content('f') == b'precious'


def test_a_commit_that_fails_is_raised_by_close_and_the_file_is_closed(remote: Remote) -> None:
    for mode in ('wb', 'w'):
        file = open_writer(remote.volume.replace('f'), mode, 'utf-8')
        remote.backend.fail('put', StorageIOError('broken'))
        with pytest.raises(StorageIOError, match='broken'):
            file.close()
        assert file.closed
        file.close()
    assert remote.names() == []


def test_an_exception_inside_is_not_hidden_by_the_close(remote: Remote) -> None:
    remote.backend.fail_always('put', StorageIOError('broken'))
    file = open_writer(remote.volume.replace('f'), 'w', 'utf-8')
    with pytest.raises(ZeroDivisionError), file:
        raise ZeroDivisionError
    assert file.closed
    assert remote.backend.calls('put') == 0


def test_an_exception_after_a_close_inside_changes_nothing(remote: Remote) -> None:
    file = open_writer(remote.volume.replace('f'), 'wb', 'utf-8')
    with pytest.raises(ZeroDivisionError), file:  # noqa: PT012 - all of it is what fails
        file.write(b'1')
        file.close()
        raise ZeroDivisionError
    assert remote.content('f') == b'1'


@pytest.mark.parametrize('mode', ['r', 'w', 'r+', 'a'])
def test_an_unknown_encoding_gives_the_handle_back(remote: Remote, mode: str) -> None:
    remote.put('f', b'1')
    closed: list[str] = []
    handle = remote.volume.open_read('f') if mode == 'r' else remote.volume.change('f', create=False)
    for name in ('close', 'abort'):
        if hasattr(handle, name):
            setattr(handle, name, lambda name=name: closed.append(name))
    opening = open_reader if mode == 'r' else open_writer
    with pytest.raises(LookupError):
        opening(handle, mode, 'klingon')  # type: ignore[operator]
    assert closed == ['close' if mode == 'r' else 'abort']
