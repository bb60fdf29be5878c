"""The real genro-mount on a fresh mountpoint, in a process of its own, and its end whatever happens.

Owns the environment of that process (HOME and the XDG folders are the test's), the wait until it is ready, and the
proof that nothing is left: no mount, no process, no traceback in its log. What looks at the mounted tree does so in a
further process with a time limit (Mounted.run), because a server that hangs would hang whoever looks.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genro_storage.mountinfo import MountInfo, mounts
from tests.servers import S3Server

CHECKOUT = Path(__file__).parents[2]
MOUNT = [sys.executable, '-c', 'import sys; from fusefs.main import mount; sys.exit(mount())']
UMOUNT = [sys.executable, '-c', 'import sys; from fusefs.main import umount; sys.exit(umount())']

#: It takes half a second where nothing else runs.
READY_TIMEOUT_S = 30.0
RUN_TIMEOUT_S = 30.0
END_TIMEOUT_S = 40.0
POLL_S = 0.02

Definitions = Sequence[Mapping[str, Any]]


def environment(folder: Path) -> dict[str, str]:
    """An environment whose HOME and XDG folders are below a folder of the test."""
    home = folder / 'home'
    home.mkdir(exist_ok=True)
    return {
        'PATH': os.environ['PATH'],
        'LANG': 'C.UTF-8',
        'HOME': str(home),
        'PYTHONPATH': str(CHECKOUT),
        **{f'XDG_{name}_HOME': str(folder / name.lower()) for name in ('CONFIG', 'CACHE', 'DATA', 'STATE')},
    }


def s3_definition(server: S3Server, bucket: str, name: str = 'bucket', **keys: Any) -> dict[str, Any]:
    """The definition of a mount of a bucket."""
    return {
        'name': name,
        'type': 's3',
        'bucket': bucket,
        'endpoint_url': server.endpoint_url,
        'region': server.region,
        'key': server.key,
        'secret': server.secret,
        **keys,
    }


def write_config(
    folder: Path, definitions: Definitions, name: str = 'storage.json', settings: Mapping[str, Any] | None = None
) -> Path:
    """A configuration file of these mounts, and of what is set for all of them."""
    path = folder / name
    path.write_text(json.dumps({'mounts': list(definitions), **(settings or {})}))
    path.chmod(0o600)
    return path


def mounted_below(folder: Path) -> list[MountInfo]:
    """What is mounted at or below a folder."""
    return [mount for mount in mounts() if f'{mount.mountpoint}/'.startswith(f'{folder}/')]


def run(
    *command: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = RUN_TIMEOUT_S, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed, whether it succeeded or not."""
    return subprocess.run(
        [str(part) for part in command],
        env=env,
        timeout=timeout_s,
        stdin=more.pop('stdin', subprocess.DEVNULL),
        check=False,
        **{'capture_output': True, 'text': True, 'errors': 'surrogateescape', **more},
    )


class Mounted:
    """A mounted tree and the process that serves it."""

    def __init__(self, mountpoint: Path, process: subprocess.Popen[bytes], log: Path, env: Mapping[str, str]) -> None:
        self.mountpoint = mountpoint
        self.process = process
        self.env = env
        #: Of the tree with all kinds of mounts (conftest.everything): what is behind two of them.
        self.bucket = ''
        self.folder = Path()
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log_text(self) -> str:
        return self._log.read_text(errors='replace')

    def path(self, mount: str, *parts: str) -> Path:
        """A path in the mounted tree."""
        return self.mountpoint.joinpath(mount, *parts)

    def run(self, *command: str | Path, **more: Any) -> str:
        """Run a command that must succeed, by default in the root of the tree; what it printed."""
        done = run(*command, env=self.env, **{'cwd': self.mountpoint, **more})
        assert done.returncode == 0, f'{command} returned {done.returncode}: {done.stdout}{done.stderr}'
        return str(done.stdout)

    def sh(self, script: str, **more: Any) -> str:
        """Run a shell script that must succeed."""
        return self.run('sh', '-euc', script, **more)

    def fails(self, *command: str | Path, **more: Any) -> str:
        """Run a command that must fail of itself, not by a signal; what it said."""
        done = run(*command, env=self.env, **{'cwd': self.mountpoint, **more})
        assert done.returncode > 0, f'{command} returned {done.returncode}: {done.stdout}'
        return str(done.stderr)

    def unmount(self) -> subprocess.CompletedProcess[str]:
        """Run genro-umount."""
        return run(*UMOUNT, self.mountpoint, env=self.env, timeout_s=END_TIMEOUT_S)


@contextmanager
def mounted(
    folder: Path,
    definitions: Definitions,
    *arguments: str,
    mountpoint: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Mounted]:
    """Mount definitions on a directory, and leave nothing behind."""
    mountpoint = mountpoint or folder / 'mnt'
    env = environment(folder)
    log = folder / f'{mountpoint.name}.log'
    config = write_config(folder, definitions, f'{mountpoint.name}.json', settings)
    with log.open('wb') as output:
        process = subprocess.Popen(
            # Should the tests be killed, the server is asked to end and unmounts.
            ['setpriv', '--pdeathsig', 'TERM', *MOUNT, '-f', '-c', str(config), *arguments, str(mountpoint)],
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    tree = Mounted(mountpoint, process, log, env)
    try:
        _await_ready(tree)
        yield tree
    finally:
        problem = _end(tree)
    assert not problem, f'{problem}\n{tree.log_text}'
    assert 'Traceback' not in tree.log_text, tree.log_text


@contextmanager
def all_kinds(
    folder: Path, server: S3Server, *arguments: str, settings: Mapping[str, Any] | None = None
) -> Iterator[Mounted]:
    """A tree of three mounts: 'bucket', 'memory' and 'local'."""
    bucket = server.new_bucket()
    local = folder / 'local'
    local.mkdir()
    definitions = [
        s3_definition(server, bucket),
        {'name': 'memory', 'type': 'memory'},
        {'name': 'local', 'type': 'local', 'path': str(local)},
    ]
    with mounted(folder, definitions, *arguments, settings=settings) as tree:
        tree.bucket, tree.folder = bucket, local
        yield tree


def _await_ready(tree: Mounted) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while 'is ready' not in tree.log_text:
        if tree.process.poll() is not None:
            pytest.fail(f'genro-mount ended with {tree.process.returncode}:\n{tree.log_text}')
        if time.monotonic() > deadline:
            pytest.fail(f'genro-mount was not ready within {READY_TIMEOUT_S:g} s:\n{tree.log_text}')
        time.sleep(POLL_S)


def _end(tree: Mounted) -> str:
    """Unmount and end the process, by force if need be; what went wrong, '' if nothing."""
    problem = ''
    if mounted_below(tree.mountpoint):
        try:
            done = tree.unmount()
            problem = done.stderr if done.returncode else ''
        except subprocess.TimeoutExpired as error:
            problem = str(error)
    else:
        tree.process.send_signal(signal.SIGTERM)
    try:
        tree.process.wait(1 if problem else END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        problem = problem or f'the process has not ended within {END_TIMEOUT_S:g} s'
    tree.process.kill()
    tree.process.wait()
    if left := mounted_below(tree.mountpoint):
        problem = problem or f'still mounted: {left}'
        for _ in left:
            run('umount', '-l', tree.mountpoint)
    return problem


def await_true(condition: Any, timeout_s: float = 10.0, what: str = 'it') -> None:
    """Wait until a condition holds; fail if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f'{what} did not become true within {timeout_s:g} s')
        time.sleep(POLL_S)
