"""WebDAV as a FileServer (RFC 4918), over connections of our own.

Owns its methods and the XML of its answers. A version is the server's ETag, or time and size; it counts as weak,
because common servers make their ETags of these.

Files are replaced by MOVE, before which a server deletes what is there (RFC 4918, 9.9.3): for an instant others may
find nothing, but never a part. A new one is moved with 'Overwrite: F', which the server refuses where something is.

Threads: safe.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes, urlsplit
from xml.etree import ElementTree as ET

import msgspec

from genro_storage import paths
from genro_storage.backends.base import Capabilities, InterruptedReadError, Source
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.http_errors import RANGE_NOT_SATISFIABLE
from genro_storage.backends.object_store_http import Answer
from genro_storage.backends.ranges import PARTIAL
from genro_storage.backends.served_files import ServedFiles, shown
from genro_storage.backends.web_channel import OK, Found, WebChannel, basic, refusal
from genro_storage.entry import Entry, Extent, Kind, Usage, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIOError,
    StorageNotFoundError,
    StoragePathError,
    StorageUnsupportedError,
)
from genro_storage.runtime import jitter_s

_PIECE_BYTES = 1 << 20

_MULTISTATUS = 207
_NOT_ALLOWED = 405
_CONFLICT = 409
_PRECONDITION_FAILED = 412
_LOCKED = 423

# Servers lock what they change, and refuse who comes meanwhile, for milliseconds. The pauses are half a second in all.
_TRIES = 8
_FIRST_PAUSE_S = 0.01
# rclone's server breaks a listing off where a file has gone that it was about to tell of.
_LISTINGS = 8

_ASKED = (
    b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getcontentlength/>'
    b'<D:getlastmodified/><D:getetag/></D:prop></D:propfind>'
)
_ASKED_QUOTA = (
    b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:quota-available-bytes/>'
    b'<D:quota-used-bytes/></D:prop></D:propfind>'
)
_XML = {'content-type': 'application/xml; charset=utf-8'}


def webdav_backend(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    token: str | None = None,
    timeout_s: float = 30.0,
) -> ServedFiles:
    """The files of a collection. Connects on first use."""
    headers = {}
    if token:
        headers['authorization'] = f'Bearer {token}'
    elif username:
        headers['authorization'] = basic(username, password or '')
    server = WebdavServer(WebChannel(url, headers, timeout_s), username or '')
    return ServedFiles(server.destination, lambda: server, Capabilities(atomic_replace=False))


class WebdavServer:
    """See FileServer. ``user``: who asks, where that may say what is seen."""

    copies = True

    def __init__(self, channel: WebChannel, user: str) -> None:
        self._channel = channel
        scheme, _, rest = channel.url.partition('://')
        self.destination = f'webdav:{scheme}://{user}@{rest}' if user else f'webdav:{channel.url}'

    def look(self, path: str) -> Entry:
        """See FileServer."""
        found = self._find(path, '0', _ASKED)
        for told in _responses(found.answer.body, self._shown(path)):
            return _entry(paths.basename(path), told)
        raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')

    def entries(self, path: str) -> Iterable[Entry]:
        """See FileServer."""
        for _ in range(1, _LISTINGS):
            with suppress(_NoXmlError):
                return self._listed(path)
        return self._listed(path)

    def _listed(self, path: str) -> list[Entry]:
        found = self._find(path, '1', _ASKED, directory=True)
        entries = []
        # Names in answers are encoded as the server pleases: compared decoded.
        here = _decoded(found.url).rstrip(b'/') + b'/'
        for told in _responses(found.answer.body, self._shown(path)):
            name = _decoded(told.href).rstrip(b'/')
            if name.startswith(here):
                entries.append(_entry(paths.decode(name[len(here) :]), told))
        return entries

    def read(self, path: str, offset: int, size_bytes: int, check: Callable[[Entry], int]) -> bytes:
        """See FileServer. Looked at after reading: a change before or during it shows, as far as ETag or time tell."""
        answer = self._ask('GET', path, extent=Extent(offset, size_bytes)).answer if size_bytes > 0 else None
        entry = self.look(path)
        wanted = check(entry)
        if answer is None or not wanted:
            return b''
        if answer.status == RANGE_NOT_SATISFIABLE:
            raise StorageConflictError(f'{self._shown(path)} became longer while it was read')
        if answer.status not in {OK, PARTIAL}:
            raise refusal(answer, self._shown(path))
        # A server may begin with one and go on with another: that is how rclone's does.
        tag = answer.headers.get('etag')
        if entry.version is not None and tag and entry.version.tag.startswith(('"', 'W/')) and tag != entry.version.tag:
            raise StorageConflictError(f'{self._shown(path)} has changed while it was read')
        if len(answer.body) < wanted:
            missing = wanted - len(answer.body)
            raise InterruptedReadError(f'{self._shown(path)}: ended {missing} bytes early', answer.body)
        return answer.body[:wanted]

    def store(self, path: str, source: Source) -> None:
        """See FileServer."""
        self._change('PUT', path, body=_Body(source), repeatable=False)

    def move(self, old: str, new: str, *, replacing: bool) -> None:
        """See FileServer."""
        self._transfer('MOVE', old, new, replacing)

    def copy(self, source: str, target: str) -> None:
        """See FileServer."""
        self._transfer('COPY', source, target, replacing=False)

    def remove(self, path: str) -> None:
        """See FileServer."""
        self._change('DELETE', path)

    def make(self, path: str) -> None:
        """See FileServer."""
        answer = self._patiently(lambda: self._ask('MKCOL', path, directory=True, repeatable=False).answer)
        if answer.status == _NOT_ALLOWED:
            raise StorageExistsError(f'{self._shown(path)} exists')
        if answer.status == _CONFLICT:
            raise StorageNotFoundError(f'{self._shown(path)}: its parent is not there')
        self._accept(answer, path)

    def remove_empty(self, path: str) -> None:
        """See FileServer."""
        self._change('DELETE', path, directory=True)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See FileServer."""
        raise StorageUnsupportedError(f'{self._shown(path)}: WebDAV has no way to set the time {mtime_ns}')

    def usage(self) -> Usage | None:
        """See FileServer. By RFC 4331, where the server has it."""
        found = self._find('', '0', _ASKED_QUOTA, directory=True)
        for told in _responses(found.answer.body, self._shown('')):
            free, used = (told.number(name) for name in ('quota-available-bytes', 'quota-used-bytes'))
            if free is not None and used is not None:
                return Usage(used + free, free, free)
        return None

    def close(self) -> None:
        """See FileServer."""
        self._channel.close()

    def _find(self, path: str, depth: str, asked: bytes, *, directory: bool = False) -> Found:
        headers = {'depth': depth, **_XML}
        found = self._ask('PROPFIND', path, headers, body=_Bytes(asked), directory=directory or not path)
        if found.answer.status == _NOT_ALLOWED:
            raise StorageUnsupportedError(f'{self._shown(path)}: this server does not speak WebDAV')
        if found.answer.status != _MULTISTATUS:
            raise refusal(found.answer, self._shown(path))
        return found

    def _transfer(self, method: str, old: str, new: str, replacing: bool) -> None:
        # Of this host: a server behind a proxy may know itself by another name, and reads the path alone.
        headers = {'destination': self._channel.url_of(new), 'overwrite': 'T' if replacing else 'F'}
        answer = self._patiently(lambda: self._ask(method, old, headers, repeatable=False).answer)
        if answer.status == _PRECONDITION_FAILED:
            raise StorageExistsError(f'{self._shown(new)} exists')
        if answer.status == _CONFLICT:
            raise StorageNotFoundError(f'{self._shown(new)}: its parent is not there')
        self._accept(answer, old)

    def _change(
        self, method: str, path: str, *, body: '_Body | None' = None, directory: bool = False, repeatable: bool = True
    ) -> None:
        answer = self._patiently(
            lambda: self._ask(method, path, body=body, directory=directory, repeatable=repeatable).answer
        )
        self._accept(answer, path)

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """The answer to what changes something; asked for again while somebody else is at the same."""
        for failures in range(1, _TRIES):
            answer = ask()
            if answer.status != _LOCKED:
                return answer
            time.sleep(jitter_s(_FIRST_PAUSE_S, failures))
        return ask()

    def _accept(self, answer: Answer, path: str) -> None:
        # A success of several parts tells of those that failed.
        if not OK <= answer.status < 300 or answer.status == _MULTISTATUS:
            raise refusal(answer, self._shown(path))

    def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: '_Body | _Bytes | None' = None,
        extent: Extent | None = None,
        directory: bool = False,
        repeatable: bool = True,
    ) -> Found:
        if not paths.is_text(path):
            raise StoragePathError(f'{self._shown(path)}: WebDAV has no names but in UTF-8')
        url = self._channel.url_of(path, directory=directory)
        return self._channel.ask(
            method, url, self._shown(path), headers, body=body, extent=extent, repeatable=repeatable
        )

    def _shown(self, path: str) -> str:
        return shown(self.destination, path)


