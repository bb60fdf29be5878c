"""A scenario, killed at its steps, and what must be there after the recovery.

Owns how a scenario runs and what is asserted; the stage owns processes and looking. Threads: of one caller.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from tests.crash.dying import kind_of
from tests.crash.nursery import await_true
from tests.crash.programs import Manifest, Reference, State, Step, content, states_of
from tests.crash.stage import Daemon, Stage

GOLDEN = (5**0.5 - 1) / 2
#: A stage over a mount with these keys in its definition.
Stages = Callable[[Mapping[str, Any]], AbstractContextManager[Stage]]


class Scenario(NamedTuple):
    """What a writer does in a mount with these keys. ``before``: (path, seed, size) of objects that are there."""

    program: Sequence[Step]
    keys: Mapping[str, Any] = {}
    before: Sequence[tuple[str, int, int]] = ()

    def begin(self, stage: Stage) -> list[State]:
        """Store what is there; the states that the program goes through."""
        reference = Reference()
        for path, seed, size in self.before:
            stage.put(path, content(seed, size))
            reference.put(path, content(seed, size))
        return states_of(reference, self.program)


class Found(NamedTuple):
    """What a run came to: the steps of the daemon that was to be killed, and whether it was."""

    steps: list[str]
    killed: bool


def kill_at_steps(stages: Stages, scenario: Scenario, at_most: int | None) -> int:
    """Kill the daemon at each step of a scenario, or at so many that all kinds of steps are among them; how many."""
    return _at_steps(lambda last: run_killed(stages, scenario, last), at_most)


def kill_recovery_at_steps(
    stages: Stages, scenario: Scenario, at_most: int | None, remote: Sequence[tuple[str, int, int]] = ()
) -> int:
    """Likewise the daemon that finds what another one, which was killed after the program, had acknowledged.

    ``remote``: what somebody else stores between the two.
    """
    return _at_steps(lambda last: run_recovery_killed(stages, scenario, last, remote), at_most)


def _at_steps(run: Callable[[int], Found], at_most: int | None) -> int:
    whole = run(0)
    numbers = range(1, 10_000) if at_most is None else chosen(whole.steps, at_most)
    count = 0
    for number in numbers:
        if not run(number).killed and at_most is None:
            break
        count += 1
    return count


def chosen(steps: Sequence[str], at_most: int) -> list[int]:
    """So many numbers of steps, from all over, and of as many kinds as can be."""
    wanted: set[int] = set()
    kinds: set[str] = set()
    for count in range(min(at_most, len(steps))):
        # Multiples of the golden ratio fall into each other's largest gaps, and in step with nothing that repeats.
        start = int(count * GOLDEN % 1 * len(steps))
        places = [(start + distance) % len(steps) for distance in range(len(steps))]
        free = [place for place in places if place + 1 not in wanted]
        near = free[: max(1, len(steps) // at_most)]
        place = next((place for place in near if kind_of(steps[place]) not in kinds), free[0])
        kinds.add(kind_of(steps[place]))
        wanted.add(place + 1)
    return sorted(wanted)


def run_killed(stages: Stages, scenario: Scenario, last: int) -> Found:
    """Run a scenario with a daemon that dies at a step (0: at none), recover and check."""
    with stages(scenario.keys) as stage:
        states = scenario.begin(stage)
        daemon = stage.start(dies_at=last)
        stage.arm()
        with _telling(daemon, last):
            manifest = stage.write(scenario.program).finish()
            await_true(lambda: daemon.has_ended() or not stage.journal(), 'all is uploaded')
            if not daemon.has_ended():
                daemon.end()
            killed = was_killed(daemon, last)
            assert killed or manifest.acknowledged == len(scenario.program), f'{manifest.failed}\n{daemon.log_text}'
            recover_and_check(stage, manifest, scenario.program, states, daemon.steps)
    return Found(daemon.steps, killed)


def run_recovery_killed(
    stages: Stages, scenario: Scenario, last: int, remote: Sequence[tuple[str, int, int]] = ()
) -> Found:
    """Have one daemon acknowledge all and be killed, the next die at a step of its recovery, recover and check."""
    with stages(scenario.keys) as stage:
        states = scenario.begin(stage)
        first = stage.start()
        manifest = stage.write(scenario.program).finish()
        assert not manifest.failed, f'{manifest.failed}\n{first.log_text}'
        first.kill()
        stage.clear_mount()
        for path, seed, size in remote:
            stage.put(path, content(seed, size))
        stage.definition['writeback_delay'] = 0
        daemon = stage.start(dies_at=last, armed=True, ready=False)
        with _telling(daemon, last):
            if daemon.await_ready():
                await_true(lambda: daemon.has_ended() or not stage.journal(), 'all is uploaded')
                if not daemon.has_ended():
                    daemon.end()
            if remote:
                recover(stage)
                check_conflicts(stage, states[-1], remote)
            else:
                recover_and_check(stage, manifest, scenario.program, states, daemon.steps)
        return Found(daemon.steps, was_killed(daemon, last))


def was_killed(daemon: Daemon, last: int) -> bool:
    """Whether a daemon came to the step at which it was to die."""
    return 0 < last <= len(daemon.steps)


def recover(stage: Stage) -> None:
    """Start a daemon after one that was killed, and end it once it has done what that one left; nothing is left."""
    stage.clear_mount()
    stage.definition['writeback_delay'] = 0
    daemon = stage.start()
    stage.await_drained()
    daemon.end()
    assert stage.journal() == []
    assert stage.staged() == []


def recover_and_check(
    stage: Stage, manifest: Manifest, program: Sequence[Step], states: Sequence[State], steps: Sequence[str] = ()
) -> None:
    """Recover; what was acknowledged is there, what was under way is there or not, and nothing else.

    ``steps`` of the daemon that was killed.
    """
    recover(stage)
    left = [key for key in stage.uploads() if not is_unknown(key, steps)]
    assert left == [], f'uploads in parts that nobody completes: {left}'
    check(stage.stored(), allowed_after(manifest, program, states))


def is_unknown(key: str, steps: Sequence[str]) -> bool:
    """Whether a daemon died before it could note the upload that it had begun last: only the server knows of that."""
    begun = [place for place, step in enumerate(steps) if step == f'sent POST {key} uploads']
    told = [place for place, step in enumerate(steps) if step == f'answered POST {key} uploads']
    if len(told) < len(begun):
        return True
    since = steps[told[-1] :] if told else []
    drafts = {step.split()[2] for step in since if step.startswith('before open') and '.intent.' in step}
    return not any(step.startswith('after rename') and step.split()[2] in drafts for step in since)


def allowed_after(manifest: Manifest, program: Sequence[Step], states: Sequence[State]) -> list[State]:
    """The states that what a writer was told allows: it has done all, or what it was at is done or not."""
    done = manifest.acknowledged
    return list(states[done : done + 2])


def check(found: State, allowed: Sequence[State]) -> None:
    """Assert that the files are those of a state that is allowed, and the directories of one or the other."""
    differences = [_difference(found.files, state.files) for state in allowed]
    assert '' in differences, ' / or: '.join(differences)
    directories = frozenset().union(*(state.directories for state in allowed))
    assert found.directories <= directories, f'unexpected {sorted(found.directories - directories)}'


def check_conflicts(stage: Stage, wanted: State, remote: Sequence[tuple[str, int, int]]) -> None:
    """Assert that each file which somebody else has replaced is there, and beside it once what was written here."""
    found = stage.stored().files
    for path, seed, size in remote:
        assert stage.get(path) == content(seed, size), f'{path} is not what somebody else has stored last'
        copies = [found.pop(name) for name in list(found) if name.startswith(f'{path}.conflict-')]
        assert copies == [wanted.files[path]], f'{len(copies)} conflict copies of {path}'
        found[path] = wanted.files[path]
    assert not (difference := _difference(found, wanted.files)), difference


def _difference(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    changed = [
        f'{path} is {digest}' + (f', not {wanted[path]}' if path in wanted else ' and should not be there')
        for path, digest in found.items()
        if wanted.get(path) != digest
    ]
    missing = [f'{path} is missing' for path in wanted if path not in found]
    return '; '.join([*changed, *missing][:6])


@contextmanager
def _telling(daemon: Daemon, last: int) -> Iterator[None]:
    """Have a failure say at which step the daemon was killed."""
    try:
        yield
    except AssertionError as error:
        steps = daemon.steps
        if was_killed(daemon, last):
            error.add_note(f'killed at step {last}: {steps[last - 1]}')
            error.add_note('before that: ' + '; '.join(steps[max(0, last - 9) : last - 1]))
        else:
            error.add_note(f'not killed, in {len(steps)} steps')
        raise
