"""Type of definition → backend: the one place that knows which module serves which type.

Modules are imported when a mount of their type is made, so that the core starts fast and extras stay optional.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from genro_storage import paths
from genro_storage.backends.base import Backend
from genro_storage.backends.guarded import GuardedBackend
from genro_storage.backends.mounts import Mounts
from genro_storage.config import (
    AzureDefinition,
    Base64Definition,
    Definition,
    Driver,
    FsspecDefinition,
    FtpDefinition,
    GcsDefinition,
    GitDefinition,
    GithubDefinition,
    HttpDefinition,
    LibarchiveDefinition,
    LocalDefinition,
    MemoryDefinition,
    RelativeDefinition,
    S3Definition,
    SftpDefinition,
    SmbDefinition,
    TarDefinition,
    WebdavDefinition,
    ZipDefinition,
    plugins,
)
from genro_storage.config.archives import ArchiveDefinition
from genro_storage.errors import StorageConfigError
from genro_storage.runtime import Clock

if TYPE_CHECKING:
    from genro_storage.backends.archive import Load

    Nonsense = tuple[type[Exception], ...]


def create(definition: Definition, clock: Clock, mounts: Mounts | None = None) -> Backend:
    """The backend of a definition, guarded if it can be out of reach; connects nowhere.

    ``mounts``: those that a definition may refer to. Raises StorageConfigError for a type that nothing serves.
    """
    factory = _factory(definition, mounts)
    if definition.has_references:
        from genro_storage.backends.late import LateBackend

        return LateBackend(definition, lambda resolved: factory(resolved, clock), clock)
    backend = factory(definition, clock)
    can = backend.capabilities
    return backend if can.instant or can.always_reachable else GuardedBackend(backend, clock, definition.timeout_s)


def _factory(definition: Definition, mounts: Mounts | None) -> Callable[[Any, Clock], Backend]:
    kind = type(definition)
    if kind in _FACTORIES:
        return _FACTORIES[kind]
    if kind in _ARCHIVES:
        return partial(_archive, _ARCHIVES[kind], mounts)
    plugin = plugins.of(kind)
    if plugin is None:
        raise StorageConfigError(f'mount {definition.name!r}: nothing serves definitions of {kind.__name__}')
    return plugin.make


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


def _connecting(definition: Definition) -> dict[str, Any]:
    """What a definition says of its server, of types that have no drivers and so no options; and the timeout."""
    arguments = _own_arguments(definition) | {'timeout_s': definition.timeout_s}
    del arguments['options']
    return arguments


def _takes_quick(definition: Definition, expresses: Callable[..., str | None], arguments: Mapping[str, Any]) -> bool:
    """Whether the driver over obstore serves a definition: where it is named, or nobody is and it can."""
    if definition.driver is Driver.AUTO:
        return expresses(**arguments) is None
    return definition.driver is Driver.OBSTORE


def _http(definition: HttpDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.http import HttpBackend

    return HttpBackend(definition.base_url, headers=definition.headers, timeout_s=definition.timeout_s)


def _webdav(definition: WebdavDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.webdav import webdav_backend

    return webdav_backend(**_connecting(definition))


def _ftp(definition: FtpDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.ftp import ftp_backend
    from genro_storage.backends.ftp_connections import FtpAddress

    address = _connecting(definition)
    path, timeout_s = address.pop('path'), address.pop('timeout_s')
    return ftp_backend(FtpAddress(**address), path, timeout_s=timeout_s)


def _sftp(definition: SftpDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.file_servers import sftp_backend
    from genro_storage.backends.sftp_address import SftpAddress

    address = _connecting(definition)
    path, timeout_s = address.pop('path'), address.pop('timeout_s')
    return sftp_backend(SftpAddress(**address), path, timeout_s=timeout_s)


def _smb(definition: SmbDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.file_servers import smb_backend
    from genro_storage.backends.smb_address import SmbAddress

    address = _connecting(definition)
    path, timeout_s = address.pop('path'), address.pop('timeout_s')
    return smb_backend(SmbAddress(**address), path, timeout_s=timeout_s)


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


def _zip() -> tuple['Load', 'Nonsense']:
    from genro_storage.backends import zip_archive

    return zip_archive.ZipIndex, zip_archive.NONSENSE


def _tar() -> tuple['Load', 'Nonsense']:
    from genro_storage.backends import tar_archive

    return tar_archive.TarIndex, tar_archive.NONSENSE


def _libarchive() -> tuple['Load', 'Nonsense']:
    from genro_storage.backends import libarchive_archive

    return libarchive_archive.LibarchiveIndex, ()


def _archive(
    load_of: Callable[[], tuple['Load', 'Nonsense']],
    mounts: Mounts | None,
    definition: ArchiveDefinition,
    clock: Clock,
) -> Backend:
    from genro_storage.backends.archive import ArchiveBackend
    from genro_storage.backends.archive_files import ArchivePlace, LocalPlace, MountPlace

    place: ArchivePlace = LocalPlace(definition.file)
    if definition.refers_to is not None:
        if mounts is None:
            raise StorageConfigError(f'mount {definition.name!r}: its archive is in another mount, and there is none')
        place = MountPlace(mounts, *paths.parse(definition.file))
    load, nonsense = load_of()
    return ArchiveBackend(f'{definition.type}:{definition.file}', place, load, nonsense)


def _git(definition: GitDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.git_repository import GitRepository
    from genro_storage.backends.git_trees import GitBackend

    repository = GitRepository(definition.path, definition.ref)
    return GitBackend(f'git:{definition.path}@{definition.ref}', repository, always_reachable=True)


def _github(definition: GithubDefinition, clock: Clock) -> Backend:
    from genro_storage.backends.git_trees import GitBackend
    from genro_storage.backends.github_repository import GithubRepository

    token = None if definition.token is None else str(definition.token)
    repository = GithubRepository(
        definition.endpoint_url, definition.org, definition.repo, definition.ref, token, definition.timeout_s
    )
    place = f'{definition.endpoint_url.rstrip("/")}/{definition.org}/{definition.repo}'
    return GitBackend(f'github:{place}@{definition.ref or "HEAD"}', repository, always_reachable=False)


def _base64(definition: Base64Definition, clock: Clock) -> Backend:
    from genro_storage.backends.base64_names import Base64Backend

    return Base64Backend(clock)


def _relative(definition: RelativeDefinition, clock: Clock) -> Backend:
    raise StorageConfigError(f'mount {definition.name!r}: a directory of a mount has no backend of its own')


_ARCHIVES: dict[type[Definition], Callable[[], tuple['Load', 'Nonsense']]] = {
    ZipDefinition: _zip,
    TarDefinition: _tar,
    LibarchiveDefinition: _libarchive,
}

_FACTORIES: dict[type[Definition], Callable[..., Backend]] = {
    LocalDefinition: _local,
    MemoryDefinition: _memory,
    S3Definition: _s3,
    GcsDefinition: _gcs,
    AzureDefinition: _azure,
    HttpDefinition: _http,
    WebdavDefinition: _webdav,
    FtpDefinition: _ftp,
    SftpDefinition: _sftp,
    SmbDefinition: _smb,
    FsspecDefinition: _fsspec,
    GitDefinition: _git,
    GithubDefinition: _github,
    Base64Definition: _base64,
    RelativeDefinition: _relative,
}
