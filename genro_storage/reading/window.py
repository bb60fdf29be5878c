"""How far to read ahead of one open file: pure, one per read handle.

A reader that goes on where it stopped gets twice as much ahead each time, up to a bound; one that jumps gets nothing
ahead. Not thread-safe: the reader's lock guards it.
"""

#: Where the doubling begins: with the kernel's own 128 KiB requests a second one in sequence is proof enough.
FIRST_BYTES = 1 << 20
#: Four ranges of 8 MiB in flight saturate one core's worth of s3fs; more only takes memory.
LIMIT_BYTES = 32 << 20
#: The kernel sends readahead from several threads, so requests of one stream overtake each other by a little.
SLACK_BYTES = 2 << 20


class Window:
    """Learns from each read how much to fetch behind it."""

    def __init__(self) -> None:
        self._next = 0
        self._ahead = 0

    def after(self, offset: int, size_bytes: int) -> int:
        """How many bytes behind this read to fetch ahead; 0 for one that is out of sequence."""
        if abs(offset - self._next) > SLACK_BYTES:
            self._next, self._ahead = offset + size_bytes, 0
            return 0
        self._ahead = min(max(FIRST_BYTES, self._ahead * 2), LIMIT_BYTES)
        self._next = max(self._next, offset + size_bytes)
        return self._ahead
