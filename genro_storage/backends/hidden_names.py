"""Names that a server returns and no path can express: hidden from listings, counted, logged once.

Owns the count. Threads: safe; the count may lag behind.
"""

import logging

from genro_storage.paths import is_expressible

log = logging.getLogger(__name__)

# A server can hold any number of them; the count stops being exact here rather than grow with it.
_REMEMBERED_MAX = 10_000


class HiddenNames:
    """What one backend has hidden so far."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._seen: set[tuple[str, str]] = set()

    @property
    def count(self) -> int:
        """How many different ones there were."""
        return len(self._seen)

    def shows(self, directory: str, name: str) -> bool:
        """Whether a name can be an entry of a directory; one that cannot is counted."""
        if is_expressible(name):
            return True
        if not self._seen:
            log.warning('%s: a key that no path can express is hidden, in %r: %r', self._destination, directory, name)
        if len(self._seen) < _REMEMBERED_MAX:
            self._seen.add((directory, name))
        return False
