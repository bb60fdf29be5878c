"""A program that uses a mounted tree step by step, while the test looks on or stops the daemon in between.

The daemon is stopped with SIGSTOP: what the program still gets then, the kernel has given it by itself.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

STEP_TIMEOUT_S = 20.0
#: A read from memory takes microseconds; a machine that others use too may not run the program for a while.
ALONE_TIMEOUT_S = 5.0

#: Evaluates one expression after another, in one scope, and prints what it gives or the name of the error. To be run
#: with -I: otherwise imports look into the working directory.
LOOP = """
import errno, mmap, os, sys
scope = {'os': os, 'mmap': mmap}
for line in sys.stdin:
    try:
        print(repr(eval(line, scope)), flush=True)
    except OSError as error:
        print(repr(errno.errorcode[error.errno]), flush=True)
"""


class Program:
    """A Python program in the mounted tree."""

    def __init__(self, process: 'subprocess.Popen[str]') -> None:
        self.process = process
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def does(self, expression: str, timeout_s: float = STEP_TIMEOUT_S) -> Any:
        """What an expression gives there; of an OSError its name, as 'EIO'."""
        self.begin(expression)
        return self.answer(timeout_s)

    def begin(self, expression: str) -> None:
        """Begin with a step, and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(expression + '\n')
        self.process.stdin.flush()

    def answer(self, timeout_s: float = STEP_TIMEOUT_S) -> Any:
        """What the step gave. Raises TimeoutError; the answer may still be waited for."""
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f'no answer within {timeout_s:g} s') from None
        if not answer:
            pytest.fail('the program has ended')
        return eval(answer)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put('')


@contextmanager
def program(directory: Path, *before: str) -> Iterator[Program]:
    """Run a program in a directory; before: a command that becomes it, as setpriv does."""
    process = subprocess.Popen(
        [*before, sys.executable, '-I', '-c', LOOP],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, all of it, for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        while not all(_is_stopped(task) for task in Path(f'/proc/{pid}/task').iterdir()):
            pass
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_stopped(task: Path) -> bool:
    try:
        return (task / 'stat').read_text().rpartition(')')[2].split()[0] == 'T'
    except (FileNotFoundError, ProcessLookupError):  # a thread that was just ending
        return True


#: For what is expected to wait.
WAITING_S = 0.5


def waits(stepping: Program, pid: int, expression: str) -> bool:
    """Whether a step waits for the daemon, for as long as that is stopped."""
    with stopped(pid):
        try:
            stepping.does(expression, WAITING_S)
        except TimeoutError:
            pass
        else:
            return False
    stepping.answer()
    return True


def alone(stepping: Program, pid: int, expression: str, timeout_s: float = ALONE_TIMEOUT_S) -> Any:
    """What a step gives while the daemon is stopped; None if it waits for that.

    ``timeout_s``: WAITING_S where that is expected, or as good.
    """
    with stopped(pid):
        try:
            return stepping.does(expression, timeout_s)
        except TimeoutError:
            pass
    stepping.answer()
    return None
