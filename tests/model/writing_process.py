"""What programs do in a directory, one call at a time: here on a plain folder, in a process of its own on a mount.

Run as a module it is that process, which answers over a socket; a daemon that hangs would hang whoever calls. Threads:
of one caller at a time.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.mount.random_operations import Side, outcome

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0


class Files(Side):
    """A directory, and the descriptors that are open in it, each in a slot."""

    def make(self, name: str, data: bytes) -> None:
        with open(self.at(name), 'wb', buffering=0) as file:
            file.write(data)

    def pwrite(self, slot: int, offset: int, data: bytes) -> int:
        return os.pwrite(self.opened[slot], data, offset)

    def write(self, slot: int, data: bytes) -> int:
        return os.write(self.opened[slot], data)

    def pread(self, slot: int, offset: int, size: int) -> bytes:
        return os.pread(self.opened[slot], size, offset)

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.opened[slot], size)

    def fsync(self, slot: int) -> None:
        os.fsync(self.opened[slot])

    def fstat(self, slot: int) -> int:
        return os.fstat(self.opened[slot]).st_size

    def truncate(self, name: str, size: int) -> None:
        os.truncate(self.at(name), size)

    def unlink(self, name: str) -> None:
        os.unlink(self.at(name))

    def rename(self, source: str, target: str) -> None:
        os.rename(self.at(source), self.at(target))

    def mkdir(self, name: str) -> None:
        os.mkdir(self.at(name))

    def rmdir(self, name: str) -> None:
        os.rmdir(self.at(name))

    def names(self, name: str) -> list[str]:
        return sorted(os.listdir(self.at(name)))

    def kind(self, name: str) -> str:
        return 'directory' if os.path.isdir(self.at(name)) else 'file' if os.path.isfile(self.at(name)) else 'nothing'

    def size(self, name: str) -> int:
        return os.stat(self.at(name)).st_size if os.path.isfile(self.at(name)) else -1

    def close(self, slot: int) -> None:
        # Whatever close(2) says, the descriptor is gone.
        os.close(self.opened.pop(slot))

    def close_all(self) -> None:
        """Close what is left, whatever that says."""
        for descriptor in self.opened.values():
            with suppress(OSError):
                os.close(descriptor)

    def is_unlinked(self, slot: int) -> bool:
        """Whether what is open has lost its name."""
        return os.fstat(self.opened[slot]).st_nlink == 0


def perform(files: Files, operation: str, *arguments: Any) -> Any:
    """What an operation returned, or the errno that it failed with."""
    return outcome(lambda side: getattr(side, operation)(*arguments), files)


class Elsewhere:
    """Files in a process that may hang."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def perform(self, operation: str, *arguments: Any) -> Any:
        """As perform(); 'begin' with a directory goes on there."""
        self._connection.send((operation, *arguments))
        if not self._connection.poll(PATIENCE_S):
            raise TimeoutError(f'{operation} {arguments} has not returned within {PATIENCE_S:g} s')
        return self._connection.recv()


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """A process for mounted trees."""
    mine, its = socket.socketpair()
    with its:
        command = [sys.executable, '-m', 'tests.model.writing_process', str(its.fileno())]
        process = subprocess.Popen(command, pass_fds=[its.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL)
    with Connection(mine.detach()) as connection:
        try:
            yield Elsewhere(connection)
        finally:
            process.kill()
            process.wait(PATIENCE_S)


def main(descriptor: int) -> None:
    """Answer until nobody asks any more."""
    files = Files('')
    with Connection(descriptor) as connection:
        while True:
            try:
                operation, *arguments = connection.recv()
            except EOFError:
                return
            if operation == 'begin':
                files.close_all()
                files = Files(arguments[0])
                connection.send(outcome(lambda side: os.mkdir(side.directory), files))
            else:
                connection.send(perform(files, operation, *arguments))


if __name__ == '__main__':
    main(int(sys.argv[1]))
