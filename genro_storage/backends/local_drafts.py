"""A draft: a file in a directory that nobody sees until it is published under a name, wholly and durably.

Owns the unnamed file (O_TMPFILE; where there is none, a hidden one named ``.genro-…``), its permissions and the two
ways to publish it. Does not resolve paths and does not translate OSError.

Threads: a draft belongs to one thread.
"""

import errno
import os
import secrets
import stat
from contextlib import suppress

from genro_storage.backends.base import Source
from genro_storage.backends.copying import copy_source
from genro_storage.backends.local_paths import sync_directory

# An unnamed file gets its name through its entry here (linkat(2)).
_DESCRIPTORS = '/proc/self/fd'

# open(2): what file systems and kernels without O_TMPFILE answer.
_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})

# link(2): what file systems without hard links answer.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Draft:
    """A file that is being written; ``replaced`` is what it will replace, whose mode and owner it takes over."""

    def __init__(self, directory: int, replaced: os.stat_result | None) -> None:
        self._directory = directory
        self._name: str | None = None
        # 0666 less the umask, which the kernel applies, as for every new file. What replaces a private file is
        # private from the start.
        self._descriptor = self._open(0o600 if replaced else 0o666)
        self._replaced = replaced

    def fill(self, source: Source) -> None:
        """Write all of a source and make it durable."""
        copy_source(source, self._descriptor)
        if self._replaced:
            self._take_over(self._replaced)
        os.fsync(self._descriptor)

    def publish_new(self, name: str) -> os.stat_result:
        """Appear under a name that nothing has; its status. Raises FileExistsError."""
        try:
            self._link(name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Without links the name is taken first, and empty for a moment, so that only one of two can have it.
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self._directory))
            return self.publish_over(name)
        return self._published()

    def publish_over(self, name: str) -> os.stat_result:
        """Appear under a name in place of whatever has it; its status."""
        if self._name is None:
            hidden = _hidden_name()
            self._link(hidden)
            self._name = hidden
        os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._name = None
        return self._published()

    def close(self) -> None:
        """Drop what was not published."""
        os.close(self._descriptor)
        if self._name is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._directory)

    def _open(self, mode: int) -> int:
        if hasattr(os, 'O_TMPFILE') and os.path.isdir(_DESCRIPTORS):
            try:
                return os.open('.', os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=self._directory)
            except OSError as error:
                if error.errno not in _NO_UNNAMED:
                    raise
        self._name = _hidden_name()
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._name, flags, mode, dir_fd=self._directory)

    def _take_over(self, replaced: os.stat_result) -> None:
        own = os.fstat(self._descriptor)
        if (own.st_uid, own.st_gid) != (replaced.st_uid, replaced.st_gid):
            # Only root gives files away; for others the new content has a new owner, as with every editor that
            # saves by renaming.
            with suppress(PermissionError):
                os.fchown(self._descriptor, replaced.st_uid, replaced.st_gid)
        # After chown, which drops bits. Without set-id, which a write by another user would drop too.
        os.fchmod(self._descriptor, stat.S_IMODE(replaced.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))

    def _link(self, name: str) -> None:
        if self._name is not None:
            os.link(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory, follow_symlinks=False)
        else:
            os.link(f'{_DESCRIPTORS}/{self._descriptor}', name, dst_dir_fd=self._directory, follow_symlinks=True)

    def _published(self) -> os.stat_result:
        sync_directory(self._directory)
        return os.fstat(self._descriptor)


def _hidden_name() -> str:
    return f'.genro-{secrets.token_hex(8)}'
