"""ObjectRequests that have obstore do what it can be relied on for, in Rust, and ask for all else otherwise.

Owns what obstore is asked for and by which name; how it reads is object_store_reading's. For the stores of Google and
Azure, whose other requests are LoopRequests.

Ranges, and of Azure the listings of directories. Not more, because obstore's paths name neither a marker (``d/``
becomes ``d``) nor a key with a control character, its listings fail as a whole for one such key and tell no generation
of Google's objects, and its uploads in parts take no condition. And its failures have too few classes: a refusal to
connect, a timeout, 416, 429 and 503 are one GenericError, told apart by text alone. So two classes are believed, that
the object is gone or is another version; after anything else the other requests ask again, and their failure has a
type. Nothing reads a text of obstore's, and none gets out: they hold whole URLs and answers, with the signature of an
Azure SAS token in them.

Threads: safe. In a forked child, where obstore hangs, all is asked otherwise.
"""

import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from genro_storage.backends.base import Expected, Headers, LengthLimit, Source
from genro_storage.backends.object_requests import (
    PLAIN,
    Commit,
    ListingPage,
    ObjectRequests,
    ObjectUpload,
    StoredObject,
)
from genro_storage.backends.object_store_reading import ObstoreReader, is_inherited
from genro_storage.backends.object_store_xml import tag_of
from genro_storage.backends.per_process import PerProcess
from genro_storage.errors import StorageError, StorageThrottledError, StorageTimeoutError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

T = TypeVar('T')


