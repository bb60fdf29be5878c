"""Mounts of archives, of repositories and of directories of other mounts, as programs see them."""

from pathlib import Path

import pytest

from tests.archives import GitFolder, tar_of, zip_of
from tests.mount.mounted import MOUNT, Mounted, environment, mounted, mounted_below, run, write_config


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> 'Mounted':  # type: ignore[misc]
    folder = tmp_path_factory.mktemp('made-of-others')
    shelf = folder / 'shelf'
    (shelf / 'team').mkdir(parents=True)
    (shelf / 'team/notes').write_text('kept\n')
    content = {'d/a.txt': b'one\n', 'd/e/large': b'0123456789abcdef' * 200_000}
    (shelf / 'a.zip').write_bytes(zip_of(content))
    (shelf / 'b.tar.xz').write_bytes(tar_of({'inner.zip': zip_of(content)}, 'w:xz'))
    repository = GitFolder(folder / 'repository')
    repository.write(content)
    repository.commit()
    definitions = [
        {'name': 'shelf', 'type': 'local', 'path': str(shelf)},
        {'name': 'zip', 'type': 'zip', 'file': 'shelf:a.zip'},
        {'name': 'tar', 'type': 'tar', 'file': str(shelf / 'b.tar.xz')},
        {'name': 'inner', 'type': 'zip', 'file': 'tar:inner.zip'},
        {'name': 'other', 'type': 'libarchive', 'file': 'shelf:a.zip'},
        {'name': 'git', 'type': 'git', 'path': str(repository.folder)},
        {'name': 'b64', 'type': 'base64'},
        {'name': 'scratch', 'type': 'memory'},
        {'name': 'team', 'type': 'relative', 'path': 'shelf:team', 'permissions': 'readwrite'},
        {'name': 'inbox', 'type': 'relative', 'path': 'scratch:in/box'},
        {'name': 'frozen', 'type': 'relative', 'path': 'shelf:team', 'permissions': 'readonly'},
    ]
    with mounted(folder, definitions) as tree:
        yield tree


@pytest.mark.parametrize('mount', ['zip', 'inner', 'other', 'git'])
def test_programs_read_what_is_in_it(tree: Mounted, mount: str) -> None:
    assert tree.run('find', mount, '-type', 'f').split() == [f'{mount}/d/a.txt', f'{mount}/d/e/large']
    assert tree.run('cat', f'{mount}/d/a.txt') == 'one\n'
    assert tree.run('tail', '-c', '20', f'{mount}/d/e/large') == 'cdef0123456789abcdef'
    assert tree.run('wc', '-c', f'{mount}/d/e/large').split()[0] == '3200000'
    assert tree.run('cmp', f'{mount}/d/e/large', 'zip/d/e/large') == ''


@pytest.mark.parametrize('mount', ['zip', 'inner', 'other', 'git', 'frozen'])
def test_programs_that_write_are_told_that_it_is_read_only(tree: Mounted, mount: str) -> None:
    for command in ('echo x > {}/new', 'mkdir {}/new', 'rm -rf {}/*', 'touch {}/new'):
        assert 'Read-only file system' in tree.fails('sh', '-euc', command.format(mount))


def test_a_name_in_base64_is_a_file(tree: Mounted) -> None:
    assert tree.run('cat', 'b64/SGVsbG8=') == 'Hello'
    assert tree.run('ls', 'b64') == ''


def test_a_directory_of_a_mount_and_the_mount_agree(tree: Mounted) -> None:
    tree.sh('echo one > team/fresh; echo two >> shelf/team/fresh')
    assert tree.run('cat', 'team/fresh') == tree.run('cat', 'frozen/fresh') == 'one\ntwo\n'
    tree.sh('mkdir -p inbox/d; echo three > inbox/d/new')
    assert tree.run('cat', 'scratch/in/box/d/new') == 'three\n'
    tree.sh('echo four > scratch/in/box/d/new')
    assert tree.run('cat', 'inbox/d/new') == 'four\n'
    tree.sh('rm scratch/in/box/d/new')
    assert tree.run('ls', 'inbox/d') == ''


def test_what_its_permissions_refuse_is_refused(tree: Mounted) -> None:
    """Also of a file that the kernel knows by a name where more is allowed."""
    tree.run('cat', 'shelf/team/notes', 'team/notes', 'frozen/notes')
    for command in ('echo x >> frozen/notes', 'truncate -s 0 frozen/notes', 'chmod 777 frozen/notes'):
        assert 'Read-only file system' in tree.fails('sh', '-euc', command)
    assert 'Permission denied' in tree.fails('rm', 'team/notes')
    assert 'Permission denied' in tree.fails('mv', 'team/notes', 'team/other')
    assert tree.run('cat', 'shelf/team/notes') == 'kept\n'


def test_an_archive_that_is_replaced_is_seen(tmp_path: Path) -> None:
    path = tmp_path / 'a.zip'
    path.write_bytes(zip_of({'a': b'old\n'}))
    with mounted(tmp_path, [{'name': 'zip', 'type': 'zip', 'file': str(path), 'ttl': 0}]) as tree:
        assert tree.run('cat', 'zip/a') == 'old\n'
        path.write_bytes(zip_of({'a': b'newer\n', 'b': b''}))
        assert tree.run('cat', 'zip/a') == 'newer\n'
        assert tree.run('ls', 'zip').split() == ['a', 'b']


def test_a_mount_whose_other_mount_is_missing_is_said_and_nothing_is_mounted(tmp_path: Path) -> None:
    config = write_config(tmp_path, [{'name': 'team', 'type': 'relative', 'path': 'shelf:team'}])
    done = run(*MOUNT, '-f', '-c', config, tmp_path / 'mnt', env=environment(tmp_path))
    assert done.returncode != 0
    assert "mount 'team' refers to another one: no mount is named 'shelf'" in done.stderr
    assert 'Traceback' not in done.stderr
    assert mounted_below(tmp_path) == []
