"""One process's connection to an SSH server.

Owns who the server must be (known_hosts), who asks (keys, passwords), and when a connection is made anew. Never reads
the configuration of ssh: what is not in the definition does not count.

Threads: coroutines run on one loop; ``close`` may come from any thread.
"""

import asyncio
import os
from typing import Any

import asyncssh

from genro_storage.backends.loop_requests import CLOSE_TIMEOUT_S, CONNECT_TIMEOUT_MAX_S, event_loop
from genro_storage.backends.sftp_address import SftpAddress
from genro_storage.errors import StorageConfigError, StoragePermissionError, StorageTimeoutError

# Where ssh and everything else on this machine keep it.
_KNOWN_HOSTS = '~/.ssh/known_hosts'

# Routers forget connections that were silent for some minutes.
_KEEPALIVE_S = 30.0


class SftpConnection:
    """Connects on first use, and again when the connection has ended."""

    def __init__(self, address: SftpAddress, destination: str, timeout_s: float) -> None:
        self._address = address
        self._destination = destination
        self._timeout_s = timeout_s
        self._options = self._login() | self._trust()
        self._lock = asyncio.Lock()
        # Both used on the loop only.
        self._ssh: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None

    async def client(self) -> asyncssh.SFTPClient:
        """What asks over the connection of now. Raises what asyncssh raises, and StorageErrors with more to say."""
        async with self._lock:
            if self._sftp is not None and self._ssh is not None and not self._ssh.is_closed():
                return self._sftp
            self._ssh = None
            limit_s = min(CONNECT_TIMEOUT_MAX_S, self._timeout_s)
            try:
                async with asyncio.timeout(self._timeout_s):
                    self._ssh = await asyncssh.connect(
                        self._address.host,
                        self._address.port,
                        username=self._address.user,
                        config=None,
                        connect_timeout=limit_s,
                        keepalive_interval=_KEEPALIVE_S,
                        **self._options,
                    )
                    self._sftp = await self._ssh.start_sftp_client()
            except asyncssh.HostKeyNotVerifiable as error:
                raise StoragePermissionError(self._unknown()) from error
            except TimeoutError as error:
                self._abort()
                raise StorageTimeoutError(f'{self._destination}: no connection within {self._timeout_s:g} s') from error
            except BaseException:
                self._abort()
                raise
            return self._sftp

    def drop(self, sftp: asyncssh.SFTPClient) -> None:
        """Have the next request connect again, if this is still the client of now."""
        if sftp is self._sftp:
            self._abort()

    def close(self) -> None:
        """End the connection. Idempotent."""
        future = asyncio.run_coroutine_threadsafe(self._close(), event_loop())
        try:
            future.result(CLOSE_TIMEOUT_S)
        except TimeoutError:
            future.cancel()

    async def _close(self) -> None:
        ssh, self._ssh, self._sftp = self._ssh, None, None
        if ssh is not None:
            ssh.close()
            await ssh.wait_closed()

    def _abort(self) -> None:
        ssh, self._ssh, self._sftp = self._ssh, None, None
        if ssh is not None:
            ssh.abort()

    def _login(self) -> dict[str, Any]:
        address = self._address
        if address.key_filename:
            # Here, where its errors can be told from the server's.
            try:
                key = asyncssh.read_private_key(address.key_filename, address.passphrase)
            except (OSError, ValueError) as error:
                reason = getattr(error, 'strerror', None) or error
                raise StorageConfigError(f'{self._destination}: {address.key_filename}: {reason}') from error
            return {'client_keys': [key], 'agent_path': None, 'password': address.password}
        if address.password:
            return {'client_keys': None, 'agent_path': None, 'password': address.password}
        return {}

    def _trust(self) -> dict[str, Any]:
        if not self._address.check_host_key:
            return {'known_hosts': None}
        named = self._address.known_hosts
        path = named or os.path.expanduser(_KNOWN_HOSTS)
        try:
            return {'known_hosts': asyncssh.read_known_hosts(path)}
        except FileNotFoundError as error:
            if named:
                raise StorageConfigError(
                    f"{self._destination}: 'known_hosts' names {path}, which is not there"
                ) from error
            return {'known_hosts': asyncssh.import_known_hosts('')}
        except (OSError, ValueError) as error:
            raise StorageConfigError(f'{self._destination}: {path} cannot be read: {error}') from error

    def _unknown(self) -> str:
        address = self._address
        path = address.known_hosts or _KNOWN_HOSTS
        port = f'-p {address.port} ' if address.port != 22 else ''
        return (
            f'{self._destination}: the key of the server is not in {path}. Compare its fingerprint with what its '
            f'administrator tells, then: ssh-keyscan {port}{address.host} >> {path} (or name a file with '
            "'known_hosts')"
        )
