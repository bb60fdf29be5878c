"""What is wrong is said in one clear line, with a failure, and nothing is left mounted."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machine import need_root
from tests.mount.mounted import MOUNT, UMOUNT, environment, mounted, mounted_below, run, s3_definition, write_config
from tests.mount.worlds import with_private_device, without_device
from tests.servers import S3Server, free_ports

MEMORY = [{'name': 'memory', 'type': 'memory'}]
#: How long a directory of a dead backend may take to say so, with `timeout: 2s`.
DEAD_TIMEOUT_S = 10.0


def refused(folder: Path, *arguments: str | Path, said: str, code: int = 1) -> None:
    """genro-mount must fail, in the foreground and in the background, with one line, and leave nothing."""
    before = sorted(folder.rglob('*'))
    for foreground in ([], ['-f']):
        done = run(*MOUNT, *foreground, *arguments, env=environment(folder), cwd=folder)
        assert done.returncode == code, done.stderr
        assert done.stdout == ''
        (line,) = done.stderr.splitlines()
        assert line.startswith('genro-mount: ')
        assert said in line
        assert mounted_below(folder) == []
    left = {path for path in folder.rglob('*') if path not in before and 'state' not in path.parts}
    assert left <= {folder / 'home'}


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('- {name: a, type: memroy}', "did you mean 'memory'?"),
        ('- {name: a, type: local, pth: /tmp}', "did you mean 'path'?"),
        ('- {name: a, type: local}', 'path'),
        ('- {name: ../up, type: memory}', 'name'),
        ('- {name: a, type: memory}\n- {name: a, type: memory}', 'a'),
        ('- {name: a, type: local, path: "${NOT_SET_ANYWHERE}"}', 'NOT_SET_ANYWHERE'),
        ('{{{ no yaml', 'storage.yaml'),
        ('just text', 'storage.yaml'),
        ('', 'storage.yaml'),
    ],
)
def test_a_wrong_configuration_names_the_file_and_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / 'storage.yaml'
    config.write_text(text + '\n')
    config.chmod(0o600)
    done = run(*MOUNT, '-c', config, 'mnt', env=environment(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith('genro-mount: ')
    assert str(config) in done.stderr
    assert said in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'mnt').exists()


def test_a_configuration_that_is_missing_or_no_file(tmp_path: Path) -> None:
    refused(tmp_path, '-c', 'missing.yaml', 'mnt', said='missing.yaml: no such configuration file')
    (tmp_path / 'folder.yaml').mkdir()
    refused(tmp_path, '-c', 'folder.yaml', 'mnt', said='folder.yaml')


def test_a_configuration_of_the_current_directory_that_others_could_have_written(tmp_path: Path) -> None:
    (tmp_path / 'storage.yaml').write_text('- {name: a, type: memory}\n')
    (tmp_path / 'storage.yaml').chmod(0o666)
    refused(tmp_path, 'mnt', said='not trusted')


def test_a_mountpoint_that_is_not_empty_or_no_directory(tmp_path: Path) -> None:
    config = write_config(tmp_path, MEMORY)
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'f').touch()
    refused(tmp_path, '-c', config, 'full', said='not empty')
    (tmp_path / 'file').touch()
    refused(tmp_path, '-c', config, 'file', said='not a directory')
    refused(tmp_path, '-c', config, 'file/below', said='file')
    (tmp_path / 'link').symlink_to('nowhere')
    refused(tmp_path, '-c', config, 'link', said='nowhere')
    assert (tmp_path / 'full' / 'f').exists()


def test_a_mountpoint_that_is_ours_already(tmp_path: Path) -> None:
    with mounted(tmp_path, MEMORY) as tree:
        done = run(*MOUNT, '-c', tmp_path / 'mnt.json', tree.mountpoint, env=tree.env)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert 'genro-storage is mounted there already' in line
        assert tree.run('ls').split() == ['memory']


def test_a_mountpoint_that_is_something_else_already(tmp_path: Path) -> None:
    need_root('only root can mount something else there')
    config = write_config(tmp_path, MEMORY)
    (tmp_path / 'mnt').mkdir()
    assert run('mount', '-t', 'tmpfs', 'something', tmp_path / 'mnt').returncode == 0
    try:
        done = run(*MOUNT, '-c', config, tmp_path / 'mnt', env=environment(tmp_path))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert 'tmpfs from something' in line
        done = run(*UMOUNT, tmp_path / 'mnt')
        assert done.returncode == 1
        assert 'not a mount of genro-storage' in done.stderr
        assert [mount.fstype for mount in mounted_below(tmp_path)] == ['tmpfs']
    finally:
        run('umount', tmp_path / 'mnt')


def test_a_folder_inside_the_mountpoint(tmp_path: Path) -> None:
    config = write_config(tmp_path, [{'name': 'loop', 'type': 'local', 'path': str(tmp_path / 'mnt' / 'below')}])
    refused(tmp_path, '-c', config, 'mnt', said='inside the mountpoint')


def test_a_machine_without_the_device(tmp_path: Path) -> None:
    with without_device() as world:
        config = write_config(world.directory, MEMORY)
        done = world.run(*MOUNT, '-c', str(config), str(world.mountpoint), HOME=str(world.directory))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith('genro-mount: /dev/fuse is missing')
        assert 'modprobe fuse' in line
        assert world.mounted() is None


def test_a_device_that_may_not_be_opened() -> None:
    with with_private_device() as world:
        config = write_config(world.directory, MEMORY)
        config.chmod(0o644)
        done = world.run(*MOUNT, '-c', str(config), str(world.mountpoint), HOME=str(world.directory))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith('genro-mount: /dev/fuse cannot be opened: it has mode 0600')
        assert world.mounted() is None


# Backends that are not there


@contextmanager
def timed(limit_s: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    took_s = time.monotonic() - started
    assert took_s < limit_s, f'{took_s:.1f} s'


def test_a_dead_endpoint_makes_errors_of_its_own_directory_only(tmp_path: Path, s3_server: S3Server) -> None:
    dead = s3_definition(s3_server, 'any', name='dead', timeout='2s')
    dead['endpoint_url'] = f'http://127.0.0.1:{free_ports(1)[0]}'
    with mounted(tmp_path, [dead, *MEMORY]) as tree:
        with timed(1.5):
            assert tree.run('ls', '-la').count('\n') == 5
            assert tree.sh('echo x > memory/f; cat memory/f') == 'x\n'
        with timed(DEAD_TIMEOUT_S):
            assert 'Input/output error' in tree.fails('ls', 'dead')
        for command in (['cat', 'dead/f'], ['touch', 'dead/f'], ['mkdir', 'dead/d'], ['rm', '-r', 'dead/f']):
            with timed(DEAD_TIMEOUT_S):
                said = tree.fails(*command)
            # Unreachable is not absent.
            assert 'Input/output error' in said
            assert 'No such file' not in said
        assert tree.run('cat', 'memory/f') == 'x\n'
        assert '127.0.0.1' in tree.log_text


def test_wrong_credentials_are_no_permission(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    s3_server.put(bucket, 'f', b'f')
    for number, wrong in enumerate([{'secret': 'wrong-secret-of-mine'}, {'key': 'nobody'}]):
        definition = s3_definition(s3_server, bucket) | wrong
        with mounted(tmp_path, [definition], mountpoint=tmp_path / f'mnt{number}') as tree:
            for command in (['ls', 'bucket'], ['cat', 'bucket/f'], ['touch', 'bucket/g']):
                assert 'Permission denied' in tree.fails(*command)
            assert 'wrong-secret-of-mine' not in tree.log_text


def test_a_missing_bucket_is_said_and_is_not_an_empty_directory(tmp_path: Path, s3_server: S3Server) -> None:
    with mounted(tmp_path, [s3_definition(s3_server, 'no-such-bucket-here'), *MEMORY]) as tree:
        assert 'Input/output error' in tree.fails('ls', 'bucket')
        for command in (['touch', 'bucket/f'], ['mkdir', 'bucket/d'], ['cat', 'bucket/f']):
            assert tree.fails(*command)
        assert "there is no bucket 'no-such-bucket-here'" in tree.log_text
        assert tree.sh('echo x > memory/f; cat memory/f') == 'x\n'


def test_a_folder_that_is_missing_is_said_and_shown_when_it_comes(tmp_path: Path) -> None:
    folder = tmp_path / 'later'
    with mounted(tmp_path, [{'name': 'local', 'type': 'local', 'path': str(folder)}, *MEMORY]) as tree:
        assert str(folder) in tree.log_text
        assert tree.run('ls').split() == ['local', 'memory']
        assert 'No such file' in tree.fails('ls', 'local')
        folder.mkdir()
        (folder / 'f').write_text('f')
        assert tree.run('cat', 'local/f') == 'f'


def test_a_folder_that_goes_away_and_comes_back_is_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / 'folder'
    folder.mkdir()
    with mounted(tmp_path, [{'name': 'local', 'type': 'local', 'path': str(folder)}]) as tree:
        tree.sh('echo x > local/f')
        folder.rename(tmp_path / 'moved')
        assert tree.run('cat', 'local/f') == 'x\n'


# A daemon that dies


def test_a_killed_daemon_leaves_enotconn_and_a_new_mount_works_after_genro_umount(tmp_path: Path) -> None:
    env = environment(tmp_path)
    config = write_config(tmp_path, MEMORY)
    mountpoint = tmp_path / 'mnt'
    assert run(*MOUNT, '-c', config, mountpoint, env=env).returncode == 0
    try:
        ask = 'import os,sys; print(int(os.getxattr(sys.argv[1], "user.genro.pid")))'
        pid = int(run(sys.executable, '-c', ask, mountpoint).stdout)
        reader = subprocess.Popen(
            ['sh', '-c', 'echo x > memory/f; echo ready; read line'],
            cwd=mountpoint,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reader.stdout is not None
        assert reader.stdout.readline() == 'ready\n'
        daemon = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        # Requests that are sent while it dies end with ECONNABORTED.
        assert select.select([daemon], [], [], 10)[0]
        os.close(daemon)
        said = run('ls', mountpoint).stderr
        assert os.strerror(errno.ENOTCONN) in said
        done = run(*MOUNT, '-c', config, mountpoint, env=env)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert 'genro-umount' in line
        done = run(*UMOUNT, mountpoint, env=env)
        if done.returncode:
            # Somebody still has his working directory there.
            assert 'busy' in done.stderr
        reader.communicate('\n', 10)
        if done.returncode:
            assert run(*UMOUNT, mountpoint, env=env).returncode == 0
        assert run(*MOUNT, '-c', config, mountpoint, env=env).returncode == 0
        assert run('ls', mountpoint).stdout.split() == ['memory']
    finally:
        run(*UMOUNT, mountpoint, env=env)
        while mounted_below(mountpoint):
            run('umount', '-l', mountpoint)


def test_an_address_that_is_no_s3_server_is_an_error_and_not_absence(tmp_path: Path, s3_server: S3Server) -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        definition = s3_definition(s3_server, 'any', timeout='2s')
        definition['endpoint_url'] = f'http://127.0.0.1:{listener.getsockname()[1]}'
        with mounted(tmp_path, [definition]) as tree, timed(2 * DEAD_TIMEOUT_S):
            said = tree.fails('cat', 'bucket/f')
            assert 'No such file' not in said
            assert 'timed out' in said
