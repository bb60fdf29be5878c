"""Going to the background and telling the caller how that went.

Owns fork, the pipe back to the command, and where a daemon's log goes. The fork comes before any thread and before any
backend is imported: obstore and event loops do not survive one. Threads: none exist yet.
"""

import ctypes
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from pathlib import Path

_READY = b'\0'
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
#: The largest that glibc takes: from there on, each block is mapped by itself.
_MAPPED_BYTES = 32 << 20
#: What may stay unused at the top of the heap: the ranges that are under way at a time, with what they are made of.
_KEPT_BYTES = 128 << 20
LOG_BYTES = 1 << 20
LOG_FILES = 3


def run_in_background(serve: Callable[[Callable[[], None]], None]) -> str | None:
    """Run serve(on_ready) in a new process; returns in the caller: None once it is ready, else what went wrong.

    An exception of serve before it is ready is told to the caller as its text; serve logs its own after that.
    """
    receive, send = os.pipe()
    if os.fork():
        os.close(send)
        with os.fdopen(receive, 'rb') as answers:
            answer = answers.read()
        if answer == _READY:
            return None
        return answer.decode(errors='replace') or 'the background process ended without a word'
    os.close(receive)
    _serve_in_child(serve, send)
    os._exit(0)


def _serve_in_child(serve: Callable[[Callable[[], None]], None], send: int) -> None:
    told = False

    def tell(answer: bytes) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(send, answer)
            os.close(send)

    def on_ready() -> None:
        _detach()
        tell(_READY)

    try:
        os.setsid()
        os.chdir('/')
        serve(on_ready)
    except BaseException as error:
        logging.getLogger(__name__).critical('ended by an error', exc_info=error)
        tell(str(error).encode() or type(error).__name__.encode())
        os._exit(1)


def _detach() -> None:
    """Let go of the terminal, so that whoever reads the command's output sees its end."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def keep_freed_memory() -> None:
    """Have the C library use freed buffers again, up to a bound, instead of asking the system for each.

    Ranges come in buffers of 8 MiB. Mapped and returned each time, as glibc begins to do from 128 KiB on, they cost
    page faults: to fetch 512 MiB in four ranges at a time took 0.95 s of CPU time, and 0.35 s with buffers kept. All
    threads share one heap: those of their own are unmapped whenever they are empty. mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)  # musl has none, and needs none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def log_file(environ: Mapping[str, str], home: Path) -> Path:
    """Where a daemon logs: in the user's state folder (XDG Base Directory Specification)."""
    state = environ.get('XDG_STATE_HOME', '')
    folder = Path(state) if os.path.isabs(state) else home / '.local' / 'state'
    return folder / 'genro-storage' / 'mount.log'


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """A log of bounded size that only its user can read; each file of it, whatever the umask."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        return open(descriptor, 'a', encoding='utf-8', errors='backslashreplace')


def log_to_file(path: Path) -> None:
    """Log to a file of mode 0600 in a folder of mode 0700, of bounded size."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _log_to(_PrivateLog(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES))


def log_to_terminal() -> None:
    """Log to standard error."""
    _log_to(logging.StreamHandler(sys.stderr))


def _log_to(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter('%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s'))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ('fusefs', 'genro_storage'):
        logging.getLogger(name).setLevel(logging.INFO)
