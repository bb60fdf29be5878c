"""Secrets by reference: ``env:NAME``, ``file:PATH`` (its first line), ``keyring:SERVICE/NAME``.

Owns the syntax and the looking up, which is done when a connection is made and not when one is configured, so that what
has changed by then counts. Which keys may hold a reference is said by the definitions. No error here holds a secret.
Threads: values; whatever looks up may wait for the keyring's daemon.
"""

import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from genro_storage.errors import StorageConfigError

log = logging.getLogger(__name__)

# '//' begins the rest of a URL: file://host/path is no reference.
_REFERENCE = re.compile(r'(env|file|keyring):(?!//)')
_VARIABLE = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_KEYRING = re.compile(r'.+/[^/]+')
# No password and no token of today is near it.
_LONGEST_LINE_BYTES = 64 << 10

#: Files about whose mode somebody has been told; adding is atomic.
_told: set[str] = set()


class WrongReferenceError(ValueError):
    """A text begins like a reference and is none. Never holds the text, which may be the secret itself."""


class Reference(msgspec.Struct, frozen=True):
    """Where a secret is. ``name``: of a variable, a path (absolute once it is parsed), or SERVICE/NAME."""

    scheme: str
    name: str

    def __str__(self) -> str:
        return f'{self.scheme}:{self.name}'

    def __repr__(self) -> str:
        return f'Reference({str(self)!r})'

    def look_up(self) -> str:
        """The secret, as it is now. Raises StorageConfigError."""
        try:
            found = _LOOKERS[self.scheme](self.name)
        except StorageConfigError as error:
            raise StorageConfigError(f'{self}: {error}') from error.__cause__
        if not found:
            raise StorageConfigError(f'{self}: is empty')
        return found


def is_reference(text: object) -> bool:
    """Whether a text, not interpolated yet, is meant as one."""
    return isinstance(text, str) and _REFERENCE.match(text) is not None


def parsed(text: str, folder: str) -> Reference:
    """The reference that a text means; relative paths start from ``folder``. Raises WrongReferenceError."""
    scheme, _, name = text.partition(':')
    escape = "a secret that really begins so goes into an environment variable: '${NAME}'"
    if scheme == 'env' and not _VARIABLE.fullmatch(name):
        raise WrongReferenceError(f"expected 'env:NAME' with the name of an environment variable; {escape}")
    if scheme == 'keyring' and not _KEYRING.fullmatch(name):
        raise WrongReferenceError(f"expected 'keyring:SERVICE/NAME'; {escape}")
    if scheme == 'file':
        if not name or '\0' in name:
            raise WrongReferenceError(f"expected 'file:PATH'; {escape}")
        name = os.path.join(folder, os.path.expanduser(name))
    return Reference(scheme, name)


def replaced(
    value: object,
    meant: Callable[[str, object], bool],
    replace: Callable[[Any], object],
    name: str = '',
    depth: int = 24,
) -> object:
    """A value with each leaf in it replaced that is meant, by its dotted name and itself.

    Deeper than interpolation allows it is left as it is.
    """
    if isinstance(value, Mapping) and depth:
        return {
            key: replaced(inner, meant, replace, f'{name}.{key}' if name else str(key), depth - 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple) and depth:
        return [replaced(inner, meant, replace, name, depth - 1) for inner in value]
    return replace(value) if meant(name, value) else value


def holds(value: object) -> bool:
    """Whether there is a reference in a value."""
    if isinstance(value, Mapping):
        return any(holds(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return any(holds(inner) for inner in value)
    return isinstance(value, Reference)


def _of_environment(name: str) -> str:
    found = os.environ.get(name)
    if found is None:
        raise StorageConfigError('this environment variable is not set')
    return found


def _of_file(path: str) -> str:
    try:
        # Not to wait for whoever writes into a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise StorageConfigError('expected a file')
            if mode & stat.S_IWOTH:
                raise StorageConfigError(f'everybody may write it, so it is not trusted; chmod o-w {path}')
            with open(descriptor, 'rb', closefd=False) as file:
                line = file.readline(_LONGEST_LINE_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageConfigError(f'cannot be read: {error.strerror}') from error
    # Not refused: container runtimes hand out secrets as files that everybody inside may read.
    if mode & stat.S_IROTH and path not in _told:
        _told.add(path)
        log.warning('%s: everybody on this machine may read this secret; chmod o-r %s', path, path)
    try:
        return line.decode().rstrip('\r\n')
    except UnicodeDecodeError:
        raise StorageConfigError('its first line is not UTF-8') from None


def _of_keyring(name: str) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise StorageConfigError(
            "needs a package that is not installed: pip install 'genro-storage[keyring]'"
        ) from error
    service, _, user = name.rpartition('/')
    try:
        found = keyring.get_password(service, user)
    except KeyringError as error:
        raise StorageConfigError(f'the keyring does not answer ({type(error).__name__}); is it unlocked?') from error
    if found is None:
        raise StorageConfigError(f'the keyring has no such entry; keyring set {service} {user}')
    return found


_LOOKERS: Mapping[str, Callable[[str], str]] = {'env': _of_environment, 'file': _of_file, 'keyring': _of_keyring}
