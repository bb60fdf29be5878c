"""Paths and keys of one bucket: which key a path is, and what is at and below it.

Owns the translation both ways and the requests that look, but no meaning of an operation. Threads: safe; no state.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from genro_storage import paths
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.s3_client import S3Client
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import StorageNotFoundError


class S3Keys:
    """The keys of a bucket below a prefix."""

    def __init__(self, client: S3Client, prefix: str, hidden: HiddenNames) -> None:
        self._client = client
        self._prefix = prefix
        self._hidden = hidden

    def file(self, path: str) -> str:
        """The key of a file."""
        return f'{self._prefix}/{path}' if self._prefix else path

    def directory(self, path: str) -> str:
        """The beginning of all keys below a directory, and the key of its marker; '' for a whole bucket."""
        key = self.file(path).rstrip('/')
        return f'{key}/' if key else ''

    async def find(self, path: str) -> Entry | None:
        """What is at a path. The root is always a directory, if there is the bucket: raises StorageNotFoundError."""
        if not path:
            await self.below(path, 1)
            return Entry('', Kind.DIRECTORY)
        entry, below = await asyncio.gather(self.head(path), self.below(path, 1))
        return Entry(paths.basename(path), Kind.DIRECTORY) if below else entry

    async def head(self, path: str) -> Entry | None:
        """The file at a path, whatever is below it."""
        try:
            answer = await self._client.call('head_object', Key=self.file(path))
        except StorageNotFoundError:
            return None
        return _file(paths.basename(path), answer['ContentLength'], answer)

    async def below(self, path: str, limit: int) -> list[str]:
        """The first keys below a directory, its marker among them."""
        page = await self._client.call('list_objects_v2', Prefix=self.directory(path), MaxKeys=limit)
        return [item['Key'] for item in page.get('Contents', [])]

    async def is_directory(self, path: str) -> bool:
        """Whether there is a directory at a path."""
        return not path or bool(await self.below(path, 1))

    async def has_entries(self, path: str) -> bool:
        """Whether anything but a marker is below a directory."""
        return any(key != self.directory(path) for key in await self.below(path, 2))

    async def file_above(self, path: str) -> str | None:
        """The file that stands where a directory above this path should be, or None."""
        parent = paths.parent(path)
        # Where anything is below the parent already, all above are directories: the cheap and usual answer.
        if not parent or await self.below(parent, 1):
            return None
        names = parent.split('/')
        above = ['/'.join(names[:count]) for count in range(1, len(names) + 1)]
        found = await asyncio.gather(*(self.find(directory) for directory in above))
        return next(
            (path for path, entry in zip(above, found, strict=True) if entry is not None and entry.is_file), None
        )

    async def children(self, path: str) -> list[Entry] | None:
        """The entries of a directory, or None where there is not even a marker."""
        prefix = self.directory(path)
        entries: dict[str, Entry] = {}
        there = not path
        async for page in self._client.pages(Prefix=prefix, Delimiter='/'):
            there = there or bool(page.get('Contents') or page.get('CommonPrefixes'))
            for entry in entries_of(page, prefix):
                if self._hidden.shows(path, entry.name) and (entry.is_directory or entry.name not in entries):
                    entries[entry.name] = entry
        return list(entries.values()) if there else None

    async def mark(self, path: str, **conditions: str) -> None:
        """Put the marker of a directory."""
        await self._client.call('put_object', Key=self.directory(path), Body=b'', **conditions)

    async def keep(self, path: str) -> None:
        """See to it that a directory outlives its last entry."""
        # After the removal, not before: of two that remove the last two entries at once, one at least sees none left.
        if path and not await self.below(path, 1):
            await self.mark(path)


def entries_of(page: Mapping[str, Any], prefix: str) -> list[Entry]:
    """The entries in one page of a listing with the delimiter '/', whatever their names; without the marker."""
    directories = [Entry(item['Prefix'][len(prefix) : -1], Kind.DIRECTORY) for item in page.get('CommonPrefixes', [])]
    files = [
        _file(item['Key'][len(prefix) :], item['Size'], item)
        for item in page.get('Contents', [])
        if item['Key'] != prefix
    ]
    return directories + files


def _file(name: str, size_bytes: int, described: Mapping[str, Any]) -> Entry:
    version = Version(described['ETag'].strip('"'), strong=True)
    return Entry(name, Kind.FILE, size_bytes, _nanoseconds(described['LastModified']), version)


def _nanoseconds(moment: datetime) -> int:
    # Listings may hold milliseconds, the header of a HEAD cannot: whole seconds, so that both say the same.
    return int(moment.astimezone(UTC).timestamp()) * 1_000_000_000
