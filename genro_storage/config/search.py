"""Which configuration a command uses where its user named none.

Owns the order of the places and the trust in the current directory. Reads no file: what it finds is a source for load.
An explicitly named file that is missing is an error, never a reason to look further.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from genro_storage.config.definitions import Definition
from genro_storage.config.mount_types import LocalDefinition
from genro_storage.errors import StorageConfigError, StorageNotFoundError, StoragePermissionError

VARIABLE = 'GENRO_STORAGE_CONFIG'
FILE_NAME = 'storage.yaml'
SYSTEM_DIRS = (Path('/etc/genro-storage'),)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A source for ``load``.

    ``announcement``: a line that the user must see. ``scratch``: a folder that whoever mounts creates, with mode 0700.
    """

    source: str | list[Definition]
    announcement: str | None = None
    scratch: Path | None = None


def find_configuration(
    explicit: str | os.PathLike[str] | None,
    env: Mapping[str, str],
    cwd: Path,
    home: Path,
    system_dirs: Sequence[Path] = SYSTEM_DIRS,
) -> Found:
    """The first of: the named file, $GENRO_STORAGE_CONFIG, ./storage.yaml, the user's, the system's, the embedded one.

    Raises StorageNotFoundError for a named file that is missing, StorageConfigError for a ./storage.yaml that others
    could have written, StoragePermissionError where it may not look.
    """
    if explicit is not None:
        return Found(source=_named(explicit, 'named with -c', cwd, home))
    if env.get(VARIABLE):
        return Found(source=_named(env[VARIABLE], f'named by ${VARIABLE}', cwd, home))
    here = cwd / FILE_NAME
    if os.path.lexists(here):
        _check_trust(here)
        return Found(source=str(here), announcement=f'using {here} of the current directory')
    for folder in (_xdg(env, 'XDG_CONFIG_HOME', home / '.config') / 'genro-storage', *system_dirs):
        if _exists(folder / FILE_NAME):
            return Found(source=str(folder / FILE_NAME))
    return _embedded(env, home)


def _named(path: str | os.PathLike[str], by: str, cwd: Path, home: Path) -> str:
    given = Path(path)
    if given.parts[:1] == ('~',):
        given = home.joinpath(*given.parts[1:])
    if not _exists(cwd / given):
        raise StorageNotFoundError(f'{os.fsdecode(path)}: no such configuration file ({by})')
    return str(cwd / given)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise StoragePermissionError(f'{path}: not allowed to look whether this configuration file exists') from error
    except (OSError, ValueError) as error:
        raise StorageConfigError(f'{path}: cannot be a configuration file: {error}') from error
    return True


def _check_trust(path: Path) -> None:
    """Refuse a file that another user put where the caller happens to stand: it could name any path or server."""
    advice = f'to use it all the same, run with -c ./{path.name}'
    try:
        # A link must be the caller's too: a foreign one could point at any of the caller's own files.
        link, target = path.lstat(), path.stat()
    except OSError as error:
        raise StorageConfigError(f'{path}: found here but cannot be examined: {error.strerror}') from error
    if not stat.S_ISREG(target.st_mode):
        raise StorageConfigError(f'{path}: expected a file')
    if {link.st_uid, target.st_uid} != {os.geteuid()}:
        raise StorageConfigError(f'{path}: found here but owned by another user, so not trusted; {advice}')
    if target.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StorageConfigError(
            f'{path}: found here but writable by others, so not trusted; chmod go-w {path.name}, or, {advice}'
        )


def _xdg(env: Mapping[str, str], variable: str, default: Path) -> Path:
    """A base directory; the XDG Base Directory Specification ignores relative values."""
    given = env.get(variable, '')
    return Path(given) if os.path.isabs(given) else default


def _embedded(env: Mapping[str, str], home: Path) -> Found:
    scratch = _xdg(env, 'XDG_DATA_HOME', home / '.local' / 'share') / 'genro-storage' / 'scratch'
    # Definitions, not mappings: a '$' in a home's path is no reference.
    return Found(
        source=[LocalDefinition(name='home', path=str(home)), LocalDefinition(name='scratch', path=str(scratch))],
        scratch=scratch,
    )
