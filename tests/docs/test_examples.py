"""What is read of a page: its blocks, their marks, and what a page may leave open of an output."""

from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks_of, commands_of, is_said

PAGE = """\
Text.

<!-- illustration: it needs an account -->
```yaml
- name: a
```

<!-- output -->
Text between a mark and a fence ends the mark.
```python
print(1)
```

"""


@pytest.fixture
def blocks(tmp_path: Path) -> list[Block]:
    page = tmp_path / 'page.md'
    page.write_text(PAGE)
    return blocks_of(page)


def test_blocks_have_their_language_line_and_marks(blocks: list[Block]) -> None:
    told = [(block.language, block.line, block.marks, block.is_run) for block in blocks]
    assert told == [
        ('yaml', 4, {'illustration': 'it needs an account'}, False),
        ('python', 10, {}, True),
    ]


def test_a_block_without_an_end_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text('```python\nprint(1)\n')
    with pytest.raises(ValueError, match=r'page\.md:1'):
        blocks_of(page)


def test_commands_have_what_they_print(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text('```console\n$ one \\\n> two\n1\n2\n$ three\n```\n')
    [block] = blocks_of(page)
    assert [(each.text, each.output) for each in commands_of(block)] == [('one \\\ntwo', '1\n2'), ('three', '')]


@pytest.mark.parametrize(
    ('said', 'printed', 'expected'),
    [
        ('a\nb', 'a\nb\n', True),
        ('a', 'a\nb\n', False),
        ('', '', True),
        ('', 'a\n', False),
        ('a', '', False),
        ('a\n…\nd', 'a\nb\nc\nd\n', True),
        ('a\n…\nd', 'a\nd\n', True),
        ('a … c', 'a b c\n', True),
        ('a … c', 'a b\nc\n', False),
        ('(a.b)', '(aXb)\n', False),
    ],
)
def test_an_output_is_what_is_said_but_for_what_is_left_open(said: str, printed: str, expected: bool) -> None:
    assert is_said(said, printed) is expected
