"""Copies that the server makes in place of an upload: of a snapshot that is another file, or parts of it.

Owns what becomes of one that is refused: the bytes pass through here then, read from the origin while it is there or
cached, and otherwise reading says that it has gone. So nothing but the bytes of the snapshot is ever stored.

Threads: safe; no state.
"""

import logging
from collections.abc import Mapping

from genro_storage.backends.base import Backend, Expected, PartUpload, SourceGoneError
from genro_storage.entry import Entry, Extent, Version
from genro_storage.errors import StoragePermissionError, StorageUnsupportedError
from genro_storage.writing.snapshot import Snapshot

log = logging.getLogger(__name__)

# Nothing of these speaks against an upload of the same bytes: one mount may read what another may not.
_REFUSALS = (StorageUnsupportedError, StoragePermissionError, SourceGoneError)


def copy_whole(
    backend: Backend, snapshot: Snapshot, target: str, expected: Expected, metadata: Mapping[str, str] | None
) -> Entry | None:
    """Have the origin of a snapshot copied, if the snapshot is just that; None if it is not, or cannot be.

    Raises what Backend.copy raises because of the target.
    """
    origin = snapshot.origin
    # A file may have been renamed onto its origin. S3 refuses to copy an object onto itself.
    if origin is None or not snapshot.is_copy or origin.path == target:
        return None
    try:
        return backend.copy(origin.path, target, version=origin.version, expected=expected, metadata=metadata)
    except _REFUSALS as error:
        log.info('%r is not copied from %r by the server: %s', target, origin.path, error)
        return None


def copied_from(snapshot: Snapshot) -> tuple[Version, str | None] | None:
    """The version, and the file if it is another one, that unchanged parts are copied from; None: they are sent."""
    origin = snapshot.origin
    if origin is not None:
        return origin.version, origin.path
    expected = snapshot.expected
    return (expected, None) if isinstance(expected, Version) and expected.strong else None


def copy_part(upload: PartUpload, number: int, extent: Extent, version: Version, source: str | None) -> bool:
    """Have a part copied; whether it was. Raises StorageConflictError if it is the file itself that has changed."""
    try:
        upload.copy(number, extent, version, source)
    except _REFUSALS as error:
        log.debug('part %d is sent and not copied: %s', number, error)
        return False
    return True
