"""A bucket of S3, or what lies below a prefix in it, as a Backend.

Owns what files and directories are in keys. A file is a key; a directory is what keys below it imply, or a marker, an
empty object named ``path/``: mkdir makes one, and so does whatever removes the last entry, so that a directory never
vanishes by itself. Of an object ``a`` beside ``a/b`` the directory is shown. Requests go through s3_client, large
objects through s3_multipart, directories are moved by s3_tree.

Versions are ETags. Conditions go with the write to the server (If-Match, If-None-Match); where it refuses them as not
implemented, the version is checked right before.

Threads: safe; there is no state but the connection.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Capabilities, Expected, Source
from genro_storage.backends.hidden_names import HiddenNames
from genro_storage.backends.oserrors import not_encodable, refuse_removing_root, refuse_rename
from genro_storage.backends.s3_client import S3Client
from genro_storage.backends.s3_keys import S3Keys
from genro_storage.backends.s3_multipart import MultipartUpload, body_of, copy_object
from genro_storage.backends.s3_tree import move_tree
from genro_storage.entry import Entry, Extent, Kind, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotEmptyError,
    StorageNotFoundError,
    StorageUnsupportedError,
)
from genro_storage.runtime import about_to_block

T = TypeVar('T')

# Up to here one request, which costs one round trip where parts cost three.
_SINGLE_PUT_MAX_BYTES = 16 << 20


class S3Backend:
    """``bucket``, below ``prefix``. Connects on first use; s3fs missing raises StorageConfigError then."""

    def __init__(
        self,
        bucket: str,
        prefix: str = '',
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        key: str | None = None,
        secret: str | None = None,
        token: str | None = None,
        profile: str | None = None,
        anon: bool = False,
        timeout_s: float = 30.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._destination = destination_of(bucket, prefix, endpoint_url)
        arguments = dict(options or {})
        given = {'endpoint_url': endpoint_url, 'key': key, 'secret': secret, 'token': token, 'profile': profile}
        arguments |= {name: value for name, value in given.items() if value is not None}
        if anon:
            arguments['anon'] = True
        if region is not None:
            arguments['client_kwargs'] = {'region_name': region} | dict(arguments.get('client_kwargs', {}))
        self._client = S3Client(bucket, self._destination, arguments, timeout_s=timeout_s)
        self._prefix = prefix
        self.hidden = HiddenNames(self._destination)
        self._keys = S3Keys(self._client, prefix, self.hidden)

    def __repr__(self) -> str:
        return f'S3Backend({self._destination!r})'

    @property
    def capabilities(self) -> Capabilities:
        """See Backend."""
        return Capabilities(strong_versions=True, conditional_put=True, real_directories=False)

    @property
    def destination(self) -> str:
        """See Backend."""
        return self._destination

    def stat(self, path: str) -> Entry:
        """See Backend. The times of directories are not known."""
        return self._run(path, self._stat)

    def list_directory(self, path: str) -> Sequence[Entry]:
        """See Backend."""
        return self._run(path, self._list)

    def read_range(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        """See Backend."""
        return self._run(path, self._read, offset, size_bytes, version)

    def put(self, path: str, source: Source, *, expected: Expected = None) -> Entry:
        """See Backend. The modification time is the server's, asked for afterwards."""
        self._run(path, self._check_target, expected)
        key = self._keys.file(path)
        if source.size_bytes <= _SINGLE_PUT_MAX_BYTES:
            body = body_of(source, Extent(0, source.size_bytes))
            store = partial(self._client.run, self._client.call, 'put_object', Key=key, Body=body)
            answer = self._commit(path, expected, store)
        else:
            with MultipartUpload(self._client, key, source) as upload:
                answer = self._commit(path, expected, upload.complete)
        return self._run(path, self._stored, source.size_bytes, answer)

    def remove_file(self, path: str) -> None:
        """See Backend."""
        self._run(path, self._remove_file)

    def make_directory(self, path: str) -> None:
        """See Backend."""
        self._run(path, self._make_directory)

    def remove_directory(self, path: str) -> None:
        """See Backend."""
        refuse_removing_root(path, self._shown(path))
        self._run(path, self._remove_directory)

    def rename(self, source: str, target: str) -> None:
        """See Backend. Copies, then removals: nothing is removed before all of it has arrived."""
        refuse_rename(source, target, self._shown(source))
        self._refuse_surrogates(target)
        self._run(source, self._rename, target)

    def copy(self, source: str, target: str) -> Entry:
        """See Backend."""
        self._refuse_surrogates(target)
        return self._run(source, self._copy, target)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See Backend. LastModified is the server's own."""
        raise StorageUnsupportedError(f'{self._shown(path)}: S3 does not let the time be set to {mtime_ns}')

    def usage(self) -> None:
        """See Backend. A bucket has no size."""

    def close(self) -> None:
        """See Backend."""
        self._client.close()

    # Looking

    async def _stat(self, path: str) -> Entry:
        entry = await self._keys.find(path)
        if entry is None:
            raise StorageNotFoundError(f'{self._shown(path)}: nothing is there')
        return entry

    async def _list(self, path: str) -> Sequence[Entry]:
        entries = await self._keys.children(path)
        if entries is None:
            await self._require_directory(path)
            return []
        return entries

    async def _read(self, path: str, offset: int, size_bytes: int, version: Version | None) -> bytes:
        if not size_bytes or not path:
            await self._require_file(path)
            return b''
        parameters = {'Key': self._keys.file(path)}
        if version is not None:
            parameters['IfMatch'] = _quoted(version)
        try:
            return await self._client.read(Extent(offset, size_bytes), **parameters)
        except StorageConflictError as error:
            raise StorageConflictError(f'{self._shown(path)} has changed since it was opened') from error
        except StorageNotFoundError as error:
            if version is not None:
                raise StorageConflictError(f'{self._shown(path)} is gone since it was opened') from error
            await self._require_file(path)
            raise

    async def _file(self, path: str) -> Entry:
        entry = await self._stat(path)
        if entry.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(path)} is a directory')
        return entry

    async def _require_file(self, path: str) -> None:
        await self._file(path)

    async def _require_directory(self, path: str) -> None:
        if not (await self._stat(path)).is_directory:
            raise StorageNotADirectoryError(f'{self._shown(path)} is not a directory')

    # Writing

    async def _check_target(self, path: str, expected: Expected) -> None:
        """What no condition of a PUT can say: that neither the path is a directory nor a parent of it a file."""
        if await self._keys.is_directory(path):
            error = StorageExistsError if expected is ABSENT else StorageIsADirectoryError
            raise error(f'{self._shown(path)} is a directory')
        blocking = await self._keys.file_above(path)
        if blocking is not None:
            raise StorageNotADirectoryError(f'{self._shown(path)}: {blocking!r} is a file')

    def _commit(self, path: str, expected: Expected, store: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        """Send the request that makes a content visible, under the condition that was asked for."""
        try:
            return store(**_conditions(expected))
        except StorageConflictError as error:
            raise self._unexpected(path, expected) from error
        except StorageNotFoundError as error:
            # If-Match where nothing is. A missing bucket is a 404 too; looking at the root then says so.
            if not isinstance(expected, Version):
                raise
            self._run('', self._keys.find)
            raise self._unexpected(path, expected) from error
        except StorageUnsupportedError:
            if expected is None:
                raise
        self._run(path, self._check_expected, expected)
        return store()

    async def _check_expected(self, path: str, expected: Expected) -> None:
        entry = await self._keys.find(path)
        if (entry is None) != (expected is ABSENT) or (entry is not None and entry.version != expected):
            raise self._unexpected(path, expected)

    def _unexpected(self, path: str, expected: Expected) -> StorageExistsError | StorageConflictError:
        if expected is ABSENT:
            return StorageExistsError(f'{self._shown(path)} exists')
        return StorageConflictError(f'{self._shown(path)} has changed since it was opened, or is gone')

    async def _stored(self, path: str, size_bytes: int, answer: Mapping[str, Any]) -> Entry:
        # The answer to a PUT has the ETag but no LastModified, and its Date is not the same: of an object in parts
        # Amazon shows the time at which the upload began. Asking keeps this entry equal to what stat says next.
        version = Version(answer['ETag'].strip('"'), strong=True)
        entry = await self._keys.head(path)
        if entry is not None and entry.version == version:
            return entry
        # Somebody replaced it already; what was stored here is still what this put returns.
        return Entry(paths.basename(path), Kind.FILE, size_bytes, entry.mtime_ns if entry else 0, version)

    async def _make_directory(self, path: str) -> None:
        if await self._keys.find(path) is not None:
            raise StorageExistsError(f'{self._shown(path)} exists')
        await self._require_directory(paths.parent(path))
        try:
            await self._keys.mark(path, IfNoneMatch='*')
        except StorageConflictError as error:
            raise StorageExistsError(f'{self._shown(path)} exists') from error
        except StorageUnsupportedError:
            await self._keys.mark(path)

    # Removing and moving

    async def _remove_file(self, path: str) -> None:
        await self._require_file(path)
        await self._client.call('delete_object', Key=self._keys.file(path))
        await self._keys.keep(paths.parent(path))

    async def _remove_directory(self, path: str) -> None:
        below = await self._keys.below(path, 2)
        if not below:
            await self._require_directory(path)
        marker = self._keys.directory(path)
        if any(key != marker for key in below):
            raise StorageNotEmptyError(f'{self._shown(path)} is not empty')
        await self._client.call('delete_object', Key=marker)
        await self._keys.keep(paths.parent(path))

    async def _rename(self, source: str, target: str) -> None:
        moving = await self._stat(source)
        await self._require_directory(paths.parent(target))
        if source == target:
            return
        await self._refuse_replacing(moving, target)
        if moving.is_directory:
            await move_tree(self._client, self._keys.directory(source), self._keys.directory(target))
        else:
            await copy_object(self._client, self._keys.file(source), self._keys.file(target), moving.size_bytes)
            await self._client.call('delete_object', Key=self._keys.file(source))
        await self._keys.keep(paths.parent(source))

    async def _refuse_replacing(self, moving: Entry, target: str) -> None:
        there = await self._keys.find(target)
        if there is None:
            return
        if there.is_directory and not moving.is_directory:
            raise StorageIsADirectoryError(f'{self._shown(target)} is a directory and a file cannot replace it')
        if moving.is_directory and not there.is_directory:
            raise StorageNotADirectoryError(f'{self._shown(target)} is a file and a directory cannot replace it')
        if there.is_directory and await self._keys.has_entries(target):
            raise StorageNotEmptyError(f'{self._shown(target)} is not empty')

    async def _copy(self, source: str, target: str) -> Entry:
        entry = await self._file(source)
        await self._check_target(target, None)
        await copy_object(self._client, self._keys.file(source), self._keys.file(target), entry.size_bytes)
        return await self._stat(target)

    # Inside

    def _run(self, path: str, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        about_to_block()
        self._refuse_surrogates(path)
        return self._client.run(function, path, *args)

    def _refuse_surrogates(self, path: str) -> None:
        # Keys are UTF-8 (S3 user guide, "Naming Amazon S3 objects").
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise not_encodable(self._shown(path)) from error

    def _shown(self, path: str) -> str:
        return repr(f'{self._destination}/{path}') if path else repr(self._destination)


def destination_of(bucket: str, prefix: str, endpoint_url: str | None) -> str:
    """Where a bucket and prefix really are; without the user and password that an URL may hold."""
    url = urlsplit(endpoint_url or 'https://s3.amazonaws.com')
    host = url.netloc.rpartition('@')[2]
    return '/'.join(['s3:' + host + url.path.rstrip('/'), bucket, prefix]).rstrip('/')


def _conditions(expected: Expected) -> dict[str, str]:
    if expected is None:
        return {}
    if isinstance(expected, Version):
        return {'IfMatch': _quoted(expected)}
    return {'IfNoneMatch': '*'}


def _quoted(version: Version) -> str:
    return f'"{version.tag}"'
