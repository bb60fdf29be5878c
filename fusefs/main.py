"""genro-mount and genro-umount: the commands.

Owns arguments, exit codes (0; 1: it failed, with one line that says why; 2: wrong usage) and signals. The work is in
session. Threads: signals arrive on the main one, which serves.
"""

import argparse
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fusefs import daemon
from fusefs.transports.devfuse.handshake import HandshakeError
from fusefs.transports.devfuse.mounting import unmount as unmount_now
from fusefs.transports.options import MountError, MountOptions, parse_options
from genro_storage import config
from genro_storage.errors import StorageError

_MOUNT_EXAMPLES = """\
examples:
  genro-mount ~/storage                    the configuration that is found, or your home and a scratch folder
  genro-mount -c storage.yaml ~/storage    the mounts of a file
  genro-mount -f -o ro ~/storage           read-only, in the foreground, logging to the terminal
  genro-umount ~/storage                   commit everything and unmount

Without -c the configuration is $GENRO_STORAGE_CONFIG, ./storage.yaml, ~/.config/genro-storage/storage.yaml or
/etc/genro-storage/storage.yaml, the first that is there.
"""

_UMOUNT_EXAMPLES = """\
example:
  genro-umount ~/storage

Exit code: 0 if it is unmounted and all is uploaded; 1 if it is not, or something is left, with what and why.
"""

#: How long genro-umount waits for the daemon to commit what is open.
DRAIN_TIMEOUT_S = 330.0
#: A mount whose daemon hangs does not answer; then it is unmounted without waiting for that daemon.
ANSWER_TIMEOUT_S = 5.0


def mount(arguments: Sequence[str] | None = None) -> int:
    """The command genro-mount."""
    options = _mount_parser().parse_args(arguments)
    try:
        mount_options = parse_options(','.join(options.options))
        found = config.find_configuration(options.config, os.environ, Path.cwd(), Path.home())
        if found.announcement:
            print(f'genro-mount: {found.announcement}', file=sys.stderr)  # noqa: T201
        mountpoint = Path(os.path.abspath(options.mountpoint))
        created = _make_mountpoint(mountpoint)
    except (MountError, StorageError, OSError) as error:
        return _fail('genro-mount', error)

    def serve(on_ready: Callable[[], None]) -> None:
        _serve(found, mountpoint, mount_options, on_ready)

    try:
        if options.foreground:
            daemon.log_to_terminal()
            serve(lambda: print(f'genro-mount: {mountpoint} is ready; Ctrl-C unmounts', file=sys.stderr))  # noqa: T201
            return 0
        daemon.log_to_file(daemon.log_file(os.environ, Path.home()))
        problem = daemon.run_in_background(serve)
    except (MountError, HandshakeError, StorageError, OSError, TypeError) as error:
        problem = str(error)
    if problem is None:
        return 0
    for directory in created:
        with suppress(OSError):  # somebody has put something there meanwhile
            directory.rmdir()
    return _fail('genro-mount', problem)


def umount(arguments: Sequence[str] | None = None) -> int:
    """The command genro-umount."""
    parser = argparse.ArgumentParser(
        prog='genro-umount',
        description='Commit what is open in a tree that genro-mount mounted, upload what waits, and unmount it.',
        epilog=_UMOUNT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('mountpoint', metavar='MOUNTPOINT', help='the directory')
    mountpoint = os.path.abspath(parser.parse_args(arguments).mountpoint)
    process, destinations = _daemon_of(mountpoint)
    try:
        unmount_now(mountpoint)
    except MountError as error:
        return _fail('genro-umount', error)
    if process is not None and not _wait_for(process, DRAIN_TIMEOUT_S):
        return _fail(
            'genro-umount', f'{mountpoint}: unmounted, but after {DRAIN_TIMEOUT_S:g} s data are still under way'
        )
    left = _left_behind(destinations)
    if left:
        return _fail(
            'genro-umount',
            f'{mountpoint}: unmounted, but {left} file(s) could not be uploaded and wait in the journal for the next '
            'mount (genro-storage status says why)',
        )
    return 0


def _mount_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='genro-mount',
        description='Show each configured mount as a directory of one file system.',
        epilog=_MOUNT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('-c', '--config', metavar='FILE', help='the definitions of the mounts, YAML or JSON')
    parser.add_argument('-f', '--foreground', action='store_true', help='stay, log to the terminal, unmount on Ctrl-C')
    parser.add_argument(
        '-o',
        dest='options',
        metavar='OPTION[,OPTION]',
        action='append',
        default=[],
        help='as in mount(8): ro, allow_other …',
    )
    parser.add_argument('mountpoint', metavar='MOUNTPOINT', help='an empty directory; made if it is missing')
    return parser


def _serve(found: config.Found, mountpoint: Path, options: MountOptions, on_ready: Callable[[], None]) -> None:
    """Configure, mount and serve. In the process that stays."""
    # Imported here: behind the fork, and only by what mounts.
    from fusefs.session import Session
    from genro_storage.manager import StorageManager

    # The kernel sends modes with the umask of the calling program applied; ours would be applied on top.
    os.umask(0)
    daemon.keep_freed_memory()
    if found.scratch is not None:
        found.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = threading.Event()
    # Before anything is mounted: a process that a signal ends would leave a dead mount.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    manager = StorageManager()
    manager.configure(found.source)
    session = Session(manager, mountpoint, options)
    problems: list[BaseException] = []

    def serve() -> None:
        try:
            session.serve(on_ready)
        except BaseException as error:  # noqa: BLE001 - raised again below, by the thread that can tell
            problems.append(error)

    server = threading.Thread(target=serve, name='session')
    server.start()
    while server.is_alive():
        # Signals are handled between waits; the end of the session is noticed by join.
        server.join(0.2)
        if stop.is_set():
            stop.clear()
            session.stop()
    for problem in problems:
        raise problem


def _make_mountpoint(mountpoint: Path) -> list[Path]:
    """Make the directory and its parents where they are missing; what was made, innermost first."""
    made: list[Path] = []
    missing = []
    path = mountpoint
    while not _is_there(path):
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir()
        made.insert(0, directory)
    return made


def _is_there(path: Path) -> bool:
    """Whether a name is taken. A mountpoint counts even if nobody answers for it, and is not looked at."""
    from genro_storage.mountinfo import mount_at, mounts

    return mount_at(path, mounts()) is not None or os.path.lexists(path)


def _daemon_of(mountpoint: str) -> tuple[int | None, set[str]]:
    """A descriptor of the process that serves a mountpoint, to wait for, and where its data go; None if silent."""
    from genro_storage.mounted import ask

    try:
        status = ask(mountpoint, ANSWER_TIMEOUT_S)
        return os.pidfd_open(status.pid), {mount.destination for mount in status.mounts}
    except (StorageError, OSError):
        return None, set()  # dead, or no mount of ours: unmounting will say


def _left_behind(destinations: set[str]) -> int:
    """How many acknowledged files for these destinations are in nobody's hands."""
    from genro_storage.writing.journal_roots import known_roots
    from genro_storage.writing.journal_survey import everything

    waiting = [each for root in known_roots() for each in everything(root) if each.destination in destinations]
    return sum(
        not each.live and each.state != 'parked' and each.intent is not None and each.intent.kind == 'put'
        for each in waiting
    )


def _wait_for(process: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _fail(command: str, problem: object) -> int:
    print(f'{command}: {problem}', file=sys.stderr)  # noqa: T201
    return 1
