"""Plots as SVG, each a few panels below each other with one axis of time or bins: no library, nothing to install."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _PANEL, _GAP, _LEFT, _RIGHT, _TOP = 900, 130, 34, 64, 14, 36
_COLOURS = ("#1f5a8a", "#c4592b", "#4b7f3c", "#7a4f9a")


@dataclass(frozen=True)
class Line:
    """Points of a series, drawn as columns from the axis if ``is_bars``."""

    name: str
    points: Sequence[tuple[float, float]]
    is_bars: bool = False


@dataclass(frozen=True)
class Panel:
    """Series on one pair of axes. ``ticks``: where the horizontal axis has which label."""

    title: str
    lines: Sequence[Line]
    first: float
    last: float
    ticks: Sequence[tuple[float, str]]
    shaded: Sequence[tuple[float, float]] = ()
    """Spans behind the series, such as an outage."""


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 0.1
    return next(step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value)


def _panel(panel: Panel, top: int) -> list[str]:
    highest = _round_up(max((y for line in panel.lines for _x, y in line.points), default=1))
    width, bottom = _WIDTH - _LEFT - _RIGHT, top + _PANEL
    span = panel.last - panel.first

    def across(x: float) -> float:
        return round(_LEFT + (x - panel.first) / span * width, 1)

    def up(y: float) -> float:
        return round(bottom - y / highest * _PANEL, 1)

    parts = [f'<text x="{_LEFT}" y="{top - 8}" class="title">{escape(panel.title)}</text>']
    for begin, end in panel.shaded:
        parts.append(
            f'<rect x="{across(begin)}" y="{top}" width="{across(end) - across(begin):.1f}" height="{_PANEL}" '
            'fill="#8888" />'
        )
    for share in (0.0, 0.5, 1.0):
        y = up(highest * share)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" class="grid" />')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" class="number">{_figure(highest * share)}</text>')
    for x, label in panel.ticks:
        parts.append(f'<line x1="{across(x)}" x2="{across(x)}" y1="{top}" y2="{bottom}" class="grid" />')
        parts.append(f'<text x="{across(x)}" y="{bottom + 14}" class="tick">{escape(label)}</text>')
    for number, line in enumerate(panel.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        if line.is_bars:
            step = max(span / max(len(line.points), 1) / span * width - 0.2, 0.5)
            # One path for all of them keeps the file small.
            bars = "".join(f"M{across(x)} {bottom}V{up(y)}h{step:.1f}V{bottom}z" for x, y in line.points if y)
            parts.append(f'<path d="{bars}" fill="{colour}" />')
        elif line.points:
            way = "M" + "L".join(f"{across(x)} {up(y)}" for x, y in line.points)
            parts.append(f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="1.2" />')
        if len(panel.lines) > 1:
            x = _WIDTH - _RIGHT - 150 * (len(panel.lines) - number)
            parts.append(f'<rect x="{x}" y="{top - 17}" width="10" height="10" fill="{colour}" />')
            parts.append(f'<text x="{x + 14}" y="{top - 8}" class="legend">{escape(line.name)}</text>')
    return parts


def drawn(panels: Sequence[Panel]) -> str:
    """The text of an SVG file."""
    height = _TOP + len(panels) * (_PANEL + _GAP + 14)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">',
        "<style>text{fill:#333;font-size:11px}.title{font-size:13px}.number{text-anchor:end}.tick{text-anchor:middle}"
        ".grid{stroke:#bbb;stroke-width:.5}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff" />',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, _TOP + number * (_PANEL + _GAP + 14))
    return "\n".join([*parts, "</svg>\n"])
