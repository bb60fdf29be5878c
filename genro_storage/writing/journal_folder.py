"""One folder of intents, locked by the process that owns them.

Owns the layout of the folder and the order of steps that makes each change whole or not there, whenever the process
ends: ``ID.data`` is on the disk before ``ID.intent`` has its name, and goes after it. Small data are in ``ID.intent``,
behind the record. A lock belongs to an open file, so that the end of the process, however it comes, is the end of the
lock; who then gets it owns what is there.

Threads: safe, one thread for each id at a time. Processes: a folder has one owner, and a forked child never is.
"""

import fcntl
import logging
import os
import re
import secrets
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from genro_storage.local_disk import sync_directory, try_lock, write_new, write_whole
from genro_storage.writing.journal_records import (
    ID,
    DamagedRecordError,
    Failure,
    Intent,
    decode_failure,
    decode_intent,
    encode_failure,
    encode_intent,
    inline_data,
)

log = logging.getLogger(__name__)

LOCK, INTENT, DATA, FAILED, DAMAGED = 'lock', '.intent', '.data', '.failed', '.damaged'

_FILE = re.compile(rf'({ID.pattern})(\.[a-z]+)(\.[0-9a-f]+\.tmp)?')
#: Whoever only looks holds a shared lock for microseconds; the chance that so many come in a row is none.
_TRIES = 100
_PAUSE_S = 0.001


#: Data up to here go behind the record: one file to make durable in place of two. To copy more costs what that saves.
INLINE_BYTES = 64 << 10


class Data(Protocol):
    """Bytes that are on this disk already."""

    def whole(self, limit_bytes: int) -> bytes | None:
        """All of them, if they are no more."""

    def fsync(self) -> None:
        """Make them durable."""

    def link(self, path: Path) -> None:
        """Give them one more name, under which nothing changes any more what is there now."""


