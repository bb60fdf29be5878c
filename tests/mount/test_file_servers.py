"""Servers of files through the mount: what is there is read, what is written arrives, and what is wrong is told.

Each has its own server here; what the protocols mean is tested beside their backends (tests/contract).
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.file_servers import FORGETFUL, PASSWORD, USER, FileServer, Smbd, rclone, running
from tests.mount.mounted import Mounted, await_true, mounted, run

#: A server that is gone is an error within it, and the tries of what may be tried again.
TIMEOUT_S = 2.0
SLACK_S = 8.0

READ_ONLY = {'http'}


def started(kind: str, folder: Path) -> FileServer:
    if kind == 'smb':
        return Smbd(folder)
    return rclone(kind, folder, *([FORGETFUL] if kind in READ_ONLY else []))


def definition(kind: str, server: FileServer, password: str = PASSWORD) -> dict[str, Any]:
    url = f'http://{USER}:{password}@127.0.0.1:{server.port}'
    return {
        'http': {'base_url': url},
        'webdav': {
            'url': f'http://127.0.0.1:{server.port}/',
            'username': USER,
            'password': password,
        },
        'ftp': {'host': '127.0.0.1', 'port': server.port, 'username': USER, 'password': password},
        'smb': {
            'host': '127.0.0.1',
            'port': server.port,
            'share': Smbd.share,
            'username': Smbd.user,
            'password': password,
        },
        'sftp': {
            'host': '127.0.0.1',
            'port': server.port,
            'username': USER,
            'password': password,
            'path': '/',
            'check_host_key': False,
        },
    }[kind] | {'type': kind, 'timeout': TIMEOUT_S, 'ttl': 0}


@pytest.fixture(scope='module', params=['http', 'sftp', 'webdav', 'ftp', 'smb'])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope='module')
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    server = started(kind, tmp_path_factory.mktemp(f'{kind}-server'))
    (server.root / 'd').mkdir()
    (server.root / 'd' / 'there.txt').write_text('from behind\n')
    with running(server):
        yield server


@pytest.fixture(scope='module')
def tree(kind: str, server: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    mounts = [
        {'name': 'files', **definition(kind, server)},
        {'name': 'refused', **definition(kind, server, password='wrong-hunter2')},
    ]
    with mounted(tmp_path_factory.mktemp(f'{kind}-mount'), mounts) as tree:
        yield tree


def test_what_is_there_is_listed_and_read(tree: Mounted) -> None:
    assert tree.run('ls', 'files') == 'd\n'
    assert tree.run('ls', 'files/d') == 'there.txt\n'
    assert tree.run('stat', '-c', '%s', 'files/d/there.txt') == '12\n'
    assert tree.run('cat', 'files/d/there.txt') == 'from behind\n'
    assert 'No such file' in tree.fails('cat', 'files/d/nothing')


def test_what_is_written_arrives_or_is_refused(tree: Mounted, server: FileServer, kind: str) -> None:
    if kind in READ_ONLY:
        assert 'Read-only file system' in tree.fails('sh', '-c', 'echo 1 > files/new')
        assert 'Read-only file system' in tree.fails('rm', 'files/d/there.txt')
        return
    tree.sh('mkdir files/new; echo one > files/new/a; cp files/new/a files/new/b; echo two >> files/new/b')
    assert (server.root / 'new' / 'b').read_text() == 'one\ntwo\n'
    tree.sh('mv files/new/b files/new/a; mv files/new files/moved')
    assert (server.root / 'moved' / 'a').read_text() == 'one\ntwo\n'
    assert tree.run('ls', '-A', 'files/moved') == 'a\n'
    tree.sh('rm -r files/moved')
    assert sorted(path.name for path in server.root.iterdir()) == ['d']


def test_a_wrong_password_is_eacces_and_in_no_log(tree: Mounted) -> None:
    assert 'Permission denied' in tree.fails('ls', 'refused')
    assert 'Permission denied' in tree.fails('cat', 'refused/d/there.txt')
    assert 'hunter2' not in tree.log_text
    assert PASSWORD not in tree.log_text


def test_a_server_that_is_away_is_an_error_in_time_and_comes_back(tree: Mounted, server: FileServer) -> None:
    server.stop()
    try:
        started = time.monotonic()
        told = tree.fails('cat', 'files/d/there.txt')
        assert time.monotonic() - started < TIMEOUT_S + SLACK_S
        assert 'Input/output error' in told or 'timed out' in told
    finally:
        server.start()
    # The circuit breaker asks again after a while.
    read = ['cat', tree.path('files', 'd', 'there.txt')]
    await_true(lambda: run(*read).stdout == 'from behind\n', 20, 'the server that is back')
