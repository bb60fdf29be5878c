"""A mount that is a directory of another one: permissions, agreement, and what becomes of it without the other."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager, StorageNode
from genro_storage.config import Untrusted
from genro_storage.errors import (
    StorageConfigError,
    StorageError,
    StorageNotADirectoryError,
    StoragePermissionError,
    StorageReadOnlyError,
)


@pytest.fixture(params=['memory', 'local'])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> StorageManager:
    manager = StorageManager()
    (tmp_path / 'shelf').mkdir()
    keys = {'path': str(tmp_path / 'shelf')} if request.param == 'local' else {}
    manager.configure(
        [
            {'name': 'public', 'type': 'relative', 'path': 'shelf:public', 'permissions': 'readonly'},
            {'name': 'inbox', 'type': 'relative', 'path': 'shelf:users/in', 'permissions': 'readwrite'},
            {'name': 'whole', 'type': 'relative', 'path': 'shelf:'},
            {'name': 'shelf', 'type': request.param, **keys},
        ]
    )
    manager.node('shelf:secret/k').write_text('secret')
    manager.node('shelf:public/a').write_text('public')
    return manager


CHANGES: list[Callable[[StorageNode], object]] = [
    lambda node: node.write_text('x'),
    lambda node: node.open('a'),
    lambda node: node.open('x'),
    lambda node: node.open('r+'),
    lambda node: node.delete(),
    lambda node: (node.parent / 'new').mkdir(),
    lambda node: node.move(node.parent / 'b'),
    lambda node: node.copy(node.parent / 'b'),
    lambda node: node.move('shelf:b'),
]


class TestPermissions:
    @pytest.mark.parametrize('change', CHANGES)
    def test_readonly_holds_on_every_way_in(
        self, storage: StorageManager, change: Callable[[StorageNode], object]
    ) -> None:
        with pytest.raises(StorageReadOnlyError):
            change(storage.node('public:a'))
        assert storage.node('shelf:public/a').read_text() == 'public'
        assert [node.basename for node in storage.node('shelf:public').children()] == ['a']

    def test_nothing_leads_out_of_it(self, storage: StorageManager) -> None:
        """The original library read the file."""
        for way in (
            lambda: storage.node('public').child('../secret/k'),
            lambda: storage.node('public:../secret/k'),
            lambda: storage.node('public') / '..' / 'secret',
            lambda: storage.add_mount({'name': 'x', 'type': 'relative', 'path': 'public:../secret'}),
        ):
            with pytest.raises(ValueError, match=r'\.\.'):
                way()
        assert storage.node('public').parent == storage.node('public')

    def test_readwrite_deletes_nothing(self, storage: StorageManager) -> None:
        node = storage.node('inbox:d/file')
        node.write_text('1')
        assert storage.node('shelf:users/in/d/file').read_text() == '1'
        for refused in (node.delete, lambda: node.move('inbox:other'), storage.node('inbox:d').delete):
            with pytest.raises(StoragePermissionError, match='inbox'):
                refused()
        assert node.exists

    @pytest.mark.parametrize('mine', ['readonly', 'readwrite', 'delete'])
    @pytest.mark.parametrize('others', ['readonly', 'readwrite', 'delete'])
    def test_what_the_other_mount_refuses_is_refused(self, mine: str, others: str, tmp_path: Path) -> None:
        order = ['readonly', 'readwrite', 'delete']
        allowed = order[min(order.index(mine), order.index(others))]
        (tmp_path / 'a').write_text('1')
        with StorageManager() as storage:
            storage.add_mount({'name': 'shelf', 'type': 'local', 'path': str(tmp_path), 'permissions': others})
            storage.add_mount({'name': 'm', 'type': 'relative', 'path': 'shelf:', 'permissions': mine})
            node = storage.node('m:a')
            if allowed == 'readonly':
                with pytest.raises(StorageReadOnlyError):
                    node.write_text('2')
            else:
                node.write_text('2')
            if allowed == 'delete':
                node.delete()
            else:
                with pytest.raises(StoragePermissionError):
                    node.delete()
            assert storage.volume('m').definition.permissions.value == allowed


class TestAgreement:
    def test_both_show_the_same_at_once(self, storage: StorageManager) -> None:
        storage.node('inbox:a').write_text('1')
        assert storage.node('shelf:users/in/a').read_text() == '1'
        storage.node('shelf:users/in/a').write_text('2')
        storage.node('shelf:users/in/b/c').write_text('3')
        assert storage.node('inbox:a').read_text() == '2'
        assert [node.fullpath for node in storage.node('inbox').children()] == ['inbox:a', 'inbox:b']
        storage.node('shelf:users/in/a').delete()
        assert not storage.node('inbox:a').exists

    def test_its_root_is_the_directory_and_may_come_later(self, storage: StorageManager) -> None:
        assert not storage.node('inbox').exists
        storage.node('inbox:d').mkdir()
        assert storage.node('inbox').isdir
        assert storage.node('shelf:users/in/d').isdir

    def test_a_file_is_no_mount(self, storage: StorageManager) -> None:
        storage.add_mount({'name': 'm', 'type': 'relative', 'path': 'shelf:public/a'})
        with pytest.raises(StorageNotADirectoryError):
            storage.node('m').children()

    def test_one_of_another_one(self, storage: StorageManager) -> None:
        storage.add_mount({'name': 'm', 'type': 'relative', 'path': 'inbox:deep'})
        storage.node('m:a').write_text('1')
        assert storage.node('shelf:users/in/deep/a').read_text() == '1'
        with pytest.raises(StoragePermissionError):
            storage.node('m:a').delete()

    def test_copies_and_moves_between_the_two_know_that_they_are_one(self, storage: StorageManager) -> None:
        with pytest.raises(ValueError, match='same'):
            storage.node('shelf:public/a').copy('public:a')
        with pytest.raises(ValueError, match='same'):
            storage.node('shelf:public/a').move('whole:public/a')
        with pytest.raises(ValueError, match='itself'):
            storage.node('shelf:public').copy('whole:public/below')
        storage.node('public:a').copy('inbox:copy')
        assert storage.node('shelf:users/in/copy').read_text() == 'public'

    def test_who_subscribes_is_told_of_what_is_below_alone(self, storage: StorageManager) -> None:
        told: list[str] = []
        end = storage.volume('inbox').subscribe(told.append)
        storage.node('shelf:users/in/a').write_text('1')
        storage.node('shelf:users/inside').write_text('1')
        end()
        assert set(told) <= {'a', ''}
        assert 'a' in told


class TestTheOtherMount:
    def test_it_may_come_later_and_go(self) -> None:
        with StorageManager() as storage:
            storage.add_mount({'name': 'm', 'type': 'relative', 'path': 'shelf:d'})
            with pytest.raises(StorageConfigError, match=r"'m'.*'shelf'"):
                _ = storage.node('m:a').exists
            storage.add_mount({'name': 'shelf', 'type': 'memory'})
            storage.node('m:a').write_text('1')
            storage.delete_mount('shelf')
            with pytest.raises(StorageConfigError, match=r"'m'.*'shelf'"):
                storage.node('m:a').read_text()
            storage.add_mount({'name': 'shelf', 'type': 'memory'})
            assert not storage.node('m:a').exists

    @pytest.mark.parametrize(
        'mounts',
        [
            [{'name': 'a', 'type': 'relative', 'path': 'a:x'}],
            [{'name': 'a', 'type': 'relative', 'path': 'b:x'}, {'name': 'b', 'type': 'zip', 'file': 'a:x.zip'}],
            [{'name': name, 'type': 'relative', 'path': f'{other}:'} for name, other in ('ab', 'bc', 'ca')],
        ],
    )
    def test_a_circle_is_refused_and_changes_nothing(self, mounts: list[dict[str, Any]]) -> None:
        with StorageManager() as storage:
            with pytest.raises(StorageConfigError, match=r'circle: .*a'):
                storage.configure(mounts)
            assert storage.get_mount_names() == []
            for mount in mounts[:-1]:
                storage.add_mount(mount)
            with pytest.raises(StorageConfigError, match='circle'):
                storage.add_mount(mounts[-1])
            assert storage.get_mount_names() == [mount['name'] for mount in mounts[:-1]]

    def test_what_is_for_the_other_mount_to_say_is_refused(self) -> None:
        with StorageManager() as storage:
            with pytest.raises(StorageConfigError, match="'ttl': is for the other mount to say"):
                storage.add_mount({'name': 'm', 'type': 'relative', 'path': 'a:', 'ttl': '5m'})
            mounts = [{'name': 'm', 'type': 'relative', 'path': 'a:'}, {'name': 'a', 'type': 'memory'}]
            storage.configure({'defaults': {'ttl': '5m', 'permissions': 'readonly'}, 'mounts': mounts})
            assert storage.volume('m').definition.ttl_s == 300
            assert storage.volume('m').definition.permissions.value == 'readonly'

    def test_a_link_in_a_local_mount_does_not_lead_out(self, tmp_path: Path) -> None:
        (tmp_path / 'shelf').mkdir()
        (tmp_path / 'shelf/out').symlink_to('/etc')
        with StorageManager() as storage:
            storage.add_mount({'name': 'shelf', 'type': 'local', 'path': str(tmp_path / 'shelf')})
            storage.add_mount({'name': 'm', 'type': 'relative', 'path': 'shelf:out'})
            with pytest.raises(StorageError, match='leads out'):
                storage.node('m').children()

    def test_a_node_comes_back_from_a_pickle(self, tmp_path: Path) -> None:
        (tmp_path / 'a').write_text('1')
        with StorageManager() as storage:
            mounts = [
                {'name': 'shelf', 'type': 'local', 'path': str(tmp_path)},
                {'name': 'm', 'type': 'relative', 'path': 'shelf:'},
            ]
            storage.configure(mounts)
            assert pickle.loads(pickle.dumps(storage.node('m:a'))).read_text() == '1'


@pytest.mark.parametrize(
    ('mount', 'privilege'),
    [
        ({'type': 'relative', 'path': 'home:.ssh'}, 'mounts'),
        ({'type': 'zip', 'file': 'home:a.zip'}, 'mounts'),
        ({'type': 'zip', 'file': '/etc/a.zip'}, 'local'),
        ({'type': 'tar', 'file': 'a.tar'}, 'local'),
        ({'type': 'libarchive', 'file': '~/a.7z'}, 'local'),
        ({'type': 'git', 'path': '/srv/git/repo'}, 'local'),
    ],
)
def test_an_untrusted_source_reaches_neither_this_machine_nor_other_mounts(
    mount: dict[str, str], privilege: str
) -> None:
    with StorageManager() as storage:
        with pytest.raises(StorageConfigError, match=f"privilege '{privilege}'"):
            storage.configure(Untrusted([{'name': 'm', **mount}]))
        storage.configure(Untrusted([{'name': 'm', **mount}], allow=[privilege]))
        assert storage.has_mount('m')


def test_an_untrusted_source_may_name_what_reaches_nothing_of_this_machine() -> None:
    with StorageManager() as storage:
        storage.configure(
            Untrusted([{'name': 'g', 'type': 'github', 'org': 'o', 'repo': 'r'}, {'name': 'b', 'type': 'base64'}])
        )
        assert storage.get_mount_names() == ['g', 'b']
