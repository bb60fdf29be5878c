"""Every class that the libraries below can raise is one of ours, decided by name: one that appears there fails here.

Whatever is in no group was never thought of; what is StorageIOError says nothing that a program could act upon.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping

import pytest

from genro_storage import errors
from genro_storage.backends.azure_requests import AzureConnection
from genro_storage.backends.gcs_channel import translated as translate_gcs
from genro_storage.backends.s3_errors import translate_s3

Groups = Mapping[type[errors.StorageError], str]

BOTOCORE: Groups = {
    errors.StorageConfigError: """
        BaseEndpointResolverError ConfigNotFound ConfigParseError EndpointProviderError
        EndpointResolutionError EndpointVariantError InfiniteLoopConfigError InvalidChecksumConfigError
        InvalidConfigError InvalidDNSNameError InvalidDefaultsMode InvalidEndpointConfigurationError
        InvalidExpressionError InvalidHostLabelError InvalidIMDSEndpointError InvalidIMDSEndpointModeError
        InvalidMaxRetryAttemptsError InvalidProxiesConfigError InvalidRegionError
        InvalidRetryConfigurationError InvalidRetryModeError InvalidS3AddressingStyleError
        InvalidS3UsEast1RegionalEndpointConfigError InvalidSTSRegionalEndpointsConfigError
        MissingDependencyException NoRegionError PartialCredentialsError ProfileNotFound
        ServiceNotInRegionError UnknownCredentialError UnknownEndpointError
        UnknownEndpointResolutionBuiltInName UnknownFIPSEndpointError UnknownRegionError
        UnknownSignatureVersionError UnknownTokenProviderError UnsupportedOutpostResourceError
        UnsupportedS3AccesspointConfigurationError UnsupportedS3ArnError UnsupportedS3ConfigurationError
        UnsupportedSignatureVersionError
    """,
    errors.StorageIOError: """
        AliasConflictParameterError ApiVersionNotFoundError AwsChunkedWrapperError BotoCoreError
        CapacityNotAvailableError ChecksumError ClientError DataNotFoundError EventStreamError
        FlexibleChecksumError ImminentRemovalWarning InvalidEndpointDiscoveryConfigurationError
        MD5UnavailableError MissingParametersError MissingServiceIdError OperationNotPageableError
        PaginationError RangeError StubAssertionError StubResponseError UnStubbedResponseError
        UndefinedModelAttributeError UnknownClientMethodError UnknownKeyError UnknownParameterError
        UnknownServiceError UnknownServiceStyle UnseekableStreamError UnsupportedS3ControlArnError
        UnsupportedS3ControlConfigurationError UnsupportedServiceProtocolsError UnsupportedTLSVersionWarning
        ValidationError WaiterConfigError WaiterError
    """,
    errors.StoragePathError: """
        ParamValidationError
    """,
    errors.StoragePermissionError: """
        CredentialRetrievalError LoginAuthorizationCodeError LoginError LoginInsufficientPermissions
        LoginRefreshRequired LoginTokenLoadError MetadataRetrievalError NoAuthTokenError NoCredentialsError
        RefreshWithMFAUnsupportedError SSOError SSOTokenLoadError TokenRetrievalError
        UnauthorizedSSOTokenError
    """,
    errors.StorageTimeoutError: """
        ConnectTimeoutError ReadTimeoutError
    """,
    errors.StorageUnavailableError: """
        ConnectionClosedError ConnectionError EndpointConnectionError HTTPClientError IncompleteReadError
        ProxyConnectionError ResponseStreamingError SSLError
    """,
}

AZURE: Groups = {
    errors.StorageIOError: """
        DeserializationError SerializationError
    """,
    errors.StoragePermissionError: """
        ClientAuthenticationError
    """,
    errors.StorageTimeoutError: """
        ServiceRequestTimeoutError ServiceResponseTimeoutError
    """,
    errors.StorageUnavailableError: """
        AzureError DecodeError HttpResponseError IncompleteReadError ODataV4Error ResourceExistsError
        ResourceModifiedError ResourceNotFoundError ResourceNotModifiedError ResponseNotReadError
        ServiceRequestError ServiceResponseError StreamClosedError StreamConsumedError TooManyRedirectsError
    """,
}

GOOGLE: Groups = {
    errors.StorageConfigError: """
        DefaultCredentialsError InvalidOperation InvalidResource InvalidType InvalidValue MalformedError
        OSError
    """,
    errors.StoragePermissionError: """
        ClientCertError GoogleAuthError MutualTLSChannelError OAuthError ReauthFailError
        ReauthSamlChallengeFailError RefreshError ResponseError TimeoutError UserAccessTokenError
    """,
    errors.StorageUnavailableError: """
        TransportError
    """,
}


def azure(error: Exception) -> errors.StorageError:
    connection = AzureConnection.__new__(AzureConnection)
    connection._destination, connection._name = 'azure:test', 'container'
    return connection._translated(error, 'key')


LIBRARIES: dict[str, tuple[Groups, Callable[[Exception], errors.StorageError]]] = {
    'botocore.exceptions': (BOTOCORE, lambda error: translate_s3(error, 'bucket', 's3:test')),
    'azure.core.exceptions': (AZURE, azure),
    'google.auth.exceptions': (GOOGLE, lambda error: translate_gcs(error, 'gcs:test')),
}


def raised_by(module: str) -> dict[str, type[Exception]]:
    found = vars(importlib.import_module(module)).items()
    return {name: each for name, each in found if inspect.isclass(each) and is_own(each, module)}


def is_own(each: type, module: str) -> bool:
    return issubclass(each, Exception) and each.__module__ == module


@pytest.mark.parametrize('module', LIBRARIES)
def test_all_that_a_library_can_raise_was_thought_of(module: str) -> None:
    groups, translate = LIBRARIES[module]
    expected = {name: ours for ours, names in groups.items() for name in names.split()}
    found = {}
    for name, foreign in raised_by(module).items():
        error = foreign.__new__(foreign)
        if module == 'botocore.exceptions':
            error.response = {}  # type: ignore[attr-defined]
        ours = translate(error)
        assert 'test' in str(ours)
        found[name] = type(ours)
    assert found == expected
