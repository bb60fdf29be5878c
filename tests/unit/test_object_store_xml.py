"""The XML of S3, with keys that XML or URLs have their own idea of."""

import pytest

from genro_storage.backends import object_store_xml as xml
from genro_storage.backends.object_requests import ListingPage, StoredObject


def _listing(key: str, extra: str = '') -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated>{extra}
<Contents><Key>{key}</Key><LastModified>2024-01-02T03:04:05.678Z</LastModified><ETag>&quot;tag-2&quot;</ETag>
<Size>7</Size></Contents><CommonPrefixes><Prefix>{key}/</Prefix></CommonPrefixes></ListBucketResult>""".encode()


@pytest.mark.parametrize(
    ('encoded', 'key'),
    [
        ('plain', 'plain'),
        ('a+b%2Bc', 'a b+c'),
        ('%C3%BC%0A%07', 'ü\n\a'),
        ('a%252Fb', 'a%2Fb'),
        ('%3Ctag%3E%26amp%3B', '<tag>&amp;'),
    ],
)
def test_a_listing_that_is_url_encoded_is_decoded(encoded: str, key: str) -> None:
    page, token = xml.listing(_listing(encoded, '<EncodingType>url</EncodingType>'))
    assert page == ListingPage([StoredObject(key, 7, 1_704_164_645, 'tag-2')], [key + '/'])
    assert token is None


def test_a_listing_that_is_not_url_encoded_is_taken_as_it_is() -> None:
    page, _ = xml.listing(_listing('a+b%20c'))
    assert [stored.key for stored in page.objects] == ['a+b%20c']


def test_a_listing_without_a_namespace_that_goes_on_has_a_token() -> None:
    body = b"""<ListBucketResult><IsTruncated>true</IsTruncated>
<NextContinuationToken>more+</NextContinuationToken></ListBucketResult>"""
    assert xml.listing(body) == (ListingPage([], []), 'more+')


def test_an_error_is_told_from_a_success() -> None:
    body = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>please</Message></Error>'
    assert xml.error_of(body) == xml.S3Error('SlowDown', 'please')
    assert xml.error_of(b'<CopyObjectResult><ETag>"x"</ETag></CopyObjectResult>') is None
    assert xml.error_of(b'') is None
    assert xml.error_of(b'<html>') is None


def test_keys_that_were_not_removed_are_named() -> None:
    body = b'<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>'
    assert xml.kept_keys(body) == [xml.S3Error('AccessDenied', 'no', 'a')]


def test_tags_are_told_in_order() -> None:
    body = b"""<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TagSet>
<Tag><Key>a b</Key><Value>&amp;</Value></Tag><Tag><Key>empty</Key><Value/></Tag></TagSet></Tagging>"""
    assert xml.tags(body) == [('a b', '&'), ('empty', '')]
    assert xml.tags(b'<Tagging><TagSet/></Tagging>') == []


def test_a_storage_class_is_told_where_a_copy_has_to_be() -> None:
    for told, kept in (('STANDARD_IA', 'STANDARD_IA'), ('STANDARD', ''), ('GLACIER', ''), ('DEEP_ARCHIVE', '')):
        listed = _listing('key').replace(b'</Size>', f'</Size><StorageClass>{told}</StorageClass>'.encode())
        assert xml.listing(listed)[0].objects[0].storage_class == kept


def test_a_removal_keeps_line_ends_and_entities_in_keys() -> None:
    assert b'<Key>a&#13;b&#10;&lt;&amp;&gt;</Key>' in xml.removal(['a\rb\n<&>'])


@pytest.mark.parametrize(
    ('key', 'expressible'), [('a\nb\tü🙂', True), ('bell\a', False), ('\x00', False), ('\uffff', False)]
)
def test_what_xml_cannot_name_is_known(key: str, expressible: bool) -> None:
    assert xml.is_expressible(key) == expressible


def test_an_answer_without_what_was_asked_for_is_a_value_error() -> None:
    with pytest.raises(ValueError, match='UploadId'):
        xml.field(b'<InitiateMultipartUploadResult/>', 'UploadId')
