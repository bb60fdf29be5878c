"""Requests over HTTP to Google Cloud Storage, with gcsfs's credentials, and what its refusals mean.

Owns the session of a process, the time limits and the one place where an answer or an exception becomes an error. Does
not know what a request is for.

gcsfs's own requests are not used: they are tried up to six times, tell "exists" for every condition that failed, and
those of its newer class ask a gRPC service for the kind of bucket first, for which a server beside Google's lets them
wait a minute.

Threads: coroutines run on fsspec's loop.
"""

import asyncio
import io
import json
import os
import weakref
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec

from genro_storage.backends.fsspec_errors import translate
from genro_storage.backends.http_errors import refusal
from genro_storage.backends.loop_requests import (
    CLOSE_TIMEOUT_S,
    CONNECT_TIMEOUT_MAX_S,
    event_loop,
    sending_limit_s,
    start,
)
from genro_storage.backends.ranges import PARTIAL, WHOLE, ReceivedRange
from genro_storage.entry import Extent
from genro_storage.errors import (
    StorageConfigError,
    StorageError,
    StoragePermissionError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

# aiohttp's 100 are for all sessions of a host; more would gain nothing on one loop.
_CONNECTIONS_MAX = 64

# aiohttp writes bytes to the socket at once, and warns of more than 1 MiB that it holds up the loop.
_BYTES_AT_ONCE = 1 << 19

_NOTHING: Mapping[str, str] = {}


class GcsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request about a key. ``url`` is encoded; values of ``query`` that are None are left out.

    ``allowed_status``: an answer beside 2xx and no error. ``extent``: only these bytes of the object.
    """

    method: str
    url: str
    key: str
    query: Mapping[str, Any] = _NOTHING
    headers: Mapping[str, str] = _NOTHING
    body: bytes | None = None
    allowed_status: int = 200
    signed: bool = True
    extent: Extent | None = None


class GcsAnswer(msgspec.Struct, frozen=True):
    """What the server said. The body of a success is the extent asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class GcsChannel:
    """What one process has of a server of Google's kind. ``filesystem`` is of gcsfs."""

    def __init__(self, destination: str, filesystem: Any, timeout_s: float) -> None:
        self.filesystem = filesystem
        self._destination = destination
        self._timeout_s = timeout_s
        self._session: Any = None
        self._closing: weakref.finalize[..., Any] | None = None

    @property
    def endpoint(self) -> str:
        """Where requests go: a URL without a slash at its end."""
        return str(self.filesystem._location).rstrip('/')

    @property
    def is_anonymous(self) -> bool:
        """Whether nothing is signed."""
        return self.filesystem.credentials.credentials is None

    async def token(self) -> tuple[str, datetime | None]:
        """What requests are signed with now, and until when (UTC, naive)."""
        held = self.filesystem.credentials
        if not held.credentials.valid:
            # Synchronous requests of google-auth, which would stop the loop.
            await asyncio.wait_for(asyncio.to_thread(held.maybe_refresh), self._timeout_s)
        return str(held.credentials.token), held.credentials.expiry

    def url(self, bucket: str, key: str, valid_s: float) -> str:
        """From which anybody can get an object for so long; where nothing is signed, its public address.

        Raises StorageUnsupportedError for credentials without a key to sign with: an access token, a user's own.
        """
        if self.is_anonymous:
            return f'{self.endpoint}/{quote(bucket, safe="")}/{quote(key, safe="/~")}'
        from google.auth.credentials import AnonymousCredentials, Signing
        from google.cloud.storage import Client

        held = self.filesystem.credentials.credentials
        if not isinstance(held, Signing):
            raise StorageUnsupportedError(
                f"{self.what(key)}: no URL can be signed with these credentials; expected a service account's key"
            )
        try:
            # A client that asks nothing: it knows how an URL is signed.
            client = Client(project='-', credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
            blob = client.bucket(bucket).blob(key)
            signing = {'credentials': held, 'expiration': timedelta(seconds=max(1, int(valid_s)))}
            return str(blob.generate_signed_url(version='v4', api_access_endpoint=self.endpoint, **signing))
        except Exception as error:
            raise translated(error, self.what(key)) from error

    async def ask(self, request: GcsRequest) -> GcsAnswer:
        """Send a request and wait for its answer. Raises a StorageError for any but 2xx and what is allowed."""
        what = self.what(request.key)
        try:
            limit_s = sending_limit_s(len(request.body or b''), self._timeout_s)
            answer = await asyncio.wait_for(self._exchange(request), limit_s)
        except StorageError:
            raise
        except TimeoutError as error:
            raise StorageTimeoutError(f'{what}: no progress within {self._timeout_s:g} s') from error
        except Exception as error:
            raise translated(error, what) from error
        if answer.status == request.allowed_status or 200 <= answer.status < 300:
            return answer
        raise refusal(answer.status, what, _reason(answer.body))

    def what(self, key: str) -> str:
        """How messages name a key."""
        return f'{self._destination}: {key!r}'

    def malformed(self, key: str) -> StorageError:
        """The error for an answer that is not what Google says it should be."""
        return StorageUnavailableError(f'{self.what(key)}: an answer not of its kind; is this a GCS server?')

    def close(self) -> None:
        """Close the connections, in the process that made them. Idempotent."""
        if self._closing is not None:
            self._closing()

    async def _exchange(self, request: GcsRequest) -> GcsAnswer:
        from yarl import URL

        headers = {'Accept-Encoding': 'identity', **request.headers}
        if request.signed and not self.is_anonymous:
            headers['Authorization'] = f'Bearer {(await self.token())[0]}'
        if request.extent is not None:
            headers['Range'] = f'bytes={request.extent.offset}-{request.extent.end - 1}'
        asked: Mapping[str, Any] = self.filesystem._get_params(dict(request.query))
        query = {name: str(value) for name, value in asked.items() if value != ''}
        body = request.body
        data = io.BytesIO(body) if body is not None and len(body) > _BYTES_AT_ONCE else body
        session = self._session if self._session is not None else self._open_session()
        # Encoded already: yarl would decode what is quoted in a key.
        url = URL(request.url, encoded=True)
        async with session.request(request.method, url, params=query, headers=headers, data=data) as answer:
            return GcsAnswer(answer.status, answer.headers, await self._received(request, answer))

    async def _received(self, request: GcsRequest, answer: Any) -> bytes:
        if request.extent is None or answer.status not in {WHOLE, PARTIAL}:
            return bytes(await answer.read())
        content_range = answer.headers.get('Content-Range')
        arriving = ReceivedRange(request.extent, answer.status, content_range, self.what(request.key))
        try:
            # What has arrived, not all of it, so that none is lost when the connection breaks off.
            while arriving.missing_bytes and (piece := await answer.content.readany()):
                arriving.add(piece)
        except TimeoutError:
            raise
        except Exception as error:
            raise arriving.interrupted(f'the connection broke off ({type(error).__name__})') from error
        return arriving.result()

    def _open_session(self) -> Any:
        import aiohttp

        # Made here and not by gcsfs, whose session would be closed at the exit of a forked child too and take the
        # parent's connections out of the event loop that both share.
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=min(CONNECT_TIMEOUT_MAX_S, self._timeout_s), sock_read=self._timeout_s
        )
        own = {'connector': aiohttp.TCPConnector(limit=_CONNECTIONS_MAX), 'timeout': limits}
        # A compressed object is what it is; its bytes are those that its size counts.
        self._session = aiohttp.ClientSession(**own | self.filesystem.session_kwargs, auto_decompress=False)
        self._closing = weakref.finalize(self, _close, self._session, event_loop(), os.getpid())
        return self._session


def _reason(body: bytes) -> str:
    """Google's word for a refusal. Not its message, which may repeat what was sent."""
    try:
        return str(json.loads(body)['error']['errors'][0]['reason'])
    except (ValueError, KeyError, IndexError, TypeError):
        return ''


def translated(error: Exception, what: str) -> StorageError:
    """The error of our tree for whatever a request raised; ``what`` names destination and key."""
    from gcsfs.retry import HttpError, NonRetryableError
    from google.auth import exceptions as auth

    # In order: the first class that fits. Texts are left out where they may hold what was sent.
    table: tuple[tuple[type[Exception], type[StorageError]], ...] = (
        (auth.TransportError, StorageUnavailableError),
        (auth.DefaultCredentialsError, StorageConfigError),
        (auth.MalformedError, StorageConfigError),
        (auth.GoogleAuthError, StoragePermissionError),
        (HttpError, StoragePermissionError),  # of renewing credentials alone, here
        (NonRetryableError, StoragePermissionError),  # the same
    )
    for foreign, ours in table:
        if isinstance(error, foreign):
            return ours(f'{what}: the credentials cannot be used ({type(error).__name__})')
    return translate(error, what)


def _close(session: Any, loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if os.getpid() != pid or not loop.is_running():
        return
    closing = start(session.close())
    try:
        closing.result(CLOSE_TIMEOUT_S)
    except TimeoutError:
        closing.cancel()
