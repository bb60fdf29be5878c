"""What an open file offers to whoever copies from it: the version that it shows, where the backend has it.

Owns the offer alone; whether it can be taken is for the one who would (writing/origins.py). Threads: values.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from genro_storage.backends.base import Backend
from genro_storage.entry import Version

if TYPE_CHECKING:
    from genro_storage.reading.reader import Reader


class Loan(NamedTuple):
    """A strong version of a stored file, and how to open it again."""

    backend: Backend
    path: str
    version: Version
    size_bytes: int
    open: 'Callable[[], Reader]'


@runtime_checkable
class Lends(Protocol):
    """An open file of which a copy may be made where it lies."""

    def lend(self) -> Loan | None:
        """What it shows, whole; None while that is no strong version that the backend has."""
