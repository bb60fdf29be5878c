"""The shelf keeps the contract of backends, in one process and between two."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage.backends.base import Backend
from genro_storage.errors import StorageConflictError
from genro_storage.testing import BytesSource
from genro_storage.testing.contract import BackendContract
from tests.model.shelf import Shelf


class TestShelf(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        backend = Shelf(tmp_path)
        yield backend
        backend.close()


def test_a_second_shelf_over_the_same_folder_sees_and_counts_on(tmp_path: Path) -> None:
    one, other = Shelf(tmp_path), Shelf(tmp_path)
    first = one.put('file', BytesSource(b'first'))
    assert one.destination == other.destination
    assert other.stat('file') == first
    second = other.put('file', BytesSource(b'again'))
    assert second.version not in {first.version, None}
    with pytest.raises(StorageConflictError):
        one.read_range('file', 0, 5, first.version)
    assert one.read_range('file', 0, 5, second.version) == b'again'
