"""ObjectRequests made of coroutines on fsspec's one event loop: what the stores of Google and Azure share.

Owns the waiting between a calling thread and the loop, what is asked at once, and the connection of each process. What
a request looks like on the wire is said by a LoopConnection, of which there is one for each kind of store.

Threads: safe. Coroutines run on the loop's thread, so none of them may wait for anything but the network; contents are
read by the threads that call.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from genro_storage.backends.base import Expected, Headers, LengthLimit, Source
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.object_requests import PLAIN, Commit, ListingPage, ObjectUpload, StoredObject
from genro_storage.backends.per_process import PerProcess
from genro_storage.runtime import WorkerPool

T = TypeVar('T')

# However patient a mount is: a host that has not accepted a connection by then is not there.
CONNECT_TIMEOUT_MAX_S = 10.0

# The time limit of a silence begins when a body has been sent, so a server that stops receiving would never be
# noticed. An upload slower than this counts as one that makes no progress.
_SLOWEST_UPLOAD_BYTES_S = 64 << 10

# Requests under way at once, of one call and of the workers of `each`.
_AT_ONCE = 16

# How long close waits for workers and connections; what is open then goes with the process.
CLOSE_TIMEOUT_S = 1.0


class LoopConnection(Protocol):
    """What one process has of a bucket or container. Coroutines run on the loop and raise StorageErrors only.

    ``single_put_max_bytes``: up to here one request stores an object. Answers to writes tell the time.
    """

    single_put_max_bytes: int

    async def head(self, key: str) -> StoredObject | None:
        """See ObjectRequests."""

    async def headers(self, key: str) -> Headers | None:
        """See ObjectRequests."""

    def url(self, key: str, valid_s: float) -> str:
        """See ObjectRequests; called on the calling thread."""

    async def page(
        self, prefix: str, delimiter: str, limit: int | None, after: str | None
    ) -> tuple[ListingPage, str | None]:
        """One page of a listing, of at most ``limit`` keys, and what the next one comes ``after``, if there is one."""

    async def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        """See ObjectRequests."""

    async def put(self, key: str, data: bytes, expected: Expected, metadata: Mapping[str, str]) -> StoredObject:
        """Store one object in one request. Raises as Commit does."""

    async def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See ObjectRequests."""

    def upload(self, key: str, source: Source, metadata: Mapping[str, str]) -> AbstractContextManager[Commit]:
        """See ObjectRequests; called on the calling thread, for what is too large for one request."""

    def begin(self, key: str, metadata: Mapping[str, str]) -> ObjectUpload | None:
        """See ObjectRequests; called on the calling thread. What is not completed vanishes by itself."""

    async def remove(self, key: str) -> None:
        """See ObjectRequests."""

    async def copy(
        self, source: str, target: str, tag: str | None, expected: Expected, metadata: Mapping[str, str] | None
    ) -> StoredObject:
        """See ObjectRequests."""

    def close(self) -> None:
        """Give back what is open, in the process that made it. Idempotent."""


