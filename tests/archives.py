"""Archives of given files, made by the standard library, and git repositories, made by git. For tests."""

import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

MTIME_S = 1_700_000_000

#: The last line of a script: how much memory it has had at most, in KiB. (getrusage(2) tells its parent's, too.)
PRINT_PEAK = 'print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))\n'


def zip_of(tree: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', method) as archive:
        for path, data in tree.items():
            archive.writestr(zipfile.ZipInfo(path, (2024, 1, 31, 12, 0, 0)), data, method)
    return stream.getvalue()


def tar_of(tree: Mapping[str, bytes], mode: str = 'w') -> bytes:
    """A tar archive; ``mode`` as of tarfile.open."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for path, data in tree.items():
            add_to_tar(archive, path, data)
    return stream.getvalue()


def add_to_tar(archive: tarfile.TarFile, path: str, data: bytes = b'', **changes: object) -> None:
    """Add a member; ``changes`` of its TarInfo."""
    info = tarfile.TarInfo(path)
    info.size, info.mtime = len(data), MTIME_S
    for name, value in changes.items():
        setattr(info, name, value)
    archive.addfile(info, io.BytesIO(data))


class GitFolder:
    """A real repository with a working tree, that git itself makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git('init', '--quiet', '--initial-branch=main')

    def git(self, *arguments: str) -> str:
        """Run git in it; what it printed."""
        environment = {
            'PATH': os.environ['PATH'],
            'HOME': str(self.folder),
            'GIT_CONFIG_NOSYSTEM': '1',
            'LC_ALL': 'C.UTF-8',
            **{
                f'GIT_{who}_{what}': 'test@example.org' for who in ('AUTHOR', 'COMMITTER') for what in ('NAME', 'EMAIL')
            },
            'GIT_AUTHOR_DATE': f'{MTIME_S} +0000',
            'GIT_COMMITTER_DATE': f'{MTIME_S} +0000',
        }
        command = ['git', '-C', str(self.folder), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def write(self, tree: Mapping[str, bytes]) -> None:
        """Write files into the working tree."""
        for path, data in tree.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    def commit(self, message: str = 'change') -> str:
        """Commit all of the working tree; the id of the commit."""
        self.git('add', '--all', '--force')
        self.git('commit', '--quiet', '--message', message)
        return self.git('rev-parse', 'HEAD')
