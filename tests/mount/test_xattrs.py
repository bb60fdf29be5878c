"""Extended attributes through the kernel, with the programs that copy them, on a bucket and in memory."""

import os
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_storage.cache.blocks import BLOCK_BYTES
from tests.machine import lacks
from tests.mount.mounted import Mounted, await_true, mounted, run, s3_definition
from tests.mount.places import Place
from tests.servers import S3Server


@pytest.fixture(autouse=True, scope='module')
def _programs() -> None:
    for program in ('getfattr', 'setfattr'):
        if run('which', program).returncode:
            lacks(f'{program} is missing: install the Debian package attr')


def metadata(place: Place, server: S3Server, name: str) -> dict[str, str]:
    """User metadata of an object as the server has them; in memory, as the mount tells them."""
    if place.kind == 'bucket':
        found = server.request('head_object', Bucket=place.tree.bucket, Key=f'{place.name}/{name}')['Metadata']
        return {key: value for key, value in found.items() if key != 'mtime'}
    return attributes(place, name)


def attributes(place: Place, name: str) -> dict[str, str]:
    """The attributes that getfattr(1) lists of a file."""
    lines = [line for line in place.sh(f"getfattr -d '{name}'").splitlines() if '=' in line]
    pairs = [line.partition('=') for line in lines]
    return {key.removeprefix('user.'): value.strip('"') for key, _, value in pairs}


def told(place: Place, name: str, attribute: str) -> str:
    """An attribute that is told by name."""
    return place.sh(f'getfattr --only-values -n user.genro.{attribute} {name}')


def test_attributes_are_set_listed_changed_and_removed(store: Place, s3_server: S3Server) -> None:
    store.sh('echo content > f; setfattr -n user.colour -v red f; setfattr -n user.a.b -v "sweet  and sour" f')
    assert metadata(store, s3_server, 'f') == {'colour': 'red', 'a.b': 'sweet  and sour'}
    assert attributes(store, 'f') == {'colour': 'red', 'a.b': 'sweet  and sour'}
    store.sh('setfattr -n user.colour -v green f; setfattr -x user.a.b f')
    assert metadata(store, s3_server, 'f') == {'colour': 'green'}
    assert store.sh('cat f') == 'content\n'


@pytest.fixture
def theirs(everything: Mounted, s3_server: S3Server) -> Callable[..., Place]:
    """A file that somebody else has stored, in a directory of which nobody here knows anything."""

    def store(**described: Any) -> Place:
        name = f'theirs-{uuid.uuid4().hex}'
        s3_server.request('put_object', Bucket=everything.bucket, Key=f'{name}/f', **described)
        place = Place(everything, s3_server, 'bucket')
        place.name, place.path = name, everything.path('bucket', name)
        return place

    return store


def test_metadata_that_others_have_stored_are_attributes(theirs: Callable[..., Place]) -> None:
    place = theirs(Body=b'content', Metadata={'Colour': 'red', 'mode': '33188', 'uid': '0'})
    assert attributes(place, 'f') == {'colour': 'red'}
    assert place.sh('getfattr --only-values -n user.colour f') == 'red'


# SeaweedFS, the server of these tests, keeps no metadata of a key that ends with a slash.
def test_directories_have_attributes(everything: Mounted, s3_server: S3Server) -> None:
    memory = Place(everything, s3_server, 'memory')
    memory.sh('mkdir d; setfattr -n user.colour -v red d')
    assert attributes(memory, 'd') == {'colour': 'red'}


def test_what_cannot_be_is_told_with_the_right_word(store: Place) -> None:
    store.sh('touch f; setfattr -n user.a -v 1 f')
    python = (
        'import os, errno\n'
        'def word(call, *arguments):\n'
        '    try:\n'
        '        call("f", *arguments)\n'
        '    except OSError as error:\n'
        '        print(errno.errorcode[error.errno])\n'
        '    else:\n'
        '        print("OK")\n'
        'word(os.setxattr, "user.a", b"2", os.XATTR_CREATE)\n'
        'word(os.setxattr, "user.b", b"2", os.XATTR_REPLACE)\n'
        'word(os.removexattr, "user.b")\n'
        'word(os.getxattr, "user.b")\n'
        'word(os.setxattr, "user.A", b"1")\n'
        'word(os.setxattr, "user.a", b"\\xff")\n'
        'word(os.setxattr, "user.a", b"x" * 4000)\n'
        'word(os.setxattr, "trusted.a", b"1")\n'
        'word(os.getxattr, "trusted.a")\n'
        'word(os.setxattr, "user.genro.state", b"1")\n'
        'word(os.setxattr, "user.mode", b"1")\n'
        'word(os.setxattr, "user.a", b"")\n'
    )
    words = store.tree.run('python3', '-c', python, cwd=store.path).split()
    assert words == [
        *('EEXIST', 'ENODATA', 'ENODATA', 'ENODATA'),
        *('ENOTSUP', 'ENOTSUP', 'E2BIG'),
        *('ENOTSUP', 'ENOTSUP', 'EPERM', 'EPERM', 'OK'),
    ]