class LoopRequests:
    """See ObjectRequests. ``connect`` is called once in each process, on first use; ``load`` imports what it needs."""

    tells_mtime = True

    def __init__(
        self,
        destination: str,
        key_limit: LengthLimit,
        connect: Callable[[], LoopConnection],
        load: Callable[[], object] = lambda: None,
    ) -> None:
        self.key_limit = key_limit
        self._destination = destination
        self._load = load
        self._process = PerProcess(lambda: _Process(connect()))

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._destination

    def prepare(self) -> None:
        """See ObjectRequests. Modules only: these clients look for credentials as they are made, perhaps far away."""
        self._load()

    def look(self, places: Sequence[tuple[str, str]]) -> list[tuple[StoredObject | None, list[str]]]:
        """See ObjectRequests."""
        connection = self._connection

        async def look_at(place: tuple[str, str]) -> tuple[StoredObject | None, list[str]]:
            # The listing's failure first: a HEAD cannot tell a missing bucket from a missing key.
            heading = asyncio.ensure_future(connection.head(place[0]))
            try:
                below = await _keys(connection, place[1], 1)
            except BaseException:
                heading.cancel()
                await asyncio.gather(heading, return_exceptions=True)
                raise
            return await heading, below

        return run(_all_at_once(look_at, places))

    def first_keys(self, prefixes: Sequence[str], limit: int) -> list[list[str]]:
        """See ObjectRequests."""
        connection = self._connection
        return run(_all_at_once(lambda prefix: _keys(connection, prefix, limit), prefixes))

    def head(self, key: str) -> StoredObject | None:
        """See ObjectRequests."""
        return run(self._connection.head(key))

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """See ObjectRequests."""
        return run(_all_at_once(self._connection.head, keys))

    def headers(self, key: str) -> Headers | None:
        """See ObjectRequests."""
        return run(self._connection.headers(key))

    def url(self, key: str, valid_s: float) -> str:
        """See ObjectRequests."""
        return self._connection.url(key, valid_s)

    def pages(self, prefix: str, delimiter: str) -> Iterator[ListingPage]:
        """See ObjectRequests."""
        after: str | None = ''
        while after is not None:
            page, after = run(self._connection.page(prefix, delimiter, None, after or None))
            yield page

    def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        """See ObjectRequests."""
        return run(self._connection.read(key, offset, size_bytes, tag))

    @contextmanager
    def upload(self, key: str, source: Source, metadata: Mapping[str, str] = PLAIN) -> Iterator[Commit]:
        """See ObjectRequests."""
        connection = self._connection
        if source.size_bytes > connection.single_put_max_bytes:
            with connection.upload(key, source, metadata) as commit:
                yield commit
            return
        data = read_exactly(source, 0, source.size_bytes)
        yield lambda expected: run(connection.put(key, data, expected, metadata))

    def begin(self, key: str, metadata: Mapping[str, str] = PLAIN) -> ObjectUpload | None:
        """See ObjectRequests."""
        return self._connection.begin(key, metadata)

    def abort(self, key: str, token: str) -> None:
        """See ObjectRequests. There is nothing to name: what nobody completes vanishes by itself."""

    def mark(self, key: str, expected: Expected = None, metadata: Mapping[str, str] = PLAIN) -> None:
        """See ObjectRequests."""
        run(self._connection.put(key, b'', expected, metadata))

    def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See ObjectRequests."""
        return run(self._connection.describe(key, metadata, tag))

    def remove(self, key: str) -> None:
        """See ObjectRequests."""
        run(self._connection.remove(key))

    def remove_all(self, keys: Sequence[str]) -> None:
        """See ObjectRequests. Some at once: these stores have no order."""
        run(_all_at_once(self._connection.remove, keys))

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
        return run(self._connection.copy(source, target, tag, expected, metadata))

    def each(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        """See ObjectRequests."""
        self._process.get().pool.each(function, items, _AT_ONCE)

    def close(self) -> None:
        """See ObjectRequests."""
        process = self._process.take()
        if process is not None:
            process.pool.close(CLOSE_TIMEOUT_S)
            process.connection.close()

    @property
    def connection(self) -> LoopConnection:
        """This process's own; made on first use."""
        return self._connection

    @property
    def _connection(self) -> LoopConnection:
        return self._process.get().connection


class _Process:
    """What one process has: a connection, and workers."""

    def __init__(self, connection: LoopConnection) -> None:
        self.connection = connection
        self.pool = WorkerPool('loop-requests', _AT_ONCE)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and wait for what it returns. An interrupt cancels it."""
    future = start(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def start(coroutine: Coroutine[Any, Any, T]) -> 'Future[T]':
    """Run a coroutine on the loop; its outcome later."""
    return asyncio.run_coroutine_threadsafe(coroutine, event_loop())


def event_loop() -> asyncio.AbstractEventLoop:
    """fsspec's, which a thread of its own runs; a forked child has another."""
    from fsspec.asyn import get_loop

    loop: asyncio.AbstractEventLoop = get_loop()
    return loop


def sending_limit_s(size_bytes: int, timeout_s: float) -> float | None:
    """How long a request with a body may take in all; None without one, whose silence alone is limited."""
    return timeout_s + size_bytes / _SLOWEST_UPLOAD_BYTES_S if size_bytes else None


async def _keys(connection: LoopConnection, prefix: str, limit: int) -> list[str]:
    page, after = await connection.page(prefix, '', limit, None)
    found = [stored.key for stored in page.objects]
    # A page may be empty though others follow it.
    while after is not None and len(found) < limit:
        page, after = await connection.page(prefix, '', limit, after)
        found += [stored.key for stored in page.objects]
    return found[:limit]


async def _all_at_once(ask: Callable[[Any], Coroutine[Any, Any, T]], items: Sequence[Any]) -> list[T]:
    """Ask for each, some at once; the first failure, once all that had begun have ended."""
    answers: list[T] = []
    for begin in range(0, len(items), _AT_ONCE):
        found = await asyncio.gather(*map(ask, items[begin : begin + _AT_ONCE]), return_exceptions=True)
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
    return answers
