"""Which configuration is found, in which order, and what of the current directory is trusted."""

import os
from pathlib import Path

import pytest

from genro_storage.config import Found, LocalDefinition, find_configuration, load
from genro_storage.errors import StorageConfigError, StorageNotFoundError


class Places:
    """A home, a current directory and a system folder of their own."""

    def __init__(self, root: Path) -> None:
        self.home, self.cwd, self.system = root / 'home', root / 'cwd', root / 'etc'
        for folder in (self.home, self.cwd, self.system):
            folder.mkdir()

    def find(self, explicit: str | Path | None = None, **env: str) -> Found:
        return find_configuration(explicit, env, self.cwd, self.home, [self.system])

    @staticmethod
    def put(path: Path, mode: int = 0o644) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('[]')
        path.chmod(mode)
        return path


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_each_place_gives_way_to_the_ones_before_it(places: Places) -> None:
    named = places.put(places.cwd / 'named.yaml')
    variable = places.put(places.cwd / 'variable.yaml')
    here = places.put(places.cwd / 'storage.yaml')
    user = places.put(places.home / '.config' / 'genro-storage' / 'storage.yaml')
    system = places.put(places.system / 'storage.yaml')
    assert places.find('named.yaml', GENRO_STORAGE_CONFIG='variable.yaml').source == str(named)
    assert places.find(GENRO_STORAGE_CONFIG='variable.yaml').source == str(variable)
    found = places.find(GENRO_STORAGE_CONFIG='')
    assert found.source == str(here)
    assert found.announcement == f'using {here} of the current directory'
    here.unlink()
    assert places.find() == Found(source=str(user))
    user.unlink()
    assert places.find() == Found(source=str(system))
    system.unlink()
    assert isinstance(places.find().source, list)


def test_the_embedded_default_is_home_and_scratch(places: Places) -> None:
    found = places.find()
    scratch = places.home / '.local' / 'share' / 'genro-storage' / 'scratch'
    assert found.scratch == scratch
    assert not scratch.exists()
    assert load(found.source).mounts == (
        LocalDefinition(name='home', path=str(places.home)),
        LocalDefinition(name='scratch', path=str(scratch)),
    )
    assert places.find(XDG_DATA_HOME='/data').scratch == Path('/data/genro-storage/scratch')
    assert places.find(XDG_DATA_HOME='relative').scratch == scratch


def test_the_users_folder_may_be_elsewhere(places: Places, tmp_path: Path) -> None:
    user = places.put(tmp_path / 'xdg' / 'genro-storage' / 'storage.yaml')
    assert places.find(XDG_CONFIG_HOME=str(tmp_path / 'xdg')).source == str(user)


def test_a_tilde_is_the_home(places: Places) -> None:
    user = places.put(places.home / 'my.yaml')
    assert places.find(GENRO_STORAGE_CONFIG='~/my.yaml').source == str(user)


def test_a_named_file_that_is_missing_is_no_reason_to_look_further(places: Places) -> None:
    places.put(places.cwd / 'storage.yaml')
    with pytest.raises(StorageNotFoundError, match=r'missing\.yaml: no such configuration file \(named with -c\)'):
        places.find('missing.yaml')
    with pytest.raises(StorageNotFoundError, match=r'gone\.yaml: .*\(named by \$GENRO_STORAGE_CONFIG\)'):
        places.find(GENRO_STORAGE_CONFIG='gone.yaml')


@pytest.mark.parametrize('mode', [0o664, 0o646])
def test_a_file_of_the_current_directory_that_others_may_write_is_refused(places: Places, mode: int) -> None:
    here = places.put(places.cwd / 'storage.yaml', mode)
    with pytest.raises(StorageConfigError, match=r'writable by others.*run with -c \./storage\.yaml'):
        places.find()
    assert places.find('./storage.yaml').source == str(here)


def test_a_file_of_the_current_directory_that_belongs_to_another_is_refused(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.put(places.cwd / 'storage.yaml')
    another = os.geteuid() + 1
    monkeypatch.setattr(os, 'geteuid', lambda: another)
    with pytest.raises(StorageConfigError, match=r'owned by another user.*run with -c \./storage\.yaml'):
        places.find()


def test_a_link_in_the_current_directory_counts_by_its_target(places: Places, tmp_path: Path) -> None:
    target = places.put(tmp_path / 'target.yaml', 0o666)
    (places.cwd / 'storage.yaml').symlink_to(target)
    with pytest.raises(StorageConfigError, match='writable by others'):
        places.find()
    target.unlink()
    with pytest.raises(StorageConfigError, match='cannot be examined'):
        places.find()


def test_a_folder_of_that_name_in_the_current_directory_is_refused(places: Places) -> None:
    (places.cwd / 'storage.yaml').mkdir()
    with pytest.raises(StorageConfigError, match='expected a file'):
        places.find()
