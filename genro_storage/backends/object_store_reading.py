"""Ranges of objects through obstore: Rust receives and decrypts them while Python's threads go on.

Owns the obstore store of each process and what its failures mean. obstore is imported on first use.

Of an answer obstore's classes tell only part (a refused connection, a timeout, 416 and 503 are all GenericError, told
apart by text alone), and its texts hold whole answers, in which S3 may repeat a session token. So this says what two
classes say for sure, that the object is gone or has changed; after anything else that comes in place of an answer the
caller asks again by itself, and the failure of that has a type. A body that breaks off has no class either, but can be
nothing else: what had arrived of it is kept.

Threads: safe. Across a fork obstore hangs, even with a store that the child made; there the caller is asked for it all.
"""

import os
import re
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from genro_storage.backends.base import InterruptedReadError
from genro_storage.backends.object_store_xml import tag_of
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageNotFoundError,
    StorageTimeoutError,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# obstore's Path takes no control characters, and would turn some other keys into different ones; paths have no others.
_CONTROL = re.compile('[\x00-\x1f\x7f]')

# obstore's limit of a whole request, which must not end one that moves: no range takes as long.
_NEVER = timedelta(days=1)

_CONNECT_TIMEOUT_MAX_S = 10.0

# A body is taken in pieces of at least this: what has come since the last one is lost when the connection breaks off.
# Of 8 MiB it costs what obstore's one buffer and its copy cost (2.0 ms of this thread, where one piece of 8 MiB, which
# is fresh memory each time, costs 5.9); pieces of 1 MiB are no faster.
_PIECE_BYTES = 256 << 10

# For how long a server that asks for fewer requests gets one for each read instead of two.
_REST_S = 2.0


class ObstoreReader:
    """Reads ranges from what ``make_store`` makes, on first use."""

    def __init__(self, make_store: Callable[[], 'ObjectStore'], timeout_s: float) -> None:
        self._make_store = make_store
        self._timeout_s = timeout_s
        self._store: ObjectStore | None = None
        self._resting_until_s = 0.0

    def prepare(self) -> None:
        """Import obstore, start its threads and make a store, so that the first read need not: 30 ms."""
        if self._store is not None or is_inherited():
            return
        import obstore
        from obstore.store import MemoryStore

        obstore.put(MemoryStore(), 'any', b'')
        self._store = self._make_store()

    def read(self, key: str, offset: int, size_bytes: int, tag: str | None, what: str) -> bytes | None:
        """Bytes of an object; None where obstore cannot, or cannot say why not: ask otherwise.

        Raises StorageNotFoundError, StorageConflictError, StorageTimeoutError, InterruptedReadError.
        """
        if _CONTROL.search(key) or is_inherited() or time.monotonic() < self._resting_until_s:
            return None
        options: dict[str, Any] = {'range': (offset, offset + size_bytes)}
        if tag is not None:
            options['if_match'] = f'"{tag}"'
        return self._read(key, options, tag, what)

    def rest(self) -> None:
        """Leave the next reads to the caller: the server is there, and asks for fewer requests."""
        self._resting_until_s = time.monotonic() + _REST_S

    def _read(self, key: str, options: Any, tag: str | None, what: str) -> bytes | None:
        import obstore
        from obstore.exceptions import BaseError, PreconditionError

        if self._store is None:
            self._store = self._make_store()
        pieces: list[bytes] = []
        moved_s = time.monotonic()
        try:
            result = obstore.get(self._store, key, options=options)
            if tag is not None and tag_of(result.meta['e_tag'] or tag) != tag:
                raise StorageConflictError(f'{what} is another version, whatever was asked for')
            for piece in result.stream(_PIECE_BYTES):
                pieces.append(piece)
                moved_s = time.monotonic()
        except FileNotFoundError as error:
            raise StorageNotFoundError(f'{what}: nothing is there') from error
        except PreconditionError as error:
            raise StorageConflictError(f'{what} is another version') from error
        except StorageConflictError:
            raise
        except (BaseError, OSError, ValueError) as error:
            # The clock tells a timeout where no class does; to wait for another would double the mount's limit.
            if time.monotonic() - moved_s >= self._timeout_s:
                raise StorageTimeoutError(f'{what}: no progress within {self._timeout_s:g} s') from error
            if pieces:
                raise InterruptedReadError(f'{what}: the connection broke off', b''.join(pieces)) from error
            return None
        data = pieces[0] if len(pieces) == 1 else b''.join(pieces)
        start, end = result.range
        return data if (start, end - start) == (options['range'][0], len(data)) else None


def require_obstore() -> None:
    """Raises StorageConfigError if obstore is not installed."""
    try:
        import obstore  # noqa: F401 - whether it can be
    except ImportError as error:
        raise StorageConfigError(
            "this driver needs a package that is not installed: pip install 'genro-storage[s3]'"
        ) from error


def client_options(timeout_s: float, *, plain_http: bool) -> Any:
    """obstore's, with limits of a silence only. Not of sending: nothing is sent through it."""
    return {
        'allow_http': plain_http,
        'connect_timeout': timedelta(seconds=min(_CONNECT_TIMEOUT_MAX_S, timeout_s)),
        'read_timeout': timedelta(seconds=timeout_s),
        'timeout': _NEVER,
    }


def is_inherited() -> bool:
    """Whether this process was forked from one that had imported obstore, which hangs here then."""
    return _inherited.obstore


class _Inherited:
    obstore = False


_inherited = _Inherited()


def _note_fork() -> None:
    _inherited.obstore = _inherited.obstore or 'obstore' in sys.modules


os.register_at_fork(after_in_child=_note_fork)
