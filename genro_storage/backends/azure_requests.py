"""Requests to one container of Azure Blob Storage, by the client that adlfs makes with its credentials.

Owns what a request looks like and what its answers mean. adlfs's own methods are not used: they check no condition,
hide the status behind a text, and list a whole directory where its first key is asked for.

A version is an ETag. Conditions are checked by the server, of uploads in parts too.

Threads: coroutines run on fsspec's loop; an upload in parts belongs to the thread that makes it.
"""

import asyncio
import io
import os
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from genro_storage.backends.base import Expected, Headers, LengthLimit, Source
from genro_storage.backends.content_types import content_type_of
from genro_storage.backends.copying import read_exactly, read_part
from genro_storage.backends.fsspec_errors import translate
from genro_storage.backends.http_errors import NOT_FOUND, RANGE_NOT_SATISFIABLE, refusal
from genro_storage.backends.loop_requests import (
    CLOSE_TIMEOUT_S,
    CONNECT_TIMEOUT_MAX_S,
    event_loop,
    run,
    sending_limit_s,
    start,
)
from genro_storage.backends.object_requests import Commit, ListingPage, StoredObject
from genro_storage.entry import Extent, Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageNameTooLongError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

T = TypeVar('T')

# Of 50,000 blocks, which is what a blob may have: 390 GiB; larger files get larger ones.
_BLOCK_BYTES = 8 << 20
_BLOCKS_MAX = 50_000
_BLOCKS_IN_FLIGHT = 4

# Between two looks at a copy that the server makes; most are made when it answers.
_COPY_PAUSE_S = 0.2

# "Naming and referencing containers, blobs": characters, not bytes.
KEY_LIMIT = LengthLimit(1024, in_characters=True)

_CODES: dict[str, type[StorageError]] = {
    # 400: another upload to the same blob was committed and took our blocks with it.
    'InvalidBlockList': StorageConflictError,
    'OperationTimedOut': StorageTimeoutError,  # 500
    'InvalidResourceName': StoragePathError,  # 400
    'InvalidMetadata': StorageUnsupportedError,  # 400: names are those of C#'s identifiers
    'ContainerBeingDeleted': StorageUnavailableError,  # 409
}


