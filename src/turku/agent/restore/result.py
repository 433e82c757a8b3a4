"""The progress and the result of a restore, with the problems that occurred.

Progress is shown as a line that changes in a terminal and as an occasional line elsewhere.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from turku.core.cli import output
from turku.core.log import one_line
from turku.core.units import count_of, size

NAMED_LIMIT = 1000
_SHOWN_PROBLEMS = 20
_LINE_SECONDS = 10.0
_ERASE_REST = "\x1b[K"
"""Erases a longer line that was there before."""
_SHOWN_BYTES = 300
"""The part of a path that is shown, because a storage chose its length."""


class ProblemList:
    """The problems of one restore. Not all are kept, because a storage decides how many there are."""

    def __init__(self) -> None:
        self.named: list[str] = []
        """The first ``NAMED_LIMIT`` problems, one sentence each."""
        self.count = 0

    def add(self, path: bytes, what: str) -> None:
        """Add a problem of one path."""
        self.add_general(f"{one_line(path[:_SHOWN_BYTES])} {what}")

    def add_general(self, sentence: str) -> None:
        """Add a problem that concerns no single path."""
        self.count += 1
        if len(self.named) < NAMED_LIMIT:
            self.named.append(sentence)

    def add_unnamed(self, count: int) -> None:
        """Add problems that are only counted."""
        self.count += count

    def extend(self, others: "ProblemList") -> None:
        """Add all problems of another list."""
        for sentence in others.named:
            self.add_general(sentence)
        self.add_unnamed(others.count - len(others.named))


@dataclass(frozen=True)
class RestoreResult:
    """The result of a restore. ``files`` counts everything but directories."""

    state: Literal["whole", "partial", "cancelled"]
    snapshot: str
    target: Path
    files: int = 0
    size_bytes: int = 0
    verified: int = 0
    """Files that have the checksum of the backup."""
    mismatched: int = 0
    unverifiable: int = 0
    """Files that are as the storage has them, and for which the backup recorded no checksum."""
    kept: int = 0
    """Files of the target that ``overwrite`` protected."""
    deleted: int = 0
    warnings: tuple[str, ...] = ()
    """Differences from the backup that reduce no protection, such as attributes that cannot be set."""
    problems: tuple[str, ...] = ()
    further_problems: int = 0
    """The number of problems that are not in ``problems``."""
    seconds: float = 0.0
    owners_restored: bool = False

    @property
    def summary(self) -> str:
        """One sentence for a log or an operator."""
        if self.state == "cancelled":
            return f"nothing more was restored from {self.snapshot}: cancelled"
        return f"{self.snapshot} into {self.target}: {'; '.join(self._parts())}"

    def _parts(self) -> Iterator[str]:
        rate = self.size_bytes / self.seconds if self.seconds > 0 else 0.0
        yield (
            f"{count_of(self.files, 'file')}, {size(self.size_bytes)} in {self.seconds:.1f} s ({size(round(rate))}/s)"
        )
        if self.verified:
            yield f"{self.verified:,} verified by the checksums of the backup"
        if self.unverifiable:
            yield f"{self.unverifiable:,} without a checksum of the backup, as the storage has them"
        if self.mismatched:
            yield f"{self.mismatched:,} NOT as they were backed up"
        if self.kept:
            yield f"{self.kept:,} left as they were"
        if self.deleted:
            yield f"{self.deleted:,} deleted"
        if not self.owners_restored:
            yield "owners were not restored (that takes root)"
        if self.state == "partial":
            yield f"NOT whole: {count_of(len(self.problems) + self.further_problems, 'problem')}"

    def lines(self) -> list[str]:
        """Return the summary and the first problems, for people."""
        shown = [f"  {problem}" for problem in self.problems[:_SHOWN_PROBLEMS]]
        more = len(self.problems) + self.further_problems - len(shown)
        warnings = [f"  {warning}" for warning in self.warnings]
        return [self.summary, *warnings, *shown, *([f"  and {more:,} more"] if more > 0 else [])]


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
        # A dumb terminal cannot write a line anew.
        self._is_terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
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
            # The line has no text from elsewhere, and the guard would show its control characters.
            print(f"\r{line}{_ERASE_REST}", end="", file=output.unguarded(sys.stderr), flush=True)
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
