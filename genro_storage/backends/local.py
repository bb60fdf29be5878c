"""A folder of this machine as a Backend, for the Python API.

Owns what the operations mean on a local disk; the walk that no link leads out of is local_paths, files that appear
wholly or not at all are local_drafts. The mounted tree has its own way to local files, by descriptors.

Versions are weak: (mtime, size) with inode and ctime beside them, which a replaced file always changes and a rewritten
one unless it happens within one tick of the kernel's clock (up to 4 ms). A file that another process rewrites in place
is seen in between.

Threads: safe; there is no state, the kernel does the locking.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Capabilities, Expected, Source, SourceGoneError
from genro_storage.backends.local_drafts import Draft
from genro_storage.backends.local_paths import LISTING, Place, locate
from genro_storage.backends.oserrors import refuse_removing_root, refuse_rename, translating
from genro_storage.entry import Entry, Kind, Usage, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StoragePermissionError,
    StorageUnsupportedError,
)

_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_EFFECTIVE = os.access in os.supports_effective_ids


class LocalBackend:
    """A folder; symbolic links are followed as long as they stay inside it. It may appear later than the backend."""

    def __init__(self, root: str | Path) -> None:
        self._root = os.path.abspath(root)
        self._destination = f'local:{os.path.realpath(root)}'

    def __repr__(self) -> str:
        return f'LocalBackend({self._root!r})'

    @property
    def capabilities(self) -> Capabilities:
        """See Backend. Exclusive creation is atomic; a version is compared right before the rename."""
        return Capabilities(instant=True, real_directories=True, atomic_rename=True, stores_mtime=True)

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._destination

    def stat(self, path: str) -> Entry:
        """See Backend. A link to nowhere is not found."""
        with self._locate(path) as place:
            return _entry(paths.basename(path), _status(place))

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend. A link that leads out, to nowhere or in a circle is Kind.OTHER."""
        with self._locate(path) as place:
            if not stat.S_ISDIR(_status(place).st_mode):
                raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')
            directory = os.open(place.name, LISTING, dir_fd=place.directory)
            try:
                return list(self._entries(path, directory))
            finally:
                os.close(directory)

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend. Raises StorageUnsupportedError for FIFOs and their like, and never waits for them."""
        with self._locate(path) as place:
            if version is not None and place.status is None:
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened')
            descriptor = self._open_file(path, place)
            try:
                data = _read(descriptor, offset, size_bytes)
                # Compared after reading: a change before or during it shows either way.
                if version is not None and _version(os.fstat(descriptor)) != version:
                    raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')
                return data
            finally:
                os.close(descriptor)

    def open_descriptor(self, path: str) -> int:
        """See OpensDescriptors. A file that grows can be read on, and one that is replaced as it was."""
        with self._locate(path) as place:
            return self._open_file(path, place)

    def put(
        self,
        path: str,
        source: Source,
        *,
        expected: Expected = None,
        placed: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. A link at the path is written through; mode and, where allowed, owner of a file stay."""
        with self._locate(path, follow=expected is not ABSENT, make_parents=True) as place:
            self._refuse_target(path, place, expected)
            draft = Draft(place.directory, place.status)
            try:
                draft.fill(source)
                if expected is ABSENT:
                    status = draft.publish_new(place.name)
                else:
                    self._check_version(path, place, expected)
                    status = draft.publish_over(place.name)
            finally:
                draft.close()
            return _entry(paths.basename(path), status)

    def remove_file(self, path: str, *, seen: bool = False, beside: bool | None = None) -> None:
        """See Backend. Of a link, the link. Looks in any case: that is no request."""
        with self._locate(path, follow=False) as place:
            if stat.S_ISDIR(_status(place).st_mode):
                raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
            os.unlink(place.name, dir_fd=place.directory)

    def make_directory(self, path: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """See Backend."""
        with self._locate(path, follow=False) as place:
            os.mkdir(place.name, dir_fd=place.directory)

    def remove_directory(self, path: str, *, beside: bool | None = None) -> None:
        """See Backend. A link to a directory is not one."""
        refuse_removing_root(path, self._shown(path))
        with self._locate(path, follow=False) as place, _exists_means_not_empty():
            os.rmdir(place.name, dir_fd=place.directory)

    def rename(self, source: str, target: str) -> None:
        """See Backend. Raises StorageUnsupportedError (errno EXDEV) between file systems mounted inside the folder."""
        refuse_rename(source, target, self._shown(source))
        with (
            self._locate(source, follow=False) as old,
            self._locate(target, follow=False) as new,
            _exists_means_not_empty(),
        ):
            os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)

    def copy(
        self,
        source: str,
        target: str,
        *,
        version: Version | None = None,
        expected: Expected = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """See Backend. The kernel copies, and shares blocks where the file system can."""
        with self._locate(source) as place:
            if version is not None and place.status is None:
                raise SourceGoneError(f'{self._shown(source)} is gone since it was opened')
            descriptor = self._open_file(source, place)
            try:
                if version is not None and _version(os.fstat(descriptor)) != version:
                    raise SourceGoneError(f'{self._shown(source)} has changed since it was opened')
                return self.put(target, _Copied(descriptor), expected=expected)
            finally:
                os.close(descriptor)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend."""
        with self._locate(path) as place:
            times = (_status(place).st_atime_ns, mtime_ns)
            os.utime(place.name, ns=times, dir_fd=place.directory, follow_symlinks=False)

    def usage(self) -> Usage:
        """See Backend."""
        with self._locate('') as place:
            room = os.fstatvfs(place.directory)
        return Usage(room.f_blocks * room.f_frsize, room.f_bfree * room.f_frsize, room.f_bavail * room.f_frsize)

    def close(self) -> None:
        """See Backend. Nothing is held between calls."""

    @contextmanager
    def _locate(self, path: str, *, follow: bool = True, make_parents: bool = False) -> Iterator[Place]:
        with (
            translating(lambda: self._shown(path)),
            locate(self._root, path, follow=follow, make_parents=make_parents) as place,
        ):
            yield place

    def _entries(self, path: str, directory: int) -> Iterator[Entry]:
        with os.scandir(directory) as found:
            for item in found:
                try:
                    status = self._target(path, item.name) if item.is_symlink() else item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed since the directory was read
                yield _entry(item.name, status)

    def _target(self, path: str, name: str) -> os.stat_result | None:
        try:
            with locate(self._root, paths.child(path, name), follow=True) as place:
                return place.status
        except (StorageError, OSError):
            return None  # whatever is wrong with it, the link itself is there; stat says what is wrong

    def _open_file(self, path: str, place: Place) -> int:
        mode = _status(place).st_mode
        if stat.S_ISDIR(mode):
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        if not stat.S_ISREG(mode):
            raise StorageUnsupportedError(f'{self._shown(path)} is neither a file nor a directory')
        return os.open(place.name, _READING, dir_fd=place.directory)

    def _refuse_target(self, path: str, place: Place, expected: Expected) -> None:
        if place.status is None:
            return
        if expected is ABSENT:
            raise StorageExistsError(f'{self._shown(path)} exists')
        if stat.S_ISDIR(place.status.st_mode):
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        if not stat.S_ISREG(place.status.st_mode):
            raise StorageUnsupportedError(f'{self._shown(path)} is neither a file nor a directory')
        # Renaming over it would need no permission on it; replacing what open(2) would refuse would surprise.
        if not os.access(place.name, os.W_OK, dir_fd=place.directory, effective_ids=_EFFECTIVE):
            raise StoragePermissionError(f'{self._shown(path)} may not be written by this user')

    def _check_version(self, path: str, place: Place, expected: Expected) -> None:
        if not isinstance(expected, Version):
            return
        try:
            status = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
        except FileNotFoundError as error:
            raise StorageConflictError(f'{self._shown(path)} is gone; a version of it was expected') from error
        if _version(status) != expected:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened')

    def _shown(self, path: str) -> str:
        return repr(os.path.join(self._root, path)) if path else repr(self._root)


class _Copied:
    """An open file as a Source."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size_bytes = os.fstat(descriptor).st_size

    def read(self, offset: int, size_bytes: int) -> bytes:
        return os.pread(self._descriptor, size_bytes, offset)

    def fileno(self) -> int:
        return self._descriptor


@contextmanager
def _exists_means_not_empty() -> Iterator[None]:
    # rmdir(2), rename(2): a directory with entries is ENOTEMPTY or EEXIST; XFS says the latter.
    try:
        yield
    except FileExistsError as error:
        raise StorageNotEmptyError(f'{error.filename2 or error.filename!r}: the directory is not empty') from error


def _status(place: Place) -> os.stat_result:
    if place.status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place.name)
    return place.status


def _read(descriptor: int, offset: int, size_bytes: int) -> bytes:
    # Bounded by the file, because the buffer is allocated before anything is read.
    wanted = min(size_bytes, max(0, os.fstat(descriptor).st_size - offset))
    data = os.pread(descriptor, wanted, offset) if wanted else b''
    while len(data) < wanted:
        more = os.pread(descriptor, wanted - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _entry(name: str, status: os.stat_result | None) -> Entry:
    if status is None:
        return Entry(name, Kind.OTHER)
    if stat.S_ISDIR(status.st_mode):
        return Entry(name, Kind.DIRECTORY, 0, status.st_mtime_ns)
    if stat.S_ISREG(status.st_mode):
        return Entry(name, Kind.FILE, status.st_size, status.st_mtime_ns, _version(status))
    return Entry(name, Kind.OTHER, 0, status.st_mtime_ns)


def _version(status: os.stat_result) -> Version:
    tag = f'{status.st_mtime_ns}-{status.st_size}-{status.st_ino}-{status.st_ctime_ns}'
    return Version(tag, strong=False)
