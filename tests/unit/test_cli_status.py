"""genro-storage status, where nothing is mounted: what waits, and what is said of it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from genro_storage.cli import report, text
from genro_storage.cli import survey as survey_module
from genro_storage.cli.commands import command
from genro_storage.cli.survey import Survey, Tree
from genro_storage.manager import StorageManager
from genro_storage.mounted import CacheStatus, MountStatus, TreeStatus
from genro_storage.runtime import SystemClock
from genro_storage.writing.journal import Held, Intent, Journal

ROOT = Path(__file__).parents[2]
DESTINATION = 's3://nowhere.example/bucket'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of this test's own, whose configuration has no mount that anything waits for."""
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('CONFIG', 'CACHE', 'DATA', 'STATE'):
        monkeypatch.setenv(f'XDG_{name}_HOME', str(tmp_path / name.lower()))
    monkeypatch.delenv('GENRO_STORAGE_CONFIG', raising=False)
    monkeypatch.chdir(tmp_path)
    # What else this machine has mounted is nothing of this test's.
    monkeypatch.setattr(survey_module, 'mounts', list)
    return tmp_path


@pytest.fixture
def journal(home: Path) -> Journal:
    """Where whatever runs here notes what waits."""
    return Journal(home / 'state' / 'genro-storage' / 'journal', DESTINATION, SystemClock())


def add(journal: Journal, path: str, content: bytes = b'', **more: Any) -> Held:
    intent = Intent(
        id=journal.new_id(),
        kind='put',
        mount='uploads',
        path=path,
        created_ns=time.time_ns(),
        size_bytes=len(content),
        **more,
    )
    return journal.add(intent, content)


def status(*arguments: str) -> Result:
    return CliRunner().invoke(command, ['status', *arguments], catch_exceptions=False)


def status_json(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = status('--json', *arguments)
    return done.exit_code, json.loads(done.stdout)


def test_where_nothing_is_nothing_is_wrong(home: Path) -> None:
    done = status()
    assert (done.exit_code, done.stdout.split('\n')) == (
        0,
        ['Nothing is mounted.', '', 'Nothing waits to be uploaded.', ''],
    )
    assert list(home.iterdir()) == []


def test_what_waits_with_somebody_at_it_is_not_wrong(journal: Journal) -> None:
    add(journal, 'a/b.txt', b'x' * 1536)
    done = status()
    assert done.exit_code == 0
    assert 'Waiting: 1, 1.5 KiB' in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if 'a/b.txt' in line]
    assert line.split() == ['uploads:a/b.txt', 'file', '1.5', 'KiB', '0', 's', 'waiting']


def test_a_failure_is_told_with_its_reason(journal: Journal) -> None:
    held = add(journal, 'f', b'x')
    for _ in range(3):
        journal.failed(held, PermissionError('the key may not write'))
    done = status()
    assert done.exit_code == 1
    assert 'failed' in done.stdout
    assert '3 attempts: the key may not write' in done.stdout
    code, found = status_json()
    assert (code, found['ok']) == (1, False)
    (item,) = found['waiting']
    assert (item['state'], item['attempts'], item['error']) == ('failed', 3, 'the key may not write')


def test_what_is_parked_is_wrong(journal: Journal) -> None:
    add(journal, 'f', b'x', parked=True)
    code, found = status_json()
    assert (code, found['waiting'][0]['state']) == (1, 'parked')


def test_a_damaged_record_is_named(journal: Journal) -> None:
    record = add(journal, 'f', b'four').data_path.with_suffix('.intent')
    record.write_bytes(b'{')
    code, found = status_json()
    (item,) = found['waiting']
    assert (code, item['state'], item['record'], item['size_bytes']) == (1, 'damaged', str(record), 4)
    assert str(record) in status().stdout


def test_what_no_mount_leads_to_is_told_with_where_it_belongs(journal: Journal) -> None:
    add(journal, 'f', b'x')
    journal.close()
    code, found = status_json()
    assert (code, found['waiting'][0]['state']) == (1, 'not configured')
    assert DESTINATION in status().stdout


