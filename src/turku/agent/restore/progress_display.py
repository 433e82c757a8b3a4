"""A restore's progress: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from turku.agent.restore.progress import RestoreProgress
from turku.core.cli.output import unguarded
from turku.core.units import size

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LINE_SECONDS = 10.0


class ProgressDisplay:
    """Shows progress on standard error; a context manager."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it is; nothing more is shown."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

    def show(self, progress: RestoreProgress) -> None:
        """Show how far it is."""
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
    """Files, bytes, rate and time left, on one line."""
    files = f"{progress.files:,}" + ("" if progress.files_total is None else f" of {progress.files_total:,}")
    total = progress.size_total_bytes
    sizes = size(progress.size_bytes) + ("" if total is None else f" of {size(total)}")
    rate = progress.size_bytes / progress.seconds if progress.seconds > 0 else 0.0
    left = seconds_left(progress)
    ending = "" if left is None else f", {left:.0f} s left"
    return f"restored {files} files, {sizes}, {size(round(rate))}/s{ending}"


def seconds_left(progress: RestoreProgress) -> float | None:
    """How long it may still take; by bytes and by files, whichever is further behind. None where nobody knows."""
    shares = [
        done / total
        for done, total in (
            (progress.files, progress.files_total),
            (progress.size_bytes, progress.size_total_bytes),
        )
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
    # A narrow terminal gets fewer figures, and each of them whole.
    whole = {name: Column(no_wrap=True, min_width=width) for name, width in _WIDTHS.items()}
    makers: dict[str, Callable[[], ProgressColumn]] = {
        "bar": lambda: BarColumn(bar_width=min(_LONGEST_BAR, console.width - sum(map(_taken, shown)) - 1)),
        "files": lambda: TextColumn("{task.fields[files]}", table_column=whole["files"]),
        "size": lambda: DownloadColumn(table_column=whole["size"]),
        "speed": lambda: TransferSpeedColumn(table_column=whole["speed"]),
        "left": lambda: TimeRemainingColumn(table_column=whole["left"]),
    }
    shown = columns_for(console.width)
    has_bar = console.width - sum(map(_taken, shown)) > _SHORTEST_BAR
    columns = [make() for name, make in makers.items() if name in shown or (name == "bar" and has_bar)]
    bar = Progress(*columns, console=console)
    task = bar.add_task("restore", total=progress.size_total_bytes, files="")
    bar.start()
    return bar, task


_WIDTHS = {"files": 31, "size": 15, "left": 7, "speed": 10}
"""What each part needs at most, the most important first: ``123,456,789/123,456,789 files``, ``123.4/567.8 GB``."""
_SHORTEST_BAR, _LONGEST_BAR = 8, 40


def _taken(part: str) -> int:
    return _WIDTHS[part] + 1


def columns_for(room: int) -> list[str]:
    """Return the parts that a terminal of so many columns has room for, in the order of their rank."""
    shown: list[str] = []
    for part in _WIDTHS:
        if sum(map(_taken, [*shown, part])) <= room:
            shown.append(part)
    return shown
