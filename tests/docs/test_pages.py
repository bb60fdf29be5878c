"""Every example of the documentation is run: what a page shows, works, and prints what the page says.

The blocks of a page are run in their order, in an empty home of their own: definitions are checked by the real
configuration loader and saved, Python shares its names through the page, commands run in a real shell and mount for
real. A block that cannot be run here says why (see blocks).
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genro_storage import StorageManager, config
from tests.azure_server import running_azure_server
from tests.docs.blocks import MARKS, RUN, SHOWN, Block, Command, blocks_of, commands_of, is_said
from tests.gcs_server import running_gcs_server
from tests.machine import lacks
from tests.mount.mounted import UMOUNT, mounted_below, run
from tests.servers import S3Server

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]

#: The buckets that pages speak of; empty when a page begins.
BUCKETS = ('my-app-uploads', 'my-lake')
#: What pages use that not every machine has (tests/mount/programs.txt).
PROGRAMS = ('getfattr', 'git', 'rsync')
BLOCK_TIMEOUT_S = 40
#: What stands between the outputs of two commands: no program prints it.
_END = '\x1e'


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope='session')
def buckets(s3_server: S3Server) -> S3Server:
    for bucket in BUCKETS:
        s3_server.request('create_bucket', Bucket=bucket)
    return s3_server


@pytest.fixture(scope='module')
def gcs_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_gcs_server(tmp_path_factory.mktemp('gcs')) as server:
        server.request('POST', '/storage/v1/b', json.dumps({'name': 'my-lake'}).encode())
        yield server.endpoint_url


@pytest.fixture(scope='module')
def azure_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_azure_server(tmp_path_factory.mktemp('azure')) as server:
        server.client.create_container('my-archive')
        yield server.endpoint_url


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home, which is the current directory too; nothing is left mounted in it."""
    for name in [name for name in os.environ if name.startswith(('XDG_', 'AWS_', 'GENRO_'))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('LANG', 'C.UTF-8')
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    left = mounted_below(tmp_path)
    for mount in left:
        if run(*UMOUNT, mount.mountpoint, timeout_s=20).returncode:
            run('umount', '-l', mount.mountpoint)
    assert not left, 'the page leaves something mounted'


def is_run(page: Path) -> bool:
    return any(block.is_run for block in blocks_of(page))


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_every_block_of_a_page_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        # In braces: what Sphinx puts in place of the block.
        assert block.language in RUN + SHOWN or block.language.startswith('{'), (
            f'{block.place}: nobody knows how to run {block.language!r}'
        )
        assert set(block.marks) <= set(MARKS), f'{block.place}: unknown mark {block.marks}'
        assert block.marks.get('illustration', 'why') != '', f'{block.place}: say why it is not run'


@pytest.mark.timeout(150)
@pytest.mark.parametrize('page', [*filter(is_run, PAGES)], ids=name_of)
def test_the_examples_of_a_page_do_what_it_says(
    page: Path, home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.parent.name == 'backends' and page.stem not in config.TYPES:
        pytest.skip(f'there are no mounts of type {page.stem} here')
    blocks = blocks_of(page)
    _provide(''.join(block.text for block in blocks if block.is_run), request, monkeypatch)
    names: dict[str, object] = {'__name__': '__main__'}
    printed = ''
    try:
        for block in blocks:
            if 'output' in block.marks:
                assert is_said(block.text, printed), f'{block.place}: it printed\n{printed}'
            elif block.is_run and block.language == 'yaml':
                _check(block, home)
            elif block.is_run and block.language == 'python':
                printed = _execute(block, names)
            elif block.is_run:
                _shell(block, home)
    finally:
        for value in names.values():
            if isinstance(value, StorageManager):
                value.close()


def _provide(texts: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the servers that a page speaks of, with empty buckets, and say where they are as the page has it."""
    for program in PROGRAMS:
        if re.search(rf'^\$ {program}\b', texts, re.MULTILINE) and shutil.which(program) is None:
            lacks(f'the page uses {program}, which is not installed')
    if 'S3_ENDPOINT' in texts:
        server: S3Server = request.getfixturevalue('buckets')
        for bucket in BUCKETS:
            for key in server.keys(bucket):
                server.request('delete_object', Bucket=bucket, Key=key)
        monkeypatch.setenv('S3_ENDPOINT', server.endpoint_url)
        monkeypatch.setenv('AWS_ACCESS_KEY_ID', server.key)
        monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', server.secret)
    if 'GCS_ENDPOINT' in texts:
        monkeypatch.setenv('GCS_ENDPOINT', request.getfixturevalue('gcs_endpoint'))
    if 'AZURE_ENDPOINT' in texts:
        monkeypatch.setenv('AZURE_ENDPOINT', request.getfixturevalue('azure_endpoint'))


def _check(block: Block, home: Path) -> None:
    path = home / block.marks.get('file', 'storage.yaml')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text)
    path.chmod(0o600)
    found, problems = config.check(str(path))
    told = '\n'.join(map(str, problems))
    assert bool(problems) == ('fails' in block.marks), f'{block.place}: {told}'
    assert found.mounts or problems, f'{block.place}: it defines no mount'


def _execute(block: Block, names: dict[str, object]) -> str:
    """Run a Python block; what it printed."""
    # Empty lines in front, so that a traceback shows the line of the page.
    code = compile('\n' * block.line + block.text, str(block.page), 'exec')
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, names)
    return output.getvalue()


def _shell(block: Block, home: Path) -> None:
    """Run a block of commands in one shell, so that each finds the directory and the variables of those before."""
    is_console = block.language == 'console'
    commands = commands_of(block) if is_console else [Command(block.text, '')]
    script = ''.join(f'{command.text}\nprintf "{_END}%s{_END}" $?\n' for command in commands)
    options = [] if is_console else ['-e']
    # Into a file: whoever stays in the background would keep a pipe open.
    with (home.parent / f'{home.name}.output').open('w+') as output:
        done = subprocess.run(
            ['bash', *options, '-c', script],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=BLOCK_TIMEOUT_S,
            check=False,
        )
        output.seek(0)
        parts = output.read().split(_END)
    assert done.returncode == 0, f'{block.place}: {"".join(parts)}'
    outputs, codes = parts[:-1:2], [int(code) for code in parts[1::2]]
    assert len(codes) == len(commands), f'{block.place}: {parts}'
    for command, printed in zip(commands, outputs, strict=True):
        if is_console:
            assert is_said(command.output, printed), f'{block.place}: $ {command.text}\n{printed}'
    failed = [command.text for command, code in zip(commands, codes, strict=True) if code]
    assert bool(failed) == ('fails' in block.marks), f'{block.place}: failed: {failed}\n{"".join(outputs)}'
