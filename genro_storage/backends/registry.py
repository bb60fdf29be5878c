"""Type of definition → backend: the one place that knows which module serves which type.

Modules are imported when a mount of their type is made, so that the core starts fast and extras stay optional.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from genro_storage.backends.base import Backend
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.config import Definition, Driver, FsspecDefinition, LocalDefinition, MemoryDefinition, S3Definition
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

    arguments: dict[str, Any] = {
        'bucket': definition.bucket,
        'prefix': definition.prefix,
        'region': definition.region,
        'endpoint_url': definition.endpoint_url,
        'key': definition.key,
        'secret': definition.secret,
        'token': definition.token,
        'profile': definition.profile,
        'anon': definition.anon,
        'options': definition.options,
    }
    quick = definition.driver is Driver.OBSTORE or (definition.driver is Driver.AUTO and expresses(**arguments) is None)
    return (ObjectStoreBackend if quick else S3Backend)(**arguments, timeout_s=definition.timeout_s)


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
    FsspecDefinition: _fsspec,
}
