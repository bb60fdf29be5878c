"""The journal: what is to be done at one destination, durable before anybody is told that it is done.

Owns the folders of this process for one destination and who may act on what is in them. Does not upload anything, and
does not decide what becomes of an intent; the form of the records is that of journal_records, the steps on the disk
those of journal_folder. Nothing secret goes in: a destination has none.

    ROOT/HASH OF THE DESTINATION/destination
    ROOT/HASH OF THE DESTINATION/HOST-PID-RANDOM/lock, ID.intent, ID.data, ID.failed, ID.damaged

Threads: safe. ``_making`` is held while the first folder is made, ``_lock`` never across I/O; what is synced, is synced
by many threads at a time. close() comes when nothing else does.
"""

import errno
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from genro_storage.errors import StorageError, StorageIOError
from genro_storage.local_disk import local_disk_errors, private_directory, write_whole
from genro_storage.runtime import Clock, HandleLock
from genro_storage.writing.journal_folder import Data, JournalFolder
from genro_storage.writing.journal_records import ID, Failure, Intent, new_id
from genro_storage.writing.journal_roots import known_roots, register_root

__all__ = ['Data', 'Failure', 'Held', 'Intent', 'Journal', 'folder_of']

log = logging.getLogger(__name__)

_PURPOSE = 'note what is to be uploaded'


class Held(msgspec.Struct, frozen=True, eq=False):
    """An intent in a folder of ours. Usable until it is dropped, replaced or rewritten, or its journal closed."""

    intent: Intent
    folder: JournalFolder

    @property
    def data_path(self) -> Path:
        """Where its data are, unless they are in its record."""
        return self.folder.data_path(self.intent.id)

    def open_data(self) -> int:
        """A descriptor of its data, or of a copy of them, to read and write. Raises StorageIOError."""
        with local_disk_errors(self.folder.path, 'read what is to be uploaded'):
            return self.folder.open_data(self.intent.id)

    def read_data(self) -> bytes:
        """All of its data: the plan of a move. Raises StorageIOError."""
        with local_disk_errors(self.folder.path, 'read what is to be done'):
            return self.folder.read_data(self.intent.id)

    def failure(self) -> Failure | None:
        """What failed() noted last. Raises StorageIOError."""
        with local_disk_errors(self.folder.path, 'read what has failed'):
            return self.folder.failure(self.intent.id)


