"""A snapshot becomes the object, if that is still what the snapshot was based on.

Owns the way there: one put, or an upload in parts, some of which were sent while the file grew, and some copied by the
server from the version before. Owns the copy that a conflict leaves beside the winner, and how content that has arrived
already is recognised.

Threads: safe; holds no lock while bytes move, but the caller's.
"""

import logging
import socket
from collections.abc import Mapping, Sequence

from genro_storage.backends.base import ABSENT, Backend, PartUpload, UploadsInParts
from genro_storage.entry import Entry, Extent
from genro_storage.errors import StorageConflictError, StorageError, StorageExistsError, StorageNotFoundError
from genro_storage.paths import NAME_MAX_BYTES, encode
from genro_storage.runtime import Clock, WorkerPool
from genro_storage.writing.extents import Extents
from genro_storage.writing.journal import Held, Journal
from genro_storage.writing.journal_records import Intent, new_id
from genro_storage.writing.parts import Part, plan
from genro_storage.writing.server_copies import copied_from, copy_part, copy_whole
from genro_storage.writing.snapshot import Snapshot
from genro_storage.writing.stream import PARTS_AT_ONCE, Stream

log = logging.getLogger(__name__)

#: Up to here one request, which costs one round trip where parts cost three.
SINGLE_PUT_MAX_BYTES = 16 << 20
#: Compared at a time, when what is on the server may be what was to be stored.
_COMPARED_BYTES = 4 << 20


class Uploads:
    """Uploads in parts of one mount, each noted in the journal until it has ended. See stream.Begins."""

    def __init__(self, name: str, backend: Backend, journal: Journal | None, clock: Clock) -> None:
        self._name = name
        self._backend = backend
        self._journal = journal
        self._clock = clock
        self._noted: dict[int, Held] = {}  # by the upload's identity

    @property
    def are_possible(self) -> bool:
        """Whether the backend may take uploads in parts."""
        return isinstance(self._backend, UploadsInParts)

    def begin(self, path: str, metadata: Mapping[str, str] | None) -> PartUpload | None:
        """See stream.Begins."""
        if not isinstance(self._backend, UploadsInParts):
            return None
        upload = self._backend.begin_upload(path, metadata)
        if upload is None or not upload.token or self._journal is None:
            return upload
        now_ns = self._clock.time_ns()
        intent = Intent(
            id=new_id(now_ns), kind='upload', mount=self._name, path=path, created_ns=now_ns, token=upload.token
        )
        try:
            self._noted[id(upload)] = self._journal.add(intent, None)
        except BaseException:
            upload.abort()
            raise
        return upload

    def abandon(self, upload: PartUpload) -> None:
        """See stream.Begins."""
        try:
            upload.abort()
        except StorageError as error:
            # Its note stays in the journal, and the next recovery tries again.
            log.warning('%s: an upload was not aborted, and its parts remain for now: %s', self._name, error)
        else:
            self.forget(upload)

    def forget(self, upload: PartUpload) -> None:
        """See stream.Begins."""
        held = self._noted.pop(id(upload), None)
        if held is not None and self._journal is not None:
            self._journal.drop(held)


class Uploader:
    """Stores snapshots on one backend."""

    def __init__(self, backend: Backend, uploads: Uploads, workers: WorkerPool) -> None:
        """workers: for parts. Not those of whoever waits here for them."""
        self._backend = backend
        self._uploads = uploads
        self._workers = workers

    def store(self, snapshot: Snapshot, *, placed: bool, stream: Stream | None = None) -> Entry:
        """Make a snapshot the object at its path. Raises what Backend.put raises."""
        entry = stream.finish(snapshot) if stream is not None else None
        if entry is None:
            entry = copy_whole(self._backend, snapshot, snapshot.path, snapshot.expected, snapshot.metadata or {})
        if entry is None and snapshot.size_bytes > SINGLE_PUT_MAX_BYTES:
            entry = self._store_in_parts(snapshot)
        if entry is not None:
            return entry
        return self._backend.put(
            snapshot.path, snapshot, expected=snapshot.expected, placed=placed, metadata=snapshot.metadata
        )

    def store_beside(self, snapshot: Snapshot, time_ns: int) -> str:
        """Store a snapshot that lost a conflict under a name of its own; its path.

        Once for each time: if it is there already, it is not stored again.
        """
        while True:
            kept = conflict_name(snapshot.path, socket.gethostname(), time_ns)
            try:
                if copy_whole(self._backend, snapshot, kept, ABSENT, snapshot.metadata or {}) is None:
                    snapshot.complete()
                    self._backend.put(kept, snapshot, expected=ABSENT, metadata=snapshot.metadata)
            except StorageExistsError:
                if self.recognise(kept, [snapshot]) is None:
                    time_ns += 1_000_000  # something else has that name
                    continue
            return kept

    def recognise(self, path: str, candidates: Sequence[Snapshot]) -> tuple[Entry, Snapshot] | None:
        """What is at a path and which of these snapshots it is, byte for byte as far as can be told, if any."""
        try:
            entry = self._backend.stat(path)
        except StorageNotFoundError:
            return None
        for candidate in candidates:
            if entry.is_file and entry.size_bytes == candidate.size_bytes and self._is_equal(path, entry, candidate):
                return entry, candidate
        return None

    # Inside

    def _store_in_parts(self, snapshot: Snapshot) -> Entry | None:
        """None where the backend takes no parts."""
        if not self._uploads.are_possible:
            return None
        upload = self._uploads.begin(snapshot.path, snapshot.metadata)
        if upload is None:
            return None
        try:
            entry = self._send_parts(upload, snapshot)
        except BaseException:
            self._uploads.abandon(upload)
            raise
        self._uploads.forget(upload)
        return entry

    def _send_parts(self, upload: PartUpload, snapshot: Snapshot) -> Entry:
        copied = copied_from(snapshot)
        parts = plan(snapshot.size_bytes, snapshot.unchanged if copied else Extents(), copies=copied is not None)

        def move(part: Part) -> None:
            if not (part.copied and copied and copy_part(upload, part.number, part.extent, *copied)):
                upload.send(part.number, snapshot, part.extent)

        self._workers.each(move, parts, PARTS_AT_ONCE)
        return upload.complete(len(parts), snapshot.expected)

    def _is_equal(self, path: str, entry: Entry, snapshot: Snapshot) -> bool:
        """Of bytes in a base that has gone nobody can tell any more; then what was written decides, if anything was."""
        compared_bytes = 0
        for offset in range(0, snapshot.size_bytes, _COMPARED_BYTES):
            step = Extent(offset, min(_COMPARED_BYTES, snapshot.size_bytes - offset))
            theirs = self._backend.read_range(path, step.offset, step.size_bytes, entry.version)
            try:
                ours = [(step, snapshot.read(step.offset, step.size_bytes))]
            except StorageConflictError:
                ours = snapshot.read_here(step)
            for extent, data in ours:
                if theirs[extent.offset - offset : extent.end - offset] != data:
                    return False
                compared_bytes += len(data)
        return compared_bytes > 0 or not snapshot.size_bytes


def conflict_name(path: str, host: str, time_ns: int) -> str:
    """``NAME.conflict-HOST-TIME`` beside a path, the name cut where it would be too long."""
    suffix = f'.conflict-{host}-{time_ns // 1_000_000}'
    directory, slash, name = path.rpartition('/')
    while len(encode(name + suffix)) > NAME_MAX_BYTES:
        name = name[:-1]
    return directory + slash + name + suffix
