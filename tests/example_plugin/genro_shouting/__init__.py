"""Mounts of type ``shouting``: a store in memory that begins with one file, in capitals."""

from genro_storage.backends.base import Backend
from genro_storage.backends.memory import MemoryBackend
from genro_storage.config import BackendType, Definition
from genro_storage.config.definitions import Secret
from genro_storage.runtime import Clock
from genro_storage.testing import BytesSource


class ShoutingDefinition(Definition, frozen=True, kw_only=True, tag='shouting'):
    """A store that begins with ``words``, shouted. ``password`` is of no use but to be kept."""

    words: str
    password: Secret = None


def make(definition: ShoutingDefinition, clock: Clock) -> Backend:
    """See BackendType."""
    backend = MemoryBackend(clock)
    backend.put('words', BytesSource(definition.words.upper().encode()))
    return backend


PLUGIN = BackendType(definition=ShoutingDefinition, make=make)
