"""What waits in journals, for whoever wants to know: all destinations, in the hands of a living process or of none.

Owns the looking. Changes nothing and takes no lock but a shared one, for microseconds, to see whether a process lives;
what is dropped meanwhile is left out. Threads: safe.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from genro_storage.writing.journal_folder import (
    DAMAGED,
    FAILED,
    INTENT,
    damaged_bytes,
    is_owned,
    read_failure,
    read_intent,
)
from genro_storage.writing.journal_records import DamagedRecordError, Failure, Intent

_FOLDER = re.compile('[0-9a-f]{16}')


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One intent. ``live``: a process has it in hand; otherwise the next one for this destination takes it over.

    ``damaged``: the record cannot be read, or has lost its data; ``error`` says how.
    """

    destination: str
    record: Path
    state: Literal['waiting', 'failed', 'parked', 'damaged']
    live: bool
    created_ns: int
    size_bytes: int
    intent: Intent | None = None
    failure: Failure | None = None
    error: str = ''


def everything(root: Path) -> list[Waiting]:
    """All that waits below a root, oldest first; nothing where no root is. Raises OSError."""
    try:
        destinations = sorted(path for path in root.iterdir() if _FOLDER.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [each for path in destinations for each in _of_destination(path)]
    # What another came after is not done by itself any more.
    intents = [each.intent for each in found if each.intent]
    superseded = {name for intent in intents for name in (intent.replaces, *intent.after)}
    rest = [each for each in found if each.record.stem not in superseded]
    return sorted(rest, key=lambda each: (each.created_ns, each.record.name))


def _of_destination(path: Path) -> Iterator[Waiting]:
    try:
        destination = os.fsdecode((path / 'destination').read_bytes())
    except FileNotFoundError:
        destination = ''
    for folder in sorted(each for each in path.iterdir() if each.is_dir()):
        yield from _of_folder(folder, destination)


def _of_folder(folder: Path, destination: str) -> list[Waiting]:
    try:
        names = os.listdir(folder)
        live = is_owned(folder)
    except FileNotFoundError:
        return []
    records = [folder / name for name in sorted(names) if name.endswith((INTENT, DAMAGED))]
    return [each for record in records if (each := _look(record, destination, live)) is not None]


def _look(record: Path, destination: str, live: bool) -> Waiting | None:
    try:
        if record.suffix == DAMAGED:
            return _damaged(record, destination, live, 'found damaged before')
        try:
            intent = read_intent(record)
        except DamagedRecordError as error:
            return _damaged(record, destination, live, str(error))
        failure = read_failure(record.with_suffix(FAILED))
    except FileNotFoundError:  # done meanwhile
        return None
    return Waiting(
        destination=destination,
        record=record,
        state='parked' if intent.parked else 'failed' if failure else 'waiting',
        live=live,
        created_ns=intent.created_ns,
        size_bytes=intent.size_bytes,
        intent=intent,
        failure=failure,
    )


def _damaged(record: Path, destination: str, live: bool, error: str) -> Waiting:
    return Waiting(
        destination=destination,
        record=record,
        state='damaged',
        live=live,
        created_ns=record.stat().st_mtime_ns,
        size_bytes=damaged_bytes(record),
        error=error,
    )
