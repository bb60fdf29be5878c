"""What is really behind a mount, as files outside of it; and the same place as another daemon shows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.mount.mounted import Mounted, mounted, s3_definition
from tests.mount.places import Place
from tests.servers import S3Server


class Elsewhere(NamedTuple):
    """A place as a daemon shows it that has seen nothing of what was done to it."""

    tree: Mounted
    path: Path

    def sh(self, script: str) -> str:
        """Run a shell script there, that must succeed; what it printed."""
        return self.tree.sh(script, cwd=self.path)


def fetched(place: Place, server: S3Server, target: Path) -> Path:
    """A copy of all that a place holds, asked of the server or of the folder behind the mount."""
    if place.kind == 'local':
        place.tree.run('cp', '-a', place.tree.folder / place.name, target)
        return target
    target.mkdir()
    pages = server.request('get_paginator', operation_name='list_objects_v2').paginate(
        Bucket=place.tree.bucket, Prefix=f'{place.name}/'
    )
    for key in [item['Key'] for page in pages for item in page.get('Contents', [])]:
        path = target / key.removeprefix(f'{place.name}/')
        if key.endswith('/'):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(server.request('get_object', Bucket=place.tree.bucket, Key=key)['Body'].read())
    return target


@contextmanager
def elsewhere(place: Place, server: S3Server, folder: Path) -> Iterator[Elsewhere]:
    """Mount what is behind a place by another daemon, which asks anew each second."""
    folder.mkdir()
    if place.kind == 'local':
        definition = {'name': place.kind, 'type': 'local', 'path': str(place.tree.folder)}
    else:
        definition = s3_definition(server, place.tree.bucket, name=place.kind, ttl='1s')
    with mounted(folder, [definition]) as tree:
        yield Elsewhere(tree, tree.path(place.kind, place.name))
