"""Requests to one bucket, through s3fs: its sessions, credentials and signing, on fsspec's event loop.

Owns the connection of each process, the time limits and the waiting between a calling thread and the loop. Does not
know what a request is for. Every failure leaves here as a StorageError.

Threads: safe. Coroutines run on fsspec's one loop thread, so none of them may wait for anything but the network.
"""

import asyncio
import os
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from genro_storage.backends.per_process import PerProcess
from genro_storage.backends.ranges import ReceivedRange
from genro_storage.backends.s3_errors import UNEXPLAINED, is_dropped_connection, status_of, translate_s3
from genro_storage.entry import Extent
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageTimeoutError,
    StorageUnavailableError,
)

T = TypeVar('T')

# However patient a mount is: a host that has not accepted a connection by then is not there.
_CONNECT_TIMEOUT_MAX_S = 10.0

# Botocore's 10 would make one mount's reads wait for its uploads.
_CONNECTIONS_MAX = 64

# aiohttp starts the read timeout when a body has been sent, so a server that stops receiving would never be noticed.
# An upload slower than this counts as one that makes no progress.
_SLOWEST_UPLOAD_BYTES_S = 64 << 10

# Time for the connections to be closed; what is not by then goes with the process.
_CLOSE_TIMEOUT_S = 1.0

# Asking these twice changes nothing. A conditional write is not among them: its second attempt would fail on what the
# first one wrote.
_REPEATABLE = frozenset(
    {'get_object', 'head_object', 'list_objects_v2', 'upload_part', 'upload_part_copy', 'abort_multipart_upload'}
)

# RFC 9110, 15.5.17.
_RANGE_NOT_SATISFIABLE = 416


