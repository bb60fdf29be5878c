"""Connections to one FTP server, kept between requests.

Owns logging in, and which connections can be used again: FTP does one thing at a time on each. Paths go over them byte
for byte: latin-1 is what ftplib is told, and every byte is a letter of it.

Threads: safe; a connection belongs to the thread that took it.
"""

import ftplib
import select
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

# More than a mount reads at once; many servers allow no more to one user.
_KEPT_MAX = 8


class FtpAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is and who asks; nobody in particular without a user."""

    host: str
    port: int = 21
    username: str | None = None
    password: str | None = None
    tls: bool = False

    def __str__(self) -> str:
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{self.username}@{host}:{self.port}' if self.username else f'{host}:{self.port}'

    def __repr__(self) -> str:
        return f'FtpAddress({str(self)!r})'


class FtpConnections:
    """Those of this process."""

    def __init__(self, address: FtpAddress, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._kept: list[ftplib.FTP] = []  # guarded by _lock
        self._closed = False  # guarded by _lock

    @contextmanager
    def connection(self) -> Iterator[ftplib.FTP]:
        """One that nobody else uses, kept afterwards unless something failed that leaves it in doubt."""
        ftp = self._take() or self._connect()
        try:
            yield ftp
        except (ftplib.error_perm, ftplib.error_temp) as error:
            # A refusal that was read whole; but 421 is a goodbye.
            self._give_back(ftp, usable=not str(error).startswith('421'))
            raise
        except BaseException:
            ftp.close()
            raise
        self._give_back(ftp, usable=True)

    def close(self) -> None:
        """Close what is not in use; what is, closes when it is given back. Idempotent."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, []
        for ftp in kept:
            ftp.close()

    def _take(self) -> ftplib.FTP | None:
        while True:
            with self._lock:
                ftp = self._kept.pop() if self._kept else None
            if ftp is None or not _has_ended(ftp):
                return ftp
            ftp.close()

    def _give_back(self, ftp: ftplib.FTP, *, usable: bool) -> None:
        with self._lock:
            keep = usable and not self._closed and len(self._kept) < _KEPT_MAX
            if keep:
                self._kept.append(ftp)
        if not keep:
            ftp.close()

    def _connect(self) -> ftplib.FTP:
        address = self._address
        if address.tls:
            ftp: ftplib.FTP = ftplib.FTP_TLS(context=ssl.create_default_context(), encoding='latin-1')  # noqa: S321
        else:
            ftp = ftplib.FTP(encoding='latin-1')  # noqa: S321 - who configures it is told in the documentation
        try:
            ftp.connect(address.host, address.port, self._timeout_s)
            ftp.login(address.username or 'anonymous', address.password or '')
            if isinstance(ftp, ftplib.FTP_TLS):
                ftp.prot_p()
            ftp.voidcmd('TYPE I')
        except BaseException:
            ftp.close()
            raise
        return ftp


def _has_ended(ftp: ftplib.FTP) -> bool:
    """Whether the server has closed it, or said so: between requests it has nothing else to say."""
    if ftp.sock is None:
        return True
    poll = select.poll()
    poll.register(ftp.sock, select.POLLIN)
    return bool(poll.poll(0))
