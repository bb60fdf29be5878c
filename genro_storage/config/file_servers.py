"""The definitions of servers of files: HTTP, WebDAV, FTP, SFTP, SMB.

Owns their keys, which of them contradict each other, and which reach for files and credentials of this machine.
Connects to nothing. Threads: values, never changed.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from genro_storage.config import keys
from genro_storage.config.definitions import Definition, Permissions, Secret
from genro_storage.config.keys import Key
from genro_storage.config.secrets import Reference
from genro_storage.config.trust import Privilege

_SCHEMES = frozenset({'http', 'https'})


class HttpDefinition(Definition, frozen=True, kw_only=True, tag='http'):
    """What a web server shows at and below ``base_url``; read-only. Directories are its index pages.

    ``headers`` go with each request to that server, and to no other that it redirects to.
    """

    base_url: str
    headers: Annotated[dict[str, Any], Key(secret=True)] = msgspec.field(default_factory=dict)
    permissions: Permissions = Permissions.READONLY

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _url_problems('base_url', self.base_url)
        if self.permissions is not Permissions.READONLY:
            yield 'permissions', "expected readonly; what can be written over HTTP is of type 'webdav'"
        if not all(isinstance(value, str | Reference) for value in self.headers.values()):
            yield 'headers', 'expected a text for each header'


class WebdavDefinition(Definition, frozen=True, kw_only=True, tag='webdav'):
    """The collection of a WebDAV server at ``url``. ``token``: a bearer token, in place of a user and a password."""

    url: str
    username: str | None = None
    password: Secret = None
    token: Secret = None

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _url_problems('url', self.url)
        yield from _password_problems(self.username, self.password)
        if self.token and (self.username or self.password):
            yield 'token', "contradicts 'username' and 'password'; give one or the others"


class FtpDefinition(Definition, frozen=True, kw_only=True, tag='ftp'):
    """The folder ``path`` of an FTP server; without ``username``, anonymously. ``tls``: FTPS, by AUTH TLS.

    Without ``tls`` everybody on the way can read passwords and files.
    """

    host: str
    port: int = 21
    username: str | None = None
    password: Secret = None
    path: Annotated[str, Key(keys.remote_path)] = ''
    tls: bool = False

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _host_problems(self.host, self.port, self.path)
        yield from _password_problems(self.username, self.password)


class SftpDefinition(Definition, frozen=True, kw_only=True, tag='sftp'):
    """The folder ``path`` of an SSH server, from its root or, without a slash, from the user's home.

    The key of the host must be in ``known_hosts``, or else in ``~/.ssh/known_hosts``. Without a password and a
    ``key_filename`` the keys are those that ssh would try: of an agent and of ``~/.ssh``.
    """

    host: str
    port: int = 22
    username: str | None = None
    password: Secret = None
    key_filename: Annotated[str | None, Key(keys.folder)] = None
    passphrase: Secret = None
    path: Annotated[str, Key(keys.remote_path)] = ''
    known_hosts: Annotated[str | None, Key(keys.folder)] = None
    check_host_key: bool = True

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition."""
        yield from super().needs(values)
        for key in ('key_filename', 'known_hosts'):
            if values.get(key):
                yield key, Privilege.LOCAL, ''
        if not values.get('password') and not values.get('key_filename'):
            yield 'password', Privilege.CREDENTIALS, 'give it'

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _host_problems(self.host, self.port, self.path)
        if self.passphrase and not self.key_filename:
            yield 'passphrase', "of no use without 'key_filename'"
        if self.known_hosts and not self.check_host_key:
            yield 'check_host_key', "contradicts 'known_hosts'; leave one of them out"


class SmbDefinition(Definition, frozen=True, kw_only=True, tag='smb'):
    """The folder ``path`` of a share of a Windows or Samba server, by SMB 2 and 3."""

    host: str
    share: str
    port: int = 445
    username: str | None = None
    password: Secret = None
    domain: str | None = None
    path: Annotated[str, Key(keys.prefix)] = ''

    @classmethod
    def needs(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, Privilege, str]]:
        """See Definition. Without a password the ticket of whoever runs this would be used."""
        yield from super().needs(values)
        if not values.get('username') or not values.get('password'):
            yield 'password', Privilege.CREDENTIALS, "give 'username' and 'password'"

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _host_problems(self.host, self.port, self.path)
        yield from _password_problems(self.username, self.password)
        if not self.share or set(self.share) & set('/\\'):
            yield 'share', "expected the name of a share; a folder inside it goes into 'path'"


def _url_problems(key: str, url: str) -> Iterator[tuple[str, str]]:
    try:
        parts = urlsplit(url)
        right = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right:
        yield key, 'expected a URL that starts with http:// or https://'
    elif parts.query or parts.fragment:
        yield key, "expected a URL without '?' and '#'"
    elif '..' in parts.path.split('/'):
        yield key, "expected a URL without '..'"


def _host_problems(host: str, port: int, path: str) -> Iterator[tuple[str, str]]:
    if not host or set(host) & set('/\\@ ') or host.startswith('-'):
        yield 'host', 'expected the name or the address of a server'
    if not 0 < port < 65536:
        yield 'port', 'expected 1 to 65535'
    if '..' in path.split('/') or '\0' in path:
        yield 'path', "expected a path without '..'"


def _password_problems(username: str | None, password: object) -> Iterator[tuple[str, str]]:
    if password and not username:
        yield 'username', "missing; 'password' is of no use without it"
