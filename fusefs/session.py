"""A session: one running FUSE connection, from mount to the last drained request.

Owns the order of both ends: local folders are opened before anything is mounted above them; at the end nothing is given
back before all that was acknowledged is committed. While it runs, what changes in a volume otherwise than through the
mounted tree is told to the kernel. Threads: serve() belongs to one; stop() may come from any.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from fusefs.dispatch import Dispatcher
from fusefs.filesystem import FileSystem
from fusefs.invalidation import Invalidations
from fusefs.transports.choice import mount
from fusefs.transports.devfuse.mounting import unmount
from fusefs.transports.devfuse.readahead import raise_readahead
from fusefs.transports.options import MountError, MountOptions
from genro_storage.config import LocalDefinition
from genro_storage.manager import StorageManager
from genro_storage.mountinfo import mounts, resolve
from genro_storage.volume import Volume

log = logging.getLogger(__name__)

#: How long the end waits for requests under way: longer than any mount's timeout unless somebody configures so.
DRAIN_TIMEOUT_S = 300.0
#: How long a mount waits for what its first requests need to be loaded: obstore takes 0.03 s, the libraries of some
#: backends a second, which then goes on beside those requests.
PREPARE_TIMEOUT_S = 0.3


class Session:
    """All mounts of a manager, mounted on one directory."""

    def __init__(self, manager: StorageManager, mountpoint: Path, options: MountOptions) -> None:
        """Mount. Raises MountError."""
        self._manager = manager
        self.mountpoint = mountpoint
        _refuse_folders_inside(manager, mountpoint)
        # A daemon: it ends with the process, whatever it is at.
        preparing = threading.Thread(target=self._prepare, name='prepare', daemon=True)
        preparing.start()
        self._filesystem = FileSystem(manager)
        preparing.join(PREPARE_TIMEOUT_S)
        try:
            self._transport = mount(mountpoint, options)
        except BaseException:
            self._filesystem.close()
            raise
        self._dispatcher = Dispatcher(self._filesystem, self._transport)
        self._invalidations = [
            Invalidations(
                manager.volume(name), root, self._filesystem.inodes, self._transport, self._filesystem.is_changing
            )
            for name, root in self._filesystem.roots.items()
        ]
        self._ended = threading.Event()

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until somebody unmounts, then commit what is open and close everything.

        Raises what on_ready raises, and HandshakeError, MountError or OSError if serving fails; then nothing is left
        mounted.
        """

        def ready() -> None:
            raise_readahead(self.mountpoint)
            threading.Thread(target=self._adopt, name='adopt', daemon=True).start()
            on_ready()

        try:
            self._transport.serve(self._dispatcher, ready)
        except BaseException:
            self.stop()
            raise
        finally:
            self._ended.set()
            if not self._dispatcher.drain(DRAIN_TIMEOUT_S):
                log.error('%s: requests are still under way after %g s', self.mountpoint, DRAIN_TIMEOUT_S)
            for invalidations in self._invalidations:
                invalidations.close()
            self._filesystem.close()
            self._manager.close()

    def _prepare(self) -> None:
        self._for_each(lambda volume: volume.prepare(), 'could not be prepared')

    def _adopt(self) -> None:
        """Now, and not when somebody looks: what others have promised is to be uploaded."""
        self._for_each(lambda volume: volume.adopt(), 'what waits for it was not found')

    def _for_each(self, step: Callable[[Volume], None], problem: str) -> None:
        for name in self._manager.get_mount_names():
            try:
                step(self._manager.volume(name))
            except Exception:
                log.exception('%s: %s; its first request will meet that again', name, problem)

    def stop(self) -> None:
        """Unmount, which ends serve(); what programs have open there stays usable until they close it.

        Once serve() has ended it does nothing: what is mounted there by then is somebody else's.
        """
        for lazy in (False, True):
            if self._ended.is_set():
                return
            try:
                unmount(self.mountpoint, lazy=lazy)
            except MountError as error:
                log.warning('%s%s', error, '' if lazy else '; it is unmounted as soon as that is closed')
            else:
                return


def _refuse_folders_inside(manager: StorageManager, mountpoint: Path) -> None:
    """A local mount inside the mountpoint would be served through itself, and wait for itself for ever."""
    # Without looking at it: what is mounted there already may not answer.
    inside = str(resolve(mountpoint, mounts()))
    for name in manager.get_mount_names():
        definition = manager.volume(name).definition
        if isinstance(definition, LocalDefinition):
            folder = os.path.realpath(definition.path)
            if folder == inside or folder.startswith(inside + '/'):
                raise MountError(
                    f'mount {name!r}: its folder {definition.path} is inside the mountpoint; mount somewhere else'
                )
