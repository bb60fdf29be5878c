"""A local folder that contains the mountpoint: HOME served at HOME/storage, as the embedded default is used."""

import subprocess
from pathlib import Path

from tests.mount.mounted import Mounted, mounted, run


def home_of(tmp_path: Path, name: str = 'home') -> Path:
    home = tmp_path / name
    (home / 'documents').mkdir(parents=True)
    (home / 'documents' / 'letter').write_text('dear')
    return home


def definition(home: Path) -> dict[str, str]:
    return {'name': 'home', 'type': 'local', 'path': str(home)}


def found(tree: Mounted, *arguments: str) -> list[str]:
    return sorted(tree.run('find', '.', *arguments, timeout_s=20).split())


def test_the_mountpoint_shows_as_an_empty_directory_and_find_ends(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with mounted(tmp_path, [definition(home)], mountpoint=home / 'storage') as tree:
        assert found(tree) == ['.', './home', './home/documents', './home/documents/letter', './home/storage']
        assert tree.run('ls', '-A', 'home/storage') == ''
        assert tree.run('stat', '-c', '%F', 'home/storage').strip() == 'directory'
        assert tree.run('cat', 'home/documents/letter') == 'dear'
        assert 'dear' in tree.run('grep', '-r', 'dear', '.')
        assert tree.run('du', '-s', '--apparent-size', '-B1', 'home/documents/letter').split()[0] == '4'
        # Through the folder itself, as the user goes on working.
        assert run('find', home, timeout_s=20).stdout.count('letter') == 2


def test_nothing_can_be_done_in_or_to_the_mountpoint_from_inside(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with mounted(tmp_path, [definition(home)], mountpoint=home / 'storage') as tree:
        for script in (
            'touch home/storage/f',
            'mkdir home/storage/d',
            'rmdir home/storage',
            'rm -r home/storage',
            'mv home/storage home/other',
            'ls home/storage/home',
            'cat home/storage/home/documents/letter',
            'chmod 700 home/storage',
            'cp home/documents/letter home/storage/',
        ):
            assert tree.fails('sh', '-c', script, timeout_s=10)
        assert tree.run('ls').split() == ['home']


def test_a_mountpoint_deep_inside_is_veiled_too(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with mounted(tmp_path, [definition(home)], mountpoint=home / 'a' / 'b' / 'storage') as tree:
        assert './home/a/b/storage' in found(tree)
        assert tree.run('ls', '-la', 'home/a/b').count('storage') == 1
        tree.sh('echo x > home/a/b/f; cat home/a/b/f; tar cf /dev/null home')


def test_two_daemons_with_mountpoints_inside_one_home_end_too(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with (
        mounted(tmp_path, [definition(home)], mountpoint=home / 'one') as one,
        mounted(tmp_path, [definition(home)], mountpoint=home / 'two') as two,
    ):
        expected = ['.', './home', './home/documents', './home/documents/letter', './home/one', './home/two']
        assert found(one) == found(two) == expected
        searches = [
            subprocess.Popen(['find', tree.mountpoint], stdout=subprocess.DEVNULL) for tree in (one, two, one, two)
        ]
        assert [search.wait(20) for search in searches] == [0, 0, 0, 0]
        assert two.run('ls', '-A', 'home/one', 'home/two').split() == ['home/one:', 'home/two:']


def test_a_mountpoint_that_appears_while_it_is_being_listed_is_veiled(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    (home / 'later').mkdir()
    (home / 'later' / '.keep').touch()
    with mounted(tmp_path, [definition(home)], mountpoint=home / 'one') as one:
        assert one.run('ls', '-A', 'home/later').split() == ['.keep']
        (home / 'later' / '.keep').unlink()
        with mounted(tmp_path, [definition(home)], mountpoint=home / 'later') as other:
            assert './home/later' in found(one)
            assert other.run('ls', '-A', 'home/later') == ''
            assert one.run('find', 'home/later', timeout_s=20).split() == ['home/later']
        assert one.run('ls', '-A', 'home/later', timeout_s=20) == ''
        one.sh('echo x > home/later/f; rm home/later/f')


def test_a_link_to_the_mountpoint_is_not_followed_by_the_daemon(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with mounted(tmp_path, [definition(home)], mountpoint=home / 'storage') as tree:
        (home / 'link').symlink_to(home / 'storage')
        # The kernel follows it, back into the tree from its root.
        assert tree.run('ls', 'home/link/').split() == ['home']
        assert found(tree, '-name', 'letter') == ['./home/documents/letter']
