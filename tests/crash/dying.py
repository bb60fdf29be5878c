"""A daemon that is killed at its n-th step: every call that has a lasting effect is counted, before and after it.

Owns which calls those are: what changes names or makes bytes durable on the local disk, and what changes something on
the server, which has a step more, when all of a request has been sent and nothing of the answer is there. The daemon is
the real one, and does not know: the functions of ``os`` and two of the connection to S3 are replaced before it starts.
Threads: any; steps are counted one by one.
"""

import mmap
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

CREATES = os.O_CREAT
UNNAMED = getattr(os, 'O_TMPFILE', 0)
PATH_CALLS = ('link', 'rename', 'replace', 'unlink', 'remove', 'mkdir', 'rmdir', 'symlink')
DESCRIPTOR_CALLS = ('fsync', 'fdatasync')
#: Reading changes nothing: to die at it is to die before the next step.
CHANGING = {'PUT', 'POST', 'DELETE'}


class Steps:
    """Counts, once the control file says so, and ends the process at the step that it is told; 0: at none."""

    def __init__(self, control: Path, trace: Path, last: int) -> None:
        self._last = last
        self._lock = threading.Lock()
        self._done = 0  # guarded by _lock
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        descriptor = os.open(control, os.O_RDONLY)
        self._armed = mmap.mmap(descriptor, 1, prot=mmap.PROT_READ)
        os.close(descriptor)

    def step(self, what: str) -> None:
        """One more."""
        if self._armed[0] != ord('1'):
            return
        with self._lock:
            self._done += 1
            os.write(self._trace, f'{what}\n'.encode())
            if self._done == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def serve(control: str, trace: str, last: int, arguments: list[str]) -> int:
    """genro-mount with these arguments, to be killed at a step."""
    # Before the calls are replaced: what is imported now has seen the real ones.
    from fusefs.main import mount

    steps = Steps(Path(control), Path(trace), last)
    _count_local_calls(steps)
    _count_requests(steps)
    return mount(arguments)


def _count_local_calls(steps: Steps) -> None:
    for name in PATH_CALLS:
        _count(steps, name, lambda *paths, **_: ' '.join(str(path) for path in paths))
    for name in DESCRIPTOR_CALLS:
        _count(steps, name, _name_of_descriptor)
    _count(steps, 'open', lambda path, flags, *_, **__: str(path) if _creates(flags) else None)


def _creates(flags: int) -> bool:
    return bool(flags & CREATES) or (bool(UNNAMED) and flags & UNNAMED == UNNAMED)


def _name_of_descriptor(descriptor: Any) -> str:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    return os.readlink(f'/proc/self/fd/{number}')


def _count(steps: Steps, name: str, describe: Callable[..., str | None]) -> None:
    """Replace a function of os; what ``describe`` returns None for is not counted."""
    call = getattr(os, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        what = describe(*arguments, **options)
        if what is None:
            return call(*arguments, **options)
        steps.step(f'before {name} {what}')
        result = call(*arguments, **options)
        steps.step(f'after {name} {what}')
        return result

    setattr(os, name, counted)


def _count_requests(steps: Steps) -> None:
    from genro_storage.backends.object_store_channel import S3Channel
    from genro_storage.backends.object_store_http import Exchange

    begin, receive = S3Channel._begin, Exchange.receive
    under_way: dict[int, str] = {}

    def counted_begin(channel: S3Channel, request: Any) -> Exchange:
        if request.method not in CHANGING:
            return begin(channel, request)
        query = ' '.join(f'{name}={value}'.removesuffix('=') for name, value in request.query.items())
        what = f'{request.method} {request.key} {query}'.strip()
        steps.step(f'before {what}')
        exchange = begin(channel, request)
        under_way[id(exchange)] = what
        steps.step(f'sent {what}')
        return exchange

    def counted_receive(exchange: Exchange) -> Any:
        what = under_way.pop(id(exchange), None)
        answer = receive(exchange)
        if what is not None:
            steps.step(f'answered {what}')
        return answer

    setattr(S3Channel, '_begin', counted_begin)  # noqa: B010 - a method is not to be assigned, says mypy
    setattr(Exchange, 'receive', counted_receive)  # noqa: B010


def kind_of(step: str) -> str:
    """Steps alike but for the numbers and random names in them have one kind."""
    return re.sub(r'[0-9a-f]{8,}|\d+', '#', re.sub(r'uploadId=\S+', 'uploadId', step))
