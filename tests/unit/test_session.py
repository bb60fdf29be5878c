"""What comes before a mount is there."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs import session
from fusefs.session import Session
from fusefs.transports.options import MountError, MountOptions
from genro_storage.backend_volume import BackendVolume
from genro_storage.manager import StorageManager


@pytest.fixture
def manager() -> Iterator[StorageManager]:
    manager = StorageManager()
    manager.configure([{'name': 'one', 'type': 'memory'}, {'name': 'two', 'type': 'memory'}])
    yield manager
    manager.close()


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    events: list[str] = []

    def mount(mountpoint: Path, options: MountOptions) -> None:
        events.append('mounted')
        raise MountError('far enough')

    monkeypatch.setattr(session, 'mount', mount)
    return events


def test_what_the_first_requests_need_is_loaded_before(
    manager: StorageManager, events: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session, 'PREPARE_TIMEOUT_S', 30.0)
    monkeypatch.setattr(BackendVolume, 'prepare', lambda volume: events.append(volume.name))
    with pytest.raises(MountError):
        Session(manager, tmp_path, MountOptions())
    assert events == ['one', 'two', 'mounted']


def test_but_what_takes_long_is_not_waited_for(
    manager: StorageManager, events: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded = threading.Event()
    monkeypatch.setattr(BackendVolume, 'prepare', lambda volume: loaded.wait(30))
    with pytest.raises(MountError):
        Session(manager, tmp_path, MountOptions())
    assert events == ['mounted']
    loaded.set()


def test_what_cannot_be_loaded_is_logged_and_the_others_are(
    manager: StorageManager,
    events: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def prepare(volume: BackendVolume) -> None:
        events.append(volume.name)
        if volume.name == 'one':
            raise ZeroDivisionError

    monkeypatch.setattr(session, 'PREPARE_TIMEOUT_S', 30.0)
    monkeypatch.setattr(BackendVolume, 'prepare', prepare)
    with pytest.raises(MountError):
        Session(manager, tmp_path, MountOptions())
    assert events == ['one', 'two', 'mounted']
    assert 'one: could not be prepared' in caplog.text
