"""Where a local folder ends and something else is mounted: what kind of file system a device number belongs to.

Reads the kernel's table of mounts and never looks at what is mounted. Threads: safe, without state.
"""

from genro_storage.mountinfo import MountInfo, mounts

#: File systems whose attributes the kernel may hold for longer than they are true.
_NETWORK = frozenset({'nfs', 'nfs4', 'cifs', 'smb3', 'ceph', '9p', 'afs', 'lustre', 'glusterfs', 'ocfs2', 'gfs2'})


def mount_of_device(device: tuple[int, int]) -> MountInfo | None:
    """The first mount of a device (major, minor); None for what is in no table, as subvolumes of btrfs."""
    name = f'{device[0]}:{device[1]}'
    return next((mount for mount in mounts() if mount.device == name), None)


def is_ours(mount: MountInfo | None) -> bool:
    """Whether genro-storage is mounted there, by this process or another."""
    return mount is not None and mount.is_ours


def is_network(mount: MountInfo | None) -> bool:
    """Whether what the kernel holds of it may be old."""
    return mount is not None and (mount.fstype in _NETWORK or mount.is_fuse)
