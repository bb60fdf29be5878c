"""docs/semantics.md names tests, and each of them exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_test_that_the_document_names_exists() -> None:
    named = set(re.findall(r'`(test_\w+)`', (ROOT / 'docs' / 'semantics.md').read_text()))
    sources = [*ROOT.glob('tests/**/*.py'), *ROOT.glob('genro_storage/testing/**/*.py')]
    defined = {name for source in sources for name in re.findall(r'def (test_\w+)\(', source.read_text())}
    assert len(named) > 30
    assert named - defined == set()
