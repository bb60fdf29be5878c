"""How far what was changed here is on its way, for whoever looks at a file. Pure."""

import enum
from collections.abc import Iterable

from genro_storage.writing.staging import StagedFile


class State(enum.Enum):
    """Of a file, and of a directory what is worst below it: in this order."""

    #: It is what the backend has.
    CLEAN = 'clean'
    #: It was changed here, and is not uploaded yet.
    DIRTY = 'dirty'
    #: It is being uploaded.
    UPLOADING = 'uploading'
    #: An upload has failed. What was written is here.
    ERROR = 'error'


_SEVERITY = {state: severity for severity, state in enumerate(State)}


def worst_of(files: Iterable[StagedFile]) -> State:
    """The worst state of some files under change; CLEAN of none."""
    return max((_state_of(staged) for staged in files), key=_SEVERITY.__getitem__, default=State.CLEAN)


def _state_of(staged: StagedFile) -> State:
    if staged.progress.untold is not None or (staged.dirty and staged.progress.failure is not None):
        return State.ERROR
    if not staged.dirty:
        return State.CLEAN
    # Whoever commits holds it; so does who renames or removes the file, for a moment.
    return State.UPLOADING if staged.committing.is_taken else State.DIRTY
