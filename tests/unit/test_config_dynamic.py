"""A local mount whose folder a function says: per user or tenant, with nothing of one seen by another."""

import pickle
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager, places
from genro_storage.config import Untrusted, load
from genro_storage.errors import StorageConfigError, UnknownMountError

tenant: ContextVar[str] = ContextVar('tenant')
ROOT: list[Path] = []


def folder_of_tenant() -> Path:
    return ROOT[0] / tenant.get()


@pytest.fixture(autouse=True)
def root(tmp_path: Path) -> Path:
    ROOT[:] = [tmp_path]
    for name in ('ann', 'bob'):
        (tmp_path / name).mkdir()
    return tmp_path


def storage_of(**more: Any) -> StorageManager:
    storage = StorageManager()
    storage.configure([{'name': 'mine', 'type': 'local', 'path': folder_of_tenant, **more}])
    return storage


def test_a_node_is_that_of_who_asks_at_each_use(root: Path) -> None:
    with storage_of() as storage:
        node = storage.node('mine:f')
        tenant.set('ann')
        node.write_text('of ann')
        tenant.set('bob')
        assert not node.exists
        node.write_text('of bob')
        tenant.set('ann')
        assert node.read_text() == 'of ann'
    assert [(root / name / 'f').read_text() for name in ('ann', 'bob')] == ['of ann', 'of bob']


def test_what_is_open_stays_where_it_was_opened(root: Path) -> None:
    with storage_of() as storage:
        tenant.set('ann')
        with storage.node('mine:f').open('wb') as file:
            file.write(b'1')
            tenant.set('bob')
            storage.node('mine:f').write_bytes(b'2')
            file.write(b'1')
    assert [(root / name / 'f').read_bytes() for name in ('ann', 'bob')] == [b'11', b'2']


def test_threads_have_each_their_own(root: Path) -> None:
    (root / 'bob' / 'f').write_text('of bob')
    with storage_of() as storage:
        node, seen = storage.node('mine:f'), []

        def look(name: str) -> None:
            tenant.set(name)
            seen.append((name, node.exists))

        threads = [threading.Thread(target=look, args=(name,)) for name in ('ann', 'bob')]
        for thread in threads:
            thread.start()
            thread.join()
        assert seen == [('ann', False), ('bob', True)]


def test_the_other_keys_hold_for_every_place(root: Path) -> None:
    tenant.set('ann')
    with storage_of(permissions='readonly') as storage, pytest.raises(PermissionError):
        storage.node('mine:f').write_text('x')


def test_nobody_need_know_the_place_when_it_is_configured_but_when_it_is_used() -> None:
    def unknown() -> str:
        raise LookupError('nobody is logged in')

    with StorageManager() as storage:
        storage.configure([{'name': 'mine', 'type': 'local', 'path': unknown}])
        node = storage.node('mine:f')
        with pytest.raises(StorageConfigError, match=r"mount 'mine': the function of its path failed \(LookupError\)"):
            node.read_text()
        storage.delete_mount('mine')
        with pytest.raises(UnknownMountError):
            node.read_text()


@pytest.mark.parametrize('name', ['../bob', 'ann/../bob', '', 'a\0b'])
def test_a_name_does_not_lead_out_of_the_folder_it_belongs_to(name: str) -> None:
    with StorageManager() as storage:
        storage.configure([{'name': 'mine', 'type': 'local', 'path': lambda: f'/srv/{name}' if name else ''}])
        with pytest.raises(StorageConfigError, match="mount 'mine': the function of its path: expected"):
            storage.node('mine:f').read_text()


def test_what_is_used_least_is_forgotten_and_comes_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, 'MOST_PLACES', 1)
    with storage_of() as storage:
        for _ in range(2):
            for name in ('ann', 'bob'):
                tenant.set(name)
                storage.node('mine:f').write_text(name)
                assert storage.node('mine:f').read_text() == name
        assert len(storage._volumes['mine']._volumes) == 1  # type: ignore[union-attr]


def test_a_place_has_one_volume_as_long_as_it_is_kept() -> None:
    with storage_of() as storage:
        tenant.set('ann')
        first = storage.volume('mine')
        assert storage.volume('mine') is first
        tenant.set('bob')
        assert storage.volume('mine') is not first


def test_a_pickle_refers_to_the_function(root: Path) -> None:
    storage = storage_of()
    data = pickle.dumps(storage.node('mine:f'))
    del storage
    tenant.set('bob')
    (root / 'bob' / 'f').write_text('of bob')
    assert pickle.loads(data).read_text() == 'of bob'


def test_only_code_that_is_trusted_says_places_and_only_local_ones() -> None:
    source: Any = [{'name': 'mine', 'type': 'local', 'path': folder_of_tenant}]
    with pytest.raises(StorageConfigError, match="privilege 'local'"):
        load(Untrusted(source))
    source = [{'name': 'mine', 'type': 's3', 'bucket': 'b', 'prefix': folder_of_tenant}]
    with pytest.raises(StorageConfigError, match="key 'prefix': expected text, got an object of type function"):
        load(source)
