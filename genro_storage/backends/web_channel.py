"""Requests to one web server, below one URL: what HTTP and WebDAV backends share.

Owns how a path becomes part of a URL, who asks (Authorization), redirections, and what a status means to us. Knows
nothing of directories. Credentials and headers of the definition go to the server that it names and to no other.

Threads: safe. Forked children make connections of their own.
"""

from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import msgspec

from genro_storage import paths
from genro_storage.backends import http_errors
from genro_storage.backends.object_store_http import Answer, Body, HttpConnections, Message
from genro_storage.backends.per_process import PerProcess
from genro_storage.entry import Extent
from genro_storage.errors import StorageError, StorageIOError, StorageNotFoundError, StorageUnavailableError

OK = 200
NOT_FOUND = frozenset({404, 410})

# As browsers and curl have it, more or less; who is sent on more often goes in circles.
_REDIRECTIONS_MAX = 10
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_FOLLOWING = frozenset({'GET', 'HEAD', 'PROPFIND'})

# All that a path of a URL may hold as it is (RFC 3986, pchar) but what some servers decode twice.
_AS_IT_IS = "/!$'()*,:@~"


class Found(msgspec.Struct, frozen=True):
    """An answer, and the URL that it came from in the end."""

    answer: Answer
    url: str

    @property
    def is_below_slash(self) -> bool:
        """Whether it came from a URL of a directory."""
        return urlsplit(self.url).path.endswith('/')


class WebChannel:
    """Asks the server of a URL, whose user and password, if it has them, are taken out of it."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        parts = urlsplit(url)
        userinfo, _, host = parts.netloc.rpartition('@')
        #: Without a slash at its end.
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip('/'), '', ''))
        self._headers = {name.lower(): value for name, value in headers.items()}
        if userinfo and 'authorization' not in self._headers:
            user, _, password = userinfo.partition(':')
            self._headers['authorization'] = basic(unquote(user), unquote(password))
        self._timeout_s = timeout_s
        self._process = PerProcess(lambda: HttpConnections(self.url, timeout_s))

    @property
    def has_credentials(self) -> bool:
        """Whether what it gets may not be what anybody gets."""
        return bool(self._headers)

    def url_of(self, path: str, *, directory: bool = False) -> str:
        """The URL of a path."""
        encoded = quote(paths.encode(path), safe=_AS_IT_IS)
        url = f'{self.url}/{encoded}' if encoded else self.url
        return f'{url}/' if directory else url

    def ask(
        self,
        method: str,
        url: str,
        what: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: Body | None = None,
        extent: Extent | None = None,
        repeatable: bool = True,
    ) -> Found:
        """Ask, following redirections of what changes nothing. Raises what the network fails at; a status never.

        ``what`` names destination and path, for errors.
        """
        for _ in range(_REDIRECTIONS_MAX):
            answer = self._ask_once(method, url, what, headers or {}, body, extent, repeatable)
            location = answer.headers.get('location')
            if answer.status not in _REDIRECTIONS or location is None or method not in _FOLLOWING:
                return Found(answer, url)
            url = self._redirected(url, location, what)
        raise StorageIOError(f'{what}: redirected more than {_REDIRECTIONS_MAX} times')

    def close(self) -> None:
        """Close the connections of this process. Idempotent."""
        made = self._process.take()
        if made is not None:
            made.close()

    def _ask_once(
        self,
        method: str,
        url: str,
        what: str,
        headers: Mapping[str, str],
        body: Body | None,
        extent: Extent | None,
        repeatable: bool,
    ) -> Answer:
        parts = urlsplit(url)
        sent = {'host': parts.netloc, 'user-agent': 'genro-storage', 'accept-encoding': 'identity', **headers}
        if extent is not None:
            sent['range'] = f'bytes={extent.offset}-{extent.end - 1}'
        target = parts.path + (f'?{parts.query}' if parts.query else '') or '/'
        ours = self._is_ours(url)
        if ours:
            sent |= self._headers
        message = Message(method, target, sent, body=body, repeatable=repeatable, extent=extent)
        if ours:
            return self._process.get().begin(message, what).receive()
        connections = HttpConnections(url, self._timeout_s)
        try:
            return connections.begin(message, what).receive()
        finally:
            connections.close()

    def _is_ours(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self.url)[:2]

    def _redirected(self, url: str, location: str, what: str) -> str:
        target = urljoin(url, location)
        parts = urlsplit(target)
        allowed = {'https'} if urlsplit(url).scheme == 'https' else {'http', 'https'}
        if parts.scheme not in allowed or not parts.hostname:
            raise StorageUnavailableError(f'{what}: redirected to where nobody follows ({parts.scheme or "nothing"})')
        userinfo_less = parts.netloc.rpartition('@')[2]
        return urlunsplit((parts.scheme, userinfo_less, parts.path, parts.query, ''))


def basic(user: str, password: str) -> str:
    """The value of Authorization for a user and a password (RFC 7617)."""
    return 'Basic ' + b64encode(f'{user}:{password}'.encode()).decode('ascii')


def refusal(answer: Answer, what: str) -> StorageError:
    """The error for an answer that is no success."""
    if answer.status in NOT_FOUND:
        return StorageNotFoundError(f'{what}: nothing is there')
    return http_errors.refusal(answer.status, what)