class Journal:
    """The intents of one destination. Makes its folder when the first one comes; one for each volume."""

    def __init__(self, root: Path, destination: str, clock: Clock, state: Path | None = None) -> None:
        """``state``: the folder with the register of roots, by default the user's."""
        self.root = Path(os.path.abspath(root))
        self.destination = destination
        self._clock = clock
        self._state = state
        self._folders: set[JournalFolder] = set()
        self.after_fork()

    def __repr__(self) -> str:
        return f'Journal({str(self.root)!r}, {self.destination!r})'

    def after_fork(self) -> None:
        """Begin anew in a forked child, with nothing: what waits is the parent's to do."""
        for folder in self._folders:
            folder.abandon()
        self._making = HandleLock()
        self._lock = threading.Lock()
        # Guarded by _lock; _folders are all that are ours: the own one, and those that were adopted.
        self._own: JournalFolder | None = None
        self._folders = set()

    def new_id(self) -> str:
        """An id for an intent."""
        return new_id(self._clock.time_ns())

    def add(self, intent: Intent, data: Data | bytes | None = None) -> Held:
        """Note an intent: durable, with its data, when this returns; after a failure nothing of it is left.

        Raises StorageNoSpaceError, StorageIOError, StoragePermissionError (the folder is somebody else's).
        """
        with local_disk_errors(self.root, _PURPOSE):
            return self._store(self._own_folder(), intent, data)

    def replace(self, old: Held | None, intent: Intent, data: Data | bytes | None = None) -> Held:
        """Note an intent in the place of another: at any moment exactly one of them counts.

        After a failure the old one is as it was. Raises what add raises.
        """
        if old is None:
            return self.add(intent, data)
        intent = msgspec.structs.replace(intent, replaces=old.intent.id)
        with local_disk_errors(self.root, _PURPOSE):
            held = self._store(self._ours(old), intent, data)
            try:
                self.drop(old)
            except StorageError as error:
                if old.folder.has(old.intent.id):
                    self.drop(held)
                    raise
                # Its data alone are no intent; the next recovery clears them away.
                log.warning('%s:%s: replaced, but its old data remain: %s', intent.mount, intent.path, error)
            return held

    def rewrite(self, held: Held, intent: Intent) -> Held:
        """Replace the record of an intent, of the same id and with the same data, at once and durably.

        After a failure it is as it was. Raises what add raises.
        """
        if intent.id != held.intent.id:
            raise ValueError(f'{intent.id} is not {held.intent.id}: another intent takes a replace')
        intent = msgspec.structs.replace(intent, replaces=held.intent.replaces)
        with local_disk_errors(self.root, _PURPOSE):
            self._ours(held).rewrite(intent, held.intent)
        return Held(intent, held.folder)

    def failed(self, held: Held, error: BaseException) -> None:
        """Note for status that an intent was tried in vain. Not durable; never raises for the disk's sake."""
        try:
            folder = self._ours(held)
            before = folder.failure(held.intent.id)
            attempts = before.attempts + 1 if before else 1
            text = str(error) or type(error).__name__
            folder.note(held.intent.id, Failure(error=text, attempts=attempts, at_ns=self._clock.time_ns()))
        except (OSError, StorageError) as problem:
            log.warning('%s:%s: status cannot show why it waits: %s', held.intent.mount, held.intent.path, problem)

    def drop(self, held: Held) -> None:
        """It is done, or will never be: forget it with its data. Idempotent. Raises StorageIOError."""
        folder = self._ours(held)
        with local_disk_errors(folder.path, 'forget what is uploaded'):
            folder.remove(held.intent.id)
            with self._lock:
                folder.ids.discard(held.intent.id)
                done = folder is not self._own and not folder.ids and folder in self._folders
                if done:
                    self._folders.discard(folder)
            if done:
                folder.release()

    def adopt(self) -> list[Held]:
        """Take over what processes that are gone have left for this destination, in all roots; oldest first.

        What cannot be taken over stays for the next time and is logged. Raises nothing for the disk's sake.
        """
        held: list[Held] = []
        for path in self._orphans():
            try:
                folder = JournalFolder.take(path)
                if folder is not None:
                    held.extend(self._take_over(folder))
            except (OSError, StorageError):
                log.exception('%s: what waits there could not be taken over', path)
        return sorted(held, key=lambda each: (each.intent.created_ns, each.intent.id))

    def close(self) -> None:
        """Let go of everything; what is left waits for whoever adopts it. Idempotent. Raises StorageIOError."""
        with self._lock:
            folders = list(self._folders)
            self._folders.clear()
            self._own = None
        for folder in folders:
            with local_disk_errors(folder.path, 'close the journal'):
                folder.release()

    def _store(self, folder: JournalFolder, intent: Intent, data: Data | bytes | None) -> Held:
        if not ID.fullmatch(intent.id):
            raise ValueError(f'{intent.id!r} is no id of an intent: take one from new_id()')
        with self._lock:
            if intent.id in folder.ids:
                raise ValueError(f'{intent.id} is there already')
            folder.ids.add(intent.id)
        try:
            folder.store(intent, data)
        except BaseException:
            with self._lock:
                folder.ids.discard(intent.id)
            raise
        return Held(intent, folder)

    def _ours(self, held: Held) -> JournalFolder:
        if not held.folder.is_ours:
            raise StorageIOError(
                f'{held.intent.mount}:{held.intent.path}: its journal {held.folder.path} is not ours any more: '
                'it was closed, the process has forked, or the folder was removed'
            )
        return held.folder

    def _own_folder(self) -> JournalFolder:
        own = self._own
        if own is not None and own.is_ours:
            return own
        with self._making:
            own = self._own
            if own is not None and own.is_ours:
                return own
            # Also if somebody has removed the folder: what was in it is gone, and the next must have a place.
            folder = JournalFolder.create(self._prepare())
            with self._lock:
                self._own = folder
                self._folders.add(folder)
            return folder

    def _prepare(self) -> Path:
        """The folder of the destination, there and durable."""
        private_directory(self.root, durable=True)
        try:
            register_root(self.root, self._state)
        except (OSError, StorageError) as error:
            # As safe as before but for one case; to refuse all writes where the home is read-only would help nobody.
            log.warning('%s: it could not be noted that a journal is there (%s); keep cache: path:', self.root, error)
        folder = self.root / folder_of(self.destination)
        private_directory(folder, durable=True)
        named = folder / 'destination'
        text = os.fsencode(self.destination)
        there = named.read_bytes() if named.exists() else b''
        if there != text:
            if folder_of(os.fsdecode(there)) == folder.name:  # else it was damaged
                raise StorageIOError(f'{folder} belongs to {os.fsdecode(there)!r}, not to {self.destination!r}')
            write_whole(named, text)
        return folder

    def _orphans(self) -> Iterator[Path]:
        """Every folder of this destination; those whose process lives are among them."""
        try:
            roots = known_roots(self._state)
        except OSError:
            log.exception('the register of journals cannot be read; only what is in %s is found', self.root)
            roots = []
        for root in dict.fromkeys([self.root, *roots]):
            parent = root / folder_of(self.destination)
            try:
                if parent.stat().st_uid != os.geteuid():
                    raise PermissionError(errno.EPERM, 'belongs to another user', str(parent))
                paths = sorted(each for each in parent.iterdir() if each.is_dir() and not each.is_symlink())
            except FileNotFoundError:
                continue
            except OSError:
                log.exception('%s: what waits there could not be taken over', parent)
                continue
            yield from paths

    def _take_over(self, folder: JournalFolder) -> list[Held]:
        try:
            intents = folder.recover()
        except BaseException:
            folder.abandon()
            raise
        if not intents:
            folder.release()
            return []
        with self._lock:
            folder.ids.update(intent.id for intent in intents)
            self._folders.add(folder)
        return [Held(intent, folder) for intent in intents]


def folder_of(destination: str) -> str:
    """The name of a destination's folder."""
    return hashlib.sha256(os.fsencode(destination)).hexdigest()[:16]
