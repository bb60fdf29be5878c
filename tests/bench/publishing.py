"""What the comparisons with peers have in common beside the peers: their options, and their place in benchmarks.md."""

import argparse
from pathlib import Path


def options(description: str, plot: str) -> argparse.Namespace:
    """The options of a comparison; ``plot``: the name of the file that --docs writes beside benchmarks.md."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--only-ours', action='store_true', help='leave the peers out, while working on a figure')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write all figures there')
    parser.add_argument('--docs', type=Path, metavar='FOLDER', help=f'also update benchmarks.md and {plot} there')
    return parser.parse_args()


def around(page: Path, section: str) -> tuple[str, str]:
    """The text up to a section of a page and from its end on. Raises RuntimeError where it has none."""
    begin, end = f'<!-- {section}: begin -->', f'<!-- {section}: end -->'
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise RuntimeError(f'{page}: the lines {begin} and {end} are missing')
    return before + begin, end + after


def replace(page: Path, section: str, text: str) -> None:
    """Put a text into a section of a page. Raises as around does."""
    before, after = around(page, section)
    page.write_text(f'{before}\n{text}\n{after}')
