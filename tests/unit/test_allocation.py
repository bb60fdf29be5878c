"""fallocate(2) and the seeks for data and holes on a staged file: what is zeros then, and what was never fetched."""

import os
from pathlib import Path

import pytest

from genro_storage.errors import StorageNoSpaceError, StorageUnsupportedError
from genro_storage.testing import ManualClock
from genro_storage.writing import content as content_module
from genro_storage.writing import staged_bytes
from genro_storage.writing.allocation import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    allocate,
)
from genro_storage.writing.staging import StagedFile
from tests.unit.staged import BytesReader, content, stage

PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
#: A whole number of blocks on any disk.
PIECE = 1 << 16
DATA = os.urandom(4 * PIECE)


@pytest.fixture(params=['holes', 'no holes'])
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> StagedFile:
    """A file with data, on a disk that has holes or none."""
    if request.param == 'no holes':
        monkeypatch.setattr(content_module, '_allocate', lambda *_: False)
    staged = stage(tmp_path, ManualClock())
    staged.write(0, DATA)
    return staged


@pytest.fixture
def based(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StagedFile:
    """One of which nothing is here."""
    monkeypatch.setattr(staged_bytes, 'SMALL_BASE_BYTES', 0)
    return stage(tmp_path, ManualClock(), BytesReader(DATA))


@pytest.mark.parametrize(
    ('mode', 'expected'),
    [
        (0, DATA + bytes(PIECE)),
        (FALLOC_FL_KEEP_SIZE, DATA),
        (PUNCH, DATA[: 3 * PIECE] + bytes(PIECE)),
        (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, DATA[: 3 * PIECE] + bytes(PIECE)),
        (FALLOC_FL_ZERO_RANGE, DATA[: 3 * PIECE] + bytes(2 * PIECE)),
    ],
)
def test_what_each_mode_makes_of_a_range_across_the_end(staged: StagedFile, mode: int, expected: bytes) -> None:
    allocate(staged, 3 * PIECE, 2 * PIECE, mode)
    assert content(staged) == expected
    assert staged.size_bytes == len(expected)


@pytest.mark.parametrize('mode', [FALLOC_FL_PUNCH_HOLE, 0x04, 0x08, 0x20, 0x40, PUNCH | FALLOC_FL_ZERO_RANGE])
def test_other_modes_are_refused(staged: StagedFile, mode: int) -> None:
    changes = staged.changes
    with pytest.raises(StorageUnsupportedError):
        allocate(staged, 0, PIECE, mode)
    assert content(staged) == DATA
    assert staged.changes == changes


def test_room_for_what_is_to_come_is_no_change(staged: StagedFile) -> None:
    changes = staged.changes
    allocate(staged, 0, 10 * PIECE, FALLOC_FL_KEEP_SIZE)
    assert staged.changes == changes


def test_room_that_is_not_there_is_said_before_anything_is_written(tmp_path: Path) -> None:
    staged = stage(tmp_path, ManualClock())
    room = os.statvfs(tmp_path)
    with pytest.raises(StorageNoSpaceError):
        allocate(staged, 0, 2 * room.f_blocks * room.f_frsize, 0)
    assert staged.size_bytes == 0


def test_a_snapshot_keeps_what_becomes_a_hole(staged: StagedFile) -> None:
    with staged.snapshot() as snapshot:
        allocate(staged, PIECE, PIECE, PUNCH)
        assert snapshot.read(0, len(DATA)) == DATA
        assert content(staged) == DATA[:PIECE] + bytes(PIECE) + DATA[2 * PIECE :]


def test_a_hole_in_what_was_never_fetched_fetches_nothing(based: StagedFile) -> None:
    allocate(based, PIECE, PIECE, PUNCH)
    assert based.local_bytes == PIECE
    assert based.seek(0, os.SEEK_HOLE) == PIECE
    assert based.seek(PIECE, os.SEEK_DATA) == 2 * PIECE
    assert content(based) == DATA[:PIECE] + bytes(PIECE) + DATA[2 * PIECE :]


def test_what_was_never_fetched_is_data(based: StagedFile) -> None:
    assert based.seek(5, os.SEEK_DATA) == 5
    assert based.seek(5, os.SEEK_HOLE) == len(DATA)
    based.write(PIECE, b'x' * PIECE)
    assert based.seek(5, os.SEEK_HOLE) == len(DATA)
    based.truncate(len(DATA) + 2 * PIECE)
    assert based.seek(5, os.SEEK_HOLE) == len(DATA)
    assert based.seek(len(DATA), os.SEEK_DATA) == based.size_bytes
