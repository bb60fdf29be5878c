"""The body of an answer to a request for a range: which bytes they are, and whether all have come.

Owns what 206, 200 and Content-Range mean (RFC 9110, 14.4 and 15.3.7) and the error for a body that ends early, with
what had arrived. Does no I/O: whoever receives hands over the pieces.

Threads: a value of one thread.
"""

import re
from typing import Final

from genro_storage.backends.base import InterruptedReadError
from genro_storage.entry import Extent
from genro_storage.errors import StorageUnavailableError

WHOLE: Final = 200
PARTIAL: Final = 206

_CONTENT_RANGE = re.compile(r'bytes (\d+)-(\d+)/(\d+|\*)')


class ReceivedRange:
    """What has arrived of an extent; ``what`` names destination and key, for errors.

    ``status`` is 206, or 200 from a server that sends everything instead; then only the extent is kept of it.
    Raises StorageUnavailableError if the answer begins elsewhere than it was asked to.
    """

    def __init__(self, wanted: Extent, status: int, content_range: str | None, what: str) -> None:
        self._what = what
        self._pieces: list[bytes] = []
        self._skip_bytes = wanted.offset if status == WHOLE else 0
        #: How much is still to come; of a file whose end is not known, at most.
        self.missing_bytes = wanted.size_bytes
        self._end_known = False
        if status == PARTIAL:
            self._limit(wanted, content_range)

    def add(self, piece: bytes) -> None:
        """Keep the next bytes of the body, as far as they are wanted."""
        if self._skip_bytes or len(piece) > self.missing_bytes:
            skipped = min(self._skip_bytes, len(piece))
            self._skip_bytes -= skipped
            piece = piece[skipped : skipped + self.missing_bytes]
        self._pieces.append(piece)
        self.missing_bytes -= len(piece)

    def result(self) -> bytes:
        """The extent, once the body has ended. Raises InterruptedReadError if it was shorter than the file is."""
        if self.missing_bytes and self._end_known:
            raise self.interrupted(f'the answer ended {self.missing_bytes} bytes early')
        return self._joined()

    def interrupted(self, reason: object) -> InterruptedReadError:
        """The error for a body that broke off here."""
        return InterruptedReadError(f'{self._what}: {reason}', self._joined())

    def _limit(self, wanted: Extent, content_range: str | None) -> None:
        match = _CONTENT_RANGE.fullmatch(content_range or '')
        if match is None or int(match[1]) != wanted.offset:
            raise StorageUnavailableError(
                f'{self._what}: asked for bytes from {wanted.offset}, was answered with {content_range!r}'
            )
        if match[3] != '*':
            self.missing_bytes = min(wanted.end, int(match[3])) - wanted.offset
            self._end_known = True

    def _joined(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b''.join(self._pieces)
