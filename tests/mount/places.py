"""A new directory in one of the shared mounts, and what is really behind it."""

import itertools

from tests.mount.mounted import Mounted
from tests.servers import S3Server

_numbers = itertools.count(1)


class Place:
    """A new directory in one of the mounts, and what is really behind it."""

    def __init__(self, tree: Mounted, server: S3Server, kind: str) -> None:
        self.tree = tree
        self.kind = kind
        self.name = f'test-{next(_numbers)}'
        self.path = tree.path(kind, self.name)
        self._server = server
        tree.run('mkdir', self.path)

    def sh(self, script: str) -> str:
        """Run a shell script here, that must succeed; what it printed."""
        return self.tree.sh(script, cwd=self.path)

    def fails(self, script: str) -> str:
        """Run a shell script here, that must fail; what it said."""
        return self.tree.fails('sh', '-euc', script, cwd=self.path)

    def stored(self, name: str) -> bytes:
        """The bytes of a file, asked of the server or the folder behind the mount; a memory mount has only itself."""
        if self.kind == 'bucket':
            answer = self._server.request('get_object', Bucket=self.tree.bucket, Key=f'{self.name}/{name}')
            return bytes(answer['Body'].read())
        if self.kind == 'local':
            return (self.tree.folder / self.name / name).read_bytes()
        return self.tree.run('cat', self.path / name, encoding='latin-1').encode('latin-1')

    def names(self) -> set[str]:
        """The paths of all files, asked likewise."""
        if self.kind == 'bucket':
            keys = self._server.keys(self.tree.bucket, f'{self.name}/')
            return {key.removeprefix(f'{self.name}/') for key in keys if not key.endswith('/')}
        if self.kind == 'local':
            folder = self.tree.folder / self.name
            return {str(path.relative_to(folder)) for path in folder.rglob('*') if not path.is_dir()}
        return set(self.tree.run('find', '.', '!', '-type', 'd', '-printf', '%P\n', cwd=self.path).splitlines())
