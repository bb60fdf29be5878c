"""Where the daemons and the writers of these tests come from: a process that has everything imported forks them.

A daemon is ready in some 50 ms that way, where a start of the interpreter takes half a second, and a test that kills
one at each of its steps needs hundreds. Run as a module it is the nursery, which has one thread and connects nowhere;
a child does what its role's function does and ends as a program ends. Threads: of one caller at a time.
"""

import ctypes
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: What children need. Not obstore, which does not survive a fork.
_IMPORTED = (
    'fusefs.main',
    'fusefs.session',
    'genro_storage.manager',
    'genro_storage.backends.object_store',
    'genro_storage.backends.s3',
    'tests.crash.dying',
    'tests.crash.programs',
)


class Child:
    """A process that the nursery forked."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether it has, or does within some time."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def signal(self, number: int) -> None:
        """Send a signal; to one that has ended, nothing."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def is_dying(self) -> bool:
        """Whether it has been killed, and a thread of it is still in the kernel."""
        try:
            state = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()[0]
        except FileNotFoundError:
            return False
        return state == 'Z' and not self.has_ended()

    def kill(self) -> None:
        """End it without a word, and wait until it has."""
        self.signal(signal.SIGKILL)
        if not self.has_ended(PATIENCE_S):
            raise TimeoutError(f'process {self.pid} has not ended {PATIENCE_S:g} s after SIGKILL')

    def close(self) -> None:
        """Forget it."""
        os.close(self._descriptor)


class Nursery:
    """See the module."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours

    def start(self, role: str, log: Path, env: Mapping[str, str], *arguments: Any) -> Child:
        """Fork a child that calls ``role``, 'module.function', with arguments that JSON can hold.

        It prints into a file that is there.
        """
        order = {'role': role, 'log': str(log), 'env': dict(env), 'arguments': arguments}
        self._ours.send(json.dumps(order).encode())
        answer, descriptors, _, _ = socket.recv_fds(self._ours, 64, 1)
        return Child(int(answer), descriptors[0])


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery; its children end with it at the latest."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with its:
            command = [sys.executable, '-m', 'tests.crash.nursery', str(its.fileno())]
            process = subprocess.Popen(command, pass_fds=[its.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL)
        ours.settimeout(PATIENCE_S)
        try:
            yield Nursery(ours)
        finally:
            ours.close()
            process.wait(PATIENCE_S)


def await_true(condition: Any, what: str, within_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds. Raises AssertionError if it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f'{what}: not within {within_s:g} s'
        time.sleep(0.005)


# In the nursery


def _rear(theirs: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each order; in a child its order, None in the nursery once nobody orders any more."""
    while order := theirs.recv(1 << 20):
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pid = os.fork()
        if not pid:
            return dict(json.loads(order))
        descriptor = os.pidfd_open(pid)
        socket.send_fds(theirs, [str(pid).encode()], [descriptor])
        os.close(descriptor)
    return None


def _become(order: Mapping[str, Any]) -> Any:
    """What a program of its own would have, and then what it does."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(order['log'], os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    os.environ.clear()
    os.environ.update(order['env'])
    os.chdir('/')
    module, _, function = order['role'].rpartition('.')
    return getattr(importlib.import_module(module), function)(*order['arguments'])


def main(descriptor: int) -> Any:
    """The nursery, and in each child what that is for."""
    for module in _IMPORTED:
        importlib.import_module(module)
    assert 'obstore' not in sys.modules
    assert threading.active_count() == 1
    with socket.socket(fileno=descriptor) as theirs:
        order = _rear(theirs)
    return None if order is None else _become(order)


if __name__ == '__main__':
    sys.exit(main(int(sys.argv[1])))
