"""What a web server shows, as a Backend that reads only.

Owns what is a file and what a directory there: a file answers at its own URL, a directory at one with a slash, and its
entries are the links of its index page. An index page tells no sizes, so each file of it is asked for its own.

The version is the ETag, or else time and size. It counts as weak: common servers make their ETags of time and size.

Threads: safe.
"""

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime

from genro_storage import paths
from genro_storage.backends import web_pages
from genro_storage.backends.base import Capabilities
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.http_errors import RANGE_NOT_SATISFIABLE
from genro_storage.backends.object_store_http import Answer
from genro_storage.backends.per_process import PerProcess
from genro_storage.backends.ranges import PARTIAL
from genro_storage.backends.read_only import ReadOnlyBackend
from genro_storage.backends.web_channel import NOT_FOUND, OK, Found, WebChannel, refusal
from genro_storage.entry import Entry, Extent, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageUnsupportedError,
)
from genro_storage.runtime import WorkerPool, about_to_block

# What a server without index pages says to who asks for one.
_NO_PAGE = frozenset({403, 404, 405, 410})
_NO_HEAD = frozenset({405, 501})
_AT_ONCE = 16
_CLOSE_TIMEOUT_S = 1.0


class HttpBackend(ReadOnlyBackend):
    """The files at and below ``base_url``. ``headers`` go with each request to its server."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 30.0) -> None:
        self._channel = WebChannel(base_url, headers or {}, timeout_s)
        super().__init__(f'http:{self._channel.url}')
        self._pool = PerProcess(lambda: WorkerPool('http', _AT_ONCE))
        self.hidden = HiddenNames(self._destination)

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return Capabilities(writable=False)

    def stat(self, path: str) -> Entry:
        """See Backend. A web server need not show the root for what is below it to be there."""
        about_to_block()
        if not path:
            answer = self._ask('HEAD', path, directory=True).answer
            if answer.status != OK and answer.status not in _NO_PAGE:
                raise refusal(answer, self._shown(path))
            return Entry('', Kind.DIRECTORY)
        found = self._ask('HEAD', path)
        if found.answer.status in _NO_HEAD:
            found = self._ask('GET', path, extent=Extent(0, 1))
        if found.is_below_slash:
            return self._directory(path, found)
        if found.answer.status in NOT_FOUND:
            return self._directory(path, self._ask('HEAD', path, directory=True))
        return self._file(path, found.answer)

    def stat_and_read(self, path: str, size_bytes: int) -> tuple[Entry, bytes | None]:
        """See TellsBeginnings."""
        about_to_block()
        found = self._ask('GET', path, extent=Extent(0, size_bytes)) if path else None
        if found is None or found.answer.status not in {OK, PARTIAL} or found.is_below_slash:
            return self.stat(path), None
        entry = self._file(path, found.answer)
        return entry, found.answer.body if entry.is_file else None

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend. Raises StorageUnsupportedError where the server shows no index page."""
        about_to_block()
        found = self._ask('GET', path, directory=True)
        if found.answer.status in NOT_FOUND or not found.is_below_slash:
            if path and not self.stat(path).is_directory:
                raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')
            raise StorageUnsupportedError(f'{self._shown(path)}: the server shows no index page')
        if found.answer.status != OK:
            raise refusal(found.answer, self._shown(path))
        if not found.answer.headers.get('content-type', '').startswith('text/html'):
            raise StorageUnsupportedError(f'{self._shown(path)}: the server shows no index page')
        named = web_pages.names_in(found.answer.body, found.url)
        shown = {name: is_directory for name, is_directory in named.items() if self.hidden.shows(path, name)}
        return self._looked_at(path, shown)

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend. The version is that of the answer itself."""
        about_to_block()
        if version is None or size_bytes <= 0 or not path:
            entry = self._readable(path, version)
            size_bytes = min(size_bytes, entry.size_bytes - offset)
            if size_bytes <= 0:
                return b''
        found = self._ask('GET', path, extent=Extent(offset, size_bytes))
        if found.answer.status == RANGE_NOT_SATISFIABLE:
            self._readable(path, version)
            return b''
        if found.answer.status in NOT_FOUND or found.is_below_slash:
            if version is not None:
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened')
            raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
        entry = self._file(path, found.answer)
        if version is not None and entry.version != version:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')
        return found.answer.body

    def url(self, path: str, valid_s: float) -> str:
        """See MakesUrls. Raises StorageUnsupportedError where it takes headers or a password to read it."""
        if self._channel.has_credentials:
            raise StorageUnsupportedError(f'{self._shown(path)}: its URL is of no use without the headers of the mount')
        return self._channel.url_of(path)

    def close(self) -> None:
        """See Backend."""
        pool = self._pool.take()
        if pool is not None:
            pool.close(_CLOSE_TIMEOUT_S)
        self._channel.close()

    # Asking

    def _ask(self, method: str, path: str, *, directory: bool = False, extent: Extent | None = None) -> Found:
        url = self._channel.url_of(path, directory=directory)
        return self._channel.ask(method, url, self._shown(path), extent=extent)

    def _directory(self, path: str, found: Found) -> Entry:
        """The entry of a directory, if that is what was found; one whose page is refused is there."""
        if found.answer.status not in {OK, 403} or not found.is_below_slash:
            raise refusal(found.answer, self._shown(path))
        return Entry(paths.basename(path), Kind.DIRECTORY)

    def _file(self, path: str, answer: Answer) -> Entry:
        if answer.status not in {OK, PARTIAL}:
            raise refusal(answer, self._shown(path))
        name = paths.basename(path)
        mtime_ns = _time_of(answer)
        size_bytes = _size_of(answer)
        if size_bytes is None:
            # Made as it is asked for. It is there, but a file of no known size nobody can read in ranges.
            return Entry(name, Kind.OTHER, 0, mtime_ns)
        tag = answer.headers.get('etag')
        version = Version(tag, strong=False) if tag else Version.weak(mtime_ns, size_bytes)
        return Entry(name, Kind.FILE, size_bytes, mtime_ns, version)

    def _readable(self, path: str, version: Version | None) -> Entry:
        """The entry of a file that can be read."""
        try:
            entry = self.stat(path)
        except StorageNotFoundError as error:
            if version is not None:
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened') from error
            raise
        if entry.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        if not entry.is_file:
            raise StorageUnsupportedError(f'{self._shown(path)}: the server does not tell how long it is')
        if version is not None and entry.version != version:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')
        return entry

    def _looked_at(self, directory: str, named: Mapping[str, bool]) -> list[Entry]:
        """Entries of these names, each file asked for its own; what has gone meanwhile is left out."""
        entries = [Entry(name, Kind.DIRECTORY) for name, is_directory in named.items() if is_directory]

        def look(name: str) -> None:
            try:
                entries.append(self.stat(paths.child(directory, name)))
            except StorageNotFoundError:
                return
            except (StoragePermissionError, StorageUnsupportedError, StorageIOError):
                # It is there; who opens it hears why it cannot be read.
                entries.append(Entry(name, Kind.OTHER))

        files = [name for name, is_directory in named.items() if not is_directory]
        self._pool.get().each(look, files, _AT_ONCE)
        return entries


def _size_of(answer: Answer) -> int | None:
    """How long the whole file is, which the header of a range says too."""
    if answer.status == PARTIAL:
        told = answer.headers.get('content-range', '').rpartition('/')[2]
    else:
        told = answer.headers.get('content-length', '')
    return int(told) if told.isascii() and told.isdigit() else None


def _time_of(answer: Answer) -> int:
    try:
        return int(parsedate_to_datetime(answer.headers.get('last-modified', '')).timestamp()) * 1_000_000_000
    except ValueError:
        return 0
