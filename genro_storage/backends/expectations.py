"""What a backend refuses that has looked at what is there, because no server checks it with the change.

Owns which error each case is. Pure; threads: safe.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from genro_storage.backends.base import ABSENT, Expected, SourceGoneError
from genro_storage.entry import Entry, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotFoundError,
)


class _Versioned(Protocol):
    @property
    def version(self) -> Version | None: ...


Found = TypeVar('Found', bound=_Versioned)


def refuse_target(there: Entry | None, expected: Expected, what: str) -> None:
    """Raises what Backend.put raises where something else is ``there`` than what is expected, or a directory."""
    if there is None:
        if isinstance(expected, Version):
            raise StorageConflictError(f'{what} is gone; a version of it was expected')
        return
    if expected is ABSENT:
        raise StorageExistsError(f'{what} exists')
    if there.is_directory:
        raise StorageIsADirectoryError(f'{what} is a directory')
    if expected is not None and there.version != expected:
        raise StorageConflictError(f'{what} has changed since it was opened')


def source_of(look: Callable[[], Found], version: Version | None, what: str) -> Found:
    """What is to be copied, as ``look`` finds it. Raises SourceGoneError if that is not this version any more."""
    try:
        found = look()
    except StorageNotFoundError as error:
        if version is None:
            raise
        raise SourceGoneError(f'{what} is gone since it was opened') from error
    if version is not None and found.version != version:
        raise SourceGoneError(f'{what} has changed since it was opened')
    return found
