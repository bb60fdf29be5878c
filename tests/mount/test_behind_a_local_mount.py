"""What happens in a local folder behind its mount, while the kernel still believes what it was told of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Mounted, mounted


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Mounted]:
    """A local mount of whose names the kernel is sure for a minute."""
    folder = tmp_path / 'folder'
    folder.mkdir()
    with mounted(tmp_path, [{'name': 'local', 'type': 'local', 'path': str(folder), 'ttl': '1m'}]) as running:
        running.folder = folder
        yield running


def test_what_is_written_to_a_file_that_was_removed_is_in_a_new_one(tree: Mounted) -> None:
    for number in range(3):
        tree.sh(f'echo {number} > local/f')
        assert (tree.folder / 'f').read_text() == f'{number}\n'
        (tree.folder / 'f').unlink()


def test_a_file_that_was_replaced_is_opened_as_it_is_now(tree: Mounted) -> None:
    tree.sh('echo old > local/f')
    (tree.folder / 'new').write_text('new\n')
    (tree.folder / 'new').rename(tree.folder / 'f')
    tree.sh('echo more >> local/f')
    assert (tree.folder / 'f').read_text() == tree.run('cat', 'local/f') == 'new\nmore\n'
