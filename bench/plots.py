"""Draws what was measured as SVG, by itself: bars side by side need no library."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "figures"
_COLOURS = {"turku": "#1f6f8b", "restic": "#e08e45", "borg": "#6a994e", "rsnapshot": "#9b8bb4"}
_OTHERS = ("#1f6f8b", "#e08e45", "#6a994e", "#9b8bb4", "#b5524f")
_LABEL_WIDTH, _BAR_WIDTH, _BAR_HEIGHT, _GAP = 210, 430, 16, 12


@dataclass(frozen=True)
class Group:
    """Bars that belong together. ``goal`` is drawn as a line across them."""

    title: str
    bars: Mapping[str, float]
    goal: float | None = None


def bars(title: str, unit: str, groups: Sequence[Group], *, each_to_scale_of_its_own: bool = False) -> str:
    """The text of an SVG: groups below each other, a bar for each name.

    With ``each_to_scale_of_its_own`` the longest bar of every group fills the width: for steps that take seconds and
    minutes.
    """
    names = list(dict.fromkeys(name for group in groups for name in group.bars))
    colours = {name: _COLOURS.get(name, _OTHERS[index % len(_OTHERS)]) for index, name in enumerate(names)}
    top = max(_longest(group) for group in groups)
    parts: list[str] = []
    y = 58
    for group in groups:
        scale = _BAR_WIDTH / ((_longest(group) if each_to_scale_of_its_own else top) or 1)
        height = len(group.bars) * (_BAR_HEIGHT + 3)
        parts.append(_text(_LABEL_WIDTH - 12, y + height / 2 + 3, group.title, anchor="end"))
        begin = y
        for name, value in group.bars.items():
            width = max(1.0, value * scale)
            parts.append(
                f'<rect x="{_LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{_BAR_HEIGHT}" fill="{colours[name]}"/>'
            )
            parts.append(_text(_LABEL_WIDTH + width + 6, y + _BAR_HEIGHT - 4, f"{name} {_number(value)}", size=11))
            y += _BAR_HEIGHT + 3
        if group.goal is not None:
            x = _LABEL_WIDTH + group.goal * scale
            parts.append(
                f'<line x1="{x:.1f}" y1="{begin - 3}" x2="{x:.1f}" y2="{y}" stroke="#c0392b" stroke-dasharray="4 3"/>'
            )
        y += _GAP
    width = _LABEL_WIDTH + _BAR_WIDTH + 120
    note = f"{unit}; the dashed line is the goal" if any(group.goal is not None for group in groups) else unit
    head = [_text(14, 24, title, size=16, weight="bold"), _text(14, 42, note, size=11)]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" '
            'font-family="sans-serif" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{y}" fill="#ffffff"/>',
            *head,
            *parts,
            "</svg>",
            "",
        )
    )


def _longest(group: Group) -> float:
    return max((*group.bars.values(), group.goal or 0.0))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(x: float, y: float, content: str, *, size: int = 12, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="#222222">{escape(content)}</text>'
    )


def _data_path(found: Mapping[str, Any]) -> str:
    from bench import document

    wanted = document.goals(found)
    groups = [
        Group(
            document.STEPS[step],
            {name: document.seconds(found, step, name) for name in _COLOURS if name in by_name},
            wanted[step][1],
        )
        for step, by_name in found["steps"].items()
    ]
    title = (
        f"{found['files']:,} files, {found['size_bytes'] / 1e9:.1f} GB: Turku through its tunnel, the others locally"
    )
    return bars(title, "seconds, each step to a scale of its own", groups, each_to_scale_of_its_own=True)


def _modifying_files(found: Mapping[str, Any]) -> str:
    groups = [
        Group(
            f"{case['mode']} on {case['file_system']}", {"taken": case["times_the_file"]}, found["goal_times_the_file"]
        )
        for case in found["cases"]
    ]
    title = f"A file of {found['size_mib']:,} MiB, {found['percent']:g} % changed a day, {found['days']} days"
    return bars(title, "space taken, times the file", groups)


def _background_removal(found: Mapping[str, Any]) -> str:
    groups = [
        Group(
            name, {"alone": statistics.median(each["alone"]), "while it removes": statistics.median(each["meanwhile"])}
        )
        for name, each in found["backups"].items()
    ]
    title = f"Backups while {found['snapshots']} snapshots of {found['files']:,} files are removed"
    return bars(title, "seconds, each to a scale of its own", groups, each_to_scale_of_its_own=True)


PLOTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "data_path": _data_path,
    "modifying_files": _modifying_files,
    "background_removal": _background_removal,
}
"""The plots that are drawn from ``bench/figures/NAME.json``."""


def draw_all(figures: Path) -> None:
    """Draw every plot whose figures are there."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, draw in PLOTS.items():
        file = figures / f"{name}.json"
        if file.exists():
            (DIRECTORY / f"{name}.svg").write_text(draw(json.loads(file.read_text())))