def test_a_buffer_that_is_too_small_is_erange(store: Place) -> None:
    store.sh('touch f; setfattr -n user.colour -v red f')
    python = (
        'import ctypes, errno\n'
        'libc = ctypes.CDLL(None, use_errno=True)\n'
        'room = ctypes.create_string_buffer(100)\n'
        'def ask(function, *arguments):\n'
        '    found = getattr(libc, function)(b"f", *arguments)\n'
        '    print(found if found >= 0 else errno.errorcode[ctypes.get_errno()])\n'
        'for size in (0, 2, 3):\n'
        '    ask("getxattr", b"user.colour", room, size)\n'
        'for size in (0, 11, 12):\n'
        '    ask("listxattr", room, size)\n'
    )
    assert store.tree.run('python3', '-c', python, cwd=store.path).split() == ['3', 'ERANGE', '3', '12', 'ERANGE', '12']


def test_copies_keep_attributes_and_take_none_of_ours(store: Place, s3_server: S3Server, tmp_path: Path) -> None:
    source = tmp_path / 'source'
    source.mkdir()
    (source / 'f').write_text('content')
    os.setxattr(source / 'f', 'user.colour', b'red')
    store.tree.run('cp', '-a', source, store.path / 'tree')
    assert metadata(store, s3_server, 'tree/f') == {'colour': 'red'}
    store.sh('cp -a tree copied')
    assert attributes(store, 'copied/f') == {'colour': 'red'}
    store.tree.run('cp', '-a', store.path / 'tree', tmp_path / 'back')
    assert {name: os.getxattr(tmp_path / 'back/f', name) for name in os.listxattr(tmp_path / 'back/f')} == {
        'user.colour': b'red'
    }


def test_archives_keep_attributes(store: Place, s3_server: S3Server) -> None:
    store.sh('mkdir d out; echo content > d/f; setfattr -n user.colour -v red d/f')
    store.sh(
        "tar --xattrs --xattrs-include='user.*' -cf a.tar d; tar --xattrs --xattrs-include='user.*' -xf a.tar -C out"
    )
    assert metadata(store, s3_server, 'out/d/f') == {'colour': 'red'}
    assert 'genro' not in store.sh('cat a.tar')


def test_a_file_that_is_written_over_renamed_and_copied_keeps_its_attributes(store: Place, s3_server: S3Server) -> None:
    store.sh('echo one > f; setfattr -n user.colour -v red f; echo two >> f; echo three > f; mv f g')
    assert metadata(store, s3_server, 'g') == {'colour': 'red'}
    assert store.sh('cat g') == 'three\n'


def test_an_attribute_changes_no_time_of_the_bytes(store: Place) -> None:
    store.sh('echo content > f; echo content > g; touch -d 2001-02-03 g')
    before = store.sh('stat -c %.Y f g')
    now = time.time()
    # The server's clock has whole seconds.
    await_true(lambda: time.time() - now > 1.0)
    store.sh('setfattr -n user.colour -v red f; setfattr -n user.colour -v red g; ls > /dev/null')
    assert store.sh('stat -c %.Y f g') == before


def test_the_state_of_a_file_and_of_all_below_a_directory(store: Place) -> None:
    store.sh('mkdir d; echo content > d/f')
    assert (told(store, 'd/f', 'state'), told(store, 'd', 'state')) == ('clean', 'clean')
    # In one process: the end of another one closes what it has inherited, and that is a close too.
    python = (
        'import os\n'
        'with open("d/g", "wb", buffering=0) as file:\n'
        '    file.write(b"content")\n'
        '    print(*(os.getxattr(path, "user.genro.state").decode() for path in ("d/g", "d")))\n'
    )
    assert store.tree.run('python3', '-c', python, cwd=store.path).split() == ['dirty', 'dirty']
    assert told(store, 'd/g', 'state') == 'clean'
    assert store.sh('getfattr -d d/f d') == ''


def test_what_a_bucket_says_of_an_object(theirs: Callable[..., Place], s3_server: S3Server) -> None:
    place = theirs(Body=os.urandom(1 << 20), ContentType='text/x-f')
    etag = s3_server.request('head_object', Bucket=place.tree.bucket, Key=f'{place.name}/f')['ETag']
    assert told(place, 'f', 'etag') == etag
    assert told(place, 'f', 'version') == etag.strip('"')
    assert told(place, 'f', 'content_type') == 'text/x-f'
    # The first block came with the look at it.
    assert told(place, 'f', 'cached') == str(BLOCK_BYTES)
    place.sh('cat f > /dev/null')
    assert told(place, 'f', 'cached') == str(1 << 20)
    assert 'No such attribute' in place.fails('getfattr -n user.genro.url f')


@pytest.fixture
def lending(tmp_path: Path, s3_server: S3Server) -> Iterator[Mounted]:
    """A bucket whose definition allows URLs."""
    bucket = s3_server.new_bucket()
    with mounted(tmp_path, [s3_definition(s3_server, bucket, urls='1m')]) as tree:
        tree.bucket = bucket
        yield tree


def test_a_url_where_the_definition_allows_it(lending: Mounted) -> None:
    lending.sh('echo content > "a b"', cwd=lending.path('bucket'))
    url = lending.run('getfattr', '--only-values', '-n', 'user.genro.url', lending.path('bucket', 'a b'))
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b'content\n'
    assert 'X-Amz-Expires=60' in url
    assert url not in lending.log_text
