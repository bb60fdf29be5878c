"""What a writer does through a mount, and what has to be there after each of its steps.

A program is a list of steps, plain lists that JSON can hold: a name and arguments. ``run`` does them in a process of
its own and writes into a manifest, made durable, when one begins and when it has succeeded; ``Reference`` does them on
a table in memory. What a step has made visible counts from a close or fsync that succeeded.

Steps: write PATH SEED SIZE (a new content, closed), append PATH SEED SIZE (closed), open SLOT PATH (to write, made if
missing), empty SLOT PATH (the same, with O_TRUNC), pwrite SLOT OFFSET SEED SIZE, truncate SLOT SIZE, fsync SLOT,
close SLOT, rename SOURCE TARGET, unlink PATH, mkdir PATH, rmdir PATH, sync (fsync of the root: all of the mount), await
FILE (outside of the mount).
"""

import errno
import hashlib
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

Step = Sequence[Any]


def content(seed: int, size_bytes: int) -> bytes:
    """Bytes that no other seed has."""
    return random.Random(seed).randbytes(size_bytes)


def digest_of(data: bytes) -> str:
    """What two contents are compared by, and how failures name one: its length and a checksum."""
    return f'{len(data)} bytes {hashlib.blake2b(data, digest_size=6).hexdigest()}'


class State(NamedTuple):
    """What is visible: the digest of each file, and the directories."""

    files: dict[str, str]
    directories: frozenset[str]


