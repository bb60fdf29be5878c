"""A stub of what we ask of GitHub's REST API, over a real git repository. It is not GitHub.

Written after https://docs.github.com/en/rest (commits, git trees, git blobs): paths, status codes, ETags and the limit
of requests are as described there. What GitHub does beyond that description, no test here can tell.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pygit2

from tests.archives import GitFolder


class GithubStub:
    """Serves one repository. ``requests``: (path, Authorization) of all that were made."""

    def __init__(self, repository: GitFolder, org: str, repo: str, *, token: str = '') -> None:
        self._repository = repository
        self._prefix = f'/repos/{org}/{repo}'
        #: Without it, nobody is shown anything.
        self.token = token
        #: Requests that are answered before the limit is reached; None: all.
        self.allowance: int | None = None
        #: Where whoever asks is sent instead.
        self.moved_to = ''
        #: The status of every answer, if it is not what it should be.
        self.broken: int | None = None
        self.requests: list[tuple[str, str | None]] = []
        self.url = ''

    @contextmanager
    def running(self) -> Iterator['GithubStub']:
        """Serve on a free port of this machine."""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub._answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called there
                pass

        server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        self.url = f'http://127.0.0.1:{server.server_address[1]}'
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, handler.headers['Authorization']))
        if self.broken is not None:
            self._send(handler, self.broken, b'')
        elif self.moved_to:
            self._send(handler, 301, b'', Location=self.moved_to + handler.path)
        elif self.allowance is not None and len(self.requests) > self.allowance:
            self._send(handler, 403, b'{}', **{'X-RateLimit-Remaining': '0'})
        elif self.token and handler.headers['Authorization'] != f'Bearer {self.token}':
            self._send(handler, 401 if handler.headers['Authorization'] else 404, b'{}')
        elif not handler.path.startswith(self._prefix + '/'):
            self._send(handler, 404, b'{}')
        else:
            status, body = self._found(unquote(handler.path.removeprefix(self._prefix)))
            etag = f'"{hashlib.sha256(body).hexdigest()}"'
            if status == 200 and handler.headers['If-None-Match'] == etag:
                status, body = 304, b''
            self._send(handler, status, body, ETag=etag)

    def _found(self, path: str) -> tuple[int, bytes]:
        repository = pygit2.Repository(str(self._repository.folder))
        kind, _, name = path.removeprefix('/git').lstrip('/').partition('/')
        try:
            if kind == 'commits':
                commit = repository.revparse_single(name).peel(pygit2.Commit)
                date = f'{self._repository.git("show", "-s", "--format=%cI", str(commit.id))}'
                said = {'committer': {'date': date}, 'tree': {'sha': str(commit.tree_id)}}
                return 200, json.dumps({'sha': str(commit.id), 'commit': said}).encode()
            found = repository[name]
        except (KeyError, ValueError):
            return (422 if kind == 'commits' else 404), b'{}'
        if kind == 'blobs':
            return 200, found.data
        nodes = [
            {
                'path': each.name,
                'mode': f'{each.filemode:06o}',
                'type': each.type_str,
                'sha': str(each.id),
                **({'size': repository[each.id].size} if each.type_str == 'blob' else {}),
            }
            for each in found
        ]
        return 200, json.dumps({'sha': name, 'tree': nodes, 'truncated': False}).encode()

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header('Content-Length', str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