class _Bytes:
    """See Body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def pieces(self) -> Iterable[bytes]:
        """See Body."""
        return [self._data]


class _Body:
    """See Body: a source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size_bytes = source.size_bytes

    def pieces(self) -> Iterable[bytes]:
        """See Body. Raises StorageIOError if the source is shorter than it says."""
        for offset in range(0, self.size_bytes, _PIECE_BYTES):
            yield read_exactly(self._source, offset, min(_PIECE_BYTES, self.size_bytes - offset))


class _NoXmlError(StorageIOError):
    """An answer that is none of the protocol, or not all of it."""


class _Told(msgspec.Struct, frozen=True):
    """What a server says of one resource: properties by name, and whether it is a collection."""

    href: str
    is_collection: bool
    properties: Mapping[str, str]

    def number(self, name: str) -> int | None:
        """A property that is a number, if it is there."""
        told = self.properties.get(name, '')
        return int(told) if told.isascii() and told.isdigit() else None


def _responses(body: bytes, what: str) -> Iterator[_Told]:
    """Those of a multistatus that are there. Raises StorageIOError for what is none."""
    try:
        # The server is trusted with the files themselves, and expat bounds the growth of entities since 2.4.1.
        root = ET.fromstring(body)  # noqa: S314
    except ET.ParseError as error:
        raise _NoXmlError(f'{what}: an answer that is no XML: {error}') from error
    for response in root.iter('{DAV:}response'):
        href = (response.findtext('{DAV:}href') or '').strip()
        properties: dict[str, str] = {}
        is_collection = False
        for propstat in response.iter('{DAV:}propstat'):
            status = (propstat.findtext('{DAV:}status') or '').split(' ')
            if status[1:2] != ['200']:
                continue
            for element in propstat.iterfind('{DAV:}prop/*'):
                properties[element.tag.removeprefix('{DAV:}')] = (element.text or '').strip()
                is_collection = is_collection or element.find('{DAV:}collection') is not None
        if properties:
            yield _Told(href, is_collection, properties)


def _entry(name: str, told: _Told) -> Entry:
    try:
        moment = parsedate_to_datetime(told.properties.get('getlastmodified', ''))
        mtime_ns = int(moment.timestamp()) * 1_000_000_000
    except ValueError:
        mtime_ns = 0
    if told.is_collection:
        return Entry(name, Kind.DIRECTORY, 0, mtime_ns)
    size_bytes = told.number('getcontentlength') or 0
    tag = told.properties.get('getetag')
    version = Version(tag, strong=False) if tag else Version.weak(mtime_ns, size_bytes)
    return Entry(name, Kind.FILE, size_bytes, mtime_ns, version)


def _decoded(url: str) -> bytes:
    return unquote_to_bytes(urlsplit(url).path)
