"""A Transport over libfuse: its threads' calls on paths become requests, and replies what they return.

Owns the order of start and end. On Linux what it serves is mounted by devfuse.mounting, which says best what is wrong
with a machine or a mountpoint; elsewhere libfuse mounts. What libfuse cannot: see capabilities.
Threads: serve() starts one that libfuse's loop holds, which starts more, as many as there are calls under way.
"""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec

from fusefs import ops
from fusefs.transports.base import Capabilities, Dispatch
from fusefs.transports.devfuse import mounting
from fusefs.transports.libfuse.operations import Operations
from fusefs.transports.libfuse.places import Places
from fusefs.transports.libfuse.requests import Requests
from fusefs.transports.options import MountError, MountOptions

log = logging.getLogger(__name__)

_UNMOUNT_TIMEOUT_S = 30


def load() -> ModuleType:
    """The module that speaks with libfuse. Raises MountError where mfusepy or libfuse is missing."""
    try:
        from fusefs.transports.libfuse import library
    except ModuleNotFoundError as error:
        if error.name != 'mfusepy':
            raise
        raise MountError("transport=libfuse needs mfusepy: pip install 'genro-storage[mount]'") from error
    except (OSError, AttributeError) as error:  # none, or one that mfusepy does not know
        remedy = {'linux': 'install it (Debian package: libfuse3-3)', 'darwin': 'install macFUSE or FUSE-T'}
        raise MountError(
            f'transport=libfuse needs libfuse 3: {error}; {remedy.get(sys.platform, "install libfuse")}'
        ) from error
    if sys.platform == 'linux' and library.VERSION < (3, 3):
        raise MountError(
            f'transport=libfuse needs libfuse 3.3 or newer, not {library.VERSION[0]}.{library.VERSION[1]}; install it '
            '(Debian package: libfuse3-3) or unset FUSE_LIBRARY_PATH and FUSE_LIBRARY_NAME'
        )
    return library


class LibfuseTransport:
    """A Transport; mounting is part of making it."""

    capabilities = Capabilities(
        ttls=False,
        inodes=False,
        invalidation=False,
        atomic_replacement=False,
        unnamed_files=False,
        birth_times=False,
        direct_io_mappings=False,
    )

    def __init__(self, mountpoint: Path, options: MountOptions) -> None:
        """Mount. Raises MountError."""
        self._library = load()
        self._mountpoint = mountpoint
        if sys.platform == 'linux':
            self._served = f'/dev/fd/{mounting.mount(mountpoint, options)}'
            self._options: dict[str, str | bool | int] = {}
        else:
            self._served = str(mountpoint)
            self._options = library_options(options)
        self._places = Places()
        self._requests = Requests(self._library.caller, self._library.is_interrupted)
        self._operations = Operations(self._places, self._requests)
        self._begun = threading.Event()  # requests can be answered, or there never will be any
        self._failure: BaseException | None = None  # of the loop; written before its thread ends

    def serve(self, dispatch: Dispatch, on_ready: Callable[[], None]) -> None:
        """See Transport. Raises MountError if libfuse gives up."""
        self._requests.connect(dispatch)
        loop = threading.Thread(target=self._loop, name='libfuse')
        loop.start()
        self._begun.wait()
        try:
            if self._failure is None:
                missing = [name for name, has in msgspec.structs.asdict(self.capabilities).items() if not has]
                version = '.'.join(map(str, self._library.VERSION))
                log.info('%s: over libfuse %s, without %s', self._mountpoint, version, ', '.join(missing))
                on_ready()
        except BaseException:
            self.close()
            raise
        finally:
            loop.join()
            self._places.clear()
            self._requests.forget(self._places.take_gone())
        if self._failure is not None:
            raise MountError(f'{self._mountpoint}: libfuse ended: {self._failure}') from self._failure

    def answer(self, request: ops.Request, reply: ops.Reply) -> bool:
        """See Transport."""
        return self._requests.answer(request, reply)

    def notify_inode(self, nodeid: int, offset: int, size_bytes: int) -> None:
        """See Transport. Attributes are asked for each time, and pages dropped when a file is opened."""

    def notify_entry(self, parent: int, name: str) -> None:
        """See Transport."""
        self._places.expire(parent, name)

    def share(self) -> None:
        """See Transport. Nobody is asked alone."""

    def leave(self) -> bool:
        """See Transport. A thread of libfuse's waits for its own request only, but must go when that is interrupted."""
        return False

    @property
    def takes_files(self) -> bool:
        """See Transport."""
        return False

    def open_backing(self, descriptor: int) -> int | None:
        """See Transport."""
        return None

    def close_backing(self, backing_id: int) -> None:
        """See Transport."""

    def close(self) -> None:
        """See Transport. Unmounts: whatever is open there is served until it is closed."""
        if sys.platform == 'linux':
            try:
                mounting.unmount(self._mountpoint, lazy=True)
            except MountError as error:  # by somebody else before, most likely
                log.warning('%s', error)
        else:
            subprocess.run(['umount', str(self._mountpoint)], check=False, timeout=_UNMOUNT_TIMEOUT_S)  # noqa: S603, S607

    def _loop(self) -> None:
        try:
            self._library.run(self._operations, self._served, self._options, self._begun.set)
        except BaseException as error:  # noqa: BLE001 - raised by serve()
            self._failure = error
        finally:
            self._begun.set()


def library_options(options: MountOptions) -> dict[str, str | bool | int]:
    """What libfuse is to mount with."""
    return {
        'fsname': options.fsname.replace('\\', '\\\\').replace(',', '\\,'),
        'ro': options.read_only,
        'allow_other': options.allow_other,
        'default_permissions': options.allow_other or options.default_permissions,
        'noexec': options.noexec,
        'noatime': options.noatime,
        'nosuid': True,
        'nodev': True,
    }
