"""The members of an archive as a tree of directories.

Owns what becomes of the names that an archive may hold: repeated and leading slashes and '.' go, as tar(1) has it; what
no path can express, above all '..', is hidden and counted; of two members of one name the later one counts, and of a
file 'a' beside 'a/b' the directory. A symbolic link to a file of the archive is shown as that file; any other one, and
what is neither file nor directory, is Kind.OTHER.
Threads: filled by one, then read by any.
"""

import posixpath
from collections.abc import Callable, Iterator

import msgspec

from genro_storage import paths
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.entry import Entry, Kind, Version
from genro_storage.errors import StorageNotFoundError, StorageUnsupportedError

#: Members and directories. Each takes some 300 bytes; an archive of that many is 500 MB of names.
MOST_NODES = 2_000_000
#: As many as Linux follows (path_resolution(7)).
_MOST_LINKS = 40


class Member(msgspec.Struct, frozen=True, gc=False):
    """A member that is no directory. ``number``: by which the archive finds it."""

    number: int
    size_bytes: int
    mtime_ns: int
    kind: Kind = Kind.FILE
    is_link: bool = False


class Tree:
    """``tag`` is of the version of the archive; ``link_of`` tells the target of a member that is a link."""

    def __init__(
        self, tag: str, mtime_ns: int, *, strong: bool, hidden: HiddenNames, link_of: Callable[[Member], str]
    ) -> None:
        self._tag = tag
        self._mtime_ns = mtime_ns
        self._strong = strong
        self._hidden = hidden
        self._link_of = link_of
        self._directories: dict[str, dict[str, Member | None]] = {'': {}}  # None: a directory
        self._times: dict[str, int] = {}
        self._nodes = 0

    def add(self, name: str, member: Member) -> None:
        """Add a member. Raises StorageUnsupportedError if there are too many."""
        path = self._path(name)
        if not path or path in self._directories:
            return
        self._directory(paths.parent(path))[paths.basename(path)] = member
        self._count()

    def add_directory(self, name: str, mtime_ns: int) -> None:
        """Add a directory. Raises as add does."""
        path = self._path(name)
        if path is not None:
            self._directory(path)
            self._times[path] = mtime_ns

    def member(self, name: str) -> Member | None:
        """What was added by a name, for another name of the same bytes."""
        path = self._path(name)
        return None if not path else self._directories.get(paths.parent(path), {}).get(paths.basename(path))

    def entry(self, path: str) -> Entry:
        """What is at a path. Raises StorageNotFoundError."""
        if path in self._directories:
            return self._directory_entry(path)
        name = paths.basename(path)
        member = self._directories.get(paths.parent(path), {}).get(name)
        if member is None:
            raise StorageNotFoundError(f'{path!r}: nothing is there')
        return self._entry(path, self.followed(path, member))

    def entries(self, path: str) -> Iterator[Entry]:
        """The entries of a directory that is there."""
        for name, member in self._directories[path].items():
            below = paths.child(path, name)
            yield self._directory_entry(below) if member is None else self._entry(below, self.followed(below, member))

    def file(self, path: str) -> Member:
        """The member whose bytes are shown at a path where a file is."""
        member = self._directories[paths.parent(path)][paths.basename(path)]
        assert member is not None  # noqa: S101 - a file is there
        return self.followed(path, member)

    def followed(self, path: str, member: Member) -> Member:
        """What a member is when it is a link to a file; else itself, of Kind.OTHER if it is a link all the same."""
        at, found = path, member
        for _ in range(_MOST_LINKS):
            if not found.is_link:
                return found
            target = link_target(at, self._link_of(found))
            there = None if target is None else self._directories.get(paths.parent(target), {})
            next_one = None if target is None or there is None else there.get(paths.basename(target))
            if target is None or next_one is None:
                break
            at, found = target, next_one
        return msgspec.structs.replace(member, kind=Kind.OTHER, size_bytes=0)

    def _entry(self, path: str, member: Member) -> Entry:
        name = paths.basename(path)
        if member.kind is not Kind.FILE:
            return Entry(name, member.kind, 0, member.mtime_ns)
        version = Version(f'{self._tag}.{member.number}', self._strong)
        return Entry(name, Kind.FILE, member.size_bytes, member.mtime_ns, version)

    def _directory_entry(self, path: str) -> Entry:
        return Entry(paths.basename(path), Kind.DIRECTORY, 0, self._times.get(path, self._mtime_ns))

    def _path(self, name: str) -> str | None:
        """The path of a member's name; None for one that is hidden."""
        parts = [part for part in name.split('/') if part not in {'', '.'}]
        path = '/'.join(parts)
        if len(path) * 4 > paths.PATH_MAX_BYTES and len(paths.encode(path)) > paths.PATH_MAX_BYTES:
            self._hidden.shows('', name)
            return None
        for part in parts:
            if not paths.is_expressible(part):
                self._hidden.shows(path[: path.find(part)].rstrip('/'), part)
                return None
        return path

    def _directory(self, path: str) -> dict[str, Member | None]:
        found = self._directories.get(path)
        if found is not None:
            return found
        # Not by recursion: a path may have 2,000 names.
        missing = [path]
        while (above := paths.parent(missing[-1])) not in self._directories:
            missing.append(above)
        for each in reversed(missing):
            self._directories[paths.parent(each)][paths.basename(each)] = None
            self._directories[each] = {}
            self._count()
        return self._directories[path]

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise StorageUnsupportedError(f'it has more than {MOST_NODES} members and directories')


def link_target(path: str, link: str) -> str | None:
    """The path that a symbolic link at a path leads to; None where that is outside, or no path at all."""
    if not link or link.startswith('/') or '\0' in link:
        return None
    target = posixpath.normpath(posixpath.join(paths.parent(path), link))
    return None if target in {'.', '..'} or target.startswith('../') else target
