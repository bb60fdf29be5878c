"""Everything below a prefix to below another: object stores have no rename, so copies first and removals last.

Owns the order, and which objects may be removed at either end when it was interrupted and is done again or undone:
decided by what two listings say, a page at a time, never by what somebody remembers.

Threads: safe; there is no state.
"""

import logging
import re
from collections.abc import Container, Iterable, Mapping, Sequence

from genro_storage.backends.base import Move
from genro_storage.backends.object_requests import PLAIN, ObjectRequests, StoredObject
from genro_storage.errors import StorageError

log = logging.getLogger(__name__)

# The tag of an object that was stored in one piece, which its copy has too, unless the bucket is encrypted with keys of
# its own (SSE-KMS). Other tags are counters, or made of parts.
_MD5 = re.compile('[0-9a-f]{32}')


class ObjectMoves:
    """Moves inside one bucket. Prefixes end with a slash; names are keys without them."""

    def __init__(self, requests: ObjectRequests) -> None:
        self._requests = requests

    def plan(self, source: str) -> list[Move]:
        """All objects below a prefix, its own marker and keys that no path can express among them."""
        return [_planned(name, stored) for name, stored in self._listed(source).items()]

    def copy(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """Copy all. What was copied before a failure is removed again; StorageConflictError if one has changed."""
        made: set[str] = set()

        def copy(move: Move) -> None:
            if move.tag:
                keys = source + move.name, target + move.name
                self._requests.copy(*keys, move.size_bytes, move.tag, storage_class=move.storage_class)
            else:
                # SeaweedFS does not find it as the source of a copy.
                marker = self._requests.head(source + move.name)
                self._requests.mark(target + move.name, None, (marker and marker.metadata) or PLAIN)
            made.add(move.name)

        try:
            self._requests.each(copy, moves)
        except BaseException:
            self._take_back(source, target, moves, made)
            raise

    def remove(self, source: str, target: str, moves: Sequence[Move]) -> None:
        """Remove the originals that are still what was copied and whose copy is there."""
        if source == target:
            return
        originals, copies = self._listed(source), self._listed(target)
        directories = _directories(copies)
        # Where no copy at all has the tag of its original, tags say nothing about contents.
        by_tag = any(stored.tag == move.tag for move in moves if (stored := copies.get(move.name)) and move.tag)
        copied = [move for move in moves if _is_copy(move, copies, by_tag=by_tag) or _is_marker_of(move, directories)]
        self._remove(source, moves, originals, [move.name for move in copied if _is_original(move, originals)])

    def undo(self, source: str, target: str, moves: Sequence[Move], made: Container[str] = ()) -> None:
        """Remove the copies whose original is still there, and nothing else. ``made``: surely copies, by their names.

        A copy whose tag could be that of another content stays, and is logged.
        """
        if source == target:
            return
        originals, copies = self._listed(source), self._listed(target)
        directories = _directories(originals)
        kept = [move for move in moves if move.name in originals or _is_marker_of(move, directories)]
        names = [move.name for move in kept if _is_copy(move, copies, by_tag=move.name not in made)]
        self._remove(target, moves, copies, names)
        left = sum(move.name in copies for move in moves) - len(names)
        if left:
            log.warning('%s: %d objects of a move that was undone stay below %r', self._destination, left, target)

    def _listed(self, prefix: str) -> dict[str, StoredObject]:
        return {
            stored.key.removeprefix(prefix): stored
            for page in self._requests.pages(prefix, '')
            for stored in page.objects
        }

    def _remove(self, prefix: str, moves: Sequence[Move], listed: Iterable[str], names: Sequence[str]) -> None:
        """Remove names below a prefix, and the markers of directories that nothing of what was listed stays in."""
        going = set(names)
        staying = [prefix + name for name in listed if name not in going]
        needed = {*staying, *implied_markers(prefix, staying)}
        # Of all moves, for what an earlier attempt had removed may have left such directories.
        markers = implied_markers(prefix, [prefix + move.name for move in moves])
        files = [prefix + name for name in names if name and not name.endswith('/')]
        self._requests.remove_all([*files, *(marker for marker in markers if marker not in needed)])

    def _take_back(self, source: str, target: str, moves: Sequence[Move], made: Container[str]) -> None:
        try:
            self.undo(source, target, moves, made)
        except StorageError as error:
            log.warning('%s: copies of a move that failed remain below %r: %s', self._destination, target, error)

    @property
    def _destination(self) -> str:
        return self._requests.destination


def implied_markers(prefix: str, keys: Iterable[str]) -> list[str]:
    """The markers that could be at and below a prefix, deepest first.

    Amazon has only those that were put. SeaweedFS keeps every directory that a key implied and goes on listing it,
    until it is removed by this name.
    """
    depth = prefix.count('/')
    split = [key.split('/') for key in keys]
    markers = {'/'.join(names[:count]) + '/' for names in split for count in range(depth, len(names))}
    return sorted(markers, key=lambda marker: -marker.count('/'))


def _planned(name: str, stored: StoredObject) -> Move:
    is_marker = stored.key.endswith('/') and not stored.size_bytes
    return Move(name, stored.size_bytes, '' if is_marker else stored.tag, stored.storage_class)


def _directories(names: Iterable[str]) -> set[str]:
    """The names of the markers of all directories that these are in."""
    found = {''}
    for name in names:
        parts = name.split('/')
        found.update('/'.join(parts[:count]) + '/' for count in range(1, len(parts)))
    return found


def _is_marker_of(move: Move, directories: set[str]) -> bool:
    return not move.tag and move.name in directories


def _is_original(move: Move, originals: Mapping[str, StoredObject]) -> bool:
    stored = originals.get(move.name)
    if stored is None:
        return False
    return stored.tag == move.tag if move.tag else not stored.size_bytes


def _is_copy(move: Move, copies: Mapping[str, StoredObject], *, by_tag: bool) -> bool:
    """Whether what is in the target can be a copy; with ``by_tag`` an MD5 must be the same, where both are one."""
    stored = copies.get(move.name)
    if stored is None or stored.size_bytes != move.size_bytes:
        return False
    return not by_tag or stored.tag == move.tag or not (_MD5.fullmatch(move.tag) and _MD5.fullmatch(stored.tag))
