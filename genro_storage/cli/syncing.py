"""Waiting until what was written is committed: through a mounted tree, or in this process where nobody serves it.

Owns which of the two a path means, the deadline, the line of progress, and what is said of what is left. Does not
upload: fsync(2) of a mounted tree and Volume.sync do. Threads: the waiting happens on one that ends with the process,
because fsync cannot be given up.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import msgspec

from genro_storage import config as configuration
from genro_storage import paths
from genro_storage.cli.survey import ANSWER_TIMEOUT_S, Item, waits
from genro_storage.cli.text import shown, size
from genro_storage.errors import StorageError
from genro_storage.manager import StorageManager
from genro_storage.mounted import RETRY_ATTRIBUTE, MountStatus, ask
from genro_storage.mountinfo import MountInfo, mount_of, mounts, resolve
from genro_storage.writing.journal_survey import Waiting

PROGRESS_S = 1.0
#: A local mount has no journal, and would keep the attribute.
_LOCAL = 'local'


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is at or below a path of a mount. ``destination``: '' where it is not known."""

    mount: str
    path: str
    destination: str = ''

    def holds(self, waiting: Waiting) -> bool:
        """Whether something that waits is there."""
        intent = waiting.intent
        if intent is None:
            return bool(self.destination) and waiting.destination == self.destination
        if self.destination and waiting.destination != self.destination:
            return False
        if not self.destination and intent.mount != self.mount:
            return False
        moves = bool(intent.target) and paths.is_within(intent.target, self.path)
        return intent.kind != 'upload' and (moves or paths.is_within(intent.path, self.path))


class Sync:
    """One run of the command."""

    def __init__(self, config: str | None, *, timeout_s: float | None, retry: bool) -> None:
        self._config = config
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._retry = retry
        self._places: list[Place] = []  # of the target under way; replaced whole

    def run(self, targets: Sequence[str], *, progress: bool) -> list[str]:
        """Sync each in turn; a line for each thing that is wrong."""
        return [line for target in targets for line in self._sync(target, progress)]

    def _sync(self, target: str, progress: bool) -> list[str]:
        began_ns = time.time_ns()
        self._places = []
        problems: list[str] = []

        def work() -> None:
            try:
                problems.extend(f'{target}: {text}' for text in self._wait_for(target))
            except (StorageError, OSError, TypeError) as error:
                problems.append(f'{target}: {_text_of(error)}')

        if not self._in_time(work, progress):
            problems.append(f'{target}: not committed within {self._timeout_s:g} s')
        unread: list[str] = []
        left = [each for each in waits(unread) if any(place.holds(each) for place in self._places)]
        # What others have written since need not be there yet.
        problems.extend(_line_of(each) for each in left if each.created_ns <= began_ns)
        return [shown(line) for line in problems + unread]

    def _in_time(self, work: Callable[[], None], progress: bool) -> bool:
        """Whether it has ended before the deadline."""
        worker = threading.Thread(target=work, name='sync', daemon=True)
        worker.start()
        drawn = False
        while worker.is_alive():
            rest_s = None if self._deadline is None else self._deadline - time.monotonic()
            if rest_s is not None and rest_s <= 0:
                break
            worker.join(PROGRESS_S if rest_s is None else min(PROGRESS_S, rest_s))
            if progress and worker.is_alive():
                drawn = True
                click.echo(f'\r{self._progress():<60}', nl=False, err=True)
        if drawn:
            click.echo(f'\r{"":<60}\r', nl=False, err=True)
        return not worker.is_alive()

    def _progress(self) -> str:
        left = [each for each in waits([]) if any(place.holds(each) for place in self._places)]
        return f'{len(left)} to upload, {size(sum(each.size_bytes for each in left))}'

    def _wait_for(self, target: str) -> Iterator[str]:
        table = mounts()
        path = resolve(target, table)
        mount = None if self._config else mount_of(path, table)
        if mount is not None and mount.is_ours:
            yield from self._sync_mounted(path, mount)
        elif self._config or (':' in target and not os.path.lexists(target)):
            self._sync_here(target)
        else:
            yield "not in a mounted tree of genro-storage; of a mount that is not mounted, say 'mount:path'"

    def _sync_mounted(self, path: Path, mount: MountInfo) -> Iterator[str]:
        known = {each.name: each for each in ask(mount.mountpoint, ANSWER_TIMEOUT_S).mounts}
        inside = str(path.relative_to(mount.mountpoint))
        names = sorted(known) or os.listdir(path) if inside == '.' else [inside]
        self._places = [_place_of(name, known) for name in names]
        for place in self._places:
            try:
                local = place.mount in known and known[place.mount].type == _LOCAL
                self._sync_path(
                    os.path.join(mount.mountpoint, place.mount, place.path), retry=self._retry and not local
                )
            except OSError as error:
                yield f'{place.mount}:{place.path}: {_text_of(error)}'

    @staticmethod
    def _sync_path(path: str, *, retry: bool) -> None:
        # A FIFO of a local mount would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if retry:
                os.setxattr(descriptor, RETRY_ATTRIBUTE, b'1')
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _sync_here(self, target: str) -> None:
        name, path = paths.parse(target)
        found = configuration.find_configuration(self._config, os.environ, Path.cwd(), Path.home())
        if found.announcement:
            click.echo(f'genro-storage: {found.announcement}', err=True)
        with StorageManager() as manager:
            manager.configure(found.source)
            volume = manager.volume(name)
            self._places = [Place(mount=name, path=path, destination=volume.backend.destination)]
            if self._retry:
                volume.retry_parked(path)
            volume.sync(path)


def _place_of(inside: str, known: dict[str, MountStatus]) -> Place:
    name, _, path = inside.partition('/')
    return Place(mount=name, path=path, destination=known[name].destination if name in known else '')


def _line_of(waiting: Waiting) -> str:
    item = Item(waiting=waiting, configured=True)
    why = f': {item.reason}' if item.reason else ''
    if waiting.state == 'parked':
        why += ' (--retry uploads it after all)'
    elif waiting.live and not why:
        why = ' in another process: sync it through its mounted tree'
    return f'left: {item.name}, {size(waiting.size_bytes)}, {waiting.state}{why}'


def _text_of(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, StorageError):
        return error.strerror or str(error)
    return str(error)
