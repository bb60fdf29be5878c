"""The file system without a kernel: what is the same for every tree, and what the kernel must be told about inodes."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from fusefs import ops
from fusefs.filesystem import FileSystem
from fusefs.trees.local_file import MAX_COPIED_BYTES
from fusefs.trees.local_syscalls import fallocate
from genro_storage import StorageManager
from genro_storage.errors import StorageIOError
from genro_storage.runtime import WouldBlock, serve_without_blocking
from genro_storage.testing.faulty import FaultyBackend

READ, WRITE = os.O_RDONLY, os.O_WRONLY


def header(nodeid: int) -> tuple[int, int, int, int, int]:
    return 1, nodeid, os.geteuid(), os.getegid(), os.getpid()


class Fixture:
    """A memory mount, a local one and one that is readonly."""

    def __init__(self, storage: StorageManager, folder: Path) -> None:
        self.storage = storage
        self.folder = folder
        self.filesystem = FileSystem(storage)

    def ask(self, request: ops.Request) -> ops.Reply:
        return self.filesystem.operations[type(request)](request)

    def find(self, *names: str) -> ops.EntryReply:
        reply = ops.EntryReply(ops.ROOT_NODEID, None, 0.0, 0.0)
        for name in names:
            found = self.ask(ops.Lookup(*header(reply.nodeid), name))
            assert isinstance(found, ops.EntryReply)
            reply = found
        return reply

    def open(self, nodeid: int, flags: int = READ) -> int:
        reply = self.ask(ops.Open(*header(nodeid), flags))
        assert isinstance(reply, ops.Opened)
        return reply.fh

    def create(self, parent: int, name: str) -> tuple[int, int]:
        reply = self.ask(ops.Create(*header(parent), name, os.O_RDWR | os.O_CREAT, 0o100600, 0))
        assert isinstance(reply, ops.Created)
        return reply.entry.nodeid, reply.opened.fh

    def read(self, nodeid: int, fh: int) -> bytes:
        return bytes(self.ask(ops.Read(*header(nodeid), fh, 0, 1 << 16, 0)))  # type: ignore[arg-type]

    def write(self, nodeid: int, fh: int, data: bytes) -> None:
        self.ask(ops.Write(*header(nodeid), fh, 0, data, 0, False))

    def release(self, nodeid: int, fh: int) -> None:
        self.ask(ops.Flush(*header(nodeid), fh, 0))
        self.ask(ops.Release(*header(nodeid), fh, False))

    def attributes(self, nodeid: int) -> ops.Attributes:
        reply = self.ask(ops.Getattr(*header(nodeid), None))
        assert isinstance(reply, ops.AttributesReply)
        return reply.attributes


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    folder = tmp_path / 'local'
    folder.mkdir()
    with StorageManager() as storage:
        storage.configure(
            [
                {'name': 'memory', 'type': 'memory'},
                {'name': 'local', 'type': 'local', 'path': str(folder)},
                {'name': 'fixed', 'type': 'local', 'path': str(folder), 'permissions': 'readonly'},
                {'name': 'kept', 'type': 'memory', 'permissions': 'readwrite'},
            ]
        )
        fixture = Fixture(storage, folder)
        yield fixture
        fixture.filesystem.close()


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of either tree of errors
        yield
    assert getattr(raised.value, 'errno', None) == number, raised.value


# The root and what is between mounts


def test_the_root_shows_the_mounts_and_nothing_can_be_changed_in_it(fixture: Fixture) -> None:
    fh = fixture.ask(ops.Opendir(*header(1), 0)).fh  # type: ignore[union-attr]
    listing = fixture.ask(ops.Readdir(*header(1), fh, 0, 4096, False))
    assert isinstance(listing, ops.Listing)
    assert [entry.name for entry in listing.entries] == ['.', '..', 'memory', 'local', 'fixed', 'kept']
    with refused(errno.EROFS):
        fixture.ask(ops.Mkdir(*header(1), 'more', 0o700, 0))
    with refused(errno.EROFS):
        fixture.ask(ops.Create(*header(1), 'f', WRITE, 0o600, 0))
    with refused(errno.EROFS):
        fixture.ask(ops.Rmdir(*header(1), 'memory'))
    with refused(errno.EROFS):
        fixture.ask(ops.Rename(*header(1), 'memory', 1, 'other', 0))
    with refused(errno.ENOENT):
        fixture.find('nothing')


def test_the_root_tells_who_serves_it_to_who_asks_by_name(fixture: Fixture) -> None:
    assert fixture.ask(ops.Getxattr(*header(1), 'user.genro.pid', 64)) == str(os.getpid()).encode()
    assert fixture.ask(ops.Listxattr(*header(1), 0)) == ops.XattrSize(0)


def test_a_rename_or_link_across_mounts_is_exdev(fixture: Fixture) -> None:
    memory, local = fixture.find('memory').nodeid, fixture.find('local').nodeid
    nodeid, fh = fixture.create(memory, 'f')
    fixture.release(nodeid, fh)
    with refused(errno.EXDEV):
        fixture.ask(ops.Rename(*header(memory), 'f', local, 'f', 0))
    with refused(errno.EXDEV):
        fixture.ask(ops.Link(*header(local), nodeid, 'f'))


# Permissions of a mount


def test_a_readonly_mount_refuses_every_change(fixture: Fixture) -> None:
    (fixture.folder / 'f').write_bytes(b'f')
    fixed, file = fixture.find('fixed').nodeid, fixture.find('fixed', 'f').nodeid
    nothing = (None,) * 6
    changes: list[ops.Request] = [
        ops.Open(*header(file), WRITE),
        ops.Open(*header(file), READ | os.O_TRUNC),
        ops.Create(*header(fixed), 'g', WRITE, 0o600, 0),
        ops.Mkdir(*header(fixed), 'd', 0o700, 0),
        ops.Symlink(*header(fixed), 'l', 'f'),
        ops.Mknod(*header(fixed), 'p', stat.S_IFIFO, 0, 0),
        ops.Link(*header(fixed), file, 'l'),
        ops.Unlink(*header(fixed), 'f'),
        ops.Rmdir(*header(fixed), 'd'),
        ops.Rename(*header(fixed), 'f', fixed, 'g', 0),
        ops.Setattr(*header(file), None, 0o777, *nothing[:5], False),
        ops.Setxattr(*header(file), 'user.x', b'x', 0),
        ops.Removexattr(*header(file), 'user.x'),
        ops.Access(*header(file), os.W_OK),
    ]
    for change in changes:
        with refused(errno.EROFS):
            fixture.ask(change)
    assert (fixture.folder / 'f').read_bytes() == b'f'
    assert fixture.read(file, fixture.open(file)) == b'f'


def test_a_mount_that_keeps_everything_refuses_to_remove_and_rename(fixture: Fixture) -> None:
    kept = fixture.find('kept').nodeid
    nodeid, fh = fixture.create(kept, 'f')
    fixture.write(nodeid, fh, b'f')
    fixture.release(nodeid, fh)
    for change in (ops.Unlink(*header(kept), 'f'), ops.Rename(*header(kept), 'f', kept, 'g', 0)):
        with refused(errno.EACCES):
            fixture.ask(change)


# One inode, one content


def test_a_name_that_leads_to_another_version_gets_another_inode_while_the_first_is_read(fixture: Fixture) -> None:
    node = fixture.storage.node('memory:f')
    node.write_bytes(b'first')
    first = fixture.find('memory', 'f').nodeid
    fh = fixture.open(first)
    node.write_bytes(b'another, longer')
    second = fixture.find('memory', 'f')
    assert second.nodeid != first
    assert second.attributes is not None
    assert second.attributes.size_bytes == 15
    assert fixture.attributes(first).size_bytes == 5
    assert fixture.attributes(first).ino == second.attributes.ino
    other = fixture.open(second.nodeid)
    assert fixture.read(second.nodeid, other) == b'another, longer'
    fixture.release(first, fh)
    fixture.release(second.nodeid, other)
    assert fixture.find('memory', 'f').nodeid == second.nodeid


def test_without_a_reader_the_inode_stays_the_same(fixture: Fixture) -> None:
    node = fixture.storage.node('memory:f')
    node.write_bytes(b'first')
    first = fixture.find('memory', 'f').nodeid
    node.write_bytes(b'second')
    assert fixture.find('memory', 'f').nodeid == first


@pytest.mark.parametrize('flags', [WRITE, os.O_RDWR, READ | os.O_TRUNC, WRITE | os.O_TRUNC | os.O_APPEND])
def test_an_open_to_write_beside_a_reader_is_estale_until_the_name_is_looked_up_again(
    fixture: Fixture, flags: int
) -> None:
    node = fixture.storage.node('memory:f')
    node.write_bytes(b'first')
    first = fixture.find('memory', 'f').nodeid
    fh = fixture.open(first)
    with refused(errno.ESTALE):
        fixture.open(first, flags)
    second = fixture.find('memory', 'f').nodeid
    assert second != first
    other = fixture.open(second, flags)
    assert fixture.read(first, fh) == b'first'
    fixture.release(second, other)
    fixture.release(first, fh)


def test_who_opens_a_file_under_change_shares_its_inode(fixture: Fixture) -> None:
    nodeid, fh = fixture.create(fixture.find('memory').nodeid, 'f')
    fixture.write(nodeid, fh, b'so far')
    assert fixture.find('memory', 'f').nodeid == nodeid
    other = fixture.open(nodeid)
    assert fixture.read(nodeid, other) == b'so far'
    fixture.release(nodeid, fh)
    assert fixture.find('memory', 'f').nodeid == nodeid
    fixture.release(nodeid, other)


def test_lookups_from_many_threads_agree_on_the_new_inode(fixture: Fixture) -> None:
    node = fixture.storage.node('memory:f')
    lookup = ops.Lookup(*header(fixture.find('memory').nodeid), 'f')
    for version in range(50):
        node.write_bytes(b'%d' % version)
        held = fixture.find('memory', 'f').nodeid
        fh = fixture.open(held)
        node.write_bytes(b'other %d' % version)
        with ThreadPoolExecutor(4) as threads:
            found = [reply.nodeid for reply in threads.map(fixture.ask, [lookup] * 4)]  # type: ignore[union-attr]
        assert len(set(found)) == 1
        assert found[0] != held
        fixture.release(held, fh)


# Handles


def test_a_release_that_would_block_is_done_by_who_may(fixture: Fixture) -> None:
    nodeid, fh = fixture.create(fixture.find('memory').nodeid, 'f')
    fixture.write(nodeid, fh, b'content')
    outcomes: list[object] = []
    staged = fixture.storage.volume('memory')._files.find('f')

    def serve() -> None:
        serve_without_blocking()
        try:
            fixture.ask(ops.Release(*header(nodeid), fh, False))
        except WouldBlock as blocked:
            outcomes.append(blocked)

    assert staged is not None
    with staged.lock:
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
    assert len(outcomes) == 1
    fixture.ask(ops.Release(*header(nodeid), fh, False))
    assert fixture.filesystem.handles.all() == []
    assert fixture.storage.node('memory:f').read_bytes() == b'content'
    assert fixture.storage.volume('memory')._files.all() == []


def test_who_looks_into_a_file_under_change_does_not_publish_it(fixture: Fixture) -> None:
    nodeid, fh = fixture.create(fixture.find('memory').nodeid, 'f')
    fixture.write(nodeid, fh, b'unfinished')
    other = fixture.open(nodeid)
    assert fixture.read(nodeid, other) == b'unfinished'
    fixture.release(nodeid, other)
    backend = fixture.storage.volume('memory').backend
    assert list(backend.list_directory('')) == []
    other = fixture.open(nodeid)
    fixture.ask(ops.Fsync(*header(nodeid), other, False, False))
    assert [entry.size_bytes for entry in backend.list_directory('')] == [10]
    fixture.write(nodeid, fh, b'finished')
    fixture.ask(ops.Release(*header(nodeid), other, False))
    fixture.release(nodeid, fh)
    assert fixture.storage.node('memory:f').read_bytes() == b'finisheded'


def blocks(call: Callable[[], object]) -> bool:
    """Whether a call refuses to be made on a thread that must not wait."""
    outcomes: list[bool] = []

    def serve() -> None:
        serve_without_blocking()
        try:
            call()
        except WouldBlock:
            outcomes.append(True)
        else:
            outcomes.append(False)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    return outcomes[0]


def test_fsync_of_a_local_file_and_a_large_commit_are_for_workers(fixture: Fixture) -> None:
    for mount, size, waits in (('local', 1, True), ('memory', 1, False), ('memory', 20 << 20, True)):
        nodeid, fh = fixture.create(fixture.find(mount).nodeid, f'f{size}')
        fixture.write(nodeid, fh, bytes(size))
        assert blocks(partial(fixture.ask, ops.Fsync(*header(nodeid), fh, False, False))) is waits
        fixture.release(nodeid, fh)


def test_a_folder_on_a_network_is_for_workers_because_it_may_never_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('fusefs.trees.local.is_network', lambda mount: True)
    (tmp_path / 'd').mkdir()
    (tmp_path / 'd' / 'f').write_bytes(b'f')
    with StorageManager() as storage:
        storage.configure([{'name': 'far', 'type': 'local', 'path': str(tmp_path)}])
        fixture = Fixture(storage, tmp_path)
        far, directory, file = (fixture.find(*names).nodeid for names in (['far'], ['far', 'd'], ['far', 'd', 'f']))
        fh = fixture.open(file, os.O_RDWR)
        listing = fixture.ask(ops.Opendir(*header(directory), 0)).fh  # type: ignore[union-attr]
        for request in (
            ops.Lookup(*header(far), 'd'),
            ops.Getattr(*header(file), None),
            ops.Getattr(*header(file), fh),
            ops.Opendir(*header(directory), 0),
            ops.Readdir(*header(directory), listing, 0, 4096, True),
            ops.Open(*header(file), READ),
            ops.Read(*header(file), fh, 0, 10, 0),
            ops.Write(*header(file), fh, 0, b'g', 0, False),
            ops.Flush(*header(file), fh, 0),
            ops.Lseek(*header(file), fh, 0, os.SEEK_DATA),
            ops.Fallocate(*header(file), fh, 0, 1, 0),
            ops.CopyFileRange(*header(file), fh, 0, file, fh, 10, 1, 0),
            ops.Tmpfile(*header(directory), os.O_TMPFILE | WRITE, 0o600, 0),
            ops.Create(*header(directory), 'g', WRITE, 0o600, 0),
            ops.Mkdir(*header(directory), 'e', 0o700, 0),
            ops.Unlink(*header(directory), 'f'),
            ops.Rename(*header(directory), 'f', far, 'f', 0),
            ops.Statfs(*header(far)),
            ops.Getxattr(*header(file), 'user.x', 0),
            ops.Release(*header(file), fh, False),
        ):
            assert blocks(partial(fixture.ask, request)), request
        assert not blocks(lambda: fixture.find('far'))
        assert fixture.read(file, fh) == b'f'
        fixture.filesystem.close()


# What is changed and asked about otherwise than by reading and writing


def position(fixture: Fixture, nodeid: int, fh: int, offset: int, whence: int) -> int:
    reply = fixture.ask(ops.Lseek(*header(nodeid), fh, offset, whence))
    assert isinstance(reply, ops.Position)
    return reply.offset


def test_a_local_file_is_punched_and_its_holes_are_found(fixture: Fixture) -> None:
    (fixture.folder / 'f').write_bytes(b'x' * (256 << 10))
    nodeid = fixture.find('local', 'f').nodeid
    fh = fixture.open(nodeid, os.O_RDWR)
    fixture.ask(ops.Fallocate(*header(nodeid), fh, 64 << 10, 128 << 10, 3))
    assert (fixture.folder / 'f').read_bytes() == b'x' * (64 << 10) + bytes(128 << 10) + b'x' * (64 << 10)
    assert position(fixture, nodeid, fh, 0, os.SEEK_HOLE) == 64 << 10
    assert position(fixture, nodeid, fh, 64 << 10, os.SEEK_DATA) == 192 << 10
    for offset in (-1, 256 << 10, 1 << 40):
        with refused(errno.ENXIO):
            position(fixture, nodeid, fh, offset, os.SEEK_DATA)


def test_what_a_disk_does_with_the_room_of_a_file_it_does_through_the_mount_too(fixture: Fixture) -> None:
    content = bytes(range(1, 256)) * 1000
    nodeid, fh = fixture.create(fixture.find('local').nodeid, 'f')
    with (fixture.folder / 'plain').open('w+b', buffering=0) as plain:
        for mode, offset, size in (
            (0, 0, 300_000),
            (1, 1 << 20, 1 << 20),
            (3, 5000, 9),
            (16, 10, 70_000),
            (8, 0, 4096),
        ):
            os.pwrite(plain.fileno(), content, 0)
            fixture.write(nodeid, fh, content)
            outcomes = [
                outcome(partial(fallocate, plain.fileno(), mode, offset, size)),
                outcome(partial(fixture.ask, ops.Fallocate(*header(nodeid), fh, offset, size, mode))),
            ]
            assert outcomes[0] == outcomes[1], mode
            assert (fixture.folder / 'f').read_bytes() == (fixture.folder / 'plain').read_bytes(), mode


def outcome(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def copy(fixture: Fixture, source: tuple[int, int], target: tuple[int, int], *places: int) -> int:
    reply = fixture.ask(ops.CopyFileRange(*header(source[0]), source[1], places[0], *target, *places[1:], 0))
    assert isinstance(reply, ops.Written)
    return reply.size_bytes


def test_the_disk_copies_between_files_of_local_mounts(fixture: Fixture, tmp_path: Path) -> None:
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'g').touch()
    (fixture.folder / 'f').write_bytes(b'0123456789')
    fixture.storage.configure([{'name': 'other', 'type': 'local', 'path': str(other)}])
    both = Fixture(fixture.storage, fixture.folder)
    source, target = both.find('local', 'f').nodeid, both.find('other', 'g').nodeid
    handles = (source, both.open(source)), (target, both.open(target, WRITE))
    assert copy(both, *handles, 2, 5, 4) == 4
    assert copy(both, *handles, 8, 9, 100) == 2
    assert copy(both, *handles, 10, 0, 100) == 0
    assert (other / 'g').read_bytes() == bytes(5) + b'234589'
    both.filesystem.close()


def test_a_copy_that_no_disk_can_make_is_left_to_the_kernel(fixture: Fixture) -> None:
    (fixture.folder / 'f').write_bytes(b'local')
    local = fixture.find('local', 'f').nodeid
    memory = fixture.create(fixture.find('memory').nodeid, 'f')
    for source, target in ((memory, (local, fixture.open(local, WRITE))), ((local, fixture.open(local)), memory)):
        with refused(errno.EOPNOTSUPP):
            copy(fixture, source, target, 0, 0, 5)


def test_a_copy_goes_no_further_at_once_than_a_signal_can_wait_for(fixture: Fixture) -> None:
    for name in ('f', 'g'):
        (fixture.folder / name).touch()
    os.truncate(fixture.folder / 'f', 1 << 40)
    nodeids = [fixture.find('local', name).nodeid for name in ('f', 'g')]
    source, target = [(nodeid, fixture.open(nodeid, os.O_RDWR)) for nodeid in nodeids]
    assert copy(fixture, source, target, 0, 0, 1 << 40) == MAX_COPIED_BYTES


def test_what_may_keep_a_disk_busy_is_for_workers(fixture: Fixture) -> None:
    for name, size in (('small', 1000), ('large', 2 << 20)):
        (fixture.folder / name).write_bytes(bytes(size))
        nodeid = fixture.find('local', name).nodeid
        target = fixture.create(fixture.find('local').nodeid, f'copy of {name}')
        fh = fixture.open(nodeid, os.O_RDWR)
        assert blocks(partial(copy, fixture, (nodeid, fh), target, 0, 0, 1 << 40)) is (name == 'large')
        assert blocks(partial(fixture.ask, ops.Fallocate(*header(nodeid), fh, 0, 10, 0)))
        assert not blocks(partial(position, fixture, nodeid, fh, 0, os.SEEK_DATA))


def test_a_file_without_a_name_is_known_by_its_number_alone(fixture: Fixture) -> None:
    parent = fixture.find('local').nodeid
    before = len(fixture.filesystem.inodes)
    made = [fixture.ask(ops.Tmpfile(*header(parent), os.O_TMPFILE | os.O_RDWR, 0o100600, 0)) for _ in range(2)]
    one, other = made
    assert isinstance(one, ops.Created)
    assert isinstance(other, ops.Created)
    assert one.entry.nodeid != other.entry.nodeid
    for created in (one, other):
        assert fixture.attributes(created.entry.nodeid).nlink == 0
        fixture.write(created.entry.nodeid, created.opened.fh, b'content')
    assert list(fixture.folder.iterdir()) == []
    linked = fixture.ask(ops.Link(*header(parent), one.entry.nodeid, 'f'))
    assert isinstance(linked, ops.EntryReply)
    assert linked.nodeid == one.entry.nodeid
    assert (fixture.folder / 'f').read_bytes() == b'content'
    fixture.filesystem.take_back(other)
    fixture.filesystem.take_back(linked)
    fixture.filesystem.take_back(one)
    fixture.filesystem.forget(ops.Forget(*header(0), [(parent, 1)]))
    assert len(fixture.filesystem.inodes) == before
    for mount in ('memory', 'fixed'):
        with refused(errno.EOPNOTSUPP if mount == 'memory' else errno.EROFS):
            fixture.ask(ops.Tmpfile(*header(fixture.find(mount).nodeid), os.O_TMPFILE | WRITE, 0o100600, 0))


def test_a_file_of_a_store_has_data_to_its_end_and_no_holes(fixture: Fixture) -> None:
    fixture.storage.node('memory:f').write_bytes(b'0123456789')
    nodeid = fixture.find('memory', 'f').nodeid
    fh = fixture.open(nodeid)
    assert position(fixture, nodeid, fh, 3, os.SEEK_DATA) == 3
    assert position(fixture, nodeid, fh, 3, os.SEEK_HOLE) == 10
    for offset in (-1, 10):
        with refused(errno.ENXIO):
            position(fixture, nodeid, fh, offset, os.SEEK_HOLE)


def test_the_time_of_birth_is_told_where_a_disk_has_it(fixture: Fixture) -> None:
    (fixture.folder / 'f').touch()
    nodeid = fixture.find('local', 'f').nodeid
    reply = fixture.ask(ops.Statx(*header(nodeid), None))
    assert isinstance(reply, ops.AttributesReply)
    assert reply.attributes.btime_ns == fixture.filesystem.inodes.get(nodeid).key.btime_ns  # type: ignore[attr-defined]
    memory, _ = fixture.create(fixture.find('memory').nodeid, 'f')
    reply = fixture.ask(ops.Statx(*header(memory), None))
    assert isinstance(reply, ops.AttributesReply)
    assert reply.attributes.btime_ns is None


def test_a_file_that_was_removed_behind_the_kernels_back_is_looked_up_again(fixture: Fixture) -> None:
    (fixture.folder / 'f').write_bytes(b'old')
    nodeid = fixture.find('local', 'f').nodeid
    fh = fixture.open(nodeid)
    (fixture.folder / 'f').unlink()
    with refused(errno.ESTALE):
        fixture.open(nodeid, WRITE | os.O_TRUNC)
    assert fixture.read(nodeid, fh) == b'old'
    (fixture.folder / 'f').write_bytes(b'new')
    again = fixture.find('local', 'f').nodeid
    assert fixture.read(again, fixture.open(again)) == b'new'
    # Who has it open may open it once more, as /proc/self/fd does.
    assert fixture.read(nodeid, fixture.open(nodeid)) == b'old'


# The end


def test_at_the_end_one_file_that_cannot_be_committed_does_not_cost_the_others(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    volume = fixture.storage.volume('memory')
    backend = FaultyBackend(volume.backend)
    volume._commits._uploader._backend = backend
    parent = fixture.find('memory').nodeid
    for name in ('a', 'b', 'c'):
        nodeid, fh = fixture.create(parent, name)
        fixture.write(nodeid, fh, name.encode())
    backend.fail('put', StorageIOError('the server has gone'))
    fixture.filesystem.close()
    assert 'the server has gone' in caplog.text
    assert [node.basename for node in fixture.storage.node('memory').children()] == ['b', 'c']


def test_a_handle_that_is_not_open_is_ebadf(fixture: Fixture) -> None:
    with refused(errno.EBADF):
        fixture.ask(ops.Read(*header(1), 99, 0, 1, 0))
    with refused(errno.EBADF):
        fixture.ask(ops.Readdir(*header(1), 99, 0, 4096, False))


def test_attributes_are_sized_first_and_too_little_room_is_erange(fixture: Fixture) -> None:
    (fixture.folder / 'f').touch()
    nodeid = fixture.find('local', 'f').nodeid
    fixture.ask(ops.Setxattr(*header(nodeid), 'user.colour', b'blue', 0))
    assert fixture.ask(ops.Getxattr(*header(nodeid), 'user.colour', 0)) == ops.XattrSize(4)
    assert fixture.ask(ops.Getxattr(*header(nodeid), 'user.colour', 4)) == b'blue'
    with refused(errno.ERANGE):
        fixture.ask(ops.Getxattr(*header(nodeid), 'user.colour', 3))
    assert fixture.ask(ops.Listxattr(*header(nodeid), 64)) == b'user.colour\0'


def test_a_local_file_loses_its_set_id_bits_when_the_kernel_says_so(fixture: Fixture) -> None:
    path = fixture.folder / 'f'
    path.touch()
    nodeid = fixture.find('local', 'f').nodeid
    fh = fixture.open(nodeid, WRITE)
    path.chmod(0o6755)
    fixture.ask(ops.Write(*header(nodeid), fh, 0, b'x', 0, False))
    assert stat.S_IMODE(path.stat().st_mode) == 0o6755 or os.geteuid()
    path.chmod(0o6755)
    fixture.ask(ops.Write(*header(nodeid), fh, 0, b'x', 0, True))
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    path.chmod(0o6755)
    fixture.ask(ops.Setattr(*header(nodeid), None, None, None, None, 0, None, None, True))
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_local_folder_that_appears_later_is_shown_then(tmp_path: Path) -> None:
    folder = tmp_path / 'later'
    with StorageManager() as storage:
        storage.configure([{'name': 'local', 'type': 'local', 'path': str(folder)}])
        fixture = Fixture(storage, folder)
        with refused(errno.ENOENT):
            fixture.find('local', 'f')
        folder.mkdir()
        (folder / 'f').write_bytes(b'f')
        nodeid = fixture.find('local', 'f').nodeid
        assert fixture.read(nodeid, fixture.open(nodeid)) == b'f'
        fixture.filesystem.close()


def test_inode_numbers_of_a_listing_are_those_of_stat(fixture: Fixture) -> None:
    (fixture.folder / 'f').touch()
    (fixture.folder / 'd').mkdir()
    fixture.storage.node('memory:f').write_bytes(b'')
    for mount in ('memory', 'local'):
        nodeid = fixture.find(mount).nodeid
        fh = fixture.ask(ops.Opendir(*header(nodeid), 0)).fh  # type: ignore[union-attr]
        for plus in (False, True):
            listing = fixture.ask(ops.Readdir(*header(nodeid), fh, 0, 4096, plus))
            assert isinstance(listing, ops.Listing)
            for entry in listing.entries[2:]:
                found = fixture.find(mount, entry.name).attributes
                assert found is not None
                assert (entry.ino, stat.S_IFMT(entry.mode)) == (found.ino, stat.S_IFMT(found.mode))
