"""Extended attributes of what is in a volume: an object's user metadata, and what the mount knows of it.

Owns the names, what their values look like and what setxattr(2) is told. ``user.NAME`` is the user metadata NAME, as
far as it is none of those in which modes, owners and times are kept. ``user.genro.NAME`` is told to who asks by name
and not listed: cp -a and tar would copy it. Other namespaces there are none.

Threads: safe; one lock, a leaf, over the user metadata that were told lately.
"""

import errno
import heapq
import re
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cachetools import LRUCache

from fusefs import ops
from fusefs.trees.base import refuse
from genro_storage import paths, posix_format
from genro_storage.backends.base import MakesUrls, StoresMetadata, TellsHeaders
from genro_storage.config import Permissions
from genro_storage.entry import Entry, Version
from genro_storage.errors import StorageUnsupportedError
from genro_storage.mounted import RETRY_ATTRIBUTE
from genro_storage.runtime import about_to_block
from genro_storage.volume import Volume

_USER = 'user.'
_OURS = 'user.genro.'

# linux/xattr.h
_CREATE, _REPLACE = 1, 2

#: Names that user metadata have on every store: as in headers (RFC 9110, "Tokens"), and in small letters, because
#: stores tell none apart.
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
#: What goes into a header and comes back the same everywhere: stores trim blanks, and have ways of their own to write
#: other letters.
_VALUE = re.compile(r'([!-~]([ -~]*[!-~])?)?')
#: Of all names and values: what S3 takes, and the least that any store does (Amazon S3 user guide, "Working with object
#: metadata"). With what is kept of modes, owners and times.
LIMIT_BYTES = 2048
#: What keeps attributes of a file for us and for others, and is shown as what it means.
_KEPT = posix_format.NAMES | {'hdi_isfolder'}

#: How many of the next ones are asked for at a time, several of them at once. Each 32 of a directory of 10,000 names
#: cost one look through these, 1 ms.
AHEAD = 32
#: Answers remembered for as long as entries are: 1 KB each, and 4 KB at most but for what others have stored.
LIMIT_KNOWN = 4096


class _Known(NamedTuple):
    """User metadata of what an entry tells of, and until when to believe them (Clock.monotonic)."""

    version: Version | None
    mtime_ns: int
    expires_s: float
    metadata: Mapping[str, str]


