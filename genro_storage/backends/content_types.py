"""The media type of an object, by its name: what a browser does with a file that it is sent follows from it.

Owns the table: the standard library's own, without what a machine adds to it, and what that lacks (IANA's registry,
"Media Types"). Pure; threads: safe.
"""

import functools
import mimetypes

_MORE = {
    '.7z': 'application/x-7z-compressed',
    '.arrow': 'application/vnd.apache.arrow.file',
    '.avif': 'image/avif',
    '.docx': 'application/vnd.openxmlformats-officedocument.wordprocessingml.document',
    '.epub': 'application/epub+zip',
    '.flac': 'audio/flac',
    '.js': 'text/javascript',
    '.md': 'text/markdown',
    '.mjs': 'text/javascript',
    '.odt': 'application/vnd.oasis.opendocument.text',
    '.ogg': 'audio/ogg',
    '.parquet': 'application/vnd.apache.parquet',
    '.pptx': 'application/vnd.openxmlformats-officedocument.presentationml.presentation',
    '.webp': 'image/webp',
    '.woff': 'font/woff',
    '.woff2': 'font/woff2',
    '.xlsx': 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
    '.yaml': 'application/yaml',
    '.yml': 'application/yaml',
}
#: What is compressed is told as that: to say "text, encoded" would have browsers unpack it.
_COMPRESSED = {
    'br': None,
    'bzip2': 'application/x-bzip2',
    'compress': None,
    'gzip': 'application/gzip',
    'xz': 'application/x-xz',
}


def content_type_of(key: str) -> str | None:
    """The type of what is stored at a key; None where its name does not tell."""
    name = key.rpartition('/')[2]
    # A URL's parts, which a name may look like, are none here.
    guessed, encoding = _table().guess_type(f'./{name}', strict=True)
    return guessed if encoding is None else _COMPRESSED.get(encoding)


@functools.cache
def _table() -> mimetypes.MimeTypes:
    table = mimetypes.MimeTypes()
    for suffix, name in _MORE.items():
        table.add_type(name, suffix)
    return table
