"""Where the files are that the machine of the read path changes behind the backs of its readers.

Owns one store at a time and its mount; contents are not its business. Not thread-safe.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from genro_storage.testing import BytesSource
from tests.model.shelf import Shelf
from tests.servers import S3Server


class Store(Protocol):
    """Where the files are, as somebody else has it."""

    @property
    def definition(self) -> dict[str, Any]:
        """The mount of it, without a name."""

    def clear(self) -> None:
        """Begin empty, and somewhere else than before."""

    def put(self, path: str, data: bytes) -> str:
        """Create or replace; the tag of the version."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def rename(self, source: str, target: str) -> None:
        """Move a file over another or to a new name; its tag stays."""


class ShelfStore:
    """A folder that both processes see: a step takes milliseconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    @property
    def definition(self) -> dict[str, Any]:
        return {'type': 'memory', 'options': {'shelf': str(self._folder / str(self._number))}}

    def clear(self) -> None:
        shutil.rmtree(self._folder / str(self._number), ignore_errors=True)
        self._number += 1
        self._shelf = Shelf(self._folder / str(self._number))

    def put(self, path: str, data: bytes) -> str:
        version = self._shelf.put(path, BytesSource(data)).version
        assert version is not None
        return version.tag

    def remove(self, path: str) -> None:
        self._shelf.remove_file(path)

    def rename(self, source: str, target: str) -> None:
        self._shelf.rename(source, target)


class S3Store:
    """A bucket of a real server, changed by botocore."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._bucket = server.new_bucket()
        self._number = 0

    @property
    def definition(self) -> dict[str, Any]:
        return {
            'type': 's3',
            'bucket': self._bucket,
            'prefix': str(self._number),
            'endpoint_url': self._server.endpoint_url,
            'region': self._server.region,
            'key': self._server.key,
            'secret': self._server.secret,
        }

    def clear(self) -> None:
        self._number += 1

    def put(self, path: str, data: bytes) -> str:
        return self._server.put(self._bucket, self._key(path), data)

    def remove(self, path: str) -> None:
        self._server.request('delete_object', Bucket=self._bucket, Key=self._key(path))

    def rename(self, source: str, target: str) -> None:
        origin = {'Bucket': self._bucket, 'Key': self._key(source)}
        self._server.request('copy_object', Bucket=self._bucket, Key=self._key(target), CopySource=origin)
        self.remove(source)

    def _key(self, path: str) -> str:
        return f'{self._number}/{path}'


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder where fsync costs nothing, if there is such a place."""
    memory = Path('/dev/shm')
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix='shelf-') as folder:
        yield Path(folder)
