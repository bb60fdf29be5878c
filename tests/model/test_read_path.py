"""The whole read path against a history of what was where: two processes on one cache directory, and somebody else who
changes everything behind their backs.

A reader sees one version of a file through one open file, or ESTALE once that is gone; never a mixture, and never bytes
that were never there. Files carry their version and place in every 16 bytes, so a wrong byte tells where it came from.
"""

import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from genro_storage.cache.blocks import BLOCK_BYTES
from tests.model.history import Content, History, Sight, told_by
from tests.model.processes import Elsewhere, Here, Nursery, nursery
from tests.model.reading_process import MOUNT, Failed, Seen
from tests.model.stores import S3Store, ShelfStore, Store, in_memory
from tests.servers import S3Server

TTL_S = 10
PATHS = ('a', 'b', 'c', 'd', 'e')
SIZES = (3 * BLOCK_BYTES + 1000, 7 * BLOCK_BYTES, BLOCK_BYTES + 1, BLOCK_BYTES, BLOCK_BYTES - 1, 1, 0)
#: A memory tier of a few blocks, so that the disk is asked, or of all; a disk that evicts, or one with room for all.
MEMORY = (1 << 20, 64 << 20)
DISK = (3 << 20, 1 << 30)


class Slot(NamedTuple):
    """Where one of the two has a file open, or could: each has a path open three times at most."""

    side: int
    path: str
    nth: int

    @property
    def follows(self) -> bool:
        """Whether it is opened with open_latest."""
        return self.nth == 1


class Open(NamedTuple):
    """A file that is open: the number of the handle, and what it may show."""

    number: int
    sight: Sight


