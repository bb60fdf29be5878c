"""A daemon killed at random moments while four programs write, again and again over the same cache and bucket."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.crash.killing import allowed_after, check, recover
from tests.crash.nursery import Nursery, await_true
from tests.crash.programs import Reference, State, Step, states_of
from tests.crash.stage import Stage, Writer, stage
from tests.servers import S3Server

WRITERS = 4
STEPS = 120
NAMES = ('a', 'b', 'c', 'd')
#: Mostly small; above 16 MiB it goes in parts.
SIZES = (0, 1, 1000, 1000, 50_000, 50_000, 300_000)
LARGE_BYTES = 17 << 20


def random_program(chance: random.Random, folder: str) -> list[Step]:
    """Steps that all succeed, in a directory of their own."""
    program: list[Step] = [['mkdir', folder]]
    there: set[str] = set()
    for _ in range(STEPS):
        name, seed = f'{folder}/{chance.choice(NAMES)}', chance.randrange(1 << 30)
        size = LARGE_BYTES if chance.random() < 0.02 else chance.choice(SIZES)
        step = chance.choice(['write', 'write', 'append', 'rename', 'unlink'])
        if step in {'write', 'append'} or name not in there:
            program.append(['append' if step == 'append' and size < LARGE_BYTES else 'write', name, seed, size])
            there.add(name)
        elif step == 'unlink':
            program.append(['unlink', name])
            there.remove(name)
        else:
            target = f'{folder}/{chance.choice(NAMES)}'
            if target != name:
                program.append(['rename', name, target])
                there.remove(name)
                there.add(target)
    return program


def inside(state: State, folder: str) -> State:
    """What of a state is in one directory."""
    files = {path: digest for path, digest in state.files.items() if path.startswith(f'{folder}/')}
    return State(files, state.directories & {folder})


def kill_under_load(stage: Stage, seed: int) -> dict[str, tuple[Writer, list[Step]]]:
    """Start a daemon and writers, and kill it after some acknowledgments; what each directory was written by."""
    chance = random.Random(seed)
    daemon = stage.start()
    programs = {f'{seed}-{number}': random_program(chance, f'{seed}-{number}') for number in range(WRITERS)}
    writers = {folder: (stage.write(program), program) for folder, program in programs.items()}
    enough = chance.randrange(10, 120)
    await_true(
        lambda: sum(writer.manifest.acknowledged for writer, _ in writers.values()) >= enough,
        f'{enough} steps are acknowledged',
    )
    daemon.kill()
    for writer, _ in writers.values():
        writer.finish()  # before the mount goes: behind it is a folder in which names would be missing
    stage.clear_mount()
    return writers


def check_all(found: State, written: Mapping[str, tuple[Writer, Sequence[Step]]]) -> None:
    """Assert that each writer finds what it was told, and nothing is there beside that."""
    for folder, (writer, program) in written.items():
        manifest = writer.manifest
        assert set(manifest.failed.values()) <= {'ENOTCONN', 'ECONNABORTED'}, manifest.failed
        allowed = allowed_after(manifest, program, states_of(Reference(), program))
        try:
            check(inside(found, folder), allowed)
        except AssertionError as error:
            done = manifest.acknowledged
            error.add_note(f'{folder}: {done} steps acknowledged, the last {program[max(0, done - 6) : done]}')
            error.add_note(f'under way: {program[done : done + 1]}')
            raise
    assert {path.partition('/')[0] for path in found.files} <= set(written)


def run_rounds(stage: Stage, seeds: Sequence[int]) -> None:
    written: dict[str, tuple[Writer, list[Step]]] = {}
    for seed in seeds:
        written |= kill_under_load(stage, seed)
    recover(stage)
    check_all(stage.stored(), written)


DURABILITIES = pytest.mark.parametrize(
    'keys',
    [{'durability': 'close'}, {'durability': 'writeback', 'writeback_delay': 0.1}],
    ids=['close', 'writeback'],
)


@pytest.mark.timeout(180)
@DURABILITIES
def test_what_was_acknowledged_survives_kills_at_random_under_load(
    tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str, keys: Mapping[str, Any]
) -> None:
    with stage(tmp_path, crash_nursery, s3_server, crash_bucket, **keys) as made:
        run_rounds(made, range(4))


@pytest.mark.long
@pytest.mark.timeout(1800)
@DURABILITIES
def test_what_was_acknowledged_survives_many_kills_at_random_under_load(
    tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str, keys: Mapping[str, Any]
) -> None:
    for first in range(100, 200, 10):
        with stage(tmp_path / f'{first}', crash_nursery, s3_server, crash_bucket, **keys) as made:
            run_rounds(made, range(first, first + 10))
