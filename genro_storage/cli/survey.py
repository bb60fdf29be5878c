"""What there is to report: mounted trees, and everything in the journals of this user.

Owns the putting together. Asks every daemon for a bounded time, changes nothing, and loads a configuration only if
something waits that no mounted tree is for. Threads: one for each daemon that is asked.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from genro_storage import config as configuration
from genro_storage.errors import StorageError, StoragePermissionError
from genro_storage.manager import StorageManager
from genro_storage.mounted import TreeStatus, ask
from genro_storage.mountinfo import MountInfo, mount_at, mounts, resolve
from genro_storage.writing.journal_roots import known_roots
from genro_storage.writing.journal_survey import Waiting, everything

#: A daemon answers from memory, in milliseconds, unless it hangs.
ANSWER_TIMEOUT_S = 5.0


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A mountpoint of ours; ``problem`` where its daemon does not answer."""

    mountpoint: str
    status: TreeStatus | None = None
    problem: str = ''


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Something that waits; ``configured``: as far as we know, somebody will do it."""

    waiting: Waiting
    configured: bool

    @property
    def state(self) -> str:
        """The word of the help text."""
        return self.waiting.state if self.configured or self.waiting.state == 'damaged' else 'not configured'

    @property
    def name(self) -> str:
        """As 'mount:path'; of what cannot be read, its record."""
        intent = self.waiting.intent
        if intent is None:
            return str(self.waiting.record)
        moved = f' to {intent.target}' if intent.target else ''
        return f'{intent.mount}:{intent.path}{moved}'

    @property
    def reason(self) -> str:
        """Why it waits still, '' if nobody has tried."""
        if self.waiting.error:
            return self.waiting.error
        return self.waiting.failure.error if self.waiting.failure else ''


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, at one time."""

    time_ns: int
    trees: list[Tree]
    items: list[Item]
    problems: list[str]

    @property
    def is_wrong(self) -> bool:
        """Whether somebody should look at it."""
        return (
            bool(self.problems)
            or any(tree.problem for tree in self.trees)
            or any(item.state != 'waiting' for item in self.items)
        )


def survey(mountpoints: Sequence[str], config: str | None) -> Survey:
    """Everything, or what belongs to some mountpoints."""
    problems: list[str] = []
    trees = list(_trees(mountpoints, problems))
    waiting = list(waits(problems))
    served = {mount.destination for tree in trees if tree.status for mount in tree.status.mounts}
    if mountpoints:
        waiting = [each for each in waiting if each.destination in served]
    known = served | _configured((each for each in waiting if _is_nobodys(each, served)), config, problems)
    items = [Item(waiting=each, configured=each.live or each.destination in known) for each in waiting]
    return Survey(time_ns=time.time_ns(), trees=trees, items=items, problems=problems)


def waits(problems: list[str]) -> Iterator[Waiting]:
    """What is in all journals of this user; what is wrong with one is added to the problems."""
    try:
        roots = known_roots()
    except OSError as error:
        problems.append(f'the register of journals cannot be read: {error}')
        return
    for root in roots:
        try:
            yield from everything(root)
        except OSError as error:
            problems.append(f'{root}: what waits there cannot be read: {error}')


def _trees(mountpoints: Sequence[str], problems: list[str]) -> Iterator[Tree]:
    table = mounts()
    ours = {mount.mountpoint: mount for mount in table if mount.is_ours}
    if mountpoints:
        ours = {mount.mountpoint: mount for mount in _named(mountpoints, table, problems)}
    if not ours:
        return
    with ThreadPoolExecutor(len(ours)) as pool:
        yield from (tree for tree in pool.map(lambda path: _tree(path, bool(mountpoints)), ours) if tree is not None)


def _named(mountpoints: Sequence[str], table: Sequence[MountInfo], problems: list[str]) -> Iterator[MountInfo]:
    for mountpoint in mountpoints:
        try:
            mount = mount_at(resolve(mountpoint, table), table)
        except OSError as error:
            problems.append(f'{mountpoint}: {error.strerror}')
            continue
        if mount is None or not mount.is_ours:
            problems.append(f'{mountpoint}: genro-storage is not mounted there')
        else:
            yield mount


def _tree(mountpoint: str, named: bool) -> Tree | None:
    try:
        return Tree(mountpoint=mountpoint, status=ask(mountpoint, ANSWER_TIMEOUT_S))
    except StoragePermissionError as error:
        # Nothing is wrong with the tree of somebody else.
        return Tree(mountpoint=mountpoint, problem=str(error)) if named else None
    except StorageError as error:
        return Tree(mountpoint=mountpoint, problem=str(error))


def _is_nobodys(waiting: Waiting, served: set[str]) -> bool:
    return not waiting.live and waiting.state != 'damaged' and waiting.destination not in served


def _configured(orphans: Iterable[Waiting], config: str | None, problems: list[str]) -> set[str]:
    """Where the mounts of the configuration lead to; it is not read unless there are orphans."""
    if not any(True for _ in orphans):
        return set()
    try:
        found = configuration.find_configuration(config, os.environ, Path.cwd(), Path.home())
        with StorageManager() as manager:
            manager.configure(found.source)
            return {manager.volume(name).backend.destination for name in manager.get_mount_names()}
    except (StorageError, OSError, TypeError, ImportError) as error:
        problems.append(f'what is configured cannot be said: {error}')
        return set()
