"""What nodes and volumes make of a sick server: the right bytes or the right error, in time, and health again."""

import errno
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager, StorageNode
from genro_storage.errors import StorageConflictError, StorageError, StorageThrottledError, StorageTimeoutError
from tests.faults.fault_proxy import SLOW_DOWN, Close, Fault, Reset, Shorten, Stall
from tests.faults.sick import MIB, PATIENT_S, TIMEOUT_S, Sick
from tests.mount.mounted import await_true, s3_definition

#: More than one range of the fetcher.
SIZE = 12 * MIB
SLACK_S = 3.0
#: A breaker that has opened waits 1.2 s at most, and 2.4 after one that tried too early.
BACK_WITHIN_S = 8.0


class Storage:
    """Mounts of one bucket: 'sick' and, with a long timeout, 'patient' behind the proxy, 'well' past it."""

    def __init__(self, sick: Sick, manager: StorageManager) -> None:
        self.sick = sick
        self.proxy = sick.proxy
        self.manager = manager

    def node(self, key: str) -> StorageNode:
        return self.manager.node('sick', key)

    def new(self, size_bytes: int = SIZE, mount: str = 'sick') -> tuple[StorageNode, bytes]:
        key, data = self.sick.new(size_bytes)
        return self.manager.node(mount, key), data


@pytest.fixture
def storage(sick: Sick, driver: str, tmp_path: Path) -> Iterator[Storage]:
    with StorageManager() as manager:
        mounts: list[dict[str, Any]] = [
            sick.definition(driver=driver, ttl=0),
            sick.definition('patient', PATIENT_S, driver=driver, ttl=0),
            s3_definition(sick.server, sick.bucket, name='well', timeout='30s', ttl=0),
        ]
        manager.configure({'mounts': mounts, 'cache': {'path': str(tmp_path / 'cache')}})
        yield Storage(sick, manager)
        sick.proxy.heal()


def fails_soon(operation: Any, limit_s: float = TIMEOUT_S + SLACK_S) -> StorageError:
    """What an operation raises, which takes no longer than this."""
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        operation()
    assert time.monotonic() - started < limit_s
    return caught.value


def test_a_file_is_right_through_all_that_can_happen_to_its_answers(storage: Storage) -> None:
    node, data = storage.new(mount='patient')
    faults: list[Fault] = [Reset(300_000), Close(1_000_000), SLOW_DOWN, Reset(0), Shorten(100_000), Close(70_000)]
    for fault in faults:
        storage.proxy.plan(fault, key=node.path)
    assert node.read_bytes() == data
    met = [asked.fault for asked in storage.proxy.reads(node.path) if asked.fault is not None]
    assert sorted(met, key=repr) == sorted(faults, key=repr)


def test_what_arrived_before_a_break_is_not_asked_for_again(storage: Storage) -> None:
    node, data = storage.new(mount='patient')
    storage.proxy.plan(Reset(900_000), key=node.path)
    assert node.read_bytes() == data
    reads = storage.proxy.reads(node.path)
    (broken,) = [asked for asked in reads if asked.fault is not None]
    assert broken.start is not None
    begun = [asked.start - broken.start for asked in reads if asked.start is not None]
    assert begun.count(0) == 1
    assert any(900_000 - (256 << 10) < ahead <= 900_000 for ahead in begun)
    assert sum(asked.sent_bytes for asked in reads) < SIZE + (256 << 10)


def test_a_server_that_falls_silent_in_a_body_is_a_timeout_and_right_when_it_is_back(storage: Storage) -> None:
    node, data = storage.new()
    storage.proxy.plan(Stall(200_000), key=node.path, times=None)
    error = fails_soon(node.read_bytes)
    assert isinstance(error, StorageTimeoutError)
    assert error.errno == errno.ETIMEDOUT
    storage.proxy.heal()
    await_true(lambda: reads_as(node, data), BACK_WITHIN_S, 'the right content')


def test_a_storm_of_slow_down_ends_as_an_error_or_not_at_all(storage: Storage) -> None:
    patient, data = storage.new(MIB, 'patient')
    storage.proxy.plan(SLOW_DOWN, key=patient.path, times=2)
    assert patient.read_bytes() == data
    other, _ = storage.new(MIB)
    storage.proxy.plan(SLOW_DOWN, times=None, reads_only=False)
    error = fails_soon(other.read_bytes)
    assert isinstance(error, StorageThrottledError)
    assert error.errno == errno.EIO
    storage.proxy.heal()
    assert other.exists


def test_an_object_that_changes_while_it_is_read_is_never_a_mixture(storage: Storage) -> None:
    node, data = storage.new(mount='patient')
    newer = bytes(byte ^ 0xFF for byte in data[:MIB]) * (SIZE // MIB)
    with node.open('rb') as file:
        assert file.read(4096) == data[:4096]
        storage.sick.put(newer, node.path)
        file.seek(SIZE - MIB)
        with pytest.raises(StorageConflictError) as caught:
            file.read(MIB)
        assert caught.value.errno == errno.ESTALE
    assert node.read_bytes() == newer


def test_an_object_that_changes_while_its_answer_is_broken_off_is_never_a_mixture(storage: Storage) -> None:
    node, data = storage.new(4 * MIB, 'patient')
    half_way = storage.proxy.plan(Stall(300_000), key=node.path)
    with node.open('rb') as file:
        # Which version somebody sees is settled with the first thing that is told of it.
        assert file.seek(0, io.SEEK_END) == len(data)
        file.seek(0)
        outcome: list[object] = []

        def read() -> None:
            try:
                outcome.append(file.read(4 * MIB))
            except StorageConflictError as error:
                outcome.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert half_way.wait(5)
        storage.sick.put(bytes(4 * MIB), node.path)
        storage.proxy.heal()
        reader.join(10)
    assert [type(one) for one in outcome] == [StorageConflictError]


@pytest.mark.parametrize(
    ('driver', 'dead'), [('obstore', 'refused'), ('obstore', 'silent'), ('fsspec', 'refused')], indirect=['driver']
)
def test_a_dead_server_harms_its_own_mount_only_and_is_noticed_when_it_is_back(storage: Storage, dead: str) -> None:
    node, data = storage.new(MIB)
    well = storage.manager.node('well', node.path)
    assert node.size == MIB
    if dead == 'refused':
        storage.proxy.refuse()
    else:
        storage.proxy.plan(Stall(), times=None, reads_only=False)
    for operation in (node.read_bytes, lambda: node.exists, storage.manager.node('sick').children):
        assert fails_soon(operation).errno in {errno.EIO, errno.ETIMEDOUT}
    # Three failures in a row: from here on nobody waits.
    assert fails_soon(lambda: node.size, 0.5).errno == errno.EIO
    started = time.monotonic()
    assert well.read_bytes() == data
    assert time.monotonic() - started < SLACK_S
    storage.proxy.heal()
    if dead == 'refused':
        storage.proxy.accept()
    await_true(lambda: reads_as(node, data), BACK_WITHIN_S, 'the right content')


def reads_as(node: StorageNode, data: bytes) -> bool:
    """Whether a file can be read; if it can, as what it is."""
    try:
        found = node.read_bytes()
    except StorageError:
        return False
    assert found == data
    return True
