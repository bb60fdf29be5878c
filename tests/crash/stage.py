"""One mount over a prefix of a bucket, on a fresh directory: its daemons, its writers, and what is left of it all.

Owns the configuration, the processes and the dead mounts, and what the server and the local folders hold in the end,
asked for past the code under test. The process of the tests never touches the mounted tree. Threads: of one caller.
"""

import itertools
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.crash.nursery import PATIENCE_S, Child, Nursery, await_true
from tests.crash.programs import Manifest, State, Step, digest_of
from tests.mount.mounted import environment, mounted_below, run, s3_definition
from tests.servers import S3Server

MOUNT = 'm'
#: A process that is killed is gone within milliseconds.
HUNG_AFTER_S = 0.5
_numbers = itertools.count(1)


class Stage:
    """See the module. ``keys`` are the definition's."""

    def __init__(self, folder: Path, nursery: Nursery, server: S3Server, bucket: str, **keys: Any) -> None:
        self.folder = folder
        self.mountpoint = folder / 'mnt'
        self.cache = folder / 'cache-of-the-mount'
        self.prefix = f'stage-{os.getpid()}-{next(_numbers)}'
        self._nursery = nursery
        self._server = server
        self._bucket = bucket
        self._env = environment(folder)
        self._control = folder / 'control'
        self._children: list[Child] = []
        self._count = 0
        #: How many daemons the kernel would not let go of.
        self.hung = 0
        keys = {'cache': 'memory', 'ttl': 10, 'timeout': 5, 'prefix': self.prefix, **keys}
        self.definition = s3_definition(server, bucket, MOUNT, **keys)
        self._control.write_bytes(b'0')

    # Processes

    def start(self, *, dies_at: int = 0, armed: bool = False, ready: bool = True) -> 'Daemon':
        """A daemon that is ready; ``dies_at`` a step, counted from arm() on, or with ``armed`` from its start."""
        self._count += 1
        name = f'{self._count}'
        config = self.folder / 'storage.json'
        config.write_text(
            json.dumps({'mounts': [self.definition], 'cache': {'path': str(self.cache), 'memory': '32MiB'}})
        )
        config.chmod(0o600)
        self._count_steps(armed)
        trace, log = self.folder / f'trace-{name}', self.folder / f'daemon-{name}.log'
        arguments = ['-f', '-c', str(config), str(self.mountpoint)]
        child = self._start('tests.crash.dying.serve', log, str(self._control), str(trace), dies_at, arguments)
        daemon = Daemon(self, child, trace, log)
        if ready:
            assert daemon.await_ready(), f'genro-mount has ended:\n{daemon.log_text}'
        return daemon

    def arm(self) -> None:
        """From here on steps count."""
        self._count_steps(True)

    def write(self, program: Sequence[Step], *, goes_on: bool = False, inside: str = '') -> 'Writer':
        """A writer that does a program in the mount."""
        self._count += 1
        file = self.folder / f'program-{self._count}.json'
        file.write_text(json.dumps(program))
        manifest, log = self.folder / f'manifest-{self._count}', self.folder / f'writer-{self._count}.log'
        root = self.mountpoint / MOUNT / inside
        child = self._start('tests.crash.programs.run', log, str(root), str(file), str(manifest), goes_on)
        return Writer(self, child, manifest, log)

    def tell(self, name: str) -> None:
        """Have those go on who wait in a program for at(name)."""
        Path(self.at(name)).touch()

    def at(self, name: str) -> str:
        """A file of the stage, for programs."""
        return str(self.folder / name)

    def clear_mount(self) -> None:
        """Take away what a daemon that was killed has left mounted."""
        for _ in mounted_below(self.mountpoint):
            run('umount', '-l', self.mountpoint)

    def end(self) -> None:
        """Kill all that is there still."""
        for child in self._children:
            child.signal(signal.SIGKILL)
        for child in self._children:
            self.await_end(child)
            child.close()
        self.clear_mount()

    def has_ended(self, child: Child) -> bool:
        """Whether a process has.

        A daemon that is killed while it tells the kernel of a change may stay in there: it waits for the lock of a
        directory, and who holds that waits for the daemon. Only force ends such a mount, and is used here.
        """
        if child.has_ended():
            return True
        for other in self._children:
            if other.is_dying() and not other.has_ended(HUNG_AFTER_S):
                self.hung += 1
                run('umount', '-f', self.mountpoint)
        return child.has_ended()

    def await_end(self, child: Child) -> None:
        """Wait for the end of a process. Raises AssertionError."""
        await_true(lambda: self.has_ended(child), f'process {child.pid} ends')

    def _count_steps(self, on: bool) -> None:
        with self._control.open('r+b') as file:  # never empty: daemons have it mapped
            file.write(b'1' if on else b'0')

    def _start(self, role: str, log: Path, *arguments: Any) -> Child:
        log.touch()
        child = self._nursery.start(role, log, self._env, *arguments)
        self._children.append(child)
        return child

    # What is left

    def put(self, path: str, data: bytes) -> None:
        """Store an object as somebody else would."""
        self._server.put(self._bucket, f'{self.prefix}/{path}', data)

    def remove(self, path: str) -> None:
        """Remove an object as somebody else would."""
        self._server.request('delete_object', Bucket=self._bucket, Key=f'{self.prefix}/{path}')

    def stored(self, inside: str = '') -> State:
        """What the server has, or what of it is in a directory (``'name/'``); paths are from there."""
        prefix = f'{self.prefix}/{inside}'
        keys = [key.removeprefix(prefix) for key in self._server.keys(self._bucket, prefix)]
        files = {key: digest_of(self.get(inside + key)) for key in keys if key and not key.endswith('/')}
        directories = {
            key[: place + 1].rstrip('/') for key in keys for place, letter in enumerate(key) if letter == '/'
        }
        return State(files, frozenset(directories - {''}))

    def get(self, path: str) -> bytes:
        """An object."""
        answer = self._server.request('get_object', Bucket=self._bucket, Key=f'{self.prefix}/{path}')
        return bytes(answer['Body'].read())

    def uploads(self) -> list[str]:
        """The keys of uploads in parts that were neither completed nor aborted."""
        prefix = f'{self.prefix}/'
        keys = self._server.uploads(self._bucket)
        return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]

    def journal(self) -> list[str]:
        """The files of all journals but the locks and the names of destinations, wherever they may be."""
        found: list[Path] = []
        for folder in [folder for root in self._roots for folder in root.glob('*/*')]:
            with suppress(FileNotFoundError, NotADirectoryError):  # it has just been given up, or is a name
                found += [path for path in folder.iterdir() if path.name != 'lock']
        return sorted(str(path.relative_to(self.folder)) for path in found)

    def staged(self) -> list[str]:
        """Files that writing has left on the local disk beside the journal."""
        found = [path for root in [self.cache, *self._roots] for path in root.glob('staging/*')]
        return sorted(str(path.relative_to(self.folder)) for path in found)

    @property
    def _roots(self) -> list[Path]:
        return [self.cache / 'journal', self.folder / 'state' / 'genro-storage' / 'journal']

    def await_drained(self, within_s: float = PATIENCE_S) -> None:
        """Wait until nothing is in a journal any more."""
        await_true(lambda: not self.journal(), f'an empty journal ({self.journal()[:4]} …)', within_s)


