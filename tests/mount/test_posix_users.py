"""The POSIX cases of local mounts for users who are not root: the kernel is handed no file of theirs.

And what other users may do when root serves them: posix_users, on a disk and where modes are stored; and what their
allocations and copies do, which is what the disk does for them.
"""

import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.machine import need_root
from tests.mount.mounted import MOUNT, UMOUNT, Mounted, mounted, run, write_config
from tests.mount.posix_table import TABLES
from tests.mount.posix_users import KINDS, OTHER_GID, OTHER_UID, RULES, THIRD_GID, THIRD_UID
from tests.mount.worlds import IS_ROOT, PLAIN_UID, World, world

LOCAL = [(table, case.name) for table, cases in TABLES.items() for case in cases if 'local' in case.on]

#: Each changes the file 'program' without a write, and fails if it could not.
CHANGES = {
    'reserving': 'os.posix_fallocate(file.fileno(), 0, 100_000)',
    'punching a hole': 'assert not ctypes.CDLL(None).fallocate(file.fileno(), 3, ctypes.c_long(0), ctypes.c_long(1))',
    'copying': "os.copy_file_range(os.open('f', os.O_RDONLY), file.fileno(), 3)",
}


@pytest.fixture(scope='module')
def outcomes() -> Iterator[dict[tuple[str, str], str]]:
    """How each case went for a plain user, who has mounted a local folder himself."""
    with world(plain=True) as place:
        yield _run_cases(place)


def _run_cases(place: World) -> dict[tuple[str, str], str]:
    folder = place.directory / 'folder'
    folder.mkdir()
    config = write_config(place.directory, [{'name': 'local', 'type': 'local', 'path': str(folder)}])
    for path in (folder, config):
        os.chown(path, PLAIN_UID if IS_ROOT else os.geteuid(), -1)
    home = str(place.directory)
    done = place.run(*MOUNT, '-c', str(config), str(place.mountpoint), HOME=home)
    assert done.returncode == 0, done.stderr
    outcomes: dict[tuple[str, str], str] = {}
    try:
        for table in TABLES:
            directory = f'{place.mountpoint}/local/{table}'
            place.output('mkdir', directory)
            output = place.output(sys.executable, '-m', 'tests.mount.posix_table', table, 'local', directory)
            outcomes |= {(table, name): outcome for name, outcome in map(json.loads, output.splitlines())}
    finally:
        done = place.run(*UMOUNT, str(place.mountpoint), HOME=home)
        assert done.returncode == 0, done.stderr
    return outcomes


@pytest.mark.parametrize(('table', 'name'), LOCAL)
def test_a_plain_user_has_all_of_a_local_mount(outcomes: dict[tuple[str, str], str], table: str, name: str) -> None:
    assert outcomes[table, name] == ''


@pytest.fixture(scope='module')
def for_others() -> Iterator[Mounted]:
    """A disk, and a mount that keeps modes, for everybody."""
    need_root('serving others needs root')
    with tempfile.TemporaryDirectory(prefix='for-others-') as name:
        Path(name).chmod(0o755)
        folder = Path(name) / 'folder'
        folder.mkdir()
        folder.chmod(0o777)
        definitions = [
            {'name': 'local', 'type': 'local', 'path': str(folder)},
            {'name': 'memory', 'type': 'memory', 'posix': 'store', 'umask': '000'},
        ]
        with mounted(Path(name), definitions, '-o', 'allow_other') as tree:
            tree.folder = folder
            yield tree


def as_user(tree: Mounted, uid: int, script: str, gid: int = OTHER_GID, directory: Path | None = None) -> str:
    identity = [f'--reuid={uid}', f'--regid={gid}', '--clear-groups']
    done = run('setpriv', *identity, sys.executable, '-c', script, cwd=directory or tree.mountpoint / 'local')
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def tried(tree: Mounted, directory: Path, uid: int, gid: int, lines: Sequence[str]) -> str:
    """The errors with which lines of Python fail when a user runs them."""
    script = f"""
import errno, os
for line in {list(lines)!r}:
    try:
        exec(line)
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
    return as_user(tree, uid, script, gid, directory) if lines else ''


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', RULES)
def test_the_rules_for_users_hold_on_a_disk_and_where_modes_are_stored(
    for_others: Mounted, name: str, kind: str
) -> None:
    rule = RULES[name]
    directory = for_others.path(kind, f'rule-{list(RULES).index(name)}')
    for_others.run('mkdir', '-m', '777', directory)
    for_others.sh(rule.made, cwd=directory)
    errors = tried(for_others, directory, OTHER_UID, OTHER_GID, rule.by_other)
    errors += tried(for_others, directory, THIRD_UID, THIRD_GID, rule.by_third)
    assert ' '.join(errors.split()) == rule.errors
    assert ' '.join(for_others.sh(rule.look, cwd=directory).split()) == rule.found


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES.keys())
def test_set_id_bits_go_with_what_another_user_does_and_not_with_what_root_does(
    for_others: Mounted, change: str
) -> None:
    path = for_others.folder / 'program'
    (for_others.folder / 'f').write_bytes(b'new')
    for uid, mode in ((0, 0o6777), (OTHER_UID, 0o777)):
        path.write_bytes(b'old')
        path.chmod(0o6777)
        as_user(for_others, uid, f"import ctypes, os\nwith open('program', 'r+b') as file:\n    {change}")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_nobody_gives_set_group_id_for_a_group_that_he_is_not_in(for_others: Mounted) -> None:
    path = for_others.folder / 'f'
    path.touch()
    for gid, mode in ((OTHER_GID + 1, 0o755), (OTHER_GID, 0o2755)):
        for_others.run('chown', f'{OTHER_UID}:{gid}', 'local/f')
        as_user(for_others, OTHER_UID, "import os; os.chmod('f', 0o2755)")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_file_without_a_name_is_of_who_made_it(for_others: Mounted) -> None:
    script = """
import os
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o640)
os.link(f'/proc/self/fd/{fd}', 'named', dst_dir_fd=os.open('.', os.O_RDONLY), follow_symlinks=True)
"""
    as_user(for_others, OTHER_UID, script)
    found = (for_others.folder / 'named').stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (OTHER_UID, OTHER_GID, 0o640)
