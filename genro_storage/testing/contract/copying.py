"""The contract of copies that a backend makes itself: of which version, over what, and of parts."""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from genro_storage.backends.base import ABSENT, Backend, Expected, SharesStore, SourceGoneError
from genro_storage.entry import Extent, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.testing.contract.asking import agree, names, read, write
from genro_storage.testing.contract.uploading import PART_BYTES, beginning

NOTHING = Version('of-nothing', strong=True)


class CopyingContract:
    """copy, and the parts of uploads that are copied from another file."""

    copies_parts: bool

    def test_a_copy_is_of_one_version_of_its_source(self, backend: Backend) -> None:
        first = write(backend, 'a', b'first').version
        with copying():
            entry = backend.copy('a', 'b', version=first)
            assert agree(backend, entry, backend.stat('b'))
            write(backend, 'a', b'second!')
            with pytest.raises(SourceGoneError):
                backend.copy('a', 'c', version=first)
            backend.remove_file('a')
            with pytest.raises(SourceGoneError):
                backend.copy('a', 'b', version=first, expected=entry.version)
            with pytest.raises(StorageNotFoundError):
                backend.copy('a', 'b')
            assert read(backend, 'b') == b'first'
            assert names(backend) == {'b'}

    def test_a_copy_obeys_its_condition(self, backend: Backend) -> None:
        source = write(backend, 'a', b'source').version
        first = write(backend, 'b', b'first').version
        second = write(backend, 'b', b'second!').version
        with copying():
            refused: list[tuple[str, Expected, type[Exception]]] = [
                ('b', ABSENT, StorageExistsError),
                ('b', first, StorageConflictError),
                ('c', NOTHING, StorageConflictError),
            ]
            for target, expected, error in refused:
                with pytest.raises(error) as raised:
                    backend.copy('a', target, version=source, expected=expected)
                assert not isinstance(raised.value, SourceGoneError)
            assert read(backend, 'b') == b'second!'
            assert names(backend) == {'a', 'b'}
            copied = backend.copy('a', 'b', version=source, expected=second)
            assert backend.copy('a', 'c', version=source, expected=ABSENT).size_bytes == 6
            assert copied.version == backend.stat('b').version
            assert read(backend, 'b') == read(backend, 'c') == b'source'

    def test_a_copy_of_a_large_file_is_that_file(self, backend: Backend) -> None:
        data = os.urandom(3 * PART_BYTES + 17)
        source = write(backend, 'a', data).version
        with copying():
            entry = backend.copy('a', 'd/b', version=source, expected=ABSENT)
            assert entry.size_bytes == len(data)
            assert backend.read_range('d/b', 0, len(data), entry.version) == data

    def test_parts_are_of_another_file_too(self, backend: Backend) -> None:
        data = os.urandom(PART_BYTES + 100)
        version = write(backend, 'd/other', data).version
        assert version is not None
        with beginning(backend, 'file') as upload:
            if upload is None:
                return
            if not self.copies_parts:
                with pytest.raises(StorageUnsupportedError):
                    upload.copy(1, Extent(0, PART_BYTES), version, 'd/other')
                return
            upload.copy(1, Extent(0, PART_BYTES), version, 'd/other')
            upload.copy(2, Extent(1, 5), version, 'd/other')
            upload.complete(2, ABSENT)
        assert read(backend, 'file') == data[:PART_BYTES] + data[1:6]
        with beginning(backend, 'another') as upload:
            assert upload is not None
            write(backend, 'd/other', data[1:])
            with pytest.raises(SourceGoneError):
                upload.copy(1, Extent(0, PART_BYTES), version, 'd/other')
            backend.remove_file('d/other')
            with pytest.raises(SourceGoneError):
                upload.copy(1, Extent(0, PART_BYTES), version, 'd/other')

    def test_a_file_has_a_path_in_the_store(self, backend: Backend) -> None:
        if not isinstance(backend, SharesStore) or not backend.store:
            return
        version = write(backend, 'd/a', b'content').version
        path = backend.path_in_store('d/a')
        assert path.startswith('/')
        assert backend.read_range(path, 2, 100, version) == b'ntent'
        backend.copy(path, 'b', version=version, expected=ABSENT)
        assert read(backend, 'b') == b'content'


@contextmanager
def copying() -> Iterator[None]:
    """Or not: a backend may have no copies of its own."""
    try:
        yield
    except StorageUnsupportedError:
        return