class Daemon:
    """genro-mount, in a process of its own."""

    def __init__(self, stage: Stage, child: Child, trace: Path, log: Path) -> None:
        self._child = child
        self._stage = stage
        self._trace = trace
        self._log = log

    @property
    def log_text(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors='replace')

    @property
    def steps(self) -> list[str]:
        """The steps it has begun with, in order; paths and keys as they are inside of the stage."""
        text = self._trace.read_text() if self._trace.exists() else ''
        return text.replace(f'{self._stage.folder}/', '').replace(f'{self._stage.prefix}/', '').splitlines()

    def await_ready(self) -> bool:
        """Wait until it serves; False if it was killed before. Raises AssertionError if it failed."""
        await_true(lambda: 'is ready' in self.log_text or self.has_ended(), 'genro-mount is ready')
        return 'is ready' in self.log_text

    def end(self) -> None:
        """Unmount, and wait until it has committed everything: as genro-umount does. SIGTERM is noticed later."""
        run('umount', self._stage.mountpoint)
        self._stage.await_end(self._child)
        assert not mounted_below(self._stage.mountpoint), self.log_text
        assert 'Traceback' not in self.log_text, self.log_text

    def kill(self) -> None:
        """As SIGKILL does; what it has left mounted stays."""
        self._child.signal(signal.SIGKILL)
        self._stage.await_end(self._child)

    def has_ended(self) -> bool:
        """Whether its process has."""
        return self._stage.has_ended(self._child)


class Writer:
    """A process that writes into the mount."""

    def __init__(self, stage: Stage, child: Child, manifest: Path, log: Path) -> None:
        self._stage = stage
        self._child = child
        self._manifest = manifest
        self._log = log

    @property
    def manifest(self) -> Manifest:
        """What it has noted so far."""
        return Manifest(self._manifest)

    def finish(self) -> Manifest:
        """Wait for its end; what it has noted."""
        self._stage.await_end(self._child)
        text = self._log.read_text()
        assert 'Traceback' not in text, text
        return self.manifest


@contextmanager
def stage(folder: Path, nursery: Nursery, server: S3Server, bucket: str, **keys: Any) -> Iterator[Stage]:
    """A stage; nothing of it runs or is mounted afterwards."""
    folder.mkdir(exist_ok=True)
    made = Stage(folder, nursery, server, bucket, **keys)
    try:
        yield made
    finally:
        made.end()
