"""A file system of one directory with one file, served by DevFuseTransport: what tests/mount/test_transport.py mounts.

Run as: tiny_server.py MOUNTPOINT [OPTIONS]. Prints 'ready' when it serves and 'ended' when serve() has returned.
Reads commands from its standard input: 'content TEXT' replaces the file's content without telling the kernel, 'tell'
has the kernel drop what it cached of it, 'appear NAME' adds a file, 'tell NAME' drops that name, 'close' stops serving.
"""
# ruff: noqa: T201 - a program that prints

import errno
import stat
import sys
import threading
from collections.abc import Callable

from fusefs import ops
from fusefs.transports.devfuse.channel import DevFuseTransport
from fusefs.transports.devfuse.mounting import MountError, mount
from fusefs.transports.options import parse_options

FILE = 2
TTL_S = 3600.0


class TinyFileSystem:
    """'file' has content that can be read, replaced and written; other names are links to the same inode.

    Some names are traps: 'slow' is only answered when the caller is interrupted, 'surprise' raises in dispatch, and
    the reply for 'impossible' does not fit the protocol.
    """

    def __init__(self, transport: DevFuseTransport) -> None:
        self.transport = transport
        self.content = bytearray(b'hello')
        self.names = ['file']
        self.mtime_ns = 1_500_000_000_123_456_789
        self.held: dict[int, ops.Request] = {}
        self.handlers: dict[type, Callable[..., ops.Reply]] = {
            ops.Lookup: self.lookup,
            ops.Getattr: lambda request: ops.AttributesReply(self.attributes(request.nodeid), TTL_S),
            ops.Setattr: self.setattr,
            ops.Open: lambda request: ops.Opened(7, keep_cache=True),
            ops.Opendir: lambda request: ops.Opened(8),
            ops.Read: lambda request: bytes(self.content[request.offset : request.offset + request.size_bytes]),
            ops.Write: self.write,
            ops.Readdir: self.readdir,
            ops.Readlink: lambda request: ops.Failure(errno.EINVAL),
            ops.Flush: lambda request: None,
            ops.Fsync: lambda request: None,
            ops.Release: lambda request: None,
            ops.Statfs: lambda request: ops.StatfsReply(1000, 500, 400, 10, 5),
            ops.Getxattr: self.getxattr,
            ops.Unlink: self.unlink,
        }

    def dispatch(self, request: ops.Request) -> None:
        if isinstance(request, ops.Forget):
            return
        if isinstance(request, ops.Interrupt):
            if held := self.held.pop(request.target, None):
                self.transport.answer(held, ops.Failure(errno.EINTR))
            return
        if isinstance(request, ops.Lookup) and request.name == 'slow':
            self.held[request.unique] = request
            return
        handler = self.handlers.get(type(request))
        self.transport.answer(request, handler(request) if handler else ops.Failure(errno.ENOTSUP))

    def attributes(self, nodeid: int) -> ops.Attributes:
        if nodeid == ops.ROOT_NODEID:
            return ops.Attributes(ino=1, mode=stat.S_IFDIR | 0o755, nlink=2)
        size = len(self.content)
        times = (self.mtime_ns, self.mtime_ns, self.mtime_ns)
        return ops.Attributes(FILE, stat.S_IFREG | 0o644, size, (size + 511) // 512, *times)

    def entry(self) -> ops.EntryReply:
        return ops.EntryReply(FILE, self.attributes(FILE), TTL_S, TTL_S)

    def lookup(self, request: ops.Lookup) -> ops.Reply:
        if request.name == 'impossible':
            return ops.EntryReply(-1, None, 0, 0)
        if request.name == 'surprise':
            raise RuntimeError('a bug in the file system')
        return self.entry() if request.name in self.names else ops.EntryReply(0, None, TTL_S, 0)

    def setattr(self, request: ops.Setattr) -> ops.Reply:
        if request.size_bytes is not None:
            self.content[:] = self.content[: request.size_bytes].ljust(request.size_bytes, b'\0')
        if request.mtime_ns is not None:
            self.mtime_ns = request.mtime_ns
        return ops.AttributesReply(self.attributes(request.nodeid), TTL_S)

    def write(self, request: ops.Write) -> ops.Reply:
        self.content[request.offset : request.offset + len(request.data)] = request.data
        return ops.Written(len(request.data))

    def readdir(self, request: ops.Readdir) -> ops.Reply:
        entries: list[ops.DirectoryEntry] = []
        room = request.size_bytes
        for offset, name in list(enumerate(['.', '..', *self.names]))[request.offset :]:
            room -= ops.direntry_bytes(len(name.encode()), plus=request.plus)
            if room < 0:
                break
            is_file = offset > 1
            entry = self.entry() if is_file and request.plus else None
            mode = stat.S_IFREG if is_file else stat.S_IFDIR
            entries.append(ops.DirectoryEntry(name, FILE if is_file else 1, mode, offset + 1, entry))
        return ops.Listing(entries)

    def getxattr(self, request: ops.Getxattr) -> ops.Reply:
        if request.name != 'user.colour':
            return ops.Failure(errno.ENODATA)
        return b'blue' if request.size_bytes else ops.XattrSize(4)

    def unlink(self, request: ops.Unlink) -> ops.Reply:
        self.names.remove(request.name)
        return None

    def obey(self, line: str) -> None:
        command, _, argument = line.strip().partition(' ')
        if command == 'content':
            self.content[:] = argument.encode()
        elif command == 'appear':
            self.names.append(argument)
        elif command == 'tell' and argument:
            self.transport.notify_entry(ops.ROOT_NODEID, argument)
        elif command == 'tell':
            self.transport.notify_inode(FILE, 0, 0)
            self.transport.notify_inode(4711, 0, 0)  # unknown to the kernel: no error
        elif command == 'close':
            self.transport.close()
            return
        print('done', flush=True)


def main() -> int:
    try:
        fd = mount(sys.argv[1], parse_options(sys.argv[2] if len(sys.argv) > 2 else ''))
    except MountError as error:
        print(error, flush=True)
        return 1
    transport = DevFuseTransport(fd)
    tiny = TinyFileSystem(transport)

    def obey_commands() -> None:
        for line in sys.stdin:
            tiny.obey(line)

    def ready() -> None:
        print('ready', flush=True)
        threading.Thread(target=obey_commands, daemon=True).start()

    transport.serve(tiny.dispatch, ready)
    print('ended', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
