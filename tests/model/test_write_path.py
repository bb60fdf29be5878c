"""A real mount against a plain directory in which the same happens: files under change by several handles, names that
move under them, somebody else who overwrites them on the server, and remounts.

Whatever is asked, both answer alike. Where somebody else has changed a file under change, that change wins, the writer
hears of it, and what was written here is beside it, once. After a remount the bucket holds what the directory holds.
"""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from genro_storage import paths
from tests.crash.killing import check
from tests.crash.nursery import Nursery, nursery
from tests.crash.programs import State, content, digest_of
from tests.model.writing_process import Files, perform
from tests.model.writing_world import Changing, Choice, World, choices, kinds, short, world_of
from tests.mount.random_operations import STALE
from tests.servers import S3Server

SLOTS = 3


class WritePath(RuleBasedStateMachine):
    """Ours is the mount, theirs the plain directory. What happens is counted, to see that it does."""

    def __init__(self, world: World, folder: Path, happened: Counter[str]) -> None:
        super().__init__()
        self.world = world
        self.folder = folder
        self.happened = happened

    @initialize()
    def begin(self) -> None:
        self.name = self.world.begin()
        self.theirs = Files(str(self.folder / self.name))
        os.mkdir(self.theirs.directory)
        self.failed = False
        self.slots: dict[int, Changing] = {}
        self.seeds = itertools.count(1)
        self.history: list[str] = []
        for name in ('d', 'e', 'd/d'):
            self.both('mkdir', name)
        for name, size in (('a', 600_000), ('b', 5000), ('d/a', 300_000)):
            self.both('make', name, content(next(self.seeds), size))

    def teardown(self) -> None:
        if hasattr(self, 'slots') and not self.failed:
            self.close_all()
            self.look_at_everything()
            self.look_at_the_server()
            shutil.rmtree(self.theirs.directory)

    @rule(kind=kinds, by=choices)
    def step(self, kind: str, by: Choice) -> None:
        getattr(self, kind)(by)

    # Handles

    def open(self, by: Choice) -> None:
        self.open_file(by.name, by.flag)

    def open_what_is_there(self, by: Choice) -> None:
        self.open_file(self.some_file(by), by.flag & ~os.O_EXCL)

    def open_again(self, by: Choice) -> None:
        self.open_file(self.some_open_file(by), by.flag & ~os.O_EXCL)

    def pwrite(self, by: Choice) -> None:
        self.write_to(by, 'pwrite', by.offset, content(next(self.seeds), by.size))

    def write(self, by: Choice) -> None:
        self.write_to(by, 'write', content(next(self.seeds), by.size))

    def ftruncate(self, by: Choice) -> None:
        self.write_to(by, 'ftruncate', by.offset)

    def pread(self, by: Choice) -> None:
        slot = self.some_slot(by)
        if self.by_handle(slot, 'pread', by.offset, 700_000):
            self.by_handle(slot, 'fstat')

    def fsync(self, by: Choice) -> None:
        self.commit(self.some_slot(by), 'fsync')

    def close(self, by: Choice) -> None:
        self.close_slot(self.some_slot(by))

    # Names

    def read(self, by: Choice) -> None:
        self.both('read_file', self.some_file(by))

    def look(self, by: Choice) -> None:
        for operation in ('size', 'kind', 'names'):
            self.both(operation, by.name)

    def truncate(self, by: Choice) -> None:
        name = self.some_file(by)
        if not self.overwritten and self.both('truncate', name, by.offset) is None:
            changing = self.at(name)
            if changing is not None:
                changing.dirty = None

    def unlink(self, by: Choice) -> None:
        self.unlink_file(by.name)

    def unlink_what_is_there(self, by: Choice) -> None:
        self.unlink_file(self.some_file(by))

    def rename(self, by: Choice) -> None:
        self.rename_to(by.name, by.onto)

    def rename_what_is_there(self, by: Choice) -> None:
        self.rename_to(self.some_file(by), by.onto)

    def rename_what_is_open(self, by: Choice) -> None:
        self.rename_to(self.some_open_file(by), by.onto)

    def rename_over_what_is_open(self, by: Choice) -> None:
        self.rename_to(self.some_file(by), self.some_open_file(by))

    def mkdir(self, by: Choice) -> None:
        self.both('mkdir', by.name)

    def rmdir(self, by: Choice) -> None:
        self.both('rmdir', by.name)

    # Somebody else, and remounts

    def overwrite_what_is_there(self, by: Choice) -> None:
        self.overwrite(self.some_file(by), by.size, by.removes)

    def overwrite_what_is_open(self, by: Choice) -> None:
        self.pwrite(by)  # of what was opened with O_TRUNC only this tells whether it is dirty
        mine = [changing.path for changing in self.changing() if changing.path and self.may_be_taken(changing)]
        if mine:
            self.overwrite(mine[by.number % len(mine)], by.size, by.removes)

    def remount(self, _: Choice) -> None:
        if self.world.remote:
            self.close_all()
            self.world.remount()
            self.look_at_the_server()
            self.look_at_everything()
            self.happened['remounted'] += 1

    # Inside

    def look_at_everything(self) -> None:
        self.both('tree')

    def open_file(self, name: str, flag: int) -> None:
        slot = next((slot for slot in range(SLOTS) if slot not in self.slots), None)
        if slot is None:
            return
        was_there = perform(self.theirs, 'kind', name) == 'file'
        if self.overwritten:
            flag &= ~os.O_TRUNC  # whether that makes it dirty is not known here
        if self.both('open', slot, name, flag) is not None:
            return
        changing = self.at(name)
        if changing is None:
            # An exclusive creation makes the object at once.
            changing = Changing(name, not was_there and not flag & os.O_EXCL, whole=not was_there)
        if flag & os.O_TRUNC:
            changing.dirty, changing.whole = changing.dirty or None, True
        changing.handles += 1
        self.slots[slot] = changing

    def unlink_file(self, name: str) -> None:
        if not self.overwritten and self.both('unlink', name) is None:
            self.lose(name)

    def rename_to(self, source: str, onto: str) -> None:
        if self.overwritten or self.both('rename', source, onto) is not None or source == onto:
            return
        self.lose(onto)
        for changing in self.changing():
            if changing.path is not None and paths.is_within(changing.path, source):
                changing.path = onto + changing.path.removeprefix(source)
                # It may have been committed, or not, and the object has another version.
                changing.dirty = None

    def overwrite(self, name: str, size: int, removes: bool) -> None:
        changing = self.at(name)
        if not self.world.remote or perform(self.theirs, 'kind', name) != 'file':
            return
        if changing is not None and not self.may_be_taken(changing):
            return
        self.world.stage.await_drained()
        if removes and name not in self.stored().files:
            return  # it is nowhere yet but here
        data = b'' if removes else content(next(self.seeds), size)
        self.history.append(f'somebody else makes {name!r} {short(data) if data else "nothing"}')
        if removes:
            self.world.stage.remove(f'{self.name}/{name}')
        else:
            self.world.stage.put(f'{self.name}/{name}', data)
        if changing is None:
            self.replace(name, data)
            self.happened['overwritten'] += 1
        else:
            changing.overwritten = data
            self.happened['overwritten while open'] += 1

    def some_slot(self, by: Choice) -> int:
        if not self.slots:
            self.open_file(self.some_file(by), os.O_RDWR | os.O_CREAT)
        return sorted(self.slots)[by.number % len(self.slots)] if self.slots else -1

    def some_file(self, by: Choice) -> str:
        root = Path(self.theirs.directory)
        files = sorted(str(path.relative_to(root)) for path in root.glob('**/*') if path.is_file())
        return files[by.number % len(files)] if files else by.name

    def some_open_file(self, by: Choice) -> str:
        """Its name, or that of another where it has none."""
        opened = [changing.path for changing in self.changing() if changing.path is not None]
        return opened[by.number % len(opened)] if opened else self.some_file(by)

    def close_slot(self, slot: int) -> None:
        changing = self.slots.get(slot)
        if changing is None:
            return
        if changing.dirty and changing.overwritten is not None and self.world.is_writeback:
            # A close says nothing of the server there; fsync does.
            self.commit(slot, 'fsync')
        if slot in self.slots:
            self.commit(slot, 'close')

    @property
    def overwritten(self) -> bool:
        """Whether a file is open that somebody else has changed: its name must stay, for this to know the answers."""
        return any(changing.overwritten is not None for changing in self.changing())

    def changing(self) -> list[Changing]:
        return list(self.slots.values())

    def at(self, name: str) -> Changing | None:
        return next((changing for changing in self.changing() if changing.path == name), None)

    def may_be_taken(self, changing: Changing) -> bool:
        return changing.dirty is not None and changing.whole and changing.overwritten is None

    def lose(self, name: str) -> None:
        for changing in self.changing():
            if changing.path == name:
                changing.path = None

    def both(self, operation: str, *arguments: Any) -> Any:
        """What both answer, which must be the same."""
        self.history.append(f'{operation} {short(arguments)}')
        ours = self.world.process.perform(operation, *arguments)
        theirs = perform(self.theirs, operation, *arguments)
        self.compare(ours, theirs, operation, arguments)
        return theirs

    def fail(self, what: str) -> NoReturn:
        self.failed = True  # there is nothing to be ended in order any more
        # The choices of a step say little; what they came to says all.
        raise AssertionError(f'{what}; after ' + '; '.join(self.history[-60:]))

    def compare(self, ours: Any, theirs: Any, operation: str, arguments: tuple[Any, ...]) -> None:
        if ours == theirs:
            self.happened[operation if not isinstance(theirs, str) else f'{operation} failed'] += 1
            return
        self.fail(f'{operation} {short(arguments)}: {short(ours)}, expected {short(theirs)}')

    def by_handle(self, slot: int, operation: str, *arguments: Any) -> bool:
        """The same for an operation on a handle; False if that had lost its name, and its bytes were gone with it."""
        if slot not in self.slots:
            return False  # nothing could be opened
        self.history.append(f'{operation} {short((slot, *arguments))}')
        ours = self.world.process.perform(operation, slot, *arguments)
        theirs = perform(self.theirs, operation, slot, *arguments)
        if ours != theirs and ours in STALE and operation != 'close' and self.theirs.is_unlinked(slot):
            self.happened['stale'] += 1
            self.forget(slot)
            return False
        self.compare(ours, theirs, operation, (slot, *arguments))
        return not isinstance(theirs, str)

    def forget(self, slot: int) -> None:
        """Close a handle of a file that has no name any more, on both sides, whatever that says."""
        self.slots.pop(slot).handles -= 1
        self.world.process.perform('close', slot)
        perform(self.theirs, 'close', slot)

    def write_to(self, by: Choice, operation: str, *arguments: Any) -> None:
        slot = self.some_slot(by)
        if self.by_handle(slot, operation, *arguments):
            self.slots[slot].dirty = True

    def commit(self, slot: int, operation: str) -> None:
        """fsync or close."""
        changing = self.slots.get(slot)
        if changing is None:
            return
        if changing.overwritten is not None and changing.dirty:
            self.meet_the_other(slot, changing, operation)
            return
        if not self.by_handle(slot, operation):
            return
        changing.dirty = False
        if operation == 'close':
            del self.slots[slot]
            changing.handles -= 1
            if not changing.handles and changing.overwritten is not None and changing.path is not None:
                self.replace(changing.path, changing.overwritten)

    def meet_the_other(self, slot: int, changing: Changing, operation: str) -> None:
        """A commit of what somebody else has changed: that is there, this is beside it, and the writer hears of it."""
        assert changing.path is not None
        assert changing.overwritten is not None
        written = perform(self.theirs, 'read_file', changing.path)
        self.history.append(f'{operation} {slot}, to meet the other')
        ours = self.world.process.perform(operation, slot)
        if ours != 'errno ESTALE':
            self.fail(f'{operation} of {changing.path!r}, which somebody else has changed: {ours}')
        perform(self.theirs, operation, slot)
        if operation == 'close':
            del self.slots[slot]
        copies = [name for name in self.stored().files if name.startswith(f'{changing.path}.conflict-')]
        if [self.stored().files[name] for name in copies] != [digest_of(written)]:
            self.fail(f'beside {changing.path!r} there are {copies}, not once {digest_of(written)}')
        self.world.stage.remove(f'{self.name}/{copies[0]}')
        self.replace(changing.path, changing.overwritten)
        changing.path, changing.overwritten, changing.dirty = None, None, False
        for other in [other for other, its in self.slots.items() if its is changing]:
            self.by_handle(other, 'close')
            self.slots.pop(other, None)
        self.happened['conflict'] += 1

    def replace(self, name: str, data: bytes) -> None:
        """In the plain directory, what somebody else does: those who have the file open keep it."""
        path = Path(self.theirs.at(name))
        path.unlink()
        if data:
            path.write_bytes(data)

    def close_all(self) -> None:
        while self.slots:
            self.close_slot(next(iter(self.slots)))

    def stored(self) -> State:
        return self.world.stage.stored(f'{self.name}/')

    def look_at_the_server(self) -> None:
        """What the bucket holds is what the plain directory holds."""
        if not self.world.remote:
            return
        self.world.stage.await_drained()
        files: dict[str, str] = {}
        directories = set()
        for path, found in self.theirs.tree():
            name = os.path.normpath(path)
            if found == 'directory':
                directories.add(name)
            else:
                files[name] = digest_of(found[1])
        found_state = self.stored()
        check(found_state, [State(files, frozenset(directories))])
        assert found_state.directories == directories, f'missing: {directories - found_state.directories}'
        assert not self.world.stage.uploads()


