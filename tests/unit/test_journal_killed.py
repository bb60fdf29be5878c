"""The journal when its process dies: killed before and after every step, and many that adopt at once.

Run as a module, this is what forks the processes that die: a process with one thread.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from genro_storage.writing.journal import Held, Journal
from genro_storage.writing.journal_survey import everything
from tests.unit.journals import Nameless, add, add_inline, content_of, files_below, found, journal_in, put

ROOT = Path(__file__).parents[2]
STEPS = ('fsync', 'link', 'rename', 'replace', 'unlink', 'mkdir', 'rmdir', 'open', 'write')

Content = list[tuple[str, bytes]]
#: Something that a process does, and what must be found once it has returned.
Action = tuple[Callable[[], object], Content]


class Life:
    """What one process does, action after action; how far it came is told by one byte for each."""

    def __init__(self, folder: Path, progress: int) -> None:
        self.folder = folder
        self.journal = journal_in(folder)
        self._progress = progress
        self.held: dict[str, Held] = {}

    def run(self, actions: Sequence[Action]) -> None:
        for action, _ in actions:
            action()
            os.write(self._progress, b'.')

    def add(self, name: str, content: bytes) -> None:
        self.held[name] = add(self.journal, name, content)

    def link(self, name: str, content: bytes) -> None:
        data = Nameless(self.folder, content)
        self.held[name] = self.journal.add(put(self.journal, name, content), data)
        data.close()

    def inline(self, name: str, content: bytes) -> None:
        self.held[name] = add_inline(self.journal, name, content)

    def replace(self, name: str, content: bytes) -> None:
        data = Nameless(self.folder, content)
        self.held[name] = self.journal.replace(self.held[name], put(self.journal, name, content), data)
        data.close()

    def rewrite(self, name: str, target: str) -> None:
        held = self.held.pop(name)
        self.held[target] = self.journal.rewrite(held, msgspec.structs.replace(held.intent, path=target))

    def drop(self, name: str) -> None:
        self.journal.drop(self.held.pop(name))

    def adopt(self) -> None:
        for held in self.journal.adopt():
            self.held[held.intent.path] = held


def writes(life: Life) -> list[Action]:
    """Everything that a process does with its own folder."""
    a, b, c = ('a', b'first'), ('b', b'second' * 1000), ('c', b'')
    small, renamed = ('small', b'in the\nrecord'), ('renamed', b'in the\nrecord')
    newer = ('a', b'first, written again')
    moved = ('moved', b'second' * 1000)
    return [
        (lambda: life.add(*a), [a]),
        (lambda: life.link(*b), [a, b]),
        (lambda: life.add(*c), [a, b, c]),
        (lambda: life.replace(*newer), [newer, b, c]),
        (lambda: life.journal.failed(life.held['c'], OSError('no')), [newer, b, c]),
        (lambda: life.rewrite('b', 'moved'), [newer, c, moved]),
        (lambda: life.drop('c'), [newer, moved]),
        (lambda: life.inline(*small), [newer, moved, small]),
        (lambda: life.rewrite('small', 'renamed'), [newer, moved, renamed]),
        (lambda: life.drop('renamed'), [newer, moved]),
        (lambda: life.drop('a'), [moved]),
        (life.journal.close, [moved]),
    ]


def takes_over(life: Life) -> list[Action]:
    """What a process does with the folders of others, one of which has rests in it."""
    old, parked, newer = ('old', b'old'), ('parked', b'not sent'), ('old', b'not so old')
    return [
        (life.adopt, [old, parked]),
        (lambda: life.add('own', b'own'), [old, ('own', b'own'), parked]),
        (lambda: life.replace(*newer), [newer, ('own', b'own'), parked]),
        (lambda: life.drop('parked'), [newer, ('own', b'own')]),
        (lambda: life.drop('old'), [('own', b'own')]),
        (lambda: life.drop('own'), []),
        (life.journal.close, []),
    ]


def nothing(folder: Path) -> None:
    """Before there is any journal."""
    folder.mkdir()


def orphans(folder: Path) -> None:
    """Two folders of processes that are gone, with what a death in the middle leaves."""
    nothing(folder)
    first, second = journal_in(folder), journal_in(folder)
    add(first, 'old', b'old')
    torn = add(first, 'torn', b'never acknowledged')
    replaced = add(second, 'parked', b'an earlier one')
    record, data = replaced.data_path.with_suffix('.intent').read_bytes(), replaced.data_path.read_bytes()
    second.replace(replaced, put(second, 'parked', b'not sent'), b'not sent')
    replaced.data_path.with_suffix('.intent').write_bytes(record)
    replaced.data_path.write_bytes(data)
    torn.data_path.with_suffix('.intent').rename(f'{torn.data_path.with_suffix(".intent")}.0011aabb.tmp')
    first.close()
    second.close()
    assert [each.state for each in everything(first.root)] == ['waiting'] * 2


LIVES: dict[str, tuple[Callable[[Path], None], Callable[[Life], list[Action]], Content]] = {
    'writes': (nothing, writes, []),
    'takes_over': (orphans, takes_over, [('old', b'old'), ('parked', b'not sent')]),
}


def die_at_step(last: int) -> None:
    """Have this process killed at its n-th step from here: before or after a call, or in the middle of a write."""
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(name: str) -> Callable[..., object]:
        call = getattr(os, name)

        def counted(*arguments: object, **options: object) -> object:
            if name == 'open' and not int(str(arguments[1])) & os.O_CREAT:
                return call(*arguments, **options)
            step()
            if name == 'write':
                descriptor, data = arguments
                assert isinstance(data, bytes | memoryview)
                if done + 1 == last:
                    call(descriptor, data[: len(data) // 2])
                    step()
            result = call(*arguments, **options)
            step()
            return result

        return counted

    for name in STEPS:
        setattr(os, name, around(name))


def live(folder: Path, name: str, last: int, progress: int) -> None:
    """One process, up to the step at which it dies."""
    life = Life(folder, progress)
    actions = LIVES[name][1](life)
    tell, os_write = progress, os.write
    die_at_step(last)
    for action, _ in actions:
        action()
        os_write(tell, b'.')


def kill_at_every_step(folder: Path, name: str) -> int:
    """After each death, what was acknowledged is there, once and whole; how many steps there were."""
    prepare, actions_of, before = LIVES[name]
    for last in range(1, 10_000):
        root = folder / f'{last}'
        prepare(root)
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            live(root, name, last, send)
            os._exit(0)
        os.close(send)
        status = os.waitpid(child, 0)[1]
        done = len(os.read(receive, 1000))
        os.close(receive)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, (last, status)
        states = [sorted(before), *(sorted(state) for _, state in actions_of(Life(root, -1)))]
        check(root, states[done : done + 2], f'{name}, step {last}, {done} actions')
        shutil.rmtree(root)
        if status == 0:
            return last
    raise AssertionError('it never came to an end')


def check(folder: Path, allowed: Sequence[Content], where: str) -> None:
    seen = {(each.intent.path if each.intent else '') for each in everything(journal_in(folder).root)}
    after = journal_in(folder)
    held = after.adopt()
    contents = found(held)
    assert contents in allowed, f'{where}: found {contents}; expected one of {allowed}'
    assert seen == {path for path, _ in contents}, f'{where}: status showed {seen}'
    assert journal_in(folder).adopt() == [], where
    after.close()
    last = journal_in(folder)
    again = last.adopt()
    assert found(again) == contents, where
    for each in again:
        last.drop(each)
    # It works on, and leaves nothing behind but what names the destination and the root.
    last.drop(add(last, 'new', b'new'))
    last.close()
    left = {Path(path).name for path in files_below(folder) if not path.startswith('state/')}
    assert all(name.startswith('destination') for name in left), f'{where}: left {left}'
    assert not [path for path in after.root.glob('*/*') if path.is_dir()], where


def adopt_at_once(folder: Path, processes: int) -> list[list[str]]:
    """Have many processes adopt at one moment, while somebody looks all the time; what each got."""
    gate, opened = os.pipe()
    answers = []
    for number in range(processes + 1):
        receive, send = os.pipe()
        if not os.fork():
            os.close(opened)
            journal = journal_in(folder)
            os.read(gate, 1)  # the end of file, for all at once
            if number == processes:
                deadline = time.monotonic() + 0.1
                while time.monotonic() < deadline:
                    everything(journal.root)
                got = []
            else:
                got = [f'{each.intent.path}={content_of(each).decode()}' for each in journal.adopt()]
            os.write(send, json.dumps(got).encode() + b'\n')
            sys.stdin.read()  # held until the end of all
            os._exit(0)
        os.close(send)
        answers.append(receive)
    os.close(gate)
    os.close(opened)
    return [json.loads(os.read(receive, 1 << 16)) for receive in answers]


def in_a_process_of_its_own(folder: Path, *arguments: str) -> str:
    with subprocess.Popen(
        [sys.executable, '-m', 'tests.unit.test_journal_killed', str(folder), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors
        return line


@pytest.mark.parametrize('name', LIVES)
def test_what_was_acknowledged_survives_a_kill_at_every_step(tmp_path: Path, name: str) -> None:
    steps = int(in_a_process_of_its_own(tmp_path, name))
    assert steps > {'writes': 100, 'takes_over': 80}[name]


@pytest.mark.parametrize('attempt', range(5))
def test_of_many_that_adopt_at_once_exactly_one_gets_each(tmp_path: Path, attempt: int) -> None:
    expected = []
    journals: list[Journal] = []
    for number in range(12):
        journals.append(journal_in(tmp_path))
        add(journals[-1], f'{number}', f'content {attempt}'.encode())
        expected.append(f'{number}=content {attempt}')
    for journal in journals:
        journal.close()
    got = json.loads(in_a_process_of_its_own(tmp_path, 'adopt', '4'))
    assert sorted(name for each in got for name in each) == sorted(expected)


if __name__ == '__main__':
    target, what, *more = sys.argv[1:]
    if what == 'adopt':
        print(json.dumps(adopt_at_once(Path(target), int(more[0]))), flush=True)  # noqa: T201
    else:
        print(kill_at_every_step(Path(target), what), flush=True)  # noqa: T201
