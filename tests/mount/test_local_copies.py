"""Copies that start or end in a local mount: by the disk itself where it can, else read and written by the kernel."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Mounted, mounted

CONTENT = os.urandom(5 << 20)
#: copy_file_range(2) as any program calls it: until it says that there is no more.
COPY = """
import os, sys
with open(sys.argv[1], 'rb') as source, open(sys.argv[2], 'wb') as target:
    copied = 0
    while count := os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
        copied += count
print(copied)
"""
PAIRS = [(one, other) for one in ('local', 'second', 'elsewhere', 'memory') for other in ('local', 'second', 'memory')]


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """Two local mounts on one disk, one on another, and a memory mount."""
    folder = tmp_path_factory.mktemp('copies')
    with tempfile.TemporaryDirectory(dir='/dev/shm') as elsewhere:
        for name in ('local', 'second'):
            (folder / name).mkdir()
        definitions = [
            *({'name': name, 'type': 'local', 'path': str(folder / name)} for name in ('local', 'second')),
            {'name': 'elsewhere', 'type': 'local', 'path': elsewhere},
            {'name': 'memory', 'type': 'memory'},
        ]
        with mounted(folder, definitions) as running:
            running.folder = folder
            for name in ('local', 'second', 'elsewhere', 'memory'):
                running.run(
                    'tee', running.path(name, 'f'), input=CONTENT.decode('latin-1'), encoding='latin-1', stdin=None
                )
            yield running


@pytest.mark.parametrize(('source', 'target'), PAIRS)
def test_a_copy_from_any_mount_to_any_other_has_the_right_bytes(tree: Mounted, source: str, target: str) -> None:
    name = f'from-{source}'
    tree.run(sys.executable, '-c', COPY, f'{source}/f', f'{target}/{name}')
    tree.run('cmp', f'{source}/f', f'{target}/{name}')
    tree.run('cp', f'{source}/f', f'{target}/{name}-by-cp')
    tree.run('cmp', f'{source}/f', f'{target}/{name}-by-cp')


def test_a_hole_is_copied_as_a_hole_between_two_local_mounts(tree: Mounted) -> None:
    tree.run('truncate', '-s', '1G', 'local/sparse')
    tree.sh('printf data | dd of=local/sparse bs=1M seek=512 conv=notrunc 2>/dev/null')
    tree.run('cp', 'local/sparse', 'second/sparse')
    tree.run('cmp', 'local/sparse', 'second/sparse')
    assert Path(tree.folder / 'second' / 'sparse').stat().st_blocks * 512 < 1 << 20


def test_a_long_copy_comes_in_pieces_that_add_up(tree: Mounted) -> None:
    tree.run('fallocate', '-l', '300M', 'local/long')
    copied = tree.run(sys.executable, '-c', COPY, 'local/long', 'second/long')
    assert int(copied) == 300 << 20
    tree.run('cmp', 'local/long', 'second/long')
    tree.run('rm', 'local/long', 'second/long')
