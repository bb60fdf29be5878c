"""The connection, over a packet socket in place of /dev/fuse: one message per read and write, as there.

What only the kernel can do (interrupt, unmount, refuse a reply) is in tests/mount.
"""

import errno
import gc
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path

import pytest

from fusefs import ops
from fusefs.transports.base import Dispatch
from fusefs.transports.devfuse.channel import DevFuseTransport
from fusefs.transports.devfuse.handshake import HandshakeError
from genro_storage.runtime import WouldBlock, about_to_block

TIMEOUT_S = 10


class Kernel:
    """The other end: sends requests, reads replies, and serves a transport in a thread."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(TIMEOUT_S)
        self.transport = DevFuseTransport(theirs.detach())
        self.ready = threading.Event()
        self.errors: list[BaseException] = []
        self.thread: threading.Thread | None = None

    def send(self, opcode: int, body: bytes = b'', unique: int = 7) -> None:
        self.socket.send(struct.pack('=IIQQIIIHH', 40 + len(body), opcode, unique, 1, 0, 0, 0, 0, 0) + body)

    def send_init(self, minor: int = 45) -> None:
        self.send(26, struct.pack('=IIII', 7, minor, 131072, 0xFFFFFFFF) + bytes(48))

    def reply(self) -> tuple[int, int, bytes]:
        """Unique, errno (positive) and body of the next message."""
        message = self.socket.recv(1 << 16)
        length, error, unique = struct.unpack_from('=IiQ', message)
        assert length == len(message)
        return unique, -error, message[16:]

    def serve(self, dispatch: Dispatch) -> None:
        def run() -> None:
            try:
                self.transport.serve(dispatch, self.ready.set)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.errors.append(error)

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def connect(self, dispatch: Dispatch) -> None:
        self.serve(dispatch)
        self.send_init()
        self.reply()
        assert self.ready.wait(TIMEOUT_S)

    def hang_up(self) -> None:
        self.socket.close()

    def wait_for_end(self) -> None:
        assert self.thread is not None
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.hang_up()
    if kernel.thread is not None:
        kernel.wait_for_end()


def answering(kernel: Kernel, reply: Callable[[ops.Request], ops.Reply]) -> Dispatch:
    return lambda request: void(kernel.transport.answer(request, reply(request)))


def void(_: object) -> None:
    return None


def test_requests_reach_dispatch_on_threads_that_must_not_block_and_replies_go_back(kernel: Kernel) -> None:
    seen: list[tuple[str, str]] = []

    def reply(request: ops.Request) -> ops.Reply:
        assert isinstance(request, ops.Lookup)
        with pytest.raises(WouldBlock):
            about_to_block()
        seen.append((request.name, threading.current_thread().name))
        return b'data'

    kernel.connect(answering(kernel, reply))
    kernel.send(1, b'name\0')
    assert kernel.reply() == (7, 0, b'data')
    assert seen[0][0] == 'name'
    assert seen[0][1] in {'fuse-0', 'fuse-1'}


def test_a_worker_may_answer_later(kernel: Kernel) -> None:
    requests: list[ops.Request] = []
    arrived = threading.Event()

    def keep(request: ops.Request) -> None:
        requests.append(request)
        arrived.set()

    kernel.connect(keep)
    kernel.send(17)
    assert arrived.wait(TIMEOUT_S)
    assert kernel.transport.answer(requests[0], ops.Failure(errno.EIO))
    assert kernel.reply() == (7, errno.EIO, b'')


def test_an_unknown_opcode_gets_enosys_without_dispatch(kernel: Kernel) -> None:
    kernel.connect(lambda request: pytest.fail('dispatched'))
    kernel.send(40, bytes(24))
    assert kernel.reply() == (7, errno.ENOSYS, b'')


def test_destroy_is_answered_with_success(kernel: Kernel) -> None:
    kernel.connect(lambda request: pytest.fail('dispatched'))
    kernel.send(38)
    assert kernel.reply() == (7, 0, b'')


def test_a_malformed_request_gets_eio_and_is_logged_once(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    kernel.connect(lambda request: pytest.fail('dispatched'))
    for unique in (7, 8):
        kernel.send(1, b'no end', unique)
        assert kernel.reply() == (unique, errno.EIO, b'')
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert 'LOOKUP' in caplog.text


@pytest.mark.parametrize('error', [RuntimeError('a bug'), WouldBlock()], ids=['exception', 'would-block'])
def test_dispatch_that_raises_becomes_eio_and_serving_goes_on(
    kernel: Kernel, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def dispatch(request: ops.Request) -> None:
        if request.unique == 7:
            raise error
        kernel.transport.answer(request, None)

    kernel.connect(dispatch)
    for unique in (7, 8):
        kernel.send(17, b'', unique)
    assert {kernel.reply() for _ in range(2)} == {(7, errno.EIO, b''), (8, 0, b'')}
    assert 'Statfs: dispatch raised' in caplog.text


def test_a_reply_that_does_not_fit_becomes_eio_and_is_logged_without_its_content(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[bool] = []
    attributes = ops.Attributes(-1, 0)

    def dispatch(request: ops.Request) -> None:
        answers.append(kernel.transport.answer(request, ops.AttributesReply(attributes, 0)))

    kernel.connect(dispatch)
    kernel.send(17)
    assert kernel.reply() == (7, errno.EIO, b'')
    kernel.hang_up()
    kernel.wait_for_end()
    assert answers == [False]
    assert 'AttributesReply does not fit' in caplog.text


def test_forget_and_interrupt_are_never_answered_even_if_dispatch_raises(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    def dispatch(request: ops.Request) -> None:
        if isinstance(request, ops.Forget | ops.Interrupt):
            raise TypeError('a bug')
        kernel.transport.answer(request, None)

    kernel.connect(dispatch)
    kernel.send(2, struct.pack('=Q', 1), unique=1)
    kernel.send(36, struct.pack('=Q', 99), unique=2)
    kernel.send(42, b'short', unique=3)
    kernel.send(17, b'', unique=4)
    assert kernel.reply()[0] == 4
    kernel.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        kernel.reply()


def test_notifications_have_no_number(kernel: Kernel) -> None:
    kernel.connect(lambda request: None)
    kernel.transport.notify_inode(5, 0, 0)
    assert kernel.reply()[:2] == (0, -2)
    kernel.transport.notify_entry(1, 'name')
    assert kernel.reply()[:2] == (0, -3)


def test_the_end_of_the_connection_ends_serve(kernel: Kernel) -> None:
    kernel.connect(lambda request: None)
    kernel.hang_up()
    kernel.wait_for_end()
    assert not kernel.errors


@pytest.mark.parametrize(('number', 'raised'), [(errno.ENODEV, []), (errno.ECONNABORTED, []), (errno.EIO, [errno.EIO])])
def test_unmounting_ends_serve_wherever_it_finds_a_reader_and_other_errors_come_out(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, number: int, raised: list[int]
) -> None:
    over = threading.Event()
    readv = os.readv

    def read(descriptor: int, buffers: list[mmap]) -> int:
        length = readv(descriptor, buffers)
        if over.is_set():
            raise OSError(number, os.strerror(number))
        return length

    monkeypatch.setattr(os, 'readv', read)
    kernel.connect(lambda _: None)
    over.set()
    kernel.hang_up()  # wakes both readers
    kernel.wait_for_end()
    assert [error.errno for error in kernel.errors if isinstance(error, OSError)] == raised


def test_close_ends_serve_at_once_and_later_requests_find_nobody(kernel: Kernel) -> None:
    kernel.connect(lambda request: pytest.fail('dispatched'))
    kernel.transport.close()
    kernel.transport.close()
    kernel.wait_for_end()
    for unique in range(2, 8):
        kernel.send(17, b'', unique)
        assert kernel.reply() == (unique, errno.ENOTCONN, b'')


def test_close_before_serve_makes_serve_return(kernel: Kernel) -> None:
    kernel.transport.close()
    kernel.serve(lambda request: None)
    kernel.wait_for_end()
    assert not kernel.ready.is_set()


def test_an_error_in_on_ready_comes_out_of_serve(kernel: Kernel) -> None:
    def fail() -> None:
        raise LookupError('not ready after all')

    kernel.send_init()
    with pytest.raises(LookupError):
        kernel.transport.serve(lambda request: None, fail)


def test_a_kernel_that_is_too_old_is_told_and_serve_raises(kernel: Kernel) -> None:
    kernel.serve(lambda request: None)
    kernel.send_init(minor=23)
    assert kernel.reply()[1] == errno.EPROTO
    kernel.wait_for_end()
    assert [type(error) for error in kernel.errors] == [HandshakeError]


def test_an_answer_after_the_end_cannot_reach_another_file(kernel: Kernel, tmp_path: Path) -> None:
    requests: list[ops.Request] = []
    arrived = threading.Event()

    def keep(request: ops.Request) -> None:
        requests.append(request)
        arrived.set()

    kernel.connect(keep)
    kernel.send(17)
    assert arrived.wait(TIMEOUT_S)
    kernel.hang_up()
    kernel.wait_for_end()
    files = [(tmp_path / f'{number}').open('w+b') for number in range(20)]
    kernel.transport.answer(requests[0], b'late')
    assert [os.fstat(file.fileno()).st_size for file in files] == [0] * 20
    for file in files:
        file.close()


def test_descriptors_are_given_back_with_the_transport() -> None:
    gc.collect()
    before = os.listdir('/proc/self/fd')
    kernel = Kernel()
    kernel.connect(lambda request: None)
    readers = [thread for thread in threading.enumerate() if thread.name.startswith('fuse-')]
    kernel.hang_up()
    kernel.wait_for_end()
    for reader in readers:
        reader.join(TIMEOUT_S)
    del kernel
    gc.collect()
    assert os.listdir('/proc/self/fd') == before
