"""Large objects in parts: uploads from a local file and copies inside the server.

Owns the sizes of parts, how many are under way, and that a failure leaves no upload behind to be paid for. The limits
are those of the S3 user guide ("Amazon S3 multipart upload limits").

Threads: an upload belongs to the thread that makes it. Sources are read by their descriptors, from other threads too,
and never by read(), whose lock that thread may hold.
"""

import asyncio
import io
import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, Self

from genro_storage.backends.base import Source
from genro_storage.backends.copying import read_exactly
from genro_storage.backends.s3_client import S3Client
from genro_storage.entry import Extent
from genro_storage.errors import StorageError, StorageIOError

log = logging.getLogger(__name__)

PARTS_MAX = 10_000
_MIB = 1 << 20

# S3 wants 5 MiB at least; a failed one is sent again as a whole.
_PART_BYTES = 8 * _MIB
_PARTS_IN_FLIGHT = 4

# Up to here bytes, which need no thread to be read. Larger bodies are read while they are sent: four parts of 8 MiB as
# bytes, which aiohttp copies, took 79 MiB for an upload; read along, 12 MiB in the same time.
_HEAP_BODY_MAX_BYTES = 1 * _MIB

# What one CopyObject can copy.
SINGLE_COPY_MAX_BYTES = 5 << 30
# A server copies 512 MiB in about the time of its round trips; 10,000 of them are just short of the 5 TiB limit.
_COPY_PART_BYTES = 512 * _MIB


def part_extents(size_bytes: int, smallest_bytes: int = _PART_BYTES) -> Iterator[Extent]:
    """The parts of an object: all of one size but the last (R2 demands that), in whole MiB, at most PARTS_MAX."""
    least = -(-size_bytes // PARTS_MAX)
    part_bytes = max(smallest_bytes, -(-least // _MIB) * _MIB)
    for offset in range(0, size_bytes, part_bytes):
        yield Extent(offset, min(part_bytes, size_bytes - offset))


class MultipartUpload:
    """A source on its way to a key, invisible until complete(). Leaving the ``with`` without it aborts the upload."""

    def __init__(self, client: S3Client, key: str, source: Source) -> None:
        self._client = client
        self._key = key
        self._source = source
        self._upload: dict[str, str] = {}
        self._parts: list[dict[str, Any]] = []
        self._under_way: deque[tuple[int, Future[dict[str, Any]]]] = deque()
        self._completed = False

    def __enter__(self) -> Self:
        answer = self._client.run(self._client.call, 'create_multipart_upload', Key=self._key)
        self._upload = {'Key': self._key, 'UploadId': answer['UploadId']}
        try:
            self._send()
        except BaseException:
            self._abort()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._completed:
            self._abort()

    def complete(self, **conditions: str) -> dict[str, Any]:
        """Make the object visible, under conditions (IfMatch, IfNoneMatch); the server's answer."""
        answer = self._client.run(
            self._client.call,
            'complete_multipart_upload',
            **self._upload,
            MultipartUpload={'Parts': self._parts},
            **conditions,
        )
        self._completed = True
        return answer

    def _send(self) -> None:
        for number, extent in enumerate(part_extents(self._source.size_bytes), start=1):
            body = body_of(self._source, extent)
            while len(self._under_way) >= _PARTS_IN_FLIGHT:
                self._collect()
            future = self._client.start(self._client.call, 'upload_part', **self._upload, PartNumber=number, Body=body)
            self._under_way.append((number, future))
        while self._under_way:
            self._collect()

    def _collect(self) -> None:
        number, future = self._under_way[0]
        self._parts.append(completed_part(number, self._client.wait(future)))
        self._under_way.popleft()

    def _abort(self) -> None:
        # A part that arrived after the abort would stay for ever, so those under way end first.
        for _, future in self._under_way:
            future.cancel()
        wait([future for _, future in self._under_way])
        self._client.run(abort, self._client, self._upload)


def body_of(source: Source, extent: Extent) -> 'bytes | _Body':
    """Some of a source as the body of a request."""
    if extent.size_bytes <= _HEAP_BODY_MAX_BYTES:
        return read_exactly(source, extent.offset, extent.size_bytes)
    return _Body(source.fileno(), extent)


def completed_part(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    """How CompleteMultipartUpload wants to be told of a part: its ETag, and the checksum that was sent along."""
    told = {name: value for name, value in answer.items() if name == 'ETag' or name.startswith('Checksum')}
    return {'PartNumber': number, **told}


async def abort(client: S3Client, upload: dict[str, str]) -> None:
    """Have the server forget an upload. A failure is logged: the error that led here is the one to raise."""
    try:
        await client.call('abort_multipart_upload', **upload)
    except StorageError as error:
        log.warning('%s: upload %s was not aborted and its parts remain: %s', upload['Key'], upload['UploadId'], error)


async def copy_object(
    client: S3Client, source: str, target: str, size_bytes: int, *, single_max_bytes: int = SINGLE_COPY_MAX_BYTES
) -> None:
    """Copy a key to another inside the server, in parts where one request cannot."""
    origin = {'Bucket': client.bucket, 'Key': source}
    if size_bytes <= single_max_bytes:
        await client.call('copy_object', Key=target, CopySource=origin)
        return
    head = await client.call('head_object', Key=source)
    # CopyObject takes these along by itself.
    kept = {name: head[name] for name in ('ContentType', 'ContentEncoding', 'CacheControl', 'Metadata') if name in head}
    answer = await client.call('create_multipart_upload', Key=target, **kept)
    upload = {'Key': target, 'UploadId': answer['UploadId']}
    room = asyncio.Semaphore(_PARTS_IN_FLIGHT)

    async def copy_part(number: int, extent: Extent) -> dict[str, Any]:
        async with room:
            part = await client.call(
                'upload_part_copy',
                **upload,
                PartNumber=number,
                CopySource=origin,
                CopySourceIfMatch=head['ETag'],
                CopySourceRange=f'bytes={extent.offset}-{extent.end - 1}',
            )
        return completed_part(number, part['CopyPartResult'])

    extents = enumerate(part_extents(size_bytes, min(_COPY_PART_BYTES, max(5 * _MIB, single_max_bytes))), start=1)
    tasks = [asyncio.ensure_future(copy_part(number, extent)) for number, extent in extents]
    try:
        parts = await asyncio.gather(*tasks)
        await client.call('complete_multipart_upload', **upload, MultipartUpload={'Parts': parts})
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await abort(client, upload)
        raise


class _Body(io.RawIOBase):
    """Some of a file, read while it is sent; checksums read it once before. Raises StorageIOError if it ends early."""

    def __init__(self, descriptor: int, extent: Extent) -> None:
        self._descriptor = descriptor
        self._extent = extent
        self._position = 0

    def __len__(self) -> int:
        return self._extent.size_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._extent.size_bytes - self._position)
        data = os.pread(self._descriptor, wanted, self._extent.offset + self._position)
        if wanted and not data:
            raise StorageIOError(f'what is to be stored ends at {self._extent.offset + self._position} bytes')
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._extent.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position
