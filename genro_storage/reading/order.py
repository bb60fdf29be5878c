"""Whether names of a directory are taken one after the other, and how many of the next to fetch: pure policy.

One Order is for the files of a mount that are opened, one for its directories that are listed. It learns for each
directory separately, so that programs in different places do not disturb each other, and over all of them whether
what it had fetched was wanted: a program that has gone through some directories is believed at once in the next, and
after much was fetched for nothing it takes more to be believed again.

Threads: safe; one lock, nothing waits under it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

#: Names in a row after which the next are fetched: two may be chance.
IN_A_ROW = 3
#: The same once more was fetched for nothing than was wanted.
IN_A_ROW_DOUBTED = 16
#: A program may leave out some (grep --include), and several threads take names in a slightly different order.
SLACK = 8
#: How many of the next to fetch at first, and at most; twice as many whenever one came too late.
AHEAD_FIRST = 4
AHEAD_MOST = 64
#: How much of what was wanted, or not, is remembered.
TRUST_MOST = 64
#: Hits after which the first names of a directory are fetched before any of them was taken.
TRUSTED = 8
#: Directories that are watched at a time.
LIMIT_DIRECTORIES = 64
#: Their names together, 10 MB of Python objects; a directory that alone has more is not watched.
LIMIT_NAMES = 100_000

Candidates = Callable[[], Sequence[str] | None]


class _Row:
    """What is known of one directory."""

    __slots__ = ('ahead', 'ahead_to', 'in_a_row', 'last', 'last_name', 'names', 'positions', 'predicted', 'taken')

    def __init__(self) -> None:
        self.names: Sequence[str] = ()
        self.positions: dict[str, int] = {}
        self.taken = 0
        self.last_name: str | None = None
        self.last = -1  # the position of that
        self.in_a_row = 1
        self.ahead = 0
        self.ahead_to = 0  # the first position not yet fetched
        self.predicted: set[str] = set()  # fetched and not yet taken

    def know(self, names: Sequence[str]) -> None:
        self.names = names
        self.positions = {name: position for position, name in enumerate(names)}
        self.last = -1 if self.last_name is None else self.positions.get(self.last_name, -1)
        self.ahead_to = 0

    def next(self, position: int) -> Sequence[str]:
        """The names to fetch beyond a position, in steps of half of what may be ahead."""
        first = max(position + 1, self.ahead_to)
        end = min(position + 1 + self.ahead, len(self.names))
        if first >= end or (end - first < self.ahead // 2 and end < len(self.names)):
            return ()
        self.ahead_to = end
        names = self.names[first:end]
        self.predicted.update(names)
        return names


class Order:
    """Learns from each name that is taken which of the next to fetch."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child, where the lock may have been held."""
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._names = 0  # in all of them
        self._trust = 0  # what was wanted of what was fetched, minus what was not
        self._ahead = AHEAD_FIRST  # where trusted directories begin

    def entered(self, directory: str, names: Candidates) -> Sequence[str]:
        """A directory is about to be gone through, perhaps; the names to fetch. ``names``: all, in order."""
        with self._lock:
            if self._trust < TRUSTED or directory in self._rows:
                return ()
            row = self._row(directory)
            if not self._know(row, names):
                return ()
            row.ahead = self._ahead
            row.in_a_row = IN_A_ROW_DOUBTED
            return row.next(-1)

    def took(self, directory: str, name: str, names: Candidates, *, late: bool) -> Sequence[str]:
        """A name is taken, too soon for what was fetched if ``late``; the names to fetch."""
        with self._lock:
            row = self._row(directory)
            if name in row.predicted:
                row.predicted.discard(name)
                self._trust = min(self._trust + 1, TRUST_MOST)
            row.taken += 1
            if row.last_name is None and not row.names:
                row.last_name = name
                return ()
            # To ask for the names costs as much as there are: at the second name that is not known, the fourth, …
            if name not in row.positions and (row.taken & (row.taken - 1) or not self._know(row, names)):
                return ()
            position = row.positions.get(name)
            if position is None:
                return ()
            return self._follow(row, position, name, late=late)

    def _follow(self, row: _Row, position: int, name: str, *, late: bool) -> Sequence[str]:
        step = position - row.last
        if step == 0:
            return ()
        if abs(step) > SLACK:
            self._leave(row)
            row.last, row.last_name, row.in_a_row, row.ahead, row.ahead_to = position, name, 1, 0, 0
            return ()
        if step < 0:
            return ()
        row.last, row.last_name = position, name
        row.in_a_row += 1
        if row.in_a_row < (IN_A_ROW if self._trust >= 0 else IN_A_ROW_DOUBTED):
            return ()
        if not row.ahead:
            row.ahead = AHEAD_FIRST
        elif late:
            row.ahead = min(2 * row.ahead, AHEAD_MOST)
            self._ahead = max(self._ahead, row.ahead)
        return row.next(position)

    def _row(self, directory: str) -> _Row:
        row = self._rows.get(directory)
        if row is None:
            row = self._rows[directory] = _Row()
            if len(self._rows) > LIMIT_DIRECTORIES:
                self._forget_oldest()
        self._rows.move_to_end(directory)
        return row

    def _forget_oldest(self) -> None:
        _, row = self._rows.popitem(last=False)
        self._names -= len(row.names)
        self._leave(row)

    def _leave(self, row: _Row) -> None:
        """What was fetched there and not taken was not wanted."""
        self._trust = max(self._trust - len(row.predicted), -TRUST_MOST)
        if row.predicted:
            self._ahead = AHEAD_FIRST
        row.predicted.clear()

    def _know(self, row: _Row, names: Candidates) -> bool:
        """Learn the names of the directory that was used last."""
        found = names()
        if found is None or len(found) > LIMIT_NAMES:
            return False
        self._names += len(found) - len(row.names)
        row.know(found)
        while self._names > LIMIT_NAMES:
            self._forget_oldest()
        return True
