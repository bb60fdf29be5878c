"""One sick backend harms only its own directory: an S3 server that accepts connections and never answers."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.mount.mounted import Mounted, mounted, s3_definition
from tests.servers import S3Server

#: What memory and local disk may take, beside thirty stalled processes on a machine that others use too.
SOON_S = 1.0
READERS = 30


class Stalled:
    """A TCP server that accepts and reads, and never answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=128)
        self.url = f'http://127.0.0.1:{self.listener.getsockname()[1]}'
        self._accepted = threading.Semaphore(0)
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._accepted.release()

    def wait_for_a_connection(self) -> None:
        assert self._accepted.acquire(timeout=10)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join()
        for connection in self._connections:
            connection.close()


@pytest.fixture
def stalled() -> Iterator[Stalled]:
    server = Stalled()
    yield server
    server.close()


@contextmanager
def tree_with(folder: Path, server: S3Server, stalled: Stalled, timeout: str) -> Iterator[Mounted]:
    """A mount that stalls for so long, and others that are well."""
    (folder / 'local').mkdir()
    (folder / 'local' / 'f').write_text('f')
    sick = s3_definition(server, 'any', name='sick', timeout=timeout) | {'endpoint_url': stalled.url}
    local = {'name': 'local', 'type': 'local', 'path': str(folder / 'local')}
    well = s3_definition(server, server.new_bucket(), name='well')
    with mounted(folder, [sick, {'name': 'memory', 'type': 'memory'}, local, well]) as running:
        yield running


@pytest.fixture
def tree(tmp_path: Path, s3_server: S3Server, stalled: Stalled) -> Iterator[Mounted]:
    # At the end it waits for the requests that nobody waits for any more.
    with tree_with(tmp_path, s3_server, stalled, '2s') as running:
        yield running


def soon(tree: Mounted, script: str, limit_s: float = SOON_S) -> str:
    started = time.monotonic()
    output = tree.sh(script)
    took_s = time.monotonic() - started
    assert took_s < limit_s, f'{script!r} took {took_s:.1f} s'
    return output


def assert_others_are_served(tree: Mounted) -> None:
    assert soon(tree, 'ls -la').count('\n') == 7
    # df looks at what else is mounted on the machine too, which may be dead.
    assert soon(tree, 'df -a >/dev/null 2>&1 || test $? = 1') == ''
    assert soon(tree, 'stat -f memory >/dev/null; echo x > memory/f; cat memory/f') == 'x\n'
    assert soon(tree, 'cat local/f; echo y > local/g; rm local/g') == 'f'
    assert soon(tree, 'echo z > well/f; cat well/f', 5 * SOON_S) == 'z\n'


def test_many_stalled_readers_leave_the_other_mounts_served(
    tmp_path: Path, s3_server: S3Server, stalled: Stalled
) -> None:
    with ExitStack() as stack:
        tree = stack.enter_context(tree_with(tmp_path, s3_server, stalled, '6s'))
        tree.sh('echo z > well/f')  # connects
        readers = []
        for number in range(READERS):
            command = ['cat', f'sick/file-{number}'] if number % 3 else ['ls', 'sick']
            reader = subprocess.Popen(command, cwd=tree.mountpoint, stderr=subprocess.DEVNULL)
            stack.callback(reader.wait, 60)
            stack.callback(reader.kill)
            readers.append(reader)
        stalled.wait_for_a_connection()
        assert_others_are_served(tree)
        assert all(reader.poll() is None for reader in readers)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize('command', [['cat', 'sick/f'], ['ls', 'sick']])
def test_a_stalled_program_dies_at_once_by_a_signal(
    tree: Mounted, stalled: Stalled, number: signal.Signals, command: list[str]
) -> None:
    # env restores what a job in the background of a shell ignores.
    program = subprocess.Popen(
        ['env', '--default-signal=INT', *command], cwd=tree.mountpoint, stderr=subprocess.DEVNULL
    )
    stalled.wait_for_a_connection()
    started = time.monotonic()
    program.send_signal(number)
    assert program.wait(10) == -number
    assert time.monotonic() - started < SOON_S


def test_a_program_that_handles_its_signal_gets_eintr_or_goes_on(tree: Mounted, stalled: Stalled) -> None:
    code = """
import os, signal
def handler(*_): raise KeyboardInterrupt
signal.signal(signal.SIGINT, handler)
print('ready', flush=True)
try: os.stat('sick/f')
except KeyboardInterrupt: print('interrupted', flush=True)
"""
    program = subprocess.Popen([sys.executable, '-c', code], cwd=tree.mountpoint, stdout=subprocess.PIPE, text=True)
    stalled.wait_for_a_connection()
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=10)[0] == 'ready\ninterrupted\n'


def test_a_stalled_mount_says_so_in_the_end(tmp_path: Path, s3_server: S3Server, stalled: Stalled) -> None:
    sick = s3_definition(s3_server, 'any', name='sick', timeout='1s') | {'endpoint_url': stalled.url}
    with mounted(tmp_path, [sick]) as tree:
        started = time.monotonic()
        assert 'Connection timed out' in tree.fails('cat', 'sick/f')
        assert time.monotonic() - started < 8
        assert 'no progress within 1 s' in tree.log_text
        assert stalled.url.removeprefix('http://') in tree.log_text
