"""Where journals are: the root of today's configuration, and every one that was used before it.

Owns the user's state folder, the default root in it, and the register of all others, so that a changed option loses
nothing that waits. The default is not in the cache folder: that may be removed by anybody at any time. Threads and
processes: safe; a register file is written whole or not at all, and always with the same content.
"""

import hashlib
import logging
import os
from pathlib import Path

from genro_storage.local_disk import private_directory, sync_directory, write_whole

log = logging.getLogger(__name__)


def state_folder() -> Path:
    """The user's state folder of this program (XDG Base Directory Specification: relative values are ignored)."""
    given = os.environ.get('XDG_STATE_HOME', '')
    return (Path(given) if os.path.isabs(given) else Path.home() / '.local' / 'state') / 'genro-storage'


def default_root(state: Path | None = None) -> Path:
    """Where journals are unless ``cache: path:`` is configured."""
    return (state or state_folder()) / 'journal'


def root_of_cache(path: Path) -> Path:
    """Where journals are if ``cache: path:`` is configured."""
    return path / 'journal'


def known_roots(state: Path | None = None) -> list[Path]:
    """Every root that this user has ever used, the default one first; whether it is there now or not.

    Raises OSError where the register may not be read.
    """
    state = state or state_folder()
    roots = [default_root(state)]
    register = _register(state)
    try:
        names = sorted(os.listdir(register))
    except FileNotFoundError:
        return roots
    for name in names:
        if name.endswith('.tmp'):
            continue
        root = os.fsdecode((register / name).read_bytes())
        if not os.path.isabs(root):
            log.error('%s should hold the path of a journal; it is damaged, and what waits there is not found', name)
        elif Path(root) not in roots:
            roots.append(Path(root))
    return roots


def register_root(root: Path, state: Path | None = None) -> None:
    """Have a root found for ever, whatever is configured then; durable when it returns.

    Raises OSError, StoragePermissionError (the state folder is somebody else's).
    """
    state = state or state_folder()
    if root == default_root(state):
        return
    register = _register(state)
    private_directory(register, durable=True)
    text = os.fsencode(root)
    path = register / hashlib.sha256(text).hexdigest()[:16]
    if not (path.exists() and path.read_bytes() == text):
        write_whole(path, text)
    sync_directory(register)


def _register(state: Path) -> Path:
    return state / 'journals'
