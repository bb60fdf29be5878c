"""What S3, botocore and s3fs say → our tree: by error code, HTTP status and class, never by text.

Owns the tables. Codes are those of the S3 API reference ("Error responses") and what servers beside Amazon's send.
Threads: safe; no state.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from genro_storage.backends.fsspec_errors import translate
from genro_storage.errors import (
    StorageConfigError,
    StorageConflictError,
    StorageError,
    StorageIOError,
    StorageNameTooLongError,
    StorageNoSpaceError,
    StorageNotFoundError,
    StoragePathError,
    StoragePermissionError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
    StorageUnsupportedError,
)

# Codes that say more than the status they come with, or come behind a 200: of a copy or completion that fails after a
# while, and of each key that DeleteObjects leaves.
_CODES: dict[str, type[StorageError]] = {
    'RequestTimeout': StorageTimeoutError,  # 400
    'KeyTooLongError': StorageNameTooLongError,  # 400
    'ExpiredToken': StoragePermissionError,  # 400
    'InvalidToken': StoragePermissionError,  # 400
    'TokenRefreshRequired': StoragePermissionError,  # 400
    'AuthorizationHeaderMalformed': StorageConfigError,  # 400: signed for another region
    'IllegalLocationConstraintException': StorageConfigError,  # 400
    'InvalidBucketName': StorageConfigError,  # 400
    'RequestTimeTooSkewed': StorageConfigError,  # 403: the clock of this machine is wrong
    'NoSuchUpload': StorageIOError,  # 404: it was aborted; says nothing about what is at the key
    'QuotaExceeded': StorageNoSpaceError,  # 403, of servers with quotas
    'XMinioStorageFull': StorageNoSpaceError,  # 507, MinIO
    'AccessDenied': StoragePermissionError,
    'ConditionalRequestConflict': StorageConflictError,
    'InternalError': StorageUnavailableError,
    'InvalidObjectState': StoragePermissionError,
    'NoSuchKey': StorageNotFoundError,
    'NotImplemented': StorageUnsupportedError,
    'PreconditionFailed': StorageConflictError,
    'ServiceUnavailable': StorageThrottledError,
    'SlowDown': StorageThrottledError,
}

_STATUSES: dict[int, type[StorageError]] = {
    301: StorageConfigError,  # the bucket is in another region
    307: StorageUnavailableError,  # a new bucket whose name has not spread yet
    400: StorageIOError,
    401: StoragePermissionError,
    403: StoragePermissionError,
    404: StorageNotFoundError,
    405: StorageUnsupportedError,
    408: StorageTimeoutError,
    409: StorageConflictError,  # two conditional writes at once: ConditionalRequestConflict
    412: StorageConflictError,
    429: StorageThrottledError,
    501: StorageUnsupportedError,
    503: StorageThrottledError,  # SlowDown, ServiceUnavailable: the server is there, and asks for patience
    507: StorageNoSpaceError,
}

#: The answer to a HEAD has no body, and these have many reasons, an expired token among them: to who asks for a byte it
#: is told (RFC 9110, 15.5.1 and 15.5.4).
UNEXPLAINED = frozenset({400, 403})

# What Amazon answers for a bucket of another region.
_ELSEWHERE = frozenset({301, 'AuthorizationHeaderMalformed'})

_HINTS = {
    'RequestTimeTooSkewed': '; the clock of this machine is wrong',
    'AccessDenied': '; a policy of the bucket or of who asks does not allow it',
    'ExpiredToken': "; get new credentials: 'key', 'secret' and 'token' are of one session",
    'InvalidAccessKeyId': "; is 'key' right?",
    'InvalidObjectState': '; it is archived: have it restored (RestoreObject), then it can be read and copied',
    'SignatureDoesNotMatch': "; is 'secret' right?",
}


# Classes of botocore that have no base of their own; an older one may lack some.
_SIGNING_IN = (
    'LoginError',
    'MetadataRetrievalError',
    'NoAuthTokenError',
    'RefreshWithMFAUnsupportedError',
)
_CONFIGURATION = (
    'ConfigNotFound',
    'ConfigParseError',
    'EndpointProviderError',
    'InfiniteLoopConfigError',
    'InvalidChecksumConfigError',
    'InvalidConfigError',
    'InvalidDNSNameError',
    'InvalidDefaultsMode',
    'InvalidEndpointConfigurationError',
    'InvalidExpressionError',
    'InvalidHostLabelError',
    'InvalidIMDSEndpointError',
    'InvalidIMDSEndpointModeError',
    'InvalidMaxRetryAttemptsError',
    'InvalidProxiesConfigError',
    'InvalidRegionError',
    'InvalidRetryConfigurationError',
    'InvalidRetryModeError',
    'InvalidS3AddressingStyleError',
    'InvalidS3UsEast1RegionalEndpointConfigError',
    'InvalidSTSRegionalEndpointsConfigError',
    'MissingDependencyException',
    'ServiceNotInRegionError',
    'UnknownCredentialError',
    'UnknownRegionError',
    'UnknownSignatureVersionError',
    'UnknownTokenProviderError',
    'UnsupportedOutpostResourceError',
    'UnsupportedS3AccesspointConfigurationError',
    'UnsupportedS3ArnError',
    'UnsupportedS3ConfigurationError',
    'UnsupportedSignatureVersionError',
)


def translate_s3(error: Exception, bucket: str, what: str) -> StorageError:
    """The error of our tree for whatever a request raised; ``what`` names destination and key."""
    response = _response(error)
    if response is not None:
        return from_response(response, bucket, what)
    return _from_class(error, what)


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, or None where there was no answer."""
    while error is not None:
        response = _response(error)
        if response is not None:
            status = response.get('ResponseMetadata', {}).get('HTTPStatusCode')
            return None if status is None else int(status)
        error = error.__cause__
    return None


