"""Entries from what fsspec's ``info`` and ``ls`` return.

Owns which keys of those dictionaries mean what; file systems do not agree on them. Pure.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from genro_storage.entry import Entry, Kind, Version

# In order of what they say: local and sftp, s3, azure, gcs and others; last a creation time, which is all that a
# store has whose files are never changed in place.
_TIMES = ('mtime', 'LastModified', 'last_modified', 'modified', 'updated', 'modify', 'created')
_TAGS = ('ETag', 'etag', 'generation')

_KINDS = {'file': Kind.FILE, 'directory': Kind.DIRECTORY}


def entry_of(name: str, info: Mapping[str, Any], *, strong_versions: bool) -> Entry:
    """The entry that a dictionary of fsspec describes."""
    kind = _KINDS.get(info.get('type', ''), Kind.OTHER)
    mtime_ns = next((_nanoseconds(info[key]) for key in _TIMES if info.get(key)), 0)
    if kind is not Kind.FILE:
        return Entry(name, kind, 0, mtime_ns)
    size_bytes = int(info.get('size') or 0)
    return Entry(name, kind, size_bytes, mtime_ns, _version(info, mtime_ns, size_bytes, strong=strong_versions))


def _version(info: Mapping[str, Any], mtime_ns: int, size_bytes: int, *, strong: bool) -> Version:
    tag = next((str(info[key]) for key in _TAGS if info.get(key)), None)
    if tag is not None:
        return Version(tag, strong)
    return Version.weak(mtime_ns, size_bytes)


def _nanoseconds(moment: object) -> int:
    """A time as file systems give it: a datetime (naive: UTC), seconds, or ISO 8601 text; 0 for anything else."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return 0
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = aware - datetime(1970, 1, 1, tzinfo=UTC)
        return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
    if isinstance(moment, int | float):
        return round(moment * 1_000_000) * 1_000  # what a float of these seconds can tell apart
    return 0
