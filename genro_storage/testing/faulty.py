"""A backend that fails or stalls when told to: wraps any Backend, decides nothing else.

Owns the plan of faults and the record of calls. Threads: safe; a stalled call holds no lock.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from genro_storage.backends.base import (
    Backend,
    Capabilities,
    Expected,
    Headers,
    MakesUrls,
    Move,
    MovesInSteps,
    PartUpload,
    SharesStore,
    Source,
    StoresMetadata,
    TellsBeginnings,
    TellsHeaders,
    UploadsInParts,
)
from genro_storage.entry import Entry, Extent, Usage, Version
from genro_storage.errors import StorageUnsupportedError
from genro_storage.runtime import about_to_block

T = TypeVar('T')


class Stall:
    """A call that waits until it is released."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_until_reached(self, timeout_s: float = 10.0) -> None:
        """Wait until the call is there. Raises TimeoutError if it does not come."""
        if not self._reached.wait(timeout_s):
            raise TimeoutError(f'no call came to the stall within {timeout_s:g} s')

    def release(self) -> None:
        """Let the call go on."""
        self._released.set()

    def _pass(self) -> None:
        self._reached.set()
        self._released.wait()


class FaultyBackend:
    """Does what the inner backend does, but for the faults that were planned.

    Calls are counted per method, from 1, from the making of this; those of its uploads in parts as ``upload.send``,
    ``upload.copy``, ``upload.complete`` and ``upload.abort``. ``capabilities`` may be told to be others than the inner
    ones: a MemoryBackend that is not instant stands for a remote one.
    """

    def __init__(self, inner: Backend, capabilities: Capabilities | None = None) -> None:
        self.inner = inner
        self._capabilities = capabilities or inner.capabilities
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()  # guarded by _lock
        self._before: dict[tuple[str, int], Callable[[], None]] = {}  # guarded by _lock
        self._after: dict[tuple[str, int], Callable[[], None]] = {}  # guarded by _lock
        self._always: dict[str, Exception] = {}  # guarded by _lock

    def calls(self, method: str) -> int:
        """How often a method was called."""
        with self._lock:
            return self._calls[method]

    def fail(self, method: str, error: Exception, *, nth: int = 1, after: bool = False) -> None:
        """Have the n-th call from now on fail; with after, once the inner backend has done it: a lost answer."""

        def fault() -> None:
            raise error

        with self._lock:
            (self._after if after else self._before)[method, self._calls[method] + nth] = fault

    def fail_always(self, method: str, error: Exception) -> None:
        """Have each call fail until heal()."""
        with self._lock:
            self._always[method] = error

    def stall(self, method: str, *, nth: int = 1) -> Stall:
        """Have the n-th call from now on wait before it is done."""
        stall = Stall()
        with self._lock:
            self._before[method, self._calls[method] + nth] = stall._pass
        return stall

    def heal(self) -> None:
        """Forget all faults that have not happened. Calls that stall go on stalling until they are released."""
        with self._lock:
            self._before.clear()
            self._after.clear()
            self._always.clear()

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return self._capabilities

    @property
    def destination(self) -> str:
        """See Backend."""
        return self.inner.destination

    def stat(self, path: str) -> Entry:
        """See Backend."""
        return self._call('stat', lambda: self.inner.stat(path))

    def stat_and_read(self, path: str, size_bytes: int) -> tuple[Entry, bytes | None]:
        """See TellsBeginnings; a stat and no bytes where the inner backend is none."""
        inner = self.inner
        if not isinstance(inner, TellsBeginnings):
            return self.stat(path), None
        return self._call('stat_and_read', lambda: inner.stat_and_read(path, size_bytes))

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        return self._call('list_directory', lambda: self.inner.list_directory(path))

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend."""
        return self._call('read_range', lambda: self.inner.read_range(path, offset, size_bytes, version))

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
        store = partial(self.inner.put, path, source, expected=expected, placed=placed, metadata=metadata)
        return self._call('put', store)

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend."""
        self._call('remove_file', lambda: self.inner.remove_file(path, seen=seen, beside=beside))

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend."""
        self._call('make_directory', lambda: self.inner.make_directory(path, metadata=metadata))

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend."""
        self._call('remove_directory', lambda: self.inner.remove_directory(path, beside=beside))

    def rename(self, source: str, target: str) -> None:
        """See Backend."""
        self._call('rename', lambda: self.inner.rename(source, target))

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
        return self._call(
            'copy',
            lambda: self.inner.copy(source, target, version=version, expected=expected, metadata=metadata),
        )

    @property
    def store(self) -> str:
        """See SharesStore."""
        return self.inner.store if isinstance(self.inner, SharesStore) else ''

    def path_in_store(self, path: str) -> str:
        """See SharesStore."""
        assert isinstance(self.inner, SharesStore)  # noqa: S101 - who asks has seen the name of the store
        return self.inner.path_in_store(path)

    def move_seen(self, source: str, target: str, seen: Entry, *, beside: bool | None = None) -> Entry:
        """See MovesInSteps."""
        return self._call('move_seen', lambda: self._mover.move_seen(source, target, seen, beside=beside))

    def plan_move(self, source: str, target: str) -> Sequence[Move]:
        """See MovesInSteps."""
        return self._call('plan_move', lambda: self._mover.plan_move(source, target))

    def copy_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps."""
        self._call('copy_planned', lambda: self._mover.copy_planned(source, target, moves))

    def remove_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps."""
        self._call('remove_planned', lambda: self._mover.remove_planned(source, target, moves))

    def undo_planned(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """See MovesInSteps."""
        self._call('undo_planned', lambda: self._mover.undo_planned(source, target, moves))

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend."""
        self._call('set_mtime', lambda: self.inner.set_mtime(path, mtime_ns))

    def begin_upload(self, path: str, metadata: Mapping[str, str] | None = None) -> PartUpload | None:
        """See UploadsInParts."""
        inner = self.inner
        if not isinstance(inner, UploadsInParts):
            return None
        upload = self._call('begin_upload', lambda: inner.begin_upload(path, metadata))
        return None if upload is None else _FaultyUpload(upload, self._call)

    def abort_upload(self, path: str, token: str) -> None:
        """See UploadsInParts."""
        inner = self.inner
        if isinstance(inner, UploadsInParts):
            self._call('abort_upload', lambda: inner.abort_upload(path, token))

    def metadata(self, path: str) -> Mapping[str, str]:
        """See StoresMetadata."""
        return self._call('metadata', lambda: self._storer.metadata(path))

    def set_metadata(self, path: str, metadata: Mapping[str, str], *, expected: Version | None) -> Entry:
        """See StoresMetadata."""
        return self._call('set_metadata', lambda: self._storer.set_metadata(path, metadata, expected=expected))

    def tell_attributes(self, directory: str, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See StoresMetadata."""
        return self._call('tell_attributes', lambda: self._storer.tell_attributes(directory, entries))

    def headers(self, path: str) -> Headers:
        """See TellsHeaders; says nothing where the inner backend is none."""
        inner = self.inner
        return self._call('headers', lambda: inner.headers(path)) if isinstance(inner, TellsHeaders) else Headers()

    def url(self, path: str, valid_s: float) -> str:
        """See MakesUrls. Raises StorageUnsupportedError where the inner backend is none."""
        inner = self.inner
        if not isinstance(inner, MakesUrls):
            raise StorageUnsupportedError(f'{self.destination}: its files have no URLs')
        return self._call('url', lambda: inner.url(path, valid_s))

    def usage(self) -> Usage | None:
        """See Backend."""
        return self._call('usage', self.inner.usage)

    def close(self) -> None:
        """See Backend. Never fails: it is how a test ends."""
        self.inner.close()

    @property
    def _mover(self) -> MovesInSteps:
        assert isinstance(self.inner, MovesInSteps)  # noqa: S101 - the capability that a caller has seen
        return self.inner

    @property
    def _storer(self) -> StoresMetadata:
        assert isinstance(self.inner, StoresMetadata)  # noqa: S101 - the capability that a caller has seen
        return self.inner

    def _call(self, method: str, operation: Callable[[], T]) -> T:
        if not self._capabilities.instant:
            about_to_block()
        with self._lock:
            self._calls[method] += 1
            number = self._calls[method]
            always = self._always.get(method)
            before = self._before.pop((method, number), None)
            after = self._after.pop((method, number), None)
        if always is not None:
            raise always
        if before is not None:
            before()
        result = operation()
        if after is not None:
            after()
        return result


class _Call(Protocol):
    def __call__(self, method: str, operation: Callable[[], T]) -> T:
        """What the operation returns, but for the fault that was planned for this call of the method."""


class _FaultyUpload:
    """See PartUpload."""

    def __init__(self, inner: PartUpload, call: _Call) -> None:
        self._inner = inner
        self._call = call

    @property
    def token(self) -> str:
        """See PartUpload."""
        return self._inner.token

    def send(self, number: int, source: Source, extent: Extent) -> None:
        """See PartUpload."""
        self._call('upload.send', lambda: self._inner.send(number, source, extent))

    def copy(self, number: int, extent: Extent, version: Version, source: str | None = None) -> None:
        """See PartUpload."""
        self._call('upload.copy', lambda: self._inner.copy(number, extent, version, source))

    def complete(self, count: int, expected: Expected) -> Entry:
        """See PartUpload."""
        return self._call('upload.complete', lambda: self._inner.complete(count, expected))

    def abort(self) -> None:
        """See PartUpload."""
        self._call('upload.abort', self._inner.abort)
