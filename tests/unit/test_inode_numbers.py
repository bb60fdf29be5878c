"""Inode numbers of a volume against a plain model of its names, and as stat, listings and open files show them."""

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fusefs import attrs, ops
from fusefs.trees.inode_numbers import InodeNumbers
from genro_storage import paths
from tests.unit.trees import NOBODY, RemoteTree

NAMES = st.sampled_from(['a', 'b', 'c'])
INDEX = st.integers(0, 11)
DEPTH = 3


class Model(RuleBasedStateMachine):
    """What is there and what is held, each with the number that it was first shown with."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = InodeNumbers('m')
        self.live: dict[str, int] = {}
        self.held: dict[str, int] = {}

    def pick(self, index: int) -> str:
        return sorted(self.live)[index % len(self.live)] if self.live else ''

    def free_name(self, index: int, name: str) -> str:
        """A path in some directory, or ''."""
        path = paths.child((['', *sorted(self.live)])[index % (len(self.live) + 1)], name)
        return path if path.count('/') < DEPTH else ''

    def is_empty(self, path: str) -> bool:
        return not any(other.startswith(f'{path}/') for other in self.live)

    @rule(index=INDEX, name=NAMES)
    def make(self, index: int, name: str) -> None:
        path = self.free_name(index, name)
        if path and path not in self.live:
            self.live[path] = self.numbers.of(path)

    @rule(index=INDEX, parent=INDEX, name=NAMES)
    def rename(self, index: int, parent: int, name: str) -> None:
        source, target = self.pick(index), self.free_name(parent, name)
        if not source or not target or paths.is_within(target, source) or not self.is_empty(target):
            return
        if target in self.live:
            self.hold(target)
        self.numbers.move(source, target)
        for path in [path for path in self.live if paths.is_within(path, source)]:
            self.live[target + path.removeprefix(source)] = self.live.pop(path)

    @rule(index=INDEX, told=st.booleans())
    def remove(self, index: int, told: bool) -> None:
        path = self.pick(index)
        if not path or not self.is_empty(path):
            return
        if told:
            self.hold(path)
        else:  # by somebody else, of which nobody hears
            del self.live[path]

    @rule(index=INDEX)
    def let_go(self, index: int) -> None:
        if self.held:
            seed = sorted(self.held)[index % len(self.held)]
            del self.held[seed]
            self.numbers.let_go(seed)

    @invariant()
    def each_name_has_the_number_that_it_came_with(self) -> None:
        assert {path: self.numbers.of(path) for path in self.live} == self.live

    @invariant()
    def no_two_have_one(self) -> None:
        numbers = [*self.live.values(), *self.held.values()]
        assert len(set(numbers)) == len(numbers)

    def hold(self, path: str) -> None:
        seed = self.numbers.hold(path)
        self.held[seed] = self.live.pop(path)
        assert self.numbers.of_seed(seed) == self.held[seed]


Model.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase


def test_beyond_the_limit_what_was_looked_at_longest_ago_has_the_number_of_its_path_again() -> None:
    numbers = InodeNumbers('m', limit=2)
    for name in ('a', 'b'):
        numbers.move(name, f'{name}.moved')
    assert numbers.of('a.moved') == attrs.stable_ino('m', 'a')
    numbers.move('c', 'c.moved')
    assert numbers.of('a.moved') == attrs.stable_ino('m', 'a')
    assert numbers.of('b.moved') == attrs.stable_ino('m', 'b.moved')


# As a volume shows them


@pytest.fixture
def tree(tmp_path: Path) -> RemoteTree:
    return RemoteTree(tmp_path)


def listed(tree: RemoteTree, path: str, *, plus: bool) -> dict[str, int]:
    directory = tree.tree.open_directory(tree.inode(path))
    listing = directory.read(ops.Readdir(1, 0, 0, 0, NOBODY, 0, 0, 1 << 20, plus))
    return {entry.name: entry.ino for entry in listing.entries}


def test_numbers_are_those_of_paths_until_something_is_renamed_and_in_the_next_run(
    tree: RemoteTree, tmp_path: Path
) -> None:
    tree.mkdir('d')
    tree.write('d/f', b'f')
    assert tree.attributes('d/f').ino == attrs.stable_ino('m', 'd/f')
    tree.rename('d/f', 'd/g')
    assert tree.attributes('d/g').ino == attrs.stable_ino('m', 'd/f')
    again = RemoteTree(tmp_path / 'again')
    again.remote.put('d/g', b'f')
    assert again.attributes('d/g').ino == attrs.stable_ino('m', 'd/g')


@pytest.mark.parametrize('plus', [False, True])
def test_a_listing_has_the_numbers_of_stat_after_renames(tree: RemoteTree, plus: bool) -> None:
    tree.mkdir('d')
    tree.mkdir('d/e')
    tree.write('d/f', b'f')
    tree.rename('d/f', 'd/e/g')
    tree.rename('d', 'moved')
    tree.mkdir('d')
    found = listed(tree, 'moved/e', plus=plus)
    assert found == {
        name: tree.attributes(path).ino for name, path in (('.', 'moved/e'), ('..', 'moved'), ('g', 'moved/e/g'))
    }
    assert listed(tree, '', plus=plus)['d'] == tree.attributes('d').ino != tree.attributes('moved').ino


def test_a_number_is_given_anew_once_the_kernel_has_forgotten_who_had_it(tree: RemoteTree) -> None:
    tree.write('f', b'f')
    before = tree.attributes('f').ino
    held = tree.inode('f')
    tree.unlink('f')
    tree.write('f', b'new')
    assert tree.attributes('f').ino != before
    tree.unlink('f')
    for inode in tree.inodes.forget([(held.nodeid, held.lookups)]):
        inode.tree.forgotten(inode)
    tree.write('f', b'newer')
    assert tree.attributes('f').ino == before


def test_a_directory_that_is_removed_is_still_shown_to_who_holds_it(tree: RemoteTree) -> None:
    tree.mkdir('d')
    held = tree.inode('d')
    before = tree.attributes('d')
    tree.rmdir('d')
    after = tree.tree.attributes(held, None)
    assert (after.attributes.ino, after.attributes.nlink, after.ttl_s) == (before.ino, 0, 0.0)
    assert stat.S_ISDIR(after.attributes.mode)
    directory = tree.tree.open_directory(held)
    with pytest.raises(OSError, match='No such') as raised:  # what the C library takes for the end
        directory.read(ops.Readdir(1, 0, 0, 0, NOBODY, 0, 0, 4096, False))
    assert raised.value.errno == errno.ENOENT


def test_what_another_inode_has_come_to_is_stale_and_no_removed_file(tree: RemoteTree) -> None:
    tree.write('f', b'first')
    reader = tree.open('f', os.O_RDONLY)
    reader.inode.files.append(reader)
    first = reader.inode
    tree.tree.supersede(first)
    assert tree.inode('f') is not first
    reader.inode.files.remove(reader)
    reader.release()
    with pytest.raises(OSError, match='Stale') as raised:
        tree.tree.attributes(first, None)
    assert raised.value.errno == errno.ESTALE
