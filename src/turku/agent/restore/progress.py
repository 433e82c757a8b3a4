"""The progress of a restore, shown as a bar in a terminal and as an occasional line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turku.core.cli.output import unguarded
from turku.core.units import size

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LINE_SECONDS = 10.0


@dataclass(frozen=True)
class RestoreProgress:
    """The part of a restore that is done."""

    files: int
    size_bytes: int
    files_total: int | None
    size_total_bytes: int | None
    seconds: float


class ProgressDisplay:
    """Shows progress on standard error."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._last_line = time.monotonic()

    def close(self) -> None:
        """Stop the bar and leave the terminal as it is."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

    def show(self, progress: RestoreProgress) -> None:
        """Show the progress."""
        if self._is_terminal:
            self._show_bar(progress)
        elif time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            print(progress_line(progress), file=sys.stderr, flush=True)  # noqa: T201

    def _show_bar(self, progress: RestoreProgress) -> None:
        if self._bar is None or self._task is None:
            self._bar, self._task = _new_bar(progress)
        files = (
            f"{progress.files:,}" + ("" if progress.files_total is None else f"/{progress.files_total:,}") + " files"
        )
        self._bar.update(self._task, completed=progress.size_bytes, files=files)


def progress_line(progress: RestoreProgress) -> str:
    """Return files, bytes, rate and remaining time as one line."""
    files = f"{progress.files:,}" + ("" if progress.files_total is None else f" of {progress.files_total:,}")
    total = progress.size_total_bytes
    sizes = size(progress.size_bytes) + ("" if total is None else f" of {size(total)}")
    rate = progress.size_bytes / progress.seconds if progress.seconds > 0 else 0.0
    left = seconds_left(progress)
    ending = "" if left is None else f", {left:.0f} s left"
    return f"restored {files} files, {sizes}, {size(round(rate))}/s{ending}"


def seconds_left(progress: RestoreProgress) -> float | None:
    """Return the estimated remaining time in seconds, by bytes or files, whichever is further behind.

    Returns None where the totals are unknown.
    """
    shares = [
        done / total
        for done, total in ((progress.files, progress.files_total), (progress.size_bytes, progress.size_total_bytes))
        if total
    ]
    share = min(shares, default=0.0)
    return None if share <= 0 else max(0.0, progress.seconds * (1 - share) / share)


def _new_bar(progress: RestoreProgress) -> tuple[Bar, TaskID]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    console = Console(file=unguarded(sys.stderr))
    # A narrow terminal gets fewer columns, and each of them whole.
    whole = {name: Column(no_wrap=True, min_width=width) for name, width in _WIDTHS.items()}
    makers: dict[str, Callable[[], ProgressColumn]] = {
        "bar": lambda: BarColumn(bar_width=min(_LONGEST_BAR, console.width - sum(map(_width, shown)) - 1)),
        "files": lambda: TextColumn("{task.fields[files]}", table_column=whole["files"]),
        "size": lambda: DownloadColumn(table_column=whole["size"]),
        "speed": lambda: TransferSpeedColumn(table_column=whole["speed"]),
        "left": lambda: TimeRemainingColumn(table_column=whole["left"]),
    }
    shown = columns_for(console.width)
    has_bar = console.width - sum(map(_width, shown)) > _SHORTEST_BAR
    columns = [make() for name, make in makers.items() if name in shown or (name == "bar" and has_bar)]
    bar = Progress(*columns, console=console)
    task = bar.add_task("restore", total=progress.size_total_bytes, files="")
    bar.start()
    return bar, task


_WIDTHS = {"files": 31, "size": 15, "left": 7, "speed": 10}
"""The greatest width of each column, such as ``123,456,789/123,456,789 files``. The most important one is first."""
_SHORTEST_BAR, _LONGEST_BAR = 8, 40


def _width(column: str) -> int:
    return _WIDTHS[column] + 1


def columns_for(room: int) -> list[str]:
    """Return the columns that fit into a terminal of this width, the most important one first."""
    shown: list[str] = []
    for column in _WIDTHS:
        if sum(map(_width, [*shown, column])) <= room:
            shown.append(column)
    return shown
