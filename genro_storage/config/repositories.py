"""The definitions of git repositories: one of this machine, one on GitHub.

Owns their keys and which of them reach for this machine. Opens and asks nothing. Threads: values, never changed.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from genro_storage.config import keys
from genro_storage.config.definitions import Secret, Ttl
from genro_storage.config.keys import Key
from genro_storage.config.read_only import ReadOnlyDefinition
from genro_storage.config.trust import Privilege

# What GitHub allows in the names of owners and repositories.
_GITHUB_NAME = re.compile(r'[A-Za-z0-9_.-]+')


class GitDefinition(ReadOnlyDefinition, frozen=True, kw_only=True, tag='git'):
    """What a commit of a repository of this machine holds.

    ``ref``: a branch, a tag, a commit, or whatever else git resolves; it is resolved anew at each look.
    """

    path: Annotated[str, Key(keys.folder)]
    ref: str = 'HEAD'

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition."""
        yield from super().needs(values)
        yield 'path', Privilege.LOCAL, ''

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if not os.path.isabs(self.path) or '..' in self.path.split('/') or '\0' in self.path:
            yield 'path', "expected an absolute path without '..'"
        if not self.ref:
            yield 'ref', 'expected a branch, a tag or a commit'


class GithubDefinition(ReadOnlyDefinition, frozen=True, kw_only=True, tag='github'):
    """What a commit of a repository on GitHub holds.

    ``ref``: a branch, a tag or a commit; without it, the repository's default branch. Without a ``token`` only what is
    public is seen, and GitHub answers 60 requests an hour. ``ttl`` is five minutes for that reason.
    """

    org: str
    repo: str
    ref: str | None = None
    token: Secret = None
    endpoint_url: str = 'https://api.github.com'
    ttl_s: Ttl = msgspec.field(name='ttl', default=300.0)

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        for key, name in (('org', self.org), ('repo', self.repo)):
            if not _GITHUB_NAME.fullmatch(name) or name in {'.', '..'}:
                yield key, "expected a name of letters, digits, '_', '-' and '.'"
        if not self.endpoint_url.startswith(('http://', 'https://')):
            yield 'endpoint_url', 'expected a URL that starts with http:// or https://'
