"""The transport that tests of the layers above use."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fusefs import ops
from fusefs.transports.base import Dispatch, Transport
from fusefs.transports.inprocess import InProcessTransport
from genro_storage.runtime import WouldBlock, about_to_block

TIMEOUT_S = 10


def statfs() -> ops.Statfs:
    return ops.Statfs(0, 1, 0, 0, 0)


@contextmanager
def served(transport: InProcessTransport, dispatch: Dispatch) -> Iterator[None]:
    ready = threading.Event()
    thread = threading.Thread(target=transport.serve, args=(dispatch, ready.set))
    thread.start()
    assert ready.wait(TIMEOUT_S)
    try:
        yield
    finally:
        transport.close()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


@pytest.fixture
def transport() -> InProcessTransport:
    return InProcessTransport()


def test_it_is_a_transport(transport: InProcessTransport) -> None:
    as_protocol: Transport = transport
    assert as_protocol is transport


def test_a_call_returns_the_reply_and_numbers_its_request(transport: InProcessTransport) -> None:
    uniques: list[int] = []

    def dispatch(request: ops.Request) -> None:
        uniques.append(request.unique)
        with pytest.raises(WouldBlock):
            about_to_block()
        transport.answer(request, ops.Failure(5))

    with served(transport, dispatch):
        assert transport.call(statfs()) == ops.Failure(5)
        assert transport.call(statfs()) == ops.Failure(5)
    assert 0 not in uniques
    assert len(set(uniques)) == 2


def test_a_late_answer_reaches_its_own_caller(transport: InProcessTransport) -> None:
    held: list[ops.Request] = []

    def dispatch(request: ops.Request) -> None:
        held.append(request)
        if len(held) == 2:
            for one in held:
                transport.answer(one, str(one.uid).encode())

    with served(transport, dispatch):
        calls = [transport.start(ops.Statfs(0, 1, uid, 0, 0)) for uid in (10, 20)]
        assert [call.result() for call in calls] == [b'10', b'20']


def test_a_call_that_is_not_answered_times_out_and_nobody_wants_the_answer(transport: InProcessTransport) -> None:
    held: list[ops.Request] = []
    with served(transport, held.append), pytest.raises(TimeoutError, match='Statfs'):
        transport.call(statfs(), timeout_s=0.05)
    assert not transport.answer(held[0], None)


def test_an_abandoned_call_makes_answer_return_false(transport: InProcessTransport) -> None:
    answered: list[bool] = []
    go, done = threading.Event(), threading.Event()

    def dispatch(request: ops.Request) -> None:
        assert go.wait(TIMEOUT_S)
        answered.append(transport.answer(request, None))
        done.set()

    with served(transport, dispatch):
        transport.start(statfs()).abandon()
        go.set()
        assert done.wait(TIMEOUT_S)
    assert answered == [False]


@pytest.mark.parametrize('make', [lambda: ops.Forget(0, 0, 0, 0, 0, [(2, 1)]), lambda: ops.Interrupt(0, 0, 0, 0, 0, 4)])
def test_what_has_no_reply_is_not_waited_for(transport: InProcessTransport, make: Callable[[], ops.Request]) -> None:
    seen: list[ops.Request] = []
    arrived = threading.Event()

    def dispatch(request: ops.Request) -> None:
        seen.append(request)
        arrived.set()

    with served(transport, dispatch):
        assert transport.call(make()) is None
        assert arrived.wait(TIMEOUT_S)


def test_a_second_answer_is_an_error(transport: InProcessTransport) -> None:
    held: list[ops.Request] = []
    call = transport.start(statfs())
    held.append(call.request)
    assert transport.answer(held[0], None)
    with pytest.raises(RuntimeError, match='twice'):
        transport.answer(held[0], None)


def test_notifications_are_recorded(transport: InProcessTransport) -> None:
    transport.notify_inode(2, 0, 4096)
    transport.notify_entry(1, 'name')
    assert transport.inode_notifications == [(2, 0, 4096)]
    assert transport.entry_notifications == [(1, 'name')]


def test_close_before_serve_makes_serve_return(transport: InProcessTransport) -> None:
    transport.close()
    transport.serve(lambda request: None, lambda: None)
