"""Any fsspec file system as a Backend.

Owns what our operations mean in fsspec's words, and the checks that fsspec leaves to its file systems. Its caches are
off and its globbing methods are avoided: a ``*`` in a name is a letter here. Errors are translated in fsspec_errors,
dictionaries in fsspec_entries.

Conditions are checked right before a put. A put appears as a whole where names can be moved (it is written aside) and
where a commit can be held back (autocommit=False); a file system that can do neither shows a file of more than one
piece while it grows. A rename is the file system's own where it has one, else copies, then removals.

Threads: safe as far as the file system is; there is no lock here. Each process has a file system of its own.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import iscoroutinefunction, signature
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from genro_storage import paths
from genro_storage.backends.base import Capabilities, Expected, InterruptedReadError, Source, SourceGoneError
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.expectations import refuse_target
from genro_storage.backends.fsspec_entries import entry_of
from genro_storage.backends.fsspec_errors import translating_foreign
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.oserrors import refuse_removing_root, refuse_rename
from genro_storage.backends.per_process import PerProcess
from genro_storage.entry import Entry, Version
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.runtime import about_to_block

# A piece of a put: the size of a part where the file system uploads in parts, and what a put holds in memory.
_PIECE_BYTES = 8 << 20

# Names that a web server lists are encoded already.
_IN_URLS = "/%:=&~+!$,;'@()*[]"


class FsspecBackend:
    """The files below ``root`` of an fsspec file system, which ``filesystem_factory`` makes, once per process."""

    def __init__(
        self,
        filesystem_factory: Callable[[], Any],
        root: str,
        destination: str,
        *,
        timeout_s: float = 30.0,
        capabilities: Capabilities | None = None,
    ) -> None:
        self._process = PerProcess(filesystem_factory)
        self._root = root
        self._destination = destination
        self._timeout_s = timeout_s
        self._capabilities = capabilities or Capabilities()
        self.hidden = HiddenNames(destination)

    @classmethod
    def of_protocol(
        cls,
        protocol: str,
        root: str,
        destination: str,
        *,
        options: dict[str, Any] | None = None,
        timeout_s: float = 30.0,
    ) -> 'FsspecBackend':
        """The file system that fsspec knows by a protocol; ``options`` are handed to it as they are.

        An unknown protocol, a missing package and wrong options raise StorageConfigError on first use.
        """

        def make() -> Any:
            try:
                from fsspec import filesystem

                own = {'skip_instance_cache': True, 'use_listings_cache': False}
                return filesystem(protocol, **own | (options or {}))
            except (ImportError, ValueError, TypeError) as error:
                raise StorageConfigError(
                    f'fsspec has no file system {protocol!r} for these options: {error}'
                ) from error

        return cls(make, root, destination, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self._destination!r})'

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return self._capabilities

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._destination

    def stat(self, path: str) -> Entry:
        """See Backend."""
        with self._asking(path):
            info = self._call('info', self._full(path))
        return self._entry(paths.basename(path), info)

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        if not self.stat(path).is_directory:
            raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')
        entries: dict[str, Entry] = {}
        for name, info in self._children(path):
            if self.hidden.shows(path, name):
                entry = self._entry(name, info)
                # Of an object 'a' beside 'a/b' the directory is shown.
                if entry.is_directory or name not in entries:
                    entries[name] = entry
        return list(entries.values())

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend. The version is compared before and after: a change while it is read shows."""
        entry = self._file(path, version)
        end = min(offset + size_bytes, entry.size_bytes)
        if end <= offset:
            return b''
        with self._asking(path):
            data = bytes(self._call('cat_file', self._full(path), start=offset, end=end))
        if version is not None:
            self._file(path, version)
        if len(data) == end - offset:
            return data
        if len(data) == entry.size_bytes:
            return data[offset:end]  # a web server that knows no ranges sends everything, and fsspec hands that on
        if len(data) > end - offset:
            raise StorageIOError(f'{self._shown(path)}: asked for {end - offset} bytes, {len(data)} came')
        raise InterruptedReadError(
            f'{self._shown(path)}: the answer ended {end - offset - len(data)} bytes early', data
        )

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
        if not placed or not path or expected is not None:
            self._check_target(path, expected)
        if not placed:
            self._make_parents(path)
        with self._asking(path):
            self._write(self._full(path), source)
        entry = self._find(path)
        if entry is None:
            # fsspec's own open() for writing takes everything and keeps nothing, where a file system has none.
            raise StorageUnsupportedError(f'{self._shown(path)} was not kept: this file system cannot be written to')
        return entry

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend."""
        if not seen or not path:
            self._file(path, None)
        with self._asking(path):
            self._call('rm_file', self._full(path))

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend."""
        if self._find(path) is not None:
            raise StorageExistsError(f'{self._shown(path)} exists')
        self._require_directory(paths.parent(path))
        with self._asking(path):
            self._call('mkdir', self._full(path), create_parents=False)

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend."""
        refuse_removing_root(path, self._shown(path))
        self._require_empty(path)
        with self._asking(path):
            self._call('rmdir', self._full(path))

    def rename(self, source: str, target: str) -> None:
        """See Backend."""
        refuse_rename(source, target, self._shown(source))
        moving = self.stat(source)
        self._require_directory(paths.parent(target))
        if source == target:
            return
        there = self._find(target)
        if there is not None:
            self._make_room(moving, there, target)
        with self._asking(source):
            if self._has_own_move():
                self._move(self._full(source), self._full(target), recursive=moving.is_directory)
                return
        self._move_by_copies(moving, source, target)

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend."""
        self._source(source, version)
        self._check_target(target, expected)
        self._make_parents(target)
        with self._asking(source):
            self._call('cp_file', self._full(source), self._full(target))
        return self.stat(target)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend."""
        raise StorageUnsupportedError(f'{self._shown(path)}: fsspec has no way to set the time {mtime_ns}')

    def url(self, path: str, valid_s: float) -> str:
        """See MakesUrls. Of what is on the web: that is its URL, without a password that it may hold."""
        parts = urlsplit(self._full(path))
        if parts.scheme not in {'http', 'https'}:
            raise StorageUnsupportedError(f'{self._shown(path)}: it has no URL')
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2], path=quote(parts.path, safe=_IN_URLS)))

    def usage(self) -> None:
        """See Backend. fsspec has no word for it."""

    def close(self) -> None:
        """See Backend. fsspec file systems close their connections when they are dropped."""
        self._process.take()

    # fsspec

    def _asking(self, path: str) -> Any:
        if not self._capabilities.instant:
            about_to_block()
        return translating_foreign(lambda: self._shown(path))

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        bound = getattr(self._process.get(), method)
        # Methods that fsspec made from coroutines take a time limit; what is written synchronously has its own.
        if _is_made_from_coroutine(bound):
            kwargs['timeout'] = self._timeout_s
        return bound(*args, **kwargs)

    def _full(self, path: str) -> str:
        return f'{self._root.rstrip("/")}/{path}' if path else self._root

    def _children(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        with self._asking(path):
            infos = self._call('ls', self._full(path), detail=True)
            prefix = str(self._process.get()._strip_protocol(self._full(path))).rstrip('/') + '/'
        named = [(str(info['name']), info) for info in infos]
        # Some file systems answer with URLs or without the leading slash; then the last name has to do.
        return [
            (name.removeprefix(prefix) if name.startswith(prefix) else name.rstrip('/').rpartition('/')[2], info)
            for name, info in named
            if name.rstrip('/') != prefix.rstrip('/')
        ]

    def _write(self, full: str, source: Source) -> None:
        if self._has_own_move():
            self._write_aside(full, source)
        elif source.size_bytes <= _PIECE_BYTES:
            # One call with all of it: atomic on every object store, and one request.
            self._call('pipe_file', full, read_exactly(source, 0, source.size_bytes))
        else:
            self._write_pieces(full, source)

    def _write_aside(self, full: str, source: Source) -> None:
        """Where names can be moved: to a hidden name in the same directory, then over the target."""
        hidden = f'{full.rpartition("/")[0]}/.genro-{secrets.token_hex(8)}'
        try:
            self._write_pieces(hidden, source)
            self._move(hidden, full, recursive=False)
        except BaseException:
            # The error that led here says what is wrong; one of cleaning up as well would hide it.
            with suppress(Exception):
                self._call('rm_file', hidden)
            raise

    def _write_pieces(self, full: str, source: Source) -> None:
        file = self._call('open', full, 'wb', autocommit=False)
        try:
            for offset in range(0, source.size_bytes, _PIECE_BYTES):
                file.write(read_exactly(source, offset, min(_PIECE_BYTES, source.size_bytes - offset)))
            file.close()
            if _holds_back(file):
                file.commit()
        except BaseException:
            _discard(file)
            raise

    def _has_own_move(self) -> bool:
        from fsspec import AbstractFileSystem

        return type(self._process.get()).mv is not AbstractFileSystem.mv

    def _move(self, old: str, new: str, *, recursive: bool) -> None:
        # Their mv agree on two parameters only.
        takes_recursive = 'recursive' in signature(self._process.get().mv).parameters
        self._call('mv', old, new, **({'recursive': recursive} if takes_recursive else {}))

    def _move_by_copies(self, moving: Entry, source: str, target: str) -> None:
        if not moving.is_directory:
            self.copy(source, target)
            self.remove_file(source)
            return
        files, directories = self._tree(source)
        for old in [*directories, *files]:
            new = target + old.removeprefix(source)
            with self._asking(old):
                if old in directories:
                    self._call('makedirs', self._full(new), exist_ok=True)
                else:
                    self._call('cp_file', self._full(old), self._full(new))
        # Only now that everything has arrived.
        for old in [*files, *reversed(directories)]:
            # Not found: where directories are only what keys imply, they went with the last file.
            with self._asking(old), suppress(FileNotFoundError):
                self._call('rmdir' if old in directories else 'rm_file', self._full(old))

    def _tree(self, path: str) -> tuple[list[str], list[str]]:
        """All files and all directories at and below a path, parents first; names that no path can express too."""
        files: list[str] = []
        directories = [path]
        for directory in directories:
            for name, info in self._children(directory):
                (directories if info['type'] == 'directory' else files).append(paths.child(directory, name))
        return files, directories

    # Checks

    def _entry(self, name: str, info: dict[str, Any]) -> Entry:
        return entry_of(name, info, strong_versions=self._capabilities.strong_versions)

    def _find(self, path: str) -> Entry | None:
        try:
            return self.stat(path)
        except StorageNotFoundError:
            return None

    def _file(self, path: str, version: Version | None) -> Entry:
        entry = self._find(path)
        if entry is None:
            if version is not None:
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened')
            raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
        if entry.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        if version is not None and entry.version != version:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')
        return entry

    def _source(self, path: str, version: Version | None) -> None:
        try:
            self._file(path, version)
        except StorageConflictError as error:
            raise SourceGoneError(str(error)) from error

    def _check_target(self, path: str, expected: Expected) -> None:
        refuse_target(self._find(path), expected, self._shown(path))

    def _make_parents(self, path: str) -> None:
        parent = paths.parent(path)
        nearest = parent
        while nearest and self._find(nearest) is None:
            nearest = paths.parent(nearest)
        if nearest:
            self._require_directory(nearest)
        if nearest != parent:
            with self._asking(parent):
                self._call('makedirs', self._full(parent), exist_ok=True)

    def _require_directory(self, path: str) -> None:
        if not self.stat(path).is_directory:
            raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')

    def _require_empty(self, path: str) -> None:
        self._require_directory(path)
        if self._children(path):
            raise StorageNotEmptyError(f'{self._shown(path)} is not empty')

    def _make_room(self, moving: Entry, there: Entry, target: str) -> None:
        if moving.is_directory:
            # A move onto a directory would go inside it; an empty one goes first, as rename(2) would replace it.
            self.remove_directory(target)
        elif there.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(target)} is a directory and a file cannot replace it')

    def _shown(self, path: str) -> str:
        return repr(f'{self._destination}/{path}') if path else repr(self._destination)


def _is_made_from_coroutine(method: Any) -> bool:
    return iscoroutinefunction(getattr(method, '__wrapped__', None))


def _holds_back(file: Any) -> bool:
    return getattr(file, 'autocommit', True) is False and hasattr(file, 'commit')


def _discard(file: Any) -> None:
    """Give up a file under way, so that neither close() nor the end of the object publishes it."""
    from fsspec.spec import AbstractBufferedFile

    if isinstance(file, AbstractBufferedFile):
        file.closed = True  # its close() would upload what is buffered
    else:
        with suppress(Exception):
            file.close()
    if _holds_back(file) and hasattr(file, 'discard'):
        # The error that led here says what is wrong; one of discarding as well would hide it.
        with suppress(Exception):
            file.discard()
