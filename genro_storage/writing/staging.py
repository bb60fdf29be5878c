"""A staged file: what is being written, on the local disk, until it is committed.

Owns the bytes and what they are based on. The base of a rewritten file is fetched when it is first needed, and not at
all when it is truncated first. Does not know about backends: the base comes as a Reader.

Threads: safe. ``lock`` may be held across I/O (docs/concurrency.md); plain attributes are read without it.
"""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genro_storage.backends.base import Expected
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageNoSpaceError,
    StoragePermissionError,
)
from genro_storage.reading.reader import Reader
from genro_storage.runtime import Clock, HandleLock

#: One step of fetching a base: long enough for the reader's window to open, small enough to keep memory flat.
_STEP_BYTES = 4 << 20


class StagedFile:
    """One file under change, shared by all its write handles. A Source for ``put``."""

    def __init__(
        self,
        path: str,
        directory: Path,
        clock: Clock,
        expected: Expected,
        base: Reader | None,
        mtime_ns: int | None = None,
    ) -> None:
        """``mtime_ns``: of the base, until something is written; now, where there is none."""
        self.path = path
        self.lock = HandleLock()
        self._directory = directory
        self._clock = clock
        self._descriptor, self._name = _create(directory)
        # Changed only under lock; read without.
        self.expected = expected
        self.size_bytes = base.size_bytes if base else 0
        self.mtime_ns = clock.time_ns() if mtime_ns is None else mtime_ns
        self.dirty = False
        self.failed = False  # the last commit failed: what is dirty was acknowledged, and lives only here
        self.keeps_mtime = False  # mtime_ns was set by somebody, and is not just when it was written
        self._base = base
        # Guarded by the lock of SharedFiles.
        self.handles = 0
        self.orphaned = False

    def fileno(self) -> int:
        """The descriptor of the staged bytes. See Source."""
        return self._descriptor

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes as they are now, written or not yet fetched. See Source."""
        if self._base is not None:  # otherwise without the lock, which a commit holds while others read
            with self.lock:
                self._fetch_base(self.size_bytes)
        # Bounded by the file, because the buffer is allocated before anything is read.
        return os.pread(self.fileno(), max(0, min(size_bytes, self.size_bytes - offset)), offset)

    def write(self, offset: int | None, data: bytes | memoryview) -> int:
        """Write at an offset, or with None at the end; returns how many bytes were taken."""
        with self.lock:
            self._fetch_base(self.size_bytes)
            with _staging_errors(self._directory):
                written = os.pwrite(self.fileno(), data, self.size_bytes if offset is None else offset)
                self.size_bytes = os.fstat(self.fileno()).st_size
            self._touch()
            return written

    def truncate(self, size_bytes: int) -> None:
        """Cut off, or lengthen with zeros."""
        with self.lock:
            self._fetch_base(size_bytes)
            with _staging_errors(self._directory):
                os.ftruncate(self.fileno(), size_bytes)
            self.size_bytes = size_bytes
            self._touch()

    def touch(self) -> None:
        """Have it committed even if nothing is written to it: a new, empty file."""
        with self.lock:
            self._touch()

    def set_mtime(self, mtime_ns: int) -> None:
        """Have the commit keep this modification time, unless something is written after it."""
        with self.lock:
            self.mtime_ns = mtime_ns
            self.keeps_mtime = True

    def rebase(self, expected: Expected, base: Reader) -> None:
        """What this is based on has another version, and perhaps another name, with the same content. Under lock."""
        if self._base is None:
            base.close()
        elif base.size_bytes == self._base.size_bytes:
            self._base.close()
            self._base = base
        else:
            base.close()
            return  # somebody was faster; the commit will say so
        self.expected = expected

    def prepare(self) -> None:
        """Make the staged bytes complete, for a commit. The caller holds the lock."""
        self._fetch_base(self.size_bytes)

    def keep(self) -> Path:
        """Give the staged bytes a name of their own on the local disk, for data that could not be committed."""
        path = self._directory / f'uncommitted-{self._clock.time_ns()}-{secrets.token_hex(4)}'
        with _staging_errors(self._directory):
            os.fsync(self._descriptor)
            if self._name:
                os.rename(self._name, path)
                self._name = None
            else:
                # With a directory's descriptor, so that it becomes linkat(2): link(2) never follows.
                directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    source = f'/proc/self/fd/{self._descriptor}'
                    os.link(source, path.name, dst_dir_fd=directory, follow_symlinks=True)
                finally:
                    os.close(directory)
        return path

    def close(self) -> None:
        """Drop the bytes. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        if self._name:
            self._name.unlink(missing_ok=True)
        if self._base:
            self._base.close()

    def _touch(self) -> None:
        self.mtime_ns = self._clock.time_ns()
        self.keeps_mtime = False
        self.dirty = True

    def _fetch_base(self, limit_bytes: int) -> None:
        """Bring the base, up to a limit, to the local disk and let go of it. May be started again after WouldBlock."""
        if self._base is None:
            return
        end = min(self._base.size_bytes, limit_bytes)
        offset = 0
        while offset < end:
            data = self._base.read(offset, min(_STEP_BYTES, end - offset))
            if not data:
                raise StorageConflictError(f'{self.path!r} ends at {offset}, not {end}: it has changed')
            with _staging_errors(self._directory):
                offset += os.pwrite(self.fileno(), data, offset)
        self._base.close()
        self._base = None


def private_directory(path: Path) -> None:
    """Make a directory that is this user's alone, mode 0700. Raises StoragePermissionError if it is somebody else's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise StoragePermissionError(f'{path} belongs to user {found.st_uid}; set cache: path: to a folder of your own')
    if found.st_mode & 0o077:
        path.chmod(0o700)


@contextmanager
def _staging_errors(directory: Path) -> Iterator[None]:
    """Say of an OSError that it was the local disk, not the backend, which failed."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageNoSpaceError(
                f'no room to stage what is written in {directory}: make some, or set cache: path: to another disk'
            ) from error
        failure = StorageIOError(f'cannot stage what is written in {directory}: {error}')
        failure.errno = error.errno or errno.EIO  # a program that exceeds the size of files should hear just that
        raise failure from error


def _create(directory: Path) -> tuple[int, Path | None]:
    """A new file of mode 0600 without a name, so that the end of the process is the end of it.

    Where the file system of the directory knows no unnamed files (NFS), its name is returned too.
    """
    with _staging_errors(directory):
        private_directory(directory)
        if hasattr(os, 'O_TMPFILE'):
            try:
                return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None
            except OSError as error:
                # open(2): the two answers of file systems and kernels without O_TMPFILE.
                if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
                    raise
        descriptor, name = tempfile.mkstemp(prefix='staged-', dir=directory)
        return descriptor, Path(name)
