"""One reader of a mount: a manager with its handles, in this process or in one of its own.

Run as a module this is where such processes come from: it has everything imported and no threads, and forks one, in
10 ms, for each connection that it is handed. What a reader does is a method of Reading, called by its name.
Threads: of one caller at a time.
"""

import faulthandler
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from genro_storage import StorageManager
from genro_storage.backends import registry
from genro_storage.backends.base import Backend
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.backends.mounts import Mounts
from genro_storage.config import Definition, MemoryDefinition
from genro_storage.entry import Entry
from genro_storage.errors import StorageError
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock
from genro_storage.testing import ManualClock
from tests.model.shelf import Shelf

MOUNT = 'm'
ROOT = Path(__file__).parents[2]
START_NS = 1_704_067_200_000_000_000


@contextmanager
def remote_in_place_of_memory(make: Callable[[dict[str, Any]], Backend]) -> Iterator[None]:
    """Memory mounts that are made meanwhile are over this instead, which is told their options; guarded as a remote."""
    create = registry.create

    def create_remote(definition: Definition, clock: Clock, mounts: Mounts | None = None) -> Backend:
        if isinstance(definition, MemoryDefinition):
            return GuardedBackend(make(definition.options), clock, definition.timeout_s)
        return create(definition, clock, mounts)

    registry.create = create_remote
    try:
        yield
    finally:
        registry.create = create


class Failed(NamedTuple):
    """What came instead of an answer: the class of a StorageError, and its text."""

    kind: str
    text: str


class Seen(NamedTuple):
    """What an entry says of a file."""

    size_bytes: int
    tag: str


class Reading:
    """A manager over one mount and what is open in it."""

    def __init__(self, configuration: dict[str, Any], now_s: float) -> None:
        self._configuration = configuration
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._clock = ManualClock(START_NS + round(now_s * 1e9))
        self._manager = StorageManager(clock=self._clock)
        with remote_in_place_of_memory(lambda options: Shelf(Path(options['shelf']))):
            self._manager.configure(self._configuration)
        self._volume = self._manager.volume(MOUNT)
        self._handles: dict[int, Reader] = {}

    def restart(self, now_s: float) -> None:
        """Begin anew in the same process: nothing is left but what is on the disk."""
        self.end()
        self._begin(now_s)

    def end(self) -> None:
        """Close all."""
        for handle in self._handles.values():
            handle.close()
        self._manager.close()

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self._clock.advance(seconds)

    def open(self, handle: int, path: str, follows: bool) -> None:
        """Open a file under a number; ``follows``: with open_latest."""
        open_one = self._volume.open_latest if follows else self._volume.open_read
        self._handles[handle] = open_one(path)

    def read(self, handle: int, offset: int, size_bytes: int) -> bytes:
        """Read of an open file."""
        return bytes(self._handles[handle].read(offset, size_bytes))

    def size(self, handle: int) -> int:
        """The size that an open file says it has."""
        return self._handles[handle].size_bytes

    def close(self, handle: int) -> None:
        """Close an open file."""
        self._handles.pop(handle).close()

    def whole(self, path: str) -> bytes:
        """Open, read and close a file, as a program does that uses nodes."""
        return self._manager.node(MOUNT, path).read_bytes()

    def stat(self, path: str) -> Seen:
        """What is said of a file."""
        return _seen(self._volume.stat(path))

    def names(self) -> dict[str, Seen]:
        """What the mount's root is said to have."""
        return {entry.name: _seen(entry) for entry in self._volume.list_directory('')[0]}

    def hand_out(self, path: str) -> tuple[str, bytes] | None:
        """The version and the bytes of a file as the kernel is given it, or None if it is not all on the disk."""
        entry = self._volume.stat(path)
        descriptor = self._volume.complete_file(path, entry)
        if descriptor is None or entry.version is None:
            return None
        with os.fdopen(descriptor, 'rb') as file:
            return entry.version.tag, file.read()

    def ping(self) -> None:
        """Answer."""


def _seen(entry: Entry) -> Seen:
    return Seen(entry.size_bytes, entry.version.tag if entry.version is not None else '')


def perform(reading: Reading, operation: str, *arguments: Any) -> Any:
    """What a method of a Reading returns, or how it Failed."""
    try:
        return getattr(reading, operation)(*arguments)
    except StorageError as error:
        return Failed(type(error).__name__, str(error))


def _serve(connection: Connection) -> None:
    """Do what comes over a connection until it ends. What is wrong here is answered as a text."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    reading: Reading | None = None
    while True:
        try:
            operation, *arguments = connection.recv()
        except EOFError:
            os._exit(0)
        answer: tuple[Any, str | None]
        try:
            if reading is None:
                reading = Reading(*arguments)
                answer = None, None
            else:
                answer = perform(reading, operation, *arguments), None
        except BaseException:  # noqa: BLE001 - it is raised where it was asked for
            answer = None, traceback.format_exc()
        connection.send(answer)


def breed(parent: socket.socket) -> None:
    """Fork a process for each descriptor that comes, and tell its number."""
    signal.signal(signal.SIGCHLD, _bury)
    while True:
        message, descriptors, _, _ = socket.recv_fds(parent, 1, 1)
        if not message:
            return
        child = os.fork()
        if not child:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            parent.close()
            _serve(Connection(descriptors[0]))
        os.close(descriptors[0])
        parent.sendall(child.to_bytes(8, 'little'))


def _bury(*_: object) -> None:
    """Say of what children died, but for those that ended or were killed."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(found[1])
            if code not in {0, -signal.SIGKILL}:
                sys.stderr.write(f'reading process {found[0]} ended with {code}\n')


if __name__ == '__main__':
    # By its name, so that what is sent is of classes that the other side has.
    from tests.model.reading_process import breed

    breed(socket.socket(fileno=int(sys.argv[1])))
