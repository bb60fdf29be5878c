"""The connection itself: one descriptor of /dev/fuse, the threads that read it, and the replies that go back.

Owns the descriptor, what its readers do and what happens to requests that cannot be understood. Does not mount or
unmount (mounting), choose terms (handshake), know layouts (decoding, encoding), or know what requests mean (dispatch).

Threads: serve() starts the readers and waits for them; they declare that they never block, but for those that have
left. answer(), the notifications and close() may be called from any thread; a reply is one writev, which the kernel
takes whole.
"""

import errno
import logging
import mmap
import os
import threading
from collections.abc import Callable

from fusefs import ops
from fusefs.transports.base import Capabilities, Dispatch
from fusefs.transports.devfuse import abi, decoding, encoding
from fusefs.transports.devfuse.handshake import MAX_WRITE_BYTES, answer_init
from fusefs.transports.devfuse.inbox import Inbox
from fusefs.transports.devfuse.passthrough import BackingFiles
from fusefs.transports.readers import Readers
from genro_storage.runtime import serve_without_blocking

logger = logging.getLogger(__name__)

# The kernel refuses to read into less than the largest WRITE with its headers (fs/fuse/dev.c, fuse_dev_do_read). Each
# thread has its own, mapped: of those that never get a large WRITE the system never gives more than the first page.
_BUFFER_BYTES = MAX_WRITE_BYTES + 4096

# fs/fuse/dev.c: EINTR and EAGAIN read nothing, ENOENT is a request that was interrupted while it was handed over.
_READ_AGAIN = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOENT})

# fs/fuse/dev.c: unmounted, before a read or while a request was being handed over; the latter also when aborted.
_OVER = frozenset({errno.ENODEV, errno.ECONNABORTED})

# A write finds its request interrupted or its inode unknown (ENOENT), or everything unmounted.
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENOTCONN})


def _has_ended(error: OSError) -> bool:
    """Whether a read failed because all is over; False means to read again. Raises what is neither."""
    if error.errno in _OVER:
        return True
    if error.errno in _READ_AGAIN:
        return False
    raise error


