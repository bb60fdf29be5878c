"""The volumes of one mount whose place is said at each use: one for each place, made when it is first said.

Owns which volume is whose, and how many are kept. Threads: safe; one lock over the table, never held across I/O or
while the function is called.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from genro_storage.config import Definition
from genro_storage.config.dynamic import DynamicPath
from genro_storage.volume import Volume

#: One is a few kilobytes. What is dropped is made again; who has a file open in it keeps what that needs.
MOST_PLACES = 256


class Places:
    """Keyed by what the function says, so that nothing of one place is seen, staged or believed in another."""

    def __init__(self, dynamic: DynamicPath, build: Callable[[Definition], Volume]) -> None:
        self._dynamic = dynamic
        self._build = build
        self._lock = threading.Lock()
        self._volumes: OrderedDict[str, Volume] = OrderedDict()  # guarded by _lock; the latest used is the last

    def current(self) -> Volume:
        """The volume of the place that is meant now. Raises StorageConfigError."""
        definition = self._dynamic.resolve()
        with self._lock:
            volume = self._volumes.get(definition.path)
            if volume is not None:
                self._volumes.move_to_end(definition.path)
                return volume
        made = self._build(definition)
        with self._lock:
            volume = self._volumes.setdefault(definition.path, made)
            while len(self._volumes) > MOST_PLACES:
                # Not closed: a local volume holds nothing but memory, and somebody may be using it.
                self._volumes.popitem(last=False)
        return volume

    def close(self, timeout_s: float) -> bool:
        """See Volume; of those that are kept."""
        with self._lock:
            volumes = list(self._volumes.values())
            self._volumes.clear()
        ended = [volume.close(timeout_s) for volume in volumes]
        return all(ended)

    def after_fork(self) -> None:
        """See Volume."""
        self._lock = threading.Lock()
        for volume in self._volumes.values():
            volume.after_fork()