class AzureConnection:
    """See LoopConnection. ``make_filesystem`` makes an adlfs file system; it raises StorageConfigError."""

    # Azure's client hands bytes to aiohttp, which writes more than this at once, holding up the loop, and warns of it.
    single_put_max_bytes = 1 << 20

    def __init__(self, container: str, destination: str, make_filesystem: Callable[[], Any], timeout_s: float) -> None:
        self._name = container
        self._destination = destination
        self._timeout_s = timeout_s
        self._filesystem = make_filesystem()
        self._closing = _take_over_closing(self._filesystem)
        self._container = self._filesystem.service_client.get_container_client(container)
        # Of each request. One attempt: whoever knows the operation decides about more.
        self._limits = {
            'connection_timeout': min(CONNECT_TIMEOUT_MAX_S, timeout_s),
            'read_timeout': timeout_s,
            'retry_total': 0,
        }

    # Looking

    async def head(self, key: str) -> StoredObject | None:
        """See LoopConnection."""
        if not _is_expressible(key):
            return None
        try:
            found = await self._guarded(self._blob(key).get_blob_properties(**self._limits), key)
        except StorageNotFoundError:
            return None
        # What other programs and hierarchical namespaces keep for a directory, under the name of the directory.
        metadata = {name.lower(): value for name, value in (found.metadata or {}).items()}
        if metadata.get('hdi_isfolder') == 'true':
            return None
        return msgspec.structs.replace(_stored(found), metadata=metadata)

    async def headers(self, key: str) -> Headers | None:
        """See LoopConnection."""
        if not _is_expressible(key):
            return None
        try:
            found = await self._guarded(self._blob(key).get_blob_properties(**self._limits), key)
        except StorageNotFoundError:
            return None
        return Headers(found.etag, found.content_settings.content_type)

    def url(self, key: str, valid_s: float) -> str:
        """See LoopConnection. Signed with the account's key; a token for more than this is not handed on."""
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        held = self._filesystem.service_client.credential
        if getattr(held, 'account_key', None) is None:
            raise StorageUnsupportedError(
                f"{self._what(key)}: no URL can be signed with these credentials; expected the account's key"
            )
        signature = generate_blob_sas(
            account_name=held.account_name,
            container_name=self._name,
            blob_name=key,
            account_key=held.account_key,
            permission=BlobSasPermissions(read=True),
            expiry=datetime.now(UTC) + timedelta(seconds=max(1, int(valid_s))),
        )
        return f'{self._blob(key).url}?{signature}'

    async def page(
        self, prefix: str, delimiter: str, limit: int | None, after: str | None
    ) -> tuple[ListingPage, str | None]:
        """See LoopConnection."""
        if not _is_expressible(prefix):
            return ListingPage(()), None
        asked: dict[str, Any] = {'name_starts_with': prefix, 'results_per_page': limit, **self._limits}
        if delimiter:
            listing = self._container.walk_blobs(delimiter=delimiter, **asked)
        else:
            listing = self._container.list_blobs(**asked)
        return await self._guarded(_page(listing.by_page(after)), prefix)

    async def read(self, key: str, offset: int, size_bytes: int, tag: str | None) -> bytes:
        """See LoopConnection."""
        if not _is_expressible(key):
            raise StorageNotFoundError(f'{self._what(key)}: nothing is there')

        async def download() -> bytes:
            asked = {'offset': offset, 'length': size_bytes, **_if_match(tag), **self._limits}
            stream = await self._blob(key).download_blob(**asked)
            return bytes(await stream.readall())

        return await self._guarded(download(), key, behind_the_end=b'')

    # Writing

    async def put(self, key: str, data: bytes, expected: Expected, metadata: Mapping[str, str]) -> StoredObject:
        """See LoopConnection."""
        self._refuse(key)
        putting = self._blob(key).upload_blob(
            data,
            length=len(data),
            overwrite=True,
            max_concurrency=1,
            metadata=dict(metadata),
            **_typed(key),
            **_condition(expected),
            **self._limits,
        )
        return await self._storing(putting, key, len(data))

    async def describe(self, key: str, metadata: Mapping[str, str], tag: str | None) -> StoredObject:
        """See LoopConnection. The version is another one then."""
        there = await self.head(key)
        if there is None:
            raise StorageNotFoundError(f'{self._what(key)}: nothing is there')
        condition = _if_match(there.tag if tag is None else tag)
        setting = self._blob(key).set_blob_metadata(dict(metadata), **condition, **self._limits)
        stored = await self._storing(setting, key, 0)
        return msgspec.structs.replace(stored, size_bytes=there.size_bytes, metadata=metadata)

    @contextmanager
    def upload(self, key: str, source: Source, metadata: Mapping[str, str]) -> Iterator[Commit]:
        """See LoopConnection. What was not committed nobody sees, and Azure forgets it after a week."""
        upload = self.begin(key, metadata)
        block_bytes = max(_BLOCK_BYTES, -(-source.size_bytes // _BLOCKS_MAX))
        extents = [
            Extent(offset, min(block_bytes, source.size_bytes - offset))
            for offset in range(0, source.size_bytes, block_bytes)
        ]
        self._send(upload, source, extents)
        yield lambda expected: upload.complete(len(extents), expected)

    def begin(self, key: str, metadata: Mapping[str, str]) -> '_BlockUpload':
        """See LoopConnection. What was not committed nobody sees, and Azure forgets it after a week."""
        self._refuse(key)
        return _BlockUpload(self, key, metadata)

    async def stage(self, key: str, name: str, data: bytes) -> None:
        """Store a block that nobody sees before it is committed."""
        limit_s = sending_limit_s(len(data), self._timeout_s)
        staging = self._blob(key).stage_block(name, io.BytesIO(data), length=len(data), **self._limits)
        await self._guarded(staging, key, limit_s=limit_s)

    async def commit(
        self, key: str, names: Sequence[str], expected: Expected, metadata: Mapping[str, str]
    ) -> StoredObject:
        """Make blocks the content of a blob."""
        from azure.storage.blob import BlobBlock

        named = [BlobBlock(block_id=name) for name in names]
        committing = self._blob(key).commit_block_list(
            named, metadata=dict(metadata), **_typed(key), **_condition(expected), **self._limits
        )
        return await self._storing(committing, key, 0)

    async def remove(self, key: str) -> None:
        """See LoopConnection."""
        if not _is_expressible(key):
            return
        with suppress(StorageNotFoundError):
            await self._guarded(self._blob(key).delete_blob(delete_snapshots='include', **self._limits), key)

    async def copy(
        self, source: str, target: str, tag: str | None, expected: Expected, metadata: Mapping[str, str] | None
    ) -> StoredObject:
        """See LoopConnection. The server may take its time, and is asked how far it is."""
        self._refuse(target)
        blob = self._blob(target)
        asked = {**_if_source_match(tag), **_condition(expected), **self._limits}
        if metadata is not None:
            asked['metadata'] = dict(metadata)
        copying = blob.start_copy_from_url(self._blob(source).url, **asked)
        answer = await self._guarded(copying, source)
        status, progress, moved_at = answer['copy_status'], '', time.monotonic()
        while status == 'pending':
            await asyncio.sleep(_COPY_PAUSE_S)
            found = (await self._guarded(blob.get_blob_properties(**self._limits), target)).copy
            status = found.status
            if found.progress != progress:
                progress, moved_at = found.progress, time.monotonic()
            elif status == 'pending' and time.monotonic() - moved_at > self._timeout_s:
                await self._guarded(blob.abort_copy(answer['copy_id'], **self._limits), target)
                raise StorageTimeoutError(f'{self._what(target)}: a copy stood still for {self._timeout_s:g} s')
        if status != 'success':
            raise StorageIOError(f'{self._what(target)}: the server ended a copy with {status!r}')
        return StoredObject(target, 0, int(answer['last_modified'].timestamp()), str(answer['etag']).strip('"'))

    def close(self) -> None:
        """See LoopConnection."""
        self._closing()

    # Uploads in parts

    def _send(self, upload: '_BlockUpload', source: Source, extents: Sequence[Extent]) -> None:
        """Bring up all blocks, some at once. None is under way any more when this returns or raises."""
        under_way: deque[Future[None]] = deque()
        try:
            for number, extent in enumerate(extents, start=1):
                if len(under_way) >= _BLOCKS_IN_FLIGHT:
                    under_way.popleft().result()
                data = read_exactly(source, extent.offset, extent.size_bytes)
                under_way.append(start(upload.staging(number, data)))
            while under_way:
                under_way.popleft().result()
        except BaseException:
            for future in under_way:
                future.cancel()
            raise

    async def _storing(self, request: Coroutine[Any, Any, Any], key: str, size_bytes: int) -> StoredObject:
        """Wait for a request that stores a blob."""
        try:
            answer = await self._guarded(request, key, limit_s=sending_limit_s(size_bytes, self._timeout_s))
        except StorageNotFoundError as error:
            raise StorageNotFoundError(f'{self._what(key)}: there is no container {self._name!r}') from error
        return StoredObject(key, size_bytes, int(answer['last_modified'].timestamp()), str(answer['etag']).strip('"'))

    # Requests

    async def _guarded(
        self,
        request: Coroutine[Any, Any, T],
        key: str,
        *,
        limit_s: float | None = None,
        behind_the_end: T | None = None,
    ) -> T:
        """Wait for a request. Raises a StorageError for whatever it raises."""
        try:
            return await asyncio.wait_for(request, limit_s)
        except StorageError:
            raise
        except TimeoutError as error:
            raise StorageTimeoutError(f'{self._what(key)}: no progress within {self._timeout_s:g} s') from error
        except Exception as error:
            if behind_the_end is not None and getattr(error, 'status_code', None) == RANGE_NOT_SATISFIABLE:
                return behind_the_end
            raise self._translated(error, key) from error

    def _translated(self, error: Exception, key: str) -> StorageError:
        from azure.core import exceptions as azure

        what = self._what(key)
        status = getattr(error, 'status_code', None)
        if status is not None and 200 <= status < 300:
            return StorageUnavailableError(f'{what}: an answer not of its kind; is this a server of Azure blobs?')
        if isinstance(error, azure.HttpResponseError) and status is not None:
            # The code alone: messages repeat what was signed, and whole answers.
            code = str(getattr(getattr(error, 'error_code', ''), 'value', getattr(error, 'error_code', '')) or '')
            if status == NOT_FOUND and code == 'ContainerNotFound':
                return StorageNotFoundError(f'{what}: there is no container {self._name!r}')
            ours = _CODES.get(code)
            return ours(f'{what}: {status} {code}') if ours is not None else refusal(status, what, code)
        # In order: the first class that fits.
        table: tuple[tuple[type[Exception], type[StorageError]], ...] = (
            (azure.ServiceRequestTimeoutError, StorageTimeoutError),
            (azure.ServiceResponseTimeoutError, StorageTimeoutError),
            (azure.ClientAuthenticationError, StoragePermissionError),
            (azure.AzureError, StorageUnavailableError),  # no connection, or an answer that broke off
        )
        for foreign, ours_of_class in table:
            if isinstance(error, foreign):
                return ours_of_class(f'{what}: {type(error).__name__}')
        return translate(error, what)

    # Words

    def _blob(self, key: str) -> Any:
        return self._container.get_blob_client(key)

    def _what(self, key: str) -> str:
        return f'{self._destination}: {key!r}'

    def _refuse(self, key: str) -> None:
        if not _is_expressible(key) or any(name.endswith('.') for name in key.split('/')):
            raise StoragePathError(
                f'{self._what(key)}: Azure keeps no backslashes, no control characters and no dot at the end of a name'
            )
        if not KEY_LIMIT.allows(key):
            raise StorageNameTooLongError(f'{self._what(key[:40])}…: Azure allows {KEY_LIMIT} in all')


class _BlockUpload:
    """See ObjectUpload. There is nothing to abort: another commit drops what was staged, a week does too."""

    token = ''

    def __init__(self, connection: AzureConnection, key: str, metadata: Mapping[str, str]) -> None:
        self._connection = connection
        self._key = key
        self._metadata = metadata
        # Names of equal length that no other upload to this blob has.
        self._prefix = uuid.uuid4().hex

    def send(self, number: int, source: Source, extent: Extent) -> None:
        """See ObjectUpload."""
        run(self.staging(number, read_part(source, extent.offset, extent.size_bytes)))

    def staging(self, number: int, data: bytes) -> Coroutine[Any, Any, None]:
        """What sends a part, to be run on the loop."""
        return self._connection.stage(self._key, self._name(number), data)

    def copy(self, number: int, extent: Extent, tag: str, source: str | None = None) -> None:
        """See ObjectUpload. Put Block From URL wants a signature of its own for the source, which a key cannot give."""
        raise StorageUnsupportedError(f'{self._key!r}: Azure makes no block of a part of a blob with these credentials')

    def complete(self, count: int, expected: Expected) -> StoredObject:
        """See ObjectUpload."""
        names = [self._name(number) for number in range(1, count + 1)]
        return run(self._connection.commit(self._key, names, expected, self._metadata))

    def abort(self) -> None:
        """See ObjectUpload."""

    def _name(self, number: int) -> str:
        return f'{self._prefix}-{number:06}'


def _is_expressible(key: str) -> bool:
    r"""Whether Azure can have such a key: it takes ``\`` for ``/`` and refuses control characters."""
    return '\\' not in key and all(letter > '\x1f' and letter not in '\x7f\x81' for letter in key)


async def _page(pages: Any) -> tuple[ListingPage, str | None]:
    from azure.storage.blob.aio import BlobPrefix

    objects: list[StoredObject] = []
    prefixes: list[str] = []
    async for page in pages:
        async for found in page:
            if isinstance(found, BlobPrefix):
                prefixes.append(str(found.name))
            else:
                objects.append(_stored(found))
        break
    return ListingPage(objects, prefixes), pages.continuation_token or None


def _stored(found: Any) -> StoredObject:
    return StoredObject(found.name, found.size, int(found.last_modified.timestamp()), found.etag.strip('"'))


def _typed(key: str) -> dict[str, Any]:
    from azure.storage.blob import ContentSettings

    content_type = content_type_of(key)
    return {} if content_type is None else {'content_settings': ContentSettings(content_type=content_type)}


def _condition(expected: Expected) -> dict[str, Any]:
    if expected is None:
        return {}
    if isinstance(expected, Version):
        return _if_match(expected.tag)
    from azure.core import MatchConditions

    return {'match_condition': MatchConditions.IfMissing}


def _if_match(tag: str | None) -> dict[str, Any]:
    if tag is None:
        return {}
    from azure.core import MatchConditions

    return {'etag': f'"{tag}"', 'match_condition': MatchConditions.IfNotModified}


def _if_source_match(tag: str | None) -> dict[str, Any]:
    return {f'source_{name}': value for name, value in _if_match(tag).items()}


def _take_over_closing(filesystem: Any) -> Callable[[], object]:
    """Have what an adlfs file system has open closed by the process that made it, and by no other.

    adlfs registers closing at exit in a way that a forked child does too, where it waits for ever for a loop without a
    thread.
    """
    # The registry has no public name; what it holds has.
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        found = finalizer.peek()
        if found is not None and found[0] is filesystem:
            finalizer.detach()
    opened = [filesystem.service_client, getattr(filesystem, 'credential', None)]
    return weakref.finalize(filesystem, _close, opened, event_loop(), os.getpid())


def _close(opened: list[Any], loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if os.getpid() != pid or not loop.is_running():
        return

    async def close_all() -> None:
        for one in opened:
            if hasattr(one, 'close'):
                await one.close()

    closing = start(close_all())
    try:
        closing.result(CLOSE_TIMEOUT_S)
    except TimeoutError:
        closing.cancel()
