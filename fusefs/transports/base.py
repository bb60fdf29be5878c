"""What carries requests from a kernel, a library or a test to the file system, and replies back.

A transport knows bytes and threads; it does not know what a request means. A new one is one small file.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from fusefs.ops import Reply, Request

#: Takes each request and sees to it that answer() is called exactly once, now or later, from any thread; for
#: Forget and Interrupt never. Must not raise.
Dispatch = Callable[[Request], None]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport can make of replies and notifications, beyond carrying them."""

    #: The kernel believes a reply for the TTL in it; otherwise it asks each time.
    ttls: bool = True
    #: The kernel has an inode for each nodeid; otherwise one for each name. Then hard links do not share their pages,
    #: and two versions that are open under one name are kept apart by leaving the pages out.
    inodes: bool = True
    #: notify_inode() drops pages at once; otherwise they are dropped when a file is opened.
    invalidation: bool = True
    #: A rename over a file that is open is one step; otherwise its name is absent for a moment, and if the second step
    #: fails, for good.
    atomic_replacement: bool = True
    #: Files without a name can be made (O_TMPFILE).
    unnamed_files: bool = True
    #: statx(2) tells times of birth.
    birth_times: bool = True
    #: What is open without a page cache (O_DIRECT) can be mapped shared.
    direct_io_mappings: bool = True


class Transport(Protocol):
    """A connection over which one file system is served."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can."""

    def serve(self, dispatch: Dispatch, on_ready: Callable[[], None]) -> None:
        """Hand requests to dispatch, from threads of its own, until the file system is unmounted.

        on_ready is called once, when requests can be answered.
        """

    def answer(self, request: Request, reply: Reply) -> bool:
        """Send a reply. False if nobody wants it any more: lookup counts that it would have raised are taken back."""

    def notify_inode(self, nodeid: int, offset: int, size_bytes: int) -> None:
        """Have cached attributes and, from offset on (size 0: to the end), pages of an inode dropped.

        offset -1: attributes only. Never called from inside a request: that can deadlock.
        """

    def notify_entry(self, parent: int, name: str) -> None:
        """Have a cached name looked up again, absent or not. Never called from inside a request."""

    def share(self) -> None:
        """To be called by dispatch before what may take as long as a disk takes: others may take requests meanwhile.

        Until dispatch returns. Without it, who serves from memory is asked alone for as long as there is something.
        """

    def leave(self) -> bool:
        """To be called by dispatch before it waits on the thread it was called on: others take the requests meanwhile.

        Until dispatch returns. False if it must not wait, because nobody else could take them.
        """

    @property
    def takes_files(self) -> bool:
        """Whether open_backing is worth a try; once it is not, it never is again."""

    def open_backing(self, descriptor: int) -> int | None:
        """Register a local file for the kernel to read and write in place of open files: an id for Opened.backing_id.

        None: not this file, or not at all. Never raises, never waits. The descriptor stays the caller's.
        """

    def close_backing(self, backing_id: int) -> None:
        """Give an id back; what is open goes on."""

    def close(self) -> None:
        """Make serve() return. Idempotent, from any thread."""
