"""Copying and moving files and trees between any two places, in bounded memory.

Owns where a copy lands, what is refused because it would lose data, and the choice between the backend's own copy and
a stream. Threads: safe; keeps no state.
"""

from typing import NamedTuple

from genro_storage import paths
from genro_storage.entry import Entry, Version
from genro_storage.errors import (
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StoragePathError,
    StorageUnsupportedError,
)
from genro_storage.volume import Volume

#: One step of a stream: long enough that a reader's window opens and small enough to keep memory flat.
STEP_BYTES = 4 << 20


class Place(NamedTuple):
    """A path in a volume."""

    volume: Volume
    path: str

    def __str__(self) -> str:
        return paths.shown(self.volume.name, self.path)

    def child(self, name: str) -> 'Place':
        """An entry of this directory."""
        return Place(self.volume, paths.child(self.path, name))

    def find(self) -> Entry | None:
        """What is there, or None."""
        return self.volume.find(self.path).entry

    @property
    def location(self) -> str:
        """Where it really is: equal for one object that two mounts show."""
        return f'{self.volume.backend.destination.rstrip("/")}/{self.path}'.rstrip('/')


class _Copied(NamedTuple):
    """What was copied: the entry as it was then, and of a directory, if it is to be remembered, what was in it."""

    place: Place
    entry: Entry
    children: 'list[_Copied]'


def copy(source: Place, target: Place) -> Place:
    """Copy a file or a tree to target, or into it where it is a directory; the place of the copy.

    Existing files are replaced, each at once; a failure leaves what was copied so far. Raises StorageNotFoundError,
    StoragePathError (onto itself or into itself), StorageIsADirectoryError, StorageNotADirectoryError.
    """
    entry = source.volume.stat(source.path)
    target = _landing(source, entry, target)
    _copy_any(source, entry, target)
    return target


def move(source: Place, target: Place) -> Place:
    """Move a file or a tree likewise; the source goes only after all of it has arrived.

    What appears in the source meanwhile, or changes there, stays: raises StorageNotEmptyError, StorageConflictError.
    """
    entry = source.volume.stat(source.path)
    target = _landing(source, entry, target)
    source.volume.require_removable(source.path)
    landed_on = target.find()
    # A rename replaces a directory only if it is empty; into a full one the trees are merged, as a copy does.
    merging = entry.is_directory and landed_on is not None
    if source.volume is target.volume and not merging:
        _check_types(entry, landed_on, target)
        _make_parents(target)
        source.volume.rename(source.path, target.path)
    else:
        _remove_copied(_copy_any(source, entry, target, remember=True))
    return target


def delete(place: Place) -> None:
    """Delete a file, or a directory with all below it; nothing happens where nothing is."""
    entry = place.find()
    if entry is not None:
        _delete(place, entry)


def _delete(place: Place, entry: Entry) -> None:
    place.volume.require_removable(place.path)
    if _remove_if_no_directory(place, entry):
        return
    _delete_children(place)
    try:
        place.volume.remove_directory(place.path)
    except StorageNotEmptyError:
        # The listing was remembered and older than what somebody else has put there; the refusal made it forgotten.
        _delete_children(place)
        place.volume.remove_directory(place.path)
    except StorageNotFoundError:
        return  # somebody else was first


def _delete_children(place: Place) -> None:
    try:
        entries = place.volume.list_directory(place.path)[0]
    except StorageNotFoundError:
        return
    for entry in entries:
        _delete(place.child(entry.name), entry)


def _remove_copied(copied: _Copied) -> None:
    """Remove what was copied and nothing else."""
    if _remove_if_no_directory(copied.place, copied.entry, expected=copied.entry.version):
        return
    for child in copied.children:
        _remove_copied(child)
    copied.place.volume.remove_directory(copied.place.path)


def _remove_if_no_directory(place: Place, entry: Entry, *, expected: Version | None = None) -> bool:
    """Remove what remove_file does. A link to a directory is shown as one, and goes without what it leads to."""
    try:
        place.volume.remove_file(place.path, expected=expected)
    except StorageIsADirectoryError:
        return False
    except StorageNotFoundError:
        # Of what only keys below it imply, a backend may say that there is no file.
        return not entry.is_directory
    return True


def _landing(source: Place, entry: Entry, target: Place) -> Place:
    """Where the copy will be, once it is sure that this loses nothing."""
    landed_on = target.find()
    if landed_on is not None and landed_on.is_directory and target.location != source.location:
        name = paths.basename(source.path)
        if not name:
            name = source.volume.name
        target = target.child(name)
    if target.location == source.location:
        raise StoragePathError(f'{source} and {target} are the same: nothing to do')
    if entry.is_directory and (target.location + '/').startswith(source.location + '/'):
        raise StoragePathError(f'{source} cannot go into itself, to {target}')
    return target


def _copy_any(source: Place, entry: Entry, target: Place, *, remember: bool = False) -> _Copied:
    _check_types(entry, target.find(), target)
    children: list[_Copied] = []
    if entry.is_directory:
        children = _copy_tree(source, target, remember=remember)
    elif entry.is_file:
        _copy_file(source, target)
    else:
        raise StorageUnsupportedError(f'{source} is neither a file nor a directory')
    return _Copied(source, entry, children)


def _check_types(entry: Entry, landed_on: Entry | None, target: Place) -> None:
    if landed_on is None:
        return
    if landed_on.is_directory and not entry.is_directory:
        raise StorageIsADirectoryError(f'{target} is a directory: a file does not replace it')
    if entry.is_directory and not landed_on.is_directory:
        raise StorageNotADirectoryError(f'{target} is a file: a directory does not replace it')


def _copy_tree(source: Place, target: Place, *, remember: bool) -> list[_Copied]:
    make_directory(target, parents=True, exist_ok=True)
    children = []
    # Listed before the first copy, so that what appears meanwhile is not followed for ever.
    for entry in source.volume.list_directory(source.path)[0]:
        copied = _copy_any(source.child(entry.name), entry, target.child(entry.name), remember=remember)
        if remember:
            children.append(copied)
    return children


def _copy_file(source: Place, target: Place) -> None:
    try:
        target.volume.copy(source.path, target.path, lender=source.volume)
    except StorageUnsupportedError:
        pass
    else:
        return
    reader = source.volume.open_latest(source.path)
    try:
        writer = target.volume.replace(target.path)
        try:
            offset = 0
            while data := reader.read(offset, STEP_BYTES):
                offset += writer.write(offset, data)
        except BaseException:
            writer.abort()
            raise
        writer.close()
    finally:
        reader.close()


def _make_parents(place: Place) -> None:
    parent = Place(place.volume, paths.parent(place.path))
    if parent.find() is None:
        make_directory(parent, parents=True, exist_ok=True)


def make_directory(place: Place, *, parents: bool, exist_ok: bool) -> None:
    """Make a directory, as pathlib's mkdir.

    Raises StorageExistsError, StorageNotFoundError (no parent, without parents), StorageNotADirectoryError.
    """
    if parents and place.path:
        _make_parents(place)
    try:
        place.volume.make_directory(place.path)
    except StorageExistsError:
        entry = place.find()
        if not exist_ok or entry is None or not entry.is_directory:
            raise
