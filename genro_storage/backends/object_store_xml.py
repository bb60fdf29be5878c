"""The XML that S3 answers and wants: listings, errors, uploads in parts, removals.

Owns the names of its elements. Pure; threads: safe.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import msgspec

from genro_storage.backends.object_requests import ListingPage, StoredObject
from genro_storage.backends.s3_described import class_to_keep

# What XML 1.0 has no way to say ("Extensible Markup Language 1.0", 2.2, Char).
_INEXPRESSIBLE = re.compile('[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')
# Written as they are, a reader would turn them into spaces or into each other.
_KEPT = {'\r': '&#13;', '\n': '&#10;', '\t': '&#9;'}


class S3Error(msgspec.Struct, frozen=True):
    """What an answer says went wrong; ``key`` is only told where several are concerned."""

    code: str
    message: str
    key: str = ''


def listing(body: bytes) -> tuple[ListingPage, str | None]:
    """A page of ListObjectsV2 that was asked for with encoding-type=url, and the token of the next. Raises ValueError.

    URL encoding, because keys may hold what XML cannot, and servers put something else in its place without a word.
    """
    root = _parse(body)
    # A server may refuse the encoding by not mentioning it.
    decode = unquote_plus if _text(root, 'EncodingType') == 'url' else str
    objects, prefixes = [], []
    for element in root:
        kind = _name(element)
        if kind == 'Contents':
            told = {_name(child): child.text or '' for child in element}
            objects.append(
                StoredObject(
                    decode(told['Key']),
                    int(told['Size']),
                    _seconds(told['LastModified']),
                    tag_of(told['ETag']),
                    storage_class=class_to_keep(told.get('StorageClass', '')),
                )
            )
        elif kind == 'CommonPrefixes':
            prefixes.append(decode(_text(element, 'Prefix')))
    token = _text(root, 'NextContinuationToken')
    return ListingPage(objects, prefixes), token if _text(root, 'IsTruncated') == 'true' else None


def error_of(body: bytes) -> S3Error | None:
    """The error that a body tells of; None for any other body. A success may turn out to be one (CopyObject)."""
    try:
        root = _parse(body)
    except ValueError:
        return None
    return _error(root) if _name(root) == 'Error' else None


def field(body: bytes, name: str) -> str:
    """The text of an element right below the root. Raises ValueError if there is none."""
    text = _text(_parse(body), name)
    if not text:
        raise ValueError(f'an answer without {name}')
    return text


def tags(body: bytes) -> list[tuple[str, str]]:
    """The tags of GetObjectTagging. Raises ValueError."""
    return [
        (_text(tag, 'Key'), _text(tag, 'Value'))
        for tag_set in _children(_parse(body), 'TagSet')
        for tag in _children(tag_set, 'Tag')
    ]


def kept_keys(body: bytes) -> list[S3Error]:
    """What DeleteObjects did not remove, and why. Raises ValueError."""
    return [_error(element) for element in _parse(body) if _name(element) == 'Error']


def removal(keys: Sequence[str]) -> bytes:
    """The body of DeleteObjects."""
    listed = ''.join(f'<Object><Key>{escape(key, _KEPT)}</Key></Object>' for key in keys)
    return f'<Delete xmlns="{_NAMESPACE}"><Quiet>true</Quiet>{listed}</Delete>'.encode()


def completion(tags: Sequence[str]) -> bytes:
    """The body of CompleteMultipartUpload, of the tags of parts 1, 2, and so on."""
    parts = ''.join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{escape(tag)}"</ETag></Part>'
        for number, tag in enumerate(tags, start=1)
    )
    return f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{parts}</CompleteMultipartUpload>'.encode()


def is_expressible(key: str) -> bool:
    """Whether XML can name a key."""
    return _INEXPRESSIBLE.search(key) is None


def tag_of(etag: str) -> str:
    """An ETag as versions hold it."""
    return etag.strip('"')


_NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/'


def _parse(body: bytes) -> ET.Element:
    try:
        # The server is trusted with the files themselves, and expat bounds the growth of entities since 2.4.1.
        return ET.fromstring(body)  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f'an answer that is no XML: {error}') from error


def _name(element: ET.Element) -> str:
    # With a namespace or without, as servers please.
    return element.tag.rpartition('}')[2]


def _children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element if _name(child) == name)


def _text(element: ET.Element, name: str) -> str:
    found = next(_children(element, name), None)
    return (found.text or '') if found is not None else ''


def _error(element: ET.Element) -> S3Error:
    return S3Error(_text(element, 'Code'), _text(element, 'Message'), _text(element, 'Key'))


def _seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())
