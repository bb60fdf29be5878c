"""How files of one mount are opened to write: in place, shared by all who do so, or in private until the close.

Owns what a staged file begins with. When it is committed is the commits' (writing/commits.py), whether it may be
written at all the volume's. Threads: safe; has no lock of its own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend, Expected
from genro_storage.entry import Attributes, Entry
from genro_storage.errors import StorageExistsError, StorageIsADirectoryError, StorageNotFoundError
from genro_storage.lookups import Lookups
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock
from genro_storage.writing.changes import Changes
from genro_storage.writing.staging import StagedFile
from genro_storage.writing.writer import Writer


class Opener:
    """That of one mount."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        lookups: Lookups,
        changes: Changes,
        staging: Path,
        clock: Clock,
        reader: Callable[[str, Entry], Reader],
    ) -> None:
        """staging: the folder of staged files. reader: opens what is stored."""
        self._name = name
        self._backend = backend
        self._lookups = lookups
        self._files = changes.files
        self._commits = changes.commits
        self._descriptions = changes.descriptions
        self._staging = staging
        self._clock = clock
        self._reader = reader

    def open_shared(
        self, path: str, *, create: bool, exclusive: bool, truncate: bool, append: bool, attributes: Attributes | None
    ) -> Writer:
        """See Volume.open_write."""
        self._lookups.adopt()
        shared = self._files.join(path)
        if shared is None:
            staged = self._stage(path, create=create, exclusive=exclusive, truncate=truncate, attributes=attributes)
            shared = self._files.add(staged)
            if shared is not staged:
                staged.close()
        elif exclusive:
            self._commits.release(shared)
            raise StorageExistsError(f'{paths.shown(self._name, path)} exists')
        writer = Writer(
            shared,
            append=append,
            flush=self._commits.flush,
            sync=self._commits.commit,
            release=self._commits.release,
            lend=self._commits.lend,
            borrow=self._commits.borrow,
        )
        if truncate and writer.size_bytes:
            try:
                writer.truncate(0)
            except BaseException:
                writer.abort()
                raise
        return writer

    def open_anew(self, path: str, *, exclusive: bool, attributes: Attributes | None) -> Writer:
        """See Volume.replace."""
        if exclusive and self._lookups.find(path).entry is not None:
            raise StorageExistsError(f'{paths.shown(self._name, path)} exists')
        there = self._lookups.file_or_nothing(path)
        return self._write_privately(path, None, ABSENT if exclusive else None, there, attributes)

    def open_to_change(self, path: str, *, create: bool) -> Writer:
        """See Volume.change."""
        self._lookups.adopt()
        staged = self._files.find(path)
        if staged is not None:
            self._commits.commit(staged)
        # Anew: to begin with what somebody else has replaced would only end in a conflict.
        entry = self._lookups.ask_anew(path).entry
        if entry is None and not create:
            raise StorageNotFoundError(f'{paths.shown(self._name, path)}: nothing is there')
        if entry is not None and entry.is_directory:
            raise StorageIsADirectoryError(f'{paths.shown(self._name, path)} is a directory')
        return self._write_privately(path, entry, ABSENT if entry is None else entry.version, entry)

    # Inside

    def _stage(
        self, path: str, *, create: bool, exclusive: bool, truncate: bool, attributes: Attributes | None
    ) -> StagedFile:
        entry = self._lookups.find(path).entry
        if entry is not None and not self._backend.capabilities.instant:
            # What somebody else has replaced within the TTL is nothing to begin with: its commit would be refused.
            entry = self._lookups.ask_anew(path).entry
        if entry is None and not create:
            raise StorageNotFoundError(f'{paths.shown(self._name, path)}: nothing is there')
        if entry is not None and exclusive:
            raise StorageExistsError(f'{paths.shown(self._name, path)} exists')
        if entry is not None and entry.is_directory:
            raise StorageIsADirectoryError(f'{paths.shown(self._name, path)} is a directory')
        self._lookups.refuse_other(path, entry)
        expected = ABSENT if entry is None else entry.version
        staged = self._staged(path, None if truncate else entry, expected, self._descriptions.of_new(attributes, entry))
        if exclusive:
            try:
                self._commits.commit(staged, keep_conflict=False)
            except BaseException:
                staged.close()
                raise
        return staged

    def _staged(
        self, path: str, based_on: Entry | None, expected: Expected, metadata: Mapping[str, str] | None
    ) -> StagedFile:
        base = None if based_on is None else self._reader(path, based_on)
        mtime_ns = None if based_on is None else based_on.modified_ns
        staged = StagedFile(path, self._staging, self._clock, expected, base, mtime_ns)
        staged.metadata, staged.stored_times = metadata, self._descriptions.stored_times
        if based_on is not None:
            return staged
        staged.touch()
        self._commits.watch(staged)
        return staged

    def _write_privately(
        self,
        path: str,
        based_on: Entry | None,
        expected: Expected,
        there: Entry | None,
        attributes: Attributes | None = None,
    ) -> Writer:
        self._lookups.refuse_other(path, there)
        return Writer(
            self._staged(path, based_on, expected, self._descriptions.of_new(attributes, there)),
            append=False,
            flush=self._commits.flush_private,
            sync=self._commits.flush_private,
            release=self._commits.release_private,
            lend=self._commits.lend,
            borrow=self._commits.borrow,
        )
