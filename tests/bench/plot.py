"""A plot of a benchmark as an SVG: for each workload, the seconds of each peer on one logarithmic axis.

Pure. Drawn here rather than with a plotting library, of which the project would use one dot in a thousand.
"""

import math
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

#: Fill by peer, told apart by those who see no colours too, with their outlines.
COLOURS = {'genro-storage': '#0b6e4f', 'rclone': '#e0a030', 's3fs-fuse': '#5577cc', 'raw file': '#999999'}

_ROW, _LABEL, _WIDTH, _RIGHT, _TOP, _RADIUS = 26, 330, 560, 30, 58, 6
_STYLE = 'text{font:13px sans-serif;fill:#333}.light{fill:#777;font-size:11px}line{stroke:#ddd}circle{stroke:#333}'


class Row(NamedTuple):
    """A workload and the median seconds of each peer."""

    label: str
    seconds: Mapping[str, float]


def dot_plot(title: str, rows: list[Row]) -> str:
    """An SVG document."""
    values = [value for row in rows for value in row.seconds.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(seconds: float) -> float:
        return _LABEL + _WIDTH * (math.log10(seconds) - low) / (high - low)

    height = _TOP + _ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LABEL + _WIDTH + _RIGHT}" height="{height}" role="img">',
        f'<title>{escape(title)}</title><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, colour) in enumerate(COLOURS.items()):
        at = _LABEL + 130 * number
        parts.append(
            f'<circle cx="{at}" cy="36" r="{_RADIUS}" fill="{colour}"/><text x="{at + 11}" y="41">{name}</text>'
        )
    bottom = _TOP + _ROW * len(rows)
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP - 6}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(
            f'<text class="light" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{10.0**power:g} s</text>'
        )
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number + _ROW // 2
        parts.append(f'<line x1="{_LABEL}" y1="{y}" x2="{_LABEL + _WIDTH}" y2="{y}"/>')
        parts.append(f'<text x="{_LABEL - 12}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>')
        # Ours last, so that it is never hidden.
        for name, seconds in sorted(row.seconds.items(), key=lambda item: list(COLOURS).index(item[0]), reverse=True):
            dot = f'<circle cx="{x(seconds):.1f}" cy="{y}" r="{_RADIUS}" fill="{COLOURS[name]}">'
            parts.append(f'{dot}<title>{name}: {seconds:.3f} s</title></circle>')
    return '\n'.join([*parts, '</svg>', ''])
