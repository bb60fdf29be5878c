"""Credentials, and requests signed with them: AWS Signature Version 4, as the S3 API reference describes it
("Authenticating Requests: Using the Authorization Header").

Owns where credentials come from and what is signed. Sends nothing.

Threads: safe; a day's signing key is derived at most twice.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import quote

from genro_storage.errors import StorageConfigError, StoragePermissionError

EMPTY_SHA256 = hashlib.sha256(b'').hexdigest()

# What S3 leaves as it is in a path and in a query; everything else is percent-encoded, byte by byte.
_PLAIN = '-_.~'


class Credentials:
    """A key and its secret, perhaps with a session token. Shows and pickles neither."""

    def __init__(self, key: str, secret: str, token: str | None = None) -> None:
        self.key = key
        self.secret = secret
        self.token = token

    def __repr__(self) -> str:
        return 'Credentials(***)'

    def __reduce__(self) -> NoReturn:
        raise TypeError('credentials are not pickled')


#: Asked before each request, because some expire; None: requests are not signed.
CredentialSource = Callable[[], Credentials | None]


def credential_source(
    *, key: str | None, secret: str | None, token: str | None, anon: bool, destination: str
) -> CredentialSource:
    """The credentials that were given, or none, or what botocore finds in the environment, on first use."""
    if anon:
        return lambda: None
    if key is not None and secret is not None:
        given = Credentials(key, secret, token)
        return lambda: given
    return _BotocoreCredentials(destination)


class _BotocoreCredentials:
    """What botocore finds: the environment, ~/.aws, containers, instances; renewed by it as needed."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._found: Any = None

    def __call__(self) -> Credentials:
        try:
            from botocore.exceptions import BotoCoreError
            from botocore.session import get_session
        except ImportError as error:
            raise StorageConfigError(
                f'{self._destination}: to find credentials in the environment needs a package that is not installed: '
                "pip install 'genro-storage[s3]'"
            ) from error
        try:
            if self._found is None:
                self._found = get_session().get_credentials()
            # Renewed now if it is about to expire.
            frozen = self._found.get_frozen_credentials() if self._found is not None else None
        except BotoCoreError as error:
            raise StoragePermissionError(f'{self._destination}: no credentials: {error}') from error
        if frozen is None:
            raise StoragePermissionError(
                f"{self._destination}: no credentials were found: give 'key' and 'secret', or 'anon: true'"
            )
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)


def _now() -> datetime:
    return datetime.now(UTC)


class Signer:
    """Signs requests to one host for one region."""

    def __init__(
        self, host: str, region: str, credentials: CredentialSource, now: Callable[[], datetime] = _now
    ) -> None:
        self._host = host
        self._region = region
        self._credentials = credentials
        self._now = now
        self._derived: _SigningKey | None = None

    def __repr__(self) -> str:
        return f'Signer({self._host!r}, {self._region!r})'

    def sign(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body_sha256: str
    ) -> tuple[str, dict[str, str]]:
        """The target of a request and its headers, with those that sign it. ``path`` is not encoded yet."""
        target = quote(path, safe='/' + _PLAIN)
        text = '&'.join(
            sorted(f'{quote(name, safe=_PLAIN)}={quote(value, safe=_PLAIN)}' for name, value in query.items())
        )
        sent = {'host': self._host, **headers}
        credentials = self._credentials()
        if credentials is not None:
            sent |= self._signature(credentials, f'{method}\n{target}\n{text}\n', sent, body_sha256)
        return (f'{target}?{text}' if text else target), sent

    def _signature(
        self, credentials: Credentials, request: str, headers: Mapping[str, str], body_sha256: str
    ) -> dict[str, str]:
        moment = self._now().strftime('%Y%m%dT%H%M%SZ')
        added = {'x-amz-date': moment, 'x-amz-content-sha256': body_sha256}
        if credentials.token:
            added['x-amz-security-token'] = credentials.token
        signed = sorted({**headers, **added}.items())
        names = ';'.join(name for name, _ in signed)
        canonical = request + ''.join(f'{name}:{value}\n' for name, value in signed) + f'\n{names}\n{body_sha256}'
        scope = f'{moment[:8]}/{self._region}/s3/aws4_request'
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        derived = self._derived
        if derived is None or not derived.serves(credentials, moment[:8]):
            self._derived = derived = _SigningKey(credentials, moment[:8], self._region)
        signature = derived.digest(f'AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}')
        added['authorization'] = (
            f'AWS4-HMAC-SHA256 Credential={credentials.key}/{scope}, SignedHeaders={names}, Signature={signature}'
        )
        return added


class _SigningKey:
    """What one day's requests are signed with, derived from the secret. Shows neither."""

    def __init__(self, credentials: Credentials, day: str, region: str) -> None:
        self._credentials = credentials
        self._day = day
        key = f'AWS4{credentials.secret}'.encode()
        for part in (day, region, 's3', 'aws4_request'):
            key = hmac.digest(key, part.encode(), 'sha256')
        self._key = key

    def __repr__(self) -> str:
        return '_SigningKey(***)'

    def serves(self, credentials: Credentials, day: str) -> bool:
        """Whether it is this one that signs."""
        return day == self._day and credentials.secret == self._credentials.secret

    def digest(self, text: str) -> str:
        """The signature of a text, in hexadecimal digits."""
        return hmac.digest(self._key, text.encode(), 'sha256').hex()
