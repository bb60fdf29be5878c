"""The POSIX cases (posix_table) over each kind of mount through the kernel, and over two without a kernel."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.filesystem import FileSystem
from genro_storage import StorageManager
from tests.mount.inprocess_calls import InProcessCalls, Served, served
from tests.mount.mounted import CHECKOUT, Mounted, run
from tests.mount.posix import KINDS, Case
from tests.mount.posix_table import TABLES

#: All cases of a kind take up to 15 s.
RUN_TIMEOUT_S = 50

THROUGH_KERNEL = [
    pytest.param(table, kind, case.name, id=f'{case.name}-{kind}')
    for table, cases in TABLES.items()
    for case in cases
    for kind in case.on
]
#: A local mount is tested without a kernel too: its descriptors and inodes are the most intricate part.
WITHOUT_KERNEL = [
    pytest.param(kind, case, id=f'{case.name}-{kind}')
    for case in TABLES['calls']
    for kind in ('memory', 'local')
    if kind in case.on
]


class Outcomes:
    """Runs the table of a kind when it is first asked for, in a process that may hang."""

    def __init__(self, tree: Mounted, timeout_s: float = RUN_TIMEOUT_S) -> None:
        self._tree = tree
        self._timeout_s = timeout_s
        self._of: dict[tuple[str, str], dict[str, str]] = {}

    def get(self, table: str, kind: str, name: str) -> str:
        if (table, kind) not in self._of:
            self._of[table, kind] = self._run(table, kind)
        return self._of[table, kind].get(name, f'not reached; before it: {list(self._of[table, kind])[-1:]}')

    def _run(self, table: str, kind: str) -> dict[str, str]:
        directory = self._tree.path(kind, f'posix-{table}')
        self._tree.run('mkdir', directory)
        program = [sys.executable, '-m', 'tests.mount.posix_table', table, kind, str(directory)]
        process = subprocess.Popen(program, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.communicate(timeout=self._timeout_s)
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


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('kind', KINDS)
def test_random_operations_do_what_they_do_in_a_plain_folder(
    everything: Mounted, tmp_path: Path, kind: str, seed: int
) -> None:
    directory = everything.path(kind, f'random-{seed}')
    everything.run('mkdir', directory)
    program = [sys.executable, '-m', 'tests.mount.random_operations', str(directory), str(tmp_path), str(seed), '250']
    done = run(*program, cwd=CHECKOUT, timeout_s=RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr


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
def test_without_a_kernel_and_all_lookups_are_taken_back(without_kernel: Served, kind: str, case: Case) -> None:
    inodes = without_kernel.filesystem.inodes
    before = len(inodes)
    case.function(InProcessCalls(without_kernel, kind))
    assert len(inodes) == before
    assert without_kernel.filesystem.handles.all() == []
