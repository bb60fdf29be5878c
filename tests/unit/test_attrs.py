"""What remote files look like to stat(2)."""

import os
import stat

from hypothesis import given
from hypothesis import strategies as st

from fusefs import attrs
from genro_storage.config import MemoryDefinition, Permissions
from genro_storage.entry import Entry, Kind

STARTED_NS = 1_700_000_000_000_000_000
OWNER = attrs.Ownership.of(MemoryDefinition(name='m'))


def test_entries_belong_to_the_mounting_user_and_nobody_else_gets_in() -> None:
    assert attrs.Ownership(os.getuid(), os.getgid(), 0o600, 0o700) == OWNER


def test_owner_and_umask_are_as_the_definition_says() -> None:
    owner = attrs.Ownership.of(MemoryDefinition(name='m', uid=12, gid=34, umask=0o022))
    assert owner == attrs.Ownership(12, 34, 0o644, 0o755)


def test_nothing_is_writable_where_the_mount_is_readonly() -> None:
    owner = attrs.Ownership.of(MemoryDefinition(name='m', permissions=Permissions.READONLY, umask=0))
    assert (owner.file_mode, owner.directory_mode) == (0o444, 0o555)


def test_a_file_has_its_size_its_time_and_blocks_that_cover_it() -> None:
    found = attrs.of_entry(Entry('f', Kind.FILE, 1025, 42), 7, OWNER, STARTED_NS)
    assert (found.ino, found.size_bytes, found.blocks, found.nlink) == (7, 1025, 3, 1)
    assert found.mtime_ns == found.ctime_ns == found.atime_ns == 42
    assert found.mode == stat.S_IFREG | 0o600


def test_a_file_of_1970_is_shown_as_that_and_a_directory_without_a_time_as_of_the_start() -> None:
    assert attrs.of_entry(Entry('f', Kind.FILE, 1, 0), 7, OWNER, STARTED_NS).mtime_ns == 0
    directory = attrs.of_entry(Entry('d', Kind.DIRECTORY), 7, OWNER, STARTED_NS)
    assert (directory.mtime_ns, directory.nlink) == (STARTED_NS, 2)
    assert directory.mode == stat.S_IFDIR | 0o700


@given(size_bytes=st.integers(0, 1 << 50))
def test_blocks_cover_the_size_and_no_more(size_bytes: int) -> None:
    assert 0 <= attrs.blocks_of(size_bytes) * attrs.BLOCK_BYTES - size_bytes < attrs.BLOCK_BYTES


def test_inode_numbers_are_the_same_in_every_run() -> None:
    assert attrs.stable_ino('uploads', 'users/1/avatar.jpg') == 9_130_960_968_088_885_730
    assert attrs.stable_ino('m', '\udcff') == attrs.stable_ino('m', '\udcff')


@given(one=st.text(), other=st.text())
def test_inode_numbers_differ_and_fit_63_bits(one: str, other: str) -> None:
    numbers = [attrs.stable_ino('m', text.encode('utf-8', 'replace').decode()) for text in (one, other)]
    assert all(1 < number < 1 << 63 for number in numbers)
    assert (numbers[0] == numbers[1]) == (one.encode('utf-8', 'replace') == other.encode('utf-8', 'replace'))
