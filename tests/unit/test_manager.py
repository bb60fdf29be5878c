"""The manager: threads that configure and use it at once, and its end."""

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager
from genro_storage.backend_volume import BackendVolume
from genro_storage.errors import StorageConfigError, StorageIOError, StorageNotFoundError, UnknownMountError
from genro_storage.testing import ManualClock
from tests.unit.volumes import Thread


def memory(*names: str) -> list[dict[str, Any]]:
    return [{'name': name, 'type': 'memory'} for name in names]


def test_the_clock_is_the_one_that_was_given() -> None:
    clock = ManualClock()
    storage = StorageManager(clock=clock)
    storage.configure(memory('m'))
    storage.node('m:f').write_bytes(b'1')
    assert storage.node('m:f').mtime == clock.time_ns() / 1e9


def test_definitions_may_be_typed() -> None:
    from genro_storage.config import MemoryDefinition

    storage = StorageManager()
    storage.add_mount(MemoryDefinition(name='typed'))
    assert storage.get_mount_names() == ['typed']


def test_names_come_in_the_order_of_their_first_configuration() -> None:
    storage = StorageManager()
    storage.configure(memory('b', 'a'))
    storage.configure(memory('c', 'b'))
    assert storage.get_mount_names() == ['b', 'a', 'c']


def test_what_is_replaced_or_deleted_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[BackendVolume] = []
    real = BackendVolume.close

    def close(volume: BackendVolume, timeout_s: float) -> bool:
        closed.append(volume)
        return real(volume, timeout_s)

    monkeypatch.setattr(BackendVolume, 'close', close)
    storage = StorageManager()
    storage.configure(memory('a', 'b', 'c'))
    first, second, third = (storage.volume(name) for name in ('a', 'b', 'c'))
    storage.configure(memory('a'))
    assert closed == [first]
    storage.delete_mount('b')
    assert closed == [first, second]
    replaced = storage.volume('a')
    storage.close()
    storage.close()
    assert closed == [first, second, third, replaced] or closed == [first, second, replaced, third]


def test_one_that_cannot_be_closed_leaves_the_others_no_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = StorageManager()
    storage.configure(memory('a', 'b', 'c'))
    closed: list[str] = []

    def close(volume: BackendVolume, timeout_s: float) -> bool:
        closed.append(volume.name)
        if volume.name == 'b':
            raise StorageIOError('broken')
        return True

    monkeypatch.setattr(BackendVolume, 'close', close)
    with pytest.raises(StorageIOError):
        storage.close()
    assert sorted(closed) == ['a', 'b', 'c']
    assert storage.get_mount_names() == []


def test_a_file_that_is_open_while_its_mount_is_replaced_goes_where_it_was_opened(tmp_path: Path) -> None:
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    storage = StorageManager()
    storage.add_mount({'name': 'm', 'type': 'local', 'path': str(tmp_path / 'one')})
    with storage.node('m:f').open('wb') as file:
        file.write(b'1')
        storage.add_mount({'name': 'm', 'type': 'local', 'path': str(tmp_path / 'two')})
    assert (tmp_path / 'one' / 'f').read_bytes() == b'1'
    assert list((tmp_path / 'two').iterdir()) == []


def test_who_configures_and_who_uses_at_once_do_not_meet_half_a_change(tmp_path: Path) -> None:
    storage = StorageManager()
    storage.configure(memory('a', 'b'))
    stop = threading.Event()

    def use() -> int:
        count = 0
        while not stop.is_set():
            names = storage.get_mount_names()
            assert names == ['a', 'b']
            for name in names:
                storage.node(name, 'f').exists  # noqa: B018 - looking is enough
            count += 1
        return count

    users = [Thread(use) for _ in range(3)]
    for _ in range(50):
        storage.configure(memory('a', 'b'))
    stop.set()
    assert all(user.result() for user in users)


def test_of_two_that_delete_a_mount_at_once_nobody_closes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = StorageManager()
    storage.configure(memory('m'))
    failures: list[BaseException] = []

    def delete() -> None:
        try:
            storage.delete_mount('m')
        except UnknownMountError as error:
            failures.append(error)

    threads = [Thread(delete) for _ in range(4)]
    for thread in threads:
        thread.result()
    assert not storage.has_mount('m')
    assert len(failures) <= 3


def test_a_function_that_fails_changes_nothing() -> None:
    storage = StorageManager()
    storage.configure(memory('m'))

    def source() -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        storage.configure(source)
    assert storage.get_mount_names() == ['m']


def test_messages_name_the_source_the_mount_the_key_and_the_nearest_right_one(tmp_path: Path) -> None:
    path = tmp_path / 'mounts.yaml'
    path.write_text('- {name: pictures, type: s3, buckett: b}\n')
    with pytest.raises(StorageConfigError) as caught:
        StorageManager().configure(path)
    for word in (str(path), 'pictures', 'buckett', 'bucket'):
        assert word in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageNotFoundError, match='nowhere'):
        StorageManager().configure(tmp_path / 'nowhere')


def test_a_manager_that_nobody_holds_goes() -> None:
    storage = StorageManager()
    storage.configure(memory('m'))
    node = storage.node('m:f')
    gone = weakref.ref(storage)
    del storage
    gc.collect()
    assert gone() is not None  # a node holds it
    del node
    gc.collect()
    assert gone() is None


def test_the_journal_is_below_the_path_of_the_cache(tmp_path: Path) -> None:
    storage = StorageManager()
    storage.configure({'mounts': memory('m'), 'cache': {'path': str(tmp_path / 'cache')}})
    storage.node('m:f').write_bytes(b'1')
    assert (tmp_path / 'cache' / 'journal' / 'staging').is_dir()
