"""Extended attributes of what is in a volume: user metadata, what is told by name, and what setxattr(2) is told."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from genro_storage.backends.memory import MemoryBackend
from genro_storage.backends.object_directories import ObjectDirectories
from genro_storage.cache.blocks import BLOCK_BYTES
from genro_storage.config import Permissions, definition_from_mapping
from genro_storage.config.definitions import Durability
from genro_storage.errors import StorageConfigError, StorageUnavailableError
from genro_storage.mounted import RETRY_ATTRIBUTE
from genro_storage.runtime import WouldBlock
from genro_storage.testing import BytesSource
from tests.unit.buckets import DictRequests
from tests.unit.trees import RemoteTree
from tests.unit.volumes import REMOTE, Thread, serving_thread

DESCRIBED = msgspec.structs.replace(REMOTE, stores_metadata=True)


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of either tree of errors, by its errno
        yield
    assert getattr(raised.value, 'errno', None) == number, raised.value


@pytest.fixture
def tree(tmp_path: Path) -> RemoteTree:
    return RemoteTree(tmp_path, DESCRIBED)


def put(tree: RemoteTree, path: str, data: bytes = b'content', **metadata: str) -> None:
    """Store a file as somebody else would."""
    tree.remote.store.put(path, BytesSource(data), metadata=metadata)


def stored(tree: RemoteTree, path: str) -> dict[str, str]:
    """The user metadata that are stored, past everything that is remembered; without those of stat(2)."""
    found = tree.remote.store.metadata(path)
    return {name: value for name, value in found.items() if name not in {'mtime', 'mode', 'uid', 'gid', 'ctime'}}


# User metadata


def test_user_metadata_are_attributes_of_the_user(tree: RemoteTree) -> None:
    put(tree, 'f', colour='red', **{'with-dash': 'a b'})
    assert tree.listxattr('f') == ['user.colour', 'user.with-dash']
    assert tree.getxattr('f', 'user.colour') == b'red'
    assert tree.getxattr('f', 'user.with-dash') == b'a b'
    with refused(errno.ENODATA):
        tree.getxattr('f', 'user.taste')


def test_what_is_set_is_stored_at_once_beside_all_else(tree: RemoteTree) -> None:
    put(tree, 'f', b'content', colour='red', mode='33188')
    tree.setxattr('f', 'user.taste', b'sweet  and sour')
    tree.setxattr('f', 'user.empty', b'')
    tree.setxattr('f', 'user.colour', b'green')
    assert stored(tree, 'f') == {'colour': 'green', 'taste': 'sweet  and sour', 'empty': ''}
    assert tree.remote.store.metadata('f')['mode'] == '33188'
    assert tree.listxattr('f') == ['user.colour', 'user.empty', 'user.taste']
    tree.removexattr('f', 'user.colour')
    assert stored(tree, 'f') == {'taste': 'sweet  and sour', 'empty': ''}
    assert tree.read('f') == b'content'


def test_what_stat_tells_is_no_attribute(tree: RemoteTree) -> None:
    kept = {'mode': '33188', 'uid': '0', 'gid': '0', 'mtime': '1', 'atime': '1', 'ctime': '1', 'rdev': '1'}
    put(tree, 'f', **kept, **{'genro.etag': 'x', 'hdi_isfolder': 'true'})
    assert tree.listxattr('f') == []
    for name in kept:
        with refused(errno.ENODATA):
            tree.getxattr('f', f'user.{name}')
        with refused(errno.EPERM):
            tree.setxattr('f', f'user.{name}', b'1')
        with refused(errno.EPERM):
            tree.removexattr('f', f'user.{name}')


def test_flags_say_whether_there_may_be_one_before(tree: RemoteTree) -> None:
    put(tree, 'f', colour='red')
    with refused(errno.EEXIST):
        tree.setxattr('f', 'user.colour', b'green', os.XATTR_CREATE)
    with refused(errno.ENODATA):
        tree.setxattr('f', 'user.taste', b'sweet', os.XATTR_REPLACE)
    for flags in (os.XATTR_CREATE | os.XATTR_REPLACE, 4):
        with refused(errno.EINVAL):
            tree.setxattr('f', 'user.colour', b'green', flags)
    with refused(errno.ENODATA):
        tree.removexattr('f', 'user.taste')
    assert stored(tree, 'f') == {'colour': 'red'}
    tree.setxattr('f', 'user.taste', b'sweet', os.XATTR_CREATE)
    tree.setxattr('f', 'user.colour', b'green', os.XATTR_REPLACE)
    assert stored(tree, 'f') == {'colour': 'green', 'taste': 'sweet'}


@pytest.mark.parametrize('name', ['user.', 'user.Colour', 'user.a b', 'user.ä', 'user.a:b', 'user.a/b', 'user.a\nb'])
def test_names_that_no_metadata_can_have_are_not_supported(tree: RemoteTree, name: str) -> None:
    put(tree, 'f')
    with refused(errno.ENOTSUP):
        tree.setxattr('f', name, b'1')


@pytest.mark.parametrize('value', [b'\0', b'a\nb', b' a', b'a ', b'\xff', 'ü'.encode(), b'\x7f'])
def test_values_that_no_metadata_can_have_are_not_supported(tree: RemoteTree, value: bytes) -> None:
    put(tree, 'f')
    with refused(errno.ENOTSUP):
        tree.setxattr('f', 'user.a', value)


@pytest.mark.parametrize('name', ['trusted.a', 'security.selinux', 'system.posix_acl_access', 'a'])
def test_other_namespaces_are_not_supported_and_asked_of_nobody(tree: RemoteTree, name: str) -> None:
    put(tree, 'f')
    tree.inode('f')
    before = tree.requests()
    with refused(errno.ENOTSUP):
        tree.getxattr('f', name)
    with refused(errno.ENOTSUP):
        tree.setxattr('f', name, b'1')
    with refused(errno.ENOTSUP):
        tree.removexattr('f', name)
    assert tree.requests() == before


def test_there_is_room_for_what_s3_takes(tree: RemoteTree) -> None:
    put(tree, 'f')
    with refused(errno.E2BIG):
        tree.setxattr('f', 'user.a', b'x' * 2048)
    tree.setxattr('f', 'user.a', b'x' * 2000)
    with refused(errno.ENOSPC):
        tree.setxattr('f', 'user.b', b'x' * 47)
    tree.setxattr('f', 'user.b', b'x' * 46)
    assert set(stored(tree, 'f')) == {'a', 'b'}


def test_what_others_have_stored_beyond_that_can_still_be_changed(tree: RemoteTree) -> None:
    put(tree, 'f', large='x' * 4000, small='1')
    tree.setxattr('f', 'user.small', b'2')
    assert stored(tree, 'f')['small'] == '2'
    with refused(errno.ENOSPC):
        tree.setxattr('f', 'user.small', b'22')


def test_directories_have_them_too(tree: RemoteTree) -> None:
    put(tree, 'd/f')
    tree.setxattr('d', 'user.colour', b'red')
    assert tree.listxattr('d') == ['user.colour']
    assert stored(tree, 'd') == {'colour': 'red'}


def test_a_readonly_mount_changes_none(tmp_path: Path) -> None:
    tree = RemoteTree(tmp_path, DESCRIBED, permissions=Permissions.READONLY)
    put(tree, 'f', colour='red')
    assert tree.getxattr('f', 'user.colour') == b'red'
    with refused(errno.EROFS):
        tree.setxattr('f', 'user.colour', b'green')
    with refused(errno.EROFS):
        tree.removexattr('f', 'user.colour')


def test_where_no_metadata_are_stored_there_are_none(tmp_path: Path) -> None:
    tree = RemoteTree(tmp_path)
    put(tree, 'f')
    assert tree.listxattr('f') == []
    assert tree.getxattr('f', 'user.genro.state') == b'clean'
    with refused(errno.ENOTSUP):
        tree.getxattr('f', 'user.colour')
    with refused(errno.ENOTSUP):
        tree.setxattr('f', 'user.colour', b'red')
    with refused(errno.ENOTSUP):
        tree.removexattr('f', 'user.colour')


def test_what_was_asked_for_is_believed_as_long_as_the_rest(tree: RemoteTree) -> None:
    put(tree, 'd/f', colour='red')
    assert tree.names('d') == ['f']
    before = tree.requests()
    for _ in range(3):
        assert tree.listxattr('d/f') == ['user.colour']
        assert tree.getxattr('d/f', 'user.colour') == b'red'
    assert tree.requests() == before + 1
    tree.remote.clock.advance(tree.remote.definition.ttl_s)
    put(tree, 'd/f', colour='green')
    assert tree.getxattr('d/f', 'user.colour') == b'green'


def test_those_of_a_whole_directory_are_asked_for_together(tree: RemoteTree) -> None:
    for number in range(100):
        put(tree, f'd/{number:03}', colour=str(number))
    names = tree.names('d')
    before = tree.requests()
    for name in names:
        assert tree.getxattr(f'd/{name}', 'user.colour') == str(int(name)).encode()
    assert tree.requests() - before < 12


def test_one_of_each_directory_is_asked_for_alone(tree: RemoteTree) -> None:
    for directory in ('d', 'e', 'g'):
        for name in ('1', '2', '3'):
            put(tree, f'{directory}/{name}', colour='red')
        tree.names(directory)
    before = tree.requests()
    for directory in ('d', 'e', 'g'):
        tree.listxattr(f'{directory}/1')
    assert tree.requests() == before + 3


# Files under change


def test_what_is_set_on_a_file_under_change_goes_with_its_commit(tree: RemoteTree) -> None:
    file = tree.create('f')
    file.write(0, b'content')
    tree.setxattr('f', 'user.colour', b'red')
    tree.setxattr('f', 'user.taste', b'sweet')
    tree.removexattr('f', 'user.taste')
    assert tree.listxattr('f') == ['user.colour']
    assert tree.remote.names() == []
    tree.close(file)
    assert stored(tree, 'f') == {'colour': 'red'}
    assert tree.remote.backend.calls('put') == 1
    assert tree.remote.backend.calls('set_metadata') == 0


def test_a_file_that_is_written_over_keeps_its_attributes(tree: RemoteTree) -> None:
    put(tree, 'f', colour='red')
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_TRUNC):
        file = tree.open('f', flags)
        file.inode.files.append(file)
        file.write(0, b'other')
        tree.close(file)
        assert stored(tree, 'f') == {'colour': 'red'}
        assert tree.listxattr('f') == ['user.colour']


def test_what_is_set_between_two_commits_of_an_open_file_stays(tree: RemoteTree) -> None:
    file = tree.create('f')
    file.write(0, b'content')
    file.flush()
    tree.setxattr('f', 'user.colour', b'red')
    assert stored(tree, 'f') == {'colour': 'red'}
    file.write(0, b'CONTENT')
    tree.close(file)
    assert stored(tree, 'f') == {'colour': 'red'}
    assert tree.remote.content('f') == b'CONTENT'


def test_what_is_set_on_a_file_that_waits_is_uploaded_with_it(tmp_path: Path) -> None:
    tree = RemoteTree(tmp_path, DESCRIBED, durability=Durability.WRITEBACK, writeback_delay_s=1e6)
    tree.write('f', b'content')
    assert tree.remote.names() == []
    tree.setxattr('f', 'user.colour', b'red')
    assert tree.listxattr('f') == ['user.colour']
    tree.remote.volume.sync('f')
    assert stored(tree, 'f') == {'colour': 'red'}


# What the mount knows


def test_a_file_is_clean_dirty_uploading_and_clean_again(tree: RemoteTree) -> None:
    put(tree, 'd/g')
    assert tree.getxattr('d/g', 'user.genro.state') == b'clean'
    file = tree.create('d/f')
    file.write(0, b'content')
    assert tree.getxattr('d/f', 'user.genro.state') == b'dirty'
    assert tree.getxattr('d', 'user.genro.state') == b'dirty'
    assert tree.getxattr('d/g', 'user.genro.state') == b'clean'
    stall = tree.remote.backend.stall('put')
    closing = Thread(lambda: tree.close(file))
    stall.wait_until_reached()
    assert tree.getxattr('d/f', 'user.genro.state') == b'uploading'
    assert tree.getxattr('d', 'user.genro.state') == b'uploading'
    stall.release()
    closing.result()
    assert tree.getxattr('d/f', 'user.genro.state') == b'clean'
    assert tree.getxattr('', 'user.genro.state') == b'clean'


def test_a_file_that_waits_is_dirty_until_it_is_uploaded(tmp_path: Path) -> None:
    tree = RemoteTree(tmp_path, DESCRIBED, durability=Durability.WRITEBACK, writeback_delay_s=1e6)
    tree.write('f', b'content')
    assert tree.getxattr('f', 'user.genro.state') == b'dirty'
    tree.remote.volume.sync('f')
    assert tree.getxattr('f', 'user.genro.state') == b'clean'


def test_a_file_whose_close_failed_is_in_error_until_it_is_retried(tree: RemoteTree) -> None:
    put(tree, 'f', b'old')
    tree.remote.backend.fail_always('put', StorageUnavailableError('gone'))
    file = tree.open('f', os.O_WRONLY)
    file.inode.files.append(file)
    file.write(0, b'new')
    with pytest.raises(StorageUnavailableError):
        file.flush()
    assert tree.getxattr('f', 'user.genro.state') == b'error'
    file.inode.files.remove(file)
    with pytest.raises(StorageUnavailableError):
        file.release()
    assert tree.getxattr('f', 'user.genro.state') == b'error'
    assert tree.getxattr('', 'user.genro.state') == b'error'
    tree.remote.backend.heal()
    tree.setxattr('f', RETRY_ATTRIBUTE, b'')
    assert tree.getxattr('f', 'user.genro.state') == b'clean'
    assert tree.remote.content('f') == b'new'


def test_bytes_that_are_here_are_counted(tree: RemoteTree) -> None:
    data = os.urandom(3 * BLOCK_BYTES + 100)
    put(tree, 'd/f', data)
    assert tree.getxattr('d/f', 'user.genro.cached') == b'0'
    reader = tree.open('d/f')
    assert reader.read(3 * BLOCK_BYTES + 50, 100)
    assert tree.getxattr('d/f', 'user.genro.cached') == b'100'
    assert reader.read(0, 10)
    assert int(tree.getxattr('d/f', 'user.genro.cached')) >= BLOCK_BYTES + 100
    put(tree, 'empty', b'')
    assert tree.getxattr('empty', 'user.genro.cached') == b'0'
    tree.write('new', b'12345')
    file = tree.create('newer')
    file.write(0, b'12345')
    assert tree.getxattr('newer', 'user.genro.cached') == b'5'
    with refused(errno.ENODATA):
        tree.getxattr('d', 'user.genro.cached')


def test_the_version_is_that_of_the_backend(tree: RemoteTree) -> None:
    put(tree, 'd/f')
    version = tree.remote.store.stat('d/f').version
    assert version is not None
    assert tree.getxattr('d/f', 'user.genro.version') == version.tag.encode()
    tree.create('d/new')
    for path in ('d', 'd/new'):
        with refused(errno.ENODATA):
            tree.getxattr(path, 'user.genro.version')


def test_what_the_mount_knows_is_not_listed_and_cannot_be_set(tree: RemoteTree) -> None:
    put(tree, 'f')
    assert tree.listxattr('f') == []
    for name in ('state', 'cached', 'version', 'etag', 'content_type', 'url', 'anything'):
        with refused(errno.EPERM):
            tree.setxattr('f', f'user.genro.{name}', b'1')
        with refused(errno.EPERM):
            tree.removexattr('f', f'user.genro.{name}')
    for name in ('anything', '', 'retry'):
        with refused(errno.ENODATA):
            tree.getxattr('f', f'user.genro.{name}')


def test_attributes_of_a_directory_are_those_of_its_marker(bucket: RemoteTree) -> None:
    assert bucket.listxattr('d') == []
    bucket.setxattr('d', 'user.colour', b'red')
    requests = bucket.remote.backend.inner._requests  # type: ignore[attr-defined]
    assert requests.described['d/'] == {'colour': 'red'}
    assert requests.stored['d/'] == b''
    assert bucket.listxattr('d') == ['user.colour']
    with refused(errno.ENOTSUP):
        bucket.setxattr('', 'user.colour', b'red')


@pytest.fixture
def bucket(tmp_path: Path) -> RemoteTree:
    tree = RemoteTree(tmp_path, DESCRIBED, urls_s=900.0)
    requests = DictRequests()
    requests.stored['d/f'] = b'content'
    tree.remote.backend.inner = ObjectDirectories(requests)
    return tree


def test_what_a_server_says_of_an_object_is_told(bucket: RemoteTree) -> None:
    tag = bucket.getxattr('d/f', 'user.genro.version').decode()
    assert bucket.getxattr('d/f', 'user.genro.etag') == f'"{tag}"'.encode()
    assert bucket.getxattr('d/f', 'user.genro.content_type') == b'text/x-dict'
    assert bucket.getxattr('d/f', 'user.genro.url') == b'https://dict.test/d/f?valid=900'
    for name in ('etag', 'content_type', 'url'):
        with refused(errno.ENODATA):
            bucket.getxattr('d', f'user.genro.{name}')


def test_a_url_is_made_only_where_the_definition_says_for_how_long(tmp_path: Path) -> None:
    tree = RemoteTree(tmp_path, DESCRIBED)
    put(tree, 'f')
    tree.remote.backend.inner = ObjectDirectories(DictRequests())
    tree.remote.backend.inner._requests.stored['f'] = b'1'  # type: ignore[attr-defined]
    with refused(errno.ENODATA):
        tree.getxattr('f', 'user.genro.url')
    assert tree.remote.backend.calls('url') == 0


@pytest.mark.parametrize(
    ('written', 'valid_s'), [('15m', 900.0), (60, 60.0), ('7d', 604800.0), (None, None), ('', None)]
)
def test_urls_are_valid_for_as_long_as_the_definition_says(written: object, valid_s: float | None) -> None:
    assert definition_from_mapping({'name': 'm', 'type': 's3', 'bucket': 'b', 'urls': written}).urls_s == valid_s


@pytest.mark.parametrize(
    ('key', 'written', 'text'),
    [
        ('urls', '8d', "key 'urls': expected more than zero seconds and at most 7 days"),
        ('urls', 0, "key 'urls': expected a time above zero"),
        ('urls', 'yes', "key 'urls': expected a time such as"),
        ('url', '15m', "did you mean 'urls'?"),
    ],
)
def test_what_is_wrong_with_that_is_told(key: str, written: object, text: str) -> None:
    with pytest.raises(StorageConfigError, match=text):
        definition_from_mapping({'name': 'm', 'type': 's3', 'bucket': 'b', key: written})


def test_a_backend_that_has_no_urls_and_no_headers_says_so(tmp_path: Path) -> None:
    tree = RemoteTree(tmp_path, DESCRIBED, urls_s=900.0)
    put(tree, 'f')
    assert isinstance(tree.remote.store, MemoryBackend)
    with refused(errno.ENOTSUP):
        tree.getxattr('f', 'user.genro.url')
    for name in ('etag', 'content_type'):
        with refused(errno.ENODATA):
            tree.getxattr('f', f'user.genro.{name}')


def test_a_thread_that_serves_leaves_what_must_be_asked_to_others(tree: RemoteTree) -> None:
    put(tree, 'f', colour='red')
    with serving_thread() as call:
        with pytest.raises(WouldBlock):
            call(lambda: tree.listxattr('f'))
        assert tree.listxattr('f') == ['user.colour']
        assert call(lambda: tree.getxattr('f', 'user.colour')) == b'red'
        assert call(lambda: tree.getxattr('f', 'user.genro.state')) == b'clean'
