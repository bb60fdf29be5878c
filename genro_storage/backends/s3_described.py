"""What S3 keeps of an object beside its bytes and its user metadata, and what of that a copy has to be told.

Owns its names, as headers and in botocore's words. CopyObject takes along by itself what describes the content, and the
tags, but no storage class; an upload in parts takes along nothing (S3 API reference, "CopyObject",
"CreateMultipartUpload").

Pure; threads: safe.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar
from urllib.parse import quote, urlencode

T = TypeVar('T')

#: What a HEAD tells and a request that makes an object takes: header → parameter.
HEADERS: Mapping[str, str] = {
    'content-type': 'ContentType',
    'content-encoding': 'ContentEncoding',
    'content-language': 'ContentLanguage',
    'content-disposition': 'ContentDisposition',
    'cache-control': 'CacheControl',
    'expires': 'Expires',
    'x-amz-storage-class': 'StorageClass',
    'x-amz-server-side-encryption': 'ServerSideEncryption',
    'x-amz-server-side-encryption-aws-kms-key-id': 'SSEKMSKeyId',
    'x-amz-website-redirect-location': 'WebsiteRedirectLocation',
}

# A HEAD leaves it out, a listing does not.
_USUAL_CLASS = 'STANDARD'
# What lies there has to be restored before it can be read (S3 user guide, "Understanding S3 Glacier storage classes").
_ARCHIVES = frozenset({'GLACIER', 'DEEP_ARCHIVE'})


def kept(told: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """What of the answer to a HEAD a copy is told."""
    return {name: told[name] for name in names if name in told and told[name] not in _ARCHIVES}


def class_to_keep(told: str) -> str:
    """The storage class that a copy is told; '' for the usual one.

    Not that of an archive: its source was restored, or could not be copied, and the copy could not be read.
    """
    return '' if told == _USUAL_CLASS or told in _ARCHIVES else told


def tagging(tags: Iterable[tuple[str, str]]) -> str:
    """Tags as one text, as a request that makes an object takes them; '' for none."""
    return urlencode(list(tags), quote_via=quote)