class ObstoreRequests:
    """See ObjectRequests. ``exact`` does what obstore cannot; ``make_reader`` is called once in each process."""

    def __init__(self, exact: ObjectRequests, make_reader: Callable[[], ObstoreReader]) -> None:
        self._exact = exact
        self._process = PerProcess(make_reader)

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._exact.destination

    @property
    def tells_mtime(self) -> bool:
        """See ObjectRequests."""
        return self._exact.tells_mtime

    @property
    def key_limit(self) -> LengthLimit:
        """See ObjectRequests."""
        return self._exact.key_limit

    def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        """See ObjectRequests. Raises InterruptedReadError."""
        reader = self._process.get()
        try:
            data = reader.read(key, offset, size_bytes, tag, f'{self.destination}: {key!r}')
        except StorageError as error:
            # Not from obstore's: see above about its texts.
            raise error from None
        if data is not None:
            return data
        try:
            return self._exact.read(key, offset, size_bytes, tag)
        except StorageThrottledError:
            reader.rest()
            raise

    def prepare(self) -> None:
        """See ObjectRequests."""
        self._exact.prepare()
        if not is_inherited():
            # No store: its credentials may be those that the other requests have yet to find.
            import obstore  # noqa: F401 - the import is what takes its time

    # What obstore is not asked

    def look(self, places: Sequence[tuple[str, str]]) -> list[tuple[StoredObject | None, list[str]]]:
        """See ObjectRequests."""
        return self._exact.look(places)

    def first_keys(self, prefixes: Sequence[str], limit: int) -> list[list[str]]:
        """See ObjectRequests."""
        return self._exact.first_keys(prefixes, limit)

    def head(self, key: str) -> StoredObject | None:
        """See ObjectRequests."""
        return self._exact.head(key)

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """See ObjectRequests."""
        return self._exact.heads(keys)

    def headers(self, key: str) -> Headers | None:
        """See ObjectRequests."""
        return self._exact.headers(key)

    def url(self, key: str, valid_s: float) -> str:
        """See ObjectRequests."""
        return self._exact.url(key, valid_s)

    def pages(self, prefix: str, delimiter: str) -> Iterator[ListingPage]:
        """See ObjectRequests."""
        return self._exact.pages(prefix, delimiter)

    def upload(self, key: str, source: Source, metadata: Mapping[str, str] = PLAIN) -> AbstractContextManager[Commit]:
        """See ObjectRequests."""
        return self._exact.upload(key, source, metadata)

    def begin(self, key: str, metadata: Mapping[str, str] = PLAIN) -> ObjectUpload | None:
        """See ObjectRequests."""
        return self._exact.begin(key, metadata)

    def abort(self, key: str, token: str) -> None:
        """See ObjectRequests."""
        self._exact.abort(key, token)

    def mark(self, key: str, expected: Expected = None, metadata: Mapping[str, str] = PLAIN) -> None:
        """See ObjectRequests."""
        self._exact.mark(key, expected, metadata)

    def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See ObjectRequests."""
        return self._exact.describe(key, metadata, tag)

    def remove(self, key: str) -> None:
        """See ObjectRequests."""
        self._exact.remove(key)

    def remove_all(self, keys: Sequence[str]) -> None:
        """See ObjectRequests."""
        self._exact.remove_all(keys)

    def copy(
        self,
        source: str,
        target: str,
        size_bytes: int,
        tag: str | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
        storage_class: str = '',
    ) -> StoredObject:
        """See ObjectRequests."""
        return self._exact.copy(source, target, size_bytes, tag, expected, metadata, storage_class)

    def each(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        """See ObjectRequests."""
        self._exact.each(function, items)

    def close(self) -> None:
        """See ObjectRequests."""
        self._process.take()
        self._exact.close()


def why_not(url: str) -> str | None:
    """Why obstore cannot be asked for what is at a URL, here and now; None if it can."""
    if not is_installed():
        return 'obstore is not installed'
    parts = urlsplit(url)
    host = parts.hostname or ''
    # obstore takes proxies from the environment and the other requests do not.
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return f'the environment names a proxy for {host}'
    return None


def is_installed() -> bool:
    """Whether obstore could be imported."""
    return find_spec('obstore') is not None


class ObstoreListingRequests(ObstoreRequests):
    """The same, with directories listed by obstore too, for a store whose listings tell the tags that it reads by.

    Of Azure: its own client spends 0.3 ms of the interpreter's time on each entry, obstore a hundredth of that.
    """

    def __init__(self, exact: ObjectRequests, make_store: Callable[[], 'ObjectStore'], timeout_s: float) -> None:
        self._store = PerProcess(make_store)
        self._timeout_s = timeout_s
        super().__init__(exact, lambda: ObstoreReader(self._store.get, timeout_s))

    def pages(self, prefix: str, delimiter: str) -> Iterator[ListingPage]:
        """See ObjectRequests. A directory in one page."""
        # Without a delimiter markers are asked for, which obstore does not name.
        page = self._listed(prefix) if delimiter == '/' and not is_inherited() else None
        return super().pages(prefix, delimiter) if page is None else iter((page,))

    def close(self) -> None:
        """See ObjectRequests."""
        self._store.take()
        super().close()

    def _listed(self, prefix: str) -> ListingPage | None:
        """A directory; None where obstore cannot, or cannot say why not: ask otherwise."""
        import obstore
        from obstore.exceptions import BaseError

        began = time.monotonic()
        try:
            found = obstore.list_with_delimiter(self._store.get(), prefix or None)
        except (BaseError, OSError, ValueError):
            # The clock tells a timeout where no class does, as in reading.
            if time.monotonic() - began >= self._timeout_s:
                what = f'{self.destination}: {prefix!r}'
                raise StorageTimeoutError(f'{what}: no progress within {self._timeout_s:g} s') from None
            return None
        objects = [_stored(described) for described in found['objects']]
        return ListingPage(objects, [f'{path}/' for path in found['common_prefixes']])


def _stored(described: 'ObjectMeta') -> StoredObject:
    moment = int(described['last_modified'].timestamp())
    return StoredObject(described['path'], described['size'], moment, tag_of(described['e_tag'] or ''))


class GenerationReader(ObstoreReader):
    """Reads from a store whose tags are generations, which obstore calls versions, and no ETags."""

    def _read(self, key: str, options: Any, tag: str | None, what: str) -> bytes | None:
        if tag is not None:
            options = {'range': options['range'], 'version': tag}
        return super()._read(key, options, None, what)
