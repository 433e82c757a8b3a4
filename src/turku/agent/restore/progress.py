"""How far a restore is, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from turku.core.units import size

_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class PlannedRestore:
    """What is about to be restored; figures are None where the storage does not know them yet."""

    source: str
    snapshot: str
    moment: str | None
    files: int | None
    size_bytes: int | None
    target: Path
    is_target_empty: bool
    """Whether nothing is there that could be overwritten."""
    was_interrupted: bool
    """Whether an earlier restore into the target did not come to its end."""
    remarks: tuple[str, ...] = ()
    """What the storage says of the snapshot, such as that it is suspicious."""
    copy_bytes: int | None = None
    """The disk space that it takes, which is less than its size where files have holes or several names."""


@dataclass(frozen=True)
class RestoreProgress:
    """What is restored so far."""

    files: int
    size_bytes: int
    files_total: int | None
    size_total_bytes: int | None
    seconds: float


@dataclass(frozen=True)
class RestoreResult:
    """How a restore ended. ``files`` are all that are no directories."""

    state: Literal["whole", "partial", "cancelled"]
    snapshot: str
    target: Path
    files: int = 0
    size_bytes: int = 0
    verified: int = 0
    """Files that have the checksum of the backup."""
    mismatched: int = 0
    unverifiable: int = 0
    """Files that are as the storage has them, and of which the backup left no checksum."""
    kept: int = 0
    """Files that were there, and that ``overwrite`` did not let be replaced."""
    deleted: int = 0
    warnings: tuple[str, ...] = ()
    """What is not as it was, and makes nothing less safe."""
    problems: tuple[str, ...] = ()
    further_problems: int = 0
    """Those beyond the ones that are named."""
    seconds: float = 0.0
    owners_restored: bool = False

    @property
    def summary(self) -> str:
        """One sentence, for a log or an operator."""
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
        """The summary and the first problems, for people."""
        shown = [f"  {problem}" for problem in self.problems[:_SHOWN_PROBLEMS]]
        more = len(self.problems) + self.further_problems - len(shown)
        warnings = [f"  {warning}" for warning in self.warnings]
        return [self.summary, *warnings, *shown, *([f"  and {more:,} more"] if more > 0 else [])]


def count_of(count: int, noun: str) -> str:
    """``1 file``, ``5,000 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
