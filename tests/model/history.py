"""What was where and when: the reference that reads are compared with.

Owns the contents (each says of every 16 bytes which version and which place they are of), the times at which they
were current, and what an open file may show. Does no I/O. Times are seconds of the tests' clock. Not thread-safe.
"""

import math
from array import array
from functools import cached_property

from genro_storage.cache.blocks import BLOCK_BYTES

CELL_BYTES = 16
_LARGEST_BYTES = 12 << 20
_PLACES = array('Q', range(_LARGEST_BYTES // CELL_BYTES + 1))


class Content:
    """One version of one file: its bytes follow from its number, which no other version has."""

    def __init__(self, number: int, path: str, size_bytes: int) -> None:
        self.number = number
        self.path = path
        self.size_bytes = size_bytes
        #: What the store calls this version, once it has it.
        self.tag = ''

    def __repr__(self) -> str:
        return f'version {self.number} ({self.size_bytes} bytes, made as {self.path!r})'

    @cached_property
    def data(self) -> bytes:
        """All its bytes."""
        cells = -(-self.size_bytes // CELL_BYTES)
        words = array('Q', bytes(cells * CELL_BYTES))
        words[0::2] = array('Q', [self.number]) * cells
        words[1::2] = _PLACES[:cells]
        return words.tobytes()[: self.size_bytes]

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Some of them, fewer at the end."""
        return self.data[offset : offset + size_bytes]


def told_by(data: bytes, offset: int) -> str:
    """Which bytes these are that were read from an offset, for whoever expected others."""
    if data and not any(data):
        return f'{len(data)} zeros'
    # Bytes that are not in their place may have come from any other.
    runs = min((_runs(data, offset, skipped) for skipped in range(CELL_BYTES)), key=len)
    shown = [
        f'from {start}: version {number}' + (f', as it has it at {start + distance}' if distance else '')
        for start, number, distance in runs[:8]
    ]
    return f'{len(data)} bytes ({"; ".join(shown) or data[:CELL_BYTES].hex()}{"; …" if len(runs) > 8 else ""})'


def _runs(data: bytes, offset: int, skipped: int) -> list[tuple[int, int, int]]:
    """Where which version begins, and how far from its place, if cells begin so many bytes behind the first byte."""
    words = array('Q', data[skipped:][: max(0, len(data) - skipped) // CELL_BYTES * CELL_BYTES])
    runs: list[tuple[int, int, int]] = []
    for cell in range(len(words) // 2):
        start = offset + skipped + cell * CELL_BYTES
        number, distance = words[2 * cell], words[2 * cell + 1] * CELL_BYTES - start
        if not runs or runs[-1][1:] != (number, distance):
            runs.append((start, number, distance))
    return runs


class History:
    """Each path's contents, None where nothing was, with the time at which each came."""

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self.now_s = 0.0
        self._made = 0
        self._changes: dict[str, list[tuple[float, Content | None]]] = {}

    def make(self, path: str, size_bytes: int) -> Content:
        """A new content, not yet anywhere."""
        self._made += 1
        return Content(self._made, path, size_bytes)

    def became(self, path: str, content: Content | None) -> None:
        """From now on this is there."""
        self._of(path).append((self.now_s, content))

    def current(self, path: str) -> Content | None:
        """What is there now."""
        return self._of(path)[-1][1]

    def since(self, time_s: float, path: str) -> list[Content | None]:
        """All that was there at some moment after a time, until now, the newest last."""
        changes = self._of(path)
        ends = [came for came, _ in changes[1:]] + [math.inf]
        return [content for (_, content), end in zip(changes, ends, strict=True) if end > time_s]

    def believable(self, path: str) -> list[Content | None]:
        """What somebody may take for current who asked within the TTL."""
        return self.since(self.now_s - self.ttl_s, path)

    def is_there(self, content: Content, path: str) -> bool:
        """Whether this is the current content, so that nothing of it can be refused."""
        return self.current(path) is content

    def _of(self, path: str) -> list[tuple[float, Content | None]]:
        return self._changes.setdefault(path, [(-math.inf, None)])


class Sight:
    """What one open file may show: some version that may be believed, until a read or its size tells which one.

    ``follows``: until then it goes on to what replaces it, and fails only where nothing is.
    """

    def __init__(self, history: History, path: str, *, follows: bool) -> None:
        self._history = history
        self._since_s = history.now_s - history.ttl_s
        self._follows = follows
        self.path = path
        self.possible = self._opened()
        self.told = False

    def __repr__(self) -> str:
        return f'{self.path!r} as {" or ".join(map(repr, self.possible))}'

    @property
    def is_old(self) -> bool:
        """Whether it shows what is not there any more."""
        return self._history.current(self.path) not in self.possible

    def place(self, block: int) -> int:
        """Where a block begins, of those it has and one behind them."""
        return block % (self.possible[-1].size_bytes // BLOCK_BYTES + 2) * BLOCK_BYTES

    def tells_size(self, size_bytes: int) -> None:
        """The handle says that the file has this size."""
        self._follow()
        self._keep([each for each in self.possible if each.size_bytes == size_bytes], f'a size of {size_bytes}')

    def shows(self, offset: int, size_bytes: int, data: bytes) -> None:
        """A read of so many bytes brought these."""
        self._follow()
        right = [each for each in self.possible if each.read(offset, size_bytes) == data]
        if not right:
            self._keep([], f'at {offset}, of {size_bytes} bytes asked for, {told_by(data, offset)}')
        self._keep(right, '')

    def refuses(self, kind: str) -> None:
        """A read failed: rightly only if the version is gone."""
        self._follow()
        if self._follows and not self.told:
            # Nothing to go on to. A version that could be read until now is not told of by an error.
            if kind != 'StorageNotFoundError' or self._history.current(self.path) is not None:
                self._fail(f'{kind} though nothing of it was told before')
            return
        if kind != 'StorageConflictError':
            self._fail(f'{kind}, not StorageConflictError')
        gone = [each for each in self.possible if not self._history.is_there(each, self.path)]
        self._keep(gone, f'{kind} though its version is there')

    def _opened(self) -> list[Content]:
        return [each for each in self._history.since(self._since_s, self.path) if each is not None]

    def _follow(self) -> None:
        if self._follows and not self.told:
            self.possible = self._opened()

    def _keep(self, right: list[Content], what: str) -> None:
        if not right:
            self._fail(what)
        self.possible = right
        self.told = True

    def _fail(self, what: str) -> None:
        now = self._history.current(self.path)
        raise AssertionError(f'{self} showed {what}; at {self._history.now_s:g} s there is {now or "nothing"}')