class S3Client:
    """A bucket and how to reach it; connects on first use."""

    def __init__(self, bucket: str, destination: str, arguments: Mapping[str, Any], *, timeout_s: float) -> None:
        self.bucket = bucket
        self.destination = destination
        self._timeout_s = timeout_s
        self._process = PerProcess(lambda: _Connection(arguments, timeout_s))

    def prepare(self) -> None:
        """Import s3fs and make a file system of it, connecting nowhere. Raises StorageConfigError."""
        self._process.get()

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> T:
        """Run a coroutine function on the loop and wait for what it returns."""
        return self.wait(self.start(function, *args, **kwargs))

    def start(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> 'Future[T]':
        """Run a coroutine function on the loop; its outcome later."""
        self._process.get()  # an extra that is not installed is said here, not on the loop
        return asyncio.run_coroutine_threadsafe(function(*args, **kwargs), _loop())

    def wait(self, future: 'Future[T]') -> T:
        """The outcome of what was started. An interrupt cancels it."""
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request about the bucket; what the server answered. A broken connection is tried once more."""
        try:
            return await self._guarded(self._request(operation, parameters), parameters)
        except StorageError as error:
            if operation == 'head_object' and status_of(error) in UNEXPLAINED:
                await self.read(Extent(0, 1), **parameters)
            raise

    async def read(self, extent: Extent, **parameters: Any) -> bytes:
        """A part of an object by one GetObject; empty behind its end. Raises InterruptedReadError."""
        parameters['Range'] = f'bytes={extent.offset}-{extent.end - 1}'
        try:
            return await self._guarded(self._get(extent, parameters), parameters)
        except StorageIOError as error:
            if status_of(error) == _RANGE_NOT_SATISFIABLE:
                return b''
            raise

    async def url(self, key: str, valid_s: float) -> str:
        """From which anybody can get an object for so long."""
        parameters = {'Bucket': self.bucket, 'Key': key}
        return await self._guarded(self._process.get().url(parameters, max(1, int(valid_s))), parameters)

    def close(self) -> None:
        """Close the connections of this process. Idempotent."""
        connection = self._process.take()
        if connection is not None:
            connection.close()

    async def _guarded(self, request: Coroutine[Any, Any, T], parameters: Mapping[str, Any]) -> T:
        what = self._what(parameters)
        body = parameters.get('Body')
        limit_s = None if body is None else self._timeout_s + len(body) / _SLOWEST_UPLOAD_BYTES_S
        try:
            return await asyncio.wait_for(request, limit_s)
        except StorageError:
            raise
        except TimeoutError as error:
            raise StorageTimeoutError(f'{what}: no progress within {limit_s or self._timeout_s:g} s') from error
        except Exception as error:
            raise translate_s3(error, self.bucket, what) from error

    async def _request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        connection = self._process.get()
        try:
            return await connection.call(operation, Bucket=self.bucket, **parameters)
        except Exception as error:
            if operation not in _REPEATABLE or not is_dropped_connection(error):
                raise
        return await connection.call(operation, Bucket=self.bucket, **parameters)

    async def _get(self, extent: Extent, parameters: Mapping[str, Any]) -> bytes:
        answer = await self._request('get_object', parameters)
        async with answer['Body'] as body:
            what = self._what(parameters)
            self._check_tag(answer, parameters, what)
            status = answer['ResponseMetadata']['HTTPStatusCode']
            arriving = ReceivedRange(extent, status, answer.get('ContentRange'), what)
            try:
                # What has arrived, not all of it, so that none is lost when the connection breaks off.
                while arriving.missing_bytes and (piece := await body.read(extent.size_bytes)):
                    arriving.add(piece)
            except Exception as error:
                ours = translate_s3(error, self.bucket, what)
                if isinstance(ours, StorageUnavailableError):
                    raise arriving.interrupted('the connection broke off') from error
                raise ours from error
            return arriving.result()

    def _check_tag(self, answer: Mapping[str, Any], parameters: Mapping[str, Any], what: str) -> None:
        if 'IfMatch' in parameters and answer.get('ETag', parameters['IfMatch']) != parameters['IfMatch']:
            # The server took no notice of the condition.
            raise StorageConflictError(f'{what} is another version, whatever was asked for')

    def _what(self, parameters: Mapping[str, Any]) -> str:
        return f'{self.destination}: {parameters.get("Key", parameters.get("Prefix", ""))!r}'


class _Connection:
    """One process's s3fs, and the end of its sessions."""

    def __init__(self, arguments: Mapping[str, Any], timeout_s: float) -> None:
        self._filesystem = _make_filesystem(arguments, timeout_s)
        # s3fs has a finalizer of its own only where it is not asynchronous, and that one blocks in a forked child.
        self._finalizer = weakref.finalize(self, _close, self._filesystem, os.getpid())

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self._filesystem._call_s3(operation, **parameters)
        return answer

    async def url(self, parameters: Mapping[str, str], valid_s: int) -> str:
        await self._filesystem.set_session()
        client = await self._filesystem.get_s3(parameters['Bucket'])
        return str(await client.generate_presigned_url('get_object', Params=parameters, ExpiresIn=valid_s))

    def close(self) -> None:
        self._finalizer()


def _make_filesystem(arguments: Mapping[str, Any], timeout_s: float) -> Any:
    try:
        from s3fs import S3FileSystem
    except ImportError as error:
        raise StorageConfigError("S3 needs a package that is not installed: pip install 'genro-storage[s3]'") from error
    config = {
        'connect_timeout': min(_CONNECT_TIMEOUT_MAX_S, timeout_s),
        'read_timeout': timeout_s,
        'max_pool_connections': _CONNECTIONS_MAX,
        # One attempt each of botocore and s3fs: whoever knows the operation decides about more.
        'retries': {'total_max_attempts': 1, 'mode': 'standard'},
    }
    own = {'skip_instance_cache': True, 'use_listings_cache': False, 'asynchronous': True}
    merged = own | dict(arguments) | {'config_kwargs': config | arguments.get('config_kwargs', {})}
    try:
        filesystem = S3FileSystem(**merged)
    except (TypeError, ValueError, KeyError) as error:
        raise StorageConfigError(f's3fs refuses these options: {error}') from error
    filesystem.retries = 1
    return filesystem


def _loop() -> asyncio.AbstractEventLoop:
    from fsspec.asyn import get_loop

    loop: asyncio.AbstractEventLoop = get_loop()
    return loop


def _close(filesystem: Any, pid: int) -> None:
    client = filesystem._s3
    if client is None or os.getpid() != pid:
        return
    closing = asyncio.run_coroutine_threadsafe(client.close(), _loop())
    try:
        closing.result(_CLOSE_TIMEOUT_S)
    except TimeoutError:
        closing.cancel()