paths = st.sampled_from(PATHS)
sides = st.integers(0, 1)
sizes = st.sampled_from(SIZES)
slots = st.builds(Slot, sides, paths, st.integers(0, 2))
steps = st.sampled_from((4096, BLOCK_BYTES // 2, BLOCK_BYTES + 5000))
changes = st.sampled_from(('put of the same size', 'put', 'nothing', 'remove'))
blocks = st.integers(0, 7)
near = st.sampled_from((0, 0, 1, -1, 1000, -1000, BLOCK_BYTES // 2))
lengths = st.sampled_from((1, 100, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 1 << 30))
times = st.sampled_from((1, TTL_S - 1, TTL_S, TTL_S + 1, 100))


class ReadPath(RuleBasedStateMachine):
    """A (0) reads in this process, B (1) in one that is killed. What happens is counted, to see that it does."""

    def __init__(self, store: Store, processes: Nursery, happened: Counter[str]) -> None:
        super().__init__()
        self.store = store
        self.processes = processes
        self.happened = happened

    @initialize(memory=st.sampled_from(MEMORY), disk=st.sampled_from(DISK), first=st.tuples(*[sizes] * len(PATHS)))
    def begin(self, memory: int, disk: int, first: tuple[int, ...]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix='read-path-'))
        self.store.clear()
        self.history = History(TTL_S)
        self.opened = 0
        self.files: dict[Slot, Open] = {}
        self.configuration = {
            'mounts': [{'name': MOUNT, 'ttl': TTL_S, 'cache': 'disk', **self.store.definition}],
            'cache': {'path': str(self.folder), 'memory': memory, 'disk': disk},
        }
        self.a = Here(self.configuration, 0)
        self.b = self._start_b()
        for path, size in zip(PATHS, first, strict=True):
            self.put(path, size)

    def teardown(self) -> None:
        if hasattr(self, 'b'):
            with ExitStack() as stack:
                stack.callback(shutil.rmtree, self.folder)
                stack.callback(self.a.end)
                stack.callback(self.b.end)

    # What somebody else does

    @rule(path=paths, size=sizes)
    def put(self, path: str, size: int) -> None:
        content = self.history.make(path, size)
        content.tag = self.store.put(path, content.data)
        self.history.became(path, content)

    @rule(path=paths)
    def put_of_the_same_size(self, path: str) -> None:
        there = self.history.current(path)
        if there is not None:
            self.put(path, there.size_bytes)

    @rule(path=paths)
    def remove(self, path: str) -> None:
        if self.history.current(path) is not None:
            self.store.remove(path)
            self.history.became(path, None)

    @rule(path=paths, size=sizes)
    def put_by_rename(self, path: str, size: int) -> None:
        self.put('draft', size)
        self._rename('draft', path)

    @rule(source=paths, onto=paths, size=sizes)
    def rename_and_put_anew(self, source: str, onto: str, size: int) -> None:
        if self.history.current(source) is not None and source != onto:
            self._rename(source, onto)
            self.put(source, size)

    @rule(seconds=times)
    def time_goes_by(self, seconds: int) -> None:
        self.history.now_s += seconds
        self.a.ask('advance', seconds)
        self.b.ask('advance', seconds)

    # What the two look at

    @rule(side=sides, path=paths)
    def stat(self, side: int, path: str) -> None:
        found = self._ask(side, 'stat', path)
        self._check_entry(path, None if isinstance(found, Failed) else found, found)

    @rule(side=sides)
    def list_all(self, side: int) -> None:
        found = self._ask(side, 'names')
        assert not isinstance(found, Failed), found
        assert set(found) <= set(PATHS)
        for path in PATHS:
            self._check_entry(path, found.get(path), found)

    @rule(side=sides)
    def read_all_in_a_row(self, side: int) -> None:
        self.list_all(side)
        for path in PATHS:
            self._check_whole(path, self._ask(side, 'whole', path))

    @rule(side=sides, path=paths)
    def read_whole_and_hand_out(self, side: int, path: str) -> None:
        self._check_whole(path, self._ask(side, 'whole', path))
        found = self._ask(side, 'hand_out', path)
        if isinstance(found, Failed):
            self._check_absence(path, found)
        elif found is not None:
            tag, data = found
            self.happened['handed out from the disk'] += 1
            right = [each for each in self._contents(path) if each.tag == tag and each.data == data]
            assert right, f'{path!r} as {tag!r} was handed out as {told_by(data, 0)}'

    # Open files

    @rule(slot=slots)
    def open(self, slot: Slot) -> None:
        self._opened(slot)

    @rule(slot=slots, block=blocks, more=near, length=lengths)
    def read(self, slot: Slot, block: int, more: int, length: int) -> None:
        file = self._opened(slot)
        if file is not None:
            self._read(slot, file, max(0, file.sight.place(block) + more), length)

    @rule(slot=slots, block=blocks, pieces=st.integers(2, 12), step=steps, by=st.sampled_from((1, 1, 2, -1)))
    def read_on(self, slot: Slot, block: int, pieces: int, step: int, by: int) -> None:
        """In sequence, in strides, or backward."""
        file = self._opened(slot)
        if file is not None:
            start = file.sight.place(block)
            for offset in range(start, start + pieces * step * by, step * by):
                if offset >= 0:
                    self._read(slot, file, offset, step)

    @rule(slot=slots)
    def ask_for_the_size(self, slot: Slot) -> None:
        file = self._opened(slot)
        if file is not None:
            answer = self._ask(slot.side, 'size', file.number)
            assert not isinstance(answer, Failed), answer
            file.sight.tells_size(answer)

    @rule(slot=slots)
    def close(self, slot: Slot) -> None:
        file = self.files.pop(slot, None)
        if file is not None:
            assert self._ask(slot.side, 'close', file.number) is None

    # Both at once, and while something changes

    @rule(path=paths, change=changes, size=sizes)
    def both_read_while_it_changes(self, path: str, change: str, size: int) -> None:
        self.b.tell('whole', path)
        mine = self.a.ask('whole', path)
        self._check_whole(path, mine)
        self._change(path, change, size)
        self._check_whole(path, self.b.answer())

    @rule(slot=slots, before=blocks, change=changes, size=sizes, after=blocks, length=lengths, at_once=st.booleans())
    def an_open_file_changes(
        self, slot: Slot, before: int, change: str, size: int, after: int, length: int, at_once: bool
    ) -> None:
        """After a read, and before the next one or while that is under way."""
        file = self._opened(slot)
        if file is None:
            return
        self._read(slot, file, file.sight.place(before), 1000)
        offset = file.sight.place(after)
        # What goes on to the newest until it has told something may meet any of what there is in between.
        if at_once and slot.side and (file.sight.told or not slot.follows):
            self.b.tell('read', file.number, offset, length)
            self._change(slot.path, change, size)
            self._check_read(file, offset, length, self.b.answer())
        else:
            self._change(slot.path, change, size)
            self._read(slot, file, offset, length)

    # Ends and beginnings

    @rule()
    def restart_a(self) -> None:
        self.a.ask('restart', self.history.now_s)
        self._forget(0)

    @rule(at_work=st.booleans(), path=paths)
    def restart_b_after_a_kill(self, at_work: bool, path: str) -> None:
        if at_work:
            self.b.tell('whole', path)
        self.b.kill()
        self.b = self._start_b()
        self._forget(1)

    @rule(which=st.integers(0, 99), at=st.integers(0, 1 << 21), change=st.integers(1, 255))
    def restart_both_with_a_byte_damaged(self, which: int, at: int, change: int) -> None:
        # Blocks are compared with their checksums once for as long as a file is open, so nobody has any open.
        self.a.end()
        self.b.kill()
        self._forget(0)
        self._forget(1)
        # What has come to the disk by now differs from run to run, so nothing is drawn that depends on it.
        found = sorted(path for path in (self.folder / 'blocks').glob('**/*') if path.is_file() and path.stat().st_size)
        if found:
            path = found[which % len(found)]
            at %= path.stat().st_size
            with path.open('r+b') as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ change]))
            self.happened['damaged'] += 1
        self.a = Here(self.configuration, self.history.now_s)
        self.b = self._start_b()

    # Inside

    def _start_b(self) -> Elsewhere:
        return self.processes.start(self.configuration, self.history.now_s)

    def _forget(self, side: int) -> None:
        self.files = {slot: file for slot, file in self.files.items() if slot.side != side}

    def _ask(self, side: int, operation: str, *arguments: Any) -> Any:
        return (self.b if side else self.a).ask(operation, *arguments)

    def _contents(self, path: str) -> list[Content]:
        return [each for each in self.history.believable(path) if each is not None]

    def _opened(self, slot: Slot) -> Open | None:
        """What is open there, or opens now; None if nothing is there to open."""
        file = self.files.get(slot)
        if file is None:
            self.opened += 1
            sight = Sight(self.history, slot.path, follows=slot.follows)
            answer = self._ask(slot.side, 'open', self.opened, slot.path, slot.follows)
            if isinstance(answer, Failed):
                self._check_absence(slot.path, answer)
                return None
            assert sight.possible, f'{slot.path!r} was opened and was never there'
            file = self.files[slot] = Open(self.opened, sight)
        return file

    def _read(self, slot: Slot, file: Open, offset: int, length: int) -> None:
        self._check_read(file, offset, length, self._ask(slot.side, 'read', file.number, offset, length))

    def _rename(self, source: str, onto: str) -> None:
        self.store.rename(source, onto)
        self.history.became(onto, self.history.current(source))
        self.history.became(source, None)

    def _change(self, path: str, change: str, size: int) -> None:
        if change == 'put':
            self.put(path, size)
        elif change == 'put of the same size':
            self.put_of_the_same_size(path)
        elif change == 'remove':
            self.remove(path)

    def _check_read(self, file: Open, offset: int, length: int, answer: Any) -> None:
        if isinstance(answer, Failed):
            self.happened['stale'] += 1
            file.sight.refuses(answer.kind)
            return
        file.sight.shows(offset, length, answer)
        if answer:
            self.happened['old bytes' if file.sight.is_old else 'new bytes'] += 1

    def _check_whole(self, path: str, answer: Any) -> None:
        if isinstance(answer, Failed) and answer.kind == 'StorageConflictError':
            gone = [each for each in self._contents(path) if not self.history.is_there(each, path)]
            assert gone, f'{answer} though nothing of {path!r} has changed'
            self.happened['stale as a whole'] += 1
        elif isinstance(answer, Failed):
            self._check_absence(path, answer)
        else:
            right = [each for each in self._contents(path) if each.data == answer]
            assert right, f'{path!r}: {told_by(answer, 0)}; believable: {self.history.believable(path)}'
            self.happened['read as a whole'] += 1

    def _check_absence(self, path: str, answer: Failed) -> None:
        assert answer.kind == 'StorageNotFoundError', answer
        assert None in self.history.believable(path), f'{answer}; believable: {self.history.believable(path)}'
        self.happened['not found'] += 1

    def _check_entry(self, path: str, seen: Seen | None, answer: Any) -> None:
        if seen is None:
            assert not isinstance(answer, Failed) or answer.kind == 'StorageNotFoundError', answer
            assert None in self.history.believable(path), f'{path!r} is missing; {self.history.believable(path)}'
        else:
            right = [each for each in self._contents(path) if (each.size_bytes, each.tag) == seen]
            assert right, f'{path!r} is {seen}; believable: {self.history.believable(path)}'


