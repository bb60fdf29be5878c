"""Where an SSH server is and who asks it; imports nothing that an extra would have to install. Values."""

import getpass

import msgspec


class SftpAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is and who asks. Without a password and a key: the keys that ssh would try."""

    host: str
    port: int = 22
    username: str | None = None
    password: str | None = None
    key_filename: str | None = None
    passphrase: str | None = None
    known_hosts: str | None = None
    check_host_key: bool = True

    @property
    def user(self) -> str:
        """Who asks."""
        return self.username or getpass.getuser()

    def __str__(self) -> str:
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{self.user}@{host}:{self.port}'

    def destination(self, path: str) -> str:
        """Of a folder. The root and a home have different files under the same path."""
        return f'sftp:{self}' + (path.rstrip('/') if path.startswith('/') else f'/~/{path}'.rstrip('/'))

    def __repr__(self) -> str:
        return f'SftpAddress({str(self)!r})'
