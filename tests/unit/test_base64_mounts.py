"""Files whose content is their name."""

import base64

import pytest

from genro_storage import StorageManager
from genro_storage.errors import (
    StorageConflictError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StorageReadOnlyError,
)


@pytest.fixture
def storage() -> StorageManager:
    manager = StorageManager()
    manager.configure([{'name': 'b64', 'type': 'base64'}, {'name': 'm', 'type': 'memory'}])
    return manager


@pytest.mark.parametrize('content', [b'Hello World', b'x', b'xy', b'xyz', bytes(range(140)), b'\xfb\xef\xbe'])
def test_the_name_is_the_content(storage: StorageManager, content: bytes) -> None:
    node = storage.node(f'b64:{base64.urlsafe_b64encode(content).decode()}')
    assert node.isfile
    assert node.size == len(content)
    assert node.read_bytes() == content
    with node.open('rb') as file:
        file.seek(1)
        assert file.read(2) == content[1:3]


def test_the_older_alphabet_is_read_too(storage: StorageManager) -> None:
    assert storage.node('b64:++++').read_bytes() == storage.node('b64:----').read_bytes() == b'\xfb\xef\xbe'


@pytest.mark.parametrize('name', ['SGVsbG8', 'not base64!', 'SGVs=bG8=', 'AB==', 'é', '=', 'SGVs\n'])
def test_what_is_no_base64_is_not_there(storage: StorageManager, name: str) -> None:
    assert not storage.node(f'b64:{name}').exists
    with pytest.raises(StorageNotFoundError, match='base64'):
        storage.volume('b64').backend.stat(name)


@pytest.mark.parametrize('name', ['AAAA/AAA', '//8=', 'a/b'])
def test_a_slash_is_no_letter_because_a_path_does_not_keep_them(storage: StorageManager, name: str) -> None:
    """AAAA//// would be AAAA: other content, and nobody would know."""
    assert not storage.node(f'b64:{name}').exists
    with pytest.raises(StorageNotFoundError, match='urlsafe'):
        storage.volume('b64').backend.stat('AAAA/AAA')


def test_its_time_stays(storage: StorageManager) -> None:
    node = storage.node('b64:SGVsbG8=')
    assert node.mtime == node.mtime > 1_600_000_000


def test_the_root_is_an_empty_directory(storage: StorageManager) -> None:
    assert storage.node('b64').isdir
    assert storage.node('b64').children() == []
    with pytest.raises(StorageNotADirectoryError):
        storage.node('b64:SGVsbG8=').children()
    with pytest.raises(StorageIsADirectoryError):
        storage.volume('b64').backend.read_range('', 0, 1, None)


def test_it_can_be_copied_and_not_changed(storage: StorageManager) -> None:
    storage.node('b64:SGVsbG8=').copy('m:greeting')
    assert storage.node('m:greeting').read_text() == 'Hello'
    for change in (
        storage.node('b64:SGVsbG8=').delete,
        lambda: storage.node('b64:SGVsbG8=').write_text('x'),
        lambda: storage.node('b64:d').mkdir(),
    ):
        with pytest.raises(StorageReadOnlyError):
            change()


def test_another_version_is_a_conflict(storage: StorageManager) -> None:
    backend = storage.volume('b64').backend
    with pytest.raises(StorageConflictError):
        backend.read_range('SGVsbG8=', 0, 1, backend.stat('AAAA').version)
