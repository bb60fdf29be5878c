"""The contract of what comes of it when several do the same thing at once.

All begin at one moment, and none may take for ever: who waits is a failure and no hang.
"""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from genro_storage.backends.base import ABSENT, Backend, Expected
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageExistsError,
    StorageNotFoundError,
    StorageUnavailableError,
)
from genro_storage.testing.contract.asking import names, read, write
from genro_storage.testing.sources import BytesSource

T = TypeVar('T')

#: Longer than anything here takes on the slowest of servers.
DEADLINE_S = 40.0

_CONTESTANTS = 5
#: Each of another size, so that what is told of a file says whose it is, and no part of one is another.
_CONTENTS = [bytes([letter]) * (30_000 + 1_000 * letter) for letter in range(_CONTESTANTS)]
_BY_SIZE = {len(content): content for content in _CONTENTS}
_CHANGES = 5


class ContendingContract:
    """Who create, replace, remove, rename or look at the same thing at once.

    ``one_makes_a_directory``: where ``real_directories`` is declared, whether the server of the tests tells one only of
    many that they were it. ``replaces_at_once``: whether it knows what is there when several have replaced one file at
    once; of one that does not, all that is asked is that somebody succeeds.
    """

    one_makes_a_directory = True
    replaces_at_once = True

    def test_of_many_who_create_at_once_one_wins(self, backend: Backend) -> None:
        backend.make_directory('d')
        self._assert_one_wins(backend, ABSENT, (StorageExistsError, StorageConflictError))

    def test_of_many_who_replace_one_version_at_once_one_wins(self, backend: Backend) -> None:
        before = write(backend, 'd/file', b'before').version
        self._assert_one_wins(backend, before, (StorageConflictError,))

    def _assert_one_wins(self, backend: Backend, expected: Expected, refusals: tuple[type[StorageError], ...]) -> None:
        outcomes = at_once(
            [partial(backend.put, 'd/file', BytesSource(content), expected=expected) for content in _CONTENTS]
        )
        won = [content for content, outcome in zip(_CONTENTS, outcomes, strict=True) if not is_refused(outcome)]
        assert won
        if expected is not ABSENT and not self.replaces_at_once:
            return
        if backend.capabilities.conditional_put:
            assert len(won) == 1
        assert unexpected(backend, outcomes, refusals) == []
        # Of who could not be told how it went it may be too.
        unclear = [
            content
            for content, outcome in zip(_CONTENTS, outcomes, strict=True)
            if isinstance(outcome, StorageUnavailableError)
        ]
        assert read(backend, 'd/file') in won + unclear
        assert names(backend, 'd') == {'file'}

    def test_of_many_who_write_one_file_at_once_each_succeeds_and_one_is_there_whole(self, backend: Backend) -> None:
        for _ in ('where none was', 'over the one that is there now'):
            outcomes = at_once([partial(write, backend, 'd/file', content) for content in _CONTENTS])
            refused = [outcome for outcome in outcomes if is_refused(outcome)]
            assert len(refused) < len(outcomes)
            if not self.replaces_at_once:
                return
            assert unexpected(backend, outcomes, ()) == []
            assert read(backend, 'd/file') in _CONTENTS
            assert names(backend, 'd') == {'file'}

    def test_who_reads_a_version_while_somebody_replaces_it_gets_that_or_a_conflict(self, backend: Backend) -> None:
        write(backend, 'file', _CONTENTS[0])
        replaced = threading.Event()

        def replace() -> None:
            try:
                for content in _CONTENTS[1:]:
                    write(backend, 'file', content)
            finally:
                replaced.set()

        def look() -> None:
            while not replaced.is_set():
                try:
                    entry = backend.stat('file')
                    data = backend.read_range('file', 0, entry.size_bytes, entry.version)
                except StorageConflictError:
                    continue
                except (StorageNotFoundError, StorageUnavailableError):
                    # Between two steps a server may find nothing, or the end of what it was sending.
                    assert not backend.capabilities.atomic_replace
                else:
                    assert data == _BY_SIZE[entry.size_bytes]

        succeed_at_once([replace, look, look])

    def test_of_many_who_write_below_a_directory_that_is_not_there_each_succeeds(self, backend: Backend) -> None:
        written = {f'{number}': content for number, content in enumerate(_CONTENTS)}
        succeed_at_once([partial(write, backend, f'd/e/f/{name}', content) for name, content in written.items()])
        found = {entry.name: entry.size_bytes for entry in backend.list_directory('d/e/f')}
        assert found == {name: len(content) for name, content in written.items()}

    def test_of_many_who_make_a_directory_at_once_one_succeeds(self, backend: Backend) -> None:
        outcomes = at_once([partial(backend.make_directory, 'd')] * _CONTESTANTS)
        refused = [outcome for outcome in outcomes if is_refused(outcome)]
        assert [error for error in refused if not isinstance(error, StorageExistsError)] == []
        made = len(outcomes) - len(refused)
        assert made == 1 if backend.capabilities.real_directories and self.one_makes_a_directory else made >= 1
        assert names(backend) == {'d'}
        assert names(backend, 'd') == set()

    def test_of_many_who_remove_a_file_at_once_one_succeeds_and_others_find_nothing(self, backend: Backend) -> None:
        for name in ('file', 'beside'):
            write(backend, f'd/{name}', b'1')
        outcomes = at_once([partial(backend.remove_file, 'd/file')] * _CONTESTANTS)
        refused = [outcome for outcome in outcomes if is_refused(outcome)]
        assert len(refused) < len(outcomes)
        assert unexpected(backend, outcomes, (StorageNotFoundError,)) == []
        assert names(backend, 'd') == {'beside'}

    def test_a_listing_tells_what_stays_once_while_others_come_and_go(self, backend: Backend) -> None:
        staying = {f'stays-{number}' for number in range(5)}
        coming = [f'comes-{number}' for number in range(_CHANGES)]
        for name in staying:
            write(backend, f'd/{name}', b'1')
        gone = threading.Event()

        def come_and_go() -> None:
            try:
                for name in coming:
                    write(backend, f'd/{name}', b'1')
                    backend.remove_file(f'd/{name}')
            finally:
                gone.set()

        def look() -> None:
            while not gone.is_set():
                told = Counter(entry.name for entry in backend.list_directory('d'))
                assert max(told.values()) == 1
                assert staying <= set(told)
                # What is under way may be seen, under a name that is hidden.
                assert {name for name in told if not name.startswith('.')} <= staying | set(coming)

        succeed_at_once([come_and_go, look])
        assert names(backend, 'd') == staying

    def test_of_many_who_rename_onto_one_name_at_once_nobody_loses_what_he_was_told_stays(
        self, backend: Backend
    ) -> None:
        written = {f'd/{number}': content for number, content in enumerate(_CONTENTS)}
        for path, content in written.items():
            write(backend, path, content)
        outcomes = at_once([partial(backend.rename, path, 'target') for path in written])
        told = dict(zip(written, outcomes, strict=True))
        unclear = {path for path, outcome in told.items() if isinstance(outcome, StorageUnavailableError)}
        refused = {path for path, outcome in told.items() if is_refused(outcome)} - unclear
        assert len(refused | unclear) < len(told)
        if not self.replaces_at_once:
            return
        assert read(backend, 'target') in {written[path] for path in set(written) - refused}
        assert not (refused and backend.capabilities.atomic_rename)
        assert refused <= {f'd/{name}' for name in names(backend, 'd')} <= refused | unclear
        assert {path: read(backend, path) for path in refused} == {path: written[path] for path in refused}


