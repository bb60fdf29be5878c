"""The site of the documentation: made without a warning, without the network, and complete."""

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from genro_storage.config import TYPES, Definition, Privilege, keys
from tests.machine import lacks

ROOT = Path(__file__).parents[2]
#: Elements that make a browser fetch something.
_FETCHED = re.compile(r'<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)="(?:https?:)?//[^"]*"')


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as make docs builds it."""
    if find_spec('sphinx') is None:
        lacks("the site needs its generator: pip install 'genro-storage[docs]'")
    folder = tmp_path_factory.mktemp('site')
    # Without a network, where that can be arranged.
    apart = ['unshare', '--net'] if _can_be_apart() else []
    done = subprocess.run(
        [*apart, sys.executable, '-m', 'sphinx', '--quiet', '--fail-on-warning', '--keep-going', 'docs', str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    return folder


def _can_be_apart() -> bool:
    return subprocess.run(['unshare', '--net', 'true'], capture_output=True, check=False).returncode == 0


@pytest.mark.timeout(120)
def test_the_site_is_made_without_a_warning_and_without_a_network(site: Path) -> None:
    pages = {path.relative_to(ROOT / 'docs').with_suffix('.html') for path in (ROOT / 'docs').rglob('*.md')}
    assert not [page for page in pages if not (site / page).exists()]


def test_who_reads_it_fetches_nothing_from_elsewhere(site: Path) -> None:
    assert [found for page in site.rglob('*.html') for found in _FETCHED.findall(page.read_text())] == []
    styles = ''.join(path.read_text() for path in site.rglob('*.css'))
    assert re.findall(r'url\(["\']?(?:https?:)?//|@import', styles) == []


def test_every_command_has_its_help(site: Path) -> None:
    text = (site / 'commands.html').read_text()
    for name in ('genro-mount', 'genro-umount', 'genro-storage status', 'genro-storage config check'):
        assert f'<h2>{name}' in text
    assert '--connect' in text


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import genro_storage

    text = (site / 'api.html').read_text()
    assert [name for name in genro_storage.__all__ if f'.{name}"' not in text] == []


def test_every_type_of_mount_has_its_page_and_every_common_key_is_explained() -> None:
    folder = ROOT / 'docs' / 'backends'
    assert [name for name in TYPES if f'<!-- keys: {name} -->' not in (folder / f'{name}.md').read_text()] == []
    text = (ROOT / 'docs' / 'configuration.md').read_text()
    assert [key for key in keys.fields_of(Definition) if key != 'name' and f'`{key}`' not in text] == []
    assert [each.value for each in Privilege if f'| `{each.value}` |' not in text] == []


def test_every_extra_is_in_the_table_of_the_installation() -> None:
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
    text = (ROOT / 'docs' / 'installation.md').read_text()
    # Those that install nothing are names for completeness, and those of developers are make's.
    wanted = {name for name, packages in extras.items() if packages} - {'test', 'bench', 'dev', 'docs'}
    assert [name for name in wanted if f'| `{name}` |' not in text] == []
