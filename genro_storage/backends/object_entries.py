"""Entries of what an object store tells of keys. Pure."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import msgspec

from genro_storage import paths, posix_format
from genro_storage.backends.object_requests import PLAIN, ListingPage, StoredObject
from genro_storage.entry import Attributes, Entry, Kind, Version


def entries_of(page: ListingPage, prefix: str) -> list[Entry]:
    """The entries in one page of a listing up to '/', whatever their names; without the marker."""
    directories = [Entry(found[len(prefix) : -1], Kind.DIRECTORY) for found in page.prefixes]
    files = [file_entry(stored.key[len(prefix) :], stored) for stored in page.objects if stored.key != prefix]
    return directories + files


def entry_at(name: str, stored: StoredObject | None, below: Sequence[str], marker: str) -> Entry | None:
    """What a name is, by the object of its key and the first key below it."""
    if below:
        # A marker comes before all that is below it. Only where there is one, there is more to ask.
        return Entry(name, Kind.DIRECTORY) if below[0] == marker else Entry(name, Kind.DIRECTORY, **description(PLAIN))
    return file_entry(name, stored) if stored is not None else None


def written_entry(path: str, size_bytes: int, stored: StoredObject, metadata: Mapping[str, str]) -> Entry:
    """The entry of what was just stored, by what the answer to that told."""
    told = msgspec.structs.replace(stored, size_bytes=size_bytes, metadata=metadata)
    return file_entry(paths.basename(path), told)


def file_entry(name: str, stored: StoredObject) -> Entry:
    """The entry of an object."""
    described = None if stored.metadata is None else posix_format.attributes_of(stored.metadata)
    return Entry(
        name,
        Kind.FILE,
        stored.size_bytes,
        stored.mtime_s * 1_000_000_000,
        Version(stored.tag, strong=True),
        described,
        stored.metadata,
        stored.storage_class,
    )


class Description(TypedDict):
    """What an Entry has of metadata."""

    attributes: Attributes
    metadata: Mapping[str, str]


def description(metadata: Mapping[str, str]) -> Description:
    """What an Entry has of these."""
    return {'attributes': posix_format.attributes_of(metadata), 'metadata': metadata}