class VolumeXattrs:
    """Those of one volume, by path."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._known: LRUCache[str, _Known] = LRUCache(LIMIT_KNOWN)
        self._asked_in: str | None = None  # the directory of what was asked for last
        self._ours: dict[str, Callable[[str], str | None]] = {
            'state': lambda path: volume.state(path).value,
            'version': self._version,
            'etag': self._etag,
            'content_type': self._content_type,
            'cached': self._cached,
            'url': self._url,
        }

    def get(self, path: str, name: str) -> bytes:
        """A value. Raises OSError(ENODATA) where there is none, OSError(ENOTSUP) for other namespaces."""
        if name.startswith(_OURS):
            tell = self._ours.get(name.removeprefix(_OURS))
            value = tell(path) if tell is not None else None
        else:
            key = _key_of(name)  # before anybody is asked: every ls asks for some of other namespaces
            value = self._shown(path).get(key)
        if value is None:
            refuse(errno.ENODATA)
        return value.encode('utf-8', 'surrogateescape')

    def names(self, path: str) -> bytes:
        """The names to list, each with a NUL behind it."""
        try:
            shown = self._shown(path)
        except StorageUnsupportedError:
            return b''  # what is told by name is told all the same
        return b''.join(f'{_USER}{key}\0'.encode('utf-8', 'surrogateescape') for key in sorted(shown))

    def set(self, path: str, request: ops.Setxattr) -> None:
        """Set a value, stored at once, or with the commit of a file under change.

        Raises OSError: EEXIST and ENODATA as the flags want, ENOTSUP for what no object can have, EPERM for what is
        told here, E2BIG and ENOSPC.
        """
        if request.name == RETRY_ATTRIBUTE:
            self._volume.retry_parked(path)
            return
        key = self._changeable(path, request.name)
        value = _text_of(request.value)
        if not _NAME.fullmatch(key) or value is None:
            refuse(errno.ENOTSUP)
        if len(key) + len(value) > LIMIT_BYTES:
            refuse(errno.E2BIG)
        if request.flags & ~(_CREATE | _REPLACE) or request.flags == _CREATE | _REPLACE:
            refuse(errno.EINVAL)

        def change(metadata: Mapping[str, str]) -> dict[str, str]:
            if request.flags & _CREATE and key in metadata:
                refuse(errno.EEXIST)
            if request.flags & _REPLACE and key not in metadata:
                refuse(errno.ENODATA)
            changed = {**metadata, key: value}
            if _size_bytes(changed) > max(LIMIT_BYTES, _size_bytes(metadata)):
                refuse(errno.ENOSPC)
            return changed

        self._change(path, change)

    def remove(self, path: str, name: str) -> None:
        """Remove a value. Raises OSError as set() does."""
        key = self._changeable(path, name)

        def change(metadata: Mapping[str, str]) -> dict[str, str]:
            if key not in metadata:
                refuse(errno.ENODATA)
            return {other: value for other, value in metadata.items() if other != key}

        self._change(path, change)

    # User metadata

    def _shown(self, path: str) -> dict[str, str]:
        return {key: value for key, value in self._metadata(path).items() if _is_shown(key)}

    def _metadata(self, path: str) -> Mapping[str, str]:
        entry = self._entry(path)
        is_under_change = entry.is_file and entry.version is None
        if is_under_change or self._volume.backend.capabilities.instant:
            return self._volume.metadata(path)
        asked_s = self._volume.clock.monotonic()
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[:2] == (entry.version, entry.mtime_ns) and asked_s < known.expires_s:
            return known.metadata
        metadata = self._volume.metadata(path)
        self._remember(path, entry, asked_s, metadata)
        self._look_ahead(path)
        return metadata

    def _remember(self, path: str, entry: Entry, asked_s: float, metadata: Mapping[str, str]) -> None:
        with self._lock:
            expires_s = asked_s + self._volume.definition.ttl_s
            self._known[path] = _Known(entry.version, entry.mtime_ns, expires_s, metadata)

    def _look_ahead(self, path: str) -> None:
        """Ask for the next ones of a directory, too, if this is not the first: ls and tar want those of all of them."""
        directory, backend = paths.parent(path), self._volume.backend
        with self._lock:
            is_first, self._asked_in = self._asked_in != directory, directory
        if is_first or not isinstance(backend, StoresMetadata):
            return
        listed, _ = self._volume.list_directory(directory)
        name = paths.basename(path)
        following = (entry for entry in listed if entry.name > name and entry.version is not None)
        asked_s = self._volume.clock.monotonic()
        next_ones = heapq.nsmallest(AHEAD, following, key=lambda entry: entry.name)
        for entry in backend.tell_attributes(directory, next_ones) if next_ones else ():
            if entry.metadata is not None:
                self._remember(paths.child(directory, entry.name), entry, asked_s, entry.metadata)

    def _change(self, path: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        try:
            self._volume.change_metadata(path, change)
        finally:
            with self._lock:
                self._known.pop(path, None)  # its version and time may be what they were

    def _changeable(self, path: str, name: str) -> str:
        self._volume.require(Permissions.READWRITE, path)
        key = _key_of(name)
        if not _is_shown(key):
            refuse(errno.EPERM)
        return key

    # What the mount knows

    def _version(self, path: str) -> str | None:
        version = self._entry(path).version
        return None if version is None else version.tag

    def _etag(self, path: str) -> str | None:
        headers = self._volume.backend
        return headers.headers(path).etag if isinstance(headers, TellsHeaders) and self._is_stored(path) else None

    def _content_type(self, path: str) -> str | None:
        headers = self._volume.backend
        return (
            headers.headers(path).content_type if isinstance(headers, TellsHeaders) and self._is_stored(path) else None
        )

    def _cached(self, path: str) -> str | None:
        if not self._entry(path).is_file:
            return None
        about_to_block()  # a disk that is asked for each block of a large file takes its time
        return str(self._volume.cached_bytes(path))

    def _url(self, path: str) -> str | None:
        backend, valid_s = self._volume.backend, self._volume.definition.urls_s
        if valid_s is None or not self._entry(path).is_file:
            return None
        if not isinstance(backend, MakesUrls):
            refuse(errno.ENOTSUP)
        return backend.url(path, valid_s)

    def _is_stored(self, path: str) -> bool:
        """Whether it is a file, as it is on the backend."""
        entry = self._entry(path)
        return entry.is_file and entry.version is not None

    def _entry(self, path: str) -> Entry:
        return self._volume.find(path, timed=False).entry or refuse(errno.ENOENT)


def _key_of(name: str) -> str:
    """The user metadata that an attribute stands for. Raises OSError(ENOTSUP)."""
    if not name.startswith(_USER):
        refuse(errno.ENOTSUP)
    return name.removeprefix(_USER)


def _is_shown(key: str) -> bool:
    return key not in _KEPT and not f'{_USER}{key}'.startswith(_OURS)


def _text_of(value: bytes) -> str | None:
    """A value as user metadata can hold it; None if they cannot."""
    text = value.decode('latin-1')
    return text if _VALUE.fullmatch(text) else None


def _size_bytes(metadata: Mapping[str, str]) -> int:
    return sum(len(key.encode()) + len(value.encode('utf-8', 'surrogateescape')) for key, value in metadata.items())
