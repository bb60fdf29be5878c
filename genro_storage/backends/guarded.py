"""Retries and a circuit breaker around any backend that may be out of reach.

Owns which operations may be asked again (those where a second time changes nothing), how often and after what pause,
and that a dead backend fails at once instead of holding a worker for its timeout. Knows no backend by type. The time
limit of a single request is the backend's own: only it sees bytes move.

Threads: safe; keeps no state but the breaker's. Waits in its pauses, so serving threads are refused first.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from genro_storage.backends.base import (
    Backend,
    Capabilities,
    Expected,
    Headers,
    InterruptedReadError,
    MakesUrls,
    Move,
    MovesInSteps,
    PartUpload,
    Prepares,
    SharesStore,
    Source,
    StoresMetadata,
    TellsBeginnings,
    TellsHeaders,
    UploadsInParts,
)
from genro_storage.backends.breaker import CircuitBreaker
from genro_storage.entry import Entry, Extent, Usage, Version
from genro_storage.errors import (
    StorageError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.runtime import Clock, about_to_block, jitter_s

T = TypeVar('T')

#: See jitter_s.
FIRST_PAUSE_S = 0.2
#: With four tries a server that refuses every other request fails one operation in sixteen.
TRIES = 4
#: A server that asks for fewer requests is there, and such storms last for seconds: 13 s of pauses on average.
THROTTLED_TRIES = 8
#: A try that brought so much has been worth it, and the next one counts as the first: a line that breaks every few
#: megabytes is no dead one.
PROGRESS_BYTES = 64 << 10


class GuardedBackend:
    """Does what the inner backend does, more patiently, and less so while that is out of reach."""

    def __init__(
        self, inner: Backend, clock: Clock, timeout_s: float, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._given = inner
        self._clock = clock
        self._timeout_s = timeout_s
        self._pause = pause
        self._breaker = CircuitBreaker(clock)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self._given!r})'

    @property
    def _inner(self) -> Backend:
        return self._given

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return self._inner.capabilities

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._inner.destination

    def stat(self, path: str) -> Entry:
        """See Backend. Tried again."""
        return self._persist(lambda: self._inner.stat(path))

    def stat_and_read(self, path: str, size_bytes: int) -> tuple[Entry, bytes | None]:
        """See TellsBeginnings. Tried again, without the bytes where they broke off; none where the backend is none."""

        def ask() -> tuple[Entry, bytes | None]:
            inner = self._inner
            if not isinstance(inner, TellsBeginnings):
                return inner.stat(path), None
            try:
                return inner.stat_and_read(path, size_bytes)
            except InterruptedReadError:
                return inner.stat(path), None

        return self._persist(ask)

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend. Tried again."""
        return self._persist(lambda: self._inner.list_directory(path))

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend. Tried again; of a version from where it broke off, of whatever is there from the start."""
        received: list[bytes] = []

        def read_rest() -> bytes:
            done = sum(len(piece) for piece in received)
            if received and done == size_bytes:
                return b''
            try:
                return self._inner.read_range(path, offset + done, size_bytes - done, version)
            except InterruptedReadError as error:
                if version is None:
                    # What comes next may be of another version: a mixture.
                    raise StorageUnavailableError(str(error)) from error
                received.append(error.received)
                raise

        rest = self._persist(read_rest)
        return b''.join([*received, rest]) if received else rest

    def put(
        self,
        path: str,
        source: Source,
        *,
        expected: Expected = None,
        placed: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. Tried again only without a condition, which a first try that did arrive would break."""

        def store() -> Entry:
            return self._inner.put(path, source, expected=expected, placed=placed, metadata=metadata)

        return self._persist(store) if expected is None else self._once(store)

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend. Once: a second try could not tell its own success from nothing being there."""
        self._once(lambda: self._inner.remove_file(path, seen=seen, beside=beside))

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend. Once."""
        self._once(lambda: self._inner.make_directory(path, metadata=metadata))

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend. Once."""
        self._once(lambda: self._inner.remove_directory(path, beside=beside))

    def rename(self, source: str, target: str) -> None:
        """See Backend. Once."""
        self._once(lambda: self._inner.rename(source, target))

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. Tried again only without a condition on the target, as ``put``."""

        def copy() -> Entry:
            return self._inner.copy(source, target, version=version, expected=expected, metadata=metadata)

        return self._persist(copy) if expected is None else self._once(copy)

    @property
    def store(self) -> str:
        """See SharesStore."""
        return self._inner.store if isinstance(self._inner, SharesStore) else ''

    def path_in_store(self, path: str) -> str:
        """See SharesStore."""
        assert isinstance(self._inner, SharesStore)  # noqa: S101 - who asks has seen the name of the store
        return self._inner.path_in_store(path)

    def move_seen(self, source: str, target: str, seen: Entry, *, beside: bool | None = None) -> Entry:
        """See MovesInSteps. Once: a second try could not tell its own success from a file that has gone."""
        return self._once(lambda: self._mover.move_seen(source, target, seen, beside=beside))

    def plan_move(self, source: str, target: str) -> Sequence[Move]:
        """See MovesInSteps. Tried again: what is done already it finds done."""
        return self._persist(lambda: self._mover.plan_move(source, target))

    def copy_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps. Tried again: what is done already it finds done."""
        self._persist(lambda: self._mover.copy_planned(source, target, moves))

    def remove_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps. Tried again: what is done already it finds done."""
        self._persist(lambda: self._mover.remove_planned(source, target, moves))

    def undo_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps. Tried again: what is done already it finds done."""
        self._persist(lambda: self._mover.undo_planned(source, target, moves))

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend. Tried again."""
        self._persist(lambda: self._inner.set_mtime(path, mtime_ns))

    def metadata(self, path: str) -> Mapping[str, str]:
        """See StoresMetadata. Tried again."""
        return self._persist(lambda: self._storer.metadata(path))

    def set_metadata(self, path: str, metadata: Mapping[str, str], *, expected: Version | None) -> Entry:
        """See StoresMetadata. Tried again only without a condition: the first try may have made another version."""

        def describe() -> Entry:
            return self._storer.set_metadata(path, metadata, expected=expected)

        return self._persist(describe) if expected is None else self._once(describe)

    def tell_attributes(self, directory: str, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See StoresMetadata. Tried again."""
        return self._persist(lambda: self._storer.tell_attributes(directory, entries))

    def usage(self) -> Usage | None:
        """See Backend. Tried again."""

        def ask() -> Usage | None:
            return self._inner.usage()

        return self._persist(ask)

    def begin_upload(self, path: str, metadata: Mapping[str, str] | None = None) -> PartUpload | None:
        """See UploadsInParts. Tried again: one whose answer was lost stays on the server until that forgets it."""

        def begin() -> PartUpload | None:
            inner = self._inner
            return inner.begin_upload(path, metadata) if isinstance(inner, UploadsInParts) else None

        upload = self._persist(begin)
        return None if upload is None else _GuardedUpload(upload, self._persist, self._once)

    def abort_upload(self, path: str, token: str) -> None:
        """See UploadsInParts. Tried again."""

        def abort() -> None:
            inner = self._inner
            if isinstance(inner, UploadsInParts):
                inner.abort_upload(path, token)

        self._persist(abort)

    def headers(self, path: str) -> Headers:
        """See TellsHeaders. Tried again; says nothing where the backend is none."""

        def ask() -> Headers:
            inner = self._inner
            return inner.headers(path) if isinstance(inner, TellsHeaders) else Headers()

        return self._persist(ask)

    def url(self, path: str, valid_s: float) -> str:
        """See MakesUrls. The backend is not asked, but who knows the credentials may be."""
        about_to_block()
        if not isinstance(self._inner, MakesUrls):
            raise StorageUnsupportedError(f'{self.destination}: its files have no URLs')
        return self._inner.url(path, valid_s)

    def prepare(self) -> None:
        """See Prepares."""
        if isinstance(self._inner, Prepares):
            self._inner.prepare()

    def ask_again(self) -> None:
        """See HoldsBack."""
        self._breaker.close()

    def close(self) -> None:
        """See Backend."""
        self._inner.close()

    @property
    def _mover(self) -> MovesInSteps:
        assert isinstance(self._inner, MovesInSteps)  # noqa: S101 - the capability that a caller has seen
        return self._inner

    @property
    def _storer(self) -> StoresMetadata:
        if not self._inner.capabilities.stores_metadata:
            raise StorageUnsupportedError(f'{self.destination}: no metadata is stored there')
        assert isinstance(self._inner, StoresMetadata)  # noqa: S101 - the capability says so
        return self._inner

    def _persist(self, operation: Callable[[], T]) -> T:
        return self._once(lambda: self._try(operation))

    def _try(self, operation: Callable[[], T]) -> T:
        """Try until it succeeds, the tries are used up, or the mount's timeout would pass without progress."""
        deadline = self._clock.monotonic() + self._timeout_s
        failures = 0  # in a row
        while True:
            try:
                return operation()
            except StorageUnavailableError as error:
                progress_bytes = len(error.received) if isinstance(error, InterruptedReadError) else 0
                if progress_bytes:
                    deadline = self._clock.monotonic() + self._timeout_s
                failures = 1 if progress_bytes >= PROGRESS_BYTES else failures + 1
                pause_s = jitter_s(FIRST_PAUSE_S, failures)
                patience = THROTTLED_TRIES if isinstance(error, StorageThrottledError) else TRIES
                if failures >= patience or self._clock.monotonic() + pause_s > deadline:
                    raise
            self._pause(pause_s)

    def _once(self, operation: Callable[[], T]) -> T:
        """Ask the backend unless the breaker is open, and tell the breaker how that went."""
        about_to_block()
        wait_s = self._breaker.may_ask()
        if wait_s:
            raise StorageUnavailableError(
                f'{self.destination} did not answer lately; it is asked again in {wait_s:.1f} s at the earliest'
            )
        try:
            result = operation()
        except StorageThrottledError:
            self._breaker.succeeded()  # a server that asks for patience is there
            raise
        except (StorageUnavailableError, StorageTimeoutError):
            self._breaker.failed()
            raise
        except StorageError:
            self._breaker.succeeded()
            raise
        except BaseException:
            self._breaker.left_open()
            raise
        self._breaker.succeeded()
        return result


class _Run(Protocol):
    def __call__(self, operation: Callable[[], T]) -> T:
        """What the operation returns or raises."""


class _GuardedUpload:
    """See PartUpload. ``persist`` and ``once`` are its backend's ways to ask."""

    def __init__(self, inner: PartUpload, persist: _Run, once: _Run) -> None:
        self._inner = inner
        self._persist = persist
        self._once = once

    @property
    def token(self) -> str:
        """See PartUpload."""
        return self._inner.token

    def send(self, number: int, source: Source, extent: Extent) -> None:
        """See PartUpload. Tried again: a part replaces itself."""
        self._persist(lambda: self._inner.send(number, source, extent))

    def copy(self, number: int, extent: Extent, version: Version, source: str | None = None) -> None:
        """See PartUpload. Tried again."""
        self._persist(lambda: self._inner.copy(number, extent, version, source))

    def complete(self, count: int, expected: Expected) -> Entry:
        """See PartUpload. Once: a second try finds no upload, or another version than the expected one."""
        return self._once(lambda: self._inner.complete(count, expected))

    def abort(self) -> None:
        """See PartUpload. Tried again."""
        self._persist(self._inner.abort)
