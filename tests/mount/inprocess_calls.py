"""System calls without a kernel: what it would ask of a FileSystem, sent through the dispatcher in this process.

InProcessCalls does what the kernel does: looks up each name of a path, sends the operation, and forgets what it looked
up, so that afterwards the inode table must be as it was. It leaves to the file system most of what the kernel would
check itself.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TypeVar

from fusefs import ops
from fusefs.dispatch import Dispatcher
from fusefs.filesystem import FileSystem
from fusefs.transports.inprocess import InProcessTransport
from tests.mount.calls import Room, Status

R = TypeVar('R')

LISTING_BYTES = 4096
END_TIMEOUT_S = 10


class Served:
    """A FileSystem behind its dispatcher, asked through an InProcessTransport."""

    def __init__(self, filesystem: FileSystem, transport: InProcessTransport, dispatcher: Dispatcher) -> None:
        self.filesystem = filesystem
        self.transport = transport
        self.dispatcher = dispatcher

    def ask(self, request: ops.Request, kind: type[R]) -> R:
        """Send a request; its reply, which must be of a kind. Raises OSError for a failure."""
        reply = self.transport.call(request)
        if isinstance(reply, ops.Failure):
            raise OSError(reply.errno, os.strerror(reply.errno))
        assert isinstance(reply, kind), reply
        return reply

    def tell(self, request: ops.Request) -> None:
        """Send a request whose reply has nothing in it."""
        self.ask(request, type(None))

    def forget(self, forgotten: list[tuple[int, int]]) -> None:
        """Forget, and wait until it is done: a forget has no reply."""
        if forgotten:
            self.transport.call(ops.Forget(*header(0), forgotten))
            self.ask(ops.Statfs(*header(ops.ROOT_NODEID)), ops.StatfsReply)


@contextmanager
def served(filesystem: FileSystem) -> Iterator[Served]:
    """Serve a file system from one thread, so that requests are answered in their order, until the block ends."""
    transport = InProcessTransport(threads=1)
    dispatcher = Dispatcher(filesystem, transport)
    ready = threading.Event()
    thread = threading.Thread(target=transport.serve, args=(dispatcher, ready.set))
    thread.start()
    assert ready.wait(END_TIMEOUT_S)
    try:
        yield Served(filesystem, transport, dispatcher)
    finally:
        transport.close()
        thread.join(END_TIMEOUT_S)
        assert not thread.is_alive()
        assert dispatcher.drain(END_TIMEOUT_S)
        filesystem.close()


def header(nodeid: int) -> tuple[int, int, int, int, int]:
    """unique, nodeid, uid, gid and pid of a request of this process."""
    return 0, nodeid, os.geteuid(), os.getegid(), os.getpid()


class _Opened(NamedTuple):
    nodeid: int
    fh: int
    walk: '_Walk'


class InProcessCalls:
    """What the kernel makes of system calls, as far as the cases need it."""

    def __init__(self, served: Served, directory: str) -> None:
        self.directory = directory
        self._served = served
        self._opened: dict[int, _Opened] = {}

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return self._again_if_stale(lambda: self._open(path, flags, mode))

    def _open(self, path: str, flags: int, mode: int) -> int:
        with self._walking(path) as (walk, parent, name):
            found = walk.find(parent, name)
            if found is None:
                if not flags & os.O_CREAT:
                    _fail(errno.ENOENT)
                created = self._ask(ops.Create(*header(parent), name, flags, 0o100000 | mode, 0), ops.Created)
                walk.count(created.entry)
                return self._add(walk, created.entry.nodeid, created.opened)
            if flags & os.O_CREAT and flags & os.O_EXCL:
                _fail(errno.EEXIST)
            request = ops.Open(*header(found.nodeid), flags & ~(os.O_CREAT | os.O_EXCL))
            return self._add(walk, found.nodeid, self._ask(request, ops.Opened))

    def close(self, fd: int) -> None:
        nodeid, fh, walk = self._opened.pop(fd)
        try:
            self._served.tell(ops.Flush(*header(nodeid), fh, 0))
        finally:
            self._served.tell(ops.Release(*header(nodeid), fh, False))
            walk.end()

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        reply = self._served.transport.call(
            ops.Read(*header(self._opened[fd][0]), self._opened[fd].fh, offset, size, 0)
        )
        if isinstance(reply, ops.Failure):
            _fail(reply.errno)
        return bytes(reply)  # type: ignore[arg-type]

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        request = ops.Write(*header(self._opened[fd].nodeid), self._opened[fd].fh, offset, data, 0, False)
        return self._ask(request, ops.Written).size_bytes

    def append(self, fd: int, data: bytes) -> int:
        return self.pwrite(fd, data, self.fstat(fd).size)

    def ftruncate(self, fd: int, size: int) -> None:
        self._setattr(self._opened[fd].nodeid, fh=self._opened[fd].fh, size_bytes=size)

    def truncate(self, path: str, size: int) -> None:
        self._again_if_stale(lambda: self._truncate(path, size))

    def _truncate(self, path: str, size: int) -> None:
        with self._existing(path) as nodeid:
            self._setattr(nodeid, size_bytes=size)

    def fsync(self, fd: int) -> None:
        self._served.tell(ops.Fsync(*header(self._opened[fd].nodeid), self._opened[fd].fh, False, False))

    def stat(self, path: str) -> Status:
        with self._existing(path) as nodeid:
            return self._getattr(nodeid)

    def fstat(self, fd: int) -> Status:
        return self._getattr(self._opened[fd].nodeid)

    def mkdir(self, path: str) -> None:
        with self._walking(path) as (walk, parent, name):
            walk.count(self._ask(ops.Mkdir(*header(parent), name, 0o777, 0), ops.EntryReply))

    def rmdir(self, path: str) -> None:
        with self._walking(path) as (_, parent, name):
            self._served.tell(ops.Rmdir(*header(parent), name))

    def unlink(self, path: str) -> None:
        with self._walking(path) as (_, parent, name):
            self._served.tell(ops.Unlink(*header(parent), name))

    def rename(self, path: str, target: str) -> None:
        with self._walking(path) as (walk, parent, name), self._walking(target) as (_, new_parent, new_name):
            walk.find(parent, name)
            self._served.tell(ops.Rename(*header(parent), name, new_parent, new_name, 0))

    def listdir(self, path: str = '') -> list[str]:
        names: list[str] = []
        with self._existing(path) as nodeid:
            fh = self._ask(ops.Opendir(*header(nodeid), 0), ops.Opened).fh
            try:
                offset, plus = 0, True
                while entries := self._readdir(nodeid, fh, offset, plus):
                    names += [entry.name for entry in entries if entry.name not in {'.', '..'}]
                    offset, plus = entries[-1].next_offset, not plus
            finally:
                self._served.tell(ops.Release(*header(nodeid), fh, True))
        return names

    def symlink(self, target: str, path: str) -> None:
        with self._walking(path) as (walk, parent, name):
            walk.count(self._ask(ops.Symlink(*header(parent), name, target), ops.EntryReply))

    def readlink(self, path: str) -> str:
        with self._existing(path) as nodeid:
            return os.fsdecode(self._ask(ops.Readlink(*header(nodeid)), bytes))

    def link(self, path: str, target: str) -> None:
        with self._existing(path) as source, self._walking(target) as (walk, parent, name):
            walk.count(self._ask(ops.Link(*header(parent), source, name), ops.EntryReply))

    def mkfifo(self, path: str) -> None:
        with self._walking(path) as (walk, parent, name):
            walk.count(self._ask(ops.Mknod(*header(parent), name, stat.S_IFIFO | 0o666, 0, 0), ops.EntryReply))

    def chmod(self, path: str, mode: int) -> None:
        with self._existing(path) as nodeid:
            self._setattr(nodeid, mode=mode)

    def utime(self, path: str, ns: tuple[int, int] | None) -> None:
        with self._existing(path) as nodeid:
            atime_ns, mtime_ns = ns or (ops.NOW, ops.NOW)
            self._setattr(nodeid, atime_ns=atime_ns, mtime_ns=mtime_ns)

    def statvfs(self) -> Room:
        with self._existing('') as nodeid:
            found = self._ask(ops.Statfs(*header(nodeid)), ops.StatfsReply)
        return Room(found.blocks, found.name_max)

    def getxattr(self, path: str, name: str) -> bytes:
        with self._existing(path) as nodeid:
            room = self._ask(ops.Getxattr(*header(nodeid), name, 0), ops.XattrSize).size_bytes
            return self._ask(ops.Getxattr(*header(nodeid), name, room), bytes)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        with self._existing(path) as nodeid:
            self._served.tell(ops.Setxattr(*header(nodeid), name, value, 0))

    def listxattr(self, path: str) -> list[str]:
        with self._existing(path) as nodeid:
            room = self._ask(ops.Listxattr(*header(nodeid), 0), ops.XattrSize).size_bytes
            listed = self._ask(ops.Listxattr(*header(nodeid), room), bytes) if room else b''
            return os.fsdecode(listed).split('\0')[:-1]

    def removexattr(self, path: str, name: str) -> None:
        with self._existing(path) as nodeid:
            self._served.tell(ops.Removexattr(*header(nodeid), name))

    # Inside

    def _ask(self, request: ops.Request, kind: type[R]) -> R:
        return self._served.ask(request, kind)

    def _getattr(self, nodeid: int) -> Status:
        return _of_attributes(self._ask(ops.Getattr(*header(nodeid), None), ops.AttributesReply).attributes)

    def _setattr(self, nodeid: int, **changes: Any) -> None:
        request = ops.Setattr(*header(nodeid), None, None, None, None, None, None, None, False)
        for name, value in changes.items():
            setattr(request, name, value)
        self._ask(request, ops.AttributesReply)

    def _readdir(self, nodeid: int, fh: int, offset: int, plus: bool) -> list[ops.DirectoryEntry]:
        request = ops.Readdir(*header(nodeid), fh, offset, LISTING_BYTES, plus)
        entries = self._ask(request, ops.Listing).entries
        self._served.forget([(entry.entry.nodeid, 1) for entry in entries if entry.entry is not None])
        return entries

    def _add(self, walk: '_Walk', nodeid: int, opened: ops.Opened) -> int:
        # An open file holds its inode and, through the names above it, all directories down to it.
        self._opened[opened.fh] = _Opened(nodeid, opened.fh, walk.split())
        return opened.fh

    @staticmethod
    def _again_if_stale(call: Callable[[], R]) -> R:
        """Once more after ESTALE, with all names looked up again, as the kernel does."""
        try:
            return call()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return call()

    @contextmanager
    def _existing(self, path: str) -> Iterator[int]:
        with self._walking(path) as (walk, parent, name):
            if not name:
                yield parent
                return
            found = walk.find(parent, name)
            if found is None:
                _fail(errno.ENOENT)
            yield found.nodeid

    @contextmanager
    def _walking(self, path: str) -> Iterator[tuple['_Walk', int, str]]:
        """Walk to the directory of a path: what has been looked up, its nodeid, and the last name."""
        walk = _Walk(self._served)
        try:
            directory = '/'.join(part for part in (self.directory, path) if part)
            *above, name = directory.split('/') if path else [*directory.split('/'), '']
            nodeid = ops.ROOT_NODEID
            for part in above:
                found = walk.find(nodeid, part)
                if found is None:
                    _fail(errno.ENOENT)
                if found.attributes is not None and not stat.S_ISDIR(found.attributes.mode):
                    _fail(errno.ENOTDIR)
                nodeid = found.nodeid
            yield walk, nodeid, name
        finally:
            walk.end()


class _Walk:
    """The lookups of one system call, to be forgotten at its end."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._counted: list[int] = []

    def find(self, parent: int, name: str) -> ops.EntryReply | None:
        try:
            entry = self._served.ask(ops.Lookup(*header(parent), name), ops.EntryReply)
        except FileNotFoundError:
            return None
        if not entry.nodeid:
            return None
        self.count(entry)
        return entry

    def count(self, entry: ops.EntryReply) -> None:
        self._counted.append(entry.nodeid)

    def split(self) -> '_Walk':
        """Leave what has been looked up to another walk, that ends later."""
        other = _Walk(self._served)
        other._counted, self._counted = self._counted, []
        return other

    def end(self) -> None:
        self._served.forget([(nodeid, 1) for nodeid in self._counted])


def _of_attributes(attributes: ops.Attributes) -> Status:
    return Status(attributes.mode, attributes.size_bytes, attributes.nlink, attributes.ino, attributes.mtime_ns)


def _fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))
