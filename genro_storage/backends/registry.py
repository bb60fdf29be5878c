"""Type of definition → backend: the one place that knows which module serves which type.

Modules are imported when a mount of their type is made, so that the core starts fast and extras stay optional.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from genro_storage.backends.base import Backend
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.config import (
    AzureDefinition,
    Definition,
    Driver,
    FsspecDefinition,
    GcsDefinition,
    LocalDefinition,
    MemoryDefinition,
    S3Definition,
)
from genro_storage.errors import StorageConfigError
from genro_storage.runtime import Clock


def create(definition: Definition, clock: Clock) -> Backend:
    """The backend of a definition, guarded if it can be out of reach; connects nowhere.

    Raises StorageConfigError for a type that nothing serves.
    """
    factory = _FACTORIES.get(type(definition))
    if factory is None:
        raise StorageConfigError(
            f'mount {definition.name!r}: nothing serves definitions of {type(definition).__name__}'
        )
    if definition.has_references:
        from genro_storage.backends.late import LateBackend

        return LateBackend(definition, lambda resolved: factory(resolved, clock), clock)
    backend = factory(definition, clock)
    return backend if backend.capabilities.instant else GuardedBackend(backend, clock, definition.timeout_s)


def _local(definition: LocalDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.local import LocalBackend

    return LocalBackend(definition.path)


def _memory(definition: MemoryDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.memory import MemoryBackend

    return MemoryBackend(clock)


def _s3(definition: S3Definition, clock: Clock) -> Backend:
    from genro_storage.backends.object_store import ObjectStoreBackend, expresses
    from genro_storage.backends.s3 import S3Backend

    arguments = _own_arguments(definition)
    quick = _takes_quick(definition, expresses, arguments)
    return (ObjectStoreBackend if quick else S3Backend)(**arguments, timeout_s=definition.timeout_s)


def _gcs(definition: GcsDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.gcs import GcsBackend, GcsObstoreBackend, expresses

    arguments = _own_arguments(definition)
    quick = _takes_quick(definition, expresses, arguments)
    return (GcsObstoreBackend if quick else GcsBackend)(**arguments, timeout_s=definition.timeout_s)


def _azure(definition: AzureDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.azure import AzureBackend, AzureObstoreBackend, expresses

    arguments = _own_arguments(definition)
    quick = _takes_quick(definition, expresses, arguments)
    return (AzureObstoreBackend if quick else AzureBackend)(**arguments, timeout_s=definition.timeout_s)


def _own_arguments(definition: Definition) -> dict[str, Any]:
    """What a definition says of its server: the keys of its type alone, and the options."""
    own = set(definition.__struct_fields__) - set(Definition.__struct_fields__)
    return {name: getattr(definition, name) for name in (*own, 'options')}


def _takes_quick(definition: Definition, expresses: Callable[..., str | None], arguments: Mapping[str, Any]) -> bool:
    """Whether the driver over obstore serves a definition: where it is named, or nobody is and it can."""
    if definition.driver is Driver.AUTO:
        return expresses(**arguments) is None
    return definition.driver is Driver.OBSTORE


def _fsspec(definition: FsspecDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.fsspec_backend import FsspecBackend

    # The options say which server it is, and may hold secrets: a digest tells destinations apart and shows nothing.
    options = repr(sorted(definition.options.items())).encode()
    digest = hashlib.blake2b(options, digest_size=8).hexdigest()
    return FsspecBackend.of_protocol(
        definition.protocol,
        definition.path,
        f'fsspec:{definition.protocol}:{digest}/{definition.path.strip("/")}'.rstrip('/'),
        options=definition.options,
        timeout_s=definition.timeout_s,
    )


_FACTORIES: dict[type[Definition], Callable[..., Backend]] = {
    LocalDefinition: _local,
    MemoryDefinition: _memory,
    S3Definition: _s3,
    GcsDefinition: _gcs,
    AzureDefinition: _azure,
    FsspecDefinition: _fsspec,
}
