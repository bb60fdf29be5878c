"""Operation → method, on the thread that received it; when it must wait, others receive, or a worker takes it over.

Owns the one error boundary, the requests under way, and interrupts. Threads: safe; one lock over the table of requests
under way, held for dictionary operations only.
"""

import errno
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable

from fusefs import ops
from fusefs.errnos import errno_of
from fusefs.filesystem import FileSystem
from fusefs.transports.base import Transport
from genro_storage.runtime import WorkerPool, WouldBlock, waiting_allowed

log = logging.getLogger(__name__)

#: Answered from memory in most cases, and free of effects until they wait: a serving thread tries them first, and they
#: begin again if they would block.
TRIED_FIRST = (
    ops.Lookup,
    ops.Getattr,
    ops.Statx,
    ops.Read,
    ops.Write,
    ops.Lseek,
    ops.Release,
    ops.Opendir,
    ops.Readdir,
    ops.Access,
    ops.Getxattr,
    ops.Listxattr,
    ops.Statfs,
)
#: Answered from memory alone in trees that are not of the local disk, if they do not have to wait.
QUICK = (ops.Lookup, ops.Getattr, ops.Statx, ops.Open, ops.Release, ops.Access, ops.Getxattr, ops.Listxattr, ops.Statfs)
#: Whoever waits for these may go at once when a signal comes: nothing has changed, and the result is dropped.
INTERRUPTIBLE = (
    ops.Lookup,
    ops.Getattr,
    ops.Statx,
    ops.Read,
    ops.Lseek,
    ops.Opendir,
    ops.Readdir,
    ops.Open,
    ops.Access,
    ops.Getxattr,
    ops.Listxattr,
    ops.Statfs,
)
#: These mean: now. They are typed (Ctrl-C, Ctrl-\\), and the kernel adds SIGKILL to whatever will end a program
#: (complete_signal in kernel/signal.c). Whoever handles another one goes on after it, and had better know the outcome.
ENDING = sum(1 << number - 1 for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
#: A failure of these is about data that somebody wrote; an errno alone does not say what became of them.
COMMITTING = (ops.Flush, ops.Fsync, ops.Release)

PF_EXITING = 0x4  # linux/sched.h

#: How many interrupts to remember that came before their request was on the table; that takes milliseconds.
EARLY_INTERRUPTS = 256


class Dispatcher:
    """Takes requests from a transport and has each answered exactly once."""

    def __init__(self, filesystem: FileSystem, transport: Transport) -> None:
        self._filesystem = filesystem
        self._operations = filesystem.operations
        self._transport = transport
        filesystem.backings.connect(transport)
        self._lock = threading.Condition()
        self._waiting: dict[int, ops.Request] = {}  # that may wait, by unique; guarded by _lock
        # Numbers of interrupts that found no request to end: it was answered, or another thread has read it and not
        # put it on the table yet. Guarded by _lock.
        self._early: deque[int] = deque(maxlen=EARLY_INTERRUPTS)
        self._working = 0  # jobs that may wait, answered early or not; guarded by _lock

    def __call__(self, request: ops.Request) -> None:
        """Dispatch. Never raises."""
        if isinstance(request, ops.Interrupt):
            self._interrupt(request.target)
            return
        try:
            tree = self._filesystem.tree_of(request.nodeid) if not isinstance(request, ops.Forget) else None
            if tree is not None and (tree.writes_in_place or not isinstance(request, QUICK)):
                self._transport.share()
            if tree is None or tree.instant or isinstance(request, TRIED_FIRST) or _only_reads(request):
                reply = self._operations[type(request)](request)
            else:
                raise WouldBlock
        except WouldBlock:
            self._defer(request)
            return
        except Exception as error:  # noqa: BLE001 - the error boundary: whatever happens, the daemon survives it
            reply = self._failure(request, error)
        if not isinstance(request, ops.Forget):
            self._answer(request, reply)

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; whether that came in time."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while self._working:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return False
                self._lock.wait(remaining_s)
        return True

    def _defer(self, request: ops.Request) -> None:
        with self._lock:
            interrupted = request.unique in self._early
            self._waiting[request.unique] = request
        if interrupted and _may_leave(request):
            if self._claim(request):
                self._answer(request, ops.Failure(errno.EINTR))
            return
        if isinstance(request, ops.Flush) and _was_killed(request.pid) and self._claim(request):
            # The kernel closes the files of a killed program, which stays until it is answered. What was written is
            # committed all the same, but there is nobody to be told.
            self._answer(request, None)
        try:
            if not self._work_here(request):
                if isinstance(request, ops.Write):
                    request.data = bytes(request.data)  # the buffer is the transport's, and used again at once
                self._start(request, lambda: self._work(request))
        except Exception as error:  # noqa: BLE001 - see __call__
            if self._claim(request):
                self._answer(request, self._failure(request, error))

    def _work_here(self, request: ops.Request) -> bool:
        """Have this thread do what waits, if it may leave the serving to others and the mount has room for one more."""
        pool = self._pool(request)
        if not pool.admit():
            return False
        try:
            if not self._transport.leave():
                return False
            with self._lock:
                self._working += 1
            try:
                with waiting_allowed():
                    self._work(request)
            finally:
                self._ended()
            return True
        finally:
            pool.dismiss()

    def _start(self, request: ops.Request, job: Callable[[], None]) -> None:
        """Run a job of a request on a worker of its mount; drain() waits for it."""

        def run() -> None:
            try:
                job()
            finally:
                self._ended()

        with self._lock:
            self._working += 1
        try:
            self._pool(request).start(run)
        except BaseException:
            self._ended()
            raise

    def _ended(self) -> None:
        with self._lock:
            self._working -= 1
            self._lock.notify_all()

    def _pool(self, request: ops.Request) -> WorkerPool:
        pool = self._filesystem.tree_of(request.nodeid).workers
        if pool is None:
            raise RuntimeError(f'{type(request).__name__} would block in a tree that has no workers')
        return pool

    def _work(self, request: ops.Request) -> None:
        if not isinstance(request, COMMITTING) and not self._is_awaited(request):
            return
        try:
            reply = self._operations[type(request)](request)
        except Exception as error:  # noqa: BLE001 - see __call__
            reply = self._failure(request, error)
        if self._claim(request):
            self._answer(request, reply)
        else:
            self._take_back(request, reply)
            self._tell_change(request)

    def _is_awaited(self, request: ops.Request) -> bool:
        with self._lock:
            return request.unique in self._waiting

    def _claim(self, request: ops.Request) -> bool:
        """Take a request off the table, to answer it; False if an interrupt has answered it already."""
        with self._lock:
            return self._waiting.pop(request.unique, None) is not None

    def _interrupt(self, unique: int) -> None:
        with self._lock:
            request = self._waiting.get(unique)
            if request is None:
                self._early.append(unique)
                return
        if _may_leave(request) and self._claim(request):
            self._answer(request, ops.Failure(errno.EINTR))

    def _tell_change(self, request: ops.Request) -> None:
        """Have the kernel look again at names that changed when nobody waited for it any more."""
        if isinstance(request, (*INTERRUPTIBLE, *COMMITTING)):
            return

        def tell() -> None:
            try:
                for nodeid, name in _names(request):
                    self._transport.notify_entry(nodeid, name)
                    self._transport.notify_inode(nodeid, -1, 0)
                self._transport.notify_inode(request.nodeid, -1, 0)
                if (changed := _content(request)) is not None:
                    self._transport.notify_inode(changed, 0, 0)
            except OSError as error:
                log.warning('the kernel could not be told of a change: %s', error.strerror)

        try:
            # It waits for the kernel's lock of a directory, which a request may hold that waits for this worker.
            threading.Thread(target=tell, name='tell', daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            log.warning('the kernel is not told of a change: %s', error)

    def _answer(self, request: ops.Request, reply: ops.Reply) -> None:
        if not self._transport.answer(request, reply):
            self._take_back(request, reply)

    def _take_back(self, request: ops.Request, reply: ops.Reply) -> None:
        try:
            self._filesystem.take_back(reply)
        except WouldBlock:
            self._start(request, lambda: self._take_back(request, reply))
        except Exception as error:  # noqa: BLE001 - nobody waits for this reply any more; what it opened is closed
            self._failure(request, error)

    @staticmethod
    def _failure(request: ops.Request, error: Exception) -> ops.Failure:
        number = errno_of(error)
        if number is None:
            log.error('%s failed in a way that nobody foresaw', type(request).__name__, exc_info=error)
            return ops.Failure(errno.EIO)
        if number == errno.ENOSYS:
            # The kernel takes it for the answer of all mounts, and never asks for such a thing again.
            number = errno.EOPNOTSUPP
        if number in {errno.EIO, errno.ETIMEDOUT} or isinstance(request, COMMITTING):
            log.warning('%s: %s', type(request).__name__, error)
        return ops.Failure(number)


def _only_reads(request: ops.Request) -> bool:
    """Whether it is an open that changes nothing, which is tried first too."""
    return isinstance(request, ops.Open) and not request.flags & (os.O_ACCMODE | os.O_TRUNC)


def _names(request: ops.Request) -> list[tuple[int, str]]:
    """The names that a request changes, by their directories."""
    if isinstance(request, ops.Rename):
        return [(request.nodeid, request.name), (request.new_parent, request.new_name)]
    if isinstance(request, ops.Create | ops.Mkdir | ops.Mknod | ops.Symlink | ops.Link | ops.Unlink | ops.Rmdir):
        return [(request.nodeid, request.name)]
    return []


def _content(request: ops.Request) -> int | None:
    """The inode of which a request changes bytes that the kernel may have in its pages."""
    if isinstance(request, ops.CopyFileRange):
        return request.out_nodeid
    return request.nodeid if isinstance(request, ops.Fallocate) else None


def _may_leave(request: ops.Request) -> bool:
    """Whether somebody whom a signal has reached is to go at once: the result is dropped, or nobody will ask for it."""
    return isinstance(request, INTERRUPTIBLE) or _is_ending(request.pid)


def _is_ending(pid: int) -> bool:
    """Whether a signal that means so waits for a thread. False where nobody can say (proc(5))."""
    try:
        status = _read_proc(pid, 'status')
    except OSError:
        return False
    masks = dict(line.split(b':\t') for line in status.splitlines() if line.startswith((b'Sig', b'ShdPnd')))
    waiting = int(masks[b'SigPnd'], 16) | int(masks[b'ShdPnd'], 16)
    return bool(waiting & ENDING & ~int(masks[b'SigBlk'], 16))


def _was_killed(pid: int) -> bool:
    """Whether a thread is that of a program which ends by a signal. False where nobody can say (proc(5))."""
    try:
        # A program that ends gives back its memory first. One that executes another has it while files are closed, and
        # until that has ended nobody can read its stat: the kernel would wait for our answer, and we for the kernel.
        if b'\nVmSize:' in _read_proc(pid, 'status'):
            return False
        status = _read_proc(pid, 'stat')
    except OSError:
        return False
    fields = status.rpartition(b')')[2].split()  # from the third on, the state
    flags, exit_code = int(fields[9 - 3]), int(fields[52 - 3])
    return bool(flags & PF_EXITING and exit_code & 0x7F)


def _read_proc(pid: int, name: str) -> bytes:
    """A file of a thread in /proc, of a few lines; in three calls of the kernel, as it is asked at each close."""
    descriptor = os.open(f'/proc/{pid}/{name}', os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 16384)
    finally:
        os.close(descriptor)
