"""The contract of uploads in parts, and of backends that have none."""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from genro_storage.backends.base import ABSENT, Backend, PartUpload, UploadsInParts
from genro_storage.entry import Extent, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.testing.contract.asking import agree, names, read, write
from genro_storage.testing.sources import BytesSource

# The least that stores take as a part, but for the last.
PART_BYTES = 5 << 20


class UploadingContract:
    """begin_upload and what it returns. A backend that has uploads in parts says so in its class of tests."""

    uploads_in_parts = False
    copies_parts = False

    def test_uploads_in_parts_are_there_or_not(self, backend: Backend) -> None:
        with beginning(backend, 'd/file') as upload:
            assert (upload is not None) == self.uploads_in_parts
        with suppress(StorageNotFoundError):
            assert names(backend, 'd') == set()

    def test_parts_are_the_file_once_they_are_complete(self, backend: Backend) -> None:
        data = os.urandom(2 * PART_BYTES + 12_345)
        source = BytesSource(data)
        with beginning(backend, 'd/file') as upload:
            if upload is None:
                return
            with ThreadPoolExecutor(3) as pool:
                extents = list(enumerate(_parts(len(data)), start=1))
                list(pool.map(lambda numbered: upload.send(numbered[0], source, numbered[1]), reversed(extents)))
            with pytest.raises(StorageNotFoundError):
                backend.stat('d/file')
            entry = upload.complete(len(extents), None)
        assert entry.name == 'file'
        assert entry.size_bytes == len(data)
        assert agree(backend, entry, backend.stat('d/file'))
        assert backend.read_range('d/file', 0, len(data), entry.version) == data

    def test_a_part_that_is_sent_again_takes_the_place_of_the_first(self, backend: Backend) -> None:
        with beginning(backend, 'file') as upload:
            if upload is None:
                return
            upload.send(1, BytesSource(b'x' * PART_BYTES), Extent(0, PART_BYTES))
            upload.send(2, BytesSource(b'wrong'), Extent(0, 5))
            upload.send(2, BytesSource(b'the tail'), Extent(4, 4))
            upload.send(3, BytesSource(b'beyond'), Extent(0, 6))
            entry = upload.complete(2, ABSENT)
        assert entry.size_bytes == PART_BYTES + 4
        assert backend.read_range('file', PART_BYTES - 1, 100, entry.version) == b'xtail'

    def test_bytes_of_the_version_before_need_not_be_sent(self, backend: Backend) -> None:
        data = os.urandom(2 * PART_BYTES + 100)
        before = write(backend, 'file', data).version
        assert before is not None
        with beginning(backend, 'file') as upload:
            if upload is None:
                return
            upload.send(1, BytesSource(b'n' * PART_BYTES), Extent(0, PART_BYTES))
            rest = Extent(PART_BYTES, PART_BYTES + 100)
            try:
                upload.copy(2, rest, before)
            except StorageUnsupportedError:
                assert not self.copies_parts
                upload.send(2, BytesSource(data), rest)
            else:
                assert self.copies_parts
            entry = upload.complete(2, before)
        assert entry.size_bytes == len(data)
        assert backend.read_range('file', 0, len(data), entry.version) == b'n' * PART_BYTES + data[PART_BYTES:]

    def test_bytes_of_a_version_that_is_not_there_are_a_conflict(self, backend: Backend) -> None:
        before = write(backend, 'file', b'x' * PART_BYTES).version
        assert before is not None
        with beginning(backend, 'file') as upload:
            if upload is None:
                return
            for change in (lambda: write(backend, 'file', b'y' * PART_BYTES), lambda: backend.remove_file('file')):
                change()
                with pytest.raises(StorageConflictError if self.copies_parts else StorageUnsupportedError):
                    upload.copy(1, Extent(0, PART_BYTES), before)

    def test_a_completion_obeys_its_condition(self, backend: Backend) -> None:
        first = write(backend, 'file', b'first').version
        for expected, error in ((ABSENT, StorageExistsError), (first, StorageConflictError)):
            with beginning(backend, 'file') as upload:
                if upload is None:
                    return
                upload.send(1, BytesSource(b'mine'), Extent(0, 4))
                newer = write(backend, 'file', b'newer').version
                with pytest.raises(error):
                    upload.complete(1, expected)
                upload.abort()
            assert backend.stat('file').version == newer
        with beginning(backend, 'file') as upload:
            assert upload is not None
            upload.send(1, BytesSource(b'mine'), Extent(0, 4))
            upload.complete(1, newer)
        assert read(backend, 'file') == b'mine'

    def test_a_version_that_is_gone_is_a_conflict_for_a_completion(self, backend: Backend) -> None:
        with beginning(backend, 'file') as upload:
            if upload is None:
                return
            upload.send(1, BytesSource(b'mine'), Extent(0, 4))
            with pytest.raises(StorageConflictError):
                upload.complete(1, Version('of-nothing', strong=True))
        assert names(backend) == set()

    def test_what_is_aborted_is_never_seen(self, backend: Backend) -> None:
        with beginning(backend, 'file') as upload:
            if upload is None:
                return
            upload.send(1, BytesSource(b'mine'), Extent(0, 4))
            upload.abort()
            upload.abort()
        assert names(backend) == set()

    def test_an_upload_of_a_process_that_is_gone_is_aborted_by_its_token(self, backend: Backend) -> None:
        with beginning(backend, 'file') as upload:
            if upload is None:
                return
            upload.send(1, BytesSource(b'mine'), Extent(0, 4))
            assert isinstance(backend, UploadsInParts)
            backend.abort_upload('file', upload.token)
            backend.abort_upload('file', upload.token)
            if upload.token:
                with pytest.raises(StorageIOError):
                    upload.send(2, BytesSource(b'mine'), Extent(0, 4))
                with pytest.raises(StorageIOError):
                    upload.complete(1, None)
        assert names(backend) == set()

    def test_a_part_of_a_source_that_ends_early_is_refused(self, backend: Backend) -> None:
        with beginning(backend, 'file') as upload:
            if upload is None:
                return
            with pytest.raises(StorageIOError):
                upload.send(1, BytesSource(b'short', size_bytes=100), Extent(0, 100))

    def test_an_upload_begins_where_a_file_may_be(self, backend: Backend) -> None:
        if not self.uploads_in_parts:
            return
        assert isinstance(backend, UploadsInParts)
        write(backend, 'd/file', b'1')
        for path, error in (('', StorageIsADirectoryError), ('d', StorageIsADirectoryError)):
            with pytest.raises(error):
                backend.begin_upload(path)
        with pytest.raises(StorageNotADirectoryError):
            backend.begin_upload('d/file/below')


@contextmanager
def beginning(backend: Backend, path: str) -> Iterator[PartUpload | None]:
    """An upload, if there are any; aborted in the end, which is no error for one that was completed."""
    upload = backend.begin_upload(path) if isinstance(backend, UploadsInParts) else None
    try:
        yield upload
    finally:
        if upload is not None:
            with suppress(StorageError):
                upload.abort()


def _parts(size_bytes: int) -> Iterator[Extent]:
    for offset in range(0, size_bytes, PART_BYTES):
        yield Extent(offset, min(PART_BYTES, size_bytes - offset))