def check(store: Store, *, examples: int, steps: int) -> Counter[str]:
    """Run the machine over a store; what happened."""
    happened: Counter[str] = Counter()
    with nursery() as processes:
        run_state_machine_as_test(
            lambda: ReadPath(store, processes, happened),  # type: ignore[arg-type]  # any factory will do
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
    return happened


OFTEN = ('old bytes', 'new bytes', 'stale', 'read as a whole', 'not found', 'damaged')


# A failure is made small first, which takes some minutes.
@pytest.mark.timeout(900)
def test_readers_of_two_processes_see_one_version_whatever_happens() -> None:
    with in_memory() as folder:
        happened = check(ShelfStore(folder), examples=120, steps=40)
    assert set(OFTEN) <= set(happened), happened


@pytest.mark.timeout(900)
def test_readers_of_s3_see_one_version_whatever_happens(s3_server: S3Server) -> None:
    happened = check(S3Store(s3_server), examples=6, steps=40)
    assert {'new bytes', 'read as a whole'} <= set(happened), happened


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_readers_of_two_processes_see_one_version_over_many_steps() -> None:
    with in_memory() as folder:
        happened = check(ShelfStore(folder), examples=1000, steps=80)
    assert {*OFTEN, 'handed out from the disk', 'stale as a whole'} <= set(happened), happened


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_readers_of_s3_see_one_version_over_many_steps(s3_server: S3Server) -> None:
    happened = check(S3Store(s3_server), examples=60, steps=60)
    assert set(OFTEN) <= set(happened), happened
