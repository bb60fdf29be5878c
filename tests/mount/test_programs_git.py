"""git on the mounted tree: a repository is whole behind the mount too, and for whoever comes later."""

from pathlib import Path

import pytest

from tests.mount.behind import elsewhere, fetched
from tests.mount.mounted import run
from tests.mount.places import Place
from tests.mount.tools import need
from tests.servers import S3Server

pytestmark = [
    pytest.mark.parametrize('place', ['bucket', 'local'], indirect=True),
    # Hundreds of programs and requests each: seconds on a machine that has nothing else to do.
    pytest.mark.timeout(200),
]
RUN_TIMEOUT_S = 100

#: An identity, and nothing of the machine's own settings.
GIT = """
export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=init.defaultBranch GIT_CONFIG_VALUE_0=main
export GIT_CONFIG_KEY_1=safe.directory GIT_CONFIG_VALUE_1='*'
"""


@pytest.fixture(autouse=True)
def _programs() -> None:
    need('git')


def git_outside(repository: Path, script: str) -> str:
    """Run git on what was fetched from behind the mount."""
    done = run('sh', '-euc', GIT + script, cwd=repository)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(place: Place, script: str) -> str:
    return place.tree.sh(GIT + script, cwd=place.path, timeout_s=RUN_TIMEOUT_S)


def make_repository(place: Place) -> None:
    git(place, 'git init -q repo; cd repo; echo one > a; mkdir sub; seq 2000 > sub/b; git add .; git commit -qm 1')


def test_a_repository_is_made_worked_in_and_collected(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    make_repository(place)
    git(
        place,
        """cd repo
    git status --porcelain | diff - /dev/null
    echo two >> a; echo new > c
    test "$(git status --porcelain)" = "$(printf ' M a\\n?? c')"
    git add c; git commit -qam 2
    git switch -qc side; git mv a moved; git commit -qm side
    git switch -q main; echo main > d; git add d; git commit -qm 3
    git merge -q --no-edit side; git tag -am tag v1; git stash list
    git gc -q; git fsck --strict --full
    git status --porcelain | diff - /dev/null
    """,
    )
    outside = fetched(place, s3_server, tmp_path / 'outside') / 'repo'
    git_outside(outside, 'git fsck --strict --full')
    assert git_outside(outside, 'git log --format=%s').splitlines() == ["Merge branch 'side'", '3', 'side', '2', '1']
    assert place.stored('repo/moved') == b'one\ntwo\n'


def test_a_repository_is_cloned_pushed_to_and_pulled_from(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    make_repository(place)
    git(
        place,
        f"""git clone -q --bare repo bare.git; git clone -q bare.git work; git clone -q bare.git {tmp_path}/away
    cd {tmp_path}/away; echo away > a; git commit -qam away; git push -q
    cd -; cd work; git pull -q --ff-only; test "$(cat a)" = away
    cd ../bare.git; git fsck --strict
    """,
    )
    outside = fetched(place, s3_server, tmp_path / 'outside')
    assert git_outside(outside / 'bare.git', 'git fsck --strict; git log --format=%s').split() == ['away', '1']
    assert place.stored('work/a') == b'away\n'


def test_a_repository_is_clean_to_who_comes_later(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    make_repository(place)
    with elsewhere(place, s3_server, tmp_path / 'elsewhere') as other:
        other.sh(f'{GIT} cd repo; git fsck --strict; git status --porcelain | diff - /dev/null')
        other.sh(f'{GIT} cd repo; echo more >> a; git commit -qam 2; git status --porcelain | diff - /dev/null')


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_large_repository_is_repacked_and_rewritten(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    program = """
import pathlib
for number in range(300):
    folder = pathlib.Path('repo', f'dir{number % 20}')
    folder.mkdir(exist_ok=True)
    folder.joinpath(f'file{number}').write_text(f'line {number}\\n' * number * 10)
"""
    place.tree.run('python3', '-c', 'import pathlib; pathlib.Path("repo").mkdir()' + program, cwd=place.path)
    place.tree.sh(
        f"""{GIT} cd repo; git init -q; git add .; git commit -qm 1
    for i in 1 2 3; do for d in dir*; do echo $i >> $d/new; done; git add .; git commit -qm more; done
    git gc -q --aggressive --prune=now; git fsck --strict --full; git checkout -q HEAD~2; git switch -q main
    git status --porcelain | diff - /dev/null
    """,
        cwd=place.path,
        timeout_s=1000,
    )
    outside = fetched(place, s3_server, tmp_path / 'outside') / 'repo'
    assert len(git_outside(outside, 'git fsck --strict --full; git log --format=%s').splitlines()) == 4
