"""A guarded backend whose secrets are looked up when it connects, and again when they are refused.

Owns when that is: on first use in each process, and after the server has refused who asks while the secrets have become
others. What a backend is made of, see registry; how a secret is found, config.secrets.

Until then an outline answers what needs no connection: the same backend with the references in place of the secrets.

Threads: safe. Two that come first may both look up, and what one of them made is dropped unused.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from genro_storage.backends.base import Backend, Capabilities, Prepares
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.backends.per_process import PerProcess
from genro_storage.config import Definition
from genro_storage.config.definitions import LOCATING
from genro_storage.errors import StorageConfigError, StoragePermissionError
from genro_storage.runtime import Clock, about_to_block

T = TypeVar('T')


class _Made(msgspec.Struct, frozen=True):
    """A backend and the definition, secrets in it, that it is of."""

    backend: Backend
    definition: Definition


class LateBackend(GuardedBackend):
    """``make`` makes a backend of a definition without references, connecting nowhere.

    What cannot be looked up is a StorageConfigError, on first use. Raises it at once for what says where the data are.
    """

    def __init__(self, definition: Definition, make: Callable[[Definition], Backend], clock: Clock) -> None:
        super().__init__(make(definition.unresolved()), clock, definition.timeout_s)
        self._definition = definition
        self._make = make
        self._process = PerProcess(self._connect)
        # Refused, but others may be reading from it still.
        self._retired: list[Backend] = []

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return self._given.capabilities

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._given.destination

    def prepare(self) -> None:
        """See Prepares. What takes its time are the imports, which the outline does too."""
        if isinstance(self._given, Prepares):
            self._given.prepare()

    def close(self) -> None:
        """See Backend."""
        made = self._process.take()
        retired, self._retired = self._retired, []
        for backend in (*retired, *([] if made is None else [made.backend]), self._given):
            backend.close()

    @property
    def _inner(self) -> Backend:
        return self._process.get().backend

    def _connect(self) -> _Made:
        about_to_block()
        resolved = self._definition.resolved()
        backend = self._make(resolved)
        locating = any(getattr(self._definition, name, None) != getattr(resolved, name, None) for name in LOCATING)
        if locating and backend.destination != self.destination:
            # Journals and caches are those of the first one.
            raise StorageConfigError(
                f'mount {resolved.name!r}: its secret leads to {backend.destination} now and led to '
                f'{self.destination} when it was configured; configure it again'
            )
        return _Made(backend, resolved)

    def _once(self, operation: Callable[[], T]) -> T:
        made = self._process.get()
        try:
            return super()._once(operation)
        except StoragePermissionError:
            # Nothing was done that was refused, so it may be asked once more; but not by who asks as before.
            if not self._renew(made):
                raise
        return super()._once(operation)

    def _renew(self, refused: _Made) -> bool:
        """Whether there is another connection than the refused one to be had."""
        current = self._process.get()
        if current is not refused:
            return True
        if self._definition.resolved() == refused.definition:
            return False
        self._retired.append(refused.backend)
        self._process.take()
        return True
