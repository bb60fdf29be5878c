"""A server of files and directories as a Backend: SFTP, WebDAV, FTP, SMB.

Owns what our operations mean where a server has real directories and no conditions: what is looked at before, the
hidden name that a file is written under until it is whole, and the move that then puts it in its place. What goes over
the wire is said by a FileServer, one for each protocol.

Names of what is under way, and of what a process that died has left, are in no listing; who removes a directory in
which there is nothing else removes them too.

Threads: safe, as FileServers are; there is no lock here.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Capabilities, Expected, Source, SourceGoneError
from genro_storage.backends.expectations import refuse_target
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.oserrors import refuse_removing_root, refuse_rename
from genro_storage.backends.per_process import PerProcess
from genro_storage.entry import Entry, Usage, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUnsupportedError,
)
from genro_storage.runtime import about_to_block, jitter_s

# What servers say, each its own, to who gives a file a name that somebody else has just taken.
_REFUSALS = (StorageIOError, StoragePermissionError, StorageNotFoundError)

# And to who does that while somebody else does it: that it is locked, denied, or not there, for some milliseconds. With
# the pauses between them these are half a second, in which eight who replace one file have done so one by one.
_MOVES = 8
_FIRST_PAUSE_S = 0.01

_UNDER_WAY = re.compile(r'\.genro-[0-9a-f]{16}')


class FileServer(Protocol):
    """One protocol: requests on paths as Backend has them, which look at nothing first. Raises StorageErrors only.

    Threads: safe. Forked children make connections of their own.
    """

    @property
    def copies(self) -> bool:
        """Whether the server copies files by itself; may ask it."""

    def look(self, path: str) -> Entry:
        """What is there, links followed. Raises StorageNotFoundError."""

    def entries(self, path: str) -> Iterable[Entry]:
        """What is in a directory, names that no path can express too."""

    def read(self, path: str, offset: int, size_bytes: int, check: Callable[[Entry], int]) -> bytes:
        """Bytes of a file as ``check`` allows it, which gets the entry of that very file and returns how many."""

    def store(self, path: str, source: Source) -> None:
        """Write a new file, durably where the server knows how."""

    def move(self, old: str, new: str, *, replacing: bool) -> None:
        """Give a file or directory another name; ``replacing`` a file, or else only where nothing is.

        Raises StorageExistsError, where the server tells.
        """

    def copy(self, source: str, target: str) -> None:
        """Copy a file to a new name, on the server."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def make(self, path: str) -> None:
        """Make a directory."""

    def remove_empty(self, path: str) -> None:
        """Remove a directory that was empty a moment ago."""

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend."""

    def usage(self) -> Usage | None:
        """See Backend."""

    def close(self) -> None:
        """Close the connections of this process. Idempotent."""


class ServedFiles:
    """The files that a server shows, which ``make`` makes on first use; a missing package is told then."""

    def __init__(self, destination: str, make: Callable[[], FileServer], capabilities: Capabilities) -> None:
        self._destination = destination
        self._servers = PerProcess(make)
        self._capabilities = capabilities
        self.hidden = HiddenNames(destination)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.destination!r})'

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return self._capabilities

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._destination

    def prepare(self) -> None:
        """See Prepares."""
        self._servers.get()

    def stat(self, path: str) -> Entry:
        """See Backend."""
        about_to_block()
        return self._server.look(path)

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        about_to_block()
        return [
            entry
            for entry in self._entries(path)
            if not _UNDER_WAY.fullmatch(entry.name) and self.hidden.shows(path, entry.name)
        ]

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend."""
        about_to_block()

        def check(entry: Entry) -> int:
            self._check_file(path, entry, version)
            return max(0, min(size_bytes, entry.size_bytes - offset))

        try:
            return self._server.read(path, offset, size_bytes, check)
        except (StorageNotFoundError, StorageNotADirectoryError) as error:
            if version is not None:
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened') from error
            raise
        except (StorageIOError, StorageIsADirectoryError):
            # Servers have many answers to who reads a directory.
            self._check_file(path, self._server.look(path), version)
            raise

    def put(
        self,
        path: str,
        source: Source,
        *,
        expected: Expected = None,
        placed: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. A version is compared right before; of many who create a file one wins, where servers tell."""
        about_to_block()
        if not placed or not path or expected is not None:
            self._check_target(path, expected)
        if not placed:
            self._make_parents(path)
        self._place(path, expected, lambda hidden: self._server.store(hidden, source))
        return self._placed(path)

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend."""
        about_to_block()
        if not seen or not path:
            self._check_file(path, self._server.look(path), None)
        self._server.remove(path)

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend."""
        about_to_block()
        if self._find(path) is not None:
            raise StorageExistsError(f'{self._shown(path)} exists')
        self._require_directory(paths.parent(path))
        try:
            self._server.make(path)
        except StorageIOError as error:
            # Who came second hears of a failure only, from some.
            if self._find(path) is None:
                raise
            raise StorageExistsError(f'{self._shown(path)} exists') from error

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend."""
        about_to_block()
        refuse_removing_root(path, self._shown(path))
        entries = self._entries(path)
        if not all(_UNDER_WAY.fullmatch(entry.name) for entry in entries):
            raise StorageNotEmptyError(f'{self._shown(path)} is not empty')
        for entry in entries:
            with suppress(StorageNotFoundError):
                self._server.remove(paths.child(path, entry.name))
        self._server.remove_empty(path)

    def rename(self, source: str, target: str) -> None:
        """See Backend."""
        about_to_block()
        refuse_rename(source, target, self._shown(source))
        moving = self._server.look(source)
        self._require_directory(paths.parent(target))
        if source == target:
            return
        there = self._find(target)
        if there is not None and moving.is_directory:
            # Few servers replace a directory; an empty one goes first, as rename(2) would replace it.
            self.remove_directory(target)
        elif there is not None and there.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(target)} is a directory and a file cannot replace it')
        if moving.is_directory:
            self._server.move(source, target, replacing=False)
        else:
            self._move(source, target, replacing=True)

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. The version of the source is compared before and after."""
        about_to_block()
        if not self._server.copies:
            raise StorageUnsupportedError(f'{self._shown(source)}: the server has no way to copy it')
        before = self._check_source(source, version)
        self._check_target(target, expected)
        self._make_parents(target)

        def fill(hidden: str) -> None:
            self._server.copy(source, hidden)
            self._check_source(source, before)

        self._place(target, expected, fill)
        return self._placed(target)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend."""
        about_to_block()
        self._server.set_mtime(path, mtime_ns)

    def usage(self) -> Usage | None:
        """See Backend."""
        about_to_block()
        return self._server.usage()

    def close(self) -> None:
        """See Backend."""
        server = self._servers.take()
        if server is not None:
            server.close()

    @property
    def _server(self) -> FileServer:
        return self._servers.get()

    def _place(self, path: str, expected: Expected, fill: Callable[[str], None]) -> None:
        """Have a file written under a hidden name in the same directory, then moved to its own."""
        hidden = paths.child(paths.parent(path), hidden_name())
        try:
            fill(hidden)
            self._move(hidden, path, replacing=expected is not ABSENT)
        except BaseException as error:
            # The error that led here says what is wrong; one of cleaning up as well would hide it.
            with suppress(StorageError):
                self._server.remove(hidden)
            if expected is ABSENT and isinstance(error, _REFUSALS) and self._find(path) is not None:
                raise StorageExistsError(f'{self._shown(path)} exists') from error
            raise

    def _move(self, old: str, new: str, *, replacing: bool) -> None:
        """Give a file its name; again, while it is there, when others who are at the same may have been in the way."""
        refusals = (*_REFUSALS, StorageConflictError, StorageExistsError) if replacing else _REFUSALS
        for failures in range(1, _MOVES):
            try:
                self._server.move(old, new, replacing=replacing)
            except refusals:
                if self._find(old) is None or (not replacing and self._find(new) is not None):
                    raise
            else:
                return
            time.sleep(jitter_s(_FIRST_PAUSE_S, failures))
        self._server.move(old, new, replacing=replacing)

    def _placed(self, path: str) -> Entry:
        """The entry of what was put in its place, or has replaced it since, which may leave nothing for an instant."""
        for failures in range(1, _MOVES):
            try:
                return self._server.look(path)
            except StorageNotFoundError:
                if self._capabilities.atomic_replace:
                    raise
            time.sleep(jitter_s(_FIRST_PAUSE_S, failures))
        return self._server.look(path)

    def _entries(self, path: str) -> list[Entry]:
        self._require_directory(path)
        return list(self._server.entries(path))

    def _find(self, path: str) -> Entry | None:
        try:
            return self._server.look(path)
        except (StorageNotFoundError, StorageNotADirectoryError):
            return None

    def _check_file(self, path: str, entry: Entry, version: Version | None) -> None:
        if entry.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        if version is not None and entry.version != version:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')

    def _check_source(self, path: str, version: Version | None) -> Version | None:
        entry = self._find(path)
        if entry is None and version is None:
            raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
        if entry is None or (version is not None and entry.version != version):
            raise SourceGoneError(f'{self._shown(path)} is not that version any more')
        self._check_file(path, entry, None)
        return entry.version

    def _check_target(self, path: str, expected: Expected) -> None:
        refuse_target(self._find(path), expected, self._shown(path))

    def _make_parents(self, path: str) -> None:
        missing = []
        nearest = paths.parent(path)
        while nearest and (there := self._find(nearest)) is None:
            missing.append(nearest)
            nearest = paths.parent(nearest)
        if nearest and not (there or self._server.look(nearest)).is_directory:
            raise StorageNotADirectoryError(f'{self._shown(nearest)} is not a directory')
        for directory in reversed(missing):
            try:
                self._server.make(directory)
            except (StorageIOError, StorageExistsError):
                # Others may be at the same.
                if self._find(directory) is None:
                    raise

    def _require_directory(self, path: str) -> None:
        if not self._server.look(path).is_directory:
            raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')

    def _shown(self, path: str) -> str:
        return shown(self.destination, path)


def hidden_name() -> str:
    """A new name that no listing shows."""
    return f'.genro-{secrets.token_hex(8)}'


def shown(destination: str, path: str) -> str:
    """A path in messages."""
    return repr(f'{destination}/{path}') if path else repr(destination)
