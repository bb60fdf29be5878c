"""Where the bytes of a staged file come from that are those of another file: the origin.

Owns how an origin is named, to the backend of the staged file and in the journal, and which loans can become one. Which
bytes are borrowed is the staged file's. Threads: values.
"""

import msgspec

from genro_storage.backends.base import Backend, SharesStore
from genro_storage.entry import Version
from genro_storage.reading.loans import Loan

#: Below, a copy by reading and writing is as quick, and needs the origin no more once it is staged.
WORTH_BORROWING_BYTES = 1 << 20


class Origin(msgspec.Struct, frozen=True):
    """A strong version of a file; the path is one that Backend.copy takes as a source."""

    path: str
    tag: str
    size_bytes: int

    @property
    def version(self) -> Version:
        """The version."""
        return Version(self.tag, strong=True)


def origin_of(loan: Loan, backend: Backend) -> Origin | None:
    """What is lent, for a file of a backend; None if that cannot copy it, or it is not worth it."""
    if loan.size_bytes < WORTH_BORROWING_BYTES:
        return None
    path = path_for(backend, loan.backend, loan.path)
    return None if path is None else Origin(path, loan.version.tag, loan.size_bytes)


def path_for(backend: Backend, lender: Backend, path: str) -> str | None:
    """How a backend names what another one, or itself, has at a path; None if it cannot."""
    if lender is backend:
        return path
    if not (isinstance(backend, SharesStore) and isinstance(lender, SharesStore)):
        return None
    return lender.path_in_store(path) if backend.store and backend.store == lender.store else None
