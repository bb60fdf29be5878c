"""What the API promises of StorageManager and StorageNode, over a local folder, a memory store and a real S3 server."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genro_storage import (
    StorageConfigError,
    StorageConflictError,
    StorageError,
    StorageIsADirectoryError,
    StorageManager,
    StorageNameTooLongError,
    StorageNode,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageReadOnlyError,
    UnknownMountError,
)
from tests.contract.mounts import LARGE, LARGE_BYTES, Mounts, names, tree


class TestManager:
    def test_starts_empty(self) -> None:
        assert StorageManager().get_mount_names() == []

    def test_unknown_mount_raises_a_key_error_that_is_a_not_found_error_and_names_it(self) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'known', 'type': 'memory'}])
        for look in (storage.node, storage.delete_mount, storage.volume):
            with pytest.raises(KeyError, match='unknown') as caught:
                look('unknown')
            assert isinstance(caught.value, StorageNotFoundError)
            assert isinstance(caught.value, UnknownMountError)
            assert 'known' in str(caught.value)

    def test_configurations_add_up_in_their_order(self) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'b', 'type': 'memory'}])
        storage.configure({'mounts': [{'name': 'a', 'type': 'memory'}]})
        storage.add_mount({'name': 'c', 'type': 'memory'})
        assert storage.get_mount_names() == ['b', 'a', 'c']
        assert storage.has_mount('a')
        assert not storage.has_mount('d')

    def test_a_name_that_is_configured_again_replaces_its_mount(self, tmp_path: Path) -> None:
        storage = StorageManager()
        (tmp_path / 'one').mkdir()
        (tmp_path / 'two').mkdir()
        storage.configure([{'name': 'm', 'type': 'local', 'path': str(tmp_path / 'one')}])
        node = storage.node('m:f')
        node.write_bytes(b'1')
        storage.configure([{'name': 'm', 'type': 'local', 'path': str(tmp_path / 'two')}])
        assert not node.exists
        node.write_bytes(b'2')
        assert (tmp_path / 'one' / 'f').read_bytes() == b'1'
        assert (tmp_path / 'two' / 'f').read_bytes() == b'2'
        assert storage.get_mount_names() == ['m']

    @pytest.mark.parametrize(
        'bad',
        [
            {'name': 'new', 'type': 'nothing'},
            {'name': 'new', 'type': 'local'},
            {'name': 'm', 'type': 'memory', 'colour': 'red'},
            {'name': '.hidden', 'type': 'memory'},
            {'name': 'new', 'type': 'fsspec', 'protocol': 'memory', 'path': '..'},
        ],
    )
    def test_a_bad_definition_changes_nothing(self, tmp_path: Path, bad: dict[str, str]) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'm', 'type': 'memory'}])
        storage.node('m:f').write_bytes(b'kept')
        with pytest.raises(StorageConfigError):
            storage.configure({'mounts': [{'name': 'other', 'type': 'memory'}, bad], 'cache': {'path': str(tmp_path)}})
        assert storage.get_mount_names() == ['m']
        assert storage.node('m:f').read_bytes() == b'kept'

    def test_a_definition_that_no_backend_serves_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from genro_storage.backends import registry
        from genro_storage.config import MemoryDefinition

        storage = StorageManager()
        storage.configure({'mounts': [{'name': 'm', 'type': 'memory'}], 'cache': {'memory': '1MiB'}})
        cache, settings = storage._caches, storage._settings
        monkeypatch.delitem(registry._FACTORIES, MemoryDefinition)
        with pytest.raises(StorageConfigError, match='second'):
            storage.configure(
                {
                    'mounts': [
                        {'name': 'm', 'type': 'local', 'path': str(tmp_path)},
                        {'name': 'second', 'type': 'memory'},
                    ],
                    'cache': {'memory': '2MiB'},
                }
            )
        assert storage.volume('m').definition.type == 'memory'
        assert (storage._caches, storage._settings) == (cache, settings)

    def test_the_same_cache_settings_again_keep_the_one_cache(self) -> None:
        storage = StorageManager()
        storage.configure({'mounts': [{'name': 'a', 'type': 'memory'}], 'cache': {'memory': '1MiB'}})
        cache = storage._caches
        storage.configure({'mounts': [{'name': 'b', 'type': 'memory'}], 'cache': {'memory': '1MiB'}})
        assert storage._caches is cache

    def test_sources_of_wrong_kinds_and_missing_files(self, tmp_path: Path) -> None:
        storage = StorageManager()
        with pytest.raises(FileNotFoundError, match=r'missing\.yaml'):
            storage.configure(tmp_path / 'missing.yaml')
        with pytest.raises(TypeError):
            storage.configure(42)  # type: ignore[arg-type]

    @pytest.mark.parametrize('kind_of_source', ['yaml', 'json', 'list', 'mapping', 'function'])
    def test_every_kind_of_source(self, tmp_path: Path, kind_of_source: str) -> None:
        definitions = [{'name': 'm', 'type': 'memory'}]
        yaml = tmp_path / 'mounts.yaml'
        yaml.write_text('- {name: m, type: memory}\n')
        json = tmp_path / 'mounts.json'
        json.write_text('{"mounts": [{"name": "m", "type": "memory"}]}')
        source: Any = {
            'yaml': str(yaml),
            'json': json,
            'list': definitions,
            'mapping': {'mounts': definitions},
            'function': lambda: {'mounts': definitions},
        }[kind_of_source]
        storage = StorageManager()
        storage.configure(source)
        assert storage.get_mount_names() == ['m']

    def test_delete_mount_forgets_the_mount_and_leaves_the_files(self, tmp_path: Path) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'm', 'type': 'local', 'path': str(tmp_path)}])
        node = storage.node('m:f')
        node.write_bytes(b'1')
        storage.delete_mount('m')
        assert not storage.has_mount('m')
        with pytest.raises(UnknownMountError):
            _ = node.exists
        assert (tmp_path / 'f').read_bytes() == b'1'

    def test_memory_mounts_are_private(self) -> None:
        one, two = StorageManager(), StorageManager()
        for storage in (one, two):
            storage.configure([{'name': 'a', 'type': 'memory'}, {'name': 'b', 'type': 'memory'}])
        one.node('a:f').write_bytes(b'1')
        assert not one.node('b:f').exists
        assert not two.node('a:f').exists

    def test_the_repr_names_the_mounts_and_no_secret(self, mounts: Mounts) -> None:
        shown = repr(mounts.storage) + repr(mounts.storage.volume('s3')) + repr(mounts.storage.volume('s3').definition)
        assert 'local' in shown
        assert mounts.server.secret not in shown

    def test_close_commits_nothing_that_is_private_and_empties_the_manager(self, tmp_path: Path) -> None:
        with StorageManager() as storage:
            storage.configure([{'name': 'm', 'type': 'local', 'path': str(tmp_path)}])
            storage.node('m:f').write_bytes(b'1')
        assert storage.get_mount_names() == []


class TestPaths:
    @pytest.mark.parametrize(
        ('arguments', 'fullpath'),
        [
            (('m:path/to/file',), 'm:path/to/file'),
            (('m', 'path', 'to', 'file'), 'm:path/to/file'),
            (('m:path', 'to', 'file'), 'm:path/to/file'),
            (('m',), 'm:'),
            (('m:',), 'm:'),
            (('m:/',), 'm:'),
            (('m:///path//to///file//',), 'm:path/to/file'),
            (('m:./path/./to/.',), 'm:path/to'),
            (('m', '/path/', '/to/'), 'm:path/to'),
            (('m', '', '.'), 'm:'),
            (('m:a:b', 'c:d'), 'm:a:b/c:d'),
            (('m:...',), 'm:...'),
            (('m:..a/b..',), 'm:..a/b..'),
        ],
    )
    def test_ways_to_name_a_node(self, arguments: tuple[str, ...], fullpath: str) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'm', 'type': 'memory'}])
        assert storage.node(*arguments).fullpath == fullpath

    @pytest.mark.parametrize('path', ['..', '../secret', 'a/../b', 'a/..', '/..', './..', 'a//../b', 'a\0b'])
    def test_what_would_leave_the_mount_is_refused_wherever_a_path_can_enter(self, path: str, tmp_path: Path) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'm', 'type': 'memory'}])
        node = storage.node('m:f')
        node.write_bytes(b'1')
        enter: list[Callable[[], object]] = [
            lambda: storage.node(f'm:{path}'),
            lambda: storage.node('m', path),
            lambda: storage.node('m:dir', path),
            lambda: storage.node('m:dir').child(path),
            lambda: storage.node('m:dir') / path,
            lambda: node.copy(f'm:{path}'),
            lambda: node.move(f'm:{path}'),
            lambda: storage.add_mount({'name': 'l', 'type': 'local', 'path': f'{tmp_path}/{path}'}),
            lambda: storage.add_mount({'name': 's', 'type': 's3', 'bucket': 'b', 'prefix': path}),
        ]
        for attempt in enter:
            with pytest.raises(ValueError):  # noqa: PT011 - each says it in its own words
                attempt()
        assert names(storage.node('m')) == ['f']

    def test_regression_a_child_cannot_climb_into_a_sibling(self) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'public', 'type': 'memory'}, {'name': 'secret', 'type': 'memory'}])
        storage.node('secret:k').write_bytes(b'1')
        with pytest.raises(ValueError, match=r'"\.\."'):
            storage.node('public').child('../secret/k')

    @pytest.mark.parametrize('text', ['', ':', ':path'])
    def test_a_path_without_a_mount_is_refused(self, text: str) -> None:
        with pytest.raises(StoragePathError):
            StorageManager().node(text)

    def test_slashes_around_the_name_of_a_child_go(self, root: StorageNode) -> None:
        assert root.child('/a/').child('b//') == root / 'a' / 'b' == root.child('a/b')
        assert root.child('') == root

    @pytest.mark.parametrize(
        ('path', 'basename', 'stem', 'suffix', 'parent'),
        [
            ('documents/report.pdf', 'report.pdf', 'report', '.pdf', 'documents'),
            ('a.tar.gz', 'a.tar.gz', 'a.tar', '.gz', ''),
            ('.hidden', '.hidden', '.hidden', '', ''),
            ('plain', 'plain', 'plain', '', ''),
            ('a/b/c', 'c', 'c', '', 'a/b'),
            ('', '', '', '', ''),
        ],
    )
    def test_names_of_a_node(self, path: str, basename: str, stem: str, suffix: str, parent: str) -> None:
        storage = StorageManager()
        storage.configure([{'name': 'home', 'type': 'memory'}])
        node = storage.node('home', path)
        assert (node.fullpath, str(node)) == (f'home:{path}', f'home:{path}')
        assert (node.path, node.mount) == (path, 'home')
        assert (node.basename, node.stem, node.suffix) == (basename, stem, suffix)
        assert node.parent == storage.node('home', parent)
        assert repr(node) == f'StorageNode({node.fullpath!r})'

    def test_nodes_compare_and_hash_by_manager_and_full_path(self) -> None:
        one, two = StorageManager(), StorageManager()
        for storage in (one, two):
            storage.configure([{'name': 'a', 'type': 'memory'}, {'name': 'b', 'type': 'memory'}])
        assert one.node('a:x/y') == one.node('a', 'x', '/y/')
        assert len({one.node('a:x/y'), one.node('a:x//y'), one.node('b:x/y'), two.node('a:x/y')}) == 3
        assert one.node('a:x') != one.node('b:x')
        assert one.node('a:x') != two.node('a:x')
        assert one.node('a:x') != 'a:x'


class TestNames:
    @pytest.mark.parametrize(
        'name',
        [
            'new\nline',
            'n' * 255,
            'é' * 127,
            'e\u0301',
            'ünï/cødé/日本語/🎉',
            ' spaces ',
            '%2e%2e',
            'a+b&c=d?#',
            '\'"',
        ],
    )
    def test_names_that_work_everywhere(self, root: StorageNode, name: str) -> None:
        node = root / 'names' / name
        node.write_text(name)
        assert node.read_text() == name
        assert node.parent.children() == [node]
        node.delete()
        assert not node.exists

    @pytest.mark.parametrize('name', ['n' * 256, 'é' * 128, 'a/' * 2049])
    def test_names_and_paths_that_are_too_long(self, root: StorageNode, name: str) -> None:
        with pytest.raises(StorageNameTooLongError):
            root.child(name)

    def test_names_that_are_not_utf8_work_or_are_refused_as_paths(self, root: StorageNode) -> None:
        node = root / 'dir' / os.fsdecode(b'caf\xe9')
        try:
            node.write_bytes(b'1')
        except StoragePathError:
            assert not root.child('dir').exists
            for refused in (lambda: node.exists, node.delete, node.mkdir, node.read_bytes):
                with pytest.raises(StoragePathError):
                    refused()
        else:
            assert node.read_bytes() == b'1'
            assert node.parent.children() == [node]
            node.delete()
            assert not node.exists


class TestProperties:
    def test_of_a_file(self, root: StorageNode) -> None:
        node = root / 'dir' / 'file.txt'
        before = time.time()
        node.write_bytes(b'12345')
        after = time.time()
        assert node.exists is True
        assert node.isfile is True
        assert node.isdir is False
        assert node.size == 5
        assert isinstance(node.mtime, float)
        assert before - 2 <= node.mtime <= after + 2  # S3 has whole seconds

    def test_of_a_directory(self, root: StorageNode) -> None:
        (root / 'dir' / 'f').write_bytes(b'1')
        for node in (root, root / 'dir'):
            assert (node.exists, node.isfile, node.isdir) == (True, False, True)
            with pytest.raises(StorageIsADirectoryError):
                _ = node.size
            assert isinstance(node.mtime, float)

    def test_of_nothing(self, root: StorageNode) -> None:
        for node in (root / 'nothing', root / 'no' / 'thing'):
            assert (node.exists, node.isfile, node.isdir) == (False, False, False)
            with pytest.raises(StorageNotFoundError):
                _ = node.size
            with pytest.raises(FileNotFoundError):
                _ = node.mtime

    def test_nothing_is_below_a_file(self, root: StorageNode) -> None:
        (root / 'f').write_bytes(b'1')
        assert not (root / 'f' / 'x').exists

    def test_regression_the_mtime_is_real_and_stays(self, mounts: Mounts, root: StorageNode, kind: str) -> None:
        node = root / 'f'
        node.write_bytes(b'1')
        first = node.mtime
        assert [node.mtime for _ in range(3)] == [first] * 3
        assert (mounts.again(kind) / 'f').mtime == first

    def test_the_mtime_of_a_local_file_is_the_one_on_disk(self, mounts: Mounts) -> None:
        node = mounts.root('local') / 'f'
        file = mounts.folder / node.path
        file.write_bytes(b'1')
        for mtime_ns in (1_500_000_000_250_000_000, 1_700_000_000_123_456_789, -500_000_000):
            os.utime(file, ns=(1, mtime_ns))
            assert node.mtime == os.path.getmtime(file)

    def test_the_mtime_of_a_directory_does_not_change_when_it_is_asked_for_anew(
        self, mounts: Mounts, root: StorageNode, kind: str
    ) -> None:
        node = root / 'dir'
        node.mkdir()
        assert node.mtime == (mounts.again(kind) / 'dir').mtime

    def test_a_backend_that_cannot_be_asked_is_not_an_absence(self, mounts: Mounts) -> None:
        from tests.servers import free_ports

        (port,) = free_ports(1)
        mounts.storage.add_mount(
            mounts.definition('s3', name='dead', endpoint_url=f'http://127.0.0.1:{port}', timeout='1s')
        )
        for look in (lambda node: node.exists, lambda node: node.isfile, lambda node: node.children()):
            with pytest.raises(StorageError) as caught:
                look(mounts.storage.node('dead:f'))
            assert not isinstance(caught.value, FileNotFoundError)

    def test_a_bucket_that_is_missing_is_named(self, mounts: Mounts) -> None:
        mounts.storage.add_mount(mounts.definition('s3', name='none', bucket='no-such-bucket-here'))
        with pytest.raises(StorageError, match='no-such-bucket-here'):
            mounts.storage.node('none:f').write_bytes(b'1')


class TestPermissions:
    @pytest.fixture
    def limited(self, mounts: Mounts, root: StorageNode, kind: str) -> Callable[[str], StorageNode]:
        (root / 'f').write_bytes(b'data')
        (root / 'dir' / 'g').write_bytes(b'1')
        return lambda permissions: mounts.again(kind, f'-{permissions}')

    def test_readonly_can_be_read(self, mounts: Mounts, limited: Callable[[str], StorageNode]) -> None:
        node = limited('readonly')
        assert names(node) == ['dir', 'f']
        assert (node / 'f').read_bytes() == b'data'
        with (node / 'f').open('r') as file:
            assert file.read() == 'data'
        assert (node / 'f').copy(mounts.root('memory') / 'copied').read_bytes() == b'data'
        assert node.child('nothing').exists is False

    def test_readonly_refuses_all_changes(
        self, mounts: Mounts, root: StorageNode, limited: Callable[[str], StorageNode]
    ) -> None:
        node = limited('readonly')
        elsewhere = mounts.root('memory') / 'elsewhere'
        source = elsewhere / 'source'
        source.write_bytes(b'1')
        before = tree(root)
        changes: list[Callable[[], object]] = [
            *(lambda mode=mode: (node / 'f').open(mode) for mode in ('w', 'wb', 'a', 'ab', 'r+', 'r+b')),  # type: ignore[misc]
            *(lambda mode=mode: (node / 'new').open(mode) for mode in ('w', 'wb', 'a', 'ab', 'x', 'xb')),  # type: ignore[misc]
            lambda: (node / 'f').write_bytes(b'2'),
            lambda: (node / 'f').write_text('2'),
            (node / 'f').delete,
            (node / 'dir').delete,
            (node / 'new').mkdir,
            lambda: (node / 'new' / 'sub').mkdir(parents=True),
            lambda: source.copy(node / 'new'),
            lambda: source.move(node / 'new'),
            lambda: (node / 'f').move(node / 'new'),
            lambda: (node / 'f').copy(node / 'new'),
            lambda: (node / 'dir').copy(node / 'new'),
            lambda: (node / 'f').move(elsewhere / 'away'),
            lambda: (node / 'dir').move(elsewhere / 'away'),
        ]
        for change in changes:
            with pytest.raises(StorageReadOnlyError, match='readonly'):
                change()
        assert tree(root) == before
        assert source.read_bytes() == b'1'

    def test_readwrite_writes_and_replaces(self, limited: Callable[[str], StorageNode]) -> None:
        node = limited('readwrite')
        (node / 'f').write_bytes(b'new')
        (node / 'sub').mkdir()
        (node / 'f').copy(node / 'sub' / 'h')
        with (node / 'f').open('ab') as file:
            file.write(b'er')
        assert (node / 'f').read_bytes() == b'newer'

    def test_readwrite_refuses_what_removes_and_does_nothing_of_it(
        self, mounts: Mounts, root: StorageNode, limited: Callable[[str], StorageNode]
    ) -> None:
        node = limited('readwrite')
        elsewhere = mounts.root('memory') / 'elsewhere'
        before = tree(root)
        changes: list[Callable[[], object]] = [
            (node / 'f').delete,
            (node / 'dir').delete,
            lambda: (node / 'f').move(node / 'made' / 'new'),
            lambda: (node / 'dir').move(node / 'made' / 'new'),
            lambda: (node / 'f').move(elsewhere / 'f'),
            lambda: (node / 'dir').move(elsewhere / 'dir'),
        ]
        for change in changes:
            with pytest.raises(StoragePermissionError, match='readwrite'):
                change()
        assert tree(root) == before
        assert not elsewhere.exists

    def test_deleting_nothing_is_no_change(self, limited: Callable[[str], StorageNode]) -> None:
        limited('readwrite').child('nothing').delete()


class TestFreshness:
    """Two mounts of one bucket stand for two machines."""

    def test_what_somebody_else_has_replaced_can_be_read_at_once(self, mounts: Mounts) -> None:
        node = mounts.root('s3') / 'f'
        node.write_bytes(b'old')
        assert node.size == 3
        elsewhere = mounts.again('s3')
        # Of what is listed no look brings bytes, into the cache that both share here.
        assert [child.basename for child in elsewhere.children()] == ['f']
        (elsewhere / 'f').write_bytes(b'newer')
        assert node.read_bytes() == b'newer'
        assert node.size == 5

    def test_a_reader_that_has_begun_sees_one_version(self, mounts: Mounts) -> None:
        node = mounts.root('s3') / 'f'
        node.write_bytes(LARGE)
        with node.open('rb') as file:
            assert file.read(10) == LARGE[:10]
            (mounts.again('s3') / 'f').write_bytes(LARGE[::-1])
            file.seek(LARGE_BYTES - 10)
            try:
                seen = file.read()
            except StorageConflictError:
                seen = LARGE[-10:]
            assert seen == LARGE[-10:]
        assert (mounts.again('s3') / 'f').read_bytes() == LARGE[::-1]

    def test_changes_are_seen_at_once_by_all_who_share_the_mount(self, root: StorageNode) -> None:
        node = root / 'dir' / 'f'
        for content in (b'1', b'22'):
            node.write_bytes(content)
            assert node.size == len(content)
            assert names(root / 'dir') == ['f']
            node.delete()
            assert not node.exists
            assert names(root / 'dir') == []