def is_dropped_connection(error: BaseException) -> bool:
    """Whether the server closed a connection in place of an answer, as it may with one that was idle."""
    from botocore.exceptions import ConnectionClosedError

    return isinstance(error, ConnectionClosedError)


def _response(error: BaseException) -> dict[str, Any] | None:
    """What the server said; s3fs raises builtins, with botocore's error as their cause."""
    from botocore.exceptions import ClientError

    for candidate in (error, error.__cause__):
        if isinstance(candidate, ClientError):
            response: dict[str, Any] = candidate.response
            return response
    return None


def from_response(response: Mapping[str, Any], bucket: str, what: str) -> StorageError:
    """What a refusal of the server is to us, by its code or else its status."""
    said = response.get('Error', {})
    code = str(said.get('Code', ''))
    status = int(response.get('ResponseMetadata', {}).get('HTTPStatusCode') or 0)
    if code == 'NoSuchBucket':
        return StorageNotFoundError(f'{what}: there is no bucket {bucket!r}')
    ours = _CODES.get(code) or _STATUSES.get(status)
    if ours is None:
        # 500 InternalError, 502, 504: asking again later may help.
        ours = StorageUnavailableError if status >= 500 else StorageIOError
    hint = _HINTS.get(code, '')
    if status in _ELSEWHERE or code in _ELSEWHERE:
        told = response.get('ResponseMetadata', {}).get('HTTPHeaders', {}).get('x-amz-bucket-region')
        hint = f"; the bucket is in another region: give 'region{f': {told}' if told else ''}'"
    return ours(f'{what}: {code or status} {said.get("Message", "")}'.rstrip() + hint)


def from_removal(kept: Sequence[Mapping[str, str]], count: int, destination: str) -> StorageError:
    """What it is to us that DeleteObjects left some of so many keys, by the first of them."""
    first = kept[0]
    refusal = from_response({'Error': first}, '', f'{destination}: {first.get("Key", "")!r}')
    return type(refusal)(f'{refusal} ({len(kept)} of {count} keys were not removed)')


def _from_class(error: Exception, what: str) -> StorageError:
    from botocore import exceptions as boto

    # In order: the first class that fits; the timeouts are connection errors too.
    table: tuple[tuple[type[Exception], type[StorageError]], ...] = (
        (boto.ConnectTimeoutError, StorageTimeoutError),
        (boto.ReadTimeoutError, StorageTimeoutError),
        (boto.ConnectionError, StorageUnavailableError),
        (boto.HTTPClientError, StorageUnavailableError),
        (boto.IncompleteReadError, StorageUnavailableError),
        (boto.NoCredentialsError, StoragePermissionError),
        (boto.PartialCredentialsError, StorageConfigError),
        (boto.CredentialRetrievalError, StoragePermissionError),
        (boto.TokenRetrievalError, StoragePermissionError),
        (boto.SSOError, StoragePermissionError),
        (boto.ProfileNotFound, StorageConfigError),
        (boto.BaseEndpointResolverError, StorageConfigError),
        (boto.ParamValidationError, StoragePathError),
        *((foreign, StoragePermissionError) for foreign in _named(boto, _SIGNING_IN)),
        *((foreign, StorageConfigError) for foreign in _named(boto, _CONFIGURATION)),
    )
    for foreign, ours in table:
        if isinstance(error, foreign):
            return ours(f'{what}: {error}')
    return translate(error, what)


def _named(module: ModuleType, names: Sequence[str]) -> list[type[Exception]]:
    return [getattr(module, name) for name in names if hasattr(module, name)]
