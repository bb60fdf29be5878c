"""Arguments, messages and exit codes of the commands, as far as nothing is mounted."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fusefs import main


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ('GENRO_STORAGE_CONFIG', 'XDG_CONFIG_HOME', 'XDG_DATA_HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('XDG_STATE_HOME', str(tmp_path / 'state'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('command', [main.mount, main.umount])
def test_without_a_mountpoint_it_says_how_it_is_used(
    command: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        command([])
    assert raised.value.code == 2
    assert 'usage: genro-' in capsys.readouterr().err


def test_help_has_examples_and_says_where_configurations_are_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main.mount(['--help'])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    for part in ('genro-mount ~/storage', 'genro-mount -f -o ro ~/storage', 'genro-umount ~/storage', './storage.yaml'):
        assert part in text


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['-c', 'missing.yaml', 'mnt'], 'missing.yaml: no such configuration file (named with -c)'),
        (['-o', 'alow_other', 'mnt'], "unknown mount option 'alow_other': did you mean 'allow_other'?"),
        (['-o', 'suid', 'mnt'], 'set-user-ID bits'),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_made(
    at_home: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.mount(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('genro-mount: ')
    assert said in line
    assert list(at_home.iterdir()) == []


def test_a_folder_inside_the_mountpoint_is_refused_and_what_was_made_is_removed(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (at_home / 'storage.yaml').write_text(f'- {{name: loop, type: local, path: {at_home}/a/b/c}}\n')
    (at_home / 'storage.yaml').chmod(0o600)
    assert main.mount(['a/b']) == 1
    assert 'inside the mountpoint' in capsys.readouterr().err
    assert not (at_home / 'a').exists()


def test_a_mountpoint_below_a_file_is_said_plainly(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at_home / 'file').touch()
    assert main.mount(['file/mnt']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'file' in line


def test_unmounting_what_is_not_mounted_says_so(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at_home / 'mnt').mkdir()
    assert main.umount(['mnt']) == 1
    assert capsys.readouterr().err == f'genro-umount: {at_home}/mnt: nothing is mounted there\n'
    assert main.umount(['missing']) == 1
    assert 'missing' in capsys.readouterr().err
