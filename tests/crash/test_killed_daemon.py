"""Writing through a mount whose daemon is killed at its steps: what was acknowledged is there, all else is old or new.

Each step of small scenarios, of larger ones so many that each kind of step is among them; every one under ``long``.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.crash.killing import Scenario, Stages, kill_at_steps, kill_recovery_at_steps
from tests.crash.nursery import Nursery
from tests.crash.programs import Step
from tests.crash.stage import Stage, stage
from tests.servers import S3Server

MIB = 1 << 20
#: Long enough for a rewrite to come before the upload, short for a test that waits for that.
SOON = {'durability': 'writeback', 'writeback_delay': 0.2}
AT_ONCE = {'durability': 'writeback', 'writeback_delay': 0}
#: What is written stays in the journal until another daemon finds it.
NOT_YET = {'durability': 'writeback', 'writeback_delay': 600}


@pytest.fixture
def stages(tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str) -> Stages:
    numbers = iter(range(10_000))

    @contextmanager
    def make(keys: Mapping[str, Any]) -> Iterator[Stage]:
        with stage(tmp_path / f'{next(numbers)}', crash_nursery, s3_server, crash_bucket, **keys) as made:
            yield made

    return make


SMALL: list[Step] = [
    ['write', 'new', 1, 1000],
    ['write', 'there', 2, 70_000],
    ['mkdir', 'd'],
    ['write', 'd/e', 3, 5000],
    ['append', 'there', 4, 3000],
    ['unlink', 'new'],
]
#: Two fsyncs, and writing goes on; the base is of two blocks, of which one is needed.
SYNCED: list[Step] = [
    ['open', 1, 'there'],
    ['pwrite', 1, 300_000, 5, 1000],
    ['fsync', 1],
    ['pwrite', 1, 0, 6, 2000],
    ['truncate', 1, 400_000],
    ['fsync', 1],
    ['pwrite', 1, 500_000, 7, 100],
    ['close', 1],
]
#: How editors save, twice over the same name.
SAVED: list[Step] = [
    ['write', '.there.swp', 8, 20_000],
    ['rename', '.there.swp', 'there'],
    ['write', '.there.swp', 9, 30_000],
    ['rename', '.there.swp', 'there'],
]
REWRITTEN: list[Step] = [
    ['write', 'a', 10, 1000],
    ['write', 'a', 11, 2000],
    ['append', 'a', 12, 100],
    ['write', 'there', 13, 10],
    ['write', 'a', 14, 500],
]
UNLINKED: list[Step] = [
    ['write', 'a', 15, 1000],
    ['unlink', 'a'],
    ['write', 'there', 16, 10],
    ['unlink', 'there'],
    ['write', 'a', 17, 10],
]
LARGE: list[Step] = [['write', 'large', 18, 40 * MIB], ['append', 'large', 19, MIB]]
TREE = [(f't/{folder}/{number}', number, 100 + number) for number in range(10) for folder in ('a', 'b/c', 'b/d')]
MOVED: list[Step] = [['rename', 't', 'u'], ['write', 'u/a/1', 99, 10]]
MOVED_PENDING: list[Step] = [
    ['write', 't/a/new', 20, 1000],
    ['write', 't/b/c/1', 21, 1000],
    ['rename', 't', 'u'],
    ['write', 'u/a/new', 22, 10],
]
THERE = [('there', 23, 600_000)]
#: Files that the server has, one over the other, of which something newer waits.
REPLACED: list[Step] = [
    ['rename', 'first', 'there'],
    ['write', 'there', 27, 1000],
    ['rename', 'second', 'there'],
    ['write', 'second', 28, 10],
]
THREE = [*THERE, ('first', 29, 600_000), ('second', 30, 0)]

CLOSE = {
    'small files': Scenario(SMALL, before=THERE),
    'fsync in the middle': Scenario(SYNCED, before=THERE),
    'saved by rename': Scenario(SAVED, before=THERE),
    'replaced by rename': Scenario(REPLACED, before=THREE),
}
WRITEBACK = {
    'small files': Scenario(SMALL, AT_ONCE, THERE),
    'fsync in the middle': Scenario(SYNCED, SOON, THERE),
    'saved by rename': Scenario(SAVED, SOON, THERE),
    'saved by rename at once': Scenario(SAVED, AT_ONCE, THERE),
    'replaced by rename': Scenario(REPLACED, SOON, THREE),
    'rewritten while pending': Scenario(REWRITTEN, SOON, THERE),
    'unlinked while pending': Scenario(UNLINKED, SOON, THERE),
    'all of the mount synced': Scenario([*REWRITTEN, ['sync'], *SAVED, ['sync']], NOT_YET, THERE),
}
LARGER = {
    'large file': Scenario(LARGE),
    'large file in writeback': Scenario(LARGE, AT_ONCE),
    'directory': Scenario(MOVED, before=TREE),
    'directory with pending files': Scenario(MOVED_PENDING, SOON, TREE),
}
PENDING = Scenario([*REWRITTEN, *SAVED, ['mkdir', 'd'], ['write', 'd/e', 24, 9 * MIB]], NOT_YET, THERE)
OVERTAKEN = Scenario([['write', 'there', 25, 1000], ['append', 'other', 26, 100]], NOT_YET, THERE)


def scenarios(table: Mapping[str, Scenario]) -> Callable[[Any], Any]:
    return pytest.mark.parametrize('scenario', list(table.values()), ids=list(table))


@pytest.mark.timeout(120)
@scenarios(CLOSE)
def test_what_a_close_acknowledged_survives_a_kill_at_any_step(stages: Stages, scenario: Scenario) -> None:
    assert kill_at_steps(stages, scenario, at_most=14) > 8


@pytest.mark.timeout(120)
@scenarios(WRITEBACK)
def test_what_writeback_acknowledged_survives_a_kill_at_any_step(stages: Stages, scenario: Scenario) -> None:
    assert kill_at_steps(stages, scenario, at_most=14) > 8


@pytest.mark.timeout(120)
@scenarios(LARGER)
def test_large_files_and_directories_survive_a_kill_at_any_kind_of_step(stages: Stages, scenario: Scenario) -> None:
    assert kill_at_steps(stages, scenario, at_most=9) > 8


@pytest.mark.timeout(120)
def test_a_recovery_that_is_killed_is_recovered_from(stages: Stages) -> None:
    assert kill_recovery_at_steps(stages, PENDING, at_most=12) > 8


@pytest.mark.timeout(120)
def test_what_somebody_else_overwrote_meanwhile_is_kept_once_however_often_recovery_is_killed(stages: Stages) -> None:
    assert kill_recovery_at_steps(stages, OVERTAKEN, at_most=10, remote=[('there', 27, 500)]) > 8


@pytest.mark.long
@pytest.mark.timeout(1800)
@scenarios({**CLOSE, **{f'{name}, writeback': scenario for name, scenario in WRITEBACK.items()}, **LARGER})
def test_every_scenario_survives_a_kill_at_every_step(stages: Stages, scenario: Scenario) -> None:
    assert kill_at_steps(stages, scenario, at_most=None) > 8


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_recovery_that_is_killed_at_every_step_is_recovered_from(stages: Stages) -> None:
    assert kill_recovery_at_steps(stages, PENDING, at_most=None) > 8
    assert kill_recovery_at_steps(stages, OVERTAKEN, at_most=None, remote=[('there', 27, 500)]) > 8
