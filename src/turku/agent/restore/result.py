"""The result of a restore, with the problems that occurred."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from turku.core.log import one_line
from turku.core.units import size

NAMED_LIMIT = 1000
_SHOWN_PROBLEMS = 20
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

    def extend(self, others: ProblemList) -> None:
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


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 file`` or ``5,000 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
