"""The progress of a restore, shown as a line that changes in a terminal and as an occasional line elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass

from turku.core.units import size

_LINE_SECONDS = 10.0
_ERASE_REST = "\x1b[K"
"""Erases a longer line that was there before."""


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
        self._last_line = time.monotonic()
        self._is_open = False

    def close(self) -> None:
        """End the line, so that what follows has one of its own."""
        if self._is_open:
            print(file=sys.stderr, flush=True)  # noqa: T201
        self._is_open = False

    def show(self, progress: RestoreProgress) -> None:
        """Show the progress."""
        if self._is_terminal:
            line = progress_line(progress)[: shutil.get_terminal_size().columns - 1]
            print(f"\r{line}{_ERASE_REST}", end="", file=sys.stderr, flush=True)  # noqa: T201
            self._is_open = True
        elif time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            print(progress_line(progress), file=sys.stderr, flush=True)  # noqa: T201


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
