"""The inode table against a plain model, and the rules that operators of a kernel rely on."""

import errno
import os
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fusefs.inodes import Inode, InodeTable
from fusefs.ops import ROOT_NODEID
from fusefs.trees.base import Tree

NAMES = st.sampled_from(['a', 'b', 'c'])
KEYS = st.sampled_from([None, None, 'k1', 'k2', 'k3'])
INDEX = st.integers(0, 7)


class Model(RuleBasedStateMachine):
    """The kernel's side: nodeids with counts, and names from directory nodeid and name to nodeid."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree()
        self.table = InodeTable(self.tree)
        self.counts = {ROOT_NODEID: 1}
        self.names: dict[tuple[int, str], int] = {}
        self.keys: dict[Any, int] = {}

    def pick(self, index: int) -> int:
        return sorted(self.counts)[index % len(self.counts)]

    def inode(self, nodeid: int) -> Inode:
        return self.table.get(nodeid)

    @rule(index=INDEX, name=NAMES, key=KEYS, replaced=st.booleans())
    def lookup(self, index: int, name: str, key: str | None, replaced: bool) -> None:
        parent = self.pick(index)
        known = self.names.get((parent, name))
        expected = self.keys.get(key) if key else known
        instead_of = self.inode(known) if replaced and not key and known is not None else None
        if instead_of is not None:
            expected = None
        entered = self.table.enter(self.inode(parent), name, self.tree, key, instead_of=instead_of)
        if expected is None:
            assert entered.nodeid not in self.counts
            self.counts[entered.nodeid] = 0
            if key:
                self.keys[key] = entered.nodeid
        else:
            assert entered.nodeid == expected
        self.counts[entered.nodeid] += 1
        self.names[parent, name] = entered.nodeid

    @rule(index=INDEX, share=st.floats(0, 1))
    def forget(self, index: int, share: float) -> None:
        nodeid = self.pick(index)
        if nodeid == ROOT_NODEID:
            return
        count = max(1, round(self.counts[nodeid] * share))
        inode = self.inode(nodeid)
        gone = self.table.forget([(nodeid, count)])
        self.counts[nodeid] -= count
        assert gone == ([inode] if not self.counts[nodeid] else [])
        if not self.counts[nodeid]:
            del self.counts[nodeid]
            self.keys = {key: value for key, value in self.keys.items() if value != nodeid}
            self.names = {
                (parent, name): child for (parent, name), child in self.names.items() if nodeid not in {parent, child}
            }

    @rule(index=INDEX, name=NAMES)
    def remove(self, index: int, name: str) -> None:
        parent = self.pick(index)
        self.table.remove(self.inode(parent), name)
        self.names.pop((parent, name), None)

    @rule(index=INDEX, name=NAMES, other=INDEX, new_name=NAMES)
    def rename(self, index: int, name: str, other: int, new_name: str) -> None:
        source, target = (self.pick(index), name), (self.pick(other), new_name)
        moving = self.names.get(source)
        if moving is not None and self.is_below(target[0], moving):
            return  # no file system lets a directory move into itself
        self.table.rename(self.inode(source[0]), name, self.inode(target[0]), new_name)
        if source == target:
            return
        self.names.pop(source, None)
        self.names.pop(target, None)
        if moving is not None:
            self.names[target] = moving

    @rule(index=INDEX, name=NAMES, other=INDEX, other_name=NAMES)
    def exchange(self, index: int, name: str, other: int, other_name: str) -> None:
        source, target = (self.pick(index), name), (self.pick(other), other_name)
        one, two = self.names.get(source), self.names.get(target)
        if (one and self.is_below(target[0], one)) or (two and self.is_below(source[0], two)):
            return
        self.table.exchange(self.inode(source[0]), name, self.inode(target[0]), other_name)
        self.names.pop(source, None)
        self.names.pop(target, None)
        if one is not None:
            self.names[target] = one
        if two is not None:
            self.names[source] = two

    def is_below(self, nodeid: int, directory: int) -> bool:
        """Whether a directory can be reached from another one, by any of its names."""
        todo, seen = [directory], {directory}
        while todo:
            current = todo.pop()
            for (parent, _), child in self.names.items():
                if parent == current and child not in seen:
                    seen.add(child)
                    todo.append(child)
        return nodeid in seen

    @invariant()
    def it_knows_the_same_inodes_and_names(self) -> None:
        assert len(self.table) == len(self.counts)
        for nodeid, count in self.counts.items():
            inode = self.table.get(nodeid)
            assert inode.lookups == count
            assert {name: child.nodeid for name, child in inode.children.items()} == {
                name: child for (parent, name), child in self.names.items() if parent == nodeid
            }
            assert {(parent.nodeid, name) for parent, name in inode.dentries} == {
                place for place, child in self.names.items() if child == nodeid
            }


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestInodesAgainstTheModel = Model.TestCase


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.fixture
def table(tree: Tree) -> InodeTable:
    return InodeTable(tree)


def test_an_unknown_nodeid_is_estale(table: InodeTable) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        table.get(4711)


def test_names_lead_from_the_root_of_the_own_tree(table: InodeTable, tree: Tree) -> None:
    other = Tree()
    mount = table.enter(table.root, 'mount', other, 'root')
    inner = table.enter(mount, 'd', other, None)
    file = table.enter(inner, 'f', other, None)
    assert table.names(file) == ['d', 'f']
    assert table.names(mount) == []
    table.rename(mount, 'd', mount, 'e')
    assert table.names(file) == ['e', 'f']
    table.remove(mount, 'e')
    assert table.names(file) is None


def test_a_hard_link_that_goes_leaves_the_other_name(table: InodeTable, tree: Tree) -> None:
    one = table.enter(table.root, 'a', tree, 'key')
    assert table.enter(table.root, 'b', tree, 'key') is one
    table.remove(table.root, 'a')
    dentry = table.dentry(one)
    assert dentry is not None
    assert dentry.name == 'b'


def test_a_key_belongs_to_its_tree(table: InodeTable, tree: Tree) -> None:
    assert table.enter(table.root, 'a', tree, 'key') is not table.enter(table.root, 'b', Tree(), 'key')


def test_a_name_that_leads_to_another_inode_leaves_the_first_one_to_who_holds_it(table: InodeTable, tree: Tree) -> None:
    first = table.enter(table.root, 'f', tree, None)
    second = table.enter(table.root, 'f', tree, None, instead_of=first)
    assert second is not first
    assert table.names(first) is None
    assert table.enter(table.root, 'f', tree, None, instead_of=first) is second
    assert table.forget([(first.nodeid, 1)]) == [first]
    assert table.child(table.root, 'f') is second


def test_forgetting_what_is_unknown_is_no_error(table: InodeTable) -> None:
    assert table.forget([(4711, 1)]) == []
