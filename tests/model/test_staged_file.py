"""A staged file against a bytearray: writes, cuts and reads while snapshots are stored, linked and recovered."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from genro_storage.entry import Extent, Version
from genro_storage.errors import StorageConflictError, StorageUnsupportedError
from genro_storage.testing.clock import ManualClock
from genro_storage.writing import snapshot, staged_bytes
from genro_storage.writing.extents import Extents
from genro_storage.writing.origins import Origin
from genro_storage.writing.snapshot import Snapshot
from genro_storage.writing.staging import StagedFile

ALL = 1 << 20
#: As small as all bounds are here, so that every side of each is met.
LONGEST = 80
offsets = st.integers(0, LONGEST)
lengths = st.one_of(st.integers(1, 3), st.integers(1, 24))
picks = st.integers(0, 7)


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged_bytes, 'SMALL_BASE_BYTES', 8)
    monkeypatch.setattr(staged_bytes, 'EXTENTS_MAX', 3)
    monkeypatch.setattr(snapshot, 'EXTENTS_MAX', 3)
    monkeypatch.setattr(snapshot, 'STEP_BYTES', 5)


class Stored:
    """What is stored: one version at a time, each readable until the next one comes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.number = 1
        self.open = 0

    def version(self) -> Version:
        return Version(str(self.number), strong=True)

    def replace(self, data: bytes) -> Version:
        self.data = data
        self.number += 1
        return self.version()

    def reader(self) -> 'StoredReader':
        self.open += 1
        return StoredReader(self)


