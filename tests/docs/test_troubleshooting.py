"""The messages that the documentation explains are those of the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What stands for something else in a message, or comes from a constant.
_VARIABLE = re.compile(r'…|/dev/fuse|/etc/fuse\.conf|\$?\{?NAME\}?|\d+')


def explained() -> list[str]:
    """The messages in the tables of the page: what stands in the first column between backticks."""
    text = (ROOT / 'docs' / 'troubleshooting.md').read_text()
    return re.findall(r'^\| `([^`]+)` \|', text, re.MULTILINE)


@pytest.fixture(scope='module')
def code() -> str:
    """All of it, texts that go on in the next line put together."""
    sources = [
        path.read_text() for folder in ('genro_storage', 'fusefs') for path in sorted((ROOT / folder).rglob('*.py'))
    ]
    return re.sub(r"""['"]\s*\n\s*f?['"]""", '', '\n'.join(sources))


def test_there_are_messages() -> None:
    assert len(explained()) > 15


@pytest.mark.parametrize('message', explained())
def test_a_message_that_is_explained_is_one_of_the_code(message: str, code: str) -> None:
    parts = [part.strip(' :') for part in _VARIABLE.split(message)]
    assert any(parts)
    assert [part for part in parts if part and part not in code] == []
