"""How far the kernel reads ahead in a mounted tree, which it lets root change after mounting.

Owns the number and the file in /sys. Never looks at what is mounted. Pure but for writing that file.
"""

import logging
from pathlib import Path

from genro_storage.mountinfo import mount_at, mounts, resolve

logger = logging.getLogger(__name__)

#: A sequential read of what the daemon has in memory, in pieces of 128 KiB: with the kernel's own 128 KiB the median
#: was 1.2 GB/s, with 1 MiB 1.8 to 2.4 and with 4 MiB 2.3 to 2.4; 2 GB took 1.4 s, 0.6 to 0.9 and 0.7 s of the daemon's
#: CPU time (two shared cores, kernel 6.18). So 1 MiB, a whole request: more gains little, and costs those who read on
#: for a bit only, from an object store above all.
READAHEAD_KIB = 1024

_BDI = '/sys/class/bdi/{device}/read_ahead_kb'


def raise_readahead(mountpoint: str | Path) -> bool:
    """Have the kernel read further ahead below a mountpoint; whether it does. Never raises: it is slower otherwise."""
    table = mounts()
    try:
        mounted = mount_at(resolve(mountpoint, table), table)
        if mounted is None or not mounted.is_fuse:
            return False
        Path(_BDI.format(device=mounted.device)).write_text(f'{READAHEAD_KIB}\n', encoding='ascii')
    except OSError as error:
        # A plain user, or a container in which /sys is read-only.
        logger.debug('%s: readahead stays as it is: %s', mountpoint, error)
        return False
    return True
