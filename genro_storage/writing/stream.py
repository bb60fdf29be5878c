"""A file that is uploaded while it is still written, front to back: its upload in parts overlaps with the writing.

Owns which parts are on the server as they are now. The staged file stays the truth: what is written again behind the
front is sent again, and a stream that fails costs only the time that it would have saved.

Threads: safe. ``wrote`` and ``cut`` are called under the staged file's lock; this object's own is taken after that one
and never held while parts move. Parts are sent on workers, each from a snapshot of its own.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from typing import Protocol

from genro_storage.backends.base import PartUpload
from genro_storage.entry import Entry, Extent
from genro_storage.errors import StorageError
from genro_storage.runtime import WorkerPool
from genro_storage.writing.parts import part_of, plan_streamed
from genro_storage.writing.snapshot import Snapshot

log = logging.getLogger(__name__)

#: A file that ends before is stored by one request, which costs less than three parts.
START_BYTES = 24 << 20
#: Parts under way at a time: enough to keep one server busy, each reading a megabyte of the staged file at a time.
PARTS_AT_ONCE = 4
#: Who comes back so often to what was sent does not write front to back: the rest waits for the commit.
REWRITES_MAX = 8


class Begins(Protocol):
    """How an upload is begun and noted, so that it is aborted whatever happens to this process."""

    def begin(self, path: str, metadata: Mapping[str, str] | None) -> PartUpload | None:
        """A new upload; None where the backend takes none."""

    def forget(self, upload: PartUpload) -> None:
        """It is completed."""

    def abandon(self, upload: PartUpload) -> None:
        """Abort it, now or later. Never raises."""


class Stream:
    """The upload of one file under change."""

    def __init__(self, path: str, begins: Begins, take_snapshot: Callable[[], Snapshot], workers: WorkerPool) -> None:
        """take_snapshot: of the file as it is; called under its lock."""
        self._path = path
        self._begins = begins
        self._take_snapshot = take_snapshot
        self._workers = workers
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._front = 0  # written front to back up to here
        self._next = 1  # the first part that was never sent
        self._ended = False  # no further parts are sent ahead of the commit
        self._rewrites = 0
        self._sent: set[int] = set()
        self._stale: set[int] = set()
        self._under_way: dict[int, Future[None]] = {}
        self._begun = False
        self._handed_out = False
        #: Of the first part, whose thread begins the upload; the others wait for it.
        self._upload: Future[PartUpload | None] = Future()

    def wrote(self, start: int, end: int) -> None:
        """Bytes were written. Under the staged file's lock, after they were."""
        with self._lock:
            if start > self._front:  # a hole: somebody who writes here and there
                self._ended = True
            elif start < self._front:
                self._outdate(start, min(end, self._front))
            self._front = max(self._front, end)
        self._send_more()

    def cut(self, size_bytes: int) -> None:
        """The file was cut off or lengthened. Under the staged file's lock."""
        with self._lock:
            self._outdate(min(size_bytes, self._front), max(size_bytes, self._front))
            self._ended = True

    def finish(self, snapshot: Snapshot) -> Entry | None:
        """Send what is missing of a snapshot and make it the object; None if there is no upload to finish.

        Raises what the backend raises; the upload is aborted then.
        """
        upload = self._end()
        if upload is None:
            return None
        try:
            parts = plan_streamed(snapshot.size_bytes)
            with self._lock:
                fresh = self._sent - self._stale
            missing = [part for part in parts if part.number not in fresh or part.extent != part_of(part.number)]
            self._workers.each(lambda part: upload.send(part.number, snapshot, part.extent), missing, PARTS_AT_ONCE)
            entry = upload.complete(len(parts), snapshot.expected)
        except BaseException:
            self._begins.abandon(upload)
            raise
        self._begins.forget(upload)
        return entry

    def abort(self) -> None:
        """Have the server forget what was sent. Idempotent; waits for parts under way. Never raises."""
        upload = self._end()
        if upload is not None:
            self._begins.abandon(upload)

    # Inside

    def _outdate(self, start: int, end: int) -> None:
        """Parts that were sent, or are being sent, and hold bytes in this range are to be sent again. Under _lock."""
        before = len(self._stale)
        for number in range(1, self._next):
            extent = part_of(number)
            if extent.offset < end and start < extent.end:
                self._stale.add(number)
        self._rewrites += len(self._stale) - before
        self._ended = self._ended or self._rewrites > REWRITES_MAX

    def _send_more(self) -> None:
        """Send the parts that are whole by now. Under the staged file's lock."""
        while True:
            with self._lock:
                extent = part_of(self._next)
                if self._ended or self._front < max(START_BYTES, extent.end) or len(self._under_way) >= PARTS_AT_ONCE:
                    return
                number = self._next
                future: Future[None] = Future()
                self._under_way[number] = future
                self._next += 1
                self._begun = True
            snapshot = self._take_snapshot()
            try:
                self._workers.start(partial(self._send, number, extent, snapshot, future))
            except StorageError as error:  # no room in the queue: the commit sends it
                log.debug('%s: part %d waits for the commit: %s', self._path, number, error)
                if number == 1:
                    self._upload.set_result(None)
                self._sending_ended(number, snapshot, future)
                return

    def _send(self, number: int, extent: Extent, snapshot: Snapshot, future: Future[None]) -> None:
        """Send one part. Handles its own errors: what could not be sent is sent at the commit."""
        try:
            upload = self._begin(snapshot) if number == 1 else self._upload.result()
            if upload is not None:
                upload.send(number, snapshot, extent)
                with self._lock:
                    self._sent.add(number)
        except StorageError as error:
            log.debug('%s: part %d is sent again at the commit: %s', self._path, number, error)
            with self._lock:
                self._ended = True
        finally:
            self._sending_ended(number, snapshot, future)

    def _sending_ended(self, number: int, snapshot: Snapshot, future: Future[None]) -> None:
        snapshot.close()
        with self._lock:
            del self._under_way[number]
        future.set_result(None)

    def _begin(self, snapshot: Snapshot) -> PartUpload | None:
        upload = None
        try:
            upload = self._begins.begin(self._path, snapshot.metadata)
        finally:
            if upload is None:
                with self._lock:
                    self._ended = True
            self._upload.set_result(upload)
        return upload

    def _end(self) -> PartUpload | None:
        """Send nothing ahead any more, wait for what is under way, and hand out the upload, once."""
        with self._lock:
            self._ended = True
            begun = self._begun and not self._handed_out
            self._handed_out = True
            futures = list(self._under_way.values())
        wait(futures)
        return self._upload.result() if begun else None