class Reference:
    """What a mount must have stored after the steps that it was told."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._digests: dict[str, str] = {}  # of the files whose content has not changed since it was asked for
        self._directories: set[str] = set()
        self._open: dict[int, tuple[str, bytearray]] = {}

    def put(self, path: str, data: bytes) -> None:
        """A file is there, whoever put it."""
        self._files[path] = data
        self._digests.pop(path, None)
        self._directories.update(_above(path))

    def apply(self, step: Step) -> None:
        """A step has succeeded."""
        getattr(self, f'_{step[0]}')(*step[1:])

    @property
    def state(self) -> State:
        """What is visible now."""
        for path, data in self._files.items():
            self._digests[path] = self._digests.get(path) or digest_of(data)
        return State({path: self._digests[path] for path in self._files}, frozenset(self._directories))

    def _write(self, path: str, seed: int, size: int) -> None:
        self.put(path, content(seed, size))

    def _append(self, path: str, seed: int, size: int) -> None:
        self.put(path, self._files.get(path, b'') + content(seed, size))

    def _open_(self, slot: int, path: str) -> None:
        self._open[slot] = path, bytearray(self._files.get(path, b''))

    def _empty(self, slot: int, path: str) -> None:
        self._open[slot] = path, bytearray()

    def _pwrite(self, slot: int, offset: int, seed: int, size: int) -> None:
        data = self._open[slot][1]
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + size] = content(seed, size)

    def _truncate(self, slot: int, size: int) -> None:
        data = self._open[slot][1]
        data[:] = data[:size].ljust(size, b'\0')

    def _fsync(self, slot: int) -> None:
        path, data = self._open[slot]
        self.put(path, bytes(data))

    def _close(self, slot: int) -> None:
        self._fsync(slot)
        del self._open[slot]

    def _rename(self, source: str, target: str) -> None:
        for path in [path for path in self._files if f'{path}/'.startswith(f'{source}/')]:
            self.put(target + path.removeprefix(source), self._files.pop(path))
        for path in [path for path in self._directories if f'{path}/'.startswith(f'{source}/')]:
            self._directories.remove(path)
            self._directories.add(target + path.removeprefix(source))

    def _unlink(self, path: str) -> None:
        del self._files[path]

    def _mkdir(self, path: str) -> None:
        self._directories.add(path)

    def _rmdir(self, path: str) -> None:
        self._directories.remove(path)

    def _sync(self) -> None:
        pass

    def _await(self, _: str) -> None:
        pass


def states_of(reference: Reference, program: Sequence[Step]) -> list[State]:
    """What is visible before the first step, and after each."""
    states = [reference.state]
    for step in program:
        reference.apply(['open_', *step[1:]] if step[0] == 'open' else step)
        states.append(reference.state)
    return states


def _above(path: str) -> list[str]:
    names = path.split('/')[:-1]
    return ['/'.join(names[: count + 1]) for count in range(len(names))]


# In the writer


class _Writer:
    def __init__(self, root: str) -> None:
        self._root = root
        self._open: dict[int, int] = {}

    def do(self, step: Step) -> None:
        getattr(self, f'_{step[0]}')(*step[1:])

    def _at(self, path: str) -> str:
        return f'{self._root}/{path}'

    def _write(self, path: str, seed: int, size: int, flags: int = os.O_TRUNC) -> None:
        descriptor = os.open(self._at(path), os.O_WRONLY | os.O_CREAT | flags, 0o644)
        try:
            _write_all(descriptor, content(seed, size))
        except OSError:
            # What is on its way is given up; a close that fails too says nothing new.
            try:
                os.close(descriptor)
            except OSError as error:
                print(f'closing {path} after a failure: {error}', flush=True)  # noqa: T201
            raise
        os.close(descriptor)

    def _append(self, path: str, seed: int, size: int) -> None:
        self._write(path, seed, size, os.O_APPEND)

    def _open_(self, slot: int, path: str, flags: int = 0) -> None:
        self._open[slot] = os.open(self._at(path), os.O_RDWR | os.O_CREAT | flags, 0o644)

    def _empty(self, slot: int, path: str) -> None:
        self._open_(slot, path, os.O_TRUNC)

    def _pwrite(self, slot: int, offset: int, seed: int, size: int) -> None:
        _write_all(self._open[slot], content(seed, size), offset)

    def _truncate(self, slot: int, size: int) -> None:
        os.ftruncate(self._open[slot], size)

    def _fsync(self, slot: int) -> None:
        os.fsync(self._open[slot])

    def _close(self, slot: int) -> None:
        os.close(self._open.pop(slot))

    def _rename(self, source: str, target: str) -> None:
        os.rename(self._at(source), self._at(target))

    def _unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def _mkdir(self, path: str) -> None:
        os.mkdir(self._at(path))

    def _rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def _await(self, file: str) -> None:
        while not os.path.exists(file):
            time.sleep(0.005)

    def _sync(self) -> None:
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int | None = None) -> None:
    left = memoryview(data)
    while left:
        done = os.write(descriptor, left) if offset is None else os.pwrite(descriptor, left, offset)
        left = left[done:]
        offset = None if offset is None else offset + done


def run(root: str, program: str, manifest: str, goes_on: bool = False) -> int:
    """Do the steps of a file in a directory. ``goes_on`` after a failure; otherwise a failure ends it, with 1."""
    steps = json.loads(Path(program).read_text())
    log = os.open(manifest, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer = _Writer(root)

    def note(line: str) -> None:
        os.write(log, f'{line}\n'.encode())
        os.fsync(log)

    for number, step in enumerate(steps):
        note(f'begin {number}')
        try:
            writer.do(['open_', *step[1:]] if step[0] == 'open' else step)
        except OSError as error:
            note(f'failed {number} {errno.errorcode[error.errno or 0]}')
            if not goes_on:
                return 1
        else:
            note(f'done {number}')
    return 0


class Manifest:
    """What a writer has noted."""

    def __init__(self, path: Path) -> None:
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        self.done = [int(line[1]) for line in lines if line[0] == 'done']
        self.failed = {int(line[1]): line[2] for line in lines if line[0] == 'failed'}

    @property
    def acknowledged(self) -> int:
        """How many steps, of a writer that ends with the first that fails."""
        return len(self.done)
