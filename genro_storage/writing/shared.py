"""Which files of a volume are under change: by path, each staged once and shared by all its handles.

Owns the table, the counts of handles, and that a file which was acknowledged stays here until it is uploaded; what is
dropped or kept then is the commits'. Threads: safe; one lock, never held across I/O, and taken after the locks of a
staged file (docs/concurrency.md).
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from genro_storage import paths
from genro_storage.writing.staging import Freezes, StagedFile


class _Files(dict[str, StagedFile]):
    """Files by path, and which directories are above them. Only by assignment and ``del``."""

    def __init__(self) -> None:
        super().__init__()
        self.above: Counter[str] = Counter()

    def __setitem__(self, path: str, staged: StagedFile) -> None:
        if path not in self:
            self.above.update(_above(path))
        super().__setitem__(path, staged)

    def __delitem__(self, path: str) -> None:
        super().__delitem__(path)
        for directory in _above(path):
            self.above[directory] -= 1
            if not self.above[directory]:
                del self.above[directory]


class SharedFiles:
    """The files under change of one volume."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child: what the parent has open is the parent's to commit."""
        self._lock = threading.Lock()
        # Guarded by _lock, with handles, waiting and orphaned of each.
        self._files = _Files()

    def find(self, path: str) -> StagedFile | None:
        """The file under change at a path, if there is one."""
        with self._lock:
            return self._files.get(path)

    def all(self) -> list[StagedFile]:
        """All of them."""
        with self._lock:
            return list(self._files.values())

    def below(self, path: str) -> list[StagedFile]:
        """Those at or below a path."""
        return self._chosen(lambda other: paths.is_within(other, path))

    def inside(self, directory: str) -> tuple[list[StagedFile], list[str]]:
        """Those that are entries of a directory, and the names of directories in it that hold others."""
        with self._lock:
            if directory not in self._files.above:
                return [], []
            files = [file for path, file in self._files.items() if path and paths.parent(path) == directory]
            names = [paths.basename(path) for path in self._files.above if path and paths.parent(path) == directory]
            return files, names

    def are_below(self, directory: str) -> bool:
        """Whether there are any below a directory."""
        with self._lock:
            return directory in self._files.above

    def join(self, path: str) -> StagedFile | None:
        """The file under change at a path, with one handle more that writes."""
        with self._lock:
            staged = self._files.get(path)
            if staged is not None:
                staged.handles += 1
                staged.writers += 1
            return staged

    def join_reading(self, path: str) -> tuple[StagedFile, bool] | None:
        """The file under change at a path, with one handle more that reads, and whether anybody may write to it."""
        with self._lock:
            staged = self._files.get(path)
            if staged is None:
                return None
            staged.handles += 1
            return staged, staged.writers > 0

    def add_reader(self, staged: StagedFile, reader: Freezes) -> None:
        """A handle that reads a file is to be told when nobody writes it any more."""
        with self._lock:
            staged.readers = (*staged.readers, reader)

    def remove_reader(self, staged: StagedFile, reader: Freezes) -> None:
        """It need not be told."""
        with self._lock:
            staged.readers = tuple(other for other in staged.readers if other is not reader)

    def add(self, staged: StagedFile) -> StagedFile:
        """Enter a file, unless another thread was first; the one that is shared now, with one handle more."""
        with self._lock:
            shared = self._files.get(staged.path)
            if shared is None:
                self._files[staged.path] = shared = staged
            shared.handles += 1
            shared.writers += 1
            return shared

    def are_left_by(self, staged: StagedFile) -> bool:
        """Whether the one handle that writes a file is about to leave."""
        with self._lock:
            return staged.writers == 1

    def stop_writing(self, staged: StagedFile) -> None:
        """A handle that writes leaves; leave() follows."""
        with self._lock:
            staged.writers -= 1

    def leave(self, staged: StagedFile) -> bool:
        """Take a handle off; whether it was the last one, and nothing waits: then nobody finds the file here."""
        with self._lock:
            staged.handles -= 1
            return self._drop_if_unused(staged)

    def put(self, staged: StagedFile) -> StagedFile | None:
        """Show a file at its path; the one that was there until now."""
        with self._lock:
            replaced = self._files.get(staged.path)
            self._files[staged.path] = staged
            return replaced if replaced is not staged else None

    def wait(self, staged: StagedFile) -> None:
        """A file stays, though nobody has it open, until settle(). The caller holds its lock."""
        with self._lock:
            staged.waiting = True

    def settle(self, staged: StagedFile) -> None:
        """Nothing of a file waits any more. The caller holds its lock."""
        with self._lock:
            staged.waiting = False
            self._drop_if_unused(staged)

    def is_unused(self, staged: StagedFile) -> bool:
        """Whether nobody has a file open and nothing of it waits."""
        with self._lock:
            return staged.handles == 0 and not staged.waiting

    def detach(self, path: str, unless: StagedFile | None = None) -> None:
        """Another content has come to a path: who opens it next sees that. Commits of the old one will meet it."""
        with self._lock:
            if path in self._files and self._files[path] is not unless:
                del self._files[path]

    def withdraw(self, staged: StagedFile) -> None:
        """Who opens the path next does not get this file, and nothing of it waits; its handles go on."""
        with self._lock:
            staged.waiting = False
            self._drop(staged)

    def orphan(self, staged: StagedFile) -> None:
        """A file was removed or replaced: its handles go on without a path, and nothing of it is committed."""
        with self._lock:
            self._drop(staged)
            staged.orphaned = True
            staged.waiting = False

    def move(self, staged: StagedFile, path: str) -> None:
        """A file has a new path, where it is found as long as it is used. The caller keeps it from being committed."""
        with self._lock:
            self._drop(staged)
            staged.path = path
            if staged.handles or staged.waiting:  # else its last handle was given back while it moved
                self._files[path] = staged

    @contextmanager
    def holding(self, path: str) -> Iterator[StagedFile | None]:
        """Keep the file at a path from being committed or moved, if it is under change."""
        with self._holding(lambda other: other == path) as files:
            yield files[0] if files else None

    @contextmanager
    def holding_all(self, *directories: str) -> Iterator[list[StagedFile]]:
        """Keep all files at or below these paths from being committed or moved."""
        with self._holding(lambda other: any(paths.is_within(other, path) for path in directories)) as files:
            yield files

    @contextmanager
    def _holding(self, concerned: Callable[[str], bool]) -> Iterator[list[StagedFile]]:
        # By what never changes: two threads that held files in the order of their paths could meet a rename between.
        files = sorted(self._chosen(concerned), key=id)
        with ExitStack() as stack:
            for file in files:
                stack.enter_context(file.committing)
            # Some may have gone or moved while others were waited for.
            still = self._chosen(concerned)
            yield [file for file in files if file in still]

    def _chosen(self, concerned: Callable[[str], bool]) -> list[StagedFile]:
        with self._lock:
            return [file for path, file in self._files.items() if concerned(path)]

    def _drop_if_unused(self, staged: StagedFile) -> bool:
        unused = staged.handles == 0 and not staged.waiting
        if unused:
            self._drop(staged)
        return unused

    def _drop(self, staged: StagedFile) -> None:
        if self._files.get(staged.path) is staged:
            del self._files[staged.path]


def _above(path: str) -> Iterator[str]:
    while path:
        path = paths.parent(path)
        yield path
