"""What the machine of the write path works with: a mount with what is behind it, what a step may choose, open files.

Owns the daemon and the process that uses the mount. Not thread-safe.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.crash.nursery import Nursery
from tests.crash.programs import digest_of
from tests.crash.stage import MOUNT, Stage, stage
from tests.model.writing_process import Elsewhere, elsewhere
from tests.mount.random_operations import FLAGS, NAMES
from tests.servers import S3Server

OFTEN = ('pwrite', 'write', 'pread', 'fsync', 'close', 'open_what_is_there', 'overwrite_what_is_open')
KINDS = (
    *OFTEN,
    *OFTEN,
    *('open', 'open_again', 'ftruncate', 'read', 'look', 'truncate', 'unlink', 'unlink_what_is_there', 'rename'),
    *('rename_what_is_there', 'rename_what_is_open', 'rename_over_what_is_open', 'mkdir', 'rmdir'),
    *('overwrite_what_is_there', 'remount'),
)


class Choice(NamedTuple):
    """What a step may need: each takes what it can use."""

    number: int  # which one of those that are there, or are open
    name: str
    onto: str
    flag: int
    offset: int
    size: int
    removes: bool


kinds = st.sampled_from(KINDS)
choices = st.builds(
    Choice,
    st.integers(0, 59),
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.sampled_from(FLAGS),
    st.sampled_from([0, 0, 1, 5000, 262_144, 262_143, 500_000]),
    st.sampled_from([1, 100, 4096, 70_000, 600_000]),
    st.booleans(),
)


class World:
    """A mount, what is behind it, and who works in it."""

    def __init__(self, made: Stage, process: Elsewhere, *, remote: bool) -> None:
        self.stage = made
        self.process = process
        self.remote = remote
        self.daemon = made.start()
        self._numbers = itertools.count(1)

    @property
    def is_writeback(self) -> bool:
        """Whether a close only promises an upload."""
        return self.stage.definition.get('durability') == 'writeback'

    def begin(self) -> str:
        """A new directory; its name."""
        name = f'example-{next(self._numbers)}'
        failed = self.process.perform('begin', str(self.stage.mountpoint / MOUNT / name))
        assert failed is None, (failed, self.daemon.log_text)
        return name

    def remount(self) -> None:
        """End the daemon, which commits all, and start another."""
        self.daemon.end()
        self.daemon = self.stage.start()


@dataclass
class Changing:
    """A file that is open, by however many handles."""

    path: str | None  # None: it has lost its name
    #: Whether the next commit has something to do; None: not known here.
    dirty: bool | None
    #: Whether nothing of it is on the server alone.
    whole: bool
    handles: int = 0
    #: What somebody else has made of the object meanwhile: bytes, or b'' for its removal.
    overwritten: bytes | None = None


@contextmanager
def world_of(folder: Path, forks: Nursery, server: S3Server, bucket: str, keys: Mapping[str, Any]) -> Iterator[World]:
    with stage(folder, forks, server, bucket, **keys) as made, elsewhere() as process:
        if keys.get('type') == 'memory':
            made.definition = {'name': MOUNT, 'type': 'memory'}
        world = World(made, process, remote=keys.get('type') != 'memory')
        yield world
        world.daemon.end()


def short(value: Any) -> str:
    if isinstance(value, bytes):
        return digest_of(value)
    if isinstance(value, list | tuple):
        return f'[{", ".join(short(item) for item in value)}]'
    return repr(value)
