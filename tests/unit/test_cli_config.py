"""genro-storage config: check, show and schema, as somebody at a terminal meets them."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from genro_storage.cli import connecting
from genro_storage.cli.commands import command
from genro_storage.config import S3Definition, load
from tests.archives import zip_of

WRONG = """\
include: [more/*.yaml, gone.yaml]
mounts:
- name: up
  type: s3
  buket: x
  ttl: soon
- {name: two, type: s33}
- name: ok
  type: memory
- name: ok
  type: memory
- &base {name: b, type: s3, bucket: b, key: 'hunter2'}
- <<: *base
  name: c
  region: 7
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home and current folder of a user of this test's own."""
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('CONFIG', 'CACHE', 'DATA', 'STATE'):
        monkeypatch.setenv(f'XDG_{name}_HOME', str(tmp_path / name.lower()))
    monkeypatch.delenv('GENRO_STORAGE_CONFIG', raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*arguments: str) -> Result:
    return CliRunner().invoke(command, ['config', *arguments], catch_exceptions=False)


class TestCheck:
    def test_everything_is_told_at_once_with_line_and_column(self, here: Path) -> None:
        (here / 'more').mkdir()
        (here / 'more' / 'a.yaml').write_text('mounts:\n- name: x/y\n  type: memory\n')
        (here / 'storage.yaml').write_text(WRONG)
        done = config('check', 'storage.yaml')
        assert done.exit_code == 1
        assert done.output.splitlines() == [
            "storage.yaml: line 1, column 24: key 'include': 'gone.yaml': no such file",
            "storage.yaml: line 3, column 3: mount 'up': key 'bucket' is missing; a mount of type s3 needs it",
            "storage.yaml: line 5, column 3: mount 'up': unknown key 'buket'; did you mean 'bucket'?",
            "storage.yaml: line 6, column 8: mount 'up': key 'ttl': expected a time such as '10s', '5m' or a number of "
            "seconds, or 'forever', got 'soon'",
            "storage.yaml: line 7, column 21: mount 'two': unknown type 's33'; did you mean 's3'?",
            "storage.yaml: line 10, column 9: mount 'ok': defined twice, as mount 3 and mount 4",
            "storage.yaml: line 12, column 3: mount 'b': key 'secret': missing; 'key' and 'secret' go together",
            "storage.yaml: line 15, column 11: mount 'c': key 'region': expected text, got 7; put it in quotes",
            "more/a.yaml: line 2, column 9: mount 1: key 'name': expected letters, digits, '_', '-' and '.', not "
            "starting with a dot, got 'x/y'",
        ]
        assert 'hunter2' not in done.output

    def test_json_has_places_too_even_with_tabs(self, here: Path) -> None:
        (here / 'a.json').write_text('[\n\t{"name":"a","type":"memory","ttll":"a\\tb"},\r\n\t{"name": "b"}\n]')
        done = config('check', 'a.json')
        assert done.exit_code == 1
        first, second = done.output.splitlines()
        assert first == "a.json: line 2, column 30: mount 'a': unknown key 'ttll'; did you mean 'ttl'?"
        assert second.startswith("a.json: line 3, column 2: mount 'b': key 'type' is missing; expected one of")

    def test_json_that_is_no_yaml_is_checked_without_places(self, here: Path) -> None:
        (here / 'a.json').write_text(json.dumps([{'name': 'a', 'type': 'memory', 'k' * 2000: 1}]))
        done = config('check', 'a.json')
        assert done.exit_code == 1
        assert done.output.startswith("a.json: mount 'a': unknown key ")

    @pytest.mark.parametrize(('name', 'text'), [('a.yaml', 'mounts: [\n'), ('a.json', '{"mounts": [}')])
    def test_what_cannot_be_parsed_has_its_place(self, here: Path, name: str, text: str) -> None:
        (here / name).write_text(text)
        done = config('check', name)
        assert done.exit_code == 1
        assert done.output.startswith(f'{name}: line ')

    def test_a_file_that_is_right_is_said_to_be(self, here: Path) -> None:
        (here / 'a.yaml').write_text('[{name: a, type: memory}, {name: b, type: s3, bucket: x, secret: env:X, key: k}]')
        done = config('check', 'a.yaml')
        assert (done.exit_code, done.output) == (0, 'a.yaml: 2 mounts, nothing wrong\n')

    def test_a_missing_file_is_an_error(self) -> None:
        done = config('check', 'gone.yaml')
        assert (done.exit_code, done.stderr) == (1, 'Error: gone.yaml: no such configuration file\n')

    def test_without_a_file_it_is_the_one_that_would_be_mounted(self, here: Path) -> None:
        (here / 'storage.yaml').write_text('[{name: a, type: memory}]')
        (here / 'storage.yaml').chmod(0o600)
        done = config('check')
        assert done.exit_code == 0
        assert done.stdout == f'{here}/storage.yaml: 1 mount, nothing wrong\n'
        assert 'of the current directory' in done.stderr

    def test_letters_that_a_terminal_would_obey_are_escaped(self, here: Path) -> None:
        (here / 'a.json').write_text('[{"name": "a", "type": "memory", "\\u001b[31mx": 1}]')
        assert '\x1b' not in config('check', 'a.json').output


class TestConnect:
    @pytest.fixture
    def silent(self) -> Iterator[str]:
        """A server that accepts and never answers."""
        with socket.create_server(('127.0.0.1', 0), backlog=16) as server:
            yield f'http://127.0.0.1:{server.getsockname()[1]}'

    @pytest.fixture
    def closed(self) -> str:
        with socket.create_server(('127.0.0.1', 0)) as server:
            return f'http://127.0.0.1:{server.getsockname()[1]}'

    def test_each_mount_is_tried_and_what_to_do_is_said(self, here: Path, closed: str) -> None:
        (here / 'data').mkdir()
        s3 = f'type: s3, bucket: b, key: k, endpoint_url: {closed}, timeout: 1s'
        (here / 'a.yaml').write_text(
            'mounts:\n- {name: here, type: local, path: data}\n- {name: gone, type: local, path: nothing}\n'
            f'- {{name: down, {s3}, secret: s}}\n- {{name: lost, {s3}, secret: env:NOT_SET_AT_ALL}}\n'
        )
        done = config('check', 'a.yaml', '--connect')
        assert done.exit_code == 1
        summary, near, gone, down, lost = done.output.splitlines()
        assert summary == 'a.yaml: 4 mounts, nothing wrong'
        assert near.startswith("mount 'here' (local): reachable at ")
        assert gone.startswith("mount 'gone' (local): not reachable: ")
        assert gone.endswith('make it, or correct its name')
        assert down.startswith("mount 'down' (s3): not reachable: ")
        assert down.endswith('check its address, and whether the server runs')
        assert lost.endswith("mount 'lost': key 'secret': env:NOT_SET_AT_ALL: this environment variable is not set")

    def test_mounts_are_tried_at_once(self, silent: str) -> None:
        mount = S3Definition(name='a', bucket='b', key='k', secret='s', endpoint_url=silent, timeout_s=1.0)
        began = time.monotonic()
        (alone,) = connecting.try_all([mount])
        one_s = time.monotonic() - began
        began = time.monotonic()
        answers = connecting.try_all([mount] * 6)
        assert time.monotonic() - began < 3 * one_s + 1
        assert [each.is_reachable for each in (alone, *answers)] == [False] * 7
        assert 'longer' in str(alone.problem)

    def test_one_that_never_comes_back_is_told_and_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        held = threading.Event()
        monkeypatch.setattr(connecting.registry, 'create', lambda *_: held.wait(30))
        monkeypatch.setattr(connecting, '_GRACE_S', 0.05)
        mount = S3Definition(name='a', bucket='b', key='k', secret='s', timeout_s=0.01)
        (answer,) = connecting.try_all([mount])
        held.set()
        assert 'no answer within 0.07 s' in str(answer.problem)

    def test_a_mount_that_is_made_of_another_one_is_tried_through_that(self, here: Path) -> None:
        (here / 'a.zip').write_bytes(zip_of({'a': b'1'}))
        (here / 'a.yaml').write_text(
            '- {name: in, type: zip, file: "here:a.zip"}\n- {name: out, type: tar, file: "here:a.tar"}\n'
            '- {name: here, type: local, path: .}\n- {name: part, type: relative, path: "nowhere:d"}\n'
        )
        done = config('check', 'a.yaml', '--connect')
        assert done.exit_code == 1
        _, inside, out, _, part = done.output.splitlines()
        assert inside == "mount 'in' (zip): reachable at zip:here:a.zip"
        assert "the archive 'here:a.tar' is not there" in out
        assert "mount 'part' refers to another one: no mount is named 'nowhere'" in part

    def test_what_is_reachable_ends_with_success(self, here: Path) -> None:
        (here / 'a.yaml').write_text('[{name: a, type: memory}]')
        done = config('check', 'a.yaml', '--connect')
        assert done.exit_code == 0
        assert "mount 'a' (memory): reachable" in done.output


class TestShow:
    FILE = """\
include: more.yaml
defaults: {ttl: 1m}
mounts:
- {name: up, type: s3, bucket: '${B:-box}', key: hunter2, secret: 'env:S', options: {password: hunter2}, umask: '022'}
- {name: at, type: s3, bucket: b, endpoint_url: 'http://me:hunter2@host', ttl: forever}
"""

    @pytest.fixture(autouse=True)
    def files(self, here: Path) -> None:
        (here / 'a.yaml').write_text(self.FILE)
        (here / 'more.yaml').write_text('[{name: m, type: memory}]')

    def test_definitions_are_shown_as_they_count_with_their_sources_and_without_secrets(self) -> None:
        done = config('show', 'a.yaml')
        assert done.exit_code == 0
        assert 'hunter2' not in done.output
        assert [line for line in done.output.splitlines() if line.startswith('#')] == [
            '# from more.yaml',
            '# from a.yaml',
        ]
        m, up, at = yaml.safe_load(done.output)
        assert (m['name'], m['ttl']) == ('m', 10)
        assert up == {
            'name': 'up',
            'type': 's3',
            'bucket': 'box',
            'key': '***',
            'secret': 'env:S',
            'ttl': 60,
            'umask': '022',
            'options': {'password': '***'},
        } | {key: up[key] for key in up if key not in {'ttl', 'umask', 'options', 'key', 'secret', 'bucket'}}
        assert (at['ttl'], at['endpoint_url']) == ('forever', 'http://***@host')

    def test_what_is_shown_means_the_same_where_nothing_is_secret(self, here: Path) -> None:
        text = '[{name: a, type: local, path: x, ttl: 2.5s}, {name: b, type: s3, bucket: b, key: env:K, secret: env:S}]'
        (here / 'plain.yaml').write_text(text)
        (here / 'shown.yaml').write_text(config('show', 'plain.yaml').output)
        assert load(here / 'shown.yaml').mounts == load(here / 'plain.yaml').mounts

    def test_json_for_programs_names_the_source_of_each(self) -> None:
        told = json.loads(config('show', 'a.yaml', '--json').output)
        assert [(each['name'], each['source']) for each in told] == [
            ('m', 'more.yaml'),
            ('up', 'a.yaml'),
            ('at', 'a.yaml'),
        ]

    def test_the_embedded_default_is_called_so(self) -> None:
        assert config('show').output.startswith('# from the embedded default\n- name: home\n')

    def test_what_is_wrong_is_told(self, here: Path) -> None:
        (here / 'bad.yaml').write_text('[{name: a}]')
        done = config('show', 'bad.yaml')
        assert done.exit_code == 1
        assert "mount 'a': key 'type' is missing" in done.stderr


def test_the_schema_is_printed() -> None:
    assert json.loads(config('schema').output)['$schema'].startswith('http://json-schema.org/')


def test_help_has_examples() -> None:
    for name in ('check', 'show', 'schema'):
        assert f'genro-storage config {name}' in config(name, '--help').output
