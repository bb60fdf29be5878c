"""Mounts of every kind for the tests of nodes, and ways to look at trees.

Owns a manager and its folder and bucket. Threads: of one test at a time.
"""

import os
import uuid
from pathlib import Path
from typing import Any

from genro_storage import StorageManager, StorageNode
from genro_storage.backend_volume import BackendVolume
from genro_storage.cache.memory import MemoryBlockCache
from tests.servers import S3Server

KINDS = ('local', 'memory', 's3')
VARIANTS = {'': 'delete', '-again': 'delete', '-readonly': 'readonly', '-readwrite': 'readwrite'}
LARGE_BYTES = (16 << 20) + 5  # one more than S3 stores with a single request, and not a whole number of anything
LARGE = bytes(range(251)) * (LARGE_BYTES // 251 + 1)
LARGE = LARGE[:LARGE_BYTES]

TREE: dict[str, bytes | None] = {
    'a': b'1',
    'empty': None,
    'sub': None,
    'sub/b': b'',
    'sub/deep': None,
    'sub/deep/c': b'3',
}


class Mounts:
    """A manager with four mounts of each kind over the same files, and what lies behind them.

    The one that is named as its kind is the one under test; KIND-again stands for somebody else, KIND-readonly and
    KIND-readwrite have these permissions. Each test works in a directory of its own.
    """

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.folder = folder / 'local'
        self.folder.mkdir()
        self.cache = folder / 'cache'
        self.server = server
        self.bucket = server.new_bucket()
        self.work = ''
        self._begun: set[str] = set()
        self.storage = StorageManager()
        definitions = [
            self.definition(kind, name=f'{kind}{suffix}', permissions=permissions)
            for kind in KINDS
            for suffix, permissions in VARIANTS.items()
        ]
        self.storage.configure({'mounts': definitions, 'cache': {'path': str(self.cache)}})
        for suffix in VARIANTS:
            self._show_one_store(f'memory{suffix}')

    def definition(self, kind: str, **more: Any) -> dict[str, Any]:
        """A definition of a mount of a kind; more may give it another name, or a place inside: ``below``."""
        below = more.pop('below', '')
        own: dict[str, dict[str, Any]] = {
            'memory': {},
            'local': {'path': str(self.folder / below)},
            's3': {
                'bucket': self.bucket,
                'prefix': f'team/{below}'.rstrip('/'),
                'endpoint_url': self.server.endpoint_url,
                'region': self.server.region,
                'key': self.server.key,
                'secret': self.server.secret,
            },
        }
        return {'name': kind, 'type': kind, **own[kind], **more}

    def begin(self) -> None:
        """Work in a new directory."""
        self.work = uuid.uuid4().hex
        self._begun.clear()

    def root(self, kind: str) -> StorageNode:
        """The directory of this test in the mount under test."""
        node = self.storage.node(kind, self.work)
        if kind not in self._begun:
            self._begun.add(kind)
            node.mkdir()
        return node

    def again(self, kind: str, suffix: str = '-again') -> StorageNode:
        """The same through another mount, which remembers nothing."""
        self.root(kind)
        self.storage.volume(kind + suffix)._entries.forget('')
        return self.storage.node(kind + suffix, self.work)

    def uploads(self) -> list[str]:
        """Multipart uploads that are under way or forgotten."""
        return self.server.uploads(self.bucket)

    def staged(self) -> list[str]:
        """Files with a name in the staging folder."""
        return os.listdir(self.cache / 'staging')

    def _show_one_store(self, name: str) -> None:
        # No definition says it, because the stores of memory mounts are private.
        volume = self.storage.volume(name)
        backend = self.storage.volume('memory').backend
        cache = MemoryBlockCache(1 << 20)
        self.storage._volumes[name] = BackendVolume(
            volume.definition, backend, cache, self.cache / 'staging', volume.clock
        )


def names(node: StorageNode) -> list[str]:
    return [child.basename for child in node.children()]


def tree(node: StorageNode) -> dict[str, bytes | None]:
    """All below a node by relative path; None is a directory."""
    found: dict[str, bytes | None] = {}
    for child in node.children():
        found[child.basename] = None if child.isdir else child.read_bytes()
        if child.isdir:
            found |= {f'{child.basename}/{path}': content for path, content in tree(child).items()}
    return found


def grow(node: StorageNode, content: dict[str, bytes | None]) -> None:
    node.mkdir(parents=True, exist_ok=True)
    for path, data in content.items():
        if data is None:
            (node / path).mkdir(exist_ok=True)
        else:
            (node / path).write_bytes(data)
