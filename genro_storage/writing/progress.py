"""How far a file under change is on its way: what close() has promised of it, and what may have arrived.

A record. Guarded by the staged file's lock, but where another is named.
"""

import msgspec

from genro_storage.errors import StorageError
from genro_storage.runtime import HandleLock
from genro_storage.writing.journal import Held
from genro_storage.writing.snapshot import Snapshot
from genro_storage.writing.stream import Stream


class Acknowledged(msgspec.Struct):
    """What a close() has made durable: a snapshot that stays open, and its record in the journal."""

    snapshot: Snapshot
    held: Held
    #: Somebody has begun to upload it, so that it may arrive whatever we hear of that.
    begun: bool = False


class Progress(msgspec.Struct):
    """Of one file under change."""

    #: What waits to be uploaded.
    latest: Acknowledged | None = None
    #: What was acknowledged before, and may have arrived: found on the server, it is ours and no conflict.
    evidence: list[Acknowledged] = msgspec.field(default_factory=list)
    #: A commit failed in a way that does not tell whether it arrived.
    doubtful: bool = False
    #: Why the last commit failed: what is dirty was refused to somebody, and lives only here.
    failure: BaseException | None = None
    #: What an upload met that nobody waited for, until a close or fsync has told it.
    untold: StorageError | None = None
    stream: Stream | None = None
    #: Held by whoever may still be uploading what this file replaced; that must not arrive after this.
    after: HandleLock | None = None

    def noted(self, snapshot: Snapshot) -> Acknowledged | None:
        """The record of a snapshot, if that is what waits."""
        return self.latest if self.latest is not None and self.latest.snapshot is snapshot else None

    @property
    def promises(self) -> list[Acknowledged]:
        """All that the journal holds of it, oldest first."""
        return [*self.evidence, *([self.latest] if self.latest is not None else [])]

    @property
    def may_have_arrived(self) -> bool:
        """Whether something of it may be on the backend that nobody has confirmed."""
        return self.doubtful or bool(self.evidence) or (self.latest is not None and self.latest.begun)
