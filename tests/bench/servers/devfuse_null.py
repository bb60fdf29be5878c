"""The null file system over fusefs.transports.devfuse, with the least dispatch that answers.

Run as: python -m tests.bench.servers.devfuse_null MOUNTPOINT TTL_S
"""

import errno
import sys
from collections.abc import Callable
from typing import Any

from fusefs import ops
from fusefs.transports.devfuse.channel import DevFuseTransport
from fusefs.transports.devfuse.mounting import mount
from fusefs.transports.options import MountOptions
from tests.bench.servers import null_tree as tree


def _attributes(nodeid: int, mode: int, size_bytes: int) -> ops.Attributes:
    times = (tree.TIME_NS, tree.TIME_NS, tree.TIME_NS)
    return ops.Attributes(nodeid, mode, size_bytes, (size_bytes + 511) // 512, *times)


TTL_S = float(sys.argv[2])


def _entry(nodeid: int, mode: int, size_bytes: int) -> ops.EntryReply:
    return ops.EntryReply(nodeid, _attributes(nodeid, mode, size_bytes), TTL_S, TTL_S)


DIRECT_NODEID, SEQUENTIAL_NODEID, DIRECTORY_NODEID, FIRST_SMALL = 2, 3, 4, 5

ROOT = {
    tree.DIRECT: _entry(DIRECT_NODEID, tree.FILE_MODE, tree.LARGE_BYTES),
    tree.SEQUENTIAL: _entry(SEQUENTIAL_NODEID, tree.FILE_MODE, tree.LARGE_BYTES),
    tree.DIRECTORY: _entry(DIRECTORY_NODEID, tree.DIRECTORY_MODE, 0),
}
MANY = {name: _entry(FIRST_SMALL + n, tree.FILE_MODE, tree.SMALL_BYTES) for n, name in enumerate(tree.NAMES)}
CHILDREN = {ops.ROOT_NODEID: ROOT, DIRECTORY_NODEID: MANY}
LISTINGS = {
    nodeid: [
        ops.DirectoryEntry(name, entry.nodeid, entry.attributes.mode, offset, entry)
        for offset, (name, entry) in enumerate(children.items(), 1)
    ]
    for nodeid, children in CHILDREN.items()
}
ATTRIBUTES = {
    entry.nodeid: ops.AttributesReply(entry.attributes, TTL_S)
    for entry in (_entry(ops.ROOT_NODEID, tree.DIRECTORY_MODE, 0), *ROOT.values(), *MANY.values())
}
ABSENT = ops.Failure(errno.ENOENT)
OPENED_DIRECT = ops.Opened(0, direct_io=True)
OPENED = ops.Opened(0)


def _readdir(request: ops.Readdir) -> ops.Listing:
    listing = LISTINGS[request.nodeid]
    room = request.size_bytes
    end = request.offset
    while end < len(listing):
        room -= ops.direntry_bytes(len(listing[end].name), plus=request.plus)
        if room < 0:
            break
        end += 1
    return ops.Listing(listing[request.offset : end])


HANDLERS: dict[type, Callable[[Any], ops.Reply]] = {
    ops.Lookup: lambda request: CHILDREN[request.nodeid].get(request.name, ABSENT),
    ops.Getattr: lambda request: ATTRIBUTES[request.nodeid],
    ops.Open: lambda request: OPENED_DIRECT if request.nodeid == DIRECT_NODEID else OPENED,
    ops.Opendir: lambda request: OPENED,
    ops.Read: lambda request: tree.zeros(request.size_bytes),
    ops.Readdir: _readdir,
    ops.Release: lambda request: None,
    ops.Flush: lambda request: None,
}


def main() -> None:
    fd = mount(sys.argv[1], MountOptions(fsname='null-devfuse'))
    transport = DevFuseTransport(fd)
    answer = transport.answer
    unsupported = ops.Failure(errno.ENOSYS)

    def dispatch(request: ops.Request) -> None:
        handler = HANDLERS.get(type(request))
        if handler is not None:
            answer(request, handler(request))
        elif not isinstance(request, ops.Forget | ops.Interrupt):
            answer(request, unsupported)

    transport.serve(dispatch, lambda: None)


if __name__ == '__main__':
    main()
