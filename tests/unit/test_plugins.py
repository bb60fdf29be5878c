"""Types of mounts that another package brings along: an example package, built as a wheel and put on the path."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager
from genro_storage.backends.base import Backend
from genro_storage.backends.registry import create
from genro_storage.config import Untrusted, check, definition_from_mapping, literal_secrets, plugins
from genro_storage.config.schema import schema
from genro_storage.errors import StorageConfigError
from genro_storage.runtime import SystemClock
from genro_storage.testing.contract import BackendContract

EXAMPLE = Path(__file__).parents[1] / 'example_plugin'
MOUNT = {'name': 'm', 'type': 'shouting', 'words': 'hello'}


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example as pip would install it."""
    built = tmp_path_factory.mktemp('wheel')
    script = f'import hatchling.build as b; print(b.build_wheel({str(built)!r}))'
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=EXAMPLE, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(built.glob('*.whl'))) as wheel:
        wheel.extractall(built / 'site')
    return built / 'site'


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(plugins, '_loaded', {})


@pytest.mark.usefixtures('installed')
class TestInstalled:
    def test_its_type_is_a_type_like_others(self) -> None:
        with StorageManager() as storage:
            storage.configure([MOUNT])
            assert storage.node('m:words').read_text() == 'HELLO'
            storage.node('m:more').write_text('text')
            assert [node.basename for node in storage.node('m').children()] == ['more', 'words']

    @pytest.mark.parametrize(
        ('mapping', 'told'),
        [
            ({**MOUNT, 'word': 'x'}, "unknown key 'word'; did you mean 'words'?"),
            ({'name': 'm', 'type': 'shouting'}, "key 'words' is missing"),
            ({**MOUNT, 'type': 'shoutin'}, "unknown type 'shoutin'; did you mean 'shouting'?"),
            ({**MOUNT, 'type': 'missing'}, "type 'missing' of the package genro-shouting cannot be loaded"),
            ({**MOUNT, 'type': 'wrong'}, "type 'wrong' of the package genro-shouting is not usable"),
        ],
    )
    def test_what_is_wrong_with_it_is_told_as_of_others(self, mapping: dict[str, Any], told: str) -> None:
        _, problems = check([mapping])
        assert any(told in str(problem) for problem in problems), problems

    def test_its_secrets_are_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        definition = definition_from_mapping({**MOUNT, 'password': 'hunter2'})
        assert 'hunter2' not in repr(definition) + json.dumps(definition.shown())
        assert literal_secrets({**MOUNT, 'password': 'hunter2'}) == ['password']
        monkeypatch.setenv('GENRO_TEST_PASSWORD', 'hunter2')
        late = definition_from_mapping({**MOUNT, 'password': 'env:GENRO_TEST_PASSWORD'})
        assert late.has_references
        assert late.resolved() == definition

    def test_the_schema_lets_it_in(self) -> None:
        assert 'shouting' in json.dumps(schema())

    def test_an_untrusted_source_needs_the_privilege(self) -> None:
        with StorageManager() as storage:
            with pytest.raises(StorageConfigError, match="privilege 'plugins'"):
                storage.configure(Untrusted([MOUNT]))
            storage.configure(Untrusted([MOUNT], allow=['plugins']))
            assert storage.has_mount('m')

    def test_a_type_of_ours_stays_ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A package that calls its type 'memory' gets nothing."""
        metadata = tmp_path / 'usurper-1.0.dist-info'
        metadata.mkdir()
        (metadata / 'METADATA').write_text('Metadata-Version: 2.1\nName: usurper\nVersion: 1.0\n')
        (metadata / 'entry_points.txt').write_text(
            '[genro_storage.backends]\nmemory = genro_shouting:PLUGIN\nshouting = genro_shouting:PLUGIN\n'
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        with StorageManager() as storage:
            storage.add_mount({'name': 'm', 'type': 'memory'})
            assert storage.node('m').children() == []
            with pytest.raises(StorageConfigError, match='several packages: genro-shouting, usurper'):
                storage.add_mount(MOUNT)


@pytest.mark.usefixtures('installed')
class TestItsBackend(BackendContract):
    @pytest.fixture
    def backend(self, installed: None) -> Iterator[Backend]:
        backend = create(definition_from_mapping(MOUNT), SystemClock())
        backend.remove_file('words')
        yield backend
        backend.close()


def test_without_it_the_type_is_unknown() -> None:
    with pytest.raises(StorageConfigError, match="unknown type 'shouting'"):
        StorageManager().add_mount(MOUNT)


def test_the_command_knows_it(site: Path, tmp_path: Path) -> None:
    config = tmp_path / 'storage.json'
    config.write_text(json.dumps([{**MOUNT, 'password': 'hunter2'}]))
    for arguments, expected in ((['check', '--connect'], 'reachable'), (['show'], 'words: hello')):
        done = subprocess.run(
            [
                sys.executable,
                '-c',
                'from genro_storage.cli import main; main()',
                'config',
                arguments[0],
                str(config),
                *arguments[1:],
            ],
            env={**os.environ, 'PYTHONPATH': f'{Path(__file__).parents[2]}:{site}'},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
        assert 'hunter2' not in done.stdout
