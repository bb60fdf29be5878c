"""A node: one path in one mount, with an interface like pathlib's.

Owns the public semantics of API users; the volume does the work. A node holds no open resources and asks anew each
time, so that it is always as fresh as the mount's TTL. Threads: safe, but for move(), which changes the node itself.
"""

from pathlib import PurePosixPath
from typing import IO, Any, Literal, Protocol, overload

from genro_storage import copying, paths
from genro_storage.copying import Place
from genro_storage.entry import Entry
from genro_storage.errors import (
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
)
from genro_storage.files import MODES, open_reader, open_writer
from genro_storage.volume import Volume

BinaryMode = Literal['rb', 'wb', 'ab', 'xb', 'r+b', 'rb+']
TextMode = Literal['r', 'w', 'a', 'x', 'r+']


class Mounts(Protocol):
    """What a node needs of its manager."""

    def volume(self, name: str) -> Volume:
        """The live mount of a name. Raises UnknownMountError."""

    def node(self, path: str, *parts: str) -> 'StorageNode':
        """A node by its full path."""


class StorageNode:
    """A file, a directory, or a place where one could be. Made by StorageManager.node()."""

    __slots__ = ('_manager', '_mount', '_path')

    def __init__(self, manager: Mounts, mount: str, path: str) -> None:
        self._manager = manager
        self._mount = mount
        self._path = path

    # Names

    @property
    def fullpath(self) -> str:
        """``'mount:path'``."""
        return f'{self._mount}:{self._path}'

    @property
    def path(self) -> str:
        """The path inside the mount, ``''`` for its root."""
        return self._path

    @property
    def mount(self) -> str:
        """The name of the mount."""
        return self._mount

    @property
    def basename(self) -> str:
        """The last name of the path, ``''`` for the root."""
        return paths.basename(self._path)

    @property
    def stem(self) -> str:
        """The basename without its suffix, as pathlib has it."""
        return PurePosixPath(self._path).stem

    @property
    def suffix(self) -> str:
        """The last extension with its dot, as pathlib has it: ``'.gz'`` of ``'a.tar.gz'``."""
        return PurePosixPath(self._path).suffix

    @property
    def parent(self) -> 'StorageNode':
        """The node of the directory; the root's parent is the root."""
        return StorageNode(self._manager, self._mount, paths.parent(self._path))

    def child(self, name: str) -> 'StorageNode':
        """The node of an entry; slashes around the name go. Raises StoragePathError (a ValueError) for ``..``."""
        return StorageNode(self._manager, self._mount, paths.join(self._path, name))

    def __truediv__(self, name: str) -> 'StorageNode':
        return self.child(name)

    def __repr__(self) -> str:
        return f'StorageNode({self.fullpath!r})'

    def __str__(self) -> str:
        return self.fullpath

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StorageNode):
            return NotImplemented
        return self._manager is other._manager and self._mount == other._mount and self._path == other._path

    def __hash__(self) -> int:
        return hash((id(self._manager), self._mount, self._path))

    def __reduce__(self) -> tuple[Any, ...]:
        return StorageNode, (self._manager, self._mount, self._path)

    # Looking

    @property
    def exists(self) -> bool:
        """Whether anything is there. Raises where the backend cannot tell."""
        return self._find() is not None

    @property
    def isfile(self) -> bool:
        """Whether a file is there."""
        entry = self._find()
        return entry is not None and entry.is_file

    @property
    def isdir(self) -> bool:
        """Whether a directory is there."""
        entry = self._find()
        return entry is not None and entry.is_directory

    @property
    def size(self) -> int:
        """The length of the file in bytes. Raises StorageNotFoundError, StorageIsADirectoryError."""
        entry = self._volume.stat(self._path)
        if entry.is_directory:
            shown = paths.shown(self._mount, self._path)
            raise StorageIsADirectoryError(f'{shown} is a directory: only files have a size')
        return entry.size_bytes

    @property
    def mtime(self) -> float:
        """When it was last modified, in seconds since 1970. Raises StorageNotFoundError."""
        # As the os module does: the nanoseconds since 1970 themselves are more than a float can hold.
        seconds, nanoseconds = divmod(self._volume.stat(self._path).modified_ns, 1_000_000_000)
        return seconds + nanoseconds * 1e-9

    def children(self) -> list['StorageNode']:
        """The entries of a directory, sorted by name. Raises StorageNotFoundError, StorageNotADirectoryError."""
        entry = self._find()
        if entry is None:
            raise StorageNotFoundError(f'{paths.shown(self._mount, self._path)}: nothing is there')
        if not entry.is_directory:
            raise StorageNotADirectoryError(f'{paths.shown(self._mount, self._path)} is not a directory')
        names = sorted(entry.name for entry in self._volume.list_directory(self._path)[0])
        return [StorageNode(self._manager, self._mount, paths.child(self._path, name)) for name in names]

    # Reading and writing

    @overload
    def open(self, mode: BinaryMode = 'rb', encoding: str = 'utf-8') -> IO[bytes]: ...
    @overload
    def open(self, mode: TextMode, encoding: str = 'utf-8') -> IO[str]: ...
    @overload
    def open(self, mode: str, encoding: str = 'utf-8') -> IO[Any]: ...
    def open(self, mode: str = 'rb', encoding: str = 'utf-8') -> IO[Any]:
        """Open the file: r, w, a, x or r+, with b for bytes; use it in ``with``.

        What is written becomes visible as a whole at close, and not at all if an exception ends the ``with``. Text
        keeps its newlines. Raises ValueError (mode), StorageNotFoundError (r, r+), StorageExistsError (x),
        StorageIsADirectoryError, StorageReadOnlyError; at close what the backend raises, and StorageConflictError if
        somebody else changed a file that was opened with a or r+.
        """
        if mode not in MODES:
            raise ValueError(f'mode {mode!r}: expected one of {", ".join(MODES)}')
        if mode in {'r', 'rb'}:
            return open_reader(self._volume.open_latest(self._path), mode, encoding)
        if 'w' in mode or 'x' in mode:
            writer = self._volume.replace(self._path, exclusive='x' in mode)
        else:
            writer = self._volume.change(self._path, create='a' in mode)
        return open_writer(writer, mode, encoding)

    def read_bytes(self) -> bytes:
        """The whole content. Raises StorageNotFoundError, StorageIsADirectoryError."""
        with self.open('rb') as file:
            return file.read()

    def read_text(self, encoding: str = 'utf-8') -> str:
        """The whole content as text, newlines as they are. Raises as read_bytes, and UnicodeDecodeError."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> None:
        """Make this the content; parents appear as needed. Others see the old content or the new, never a part."""
        with self.open('wb') as file:
            file.write(data)

    def write_text(self, text: str, encoding: str = 'utf-8') -> None:
        """Make this text the content, newlines as they are."""
        self.write_bytes(text.encode(encoding))

    # Changing names

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory, as pathlib does.

        Raises StorageExistsError (a FileExistsError), StorageNotFoundError (no parent; a FileNotFoundError).
        """
        copying.make_directory(self._place, parents=parents, exist_ok=exist_ok)

    def delete(self) -> None:
        """Delete the file, or the directory with all below it; no error where nothing is.

        Raises StoragePermissionError for the root of a mount.
        """
        copying.delete(self._place)

    def copy(self, dest: 'StorageNode | str') -> 'StorageNode':
        """Copy the file or the tree to dest, or into it if it is a directory; the node of the copy.

        Between any two mounts, streaming; within one, by the backend itself where it can. Raises StoragePathError (a
        ValueError) for a copy onto or into itself, StorageIsADirectoryError, StorageNotADirectoryError.
        """
        target = self._target(dest)
        return target._at(copying.copy(self._place, target._place))

    def move(self, dest: 'StorageNode | str') -> 'StorageNode':
        """Move likewise; this node then points to the new place. The source goes only after all has arrived."""
        target = self._target(dest)
        node = target._at(copying.move(self._place, target._place))
        self._manager, self._mount, self._path = node._manager, node._mount, node._path
        return node

    # Inside

    @property
    def _volume(self) -> Volume:
        return self._manager.volume(self._mount)

    @property
    def _place(self) -> Place:
        return Place(self._volume, self._path)

    def _find(self) -> Entry | None:
        return self._volume.find(self._path).entry

    def _target(self, dest: 'StorageNode | str') -> 'StorageNode':
        return self._manager.node(dest) if isinstance(dest, str) else dest

    def _at(self, place: Place) -> 'StorageNode':
        """The node of a place that this one's manager knows."""
        return StorageNode(self._manager, place.volume.name, place.path)
