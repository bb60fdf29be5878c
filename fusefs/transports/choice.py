"""Which transport: by the mount option, else by the system.

Owns that choice alone; a transport that is not chosen is not imported, and what it needs may be missing.
"""

import sys
from pathlib import Path

from fusefs.transports.base import Transport
from fusefs.transports.options import MountError, MountOptions, TransportKind


def mount(mountpoint: Path, options: MountOptions) -> Transport:
    """Mount on an empty directory; what is to serve it. Raises MountError."""
    kind = options.transport
    if kind is TransportKind.AUTO:
        kind = TransportKind.DEVFUSE if sys.platform == 'linux' else TransportKind.LIBFUSE
    if kind is TransportKind.LIBFUSE:
        from fusefs.transports.libfuse.transport import LibfuseTransport

        return LibfuseTransport(mountpoint, options)
    if sys.platform != 'linux':
        raise MountError('transport=devfuse speaks the protocol of Linux; use transport=libfuse here')
    from fusefs.transports.devfuse import mounting
    from fusefs.transports.devfuse.channel import DevFuseTransport

    return DevFuseTransport(mounting.mount(mountpoint, options))
