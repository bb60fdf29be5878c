"""How far to read ahead of one open file: pure, one per read handle.

A reader that goes on where it stopped gets twice as much ahead each time, up to a bound; one that jumps, goes backward
or picks here and there gets nothing. Not thread-safe: the reader's lock guards it.
"""

#: Where the doubling begins, once a second read has gone on where the first one stopped: before that a program may
#: only want to know what kind of file it is.
FIRST_BYTES = 1 << 20
#: The kernel sends readahead from several threads, so requests of one stream overtake each other by a little.
SLACK_BYTES = 2 << 20


class Window:
    """Learns from each read how much to fetch behind it."""

    def __init__(self) -> None:
        self._start = 0  # where the stream began
        self._next = 0  # where it goes on
        self._read = 0  # how much of what lies between was read
        self._ahead = 0

    def after(self, offset: int, size_bytes: int, limit_bytes: int) -> int:
        """How many bytes behind this read to fetch ahead; 0 for one that is out of sequence."""
        end = offset + size_bytes
        first = not self._read
        self._read += size_bytes
        # A stream reads most of what it passes; strides within the slack do not.
        passed = max(end, self._next) - self._start
        if abs(offset - self._next) > SLACK_BYTES or passed > 2 * self._read:
            self._start, self._next, self._read, self._ahead = offset, end, size_bytes, 0
        elif end > self._next:
            self._next = end
            if not first:
                self._ahead = min(max(FIRST_BYTES, self._ahead * 2), limit_bytes)
        return self._ahead