def test_what_is_configured_waits_for_the_next_mount(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'folder'
    folder.mkdir()
    config = tmp_path / 'storage.json'
    config.write_text(json.dumps({'mounts': [{'name': 'files', 'type': 'local', 'path': str(folder)}]}))
    with StorageManager() as manager:
        manager.configure(str(config))
        destination = manager.volume('files').backend.destination
    journal = Journal(home / 'state' / 'genro-storage' / 'journal', destination, SystemClock())
    add(journal, 'f', b'x')
    journal.close()
    assert status_json('-c', str(config))[1]['waiting'][0]['state'] == 'waiting'
    done = status('-c', str(config))
    assert done.exit_code == 0
    assert 'no process is at it' in done.stdout
    assert status_json()[1]['waiting'][0]['state'] == 'not configured'


def test_a_configuration_that_cannot_be_read_is_a_problem_and_not_the_end(home: Path, journal: Journal) -> None:
    add(journal, 'f', b'x')
    journal.close()
    done = status('-c', 'missing.yaml')
    assert done.exit_code == 1
    assert 'missing.yaml: no such configuration file' in done.stdout
    assert 'uploads:f' in done.stdout


def test_all_roots_are_looked_into(home: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / 'disk' / 'journal', DESTINATION, SystemClock())
    add(journal, 'elsewhere', b'x')
    assert status_json()[1]['waiting'][0]['path'] == 'elsewhere'
    journal.close()


def test_names_cannot_command_a_terminal(journal: Journal) -> None:
    add(journal, 'red\x1b[31m\nline caf\udce9 [bold]')
    done = status()
    assert r'red\x1b[31m\nline caf\udce9 [bold]' in done.stdout
    assert status_json()[1]['waiting'][0]['path'] == 'red\x1b[31m\nline caf\udce9 [bold]'


def test_a_mountpoint_that_is_none_is_a_problem(home: Path) -> None:
    done = status(str(home))
    assert done.exit_code == 1
    assert f'{home}: genro-storage is not mounted there' in done.stdout


def test_a_tree_is_shown_with_its_mounts_and_its_cache(capsys: pytest.CaptureFixture[str]) -> None:
    told = TreeStatus(
        pid=42,
        mounts=(MountStatus(name='uploads', type='s3', destination=DESTINATION),),
        cache=CacheStatus(path='/cache', limit_bytes=10 << 30, used_bytes=1 << 20),
    )
    survey = Survey(
        time_ns=0,
        trees=[Tree(mountpoint='/mnt/one', status=told), Tree(mountpoint='/mnt/two', problem='gone')],
        items=[],
        problems=[],
    )
    report.show(survey)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ['/mnt/one', 'process', '42'],
        ['uploads', 's3', DESTINATION],
        ['cache:', '1.0', 'MiB', 'of', '10.0', 'GiB', 'in', '/cache'],
        ['/mnt/two', 'gone'],
    ]
    first, second = json.loads(report.as_json(survey))['mounted']
    assert msgspec.convert(first, TreeStatus) == told
    assert (second['mountpoint'], second['problem']) == ('/mnt/two', 'gone')
    assert survey.is_wrong


@pytest.mark.parametrize(
    ('size_bytes', 'expected'),
    [
        (0, '0 bytes'),
        (1023, '1023 bytes'),
        (1024, '1.0 KiB'),
        (102400, '100 KiB'),
        (5 << 40, '5.0 TiB'),
        (1 << 62, '4096 PiB'),
    ],
)
def test_sizes_are_readable(size_bytes: int, expected: str) -> None:
    assert text.size(size_bytes) == expected


@pytest.mark.parametrize(
    ('seconds', 'expected'), [(-1, '0 s'), (59.9, '60 s'), (60, '1 min'), (7200, '2 h'), (200000, '2 d')]
)
def test_ages_are_readable(seconds: float, expected: str) -> None:
    assert text.age(seconds) == expected


def run(*arguments: str, code: str = '', home: Path) -> subprocess.CompletedProcess[str]:
    program = f'import sys; {code}; from genro_storage.cli import main; sys.exit(main({list(arguments)!r}))'
    env = {**os.environ, 'HOME': str(home), 'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize('missing', ['click', 'rich'])
def test_a_package_that_is_missing_is_named_with_what_to_do(tmp_path: Path, missing: str) -> None:
    done = run('status', code=f'sys.modules[{missing!r}] = None', home=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"genro-storage: needs {missing}: pip install 'genro-storage[cli]'\n"


def test_help_comes_at_once(tmp_path: Path) -> None:
    """300 ms on an idle machine; what is imported is what would make it slow, whoever else runs."""
    heavy = ('rich', 'yaml', 'fsspec', 'asyncio', 'obstore', 'fusefs')
    done = run(
        '--help',
        code=f'import atexit; atexit.register(lambda: print([n for n in {heavy} if n in sys.modules]))',
        home=tmp_path,
    )
    assert done.returncode == 0
    assert done.stdout.endswith('[]\n')


@pytest.mark.parametrize('subcommand', ['status', 'sync'])
def test_help_says_what_exit_codes_mean_and_gives_examples(subcommand: str) -> None:
    done = CliRunner().invoke(command, [subcommand, '--help'])
    assert 'Exit code: 0' in done.stdout
    assert f'genro-storage {subcommand}' in done.stdout