def at_once(acts: Sequence[Callable[[], T]]) -> list[T | StorageError]:
    """Do all of these, begun at one moment; what each returned, or the StorageError that it raised.

    Whatever else one raises is raised here, and an AssertionError if some have not ended by the deadline.
    """
    outcomes: dict[int, T | StorageError] = {}
    failures: list[BaseException] = []
    ready = threading.Barrier(len(acts))

    def take_part(number: int, act: Callable[[], T]) -> None:
        try:
            ready.wait(DEADLINE_S)
            outcomes[number] = act()
        except StorageError as error:
            outcomes[number] = error
        except BaseException as error:  # noqa: BLE001 - raised again, by who waits
            failures.append(error)

    # Daemons: one that hangs must not keep the process from ending.
    threads = [threading.Thread(target=take_part, args=args, daemon=True) for args in enumerate(acts)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + DEADLINE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for failure in failures:
        raise failure
    late = sum(thread.is_alive() for thread in threads)
    assert not late, f'{late} of {len(acts)} have not ended within {DEADLINE_S:g} s'
    return [outcomes[number] for number in range(len(acts))]


def succeed_at_once(acts: Sequence[Callable[[], object]]) -> None:
    """The same of what may not fail: raises what one of them has raised."""
    for outcome in at_once(acts):
        if isinstance(outcome, StorageError):
            raise outcome


def unexpected(
    backend: Backend, outcomes: Sequence[object], kinds: tuple[type[StorageError], ...]
) -> list[StorageError]:
    """The errors of other kinds. One that can be tried again is none, of a server that replaces in two steps."""
    if not backend.capabilities.atomic_replace:
        # rclone's answers 500 to who asks for what is just being replaced.
        kinds = (*kinds, StorageUnavailableError)
    return [outcome for outcome in outcomes if isinstance(outcome, StorageError) and not isinstance(outcome, kinds)]


def is_refused(outcome: object) -> bool:
    """Whether an outcome is an error."""
    return isinstance(outcome, StorageError)
