"""Readers by name, here or in a process that can be killed: the machine tells both the same things.

Owns the processes. Threads: of one caller at a time.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from tests.model.reading_process import ROOT, Reading, perform

#: An answer takes milliseconds; one that does not come in so long is a reader that hangs.
PATIENCE_S = 30.0


class Here:
    """A reader in this process."""

    def __init__(self, configuration: dict[str, Any], now_s: float) -> None:
        self._reading = Reading(configuration, now_s)

    def ask(self, operation: str, *arguments: Any) -> Any:
        """What a method of Reading returns, or how it Failed."""
        return perform(self._reading, operation, *arguments)

    def end(self) -> None:
        """Close all."""
        self._reading.end()


class Elsewhere:
    """A reader in a process of its own."""

    def __init__(self, pid: int, connection: Connection, configuration: dict[str, Any], now_s: float) -> None:
        self._pid = pid
        self._connection = connection
        self.ask('begin', configuration, now_s)

    def ask(self, operation: str, *arguments: Any) -> Any:
        """As of Here."""
        self.tell(operation, *arguments)
        return self.answer()

    def tell(self, operation: str, *arguments: Any) -> None:
        """Have it begin, and go on; answer() waits for the end."""
        try:
            self._connection.send((operation, *arguments))
        except ConnectionError as error:
            raise AssertionError(f'process {self._pid} has died') from error

    def answer(self) -> Any:
        """What came of what it was told."""
        if not self._connection.poll(PATIENCE_S):
            os.kill(self._pid, signal.SIGUSR1)  # it prints its stacks
            raise TimeoutError(f'process {self._pid} has not answered within {PATIENCE_S:g} s')
        try:
            answer, failure = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise AssertionError(f'process {self._pid} has died') from error
        if failure is not None:
            raise AssertionError(f'in the other process:\n{failure}')
        return answer

    def kill(self) -> None:
        """End it without a word, whatever it is doing; it is gone when this returns."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(EOFError, OSError):  # the end, after a message or in the middle of one
            while True:
                self._connection.recv_bytes()
        self._connection.close()

    def end(self) -> None:
        """Close all, in order, unless it was killed."""
        if self._connection.closed:
            return
        try:
            self.ask('end')
        finally:
            self.kill()


class Nursery:
    """Where processes come from that read."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours

    def start(self, configuration: dict[str, Any], now_s: float) -> Elsewhere:
        """A new process over a cache directory that others may use too."""
        mine, its = socket.socketpair()
        with its:
            socket.send_fds(self._ours, [b'+'], [its.fileno()])
            pid = int.from_bytes(self._ours.recv(8), 'little')
        return Elsewhere(pid, Connection(mine.detach()), configuration, now_s)


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery, which ends with this; its children when their connections do."""
    ours, its = socket.socketpair()
    with ours:
        with its:
            command = [sys.executable, '-m', 'tests.model.reading_process', str(its.fileno())]
            process = subprocess.Popen(command, pass_fds=[its.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL)
        ours.settimeout(PATIENCE_S)
        try:
            yield Nursery(ours)
        finally:
            ours.close()
            process.wait(PATIENCE_S)
