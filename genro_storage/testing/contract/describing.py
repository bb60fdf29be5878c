"""The contract of user metadata, and of backends that have none."""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

from collections.abc import Mapping

import msgspec
import pytest

from genro_storage.backends.base import Backend, StoresMetadata, UploadsInParts
from genro_storage.entry import Entry, Extent, Version
from genro_storage.errors import StorageConflictError, StorageNotFoundError
from genro_storage.testing.contract.asking import agree, read, write
from genro_storage.testing.sources import BytesSource

METADATA = {'mode': '33188', 'uid': '1000', 'mtime': '1700000000.123456789', 'colour': 'blue'}
OTHER = {'mode': '33152', 'shape': 'round'}


class DescribingContract:
    """metadata, set_metadata, tell_attributes, and what put, copies and renames do with it.

    ``describes_directories``: whether the server keeps the metadata of markers, which SeaweedFS does not.
    ``empties_metadata``: whether it leaves those that are removed behind without a value, as an emulator may.
    """

    describes_directories = True
    empties_metadata = False

    def told(self, metadata: Mapping[str, str] | None) -> dict[str, str]:
        """Metadata as a server has them that removes what it is to remove."""
        return {key: value for key, value in (metadata or {}).items() if value or not self.empties_metadata}

    def test_metadata_are_there_or_not(self, backend: Backend) -> None:
        write(backend, 'a', b'1')
        if not backend.capabilities.stores_metadata:
            assert backend.stat('a').metadata is None
            assert backend.stat('a').attributes is None
            return
        assert isinstance(backend, StoresMetadata)
        assert backend.metadata('a') == {}
        with pytest.raises(StorageNotFoundError):
            backend.metadata('nothing')
        with pytest.raises(StorageNotFoundError):
            backend.set_metadata('nothing', METADATA, expected=None)

    def test_what_is_put_with_metadata_has_these_and_no_others(self, backend: Backend) -> None:
        if not (storer := _storer(backend)):
            return
        entry = backend.put('a', BytesSource(b'content'), metadata=METADATA)
        assert agree(backend, entry, backend.stat('a'))
        assert storer.metadata('a') == entry.metadata == METADATA
        assert entry.attributes is not None
        assert (entry.attributes.mode, entry.attributes.uid) == (0o100644, 1000)
        assert entry.modified_ns == 1_700_000_000_123_456_789
        backend.put('a', BytesSource(b'content'), metadata=OTHER)
        assert storer.metadata('a') == OTHER
        backend.put('a', BytesSource(b'content'))
        assert storer.metadata('a') == {}

    def test_metadata_are_replaced_and_the_content_stays(self, backend: Backend) -> None:
        if not (storer := _storer(backend)):
            return
        backend.put('a', BytesSource(b'content'), metadata=METADATA)
        entry = storer.set_metadata('a', OTHER, expected=None)
        assert self.told(storer.metadata('a')) == self.told(entry.metadata) == OTHER
        assert read(backend, 'a') == b'content'
        assert _timeless(entry) == _timeless(backend.stat('a'))
        assert backend.read_range('a', 0, 7, entry.version) == b'content'

    def test_metadata_are_replaced_of_what_is_expected_only(self, backend: Backend) -> None:
        if not (storer := _storer(backend)):
            return
        before = backend.put('a', BytesSource(b'before'), metadata=METADATA).version
        assert before is not None
        now = storer.set_metadata('a', OTHER, expected=before).version
        assert self.told(storer.set_metadata('a', METADATA, expected=now).metadata) == METADATA
        write(backend, 'a', b'after')
        for path, expected in (('a', before), ('nothing', Version('0', strong=True))):
            with pytest.raises(StorageConflictError):
                storer.set_metadata(path, OTHER, expected=expected)
        assert storer.metadata('a') == {}

    def test_a_directory_has_metadata_too(self, backend: Backend) -> None:
        if not (storer := _storer(backend)):
            return
        write(backend, 'd/file', b'1')
        backend.make_directory('d/e')
        assert storer.metadata('d') == storer.metadata('d/e') == {}
        for path in ('d', 'd/e'):
            entry = storer.set_metadata(path, METADATA, expected=None)
            assert entry.is_directory
            assert storer.metadata(path) == (METADATA if self.describes_directories else {})
        backend.remove_file('d/file')
        backend.remove_directory('d/e')
        assert storer.metadata('d') == (METADATA if self.describes_directories else {})

    def test_attributes_of_the_entries_of_a_directory_are_told(self, backend: Backend) -> None:
        if not (storer := _storer(backend)):
            return
        for number in range(40):
            backend.put(f'd/file-{number}', BytesSource(b'1'), metadata={'mode': str(0o100600 + number)})
        backend.make_directory('d/e')
        storer.set_metadata('d/e', {'mode': str(0o040750)}, expected=None)
        listed = [*backend.list_directory('d'), Entry('gone', backend.stat('d/file-0').kind)]
        told = {entry.name: entry for entry in storer.tell_attributes('d', listed)}
        assert len(told) == 41
        for number in range(40):
            attributes = told[f'file-{number}'].attributes
            assert attributes is not None
            assert attributes.mode == 0o100600 + number
        directory = told['e'].attributes
        assert directory is not None
        assert directory.mode == (0o040750 if self.describes_directories else None)
        assert told['e'].is_directory

    def test_copies_and_renames_keep_metadata(self, backend: Backend) -> None:
        if not (storer := _storer(backend)):
            return
        backend.put('d/a', BytesSource(b'content'), metadata=METADATA)
        storer.set_metadata('d', OTHER, expected=None)
        backend.copy('d/a', 'd/b')
        backend.rename('d/a', 'd/c')
        backend.rename('d', 'e')
        assert storer.metadata('e/b') == storer.metadata('e/c') == METADATA
        assert storer.metadata('e') == (OTHER if self.describes_directories else {})

    def test_an_upload_in_parts_has_the_metadata_that_it_began_with(self, backend: Backend) -> None:
        storer = _storer(backend)
        upload = backend.begin_upload('a', METADATA) if storer and isinstance(backend, UploadsInParts) else None
        if storer is None or upload is None:
            return
        upload.send(1, BytesSource(b'content'), Extent(0, 7))
        entry = upload.complete(1, None)
        assert storer.metadata('a') == entry.metadata == METADATA
        changed = storer.set_metadata('a', OTHER, expected=entry.version)
        assert backend.read_range('a', 0, 7, changed.version) == b'content'
        assert storer.metadata('a') == OTHER


def _storer(backend: Backend) -> StoresMetadata | None:
    if not backend.capabilities.stores_metadata:
        return None
    assert isinstance(backend, StoresMetadata)
    return backend


def _timeless(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, mtime_ns=0)