class JournalFolder:
    """A folder that this process has locked."""

    def __init__(self, path: Path, lock: int) -> None:
        """Takes over the descriptor of the lock, whatever happens. See create and take."""
        self.path = path
        #: Guarded by the lock of the Journal.
        self.ids: set[str] = set()
        self._lock = lock
        try:
            self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except BaseException:
            os.close(lock)
            raise

    def __repr__(self) -> str:
        return f'JournalFolder({str(self.path)!r})'

    @classmethod
    def create(cls, parent: Path) -> 'JournalFolder':
        """A new folder, locked and durable. Raises OSError."""
        while True:
            path = parent / f'{_host()}-{os.getpid()}-{secrets.token_hex(4)}'
            os.mkdir(path, 0o700)
            try:
                lock = _lock_of(path, os.O_EXCL)
                if lock is None:  # taken for an orphan between the two, and removed, because it is empty
                    continue
                folder = cls(path, lock)
                sync_directory(parent)
            except BaseException:
                (path / LOCK).unlink(missing_ok=True)
                with suppress(OSError):  # whoever finds it finds it empty
                    path.rmdir()
                raise
            return folder

    @classmethod
    def take(cls, path: Path) -> 'JournalFolder | None':
        """The folder of a process that is gone; None if its process lives, or there is none. Raises OSError."""
        lock = _lock_of(path, 0)
        return None if lock is None else cls(path, lock)

    @property
    def is_ours(self) -> bool:
        """Whether the lock is held, by this very process, and the folder is still there."""
        return self._lock >= 0 and _leads_to(self.path / LOCK, self._lock)

    def store(self, intent: Intent, data: Data | bytes | None) -> None:
        """Make an intent and its data durable; after a failure nothing of them is left.

        Raises OSError, StorageError (of the data).
        """
        inline = None
        try:
            if isinstance(data, bytes):
                write_new(str(self._file(intent.id, DATA)), data)
            elif data is not None:
                # What is parked, people look at: it is a file of its own.
                inline = None if intent.parked else data.whole(INLINE_BYTES)
                if inline is None:
                    data.fsync()
                    data.link(self._file(intent.id, DATA))
            self._write(intent, inline)
        except BaseException:
            self.remove(intent.id)
            raise

    def rewrite(self, intent: Intent, before: Intent) -> None:
        """Replace the record of an id, at once; after a failure it is what it was before. Raises OSError."""
        inline = self._inline(before.id)
        try:
            self._write(intent, inline)
        except BaseException:
            # The new one may have its name already, but not for certain.
            path, record = self._file(before.id, INTENT), encode_intent(before, inline)
            if path.read_bytes() != record:
                write_whole(path, record)
            raise

    def remove(self, name: str) -> None:
        """Forget an intent: first the record, then its data. Idempotent. Raises OSError."""
        for ending in (INTENT, DATA, FAILED):
            self._file(name, ending).unlink(missing_ok=True)

    def note(self, name: str, failure: Failure) -> None:
        """Write down why it is still here; whole, but not durably. Raises OSError."""
        write_whole(self._file(name, FAILED), encode_failure(failure), sync=False)

    def failure(self, name: str) -> Failure | None:
        """What was noted last. Raises OSError."""
        return read_failure(self._file(name, FAILED))

    def has(self, name: str) -> bool:
        """Whether an intent is there. Raises OSError."""
        return self._file(name, INTENT).exists()

    def data_path(self, name: str) -> Path:
        """Where the data of an intent are, unless they are in its record."""
        return self._file(name, DATA)

    def open_data(self, name: str) -> int:
        """A descriptor of the data of an intent, or of a copy of them, to read and write. Raises OSError."""
        inline = self._inline(name)
        if inline is None:
            return os.open(self._file(name, DATA), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        with tempfile.TemporaryFile(dir=self.path) as file:
            file.write(inline)
            file.seek(0)
            return os.dup(file.fileno())

    def read_data(self, name: str) -> bytes:
        """All of the data of an intent. Raises OSError."""
        inline = self._inline(name)
        return self._file(name, DATA).read_bytes() if inline is None else inline

    def recover(self) -> list[Intent]:
        """What a process that is gone has left: its whole intents; what was never acknowledged is removed.

        A record that cannot be read, or has lost its data, is renamed to ``.damaged`` and logged. Raises OSError.
        """
        found = [match for match in map(_FILE.fullmatch, sorted(os.listdir(self.path))) if match]
        intents: dict[str, Intent] = {}
        kept = {match[1] for match in found if match[2] == DAMAGED}
        for match in found:
            if match[2] == INTENT and not match[3]:
                try:
                    intents[match[1]] = read_intent(self.path / match[0])
                except DamagedRecordError as error:
                    self._set_aside(self.path / match[0], error)
                    kept.add(match[1])
        for intent in list(intents.values()):
            if intent.replaces in intents:
                self.remove(intent.replaces)
                del intents[intent.replaces]
        for match in found:
            if match[3] or (match[1] not in intents and match[1] not in kept):
                self._clear_away(self.path / match[0], match[2])
        return list(intents.values())

    def release(self) -> None:
        """Let go of the lock; the folder goes too if nothing is in it. Idempotent. Raises OSError."""
        if self.is_ours and os.listdir(self.path) == [LOCK]:
            (self.path / LOCK).unlink(missing_ok=True)
            try:
                self.path.rmdir()
            except OSError as error:  # somebody has just looked whether it is an orphan, and will remove it
                log.debug('%s: %s', self.path, error)
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors and touch nothing: in a forked child the lock is the parent's."""
        lock, self._lock = self._lock, -1
        directory, self._directory = self._directory, -1
        for descriptor in (lock, directory):
            if descriptor >= 0:
                os.close(descriptor)

    def _file(self, name: str, ending: str) -> Path:
        return self.path / f'{name}{ending}'

    def _write(self, intent: Intent, inline: bytes | None) -> None:
        write_whole(self._file(intent.id, INTENT), encode_intent(intent, inline))
        os.fsync(self._directory)

    def _inline(self, name: str) -> bytes | None:
        return inline_data(self._file(name, INTENT).read_bytes())

    def _set_aside(self, path: Path, error: DamagedRecordError) -> None:
        aside = path.with_suffix(DAMAGED)
        path.rename(aside)
        log.error('%s: this record of something to upload is damaged (%s); what belongs to it is kept', aside, error)

    def _clear_away(self, path: Path, ending: str) -> None:
        if ending == DATA:
            log.info('%s: removed; its process ended before it was acknowledged, or after it was committed', path)
        path.unlink(missing_ok=True)


def read_intent(path: Path) -> Intent:
    """The intent of a record, if its data are there and whole. Raises DamagedRecordError, OSError."""
    raw = path.read_bytes()
    intent, inline = decode_intent(raw), inline_data(raw)
    if intent.id != path.stem:
        raise DamagedRecordError(f'it calls itself {intent.id!r}')
    if intent.kind in {'upload', 'remove', 'rename'}:
        return intent
    data = path if inline is not None else path.with_suffix(DATA)
    try:
        size_bytes = len(inline) if inline is not None else data.stat().st_size
    except FileNotFoundError as error:
        if not path.exists():  # it is being dropped
            raise
        raise DamagedRecordError(f'{data.name} is missing') from error
    if intent.kind == 'put' and size_bytes < intent.local_bytes:
        raise DamagedRecordError(f'{data.name} has {size_bytes} bytes; expected {intent.local_bytes}')
    return intent


def damaged_bytes(path: Path) -> int:
    """How many bytes of data are with a record that was set aside. Raises OSError."""
    try:
        return path.with_suffix(DATA).stat().st_size
    except FileNotFoundError:
        return len(inline_data(path.read_bytes()) or b'')


def read_failure(path: Path) -> Failure | None:
    """The failure at a path, None where there is none that can be read. Raises OSError."""
    try:
        return decode_failure(path.read_bytes())
    except FileNotFoundError:
        return None
    except DamagedRecordError as error:  # never durable: the power may have gone
        log.debug('%s: %s', path, error)
        return None


def is_owned(path: Path) -> bool:
    """Whether a living process owns the folder at a path. Raises OSError."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock_of(folder: Path, exclusively: int) -> int | None:
    """The locked descriptor of a folder's lock, made if it is missing; None if somebody else has it."""
    flags = os.O_RDWR | os.O_CREAT | exclusively | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(folder / LOCK, flags, 0o600)
    except (FileNotFoundError, FileExistsError):
        return None
    try:
        if _lock_for_good(descriptor) and _leads_to(folder / LOCK, descriptor):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _lock_for_good(descriptor: int) -> bool:
    """Whether nobody owned it, and now we do."""
    for _ in range(_TRIES):
        if try_lock(descriptor, fcntl.LOCK_EX):
            return True
        if not try_lock(descriptor, fcntl.LOCK_SH):
            return False
        # Only lookers are there, of whom we are one now.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(_PAUSE_S)
    return False


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _host() -> str:
    """The host's name as part of a file name, for people who look."""
    return re.sub(r'[^A-Za-z0-9.]', '_', socket.gethostname())[:64] or 'host'
