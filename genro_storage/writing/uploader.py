"""A commit: the staged bytes become the object, if it is still what they were based on.

Owns the condition and the copy that a conflict leaves beside the winner. Threads: safe; holds the staged file's lock,
and no other, while bytes move.
"""

import socket

from genro_storage.backends.base import ABSENT, Backend
from genro_storage.entry import Entry
from genro_storage.errors import StorageConflictError, StorageExistsError
from genro_storage.paths import NAME_MAX_BYTES, encode
from genro_storage.runtime import Clock, about_to_block
from genro_storage.writing.staging import StagedFile


class Uploader:
    """Commits staged files to one backend."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock

    def commit(self, staged: StagedFile, *, keep_conflict: bool) -> Entry | None:
        """Store what is staged, if anything changed; the new entry, or None where there was nothing to do.

        Raises StorageConflictError or StorageExistsError if something else has appeared at the path meanwhile; with
        keep_conflict the staged bytes are then stored beside it first, and the error says where.
        """
        if not self._backend.capabilities.instant:
            about_to_block()
        with staged.lock:
            if not staged.dirty or staged.orphaned:
                return None
            staged.prepare()
            try:
                entry = self._backend.put(staged.path, staged, expected=staged.expected)
            except (StorageConflictError, StorageExistsError) as error:
                if not keep_conflict:
                    raise
                kept = conflict_name(staged.path, socket.gethostname(), self._clock.time_ns())
                self._backend.put(kept, staged, expected=ABSENT)
                staged.dirty = False
                raise StorageConflictError(f'{error}; what was written here is kept as {kept!r}') from error
            staged.expected = entry.version
            staged.dirty = False
            return entry


def conflict_name(path: str, host: str, time_ns: int) -> str:
    """``NAME.conflict-HOST-TIME`` beside a path, the name cut where it would be too long."""
    suffix = f'.conflict-{host}-{time_ns // 1_000_000}'
    directory, slash, name = path.rpartition('/')
    while len(encode(name + suffix)) > NAME_MAX_BYTES:
        name = name[:-1]
    return directory + slash + name + suffix
