"""Everything below a prefix to another: S3 has no rename, so copies first and removals last.

Owns the order and the parallelism. Threads: safe; no state.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from genro_storage.backends.s3_client import S3Client
from genro_storage.backends.s3_multipart import copy_object
from genro_storage.errors import StorageError, StorageIOError

log = logging.getLogger(__name__)

# Copies are made by the server and cost a round trip each; 16 leave most of the connections to the mount's readers.
_COPIES_IN_FLIGHT = 16

# DeleteObjects takes no more.
_DELETED_AT_ONCE = 1_000


async def move_tree(client: S3Client, source: str, target: str) -> None:
    """Copy all keys below a prefix to below another and then remove them; a failure to copy leaves the old ones alone.

    Raises what the requests raise; what was copied until then is removed again.
    """
    sizes = {
        item['Key']: item['Size'] async for page in client.pages(Prefix=source) for item in page.get('Contents', [])
    }
    copied: list[str] = []
    room = asyncio.Semaphore(_COPIES_IN_FLIGHT)

    async def copy(key: str) -> None:
        new = target + key.removeprefix(source)
        async with room:
            if key.endswith('/') and not sizes[key]:
                # A marker is as good new, and SeaweedFS does not find it as the source of a copy.
                await client.call('put_object', Key=new, Body=b'')
            else:
                await copy_object(client, key, new, sizes[key])
        copied.append(new)

    tasks = [asyncio.ensure_future(copy(key)) for key in sizes]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _take_back(client, copied)
        raise
    await delete_all(client, [*sizes, *_directories(source, sizes)])


def _directories(source: str, keys: Iterable[str]) -> list[str]:
    """The markers that could be at and below a prefix, deepest first.

    Amazon has only those that were put. SeaweedFS keeps every directory that a key implied and goes on listing it,
    until it is removed by this name.
    """
    depth = source.count('/')
    parts = [key.split('/') for key in keys]
    markers = {'/'.join(names[:count]) + '/' for names in parts for count in range(depth, len(names))}
    return sorted(markers, key=lambda marker: -marker.count('/'))


async def delete_all(client: S3Client, keys: Sequence[str]) -> None:
    """Remove keys, a thousand in one request. Raises StorageIOError if the server kept some."""
    for start in range(0, len(keys), _DELETED_AT_ONCE):
        batch = [{'Key': key} for key in keys[start : start + _DELETED_AT_ONCE]]
        answer = await client.call('delete_objects', Delete={'Objects': batch, 'Quiet': True})
        kept = answer.get('Errors', [])
        if kept:
            first = kept[0]
            raise StorageIOError(
                f'{client.bucket}: {len(kept)} of {len(batch)} keys were not removed; '
                f'{first.get("Key")!r}: {first.get("Code")} {first.get("Message", "")}'
            )


async def _take_back(client: S3Client, copied: Sequence[str]) -> None:
    try:
        await delete_all(client, copied)
    except StorageError as error:
        log.warning('%s: %d copies of a move that failed remain: %s', client.bucket, len(copied), error)
