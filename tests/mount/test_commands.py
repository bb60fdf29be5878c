"""genro-mount and genro-umount as an operator uses them."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machine import need_root
from tests.mount.mounted import (
    MOUNT,
    UMOUNT,
    await_true,
    environment,
    mounted,
    mounted_below,
    run,
    s3_definition,
    write_config,
)
from tests.servers import S3Server

END_TIMEOUT_S = 20.0
MEMORY = [{'name': 'memory', 'type': 'memory'}]


def daemon_of(mountpoint: Path, env: dict[str, str]) -> int:
    done = run('python3', '-c', 'import os,sys; print(os.getxattr(sys.argv[1], "user.genro.pid"))', mountpoint, env=env)
    return int(done.stdout.strip("b'\n"))


def is_running(pid: int) -> bool:
    try:
        state = Path(f'/proc/{pid}/stat').read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(')')[2].split()[0] != 'Z'


@contextmanager
def in_background(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Path]:
    """genro-mount as it is used at a prompt, in a folder."""
    env = env or environment(folder)
    mountpoint = folder / 'mnt'
    done = run(*MOUNT, *arguments, mountpoint, env=env, cwd=folder)
    try:
        assert done.returncode == 0, done.stderr
        yield mountpoint
    finally:
        if mounted_below(mountpoint):
            pid = daemon_of(mountpoint, env)
            ended = run(*UMOUNT, mountpoint, env=env)
            if ended.returncode:
                run('umount', '-l', mountpoint)
                os.kill(pid, signal.SIGKILL)
            assert ended.returncode == 0, ended.stderr
            assert not is_running(pid)
    log = folder / 'state' / 'genro-storage' / 'mount.log'
    assert 'Traceback' not in log.read_text()
    assert mounted_below(mountpoint) == []


# Beginning


def test_without_any_configuration_home_and_a_scratch_folder_are_mounted(tmp_path: Path) -> None:
    env = environment(tmp_path)
    (tmp_path / 'home' / 'letter').write_text('dear')
    with in_background(tmp_path, env=env) as mountpoint:
        assert run('ls', mountpoint).stdout.split() == ['home', 'scratch']
        assert run('cat', mountpoint / 'home' / 'letter').stdout == 'dear'
        assert run('sh', '-c', 'echo note > scratch/note', cwd=mountpoint).returncode == 0
    scratch = tmp_path / 'data' / 'genro-storage' / 'scratch'
    assert (scratch / 'note').read_text() == 'note\n'
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700


def test_in_the_background_it_returns_once_the_tree_works(tmp_path: Path) -> None:
    config = write_config(tmp_path, MEMORY)
    with in_background(tmp_path, '-c', str(config)) as mountpoint:
        (mount,) = mounted_below(mountpoint)
        assert mount.fstype == 'fuse.genro-storage'
        assert run('sh', '-c', 'echo x > memory/f; cat memory/f', cwd=mountpoint).stdout == 'x\n'
        pid = daemon_of(mountpoint, environment(tmp_path))
        assert os.readlink(f'/proc/{pid}/cwd') == '/'
        assert os.getsid(pid) == pid
        assert {os.readlink(f'/proc/{pid}/fd/{number}') for number in (0, 1, 2)} == {'/dev/null'}
    assert mountpoint.is_dir()


def test_its_output_ends_so_that_a_pipe_sees_the_end(tmp_path: Path) -> None:
    config = write_config(tmp_path, MEMORY)
    mountpoint = tmp_path / 'mnt'
    command = [*MOUNT, '-c', str(config), str(mountpoint)]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, timeout=20, check=True, text=True)
    try:
        assert (done.stdout, done.stderr) == ('', '')
    finally:
        assert run(*UMOUNT, mountpoint).returncode == 0


def test_the_log_is_of_the_user_alone_and_says_nothing_of_secrets(tmp_path: Path, s3_server: S3Server) -> None:
    config = write_config(tmp_path, [s3_definition(s3_server, s3_server.new_bucket())])
    with in_background(tmp_path, '-c', str(config)) as mountpoint:
        run('sh', '-c', 'echo x > bucket/f; ls -la bucket; cat bucket/missing', cwd=mountpoint)
        pid = daemon_of(mountpoint, environment(tmp_path))
        shown = Path(f'/proc/{pid}/cmdline').read_bytes() + Path(f'/proc/{pid}/comm').read_bytes()
        shown += Path(f'/proc/{pid}/environ').read_bytes() + Path('/proc/self/mountinfo').read_bytes()
        assert s3_server.secret.encode() not in shown
    log = tmp_path / 'state' / 'genro-storage' / 'mount.log'
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    assert s3_server.secret not in log.read_text()


def test_the_configuration_of_the_environment_is_used(tmp_path: Path) -> None:
    config = write_config(tmp_path, [{'name': 'named', 'type': 'memory'}], 'other.json')
    env = environment(tmp_path) | {'GENRO_STORAGE_CONFIG': str(config)}
    with in_background(tmp_path, env=env) as mountpoint:
        assert run('ls', mountpoint).stdout.split() == ['named']


def test_the_configuration_of_the_current_directory_is_used_and_announced(tmp_path: Path) -> None:
    (tmp_path / 'storage.yaml').write_text('- {name: here, type: memory}\n')
    (tmp_path / 'storage.yaml').chmod(0o644)
    mountpoint = tmp_path / 'mnt'
    done = run(*MOUNT, mountpoint, env=environment(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    try:
        assert done.stderr == f'genro-mount: using {tmp_path}/storage.yaml of the current directory\n'
        assert run('ls', mountpoint).stdout.split() == ['here']
    finally:
        assert run(*UMOUNT, mountpoint).returncode == 0


def test_the_configuration_of_the_user_is_used(tmp_path: Path) -> None:
    folder = tmp_path / 'config' / 'genro-storage'
    folder.mkdir(parents=True)
    (folder / 'storage.yaml').write_text('mounts: [{name: mine, type: memory}]\n')
    with in_background(tmp_path) as mountpoint:
        assert run('ls', mountpoint).stdout.split() == ['mine']


def test_a_relative_mountpoint_and_missing_parents_are_fine(tmp_path: Path) -> None:
    config = write_config(tmp_path, MEMORY)
    env = environment(tmp_path)
    assert run(*MOUNT, '-c', config, 'a/b/../mnt', env=env, cwd=tmp_path).returncode == 0
    try:
        assert [mount.mountpoint for mount in mounted_below(tmp_path)] == [str(tmp_path / 'a/mnt')]
    finally:
        assert run(*UMOUNT, 'a/mnt', env=env, cwd=tmp_path).returncode == 0


def test_a_mountpoint_with_odd_characters_works(tmp_path: Path) -> None:
    mountpoint = tmp_path / 'my files, é\t"x"'
    with mounted(tmp_path, MEMORY, mountpoint=mountpoint) as tree:
        assert tree.sh('echo x > memory/f; cat memory/f') == 'x\n'


# Options


def test_read_only_holds_for_all_mounts(tmp_path: Path) -> None:
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'f').write_text('f')
    local = {'name': 'local', 'type': 'local', 'path': str(folder)}
    with mounted(tmp_path, [*MEMORY, local], '-o', 'ro') as tree:
        assert tree.run('cat', 'local/f') == 'f'
        for script in ('echo x > memory/f', 'touch local/f', 'rm local/f', 'mkdir local/d', 'mv local/f local/g'):
            assert 'Read-only file system' in tree.fails('sh', '-c', script)


def test_options_add_up_and_nosuid_and_nodev_always_hold(tmp_path: Path) -> None:
    with mounted(tmp_path, MEMORY, '-o', 'noexec,noatime', '-o', 'fsname=files') as tree:
        line = run('findmnt', '-no', 'SOURCE,OPTIONS', tree.mountpoint).stdout
        for option in ('files', 'nosuid', 'nodev', 'noexec', 'noatime'):
            assert option in line


# Ending


def test_ctrl_c_unmounts_and_is_a_success(tmp_path: Path) -> None:
    with mounted(tmp_path, MEMORY) as tree:
        tree.sh('echo x > memory/f')
        tree.process.send_signal(signal.SIGINT)
        assert tree.process.wait(END_TIMEOUT_S) == 0
        assert mounted_below(tree.mountpoint) == []


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_commits_what_is_open_and_unmounts(
    tmp_path: Path, s3_server: S3Server, number: signal.Signals
) -> None:
    bucket = s3_server.new_bucket()
    with mounted(tmp_path, [s3_definition(s3_server, bucket)]) as tree:
        script = 'exec 3> bucket/f; echo "not closed" >&3; echo written; exec sleep 60'
        writer = subprocess.Popen(['sh', '-c', script], cwd=tree.mountpoint, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b'written\n'
        tree.process.send_signal(number)
        # Still in use, it is unmounted for all others at once, and for good when the writer ends.
        await_true(lambda: not mounted_below(tree.mountpoint), what='unmounted')
        writer.kill()
        writer.wait()
        writer.stdout.close()
        assert tree.process.wait(END_TIMEOUT_S) == 0
    assert s3_server.request('get_object', Bucket=bucket, Key='f')['Body'].read() == b'not closed\n'


def test_a_signal_while_it_is_ending_changes_nothing(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    with mounted(tmp_path, [s3_definition(s3_server, bucket)]) as tree:
        script = 'exec 3> bucket/f; echo content >&3; echo written; exec sleep 60'
        writer = subprocess.Popen(['sh', '-c', script], cwd=tree.mountpoint, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b'written\n'
        for _ in range(3):
            tree.process.send_signal(signal.SIGTERM)
            await_true(lambda: not mounted_below(tree.mountpoint), what='unmounted')
        with mounted(tmp_path, MEMORY, mountpoint=tmp_path / 'again') as other:
            tree.process.send_signal(signal.SIGTERM)
            writer.kill()
            writer.wait()
            writer.stdout.close()
            assert tree.process.wait(END_TIMEOUT_S) == 0
            assert other.run('ls').split() == ['memory']
    assert s3_server.request('get_object', Bucket=bucket, Key='f')['Body'].read() == b'content\n'


def test_genro_umount_waits_for_the_end_of_the_daemon(tmp_path: Path) -> None:
    config = write_config(tmp_path, MEMORY)
    with in_background(tmp_path, '-c', str(config)) as mountpoint:
        pid = daemon_of(mountpoint, environment(tmp_path))
        assert is_running(pid)
        done = run(*UMOUNT, mountpoint)
        assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
        assert not is_running(pid)


def test_genro_umount_says_who_may_be_busy_and_leaves_the_mount(tmp_path: Path) -> None:
    with mounted(tmp_path, MEMORY) as tree:
        user = subprocess.Popen(['sleep', '60'], cwd=tree.path('memory'))
        try:
            done = tree.unmount()
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()
            assert 'busy' in line
            assert f'fuser -m {tree.mountpoint}' in line
            assert tree.run('ls').split() == ['memory']
        finally:
            user.kill()
            user.wait()


@pytest.mark.parametrize(
    'command', [['umount'], ['fusermount3', '-u'], ['umount', '-l'], ['umount', '-f'], ['fusermount3', '-uz']]
)
def test_the_tools_of_the_system_unmount_and_the_daemon_ends(tmp_path: Path, command: list[str]) -> None:
    if '-f' in command:
        need_root('umount(8) forces for root only')
    with mounted(tmp_path, MEMORY) as tree:
        tree.sh('echo x > memory/f')
        done = run(*command, tree.mountpoint)
        assert done.returncode == 0, done.stderr
        assert tree.process.wait(END_TIMEOUT_S) == 0


def test_what_is_open_at_a_lazy_unmount_is_committed_when_it_is_closed(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    with mounted(tmp_path, [s3_definition(s3_server, bucket)]) as tree:
        script = 'exec 3> bucket/f; echo written; read line; echo "$line" >&3; exec 3>&-; echo closed'
        writer = subprocess.Popen(
            ['sh', '-c', script], cwd=tree.mountpoint, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == 'written\n'
        assert run('umount', '-l', tree.mountpoint).returncode == 0
        assert tree.process.poll() is None
        assert writer.communicate('after the unmount\n', END_TIMEOUT_S)[0] == 'closed\n'
        assert tree.process.wait(END_TIMEOUT_S) == 0
    assert s3_server.request('get_object', Bucket=bucket, Key='f')['Body'].read() == b'after the unmount\n'


def test_it_can_be_mounted_again_at_once(tmp_path: Path) -> None:
    config = write_config(tmp_path, MEMORY)
    for _ in range(3):
        with in_background(tmp_path, '-c', str(config)) as mountpoint:
            assert run('ls', mountpoint).stdout.split() == ['memory']


def test_two_mounts_of_one_bucket_live_side_by_side(tmp_path: Path, s3_server: S3Server) -> None:
    definitions = [s3_definition(s3_server, s3_server.new_bucket(), ttl=0)]
    with (
        mounted(tmp_path, definitions, mountpoint=tmp_path / 'one') as one,
        mounted(tmp_path, definitions, mountpoint=tmp_path / 'two') as two,
    ):
        one.sh('echo from-one > bucket/f')
        assert two.run('cat', 'bucket/f') == 'from-one\n'
        two.sh('echo from-two >> bucket/f')
        assert one.run('cat', 'bucket/f') == 'from-one\nfrom-two\n'


def test_it_is_ready_soon(tmp_path: Path, s3_server: S3Server) -> None:
    config = write_config(tmp_path, [*MEMORY, s3_definition(s3_server, s3_server.new_bucket())])
    started = time.monotonic()
    with in_background(tmp_path, '-c', str(config)):
        took_s = time.monotonic() - started
    # Half a second on an idle machine of two cores; others run beside it.
    assert took_s < 5
