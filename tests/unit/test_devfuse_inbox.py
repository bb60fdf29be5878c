"""Readers that look for the next request before they sleep, over a packet socket in place of /dev/fuse."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path

import pytest

from fusefs.transports.devfuse.inbox import IN_VAIN_MAX, LOOK_S, SELDOM, Inbox

TIMEOUT_S = 10


class Kernel:
    """The other end, and a clock that goes on by a tenth of the moment whenever somebody looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs.setblocking(False)
        self.now = 0.0
        self.reads = 0
        self.inbox = Inbox(self._theirs.fileno(), self._clock)
        readv = os.readv

        def counted(descriptor: int, buffers: list[mmap]) -> int:
            self.reads += 1
            return readv(descriptor, buffers)

        monkeypatch.setattr(os, 'readv', counted)

    def _clock(self) -> float:
        self.now += LOOK_S / 10
        return self.now

    def send(self, message: bytes) -> None:
        self.socket.send(message)

    def read(self) -> bytes:
        buffer = mmap(-1, 100)
        return bytes(buffer[: self.inbox.read([buffer])])

    def close(self) -> None:
        self.inbox.close()
        self.socket.close()
        self._theirs.close()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel(monkeypatch)
    yield kernel
    kernel.close()


class Reader(threading.Thread):
    """A thread that reads, and goes off duty if it is told."""

    def __init__(self, kernel: Kernel, *, shares: bool = False) -> None:
        super().__init__(daemon=True)
        self._kernel = kernel
        self._shares = shares
        self.messages: list[bytes] = []
        self.took = threading.Semaphore(0)
        self._go_on = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        while message := self._kernel.read():
            self.messages.append(message)
            if self._shares:
                self._kernel.inbox.go_off_duty()
            self.took.release()
            self._go_on.acquire()
        self._kernel.inbox.go_off_duty()

    def wait(self) -> None:
        assert self.took.acquire(timeout=TIMEOUT_S)

    def go_on(self) -> None:
        self._go_on.release()


def asleep(*readers: threading.Thread) -> None:
    """Wait until they are in epoll_wait(2)."""
    deadline = time.monotonic() + TIMEOUT_S
    for reader in readers:
        where = Path(f'/proc/self/task/{reader.native_id}/wchan')
        while 'poll' not in where.read_text():
            assert time.monotonic() < deadline, f'it is in {where.read_text()!r}'
            time.sleep(0.0005)


def send_once_asleep(kernel: Kernel, message: bytes) -> None:
    """Send when the calling thread has gone to sleep."""
    reader = threading.current_thread()
    threading.Thread(target=lambda: (asleep(reader), kernel.send(message)), daemon=True).start()


def test_what_is_there_is_read_at_once_and_what_comes_later_then(kernel: Kernel) -> None:
    kernel.send(b'first')
    assert kernel.read() == b'first'
    send_once_asleep(kernel, b'later')
    assert kernel.read() == b'later'


def test_who_has_served_looks_for_a_moment_and_sleeps_then(kernel: Kernel) -> None:
    kernel.send(b'first')
    kernel.read()
    kernel.reads, before = 0, kernel.now
    send_once_asleep(kernel, b'later')
    assert kernel.read() == b'later'
    assert 8 <= kernel.reads <= 13  # ten while it looks, and one when it is woken
    assert kernel.now - before == pytest.approx(LOOK_S, rel=0.3)


def test_where_it_is_in_vain_it_is_tried_seldom_and_often_again_once_it_was_of_use(kernel: Kernel) -> None:
    kernel.send(b'first')
    kernel.read()
    looked = []
    for _ in range(IN_VAIN_MAX + 3 * SELDOM):
        before = kernel.now
        send_once_asleep(kernel, b'late')
        kernel.read()
        looked.append(kernel.now > before)
    assert looked[:IN_VAIN_MAX] == [True] * IN_VAIN_MAX
    assert sum(looked[IN_VAIN_MAX:]) == 3
    for _ in range(SELDOM):
        kernel.send(b'at once')
        kernel.read()
    before = kernel.now
    kernel.send(b'at once')
    kernel.read()
    assert kernel.now > before


def test_while_one_is_on_duty_nobody_else_is_woken_and_it_takes_what_comes(kernel: Kernel) -> None:
    first, second = Reader(kernel), Reader(kernel)
    asleep(first, second)
    kernel.send(b'a')
    while not (first.messages or second.messages):
        time.sleep(0.001)
    on_duty, other = (first, second) if first.messages else (second, first)
    on_duty.wait()
    asleep(other)
    kernel.reads = 0
    kernel.send(b'b')
    assert not other.took.acquire(timeout=0.05)
    assert kernel.reads == 0
    on_duty.go_on()
    on_duty.wait()
    assert (on_duty.messages, other.messages) == ([b'a', b'b'], [])
    end(kernel, first, second)


def test_who_goes_off_duty_has_others_woken_also_for_what_is_there_already(kernel: Kernel) -> None:
    first, second = Reader(kernel, shares=True), Reader(kernel, shares=True)
    asleep(first, second)
    kernel.send(b'a')
    kernel.send(b'b')
    first.wait()
    second.wait()
    assert sorted(first.messages + second.messages) == [b'a', b'b']
    end(kernel, first, second)


def test_the_end_reaches_those_who_sleep_and_those_who_look(kernel: Kernel) -> None:
    readers = [Reader(kernel) for _ in range(3)]
    asleep(*readers)
    kernel.send(b'a')
    end(kernel, *readers)


def end(kernel: Kernel, *readers: Reader) -> None:
    kernel.socket.close()
    for reader in readers:
        reader.go_on()
        reader.go_on()
    for reader in readers:
        reader.join(TIMEOUT_S)
        assert not reader.is_alive()
