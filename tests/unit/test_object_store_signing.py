"""Signatures, against the example that Amazon publishes, and credentials that show nothing."""

import pickle
from datetime import UTC, datetime

import pytest

from genro_storage.backends.object_store_signing import EMPTY_SHA256, Credentials, Signer, credential_source


def _signer(credentials: Credentials | None) -> Signer:
    moment = datetime(2013, 5, 24, tzinfo=UTC)
    return Signer('examplebucket.s3.amazonaws.com', 'us-east-1', lambda: credentials, now=lambda: moment)


# S3 API reference, "Signature Calculations for the Authorization Header", examples "GET Object" and "List Objects".
_EXAMPLE = Credentials('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY')


def test_the_published_request_for_a_range_gets_the_published_signature() -> None:
    target, headers = _signer(_EXAMPLE).sign('GET', '/test.txt', {}, {'range': 'bytes=0-9'}, EMPTY_SHA256)
    assert target == '/test.txt'
    assert headers['authorization'] == (
        'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, '
        'SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, '
        'Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41'
    )


def test_the_published_request_for_a_listing_gets_the_published_signature() -> None:
    target, headers = _signer(_EXAMPLE).sign('GET', '/', {'prefix': 'J', 'max-keys': '2'}, {}, EMPTY_SHA256)
    assert target == '/?max-keys=2&prefix=J'
    assert headers['authorization'].endswith(
        'Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7'
    )


def test_every_byte_that_is_not_plain_is_encoded() -> None:
    target, _ = _signer(_EXAMPLE).sign('GET', '/b/a b+ü\n%2F~/', {'prefix': 'a/b &=', 'uploads': ''}, {}, EMPTY_SHA256)
    assert target == '/b/a%20b%2B%C3%BC%0A%252F~/?prefix=a%2Fb%20%26%3D&uploads='


def test_a_session_token_is_sent_and_signed() -> None:
    _, headers = _signer(Credentials('k', 's', 'the-token')).sign('GET', '/', {}, {}, EMPTY_SHA256)
    assert headers['x-amz-security-token'] == 'the-token'
    assert 'x-amz-security-token' in headers['authorization']


def test_other_credentials_sign_otherwise_from_the_next_request_on() -> None:
    held = [Credentials('k', 'one')]
    signer = Signer('host', 'us-east-1', lambda: held[0], now=lambda: datetime(2013, 5, 24, tzinfo=UTC))
    before = signer.sign('GET', '/', {}, {}, EMPTY_SHA256)
    held[0] = Credentials('k', 'two')
    assert signer.sign('GET', '/', {}, {}, EMPTY_SHA256) != before


def test_an_anonymous_request_is_not_signed() -> None:
    source = credential_source(key=None, secret=None, token=None, anon=True, destination='s3:x')
    assert source() is None
    assert _signer(None).sign('GET', '/', {}, {}, EMPTY_SHA256)[1] == {'host': 'examplebucket.s3.amazonaws.com'}


def test_credentials_show_and_pickle_nothing() -> None:
    assert 'wJalr' not in repr(_EXAMPLE)
    with pytest.raises(TypeError):
        pickle.dumps(_EXAMPLE)
    signer = _signer(_EXAMPLE)
    signer.sign('GET', '/', {}, {}, EMPTY_SHA256)
    assert 'wJalr' not in repr(vars(signer))


# S3 API reference, "Authenticating Requests: Using Query Parameters", the example there.
def test_the_published_url_gets_the_published_signature() -> None:
    assert _signer(_EXAMPLE).presign('/test.txt', 86400) == (
        '/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256'
        '&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request'
        '&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host'
        '&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404'
    )


def test_a_url_of_a_session_holds_its_token() -> None:
    assert '&X-Amz-Security-Token=the%2Ftoken&' in _signer(Credentials('k', 's', 'the/token')).presign('/', 1)


def test_a_url_without_credentials_is_an_address() -> None:
    assert _signer(None).presign('/a b', 60) == '/a%20b'
