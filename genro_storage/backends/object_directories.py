"""Files and directories in the keys of an object store: their meaning, written once for every driver.

Owns what an operation of Backend means on a store that has keys and no directories. A file is a key; a directory is
what keys below it imply, or a marker, an empty object named ``path/``: mkdir makes one, and so does whatever removes
the last entry, so that a directory never vanishes by itself. Of an object ``a`` beside ``a/b`` the directory is shown.
Names that no path can express are hidden.

Does not know how a request is made: ObjectRequests does, and every failure leaves that as a StorageError.

Threads: safe; there is no state but the count of hidden names.
"""

from collections.abc import Mapping, Sequence

import msgspec

from genro_storage import paths
from genro_storage.backends.base import (
    ABSENT,
    Capabilities,
    Expected,
    Headers,
    Move,
    PartUpload,
    Source,
)
from genro_storage.backends.expectations import source_of
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.object_entries import description, entries_of, entry_at, file_entry, written_entry
from genro_storage.backends.object_moves import ObjectMoves
from genro_storage.backends.object_requests import PLAIN, Commit, ObjectRequests, ReadsBeginnings, StoredObject
from genro_storage.backends.object_uploads import ObjectPartUpload
from genro_storage.backends.oserrors import not_encodable, refuse_removing_root, refuse_rename
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNameTooLongError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.runtime import about_to_block