class DevFuseTransport:
    """A Transport over a descriptor of /dev/fuse that is mounted already; it owns the descriptor from now on."""

    capabilities = Capabilities()

    def __init__(self, fd: int, threads: int = 2) -> None:
        # Opened now, because _release must not fail for want of a descriptor.
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._fd = fd
        self._readers = Readers(threads, 'fuse')
        self._inbox = Inbox(fd)
        self._lock = threading.Lock()
        self._started = False  # guarded by _lock
        self._closing = False  # written under _lock, read anywhere
        self._ended = threading.Event()  # serve() may return
        self._failure: OSError | None = None  # what ended a reader; written before _ended is set
        self._complained: set[int] = set()  # opcodes whose malformed requests are in the log
        self._backing = BackingFiles(fd)

    def serve(self, dispatch: Dispatch, on_ready: Callable[[], None]) -> None:
        """See Transport. Raises HandshakeError, and OSError if reading fails in an unknown way."""
        with self._lock:
            if self._closing:
                return
            self._started = True
        if not self._start_readers(dispatch):
            return
        try:
            on_ready()
            self._ended.wait()
        finally:
            self.close()
        if self._failure is not None:
            raise self._failure

    def _start_readers(self, dispatch: Dispatch) -> bool:
        """Whether there is anything to serve. Otherwise, and if it raises, the connection is given back."""
        try:
            agreed = self._handshake()
        except BaseException:
            self._release()
            raise
        if not agreed or self._closing:
            self._release()
            return False
        os.set_blocking(self._fd, False)
        self._readers.start(lambda: self._read(dispatch))
        return True

    def answer(self, request: ops.Request, reply: ops.Reply) -> bool:
        """See Transport. A reply that cannot be encoded becomes EIO and an entry in the log, not an exception."""
        try:
            os.writev(self._fd, encoding.encode(request, reply))
        except OSError as error:
            return self._reply_refused(request, reply, error)
        except Exception:
            # Only types are logged: a reply holds names and data of files.
            logger.exception('%s: the %s does not fit the protocol', type(request).__name__, type(reply).__name__)
            self._fail(request.unique, errno.EIO)
            return False
        return True

    def notify_inode(self, nodeid: int, offset: int, size_bytes: int) -> None:
        """See Transport. An inode that the kernel does not know is fine."""
        self._notify(encoding.encode_inval_inode(nodeid, offset, size_bytes))

    def notify_entry(self, parent: int, name: str) -> None:
        """See Transport. A name that the kernel does not know is fine."""
        self._notify(encoding.encode_inval_entry(parent, name))

    def leave(self) -> bool:
        """See Transport."""
        self._inbox.go_off_duty()
        return self._readers.leave()

    def share(self) -> None:
        """See Transport."""
        self._inbox.go_off_duty()

    @property
    def takes_files(self) -> bool:
        """See Transport."""
        return self._backing.offered

    def open_backing(self, descriptor: int) -> int | None:
        """See Transport."""
        return self._backing.open(descriptor)

    def close_backing(self, backing_id: int) -> None:
        """See Transport."""
        self._backing.close(backing_id)

    def close(self) -> None:
        """See Transport. Requests that have reached dispatch may still be answered; later ones get ENOTCONN.

        So what is mounted behaves as if the server were gone, until it is unmounted or the process ends. The readers
        stay for that long, because somebody has to say so: one that sleeps is woken by a request or by the end.
        """
        with self._lock:
            self._closing = True
            started = self._started
        self._ended.set()
        if not started:
            self._release()

    def _release(self) -> None:
        """Give the connection back.

        Its number stays in use, by /dev/null, as long as this object lives: a worker that answers late would
        otherwise write into whatever file got the number next, and a lock around each answer would cost them all.
        """
        self._inbox.close()
        os.dup2(self._null, self._fd, inheritable=False)

    def __del__(self) -> None:
        os.close(self._fd)
        os.close(self._null)

    def _handshake(self) -> bool:
        """Agree with the kernel; False if it is unmounted already. Raises HandshakeError."""
        buffer = mmap.mmap(-1, _BUFFER_BYTES)
        while True:
            try:
                length = os.readv(self._fd, [buffer])
                answer = answer_init(memoryview(buffer), length)
                os.write(self._fd, answer.message)
            except OSError as error:
                if _has_ended(error):
                    return False
                continue
            if answer.error is not None:
                raise answer.error
            if answer.agreed:
                self._backing.offered = answer.passthrough
                return True

    # Reading.

    def _read(self, dispatch: Dispatch) -> None:
        serve_without_blocking()
        try:
            if not self._read_requests(dispatch):
                return
        except OSError as error:
            self._failure = error
            self._ended.set()
        self._inbox.go_off_duty()
        if self._readers.end():
            self._release()
            self._ended.set()

    def _read_requests(self, dispatch: Dispatch) -> bool:
        """Whether the calling thread has met the end itself. Raises OSError if reading fails in an unknown way."""
        buffer = mmap.mmap(-1, _BUFFER_BYTES)
        view, buffers = memoryview(buffer), [buffer]
        read, decode, come_back = self._inbox.read, decoding.decode, self._readers.come_back
        while True:
            try:
                length = read(buffers)
                request = decode(view, length)
            except OSError as error:
                if _has_ended(error):
                    return True
                continue
            except decoding.RequestError as error:
                if not length:
                    return True
                self._reject(error)
                continue
            if self._closing:
                self._fail_request(request, errno.ENOTCONN)
                continue
            try:
                dispatch(request)
            except BaseException:
                # WouldBlock too, which is no Exception: whatever it is, a caller waits and the others go on.
                logger.exception('%s: dispatch raised, which it must not', type(request).__name__)
                self._fail_request(request, errno.EIO)
            if not come_back():
                return False

    def _reject(self, error: decoding.RequestError) -> None:
        if isinstance(error, decoding.UnknownOpcodeError):
            if error.unique is not None:
                # DESTROY, the last request of some mounts, is waited for and has nothing to say.
                self._fail(error.unique, 0 if error.opcode == abi.Opcode.DESTROY else errno.ENOSYS)
            return
        if error.opcode not in self._complained:
            self._complained.add(error.opcode)
            logger.error('%s; answered with EIO, further ones are not logged', error)
        if error.unique is not None:
            self._fail(error.unique, errno.EIO)

    def _fail_request(self, request: ops.Request, number: int) -> None:
        if not isinstance(request, ops.Forget | ops.Interrupt):
            self._fail(request.unique, number)

    # Writing.

    def _reply_refused(self, request: ops.Request, reply: ops.Reply, error: OSError) -> bool:
        if error.errno not in _GONE:
            names = type(request).__name__, type(reply).__name__
            logger.error('%s: the kernel refuses the %s: %s', *names, error)
            self._fail(request.unique, errno.EIO)
        return False

    def _fail(self, unique: int, number: int) -> None:
        try:
            os.write(self._fd, encoding.encode_failure(unique, number))
        except OSError as error:
            # A refused reply has ended its request mostly, which this second answer then no longer finds.
            if error.errno not in _GONE:
                logger.error('request %d could not be answered: %s', unique, error)

    def _notify(self, message: bytes) -> None:
        try:
            os.write(self._fd, message)
        except OSError as error:
            if error.errno not in _GONE:
                raise
