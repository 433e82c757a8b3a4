"""The range of dates that a file system keeps. It clamps other dates to the range, and no program notices."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from turku.core.log import one_line
from turku.storage.fs import tree

_FAR_SECONDS = 2**55
"""The distance from the epoch, in both directions, of the dates tried. File systems with 64-bit dates keep them."""
_NS = 10**9
_NAMED = 3


@dataclass(frozen=True)
class DateRange:
    """The first and the last date that a file system keeps, in Unix nanoseconds, or None where there is no limit."""

    first_ns: int | None = None
    last_ns: int | None = None


def date_range(directory: Path) -> DateRange:
    """Return the dates that the file system of the directory keeps, tried with a file that has no name.

    A file system that refuses the try counts as unlimited: no backup is to fail for that.
    """
    with suppress(OSError):
        descriptor = tree.create_unnamed_file(directory)
        try:
            return DateRange(_limit_ns(descriptor, -_FAR_SECONDS), _limit_ns(descriptor, _FAR_SECONDS))
        finally:
            os.close(descriptor)
    return DateRange()


def _limit_ns(descriptor: int, far_seconds: int) -> int | None:
    os.utime(descriptor, ns=(far_seconds * _NS, far_seconds * _NS))
    found_ns = os.fstat(descriptor).st_mtime_ns
    return None if found_ns == far_seconds * _NS else found_ns


@dataclass
class DatesAtLimit:
    """Entries of a backup whose date is the first or the last one kept, so that the machine's date may lie beyond."""

    kept: DateRange
    paths: list[bytes] = field(default_factory=list)
    """The first few of these paths."""
    count: int = 0

    @property
    def limits_ns(self) -> tuple[int | None, int | None]:
        """The dates that are searched for."""
        return self.kept.first_ns, self.kept.last_ns

    def note(self, paths: list[bytes], count: int) -> None:
        """Record the number of such entries, and the names of the first few."""
        self.paths, self.count = paths[:_NAMED], count

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return warnings for people, or empty if there is no such entry."""
        if not self.count:
            return ()
        named = ", ".join(one_line(path) for path in self.paths)
        more = f" and {self.count - len(self.paths)} more" if self.count > len(self.paths) else ""
        has = "has" if self.count == 1 else "have"
        return (
            f"{named}{more} {has} the first or the last date that this volume's file system keeps: on the machine the "
            "date may lie beyond (btrfs keeps every date)",
        )
