"""Whether what is configured can be reached: each mount is asked for its root, all at once.

Owns the asking, its limit in time and the advice. Threads: one for each mount; one that never comes back is left behind
and goes with the process.
"""

import threading
from collections.abc import Sequence

import msgspec

from genro_storage.backends import registry
from genro_storage.config import Definition
from genro_storage.errors import (
    StorageConfigError,
    StorageError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.manager import StorageManager
from genro_storage.runtime import SystemClock

# A backend ends its tries when its timeout has passed, and the last of them may last as long again.
_TIMEOUTS = 2.0
# For imports and for looking up secrets.
_GRACE_S = 5.0

_ADVICE: tuple[tuple[type[StorageError], str], ...] = (
    (StorageConfigError, ''),
    (StorageNotFoundError, 'make it, or correct its name'),
    (StoragePermissionError, 'check the credentials, and what they are allowed'),
    (StorageTimeoutError, "check its address and the network, or give it a longer 'timeout'"),
    (StorageUnavailableError, 'check its address, and whether the server runs'),
)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one mount. ``problem``: None if it can be reached."""

    name: str
    type: str
    destination: str = ''
    problem: str | None = None

    @property
    def is_reachable(self) -> bool:
        """Whether it is."""
        return self.problem is None

    @property
    def line(self) -> str:
        """For people."""
        told = f'reachable at {self.destination}' if self.problem is None else f'not reachable: {self.problem}'
        return f'mount {self.name!r} ({self.type}): {told}'


def try_all(definitions: Sequence[Definition]) -> list[Answer]:
    """Try all at once; their answers in the same order."""
    tries = [_Try(definition, definitions) for definition in definitions]
    for each in tries:
        each.start()
    return [each.result() for each in tries]


class _Try:
    """One mount and the thread that asks it."""

    def __init__(self, definition: Definition, all_of_them: Sequence[Definition]) -> None:
        self._definition = definition
        self._all = all_of_them
        self._limit_s = definition.timeout_s * _TIMEOUTS + _GRACE_S
        self._answers: list[Answer] = []
        self._thread = threading.Thread(target=self._run, name=f'try {definition.name}', daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def result(self) -> Answer:
        """What was said, or that nothing was."""
        self._thread.join(self._limit_s)
        if self._answers:
            return self._answers[0]
        return self._answer(f'no answer within {self._limit_s:g} s; {_advice(StorageTimeoutError())}')

    def _run(self) -> None:
        try:
            if self._definition.refers_to is not None:
                self._answers.append(self._answer(None, self._destination_through_others()))
                return
            backend = registry.create(self._definition, SystemClock())
            try:
                # Its names are not looked at: what counts is that it may be asked.
                backend.list_directory('')
                self._answers.append(self._answer(None, backend.destination))
            finally:
                backend.close()
        except StorageError as error:
            advice = _advice(error)
            self._answers.append(self._answer(f'{error}; {advice}' if advice else str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told of this mount and not of the others
            self._answers.append(self._answer(f'{type(error).__name__}: {error}'))

    def _destination_through_others(self) -> str:
        """Where a mount is that is made of other ones, once it has been asked."""
        with StorageManager() as manager:
            manager.configure(self._all)
            volume = manager.volume(self._definition.name)
            volume.list_directory('')
            return volume.backend.destination

    def _answer(self, problem: str | None, destination: str = '') -> Answer:
        definition = self._definition
        return Answer(name=definition.name, type=definition.type, destination=destination, problem=problem)


def _advice(error: StorageError) -> str:
    return next((advice for kind, advice in _ADVICE if isinstance(error, kind)), '')