class ObjectDirectories:
    """A Backend over ObjectRequests: what lies below ``prefix``, which is normalised."""

    def __init__(self, requests: ObjectRequests, prefix: str = '') -> None:
        self._requests = requests
        self._prefix = prefix
        self._path_limit = requests.key_limit.behind(f'{prefix}/' if prefix else '')
        self._moves = ObjectMoves(requests)
        self.hidden = HiddenNames(requests.destination)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.destination!r})'

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return Capabilities(
            strong_versions=True,
            conditional_put=True,
            real_directories=False,
            tells_mtime=self._requests.tells_mtime,
            moves_in_steps=True,
            stores_metadata=True,
            path_limit=self._path_limit,
        )

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._requests.destination

    # Looking

    def stat(self, path: str) -> Entry:
        """See Backend. The times of directories are not known."""
        self._begin(path)
        entry = self._find(path)
        if entry is None:
            raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
        return entry

    def stat_and_read(self, path: str, size_bytes: int) -> tuple[Entry, bytes | None]:
        """See TellsBeginnings."""
        if not path or not isinstance(self._requests, ReadsBeginnings):
            return self.stat(path), None
        self._begin(path)
        stored, below, beginning = self._requests.look_into(self._key(path), self._below(path), size_bytes)
        entry = entry_at(paths.basename(path), stored, below, self._below(path))
        if entry is None:
            raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
        return entry, beginning if entry.is_file else None

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        self._begin(path)
        entries = self._children(path)
        if entries is None:
            self._require_directory(path)
            return []
        return entries

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend."""
        self._begin(path)
        if not size_bytes or not path:
            self._file(path)
            return b''
        try:
            return self._requests.read(self._key(path), offset, size_bytes, version.tag if version else None)
        except StorageConflictError as error:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened') from error
        except StorageNotFoundError as error:
            if version is not None:
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened') from error
            self._file(path)
            raise

    def headers(self, path: str) -> Headers:
        """See TellsHeaders."""
        self._begin(path)
        found = self._requests.headers(self._key(path)) if path else None
        if found is None:
            raise StorageNotFoundError(f'{self._shown(path)}: no file is there')
        return found

    def url(self, path: str, valid_s: float) -> str:
        """See MakesUrls."""
        self._begin(path)
        return self._requests.url(self._key(path), valid_s)

    # Writing

    def put(
        self,
        path: str,
        source: Source,
        *,
        expected: Expected = None,
        placed: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend."""
        self._begin(path)
        if not placed or not path:
            self._check_target(path, expected)
        described = metadata or PLAIN
        with self._requests.upload(self._key(path), source, described) as commit:
            stored = self._commit(path, expected, commit)
        return written_entry(path, source.size_bytes, stored, described)

    def begin_upload(self, path: str, metadata: Mapping[str, str] | None = None) -> PartUpload | None:
        """See UploadsInParts. Raises StorageIsADirectoryError, StorageNotADirectoryError (a parent is a file)."""
        self._begin(path)
        self._check_target(path, None)
        described = metadata or PLAIN
        upload = self._requests.begin(self._key(path), described)
        if upload is None:
            return None

        def complete(count: int, size_bytes: int, expected: Expected) -> Entry:
            stored = self._commit(path, expected, lambda condition: upload.complete(count, condition))
            return written_entry(path, size_bytes, stored, described)

        return ObjectPartUpload(upload, self._shown(path), complete, self._key)

    def abort_upload(self, path: str, token: str) -> None:
        """See UploadsInParts."""
        self._begin(path)
        self._requests.abort(self._key(path), token)

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend."""
        self._begin(path)
        if self._find(path) is not None:
            raise StorageExistsError(f'{self._shown(path)} exists')
        self._require_directory(paths.parent(path))
        marker = self._below(path)
        try:
            self._requests.mark(marker, ABSENT, metadata or PLAIN)
        except StorageConflictError as error:
            raise StorageExistsError(f'{self._shown(path)} exists') from error
        except StorageUnsupportedError:
            self._requests.mark(marker, None, metadata or PLAIN)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend. LastModified is the server's own."""
        raise StorageUnsupportedError(f'{self._shown(path)}: an object store does not let the time be set')

    def usage(self) -> None:
        """See Backend. A bucket has no size."""

    # Metadata

    def metadata(self, path: str) -> Mapping[str, str]:
        """See StoresMetadata."""
        entry = self.stat(path)
        if entry.metadata is None:
            entry = self._told('', [entry], [self._below(path)])[0]
        return entry.metadata or PLAIN

    def set_metadata(self, path: str, metadata: Mapping[str, str], *, expected: Version | None) -> Entry:
        """See StoresMetadata."""
        self._begin(path)
        if expected is None:
            entry = self.stat(path)
            if entry.is_directory:
                return self._mark_with(path, entry, metadata)
        try:
            stored = self._requests.describe(self._key(path), metadata, expected.tag if expected else None)
        except (StorageConflictError, StorageNotFoundError) as error:
            if expected is None:
                raise
            raise self._unexpected(path, expected) from error
        return file_entry(paths.basename(path), stored)

    def tell_attributes(self, directory: str, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See StoresMetadata."""
        self._begin(directory)
        below = [paths.child(directory, entry.name) for entry in entries]
        keys = [
            self._below(path) if entry.is_directory else self._key(path)
            for path, entry in zip(below, entries, strict=True)
        ]
        return self._told(directory, entries, keys)

    # Removing, moving, copying

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend."""
        self._begin(path)
        if not seen or not path:
            self._file(path)
        self._requests.remove(self._key(path))
        self._keep(paths.parent(path), beside)

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend."""
        self._begin(path)
        refuse_removing_root(path, self._shown(path))
        marker = self._below(path)
        (below,) = self._requests.first_keys([marker], 2)
        if not below:
            self._require_directory(path)
        if any(key != marker for key in below):
            raise StorageNotEmptyError(f'{self._shown(path)} is not empty')
        self._requests.remove(marker)
        self._keep(paths.parent(path), beside)

    def rename(self, source: str, target: str) -> None:
        """See Backend. Copies, then removals: nothing is removed before all of it has arrived."""
        moving = self._movable(source, target)
        if source == target:
            return
        if moving.is_directory:
            moves = self._planned(source, target)
            self.copy_planned(source, target, moves)
            self.remove_planned(source, target, moves)
        else:
            keys = self._key(source), self._key(target)
            self._requests.copy(*keys, moving.size_bytes, storage_class=moving.storage_class)
            self._requests.remove(self._key(source))
            self._keep(paths.parent(source))

    def move_seen(self, source: str, target: str, seen: Entry, *, beside: bool | None = None) -> Entry:
        """See MovesInSteps."""
        self._begin_move(source, target)
        tag = seen.version.tag if seen.version is not None else None
        keys = self._key(source), self._key(target)
        stored = self._requests.copy(*keys, seen.size_bytes, tag, storage_class=seen.storage_class)
        self._requests.remove(self._key(source))
        self._keep(paths.parent(source), beside)
        told = file_entry(paths.basename(target), msgspec.structs.replace(stored, size_bytes=seen.size_bytes))
        return msgspec.structs.replace(
            told, attributes=seen.attributes, metadata=None, storage_class=seen.storage_class
        )

    def plan_move(self, source: str, target: str) -> Sequence[Move]:
        """See MovesInSteps."""
        moving = self._movable(source, target)
        if not moving.is_directory:
            raise StorageNotADirectoryError(f'{self._shown(source)} is not a directory')
        return [] if source == target else self._planned(source, target)

    def copy_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps. Raises StorageConflictError if one has changed since the plan."""
        self._begin_move(source, target)
        self._moves.copy(self._below(source), self._below(target), moves)

    def remove_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps."""
        self._begin_move(source, target)
        self._moves.remove(self._below(source), self._below(target), moves)
        self._keep(paths.parent(source))

    def undo_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps."""
        self._begin_move(source, target)
        self._moves.undo(self._below(source), self._below(target), moves)
        self._keep(paths.parent(target))

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. What is expected is looked at in any case: many servers take no notice of it in a copy."""
        self._begin(source, target)
        copied = self._source(source, version)
        self._check_target(target, expected)
        if expected is not None:
            self._require_expected(target, expected)
        tag = version.tag if version is not None else None
        # With other metadata it is a file of its own, which happens to have these bytes.
        kept_class = copied.storage_class if metadata is None else ''

        def copy(condition: Expected) -> StoredObject:
            keys = self._key(source), self._key(target)
            return self._requests.copy(*keys, copied.size_bytes, tag, condition, metadata, kept_class)

        try:
            stored = self._commit(target, expected, copy)
        except (StorageConflictError, StorageExistsError, StorageNotFoundError):
            self._source(source, version)  # was it that?
            raise
        described = copied.metadata if metadata is None else metadata
        entry = written_entry(target, copied.size_bytes, stored, described or PLAIN)
        return msgspec.structs.replace(entry, storage_class=kept_class)

    @property
    def store(self) -> str:
        """See SharesStore."""
        return self.destination.removesuffix(f'/{self._prefix}') if self._prefix else self.destination

    def path_in_store(self, path: str) -> str:
        """See SharesStore."""
        return f'/{self._key(path)}'

    def prepare(self) -> None:
        """See Prepares."""
        self._requests.prepare()

    def close(self) -> None:
        """See Backend."""
        self._requests.close()

    # Inside

    def _told(self, directory: str, entries: Sequence[Entry], keys: Sequence[str]) -> list[Entry]:
        told: list[Entry] = []
        # A whole bucket has no marker.
        found = iter(self._requests.heads([key for key in keys if key]))
        for entry, key in zip(entries, keys, strict=True):
            stored = next(found) if key else None
            if entry.is_directory:
                described = (stored.metadata if stored is not None else None) or PLAIN
                told.append(msgspec.structs.replace(entry, **description(described)))
            elif stored is not None:
                told.append(file_entry(entry.name, stored))
        return told

    def _mark_with(self, path: str, entry: Entry, metadata: Mapping[str, str]) -> Entry:
        if not self._below(path):
            raise StorageUnsupportedError(f'{self._shown(path)}: a whole bucket has no metadata')
        self._requests.mark(self._below(path), None, metadata)
        return msgspec.structs.replace(entry, **description(metadata))

    # What is where

    def _find(self, path: str) -> Entry | None:
        """What is at a path. The root is a directory, if there is the bucket: raises StorageNotFoundError."""
        if not path:
            self._requests.first_keys([self._below('')], 1)
            return Entry('', Kind.DIRECTORY)
        ((stored, below),) = self._requests.look([(self._key(path), self._below(path))])
        return entry_at(paths.basename(path), stored, below, self._below(path))

    def _children(self, path: str) -> list[Entry] | None:
        """The entries of a directory, or None where there is not even a marker."""
        prefix = self._below(path)
        entries: dict[str, Entry] = {}
        there = not path
        for page in self._requests.pages(prefix, '/'):
            there = there or bool(page.objects or page.prefixes)
            for entry in entries_of(page, prefix):
                if self.hidden.shows(path, entry.name) and (entry.is_directory or entry.name not in entries):
                    entries[entry.name] = entry
        return list(entries.values()) if there else None

    def _file(self, path: str) -> Entry:
        entry = self.stat(path)
        if entry.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        return entry

    def _source(self, path: str, version: Version | None) -> Entry:
        """What is to be copied. Raises SourceGoneError."""
        return source_of(lambda: self._file(path), version, self._shown(path))

    def _require_directory(self, path: str) -> None:
        if not self.stat(path).is_directory:
            raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')

    def _keep(self, path: str, has_entries: bool | None = None) -> None:
        """See to it that a directory outlives its last entry."""
        if not path or has_entries:
            return
        # After the removal, not before: of two that remove the last two entries at once, one at least sees none left.
        # A marker too many costs less than to ask for the one that is there.
        if has_entries is False or not self._requests.first_keys([self._below(path)], 1)[0]:
            self._mark_if_absent(self._below(path))

    def _mark_if_absent(self, marker: str) -> None:
        """A marker that has metadata stays as it is."""
        try:
            self._requests.mark(marker, ABSENT)
        except (StorageConflictError, StorageUnsupportedError):
            # Of what a key implied, SeaweedFS says that a marker is there, and does not list it.
            there = self._requests.head(marker)
            if there is None or not there.metadata:
                self._requests.mark(marker)

    # What may be written

    def _check_target(self, path: str, expected: Expected) -> None:
        """What no condition of a write can say: that neither the path is a directory nor a parent of it a file."""
        parent = paths.parent(path)
        below, beside = self._requests.first_keys([self._below(path), self._below(parent)], 1)
        if below or not path:
            error = StorageExistsError if expected is ABSENT else StorageIsADirectoryError
            raise error(f'{self._shown(path)} is a directory')
        # Where anything is below the parent already, all above are directories: the cheap and usual answer.
        if not parent or beside:
            return
        blocking = self._file_among(parent)
        if blocking is not None:
            raise StorageNotADirectoryError(f'{self._shown(path)}: {blocking!r} is a file')

    def _file_among(self, path: str) -> str | None:
        """The file that stands where this directory or one above it should be, or None."""
        names = path.split('/')
        above = ['/'.join(names[:count]) for count in range(1, len(names) + 1)]
        found = self._requests.look([(self._key(directory), self._below(directory)) for directory in above])
        return next(
            (place for place, (stored, below) in zip(above, found, strict=True) if stored is not None and not below),
            None,
        )

    def _commit(self, path: str, expected: Expected, commit: Commit) -> StoredObject:
        """Send the request that makes a content visible, under the condition that was asked for."""
        try:
            return commit(expected)
        except StorageConflictError as error:
            raise self._unexpected(path, expected) from error
        except StorageNotFoundError as error:
            # A version where nothing is. A missing bucket is a 404 too; looking at the root then says so.
            if not isinstance(expected, Version):
                raise
            self._find('')
            raise self._unexpected(path, expected) from error
        except StorageUnsupportedError:
            if expected is None:
                raise
        self._require_expected(path, expected)
        return commit(None)

    def _require_expected(self, path: str, expected: Expected) -> None:
        entry = self._find(path)
        if (entry is None) != (expected is ABSENT) or (entry is not None and entry.version != expected):
            raise self._unexpected(path, expected)

    def _unexpected(self, path: str, expected: Expected) -> StorageExistsError | StorageConflictError:
        if expected is ABSENT:
            return StorageExistsError(f'{self._shown(path)} exists')
        return StorageConflictError(f'{self._shown(path)} has changed since it was opened, or is gone')

    def _movable(self, source: str, target: str) -> Entry:
        """What is to be moved, if it may be."""
        self._begin_move(source, target)
        moving = self.stat(source)
        self._require_directory(paths.parent(target))
        if source != target:
            self._refuse_replacing(moving, target)
        return moving

    def _planned(self, source: str, target: str) -> Sequence[Move]:
        """All that is to be moved. Raises StorageNameTooLongError for what would not fit at its new place."""
        moves = self._moves.plan(self._below(source))
        limit = self._requests.key_limit.behind(self._below(target))
        too_long = next((move.name for move in moves if not limit.allows(move.name)), None)
        if too_long is not None:
            raise StorageNameTooLongError(f'{self._shown(target)}: {too_long[:40]!r}… is too long to go there')
        return moves

    def _refuse_replacing(self, moving: Entry, target: str) -> None:
        there = self._find(target)
        if there is None:
            return
        if there.is_directory and not moving.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(target)} is a directory and a file cannot replace it')
        if moving.is_directory and not there.is_directory:
            raise StorageNotADirectoryError(f'{self._shown(target)} is a file and a directory cannot replace it')
        if there.is_directory:
            marker = self._below(target)
            if any(key != marker for key in self._requests.first_keys([marker], 2)[0]):
                raise StorageNotEmptyError(f'{self._shown(target)} is not empty')

    # Paths and keys

    def _key(self, path: str) -> str:
        """The key of a file; of a path in the store without its slash."""
        if path.startswith('/'):
            return path[1:]
        return f'{self._prefix}/{path}' if self._prefix else path

    def _below(self, path: str) -> str:
        """The beginning of all keys below a directory, and the key of its marker; '' for a whole bucket."""
        key = self._key(path).rstrip('/')
        return f'{key}/' if key else ''

    def _begin(self, *given: str) -> None:
        """Before any request. Raises WouldBlock, and StoragePathError for bytes that are not UTF-8, as keys are."""
        about_to_block()
        for path in given:
            try:
                path.encode()
            except UnicodeEncodeError as error:
                raise not_encodable(self._shown(path)) from error

    def _begin_move(self, source: str, target: str) -> None:
        self._begin(source, target)
        refuse_rename(source, target, self._shown(source))

    def _shown(self, path: str) -> str:
        return repr(f'{self.destination}/{path}') if path else repr(self.destination)
