"""genro-storage status and sync against trees that are really mounted: alive, hanging and dead ones."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from typing import Any

from tests.faults.fault_proxy import fault_proxy
from tests.machine import need_root
from tests.mount.mounted import CHECKOUT, Mounted, await_true, mounted, mounted_below, run, s3_definition
from tests.servers import S3Server

COMMAND = [sys.executable, '-c', 'import sys; from genro_storage.cli import main; sys.exit(main())']
MEMORY = [{'name': 'memory', 'type': 'memory'}]
#: Closes a file when it is told to, and has an exit code of 3 if that fails.
WRITER = """
import os
descriptor = os.open('bucket/f', os.O_WRONLY | os.O_CREAT)
os.write(descriptor, b'precious')
print('written', flush=True)
input()
try:
    os.close(descriptor)
except OSError:
    raise SystemExit(3)
"""


def genro_storage(tree: Mounted, *arguments: str | Path) -> CompletedProcess[str]:
    """The command, as the user of a tree calls it."""
    return run(*COMMAND, *arguments, env=tree.env, cwd=CHECKOUT)


def status(tree: Mounted, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    done = genro_storage(tree, 'status', '--json', *(arguments or (tree.mountpoint,)))
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def lists(tree: Mounted, bucket: str, server: S3Server) -> list[str]:
    return [each['Key'] for each in server.request('list_objects_v2', Bucket=bucket).get('Contents', [])]


def test_a_tree_tells_its_process_its_mounts_and_its_cache(everything: Mounted) -> None:
    code, found = status(everything)
    assert (code, found['ok'], found['waiting'], found['problems']) == (0, True, [], [])
    (told,) = found['mounted']
    assert (told['mountpoint'], told['pid']) == (str(everything.mountpoint), everything.pid)
    assert [(each['name'], each['type']) for each in told['mounts']] == [
        ('bucket', 's3'),
        ('memory', 'memory'),
        ('local', 'local'),
    ]
    assert everything.bucket in told['mounts'][0]['destination']
    cache = told['cache']
    assert (cache['path'], cache['limit_bytes']) == (f'{everything.env["XDG_CACHE_HOME"]}/genro-storage', 10 << 30)


def test_it_tells_no_secret(everything: Mounted, s3_server: S3Server) -> None:
    everything.sh('echo x > bucket/f')
    for arguments in (['status'], ['status', '--json']):
        done = genro_storage(everything, *arguments)
        assert s3_server.secret not in done.stdout + done.stderr


def test_what_it_tells_is_not_listed(everything: Mounted) -> None:
    code = 'import os, sys; print(os.listxattr(sys.argv[1]))'
    assert everything.run(sys.executable, '-c', code, everything.mountpoint) == '[]\n'


def test_people_read_it_too(everything: Mounted) -> None:
    done = genro_storage(everything, 'status', everything.mountpoint)
    assert done.returncode == 0, done.stderr
    assert f'{everything.mountpoint}  process {everything.pid}' in done.stdout
    assert 'Nothing waits to be uploaded.' in done.stdout


def test_a_daemon_that_hangs_does_not_hang_the_command(tmp_path: Path) -> None:
    with mounted(tmp_path, MEMORY) as tree:
        tree.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            code, found = status(tree)
        finally:
            tree.process.send_signal(signal.SIGCONT)
        assert time.monotonic() - began < 20
        assert code == 1
        assert 'has not answered within' in found['mounted'][0]['problem']
        assert status(tree)[0] == 0


def test_a_daemon_that_is_dead_is_said_to_be(tmp_path: Path) -> None:
    with mounted(tmp_path, MEMORY) as tree:
        tree.process.kill()
        tree.process.wait()
        code, found = status(tree)
        assert code == 1
        assert f'umount -l {tree.mountpoint}' in found['mounted'][0]['problem']
        synced = genro_storage(tree, 'sync', tree.mountpoint)
        assert synced.returncode == 1
        assert 'gone' in synced.stderr
        run('umount', '-l', tree.mountpoint)
        assert mounted_below(tree.mountpoint) == []


def test_the_tree_of_another_user_is_left_out_unless_it_is_named(tmp_path: Path) -> None:
    need_root('two users')
    with mounted(tmp_path, MEMORY) as tree:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(folder.stat().st_mode | 0o055)
        other = {**tree.env, 'HOME': '/nonexistent', **{name: '' for name in tree.env if name.startswith('XDG')}}
        as_nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', *COMMAND, 'status', '--json']
        done = run(*as_nobody, env=other, cwd='/')
        assert str(tree.mountpoint) not in done.stdout, done.stderr
        named = run(*as_nobody, tree.mountpoint, env=other, cwd='/')
        assert named.returncode == 1
        assert 'serves another user' in named.stdout


def test_sync_waits_until_what_was_closed_is_on_the_server(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    late = s3_definition(s3_server, bucket, durability='writeback', writeback_delay='1h')
    with mounted(tmp_path, [late, *MEMORY]) as tree:
        tree.sh('mkdir bucket/d; echo one > bucket/d/one; echo two > bucket/two; echo m > memory/f')
        assert [key for key in lists(tree, bucket, s3_server) if not key.endswith('/')] == []
        code, found = status(tree)
        assert (code, {each['path'] for each in found['waiting']}) == (0, {'d/one', 'two'})
        assert all(each['live'] for each in found['waiting'])
        done = genro_storage(tree, 'sync', '--timeout', '20s', tree.path('bucket', 'd'))
        assert (done.returncode, done.stderr) == (0, '')
        assert {each['path'] for each in status(tree)[1]['waiting']} == {'two'}
        assert 'd/one' in lists(tree, bucket, s3_server)
        done = genro_storage(tree, 'sync', '--timeout', '20s', tree.mountpoint)
        assert (done.returncode, done.stderr) == (0, '')
        assert status(tree)[1]['waiting'] == []
        assert 'two' in lists(tree, bucket, s3_server)


def test_sync_of_what_cannot_be_uploaded_says_what_is_left_and_why(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    late = s3_definition(s3_server, bucket, durability='writeback', writeback_delay='1h', timeout='2s')
    with (
        fault_proxy(s3_server.endpoint_url) as proxy,
        mounted(tmp_path, [{**late, 'endpoint_url': proxy.url}]) as tree,
    ):
        tree.sh('echo x > bucket/f')
        proxy.refuse()
        done = genro_storage(tree, 'sync', '--timeout', '20s', tree.mountpoint)
        assert done.returncode == 1
        assert 'left: bucket:f, 2 bytes, failed: ' in done.stderr
        code, found = status(tree)
        assert (code, found['waiting'][0]['state']) == (1, 'failed')
        assert found['waiting'][0]['error']
        proxy.accept()
        done = genro_storage(tree, 'sync', '--timeout', '20s', tree.mountpoint)
        assert (done.returncode, done.stderr) == (0, '')


def test_what_a_killed_daemon_has_acknowledged_is_shown_and_synced_later(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    late = s3_definition(s3_server, bucket, durability='writeback', writeback_delay='1h')
    with mounted(tmp_path, [late]) as tree:
        tree.sh('echo content > bucket/f')
        tree.process.kill()
        tree.process.wait()
        run('umount', '-l', tree.mountpoint)
        assert mounted_below(tree.mountpoint) == []
        config = tmp_path / 'mnt.json'
        (item,) = status(tree, '-c', config)[1]['waiting']
        assert (item['path'], item['state'], item['live']) == ('f', 'waiting', False)
        assert status(tree, '-c', str(_other(tmp_path)))[1]['waiting'][0]['state'] == 'not configured'
        done = genro_storage(tree, 'sync', '-c', config, '--timeout', '20s', 'bucket:f')
        assert (done.returncode, done.stderr) == (0, '')
        assert lists(tree, bucket, s3_server) == ['f']
        assert status(tree, '-c', config)[1]['waiting'] == []


def _other(folder: Path) -> Path:
    path = folder / 'other.json'
    path.write_text(json.dumps({'mounts': MEMORY}))
    os.chmod(path, 0o600)
    return path


@contextmanager
def parked(folder: Path, server: S3Server, bucket: str) -> Iterator[Mounted]:
    """A tree whose server was away when a file was closed, and is back."""
    definition = s3_definition(server, bucket, timeout='2s')
    with (
        fault_proxy(server.endpoint_url) as proxy,
        mounted(folder, [{**definition, 'endpoint_url': proxy.url}]) as tree,
    ):
        # Not a shell, which duplicates descriptors: each one it closes is a FLUSH, and commits.
        with Popen([sys.executable, '-c', WRITER], cwd=tree.mountpoint, stdin=PIPE, stdout=PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == 'written\n'
            proxy.refuse()
            writer.communicate('close\n', 30)
        assert writer.returncode == 3
        # At RELEASE, which the kernel sends when close has returned.
        await_true(lambda: status(tree)[1]['waiting'], 20, 'parked')
        proxy.accept()
        yield tree


def test_what_was_refused_at_close_is_parked_and_uploaded_on_request(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    with parked(tmp_path, s3_server, bucket) as tree:
        code, found = status(tree)
        assert (code, [(each['path'], each['state']) for each in found['waiting']]) == (1, [('f', 'parked')])
        done = genro_storage(tree, 'sync', '--timeout', '20s', tree.mountpoint)
        assert done.returncode == 1
        assert '--retry uploads it after all' in done.stderr
        assert lists(tree, bucket, s3_server) == []
        done = genro_storage(tree, 'sync', '--retry', '--timeout', '20s', tree.mountpoint)
        assert (done.returncode, done.stderr) == (0, '')
        assert lists(tree, bucket, s3_server) == ['f']
        assert status(tree)[1]['waiting'] == []


def test_what_an_earlier_daemon_parked_is_uploaded_on_request(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    with parked(tmp_path, s3_server, bucket) as tree:
        config = tmp_path / 'mnt.json'
        assert tree.unmount().returncode == 0
        assert [each['state'] for each in status(tree, '-c', config)[1]['waiting']] == ['parked']
        done = genro_storage(tree, 'sync', '-c', config, 'bucket:')
        assert done.returncode == 1
        assert '--retry uploads it after all' in done.stderr
        done = genro_storage(tree, 'sync', '--retry', '-c', config, 'bucket:')
        assert (done.returncode, done.stderr) == (0, '')
        assert lists(tree, bucket, s3_server) == ['f']


def test_an_unmount_says_what_it_could_not_upload_and_the_next_mount_does(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    late = s3_definition(s3_server, bucket, durability='writeback', writeback_delay='1h', timeout='5s')
    with fault_proxy(s3_server.endpoint_url) as proxy:
        definition = {**late, 'endpoint_url': proxy.url}
        with mounted(tmp_path, [definition]) as tree:
            tree.sh('echo x > bucket/f; echo y > bucket/g')
            proxy.refuse()
            done = tree.unmount()
            assert done.returncode == 1
            assert '2 file(s) could not be uploaded' in done.stderr
        proxy.accept()
        with mounted(tmp_path, [definition]) as tree:
            assert tree.sh('cat bucket/f bucket/g') == 'x\ny\n'
            done = tree.unmount()
            assert (done.returncode, done.stderr) == (0, '')
        assert lists(tree, bucket, s3_server) == ['f', 'g']
