"""Paths: ``mount:relative/path`` to a mount name and a normalised relative path.

Owns the one place where text becomes a path; every entry point of the API, the configuration and the mount goes
through it, so that nothing escapes a mount. A normalised path has no leading, trailing or repeated slash, no ``.``
and no ``..``; the root of a mount is ``''``. Pure: no I/O, no state.
"""

from genro_storage.errors import StorageNameTooLongError, StoragePathError

# linux/limits.h; PATH_MAX counts the terminating NUL.
NAME_MAX_BYTES = 255
PATH_MAX_BYTES = 4095


def parse(text: str, *parts: str) -> tuple[str, str]:
    """Split ``'mount:path'`` (or ``'mount'``) and further parts into (mount name, normalised path).

    Raises StoragePathError for ``..``, NUL and empty mount names.
    """
    mount, _, path = text.partition(':')
    if not mount:
        raise StoragePathError(f'{text!r} names no mount: expected "mount:path/to/file"')
    return mount, join(path, *parts)


def join(*parts: str) -> str:
    """Join parts into one normalised path. Raises StoragePathError, StorageNameTooLongError."""
    names = [name for part in parts for name in part.split('/') if name and name != '.']
    for name in names:
        _check(name, parts)
    path = '/'.join(names)
    # Encoded only when it might be too long: this runs for every node that is made.
    if len(path) * 4 > PATH_MAX_BYTES and len(encode(path)) > PATH_MAX_BYTES:
        raise StorageNameTooLongError(f'a path may have {PATH_MAX_BYTES} bytes; {path[:40]!r}… is longer')
    return path


def _check(name: str, parts: tuple[str, ...]) -> None:
    if name == '..':
        raise StoragePathError(f'".." is not allowed in {"/".join(parts)!r}: a path never leaves its mount')
    if '\0' in name:
        raise StoragePathError(f'a path cannot hold a NUL byte: {"/".join(parts)!r}')
    if len(name) * 4 > NAME_MAX_BYTES and len(encode(name)) > NAME_MAX_BYTES:
        raise StorageNameTooLongError(f'a name may have {NAME_MAX_BYTES} bytes; {name[:40]!r}… is longer')


def is_expressible(name: str) -> bool:
    """Whether a name from a server can be one component of a path here; what cannot is hidden from listings."""
    return (
        bool(name)
        and name not in {'.', '..'}
        and '/' not in name
        and '\0' not in name
        and (len(name) * 4 <= NAME_MAX_BYTES or len(encode(name)) <= NAME_MAX_BYTES)
    )


def encode(path: str) -> bytes:
    """The bytes of a path; surrogates stand for bytes that are not UTF-8 (PEP 383), as in the os module."""
    return path.encode('utf-8', 'surrogateescape')


def decode(raw: bytes) -> str:
    """The inverse of encode, for every sequence of bytes."""
    return raw.decode('utf-8', 'surrogateescape')


def is_text(path: str) -> bool:
    """Whether all of a path is UTF-8: some backends keep no other names."""
    return path.isascii() or not any('\udc80' <= letter <= '\udcff' for letter in path)


def shown(mount: str, path: str) -> str:
    """A path as messages name it: 'mount:path', and the root of a mount by the mount alone."""
    return f'{mount}:{path}' if path else mount


def parent(path: str) -> str:
    """The path of the directory that holds this one; the root's parent is the root."""
    return path.rpartition('/')[0]


def basename(path: str) -> str:
    """The last name of a path; ``''`` for the root."""
    return path.rpartition('/')[2]


def child(path: str, name: str) -> str:
    """The path of an entry of a directory. Both are normalised already, which is not checked again."""
    return f'{path}/{name}' if path else name


def is_within(path: str, directory: str) -> bool:
    """Whether a path is the directory itself or below it."""
    return not directory or path == directory or path.startswith(directory + '/')
