"""The table of POSIX cases (posix.py) over each kind of mount through the kernel, and over one without a kernel.

The cases that only a kernel can be asked for are in posix_kernel.py.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.filesystem import FileSystem
from genro_storage import StorageManager
from tests.mount import posix, posix_kernel
from tests.mount.calls import InProcessCalls, Served, served
from tests.mount.mounted import CHECKOUT, Mounted

#: All cases of a kind take about 10 s.
RUN_TIMEOUT_S = 50

TABLES = {'posix': posix.CASES, 'posix_kernel': posix_kernel.CASES}
THROUGH_KERNEL = [
    pytest.param(table, kind, case.name, id=f'{case.name}-{kind}')
    for table, cases in TABLES.items()
    for case in cases
    for kind in case.on
]
#: A local mount is tested without a kernel too: its descriptors and inodes are the most intricate part.
WITHOUT_KERNEL = [
    pytest.param(kind, case, id=f'{case.name}-{kind}')
    for case in posix.CASES
    for kind in ('memory', 'local')
    if kind in case.on
]


class Outcomes:
    """Runs the table of a kind when it is first asked for, in a process that may hang."""

    def __init__(self, tree: Mounted) -> None:
        self._tree = tree
        self._of: dict[tuple[str, str], dict[str, str]] = {}

    def get(self, table: str, kind: str, name: str) -> str:
        if (table, kind) not in self._of:
            self._of[table, kind] = self._run(table, kind)
        return self._of[table, kind].get(name, f'not reached; before it: {list(self._of[table, kind])[-1:]}')

    def _run(self, table: str, kind: str) -> dict[str, str]:
        directory = self._tree.path(kind, table)
        self._tree.run('mkdir', directory)
        program = [sys.executable, '-m', f'tests.mount.{table}', kind, str(directory)]
        process = subprocess.Popen(program, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        return dict(json.loads(line) for line in output.splitlines())


@pytest.fixture(scope='module')
def outcomes(everything: Mounted) -> Outcomes:
    return Outcomes(everything)


@pytest.mark.parametrize(('table', 'kind', 'name'), THROUGH_KERNEL)
def test_through_the_kernel(outcomes: Outcomes, table: str, kind: str, name: str) -> None:
    assert outcomes.get(table, kind, name) == ''


@pytest.fixture
def without_kernel(tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / 'local'
    folder.mkdir()
    with StorageManager() as storage:
        storage.configure(
            [{'name': 'memory', 'type': 'memory'}, {'name': 'local', 'type': 'local', 'path': str(folder)}]
        )
        with served(FileSystem(storage)) as running:
            yield running


@pytest.mark.parametrize(('kind', 'case'), WITHOUT_KERNEL)
def test_without_a_kernel_and_all_lookups_are_taken_back(without_kernel: Served, kind: str, case: posix.Case) -> None:
    inodes = without_kernel.filesystem.inodes
    before = len(inodes)
    case.function(InProcessCalls(without_kernel, kind))
    assert len(inodes) == before
    assert without_kernel.filesystem.handles.all() == []
