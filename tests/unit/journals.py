"""Intents, data on the disk, and a journal with a state folder of its own, for the tests of the journal."""

import os
from pathlib import Path
from typing import Any

from genro_storage.runtime import SystemClock
from genro_storage.testing.clock import ManualClock
from genro_storage.writing.journal import Held, Intent, Journal

DESTINATION = 's3://bucket/prefix'


class Nameless:
    """Data as a staged file has them: without a name, and linked by the journal."""

    def __init__(self, folder: Path, content: bytes) -> None:
        self._descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.write(self._descriptor, content)

    def whole(self, limit_bytes: int) -> bytes | None:
        return None

    def fsync(self) -> None:
        os.fsync(self._descriptor)

    def link(self, path: Path) -> None:
        # With a directory's descriptor it is linkat(2), which follows the link in /proc.
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(f'/proc/self/fd/{self._descriptor}', path.name, dst_dir_fd=directory, follow_symlinks=True)
        finally:
            os.close(directory)

    def close(self) -> None:
        os.close(self._descriptor)


class Small(Nameless):
    """Data that fit behind a record."""

    def whole(self, limit_bytes: int) -> bytes | None:
        data = os.pread(self._descriptor, limit_bytes + 1, 0)
        return data if len(data) <= limit_bytes else None


def journal_in(folder: Path, destination: str = DESTINATION, root: str = 'cache/journal') -> Journal:
    """A journal whose root is not the default one."""
    return Journal(folder / root, destination, SystemClock(), folder / 'state')


def put(journal: Journal, path: str, content: bytes, **more: Any) -> Intent:
    """The intent to store a file."""
    return Intent(
        id=journal.new_id(),
        kind='put',
        mount='uploads',
        path=path,
        created_ns=ManualClock().time_ns() + int(more.pop('age', 0)),
        size_bytes=len(content),
        **more,
    )


def add(journal: Journal, path: str, content: bytes, **more: Any) -> Held:
    """Note a file, its content given as bytes."""
    return journal.add(put(journal, path, content, **more), content)


def add_inline(journal: Journal, path: str, content: bytes, **more: Any) -> Held:
    """Note a file whose content goes into the record."""
    data = Small(journal.root.parents[1], content)
    try:
        return journal.add(put(journal, path, content, **more), data)
    finally:
        data.close()


def content_of(held: Held) -> bytes:
    """All of the data."""
    descriptor = held.open_data()
    with os.fdopen(descriptor, 'rb') as file:
        return file.read()


def found(held: list[Held]) -> list[tuple[str, bytes]]:
    """Paths and contents."""
    return sorted((each.intent.path, content_of(each)) for each in held)


def files_below(folder: Path) -> list[str]:
    """Every file, by its path relative to a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if not path.is_dir())