class StoredReader:
    """A Reader of the version that is stored now."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._number = stored.number
        self.size_bytes = len(stored.data)
        self._open = True

    def read(self, offset: int, size_bytes: int) -> bytes:
        assert self._open
        if self._stored.number != self._number:
            raise StorageConflictError(f'version {self._number} has gone')
        return self._stored.data[offset : offset + size_bytes]

    def close(self) -> None:
        assert self._open
        self._open = False
        self._stored.open -= 1


class Taken:
    """A snapshot and what it must hold for ever."""

    def __init__(self, taken: Snapshot, data: bytes) -> None:
        self.snapshot = taken
        self.data = data
        self.lost = False  # a newer one was committed: what this never fetched may have gone


class StagedFileMachine(RuleBasedStateMachine):
    @initialize(base=st.one_of(st.none(), st.binary(max_size=LONGEST)))
    def begin(self, base: bytes | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix='staged-'))
        self.clock = ManualClock()
        self.stored = Stored(base or b'')
        self.other = Stored(bytes(range(1, LONGEST + 1)))
        self.file = StagedFile(
            'f',
            self.folder / 'staging',
            self.clock,
            self.stored.version(),
            None if base is None else self.stored.reader(),
        )
        self.model = bytearray(base or b'')
        self.taken: list[Taken] = []
        self.linked: list[tuple[Path, Taken, list[Extent]]] = []
        self.writes = 0

    def teardown(self) -> None:
        if hasattr(self, 'folder'):
            self.file.close()
            for taken in self.taken:
                taken.snapshot.close()
            assert self.stored.open == self.other.open == 0
            assert list((self.folder / 'staging').iterdir()) == []
            shutil.rmtree(self.folder)

    def _data(self, size_bytes: int) -> bytes:
        """Bytes that tell apart who wrote them and where."""
        self.writes += 1
        return bytes((self.writes * 31 + index) % 251 + 1 for index in range(size_bytes))

    @rule(offset=offsets, size_bytes=lengths)
    def write(self, offset: int, size_bytes: int) -> None:
        data = self._data(size_bytes)
        assert self.file.write(offset, data) == size_bytes
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + size_bytes] = data

    @rule(size_bytes=lengths)
    def append(self, size_bytes: int) -> None:
        data = self._data(size_bytes)
        self.file.write(None, data)
        self.model.extend(data)

    @rule(size_bytes=offsets)
    def truncate(self, size_bytes: int) -> None:
        self.file.truncate(size_bytes)
        del self.model[size_bytes:]
        self.model.extend(bytes(size_bytes - len(self.model)))

    @rule(offset=offsets, size_bytes=lengths)
    def zero(self, offset: int, size_bytes: int) -> None:
        self.file.zero(offset, size_bytes)
        end = min(offset + size_bytes, len(self.model))
        if offset < end:
            self.model[offset:end] = bytes(end - offset)

    @rule(size_bytes=lengths)
    def borrow(self, size_bytes: int) -> None:
        """Be a copy of another file, which is never changed, as far as that goes."""
        start = len(self.model)
        extent = Extent(start, min(size_bytes, max(1, LONGEST - start)))
        origin = Origin('other', '1', LONGEST)
        if extent.end > LONGEST or not self.file.may_borrow(origin, extent):
            with pytest.raises(StorageUnsupportedError):
                self.file.borrow(Origin('f', '1', LONGEST), self.other.reader, extent)
            return
        self.file.borrow(origin, self.other.reader, extent)
        self.model.extend(self.other.data[extent.offset : extent.end])

    @rule(offset=offsets, size_bytes=lengths)
    def read(self, offset: int, size_bytes: int) -> None:
        assert self.file.read(offset, size_bytes) == self.model[offset : offset + size_bytes]

    @precondition(lambda self: len(self.taken) < 4)
    @rule()
    def take_snapshot(self) -> None:
        self.taken.append(Taken(self.file.snapshot(), bytes(self.model)))

    @precondition(lambda self: self.taken)
    @rule(pick=picks, offset=offsets, size_bytes=st.integers(0, 2 * LONGEST))
    def read_snapshot(self, pick: int, offset: int, size_bytes: int) -> None:
        taken = self._pick(pick)
        try:
            data = taken.snapshot.read(offset, size_bytes)
        except StorageConflictError:
            assert taken.lost
            return
        assert data == taken.data[offset : offset + size_bytes]

    @precondition(lambda self: self.taken)
    @rule(pick=picks)
    def complete_snapshot(self, pick: int) -> None:
        taken = self._pick(pick)
        try:
            descriptor = taken.snapshot.fileno()
        except StorageConflictError:
            assert taken.lost
            return
        assert os.pread(descriptor, len(taken.data), 0) == taken.data
        assert not taken.snapshot.missing

    @precondition(lambda self: self.taken)
    @rule(pick=picks)
    def close_snapshot(self, pick: int) -> None:
        taken = self._pick(pick)
        self.taken.remove(taken)
        taken.snapshot.close()
        taken.snapshot.close()

    @precondition(lambda self: self.taken)
    @rule(pick=picks)
    def commit_snapshot(self, pick: int) -> None:
        taken = self._pick(pick)
        if taken.lost or taken.snapshot.expected != self.stored.version():
            return
        # As an upload that copies what is unchanged does it, which is wrong if that is.
        data = bytearray(taken.snapshot.read(0, taken.snapshot.size_bytes))
        for extent in taken.snapshot.unchanged:
            data[extent.offset : extent.end] = self._copied_from(taken.snapshot)[extent.offset : extent.end]
        assert data == taken.data
        version = self.stored.replace(bytes(data))
        self.file.committed(taken.snapshot, version, self.stored.reader)
        assert self.file.dirty == (self.file.changes != taken.snapshot.sequence)
        assert self.file.expected == version
        for other in self.taken:
            other.lost = other.lost or other.snapshot.sequence < taken.snapshot.sequence
            # Of the same moment, but not told: what it missed may still be missing.
            other.lost = other.lost or (other is not taken and other.snapshot.sequence == taken.snapshot.sequence)
        taken.lost = True  # its base has gone

    @rule()
    def the_object_gets_another_version_with_the_same_content(self) -> None:
        self.file.rebase(self.stored.replace(self.stored.data), self.stored.reader())
        for taken in self.taken:
            taken.lost = taken.lost or taken.snapshot.expected != self.file.expected

    @precondition(lambda self: self.taken)
    @rule(pick=picks)
    def recover(self, pick: int) -> None:
        """The process ends, and another goes on with what a snapshot was linked as."""
        taken = self._pick(pick)
        path = self.folder / f'linked-{self.writes}-{len(self.linked)}-{self.stored.number}'
        if taken.lost:
            return
        taken.snapshot.link(path)
        taken.snapshot.fsync()
        missing, expected = list(taken.snapshot.missing), taken.snapshot.expected
        origin = taken.snapshot.origin
        self.file.close()
        for other in self.taken:
            other.snapshot.close()
        self.taken = []
        with path.open('r+b') as data:  # what was appended after it was linked is there too
            data.seek(len(taken.data))
            data.write(b'behind the end')
        self.model = bytearray(taken.data)
        self.linked.append((path, taken, missing))
        self.file = StagedFile.recovered(
            'f',
            self.folder / 'staging',
            self.clock,
            os.open(path, os.O_RDONLY),
            size_bytes=len(taken.data),
            mtime_ns=7,
            keeps_mtime=True,
            expected=expected,
            missing=missing,
            base=(self.stored if origin is None else self.other).reader(),
            origin=origin,
        )
        assert self.file.dirty

    @invariant()
    def bytes_are_right(self) -> None:
        if hasattr(self, 'file'):
            assert self.file.size_bytes == len(self.model)
            assert self.file.read(0, ALL) == self.model

    @invariant()
    def holes_are_zeros(self) -> None:
        offset, size_bytes = 0, len(getattr(self, 'model', b''))
        while offset < size_bytes:
            data = self.file.seek(offset, os.SEEK_DATA)
            assert self.model[offset:data] == bytes(data - offset)
            offset = self.file.seek(data, os.SEEK_HOLE) if data < size_bytes else size_bytes
            assert offset > data or offset == size_bytes

    @invariant()
    def snapshots_hold_what_they_held(self) -> None:
        for taken in getattr(self, 'taken', ()):
            if not taken.lost:
                assert taken.snapshot.read(0, ALL) == taken.data

    @invariant()
    def what_is_claimed_is_so(self) -> None:
        if not hasattr(self, 'file'):
            return
        with self.file.snapshot() as now:
            self._check_claims(now, bytes(self.model))
            assert len(now.missing) <= staged_bytes.EXTENTS_MAX + 1
        for taken in self.taken:
            if not taken.lost and taken.snapshot.expected == self.stored.version():
                self._check_claims(taken.snapshot, taken.data)

    @invariant()
    def what_was_linked_stays_as_it_was(self) -> None:
        for path, taken, missing in getattr(self, 'linked', ()):
            found = path.read_bytes()
            local = Extents([Extent(0, len(taken.data))])
            for extent in missing:
                local.remove(extent.offset, extent.size_bytes)
            for extent in local:
                assert found[extent.offset : extent.end] == taken.data[extent.offset : extent.end]

    def _check_claims(self, claims: Snapshot, data: bytes) -> None:
        for extent in claims.missing:
            assert claims.unchanged.covers(extent)
        for extent in claims.unchanged:
            assert data[extent.offset : extent.end] == self._copied_from(claims)[extent.offset : extent.end]
            assert extent.end <= len(data)
        if claims.is_copy:
            assert data == self.other.data

    def _copied_from(self, claims: Snapshot) -> bytes:
        return (self.stored if claims.origin is None else self.other).data

    def _pick(self, pick: int) -> Taken:
        return self.taken[pick % len(self.taken)]


TestStagedFile = StagedFileMachine.TestCase
TestStagedFile.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
