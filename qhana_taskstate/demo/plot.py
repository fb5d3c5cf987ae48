"""A scatter plot as SVG, in plain Python."""

from __future__ import annotations

import html
from collections.abc import Sequence

_WIDTH, _HEIGHT, _MARGIN = 640, 480, 48
#: Colours that people with colour blindness can tell apart (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")


def scatter_plot(
    points: Sequence[tuple[float, float]], labels: Sequence[int], titles: Sequence[str], axes: tuple[str, str]
) -> str:
    """Draw points in the colour of their label.

    Args:
        points: x and y of each point.
        labels: A number from 0 for each point.
        titles: What to show when the mouse rests on a point.
        axes: Names of the axes.

    Returns:
        The text of an SVG file.
    """
    xs = _placed([x for x, _ in points], _MARGIN, _WIDTH - _MARGIN)
    ys = _placed([y for _, y in points], _HEIGHT - _MARGIN, _MARGIN)
    circles = "\n".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_COLOURS[label % len(_COLOURS)]}" fill-opacity="0.7">'
        f"<title>{html.escape(title)}</title></circle>"
        for x, y, label, title in zip(xs, ys, labels, titles, strict=True)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n{circles}\n'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">{html.escape(axes[0])}</text>\n'
        f'<text x="16" y="{_HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {_HEIGHT / 2})">'
        f"{html.escape(axes[1])}</text>\n</svg>\n"
    )


def _placed(values: Sequence[float], first: float, last: float) -> list[float]:
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return [first + (value - low) / width * (last - first) for value in values]
