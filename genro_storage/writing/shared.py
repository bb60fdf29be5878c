"""Which files of a volume are under change: by path, each staged once and shared by all its handles.

Owns the table and the counts of handles; commits and what a release drops or keeps are the volume's. Threads: safe;
one lock, never held across I/O, and taken after the lock of a staged file (docs/concurrency.md).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from genro_storage import paths
from genro_storage.writing.staging import StagedFile


class SharedFiles:
    """The files under change of one volume."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child: what the parent has open is the parent's to commit."""
        self._lock = threading.Lock()
        self._files: dict[str, StagedFile] = {}  # guarded by _lock, with handles and orphaned of each

    def find(self, path: str) -> StagedFile | None:
        """The file under change at a path, if there is one."""
        with self._lock:
            return self._files.get(path)

    def all(self) -> list[StagedFile]:
        """All of them."""
        with self._lock:
            return list(self._files.values())

    def inside(self, directory: str) -> list[StagedFile]:
        """Those that are entries of a directory."""
        with self._lock:
            return [file for path, file in self._files.items() if path and paths.parent(path) == directory]

    def are_below(self, directory: str) -> bool:
        """Whether there are any below a directory."""
        with self._lock:
            return any(path != directory and paths.is_within(path, directory) for path in self._files)

    def join(self, path: str) -> StagedFile | None:
        """The file under change at a path, with one handle more."""
        with self._lock:
            staged = self._files.get(path)
            if staged is not None:
                staged.handles += 1
            return staged

    def add(self, staged: StagedFile) -> StagedFile:
        """Enter a file, unless another thread was first; the one that is shared now, with one handle more."""
        with self._lock:
            shared = self._files.setdefault(staged.path, staged)
            shared.handles += 1
            return shared

    def leave(self, staged: StagedFile) -> bool:
        """Take a handle off; whether it was the last one, after which nobody finds the file here."""
        with self._lock:
            staged.handles -= 1
            if staged.handles == 0:
                self._drop(staged)
            return staged.handles == 0

    def detach(self, path: str, unless: StagedFile | None = None) -> None:
        """Another content has come to a path: who opens it next sees that. Commits of the old one will meet it."""
        with self._lock:
            if self._files.get(path) is not unless:
                self._files.pop(path, None)

    def withdraw(self, staged: StagedFile) -> None:
        """Who opens the path next does not get this file; its handles go on."""
        with self._lock:
            self._drop(staged)

    def orphan(self, staged: StagedFile) -> None:
        """A file was removed or replaced: its handles go on without a path, and nothing of it is committed."""
        with self._lock:
            self._drop(staged)
            staged.orphaned = True

    def move(self, staged: StagedFile, path: str) -> None:
        """A file has a new path. The caller holds its lock."""
        with self._lock:
            self._drop(staged)
            staged.path = path
            self._files[path] = staged

    @contextmanager
    def holding(self, path: str) -> Iterator[StagedFile | None]:
        """Hold the lock of the file at a path, if it is under change."""
        with self._holding(lambda other: other == path) as files:
            yield files[0] if files else None

    @contextmanager
    def holding_all(self, *directories: str) -> Iterator[list[StagedFile]]:
        """Hold the locks of all files at or below these paths."""
        with self._holding(lambda other: any(paths.is_within(other, path) for path in directories)) as files:
            yield files

    @contextmanager
    def _holding(self, concerned: Callable[[str], bool]) -> Iterator[list[StagedFile]]:
        # By what never changes: two threads that held files in the order of their paths could meet a rename between.
        files = sorted(self._chosen(concerned), key=id)
        with ExitStack() as stack:
            for file in files:
                stack.enter_context(file.lock)
            # Some may have gone or moved while others were waited for.
            still = self._chosen(concerned)
            yield [file for file in files if file in still]

    def _chosen(self, concerned: Callable[[str], bool]) -> list[StagedFile]:
        with self._lock:
            return [file for path, file in self._files.items() if concerned(path)]

    def _drop(self, staged: StagedFile) -> None:
        if self._files.get(staged.path) is staged:
            del self._files[staged.path]