def run_machine(world: World, folder: Path, *, examples: int, steps: int, derandomize: bool) -> Counter[str]:
    """Run the machine; what happened."""
    happened: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: WritePath(world, folder, happened),  # type: ignore[arg-type]  # any factory will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
    return happened


@pytest.fixture(scope='module')
def forks() -> Iterator[Nursery]:
    with nursery() as made:
        yield made


@pytest.fixture(scope='module')
def bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


#: Without a TTL what somebody else does is seen at once.
CLOSE = {'durability': 'close', 'ttl': 0}
WRITEBACK = {'durability': 'writeback', 'writeback_delay': 0.05, 'ttl': 0}


WORLDS = pytest.mark.parametrize(
    ('keys', 'expected'),
    [
        (CLOSE, {'overwritten', 'overwritten while open', 'conflict', 'remounted'}),
        (WRITEBACK, {'overwritten', 'overwritten while open', 'conflict', 'remounted'}),
        ({'type': 'memory'}, set()),
    ],
    ids=['S3', 'S3 with writeback', 'memory'],
)


# A failure is made small first, which takes some minutes.
@pytest.mark.timeout(900)
@WORLDS
def test_a_mount_does_what_a_plain_directory_does(
    tmp_path: Path, forks: Nursery, s3_server: S3Server, bucket: str, keys: Mapping[str, Any], expected: set[str]
) -> None:
    with world_of(tmp_path, forks, s3_server, bucket, keys) as world:
        (tmp_path / 'plain').mkdir()
        # Without a server a step takes a tenth of the time.
        examples = 12 if world.remote else 60
        happened = run_machine(world, tmp_path / 'plain', examples=examples, steps=50, derandomize=True)
    assert expected <= set(happened), happened


@pytest.mark.long
@pytest.mark.timeout(3600)
@WORLDS
def test_a_mount_does_what_a_plain_directory_does_over_many_steps(
    tmp_path: Path, forks: Nursery, s3_server: S3Server, bucket: str, keys: Mapping[str, Any], expected: set[str]
) -> None:
    with world_of(tmp_path, forks, s3_server, bucket, keys) as world:
        (tmp_path / 'plain').mkdir()
        happened = run_machine(world, tmp_path / 'plain', examples=300, steps=80, derandomize=False)
    assert expected <= set(happened), happened
