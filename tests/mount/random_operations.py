"""Random system calls on a mount and on a plain folder, which must answer alike.

A program: `random_operations.py DIRECTORY REFERENCE SEED COUNT`. Two directories deep, with several descriptors open
for reading and writing at a time; readers do not stay open, because those of a store keep the version that they opened.
"""

import errno
import os
import random
import sys
from collections.abc import Callable
from typing import Any

NAMES = [f'{folder}{name}' for folder in ('', 'd/', 'e/', 'd/d/') for name in ('a', 'b', 'd')] + ['d', 'e']
FLAGS = [os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR | os.O_CREAT | os.O_TRUNC]
FLAGS += [os.O_RDWR | os.O_APPEND | os.O_CREAT, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC]
LIMIT = 200_000
#: Answers that POSIX leaves open.
ALIKE = {errno.EEXIST: errno.ENOTEMPTY, errno.EPERM: errno.EISDIR}

#: What a store answers about an open file that has lost its name before it was fetched.
STALE = ('errno ESTALE', 'errno EISDIR')


class Side:
    """One of the two directories, and the descriptors that are open in it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.opened: dict[int, int] = {}

    def at(self, name: str) -> str:
        return f'{self.directory}/{name}'

    def open(self, slot: int, name: str, flags: int) -> None:
        fd = os.open(self.at(name), flags, 0o644)
        if slot in self.opened:
            os.close(self.opened[slot])
        self.opened[slot] = fd

    def close(self, slot: int) -> None:
        os.close(self.opened.pop(slot))

    def read_file(self, name: str) -> bytes:
        with open(self.at(name), 'rb') as file:
            return file.read()

    def tree(self) -> list[tuple[str, Any]]:
        """All that is there: names, and of files what they hold."""
        found: list[tuple[str, Any]] = []
        for folder, folders, files in os.walk(self.directory):
            inside = os.path.relpath(folder, self.directory)
            found += [(f'{inside}/{name}', 'directory') for name in folders]
            for name in files:
                path = f'{folder}/{name}'
                with open(path, 'rb') as file:
                    found.append((f'{inside}/{name}', (os.stat(path).st_size, file.read())))
        return sorted(found, key=lambda item: item[0])


Step = Callable[[Side], Any]


def steps(chance: random.Random, sides: list[Side]) -> tuple[str, Step]:
    """A random step, with what it is called."""
    name, other = chance.choice(NAMES), chance.choice(NAMES)
    slot, flags = chance.randrange(6), chance.choice(FLAGS)
    offset, size = chance.randrange(LIMIT), chance.choice([0, 1, 100, 4096, 70_000])
    data = chance.randbytes(size)
    by_handle: list[tuple[str, Step]] = [
        (f'pwrite {slot} {offset} {size}', lambda side: os.pwrite(side.opened[slot], data, offset)),
        (f'pwrite {slot} 0 {size}', lambda side: os.pwrite(side.opened[slot], data, 0)),
        (f'write {slot} {size}', lambda side: os.write(side.opened[slot], data)),
        (f'pread {slot} {offset}', lambda side: os.pread(side.opened[slot], 90_000, offset // 2)),
        (f'ftruncate {slot} {offset}', lambda side: os.ftruncate(side.opened[slot], offset)),
        (f'fsync {slot}', lambda side: os.fsync(side.opened[slot])),
        (f'fstat {slot}', lambda side: os.fstat(side.opened[slot]).st_size),
        (f'close {slot}', lambda side: side.close(slot)),
    ]
    by_name: list[tuple[str, Step]] = [
        (f'open {slot} {name} {flags:o}', lambda side: side.open(slot, name, flags)),
        (f'open {slot} {name} {flags:o}', lambda side: side.open(slot, name, flags)),
        (f'read {name}', lambda side: side.read_file(name)),
        (f'truncate {name} {offset}', lambda side: os.truncate(side.at(name), offset)),
        (f'unlink {name}', lambda side: os.unlink(side.at(name))),
        (f'rename {name} {other}', lambda side: os.rename(side.at(name), side.at(other))),
        (f'mkdir {name}', lambda side: os.mkdir(side.at(name))),
        (f'rmdir {name}', lambda side: os.rmdir(side.at(name))),
        (f'listdir {name}', lambda side: sorted(os.listdir(side.at(name)))),
        (f'stat {name}', lambda side: (os.path.isdir(side.at(name)), os.path.isfile(side.at(name)))),
        (f'size {name}', lambda side: os.path.isfile(side.at(name)) and os.stat(side.at(name)).st_size),
        ('tree', lambda side: side.tree()),
    ]
    return chance.choice(by_handle if slot in sides[0].opened and chance.random() < 0.6 else by_name)


def outcome(step: Step, side: Side) -> Any:
    """What a step returned, or the errno that it failed with."""
    try:
        return step(side)
    except OSError as error:
        return f'errno {errno.errorcode[ALIKE.get(error.errno or 0, error.errno or 0)]}'


def main(directory: str, reference: str, seed: int, count: int) -> int:
    """Run so many steps; 1 and a message if the two sides differ."""
    chance = random.Random(seed)
    sides = [Side(directory), Side(reference)]
    log: list[str] = []
    for _ in range(count):
        called, step = steps(chance, sides)
        ours, theirs = (outcome(step, side) for side in sides)
        log.append(called)
        if ours == theirs:
            continue
        if ours in STALE and _is_gone(sides[1], called):
            for side in sides:
                side.close(int(called.split()[1]))
            continue
        print(f'seed {seed}, step {len(log)}: {called}: {_short(ours)}, expected {_short(theirs)}')  # noqa: T201
        print('after', '; '.join(log[-40:-1]))  # noqa: T201
        return 1
    for side in sides:
        for slot in list(side.opened):
            side.close(slot)
    ours, theirs = (side.tree() for side in sides)
    if ours != theirs:
        print(f'seed {seed}: in the end {_short(ours)}, expected {_short(theirs)}')  # noqa: T201
        return 1
    return 0


def _is_gone(reference: Side, called: str) -> bool:
    """Whether a step was about an open file without a name: a store has it only as far as it was fetched or written."""
    slot = called.split()[1]
    return slot.isdigit() and int(slot) in reference.opened and os.fstat(reference.opened[int(slot)]).st_nlink == 0


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f'{len(value)} bytes {value[:20]!r}…'
    if isinstance(value, list):
        return str([(item[0], item[1] if isinstance(item[1], str) else item[1][0]) for item in value if len(item) == 2])
    return repr(value)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
