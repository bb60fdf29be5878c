"""Passthrough: local files that the kernel reads and writes by itself, without asking the server.

Owns the two ioctls, the credentials under which the kernel will act, and when not to ask again. Which files are handed
over, and for how long, is decided above (fusefs.passthrough). Threads: safe; what is kept are flags that only ever
change once.
"""

import ctypes
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from fusefs.transports.devfuse import abi

logger = logging.getLogger(__name__)

#: 'nobody' almost everywhere; any user but root would do.
_NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)


class BackingFiles:
    """The backing files of one connection."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        #: The kernel has agreed to passthrough.
        self.offered = False
        self._noted: set[int | None] = set()  # errnos that are in the log

    def open(self, descriptor: int) -> int | None:
        """See Transport.open_backing."""
        if not self.offered:
            return None
        # Mutable, or Python would return its copy of the buffer and not what the ioctl returns.
        request = bytearray(abi.BACKING_MAP.pack(descriptor, 0, 0))
        try:
            with _without_privileges():
                backing_id: int = fcntl.ioctl(self._fd, abi.DEV_IOC_BACKING_OPEN, request, True)
                return backing_id
        except OSError as error:
            if error.errno == errno.EPERM:
                # It does not come later. Anything else is about this file: ELOOP on overlayfs.
                self.offered = False
                logger.info('the kernel is handed no files: that takes CAP_SYS_ADMIN')
            else:
                self._note(error)
            return None

    def close(self, backing_id: int) -> None:
        """See Transport.close_backing."""
        try:
            fcntl.ioctl(self._fd, abi.DEV_IOC_BACKING_CLOSE, abi.BACKING_ID.pack(backing_id))
        except OSError as error:
            # Of a connection that has ended (its number leads to /dev/null then) nothing is left to close.
            if error.errno not in {errno.ENOTTY, errno.ENODEV}:
                self._note(error)

    def _note(self, error: OSError) -> None:
        if error.errno not in self._noted:
            self._noted.add(error.errno)
            logger.info('passthrough: %s; such files are served by this process', error.strerror)


@contextmanager
def _without_privileges() -> Iterator[None]:
    """Be nobody for files, in this thread, if this is root.

    The kernel later writes with the credentials of the thread that registers a file. With root's (CAP_FSETID) a write
    by anybody would leave set-id bits in place; setfsuid(2) takes it away, and leaves CAP_SYS_ADMIN. Raises OSError
    (EPERM) where root may not do that.
    """
    if os.geteuid() != 0:
        yield
        return
    _libc.setfsuid(_NOBODY)
    try:
        if _libc.setfsuid(-1) != _NOBODY:  # it says who one is; whether the first call worked, nothing else does
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        yield
    finally:
        _libc.setfsuid(0)
