"""Writing through a mount while the server dies, refuses or throttles, and while the local disk is full."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.crash.killing import recover
from tests.crash.nursery import Nursery, await_true
from tests.crash.programs import Manifest, Step, content, digest_of
from tests.crash.server import RestartingServer
from tests.crash.stage import Stage, stage
from tests.faults.fault_proxy import SLOW_DOWN, FaultProxy, fault_proxy
from tests.machine import need_root
from tests.mount.mounted import run
from tests.servers import S3Server

MIB = 1 << 20
#: The upload begins after the acknowledgment, and soon.
SOON = {'durability': 'writeback', 'writeback_delay': 0.5, 'timeout': 2}
NOT_YET = {'durability': 'writeback', 'writeback_delay': 600, 'timeout': 2}
FILES: list[Step] = [['write', f'{number}', number, 10_000 * number] for number in range(8)]
#: In the ordinary run; as long as an outage of a minute under ``long``.
OUTAGE_S = 3.0
LONG_OUTAGE_S = 60.0
#: The pauses between the tries of an upload grow.
BACK_WITHIN_S = 60.0


class Sick:
    """A stage behind a proxy that can be told to fail."""

    def __init__(self, stage: Stage, proxy: FaultProxy) -> None:
        self.stage = stage
        self.proxy = proxy


@contextmanager
def sick(folder: Path, nursery: Nursery, server: S3Server, bucket: str, **keys: object) -> Iterator[Sick]:
    with ExitStack() as stack:
        proxy = stack.enter_context(fault_proxy(server.endpoint_url))
        made = stack.enter_context(stage(folder, nursery, server, bucket, endpoint_url=proxy.url, **keys))
        yield Sick(made, proxy)


def has_failed(stage: Stage) -> bool:
    """Whether an upload has been tried in vain."""
    return any(name.endswith('.failed') for name in stage.journal())


def parked(stage: Stage) -> list[str]:
    """The contents that a journal holds; data without a record are not held."""
    names = [name.removesuffix('.intent') for name in stage.journal() if name.endswith('.intent')]
    return [digest_of((stage.folder / f'{name}.data').read_bytes()) for name in names]


def check_files(stage: Stage, program: Sequence[Step], manifest: Manifest) -> None:
    """Of a program that writes each file once, what was acknowledged is whole, and the rest a beginning, if any."""
    found = stage.stored().files
    for number, (_, path, seed, size) in enumerate(program):
        if number in manifest.done:
            assert found.pop(path, 'nothing') == digest_of(content(seed, size)), path
        elif found.pop(path, None) is not None:
            data = stage.get(path)
            assert data == content(seed, size)[: len(data)], path
    assert not found, f'unexpected {found}'


def write_and_wait(stage: Stage, program: Sequence[Step] = FILES) -> Manifest:
    """Have all of a program acknowledged."""
    manifest = stage.write(program).finish()
    assert manifest.acknowledged == len(program), manifest.failed
    return manifest


def write_through_outage(sick: Sick, outage_s: float) -> None:
    daemon = sick.stage.start()
    manifest = write_and_wait(sick.stage)
    sick.proxy.refuse()
    await_true(lambda: has_failed(sick.stage), 'an upload fails')
    time.sleep(outage_s)
    assert sick.stage.journal(), 'the journal is empty, though nothing can have arrived'
    sick.proxy.accept()
    sick.stage.await_drained(BACK_WITHIN_S + outage_s)
    check_files(sick.stage, FILES, manifest)
    daemon.end()


@pytest.mark.timeout(120)
def test_uploads_wait_for_a_server_that_refuses_connections(
    tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str
) -> None:
    with sick(tmp_path, crash_nursery, s3_server, crash_bucket, **SOON) as made:
        write_through_outage(made, OUTAGE_S)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_uploads_wait_for_a_server_that_refuses_connections_for_a_minute(
    tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str
) -> None:
    with sick(tmp_path, crash_nursery, s3_server, crash_bucket, **SOON) as made:
        write_through_outage(made, LONG_OUTAGE_S)


@pytest.mark.timeout(120)
def test_uploads_get_through_a_storm_of_slow_down(
    tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str
) -> None:
    with sick(tmp_path, crash_nursery, s3_server, crash_bucket, **SOON) as made:
        daemon = made.stage.start()
        manifest = write_and_wait(made.stage)
        made.proxy.plan(SLOW_DOWN, times=None, reads_only=False)
        asked = made.proxy.asked()
        await_true(lambda: made.proxy.asked() > asked + 20, 'the storm is felt')
        assert made.stage.journal()
        made.proxy.heal()
        made.stage.await_drained(BACK_WITHIN_S)
        check_files(made.stage, FILES, manifest)
        daemon.end()


@pytest.mark.timeout(120)
def test_a_close_in_a_storm_tells_the_truth(
    tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str
) -> None:
    with sick(tmp_path, crash_nursery, s3_server, crash_bucket, timeout=5) as made:
        daemon = made.stage.start()
        made.proxy.plan(SLOW_DOWN, times=12, reads_only=False)
        manifest = made.stage.write(FILES, goes_on=True).finish()
        assert set(manifest.failed.values()) <= {'EIO'}
        assert manifest.done
        check_files(made.stage, FILES, manifest)
        made.proxy.heal()
        daemon.kill()


@pytest.mark.timeout(120)
def test_what_a_failed_close_could_not_commit_stays_in_the_journal_and_goes_nowhere_by_itself(
    tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str
) -> None:
    with sick(tmp_path, crash_nursery, s3_server, crash_bucket, timeout=2) as made:
        made.stage.put('file', content(1, 50_000))
        daemon = made.stage.start()
        program: list[Step] = [['open', 1, 'file'], ['pwrite', 1, 0, 2, 60_000], ['await', made.stage.at('refused')]]
        program += [['close', 1]]
        writer = made.stage.write(program)
        await_true(lambda: writer.manifest.acknowledged == 2, 'the file is written')
        made.proxy.refuse()
        made.stage.tell('refused')
        assert writer.finish().failed == {3: 'EIO'}
        # The kernel gives the file back once close has returned.
        await_true(made.stage.journal, 'it is in the journal')
        await_true(lambda: parked(made.stage) == [digest_of(content(2, 60_000))], f'it is kept: {made.stage.journal()}')
        daemon.kill()
        made.stage.clear_mount()
        made.proxy.accept()
        # Another daemon sees it, and sends it only when it is told to.
        second = made.stage.start()
        write_and_wait(made.stage, [['write', 'other', 3, 100]])
        second.end()
        assert parked(made.stage) == [digest_of(content(2, 60_000))]
        assert made.stage.stored().files['file'] == digest_of(content(1, 50_000))
        assert set(made.stage.stored().files) == {'file', 'other'}


@pytest.mark.timeout(120)
def test_uploads_wait_for_a_server_that_was_killed(tmp_path: Path, crash_nursery: Nursery) -> None:
    with RestartingServer(tmp_path) as restarting:
        server = restarting.server
        with stage(tmp_path / 'stage', crash_nursery, server, server.new_bucket(), **SOON) as made:
            daemon = made.start()
            manifest = write_and_wait(made)
            restarting.kill()
            await_true(lambda: has_failed(made), 'an upload fails')
            restarting.start()
            made.await_drained(BACK_WITHIN_S)
            check_files(made, FILES, manifest)
            daemon.end()


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    need_root('a file system of its own that can be filled')
    folder.mkdir()
    mounting = ['mount', '-t', 'tmpfs', '-o', f'size={size_bytes},mode=700', 'small', str(folder)]
    subprocess.run(mounting, check=True, timeout=10)
    try:
        yield
    finally:
        run('umount', '-l', folder)


@pytest.mark.timeout(120)
@pytest.mark.parametrize('killed', [False, True], ids=['and ends', 'and is killed'])
def test_a_full_disk_is_enospc_and_what_was_acknowledged_arrives(
    tmp_path: Path, crash_nursery: Nursery, s3_server: S3Server, crash_bucket: str, killed: bool
) -> None:
    program: list[Step] = [['write', f'{number}', number, MIB + number] for number in range(16)]
    with stage(tmp_path, crash_nursery, s3_server, crash_bucket, **NOT_YET) as made, small_disk(made.cache, 8 * MIB):
        daemon = made.start()
        manifest = made.write(program, goes_on=True).finish()
        assert set(manifest.failed.values()) == {'ENOSPC'}
        assert len(manifest.done) >= 5
        if killed:
            daemon.kill()
            made.definition['writeback_delay'] = 0
            recover(made)
        else:
            daemon.end()
        check_files(made, program, manifest)
