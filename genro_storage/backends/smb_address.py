"""Where an SMB server is and who asks it; imports nothing that an extra would have to install. Values."""

import msgspec


class SmbAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Which share of which server, and who asks. Without a user: who holds a ticket of Kerberos."""

    host: str
    share: str
    port: int = 445
    username: str | None = None
    password: str | None = None
    domain: str | None = None

    @property
    def user(self) -> str | None:
        """Who asks, in the words of the server."""
        return f'{self.domain}\\{self.username}' if self.domain and self.username else self.username

    def __str__(self) -> str:
        return (
            f'{self.username}@{self.host}:{self.port}/{self.share}'
            if self.username
            else (f'{self.host}:{self.port}/{self.share}')
        )

    def destination(self, path: str) -> str:
        """Of a folder of the share."""
        return f'smb:{self}/{path}'.rstrip('/')

    def __repr__(self) -> str:
        return f'SmbAddress({str(self)!r})'
