"""Names that desktops leave and look for, kept out of a backend, and programs that would read all of it."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusefs.trees import litter, noise
from fusefs.trees.noise import NameKind, kind_of, reader_of_everything
from genro_storage.config import Noise, Permissions, definition_from_mapping
from genro_storage.errors import StorageConfigError
from tests.unit.trees import RemoteTree

LITTER = ['.DS_Store', '._photo.jpg', 'desktop.ini', 'Desktop.ini', 'Thumbs.db', 'ehthumbs.db', '.directory', '.apdisk']
BINS = [
    '.Trash',
    '.Trash-1000',
    '.Trashes',
    '.Spotlight-V100',
    '.fseventsd',
    '$RECYCLE.BIN',
    'System Volume Information',
]
PROBES = ['.hidden', '.nomedia', '.metadata_never_index', '.xdg-volume-info', 'autorun.inf', '.localized']
OTHERS = [
    'a',
    '.',
    '..',
    '._',
    '.git',
    '.htaccess',
    '.DS_Store.txt',
    'Trash',
    'trash-1000',
    'thumbs.dbx',
    '_x',
    'ä',
    '-',
]


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - its errno is what counts
        yield
    assert raised.value.errno == number, raised.value


@pytest.fixture
def tree(tmp_path: Path) -> RemoteTree:
    return RemoteTree(tmp_path, noise=Noise.LOCAL)


@pytest.fixture
def refusing(tmp_path: Path) -> RemoteTree:
    return RemoteTree(tmp_path, noise=Noise.REFUSE)


@pytest.fixture
def allowing(tmp_path: Path) -> RemoteTree:
    return RemoteTree(tmp_path, noise=Noise.ALLOW)


# Names


@pytest.mark.parametrize(
    ('names', 'kind'), [(LITTER, NameKind.LITTER), (BINS, NameKind.BIN), (PROBES, NameKind.PROBE), (OTHERS, None)]
)
def test_names_are_what_they_are_to_desktops(names: list[str], kind: NameKind | None) -> None:
    assert {name: kind_of(name) for name in names} == dict.fromkeys(names, kind)


def test_the_first_letter_tells_most_names_apart() -> None:
    for name in noise._LITTER | noise._BINS | noise._PROBES:
        for written in (name, name.upper()):
            assert kind_of(written) is not None, written


# The definition


@pytest.mark.parametrize(
    ('mapping', 'policy'),
    [
        ({'type': 's3', 'bucket': 'b'}, Noise.LOCAL),
        ({'type': 'memory'}, Noise.ALLOW),
        ({'type': 'memory', 'noise': 'local'}, Noise.LOCAL),
        ({'type': 's3', 'bucket': 'b', 'noise': 'Refuse'}, Noise.REFUSE),
        ({'type': 's3', 'bucket': 'b', 'noise': 'allow'}, Noise.ALLOW),
    ],
)
def test_noise_is_minded_where_it_costs_requests_unless_said(mapping: dict[str, str], policy: Noise) -> None:
    assert definition_from_mapping({'name': 'm', **mapping}).noise is policy


@pytest.mark.parametrize(
    ('key', 'value', 'text'),
    [
        ('noise', 'quiet', "key 'noise': expected one of refuse, local, allow"),
        ('nois', 'local', "did you mean 'noise'?"),
    ],
)
def test_what_is_wrong_with_it_is_told(key: str, value: str, text: str) -> None:
    with pytest.raises(StorageConfigError, match=re.escape(text)):
        definition_from_mapping({'name': 'm', 'type': 's3', 'bucket': 'b', key: value})


# Lookups


@pytest.mark.parametrize('policy', [Noise.LOCAL, Noise.REFUSE])
def test_litter_and_bins_are_looked_up_without_a_request(tmp_path: Path, policy: Noise) -> None:
    tree = RemoteTree(tmp_path, noise=policy)
    tree.remote.put('d/f', b'1')
    tree.inode('d')
    before = tree.requests()
    for name in LITTER + BINS:
        assert tree.find(name) is None
        assert tree.find(f'd/{name}') is None
    assert tree.requests() == before


def test_probes_cost_no_more_than_the_listing_that_follows(tree: RemoteTree) -> None:
    tree.remote.put('d/f', b'1')
    tree.inode('d')
    before = tree.requests()
    for name in PROBES:
        assert tree.find(f'd/{name}') is None
    assert tree.names('d') == ['f']
    assert tree.requests() == before + 1


def test_a_probe_that_is_there_is_found(tree: RemoteTree) -> None:
    tree.remote.put('d/.nomedia', b'music')
    assert tree.read('d/.nomedia') == b'music'
    tree.write('d/.hidden', b'f\n')
    assert tree.remote.content('d/.hidden') == b'f\n'


def test_a_probe_in_what_is_no_directory_any_more_is_not_there(tree: RemoteTree) -> None:
    tree.remote.put('d/f', b'1')
    directory = tree.inode('d')
    tree.remote.store.remove_file('d/f')
    tree.remote.store.remove_directory('d')
    assert not tree.tree.lookup(directory, '.nomedia').nodeid


# What the backend has


def test_what_the_backend_has_under_such_a_name_only_python_sees(tree: RemoteTree) -> None:
    for name in ('.DS_Store', '._f', 'f', '.Trash-1000/f'):
        tree.remote.put(f'd/{name}', b'theirs')
    assert tree.names('d') == ['f']
    assert tree.find('d/.DS_Store') is None
    assert {entry.name for entry in tree.remote.volume.list_directory('d')[0]} == {
        '.DS_Store',
        '._f',
        'f',
        '.Trash-1000',
    }
    assert tree.remote.read('d/.DS_Store') == b'theirs'


def test_a_mount_that_allows_it_shows_and_stores_all(allowing: RemoteTree) -> None:
    allowing.remote.put('d/.DS_Store', b'theirs')
    assert allowing.names('d') == ['.DS_Store']
    assert allowing.read('d/.DS_Store') == b'theirs'
    allowing.write('d/._f', b'ours')
    allowing.mkdir('.Trash-1000')
    assert allowing.remote.content('d/._f') == b'ours'
    assert allowing.remote.names() == ['.Trash-1000', 'd']


def test_litter_of_the_backend_goes_with_its_directory(tree: RemoteTree) -> None:
    tree.remote.put('d/.DS_Store', b'theirs')
    tree.remote.put('d/._f', b'theirs')
    tree.rmdir('d')
    assert tree.remote.names() == []


@pytest.mark.parametrize('standing', ['f', '.Trash-1000/f', '.hidden'])
def test_what_is_no_litter_keeps_its_directory(tree: RemoteTree, standing: str) -> None:
    tree.remote.put('d/.DS_Store', b'theirs')
    tree.remote.put(f'd/{standing}', b'theirs')
    with refused(errno.ENOTEMPTY):
        tree.rmdir('d')
    assert tree.remote.content('d/.DS_Store') == b'theirs'


def test_a_bin_that_keeps_a_directory_is_named_in_the_log(tree: RemoteTree, caplog: pytest.LogCaptureFixture) -> None:
    tree.remote.put('d/.Trash-1000/f', b'theirs')
    with refused(errno.ENOTEMPTY):
        tree.rmdir('d')
    assert "'.Trash-1000'" in caplog.text


def test_a_mount_that_allows_it_removes_no_directory_with_litter(allowing: RemoteTree) -> None:
    allowing.remote.put('d/.DS_Store', b'theirs')
    with refused(errno.ENOTEMPTY):
        allowing.rmdir('d')


# What is kept here


def test_litter_is_kept_here_and_never_uploaded(tree: RemoteTree) -> None:
    tree.remote.put('d/f', b'1')
    tree.write('d/.DS_Store', b'Bud1')
    tree.write('d/._f', b'\0\5\x16\7')
    assert tree.names('d') == ['.DS_Store', '._f', 'f']
    assert tree.read('d/.DS_Store') == b'Bud1'
    assert tree.attributes('d/.DS_Store').size_bytes == 4
    assert tree.remote.names('d') == ['f']
    assert tree.remote.backend.calls('put') == 0


def test_litter_can_be_changed_like_a_file(tree: RemoteTree) -> None:
    tree.write('.DS_Store', b'Bud1')
    tree.setattr('.DS_Store', mode=0o644, size_bytes=2, mtime_ns=5)
    found = tree.attributes('.DS_Store')
    assert (found.mode, found.size_bytes, found.mtime_ns) == (0o100644, 2, 5)
    file = tree.open('.DS_Store', os.O_RDWR)
    file.write(4, b'end')
    assert tree.read('.DS_Store') == b'Bu\0\0end'
    with refused(errno.EEXIST):
        tree.create('.DS_Store', os.O_EXCL)
    tree.create('.DS_Store', os.O_TRUNC)
    assert tree.read('.DS_Store') == b''


def test_litter_that_is_removed_is_there_for_who_has_it_open(tree: RemoteTree) -> None:
    tree.write('.DS_Store', b'Bud1')
    file = tree.open('.DS_Store')
    tree.unlink('.DS_Store')
    assert tree.find('.DS_Store') is None
    assert file.read(0, 10) == b'Bud1'
    assert file.inode.tree.attributes(file.inode, file).attributes.nlink == 0
    with refused(errno.ENOENT):
        tree.unlink('.DS_Store')


def test_litter_follows_its_directory(tree: RemoteTree) -> None:
    tree.remote.put('d/f', b'1')
    tree.write('d/._f', b'half')
    tree.rename('d', 'e')
    assert tree.read('e/._f') == b'half'
    tree.unlink('e/f')
    tree.rmdir('e')
    tree.mkdir('e')
    assert tree.names('e') == []


def test_litter_is_renamed_to_litter_and_to_nothing_else(tree: RemoteTree) -> None:
    tree.remote.put('f', b'1')
    tree.write('._f', b'half')
    tree.write('._g', b'old')
    with refused(errno.EEXIST):
        tree.rename('._f', '._g', litter.RENAME_NOREPLACE)
    tree.rename('._f', '._g')
    assert tree.names() == ['._g', 'f']
    assert tree.read('._g') == b'half'
    for source, target in (('._g', 'g'), ('f', '._f')):
        with refused(errno.EXDEV):
            tree.rename(source, target)
    with refused(errno.EACCES):
        tree.rename('._g', '.Trash-1000')
    with refused(errno.ENOENT):
        tree.rename('._h', '._i')


def test_the_oldest_litter_goes_when_there_is_too_much(tree: RemoteTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litter, 'LIMIT_BYTES', 10)
    held = tree.create('._held')
    for name in ('a', 'b', 'c'):
        tree.write(f'._{name}', b'1234')
    held.write(0, b'12')
    assert tree.names() == ['._b', '._c', '._held']
    monkeypatch.setattr(litter, 'LIMIT_FILES', 2)
    tree.write('._d', b'')
    assert tree.names() == ['._d', '._held']
    assert tree.tree._litter._size_bytes == 2


def test_large_litter_is_refused(tree: RemoteTree) -> None:
    file = tree.create('Thumbs.db')
    with refused(errno.EFBIG):
        file.write(litter.FILE_LIMIT_BYTES, b'1')
    assert tree.attributes('Thumbs.db').size_bytes == 0


# What is refused


def test_bins_cannot_be_made_so_that_file_managers_offer_to_delete(tree: RemoteTree) -> None:
    for name in BINS:
        with refused(errno.EACCES):
            tree.mkdir(name)
        with refused(errno.EACCES):
            tree.create(name)
    with refused(errno.EACCES):
        tree.mkdir('.DS_Store')
    assert tree.remote.names() == []


def test_a_mount_that_refuses_lets_nothing_of_it_be_made(refusing: RemoteTree) -> None:
    refusing.remote.put('f', b'1')
    for name in LITTER + BINS:
        with refused(errno.EACCES):
            refusing.create(name)
        with refused(errno.EACCES):
            refusing.mkdir(name)
        with refused(errno.EXDEV):
            refusing.rename('f', name)
    assert refusing.names() == ['f']


def test_a_readonly_mount_keeps_no_litter(tmp_path: Path) -> None:
    tree = RemoteTree(tmp_path, noise=Noise.LOCAL, permissions=Permissions.READONLY)
    with refused(errno.EROFS):
        tree.create('.DS_Store')


# Programs


@contextmanager
def running(program: Path) -> Iterator[int]:
    """A program by this name, that waits; its process."""
    shutil.copy(shutil.which('cat') or '', program)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'\n')
        process.stdin.flush()
        assert process.stdout.read(1) == b'\n'  # it is that program by now, and not a child of this one
        yield process.pid


@pytest.mark.parametrize('name', ['tumblerd', 'tracker-extract-3', 'baloo_file_extractor', 'gdk-pixbuf-thumbnailer'])
def test_programs_that_read_everything_are_known_by_their_executables(tmp_path: Path, name: str) -> None:
    with running(tmp_path / name) as pid:
        assert reader_of_everything(pid) == name
        (tmp_path / name).unlink()
        assert reader_of_everything(pid) == name


def test_other_programs_are_not(tmp_path: Path) -> None:
    assert reader_of_everything(os.getpid()) == ''
    assert reader_of_everything(0) == ''
    with running(tmp_path / 'cat') as pid:
        assert reader_of_everything(pid) == ''


def test_programs_that_read_everything_may_look_and_not_read(
    tree: RemoteTree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level('INFO')
    tree.remote.put('f', b'1')
    with running(tmp_path / 'tumblerd') as pid:
        assert tree.attributes('f').size_bytes == 1
        for _ in range(2):
            with refused(errno.EACCES):
                tree.open('f', pid=pid)
            with refused(errno.EACCES):
                tree.tree.admit(pid)
    assert caplog.text.count('tumblerd') == 1
    assert tree.remote.backend.calls('read_range') == 0
    assert tree.read('f') == b'1'


def test_a_mount_that_allows_it_lets_them(allowing: RemoteTree, tmp_path: Path) -> None:
    allowing.remote.put('f', b'1')
    with running(tmp_path / 'tumblerd') as pid:
        assert allowing.open('f', pid=pid).read(0, 10)
        allowing.tree.admit(pid)
