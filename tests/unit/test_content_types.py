"""The media type of an object, by its name."""

import pytest

from genro_storage.backends.content_types import content_type_of

TYPES = {
    'a.html': 'text/html',
    'd/e.f/A.JPG': 'image/jpeg',
    'site.js': 'text/javascript',
    'photo.webp': 'image/webp',
    'rows.parquet': 'application/vnd.apache.parquet',
    'http://host/x.png': 'image/png',
    # Compressed, whatever is inside: nothing is to be unpacked by whoever is sent it.
    'rows.csv.gz': 'application/gzip',
    'a.tar.xz': 'application/x-xz',
    'a.svgz': 'application/gzip',
}


@pytest.mark.parametrize('key', TYPES)
def test_a_name_tells_the_type(key: str) -> None:
    assert content_type_of(key) == TYPES[key]


@pytest.mark.parametrize('key', ['', 'a', 'a.html/', 'a.b/c', '.bashrc', 'data:image/png', 'a.unheard-of', 'a.html.br'])
def test_a_name_that_tells_nothing_has_none(key: str) -> None:
    assert content_type_of(key) is None
