"""A git repository on GitHub, through its REST API.

Owns the requests and what refusals mean. Trees and blobs are asked for by their ids, which never change; only which
commit a branch means is asked again, and an answer "not modified" to that counts towards no limit of requests.
Credentials go to the API's own host and to nobody that it sends us to. Urllib is what the standard library has: one
connection for each request.
Threads: safe; what is known of the branch is replaced as a whole.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote, urlsplit

import msgspec

from genro_storage.backends.git_trees import Node, ObjectKind, Snapshot, Tree
from genro_storage.backends.http_errors import refusal
from genro_storage.errors import (
    StorageConfigError,
    StorageIOError,
    StorageNotFoundError,
    StoragePermissionError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

_API_VERSION = '2022-11-28'
_JSON = 'application/vnd.github+json'
_RAW = 'application/vnd.github.raw+json'
#: GitHub's own limit for a blob, and what we hold in memory of any answer.
_ANSWER_MOST_BYTES = 100 << 20
_PIECE_BYTES = 1 << 20

_KINDS = {'tree': ObjectKind.TREE, 'blob': ObjectKind.BLOB, 'commit': ObjectKind.MODULE}
_LINK_MODE = '120000'


class _Branch(msgspec.Struct, frozen=True):
    """What a ref was found to mean."""

    etag: str
    snapshot: Snapshot


class _Answer(msgspec.Struct, frozen=True):
    """An answer of the API. ``is_old``: it said that nothing has changed, and has no body."""

    headers: Mapping[str, str]
    body: bytes
    is_old: bool = False


class GithubRepository:
    """See Repository."""

    def __init__(
        self, endpoint_url: str, org: str, repo: str, ref: str | None, token: str | None, timeout_s: float
    ) -> None:
        self._name = f'{org}/{repo}'
        self._url = f'{endpoint_url.rstrip("/")}/repos/{org}/{repo}'
        self._ref = ref
        self._token = token
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(_Redirects())
        self._branch: _Branch | None = None

    def snapshot(self) -> Snapshot:
        """See Repository."""
        branch = self._branch
        try:
            answer = self._ask(
                f'/commits/{quote(self._ref or "HEAD", safe="/")}', _JSON, etag=None if branch is None else branch.etag
            )
        except StorageNotFoundError as error:
            told = 'no such commit' if self._ref else 'no commit'
            raise StorageConfigError(
                f'GitHub has {told} in {self._name!r} ({self._ref or "default branch"}), or shows it to nobody without '
                'a token that may read it'
            ) from error
        if branch is not None and answer.is_old:
            return branch.snapshot
        commit = _mapping(_mapping(self._parsed(answer)).get('commit'))
        try:
            made = datetime.fromisoformat(_mapping(commit.get('committer'))['date'])
            tree_id = str(_mapping(commit.get('tree'))['sha'])
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense() from error
        snapshot = Snapshot(tree_id, int(made.replace(tzinfo=made.tzinfo or UTC).timestamp()) * 1_000_000_000)
        self._branch = _Branch(answer.headers.get('etag', ''), snapshot)
        return snapshot

    def tree(self, tree_id: str) -> Tree:
        """See Repository."""
        said = _mapping(self._parsed(self._ask(f'/git/trees/{quote(tree_id)}', _JSON)))
        if said.get('truncated'):
            raise StorageUnsupportedError(f'GitHub does not list a directory of {self._name!r}: it has too many names')
        try:
            return {str(each['path']): _node(each) for each in said['tree']}
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense() from error

    def blob(self, blob_id: str) -> bytes:
        """See Repository. Raises StorageUnsupportedError beyond GitHub's 100 MiB."""
        return self._ask(f'/git/blobs/{quote(blob_id)}', _RAW).body

    def close(self) -> None:
        """See Repository. Nothing is held between requests."""

    def _ask(self, path: str, accepted: str, *, etag: str | None = None) -> _Answer:
        headers = {'Accept': accepted, 'X-GitHub-Api-Version': _API_VERSION, 'User-Agent': 'genro-storage'}
        if self._token:
            headers['Authorization'] = f'Bearer {self._token}'
        if etag:
            headers['If-None-Match'] = etag
        request = urllib.request.Request(self._url + path, headers=headers)  # noqa: S310 - the definition says http
        what = f'GitHub, {self._name!r}'
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return _Answer({name.lower(): value for name, value in answer.headers.items()}, _body(answer, what))
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.NOT_MODIFIED:
                    return _Answer({}, b'', is_old=True)
                raise _refused(error, what) from error
        except TimeoutError as error:
            raise StorageTimeoutError(f'{what}: nothing came for {self._timeout_s:g} s') from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise StorageTimeoutError(f'{what}: nothing came for {self._timeout_s:g} s') from error
            raise StorageUnavailableError(f'{what} cannot be reached: {error.reason}') from error
        except (OSError, http.client.HTTPException) as error:
            raise StorageUnavailableError(f'{what}: the answer broke off: {error!r}') from error

    def _parsed(self, answer: _Answer) -> object:
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise self._nonsense() from error

    def _nonsense(self) -> StorageIOError:
        return StorageIOError(
            f'GitHub, {self._name!r}: an answer that is none of its API; is it the right endpoint_url?'
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a repository to its new name, and takes the token to no other host."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """See HTTPRedirectHandler."""
        if urlsplit(newurl).scheme not in {'http', 'https'}:
            raise urllib.error.HTTPError(req.full_url, code, 'a redirect away from the web', headers, fp)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            request.remove_header('Authorization')
        return request


def _body(answer: Any, what: str) -> bytes:
    pieces: list[bytes] = []
    size_bytes = 0
    while piece := answer.read(_PIECE_BYTES):
        pieces.append(piece)
        size_bytes += len(piece)
        if size_bytes > _ANSWER_MOST_BYTES:
            raise StorageUnsupportedError(f'{what}: an answer of more than 100 MiB')
    # read() with a size takes an early end for the end.
    said = answer.headers.get('Content-Length')
    if said is not None and said.isdigit() and int(said) != size_bytes:
        raise StorageUnavailableError(f'{what}: the answer broke off after {size_bytes} of {said} bytes')
    return b''.join(pieces)


def _refused(error: urllib.error.HTTPError, what: str) -> Exception:
    limited = error.headers.get('x-ratelimit-remaining') == '0' or error.headers.get('retry-after') is not None
    if error.code in {403, 429} and limited:
        return StorageThrottledError(
            f'{what}: GitHub answers no more requests for now; with a token it answers 5000 an hour'
        )
    if error.code == http.HTTPStatus.UNAUTHORIZED:
        return StoragePermissionError(f'{what}: GitHub does not accept the token')
    if error.code == http.HTTPStatus.UNPROCESSABLE_ENTITY:
        return StorageNotFoundError(f'{what}: no such commit')
    return refusal(error.code, what)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _node(said: Mapping[str, Any]) -> Node:
    kind = _KINDS[said['type']]
    if kind is ObjectKind.BLOB and said['mode'] == _LINK_MODE:
        kind = ObjectKind.LINK
    return Node(kind, str(said['sha']), int(said.get('size') or 0))
