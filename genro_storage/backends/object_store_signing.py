"""Credentials, and requests signed with them: AWS Signature Version 4, as the S3 API reference describes it
("Authenticating Requests: Using the Authorization Header", "Using Query Parameters").

Owns where credentials come from and what is signed. Sends nothing.

Threads: safe; a day's signing key is derived at most twice.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import quote

from genro_storage.errors import StorageConfigError, StoragePermissionError

EMPTY_SHA256 = hashlib.sha256(b'').hexdigest()

# What S3 leaves as it is in a path and in a query; everything else is percent-encoded, byte by byte.
_PLAIN = '-_.~'

# What is sent has as many as it has; what is signed, one ("CanonicalHeaders", Trimall).
_BLANKS = re.compile(' +')

_ALGORITHM = 'AWS4-HMAC-SHA256'


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
        text = _query(query)
        sent = {'host': self._host, **headers}
        credentials = self._credentials()
        if credentials is not None:
            sent |= self._signature(credentials, f'{method}\n{target}\n{text}\n', sent, body_sha256)
        return (f'{target}?{text}' if text else target), sent

    def presign(self, path: str, valid_s: float) -> str:
        """The target of a GET that anybody may send for so long, in whole seconds.

        Without credentials nothing is signed, and who may read it is the bucket's to say.
        """
        target = quote(path, safe='/' + _PLAIN)
        credentials = self._credentials()
        if credentials is None:
            return target
        moment = self._now().strftime('%Y%m%dT%H%M%SZ')
        query = {
            'X-Amz-Algorithm': _ALGORITHM,
            'X-Amz-Credential': f'{credentials.key}/{self._scope(moment)}',
            'X-Amz-Date': moment,
            'X-Amz-Expires': str(max(1, int(valid_s))),
            'X-Amz-SignedHeaders': 'host',
        }
        if credentials.token:
            query['X-Amz-Security-Token'] = credentials.token
        text = _query(query)
        request = f'GET\n{target}\n{text}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD'
        return f'{target}?{text}&X-Amz-Signature={self._digest(credentials, moment, request)}'

    def _signature(
        self, credentials: Credentials, request: str, headers: Mapping[str, str], body_sha256: str
    ) -> dict[str, str]:
        moment = self._now().strftime('%Y%m%dT%H%M%SZ')
        added = {'x-amz-date': moment, 'x-amz-content-sha256': body_sha256}
        if credentials.token:
            added['x-amz-security-token'] = credentials.token
        signed = sorted({**headers, **added}.items())
        names = ';'.join(name for name, _ in signed)
        listed = ''.join(f'{name}:{_BLANKS.sub(" ", value.strip(" "))}\n' for name, value in signed)
        canonical = f'{request}{listed}\n{names}\n{body_sha256}'
        signature = self._digest(credentials, moment, canonical)
        added['authorization'] = (
            f'{_ALGORITHM} Credential={credentials.key}/{self._scope(moment)}, '
            f'SignedHeaders={names}, Signature={signature}'
        )
        return added

    def _scope(self, moment: str) -> str:
        return f'{moment[:8]}/{self._region}/s3/aws4_request'

    def _digest(self, credentials: Credentials, moment: str, request: str) -> str:
        """The signature of a canonical request."""
        derived = self._derived
        if derived is None or not derived.serves(credentials, moment[:8]):
            self._derived = derived = _SigningKey(credentials, moment[:8], self._region)
        # The bytes that are sent. Letters that no header can hold are refused by who sends them.
        digest = hashlib.sha256(request.encode('latin-1', 'replace')).hexdigest()
        return derived.digest(f'{_ALGORITHM}\n{moment}\n{self._scope(moment)}\n{digest}')


def _query(query: Mapping[str, str]) -> str:
    """A query in canonical form."""
    return '&'.join(sorted(f'{quote(name, safe=_PLAIN)}={quote(value, safe=_PLAIN)}' for name, value in query.items()))


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
