"""genro-storage sync, of a mount that no process serves."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genro_storage.backend_volume import BackendVolume
from genro_storage.cli.commands import command
from genro_storage.cli.syncing import Place
from genro_storage.errors import StorageUnavailableError
from genro_storage.manager import StorageManager
from genro_storage.runtime import SystemClock
from genro_storage.writing.journal import Intent, Journal
from genro_storage.writing.journal_survey import everything


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of one mount, of a user of this test's own."""
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('CONFIG', 'CACHE', 'DATA', 'STATE'):
        monkeypatch.setenv(f'XDG_{name}_HOME', str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'files').mkdir()
    path = tmp_path / 'storage.json'
    path.write_text(json.dumps({'mounts': [{'name': 'files', 'type': 'local', 'path': str(tmp_path / 'files')}]}))
    path.chmod(0o600)
    return path


@pytest.fixture
def journal(config: Path, tmp_path: Path) -> Iterator[Journal]:
    """What another process has noted for the same destination."""
    with StorageManager() as manager:
        manager.configure(str(config))
        destination = manager.volume('files').backend.destination
    journal = Journal(tmp_path / 'state' / 'genro-storage' / 'journal', destination, SystemClock())
    yield journal
    journal.close()


def wait(journal: Journal, path: str, **more: bool) -> None:
    intent = Intent(id=journal.new_id(), kind='put', mount='files', path=path, created_ns=time.time_ns(), **more)
    journal.add(intent, b'')


def sync(*arguments: str) -> Result:
    return CliRunner().invoke(command, ['sync', *arguments], catch_exceptions=False)


def test_a_mount_with_nothing_to_upload_is_in_sync(config: Path) -> None:
    done = sync('-c', str(config), 'files:')
    assert (done.exit_code, done.output) == (0, '')


def test_what_another_process_has_in_hand_is_left_and_named(config: Path, journal: Journal) -> None:
    wait(journal, 'a/f')
    wait(journal, 'ab')
    done = sync('-c', str(config), 'files:a')
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('genro-storage: left: files:a/f')
    assert 'in another process' in line


def test_what_is_parked_is_left_with_what_to_do(config: Path, journal: Journal) -> None:
    wait(journal, 'f', parked=True)
    done = sync('-c', str(config), 'files:f')
    assert done.exit_code == 1
    assert '--retry' in done.stderr


def test_the_first_error_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(volume: BackendVolume, path: str) -> None:
        raise StorageUnavailableError(f'{volume.name}:{path}: nobody answers')

    monkeypatch.setattr(BackendVolume, 'sync', refuse)
    done = sync('-c', str(config), 'files:f')
    assert (done.exit_code, done.stderr) == (1, 'genro-storage: files:f: files:f: nobody answers\n')


def test_it_waits_no_longer_than_it_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(BackendVolume, 'sync', lambda volume, path: release.wait(30))
    began = time.monotonic()
    done = sync('-c', str(config), '--timeout', '200ms', 'files:f')
    release.set()
    assert time.monotonic() - began < 10
    assert (done.exit_code, done.stderr) == (1, 'genro-storage: files:f: not committed within 0.2 s\n')


def test_retry_comes_before_the_sync(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(BackendVolume, 'sync', lambda volume, path: calls.append(f'sync {path}'))
    monkeypatch.setattr(
        BackendVolume, 'retry_parked', lambda volume, path: calls.append(f'retry {path}'), raising=False
    )
    assert sync('-c', str(config), '--retry', 'files:a/b').exit_code == 0
    assert calls == ['retry a/b', 'sync a/b']


def test_every_path_is_synced_whatever_happens_to_the_others(config: Path) -> None:
    done = sync('-c', str(config), 'unknown:x', 'files:', '..')
    assert done.exit_code == 1
    assert [line.split(':')[1].strip() for line in done.stderr.splitlines()] == ['unknown', '..']


def test_a_path_outside_of_all_trees_says_what_to_do(config: Path, tmp_path: Path) -> None:
    done = sync(str(tmp_path))
    assert done.exit_code == 1
    assert 'not in a mounted tree' in done.stderr


@pytest.mark.parametrize('value', ['soon', '0', '-1s'])
def test_a_wrong_time_is_wrong_usage(config: Path, value: str) -> None:
    done = sync(f'--timeout={value}', 'files:')
    assert done.exit_code == 2
    assert 'expected a time' in done.stderr


def test_nothing_to_sync_is_wrong_usage(config: Path) -> None:
    assert sync().exit_code == 2


@pytest.mark.parametrize(
    ('place', 'intent', 'expected'),
    [
        (Place(mount='m', path=''), {'path': 'a'}, True),
        (Place(mount='m', path='a'), {'path': 'a/b'}, True),
        (Place(mount='m', path='a'), {'path': 'ab'}, False),
        (Place(mount='other', path=''), {'path': 'a'}, False),
        (Place(mount='renamed', path='', destination='d'), {'path': 'a'}, True),
        (Place(mount='m', path='', destination='e'), {'path': 'a'}, False),
        (Place(mount='m', path='new'), {'path': 'old', 'kind': 'move', 'target': 'new/x'}, True),
        (Place(mount='m', path=''), {'path': 'a', 'kind': 'upload', 'token': 't'}, False),
    ],
)
def test_what_is_at_or_below_a_path(tmp_path: Path, place: Place, intent: dict[str, str], expected: bool) -> None:
    journal = Journal(tmp_path / 'journal', 'd', SystemClock(), tmp_path / 'state')
    fields = {'kind': 'put', 'mount': 'm', **intent}
    journal.add(Intent(id=journal.new_id(), created_ns=1, **fields), b'')  # type: ignore[arg-type]
    (waiting,) = everything(journal.root)
    assert place.holds(waiting) is expected
    journal.close()
