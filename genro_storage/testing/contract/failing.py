"""The contract of what a backend says and does when the line to its server fails: inherited with three fixtures::

    class TestMyBackendOverABadLine(FailingContract):
        secrets = ('the-password-of-the-tests',)

        @pytest.fixture
        def line(self) -> Iterator[FaultyLine]:
            with closing(FaultyLine(the_port_of_my_server)) as line:
                yield line

        @pytest.fixture
        def backend(self, line: FaultyLine) -> Iterator[Backend]:
            with closing(MyBackend('127.0.0.1', line.port, timeout_s=self.timeout_s)) as backend:  # an empty place
                yield backend

        @pytest.fixture
        def beyond(self) -> Iterator[Backend]:
            ...  # the same place, not over the line

The backend is meant as it is, not guarded: what is tried again, and how often, is not asked here. It must not be
connected before the line is there.
"""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from genro_storage.backends.base import Backend, InterruptedReadError
from genro_storage.entry import Version
from genro_storage.errors import (
    StorageConflictError,
    StorageError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from genro_storage.testing.contract.asking import names, read, write
from genro_storage.testing.contract.contending import at_once
from genro_storage.testing.line import FaultyLine, Flow
from genro_storage.testing.sources import BytesSource

#: More than what a kernel or a client holds back, so that to break off in it is to break off.
CONTENT = random.Random(3).randbytes(700_000)  # noqa: S311 - the same in each run
#: What a server of HTTP says that asks for fewer requests.
HTTP_503 = b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
_OLD = b'what was there before'

_BREAKS: Mapping[str, Callable[[FaultyLine], Callable[..., threading.Event]]] = {
    'reset': lambda line: line.reset,
    'closed early': lambda line: line.end,
}


class FailingContract:
    """Refused, silent, reset and short answers.

    ``timeout_s``: what the backend is told. ``slack_s``: how much longer it may take, on a machine that others use too.
    ``breaks_at_bytes``: how far into an exchange with CONTENT the line breaks; less where contents go over connections
    of their own, which a line does not see. ``throttled``: the answer of a server that asks for fewer requests, where
    the protocol has one (HTTP_503). ``secrets``: what no error may show.
    """

    timeout_s = 1.0
    slack_s = 3.0
    breaks_at_bytes = 300_000
    throttled: bytes | None = None
    secrets: Sequence[str] = ()

    @pytest.fixture
    def version(self, backend: Backend, beyond: Backend) -> Version:
        """Of 'd/file', which holds CONTENT; the backend is connected."""
        write(beyond, 'd/file', CONTENT)
        version = backend.stat('d/file').version
        assert version is not None
        return version

    def test_a_server_that_refuses_is_unavailable_at_once_and_is_asked_again_when_it_is_back(
        self, line: FaultyLine, backend: Backend, version: Version
    ) -> None:
        line.refuse()
        asked = self._questions(backend, version)
        if backend.capabilities.writable:
            asked['d/new'] = partial(write, backend, 'd/new', CONTENT)
            asked['d/e'] = partial(backend.make_directory, 'd/e')
        for path, ask in asked.items():
            with self._failing(backend, path, StorageUnavailableError):
                ask()
        line.heal()
        self._assert_right(backend, version)

    def test_a_line_that_falls_silent_is_a_failure_within_the_timeout_and_no_absence(
        self, line: FaultyLine, backend: Backend, version: Version
    ) -> None:
        silent = line.stall(self.breaks_at_bytes)
        asked = self._questions(backend, version)

        def ask(path: str) -> None:
            # The read goes silent in the middle, the others before their first byte.
            assert path == 'd/file' or silent.wait(self.timeout_s + self.slack_s)
            with self._failing(backend, path, (StorageTimeoutError, StorageUnavailableError)):
                asked[path]()

        for outcome in at_once([partial(ask, path) for path in asked]):
            assert outcome is None
        line.heal()
        self._assert_right(backend, version)

    @pytest.mark.parametrize('way', _BREAKS)
    def test_a_read_that_breaks_off_is_right_or_a_failure_and_never_short(
        self, line: FaultyLine, backend: Backend, version: Version, way: str
    ) -> None:
        broken = _BREAKS[way](line)(self.breaks_at_bytes)
        try:
            data = backend.read_range('d/file', 0, len(CONTENT), version)
        except StorageUnavailableError as error:
            self._assert_told(backend, 'd/file', error)
            data = error.received if isinstance(error, InterruptedReadError) else b''
            complete = False
        else:
            complete = True
        assert data == CONTENT if complete else CONTENT.startswith(data)
        assert broken.is_set()
        self._assert_right(backend, version)

    # An answer that is lost may be one to what was done.
    @pytest.mark.parametrize(
        ('way', 'flow'), [('reset', Flow.REQUESTS), ('closed early', Flow.REQUESTS), ('reset', Flow.ANSWERS)]
    )
    def test_a_put_that_breaks_off_has_stored_all_or_nothing(
        self, line: FaultyLine, backend: Backend, beyond: Backend, way: str, flow: Flow
    ) -> None:
        if not backend.capabilities.writable:
            return
        write(beyond, 'd/old', _OLD)
        assert read(backend, 'd/old') == _OLD
        for name in ('old', 'new'):
            broken = _BREAKS[way](line)(self.breaks_at_bytes if flow is Flow.REQUESTS else 0, flow)
            try:
                backend.put(f'd/{name}', BytesSource(CONTENT))
            except (StorageUnavailableError, StorageTimeoutError) as error:
                self._assert_told(backend, f'd/{name}', error)
            else:
                assert read(beyond, f'd/{name}') == CONTENT
            assert broken.is_set()
            self._assert_old_or_new(beyond)
            line.heal()
        write(backend, 'd/new', CONTENT)
        assert read(beyond, 'd/new') == CONTENT
        assert names(beyond, 'd') == {'old', 'new'}

    def test_what_somebody_changed_since_it_was_looked_at_is_a_conflict_also_after_a_break(
        self, line: FaultyLine, backend: Backend, beyond: Backend, version: Version
    ) -> None:
        line.reset(self.breaks_at_bytes)
        begun = b''
        try:
            backend.read_range('d/file', 0, len(CONTENT), version)
        except InterruptedReadError as error:
            begun = error.received
        except StorageUnavailableError:
            pass
        write(beyond, 'd/file', CONTENT[::-1] + b'longer')
        line.heal()
        for offset in {0, len(begun)}:
            with self._failing(backend, 'd/file', StorageConflictError):
                backend.read_range('d/file', offset, len(CONTENT) - offset, version)

    def test_a_server_that_asks_for_fewer_requests_is_there(
        self, line: FaultyLine, backend: Backend, version: Version
    ) -> None:
        if self.throttled is None:
            return
        line.answer(self.throttled)
        for path, ask in self._questions(backend, version).items():
            with self._failing(backend, path, StorageThrottledError):
                ask()
        line.heal()
        self._assert_right(backend, version)

    def _questions(self, backend: Backend, version: Version) -> dict[str, Callable[[], object]]:
        """What changes nothing, each about a path of its own."""
        return {
            'd/file': partial(backend.read_range, 'd/file', 0, len(CONTENT), version),
            'd/nothing': partial(backend.stat, 'd/nothing'),
            'd': partial(backend.list_directory, 'd'),
        }

    @contextmanager
    def _failing(
        self, backend: Backend, path: str, kinds: type[StorageError] | tuple[type[StorageError], ...]
    ) -> Iterator[None]:
        """A failure of one of these kinds, in time, that says of what it is and no secret."""
        begun = time.monotonic()
        with pytest.raises(kinds) as caught:
            yield
        assert time.monotonic() - begun < self.timeout_s + self.slack_s
        self._assert_told(backend, path, caught.value)

    def _assert_told(self, backend: Backend, path: str, error: StorageError) -> None:
        assert path in str(error) or backend.destination in str(error)
        shown = ''.join(traceback.format_exception(error))
        assert [secret for secret in self.secrets if secret in shown] == []

    def _assert_right(self, backend: Backend, version: Version) -> None:
        assert backend.stat('d/file').version == version
        assert names(backend, 'd') == {'file'}
        assert backend.read_range('d/file', 0, len(CONTENT), version) == CONTENT

    def _assert_old_or_new(self, beyond: Backend) -> None:
        there = names(beyond, 'd')
        assert there <= {'old', 'new'}
        assert read(beyond, 'd/old') in {_OLD, CONTENT}
        assert 'new' not in there or read(beyond, 'd/new') == CONTENT
